# A TCP server as a tutorial shows it: a thread for each client, one recv for one message.
import socket
import threading
import time

s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.bind(('127.0.0.1', 0))
s.listen(5)
print(s.getsockname()[1], flush=True)


def tcp_link(sock, addr):
    sock.send(b'welcome')
    while True:
        data = sock.recv(1024)
        time.sleep(0.1)
        if not data or data.decode('utf-8') == 'exit':
            break
        sock.send(('Hello %s' % data.decode('utf-8')).encode('utf-8'))
    sock.close()


while True:
    sock, addr = s.accept()
    t = threading.Thread(target=tcp_link, args=(sock, addr), daemon=True)
    t.start()
