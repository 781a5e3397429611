// The tutorial's greeting, in JavaScript, as a WebAssembly component.

// There is no TextEncoder here: this is the language, and nothing of a browser or of Node.js.
const bytes = (text) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const [welcome, word, comma] = ["welcome", "Hello ", "Hello,"].map(bytes);

const joined = (one, other) => {
  const all = new Uint8Array(one.length + other.length);
  all.set(one);
  all.set(other, one.length);
  return all;
};

class Session {
  constructor(peer) {
    this.connected = peer.connected;
  }

  onOpen() {
    return this.connected ? { tag: "reply", val: welcome } : { tag: "silent" };
  }

  onMessage(message) {
    if (this.connected && String.fromCharCode(...message.slice(0, 5)) === "exit") return { tag: "close", val: [] };
    return { tag: "reply", val: joined(this.connected ? word : comma, message) };
  }

  onClose() {}
}

export const handler = {
  describe: () => ({
    handlers: [{ name: "wasm-js-hello", summary: "greets: welcome, Hello X for each X, until exit" }],
    instances: "per-session",
  }),
  Session,
};
