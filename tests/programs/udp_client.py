# A UDP client as a tutorial shows it: python3 udp_client.py PORT
import socket
import sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for data in [b'Genji', b'Hanzo', b'Mcree']:
    s.sendto(data, ('127.0.0.1', int(sys.argv[1])))
    print(s.recv(1024).decode('utf-8'))
s.close()
