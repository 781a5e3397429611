/* The tutorial's greeting. Process protocol 1: ../PROTOCOL.md. For little-endian machines. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, MESSAGE, REPLY, PUSH, CLOSE, ERROR, SILENT };
struct __attribute__((packed)) header { uint32_t length; uint8_t type; uint32_t session; };
struct talk { uint32_t session; int connected; struct talk *next; } *talks;

static void take(void *data, size_t size) {
    for (ssize_t n; size > 0; data = (char *)data + n, size -= n)
        if ((n = read(0, data, size)) <= 0) exit(0); /* greetd needs us no more */
}

static void answer(uint8_t type, uint32_t session, char *word, char *rest, uint32_t size) {
    struct header header = {strlen(word) + size, type, session};
    struct iovec parts[] = {{&header, sizeof header}, {word, strlen(word)}, {rest, size}};
    if (writev(1, parts, 3) < 0) exit(1); /* a blocking write is a whole one */
}

int main(void) {
    struct header h;
    if (write(1, "greetd-plugin 1 c-hello\n", 24) < 0) return 1;
    for (;;) {
        take(&h, sizeof h);
        char *data = calloc(h.length + 1, 1);
        take(data, h.length);
        struct talk **at = &talks, *talk;
        while (*at && (*at)->session != h.session) at = &(*at)->next;
        if (h.type == OPEN) {
            *(*at = malloc(sizeof *talk)) = (struct talk){h.session, strstr(data, "\"connected\":true") != NULL, NULL};
            answer((*at)->connected ? REPLY : SILENT, h.session, (*at)->connected ? "welcome" : "", "", 0);
        } else if ((talk = *at) && (h.type == CLOSE || (h.type == MESSAGE && talk->connected && !strcmp(data, "exit")))) {
            if (h.type == MESSAGE) answer(CLOSE, h.session, "", "", 0);
            *at = talk->next, free(talk);
        } else if (talk && h.type == MESSAGE) {
            answer(REPLY, h.session, talk->connected ? "Hello " : "Hello,", data, h.length);
        }
        free(data);
    }
}
