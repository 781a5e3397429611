"""Process protocol 1 of greetd (../PROTOCOL.md): one generator function is one handler.

Each `yield` answers: the first one the opening, every other one the message that it returned. Yield bytes to reply,
None to stay silent. Returning ends the session, with last words if there are any. `session.push` sends unprompted.
"""
import json, os, struct, threading, types

_HEADER = struct.Struct("<IBI")
_OPEN, _MESSAGE, _REPLY, _PUSH, _CLOSE, _ERROR, _SILENT = range(1, 8)
_writing = threading.Lock()


def _write(frames):
    with _writing:  # os.write, not print: nothing may wait in a buffer
        while frames:
            frames = frames[os.write(1, frames):]


def _frame(kind, number, payload=b""):
    return _HEADER.pack(len(payload), kind, number) + payload


def _step(talks, number, advance):
    try:
        answer = advance()
        return _frame(_SILENT, number) if answer is None else _frame(_REPLY, number, answer)
    except StopIteration as end:
        frame = _frame(_CLOSE, number, end.value or b"")
    except Exception as error:
        frame = _frame(_ERROR, number, repr(error).encode())
    del talks[number]
    return frame


def _open(talks, number, handlers, about):
    session = types.SimpleNamespace(number=number, **about)
    session.push = lambda message: _write(_frame(_PUSH, number, message))
    talks[number] = handlers[session.handler](session)
    return _step(talks, number, lambda: next(talks[number]))


def serve(**handlers):
    handlers = {name.replace("_", "-"): handler for name, handler in handlers.items()}
    _write(f"greetd-plugin 1 {' '.join(handlers)}\n".encode())
    talks, unread = {}, b""
    while chunk := os.read(0, 65536):  # not sys.stdin.buffer.read: it would wait until its buffer is full
        unread, at, frames = unread + chunk, 0, []
        while len(unread) >= at + 9 + (length := int.from_bytes(unread[at:at + 4], "little")):
            if len(unread) < at + 9:
                break
            _, kind, number = _HEADER.unpack_from(unread, at)
            payload, at = unread[at + 9:at + 9 + length], at + 9 + length
            if kind == _OPEN:
                frames.append(_open(talks, number, handlers, json.loads(payload)))
            elif kind == _MESSAGE and number in talks:
                frames.append(_step(talks, number, lambda: talks[number].send(payload)))
            elif kind == _CLOSE and number in talks:
                talks.pop(number).close()
        unread = unread[at:]
        _write(b"".join(frames))
