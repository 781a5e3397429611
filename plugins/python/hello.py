#!/usr/bin/env python3
"""The tutorial's greeting, on connections and on datagrams."""
from greetd import serve


def py_hello(session):
    word = session.options.get("word", "Hello").encode()
    message = yield b"welcome" if session.connected else None
    while not (session.connected and message == b"exit"):
        message = yield word + (b" " if session.connected else b",") + message


serve(py_hello=py_hello)
