/* The TCP reference: one thread, one epoll, no memory for an idle connection.
 *
 *   tcp raw     what one read brings is a message
 *   tcp lines   a line feed ends a message; all answers to what one read brings leave in one write
 *
 * It greets with `welcome` and answers X with `Hello X`. A write that the kernel takes only in part is finished when
 * there is room, and until then nothing is read from that connection. */
#include "listening.h"
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/resource.h>

enum { EVENTS = 256, READ = 64 * 1024, DESCRIPTORS = 1 << 20 };

/* What a connection keeps while it is in the middle of something; most of the time nothing. */
struct rest {
    char *bytes;
    size_t size;
};
static struct rest unread[DESCRIPTORS], unsent[DESCRIPTORS];

static void keep(struct rest *rest, const char *bytes, size_t size) {
    rest->bytes = size ? memcpy(realloc(rest->bytes, size), bytes, size) : (free(rest->bytes), NULL);
    rest->size = size;
}

static void end(int fd) {
    keep(&unread[fd], NULL, 0);
    keep(&unsent[fd], NULL, 0);
    close(fd);
}

static void wait_for(int epoll, int fd, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll, how, fd, &event) < 0) die("epoll_ctl");
}

static bool answer(int epoll, int fd, const char *bytes, size_t size) {
    ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return false;
    sent = sent < 0 ? 0 : sent;
    if ((size_t)sent == size) return true;
    char *left = malloc(size - sent);
    memcpy(left, bytes + sent, size - sent);
    free(unsent[fd].bytes);
    unsent[fd] = (struct rest){left, size - sent};
    wait_for(epoll, fd, EPOLLOUT, EPOLL_CTL_MOD);
    return true;
}

/* Answers each whole line, and says how many bytes they had. */
static size_t answer_lines(const char *in, size_t size, char *out, size_t *written) {
    size_t start = 0;
    *written = 0;
    for (const char *end; (end = memchr(in + start, '\n', size - start)); start = end - in + 1) {
        size_t length = end - (in + start) + 1;
        memcpy(out + *written, "Hello ", 6);
        memcpy(out + *written + 6, in + start, length);
        *written += 6 + length;
    }
    return start;
}

static bool serve(int epoll, int fd, bool lines) {
    static char in[2 * READ], out[16 * READ];
    struct rest *rest = &unread[fd];
    size_t held = rest->size;
    memcpy(in, rest->bytes ? rest->bytes : "", held);
    ssize_t count = recv(fd, in + held, READ, 0);
    if (count <= 0) return count < 0 && errno == EAGAIN;
    if (!lines) {
        memcpy(out, "Hello ", 6);
        memcpy(out + 6, in, count);
        return answer(epoll, fd, out, count + 6);
    }
    size_t size = held + count, written, done = answer_lines(in, size, out, &written);
    if (size - done >= READ) return false;
    if (held || done < size) keep(rest, in + done, size - done);
    return !written || answer(epoll, fd, out, written);
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: tcp raw|lines\n"), 2;
    bool lines = !strcmp(argv[1], "lines");
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int listener = listening("tcp", SOCK_STREAM | SOCK_NONBLOCK), epoll = epoll_create1(EPOLL_CLOEXEC), on = 1;
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (listen(listener, 4096) < 0) die("listen");
    wait_for(epoll, listener, EPOLLIN, EPOLL_CTL_ADD);
    const char *welcome = lines ? "welcome\n" : "welcome";
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                for (int new; (new = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
                    wait_for(epoll, new, EPOLLIN, EPOLL_CTL_ADD);
                    if (!answer(epoll, new, welcome, strlen(welcome))) end(new);
                }
            } else if (unsent[fd].size) {
                struct rest left = unsent[fd];
                unsent[fd] = (struct rest){0};
                wait_for(epoll, fd, EPOLLIN, EPOLL_CTL_MOD);
                if (!answer(epoll, fd, left.bytes, left.size)) end(fd);
                free(left.bytes);
            } else if (!serve(epoll, fd, lines)) {
                end(fd);
            }
        }
    }
}
