// A greetd plugin in C, as a WebAssembly component: write these four, and greetd.c does the rest.
// It is made for one session an instance, so what is static belongs to one session.
#pragma once
#include <stdbool.h>
#include <stddef.h>

typedef struct { const char *at; size_t size; } bytes;
typedef struct { bytes name, value; } pair;
typedef struct { const pair *at; size_t count; } pairs;

typedef struct {
    bytes handler, transport, local, remote;
    bool connected;
    pairs options, facts;
} peer;

typedef struct { enum { REPLY, SILENT, CLOSE } kind; bytes message; } action;

// The handler's name, and what it does.
extern const bytes greetd_name, greetd_summary;
// The conversation is open; `who` stays valid.
action greetd_open(const peer *who);
// A message came. It stays valid, like all that `greetd_room` gives, until the answer has left.
action greetd_message(bytes message);
// The peer will send no more.
void greetd_close(void);

// Memory for an answer: until it has left.
char *greetd_room(size_t size);
// A line in greetd's log.
enum { DEBUG, INFO, WARN, ERROR };
void greetd_log(int level, bytes line);

#define TEXT(literal) ((bytes){ literal, sizeof(literal) - 1 })
