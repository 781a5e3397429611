#!/usr/bin/env python3
"""The greeting without the helper module: all that the protocol takes, in one file."""
import json
import os
import struct

OPEN, MESSAGE, REPLY, PUSH, CLOSE, ERROR, SILENT = range(1, 8)


def read(size):
    data = b""
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            raise SystemExit  # greetd closed its end: nobody needs this plugin any more
        data += chunk
    return data


def answer(kind, session, payload=b""):
    os.write(1, struct.pack("<IBI", len(payload), kind, session) + payload)


connected = {}
os.write(1, b"greetd-plugin 1 plain-hello\n")
while True:
    length, kind, session = struct.unpack("<IBI", read(9))
    payload = read(length)
    if kind == OPEN:
        connected[session] = json.loads(payload)["connected"]
        answer(REPLY, session, b"welcome") if connected[session] else answer(SILENT, session)
    elif kind == MESSAGE and session in connected:
        if connected[session] and payload == b"exit":
            del connected[session]
            answer(CLOSE, session)
        else:
            answer(REPLY, session, b"Hello" + (b" " if connected[session] else b",") + payload)
    elif kind == CLOSE:
        connected.pop(session, None)
