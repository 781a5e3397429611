#!/usr/bin/env python3
"""The tutorial's greeting for one peer, on stdin and stdout: greetd -H 'exec:plugins/exec/hello.py'"""
import os

connected = os.environ["GREETD_CONNECTED"] == "yes"
if connected:
    os.write(1, b"welcome")
while message := os.read(0, 65536):
    if connected and message == b"exit":
        break
    os.write(1, (b"Hello " if connected else b"Hello,") + message)
