# A client on a Unix socket as a tutorial shows it: python3 unix_client.py PATH
import socket
import sys

s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.connect(sys.argv[1])
print(s.recv(1024).decode('utf-8'))
for data in [b'Genji', b'Hanzo', b'Mcree']:
    s.send(data)
    print(s.recv(1024).decode('utf-8'))
s.send(b'exit')
s.close()
