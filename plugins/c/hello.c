/* The tutorial's greeting. Process protocol 1: ../PROTOCOL.md. Little-endian machines. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPEN = 1, MESSAGE, REPLY, PUSH, CLOSE, ERROR, SILENT };
struct __attribute__((packed)) header { uint32_t length; uint8_t type; uint32_t session; };

static uint32_t capacity;
static char *connected; /* by session: 0 none, 1 datagrams, 2 a connection */

static void all(ssize_t (*move)(int, void *, size_t), int fd, void *data, size_t size) {
    for (ssize_t n; size > 0; data = (char *)data + n, size -= n)
        if ((n = move(fd, data, size)) <= 0) exit(0); /* greetd closed its end */
}

static void answer(uint8_t type, uint32_t session, const char *word, const char *rest, uint32_t size) {
    struct header header = {strlen(word) + size, type, session};
    all((void *)write, 1, &header, sizeof header);
    all((void *)write, 1, (void *)word, strlen(word));
    all((void *)write, 1, (void *)rest, size);
}

int main(void) {
    struct header h;
    for (all((void *)write, 1, "greetd-plugin 1 c-hello\n", 24);;) {
        all(read, 0, &h, sizeof h);
        char *data = calloc(h.length + 1, 1);
        all(read, 0, data, h.length);
        for (; h.session >= capacity; capacity += 4096)
            memset((connected = realloc(connected, capacity + 4096)) + capacity, 0, 4096);
        char *how = &connected[h.session];
        if (h.type == OPEN) *how = strstr(data, "\"connected\":true") ? 2 : 1;
        if (h.type == OPEN) answer(*how == 2 ? REPLY : SILENT, h.session, *how == 2 ? "welcome" : "", "", 0);
        if (h.type == CLOSE || (h.type == MESSAGE && *how == 2 && !strcmp(data, "exit"))) {
            if (*how && h.type == MESSAGE) answer(CLOSE, h.session, "", "", 0);
            *how = 0;
        } else if (h.type == MESSAGE && *how) answer(REPLY, h.session, *how == 2 ? "Hello " : "Hello,", data, h.length);
        free(data);
    }
}
