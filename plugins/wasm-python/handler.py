"""The tutorial's greeting, in Python, as a WebAssembly component."""

from wit_world import exports
from wit_world.exports.handler import About, Description, Instances
from wit_world.imports.types import Action_Close, Action_Reply, Action_Silent


class Handler(exports.Handler):
    def describe(self):
        return Description([About("wasm-py-hello", "greets: welcome, Hello X for each X, until exit")], Instances.SHARED)


class Session(exports.handler.Session):
    def __init__(self, peer):
        self.connected = peer.connected

    def on_open(self):
        return Action_Reply(b"welcome") if self.connected else Action_Silent()

    def on_message(self, message):
        if self.connected and message == b"exit":
            return Action_Close(b"")
        return Action_Reply((b"Hello " if self.connected else b"Hello,") + message)

    def on_close(self):
        pass
