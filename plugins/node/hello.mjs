#!/usr/bin/env node
// The tutorial's greeting: a generator is a session, and each yield answers (../PROTOCOL.md).
import { readSync, writeSync } from "node:fs";

function* hello(session) {
  let message = yield session.connected ? "welcome" : null;
  while (!(session.connected && message.equals(Buffer.from("exit")))) {
    message = yield Buffer.concat([Buffer.from(session.connected ? "Hello " : "Hello,"), message]);
  }
}

const [OPEN, MESSAGE, REPLY, , CLOSE, , SILENT] = [1, 2, 3, 4, 5, 6, 7];
const sessions = new Map();

function frame(number, { done, value }) {
  if (done) sessions.delete(number);
  const payload = Buffer.from(value ?? "");
  const header = Buffer.alloc(9);
  header.writeUInt32LE(payload.length, 0);
  header.writeUInt8(done ? CLOSE : value == null ? SILENT : REPLY, 4);
  header.writeUInt32LE(number, 5);
  return Buffer.concat([header, payload]);
}

writeSync(1, "greetd-plugin 1 node-hello\n");
const chunk = Buffer.alloc(65536);
for (let unread = Buffer.alloc(0), size; (size = readSync(0, chunk)) > 0; ) {
  unread = Buffer.concat([unread, chunk.subarray(0, size)]);
  for (let length; unread.length >= 9 && unread.length >= 9 + (length = unread.readUInt32LE(0)); ) {
    const [kind, number, payload] = [unread[4], unread.readUInt32LE(5), unread.subarray(9, 9 + length)];
    if (kind === OPEN) sessions.set(number, hello(JSON.parse(payload)));
    if (sessions.has(number) && kind <= MESSAGE) writeSync(1, frame(number, sessions.get(number).next(payload)));
    if (kind === CLOSE) sessions.delete(number);
    unread = unread.subarray(9 + length);
  }
}
