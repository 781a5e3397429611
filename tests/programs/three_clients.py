"""Three clients at once, as CPython tests its socketserver: each sends its own lines and checks its own replies.

usage: three_clients.py {tcp|udp|unix|unixgram} ADDRESS [PORT]"""
import os
import socket
import sys
import tempfile
import threading

kind, address = sys.argv[1], sys.argv[2]
families = {
    "tcp": (socket.AF_INET, socket.SOCK_STREAM),
    "udp": (socket.AF_INET, socket.SOCK_DGRAM),
    "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
    "unixgram": (socket.AF_UNIX, socket.SOCK_DGRAM),
    "unixpacket": (socket.AF_UNIX, socket.SOCK_SEQPACKET),
}
family, sort = families[kind]
server = (address, int(sys.argv[3])) if family == socket.AF_INET else address
failures = []
all_connected = threading.Barrier(3)


def exactly(s, size):
    data = b""
    while len(data) < size:
        piece = s.recv(65536)
        if not piece:
            break
        data += piece
    return data


def client(number, folder):
    try:
        with socket.socket(family, sort) as s:
            s.settimeout(20)
            if kind == "unixgram":
                s.bind(os.path.join(folder, str(number)))
            s.connect(server)
            all_connected.wait()
            for turn in range(50):
                said = b"client %d turn %d" % (number, turn)
                s.send(said)
                heard = exactly(s, len(said))
                if heard != said:
                    failures.append((number, said, heard))
    except Exception as error:
        failures.append((number, error))


with tempfile.TemporaryDirectory() as folder:
    threads = [threading.Thread(target=client, args=(number, folder)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
if failures:
    sys.exit(repr(failures))
print("ok")
