# A UDP server as a tutorial shows it.
import socket

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('127.0.0.1', 0))
print(s.getsockname()[1], flush=True)
while True:
    data, addr = s.recvfrom(1024)
    s.sendto(b'Hello,%s' % data, addr)
