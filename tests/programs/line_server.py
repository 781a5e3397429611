# A server of lines, as the documentation of Python's socketserver shows it.
import socketserver


class UpperCase(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())


with socketserver.ThreadingTCPServer(('127.0.0.1', 0), UpperCase) as server:
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
