// The canonical ABI of greetd:plugin@1.0.0, by hand: what a guest exports and imports, as plain functions.
// https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md
#include "greetd.h"

#define EXPORT(name) __attribute__((export_name("greetd:plugin/handler@1.0.0#" name)))
#define POST(name) __attribute__((export_name("cabi_post_greetd:plugin/handler@1.0.0#" name)))

__attribute__((import_module("greetd:plugin/host@1.0.0"), import_name("log")))
extern void import_log(int level, const char *at, size_t size);
__attribute__((import_module("[export]greetd:plugin/handler@1.0.0"), import_name("[resource-new]session")))
extern int import_session(void *session);

// Memory is given out from here on upwards, and taken back all at once when an answer has left. What the session was
// opened with lies below `kept`.
extern char __heap_base;
static char *next, *kept;

static char *room(size_t size, size_t align) {
    if (!next) next = kept = &__heap_base;
    char *at = (char *)(((size_t)next + align - 1) & -align);
    size_t have = __builtin_wasm_memory_size(0) << 16;
    if (size > have - (size_t)at) {
        size_t pages = (size - (have - (size_t)at) + 0xffff) >> 16;
        if (__builtin_wasm_memory_grow(0, pages) == (size_t)-1) __builtin_trap();
    }
    next = at + size;
    return at;
}

char *greetd_room(size_t size) { return room(size, 1); }
void greetd_log(int level, bytes line) { import_log(level, line.at, line.size); }

__attribute__((export_name("cabi_realloc")))
void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    char *at = room(size, align);
    if (old_size) __builtin_memcpy(at, old, old_size < size ? old_size : size);
    return at;
}

EXPORT("describe") const void *describe(void) {
    static struct { bytes name, summary; } about;
    static struct { const void *handlers; size_t count; unsigned char instances; } description = { &about, 1, 0 };
    about.name = greetd_name;
    about.summary = greetd_summary;
    return &description;
}

static peer who;

#define BYTES(name) const char *name##_at, size_t name##_size
#define PAIRS(name) const pair *name##_at, size_t name##_count
#define FILLED(name) { name##_at, name##_size }

EXPORT("[constructor]session") int session_new(BYTES(handler), BYTES(transport), BYTES(local), BYTES(remote),
                                               int connected, PAIRS(options), PAIRS(facts)) {
    who = (peer){ FILLED(handler), FILLED(transport), FILLED(local), FILLED(remote), connected,
                  { options_at, options_count }, { facts_at, facts_count } };
    kept = next;
    return import_session(&who);
}

static const action *answer(action given) {
    static action kept_answer;
    kept_answer = given;
    return &kept_answer;
}

EXPORT("[method]session.on-open") const action *on_open(peer *self) { return answer(greetd_open(self)); }
EXPORT("[method]session.on-message") const action *on_message(peer *self, const char *at, size_t size) {
    return answer(greetd_message((bytes){ at, size }));
}
EXPORT("[method]session.on-close") void on_close(peer *self) { greetd_close(); }
EXPORT("[dtor]session") void session_drop(peer *self) {}

// The answer has left.
POST("[method]session.on-open") void opened(void *answer) { next = kept; }
POST("[method]session.on-message") void answered(void *answer) { next = kept; }
