// The tutorial's greeting, as a WebAssembly component.
#include "greetd.h"

const bytes greetd_name = TEXT("wasm-c-hello"), greetd_summary = TEXT("greets: welcome, Hello X for each X, until exit");
static bool connected;

static bool same(bytes a, bytes b) { return a.size == b.size && __builtin_memcmp(a.at, b.at, a.size) == 0; }

action greetd_open(const peer *who) {
    connected = who->connected;
    return connected ? (action){ REPLY, TEXT("welcome") } : (action){ SILENT };
}

action greetd_message(bytes name) {
    if (connected && same(name, TEXT("exit"))) return (action){ CLOSE };
    bytes word = connected ? TEXT("Hello ") : TEXT("Hello,");
    char *text = greetd_room(word.size + name.size);
    __builtin_memcpy(text, word.at, word.size);
    __builtin_memcpy(text + word.size, name.at, name.size);
    return (action){ REPLY, { text, word.size + name.size } };
}

void greetd_close(void) {}
