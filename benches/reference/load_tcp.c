/* The TCP load, from one thread with one epoll; it prints one line of results.
 *
 *   load_tcp talk PORT CONNECTIONS DEPTH raw|lines SERVER WARMUP SECONDS
 *       keeps DEPTH requests in flight on each connection (1 under raw, which has no boundaries)
 *   load_tcp greet PORT CONCURRENT SERVER WARMUP SECONDS
 *       connects, reads the greeting, closes
 *   load_tcp hold PORT CONNECTIONS
 *       connects, reads the greetings, says `held` and holds until its stdin ends
 *
 * SERVER is the process whose CPU time is taken (0: none); times are in seconds. */
#include "measure.h"

enum { EVENTS = 256, MOST = 1 << 20, READ = 64 * 1024, DEEPEST = 64, LONGEST = PAYLOAD + 7 };

struct connection {
    uint64_t sent_at[DEEPEST];
    uint32_t first, count;
    uint32_t greeting; /* bytes of it that are still to come */
    uint32_t matched;  /* bytes of the next answer that came already */
};
static struct connection *connections[MOST];
static int epoll;

static int join(int port, uint32_t source) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) die("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (source) { /* Many source addresses: the ports of one are soon all in TIME_WAIT. */
        struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + source)};
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0) die("bind");
    }
    struct sockaddr_in to = loopback(port);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) die("connect");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
    return fd;
}

static char answer[LONGEST + 1];
static size_t answer_size, request_size, greeting_size;
static char requests[DEEPEST * (PAYLOAD + 1)];

static void speak(bool lines) {
    request_size = PAYLOAD + lines;
    answer_size = snprintf(answer, sizeof answer, "Hello %s%s", REQUEST, lines ? "\n" : "");
    greeting_size = strlen("welcome") + lines;
    for (int i = 0; i < DEEPEST; i++) {
        memcpy(requests + i * request_size, REQUEST, PAYLOAD);
        if (lines) requests[i * request_size + PAYLOAD] = '\n';
    }
}

static void ask(int fd, struct connection *c, uint32_t count, uint64_t now) {
    for (uint32_t i = 0; i < count; i++) c->sent_at[(c->first + c->count++) % DEEPEST] = now;
    size_t size = count * request_size;
    /* What is in flight is far less than a socket's buffer holds. */
    if (count && send(fd, requests, size, MSG_NOSIGNAL) != (ssize_t)size) die("send");
}

/* Compares what came with the answers that are due, and says how many are complete. */
static uint32_t take(struct connection *c, const char *in, size_t size, uint64_t now) {
    uint32_t complete = 0;
    while (size) {
        size_t part = answer_size - c->matched < size ? answer_size - c->matched : size;
        if (memcmp(in, answer + c->matched, part) || complete == c->count) {
            run.wrong++;
            if (run.wrong > 1000) fprintf(stderr, "these are no answers\n"), exit(1);
        }
        in += part;
        size -= part;
        c->matched += part;
        if (c->matched == answer_size) {
            record(now - c->sent_at[(c->first + complete++) % DEEPEST]);
            c->matched = 0;
        }
    }
    c->first = (c->first + complete) % DEEPEST;
    c->count -= complete;
    return complete;
}

static void talk(int port, int many, uint32_t depth, double warmup, double seconds) {
    for (int i = 0; i < many; i++) {
        struct connection *c = connections[join(port, 0)] = calloc(1, sizeof *c);
        c->greeting = greeting_size;
    }
    uint64_t warm = now_ns() + (uint64_t)(warmup * 1e9);
    int greeted = 0;
    bool measuring = false;
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, 1000);
        uint64_t now = now_ns();
        if (!measuring && greeted == many && now >= warm) {
            measuring = true;
            begin_measuring(seconds);
        }
        if (measuring && now >= run.end) return report();
        if (!count && now > warm + 10000000000ull) fprintf(stderr, "the server fell silent\n"), exit(1);
        for (int i = 0; i < count; i++) {
            static char in[READ];
            int fd = events[i].data.fd;
            struct connection *c = connections[fd];
            ssize_t got = recv(fd, in, sizeof in, 0);
            if (got <= 0) die(got ? "recv" : "the server closed the connection");
            uint32_t skip = c->greeting < got ? c->greeting : got;
            bool begins = c->greeting && c->greeting == skip;
            c->greeting -= skip;
            greeted += begins;
            now = now_ns();
            uint32_t complete = take(c, in + skip, got - skip, now);
            run.messages += complete;
            ask(fd, c, begins ? depth : complete, now);
        }
    }
}

static void greet(int port, int concurrent, double warmup, double seconds) {
    static uint64_t since[MOST];
    uint32_t sources = 0;
    for (int i = 0; i < concurrent; i++) since[join(port, 1 + sources++ % 200)] = now_ns();
    uint64_t warm = now_ns() + (uint64_t)(warmup * 1e9);
    bool measuring = false;
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, 1000);
        uint64_t now = now_ns();
        if (!measuring && now >= warm) {
            measuring = true;
            begin_measuring(seconds);
        }
        if (measuring && now >= run.end) return report();
        if (!count) fprintf(stderr, "the server fell silent\n"), exit(1);
        for (int i = 0; i < count; i++) {
            char in[64];
            int fd = events[i].data.fd;
            ssize_t got = recv(fd, in, sizeof in, 0);
            if (got != (ssize_t)greeting_size || memcmp(in, "welcome", 7)) run.wrong++;
            close(fd);
            run.messages++;
            record(now_ns() - since[fd]);
            int next = join(port, 1 + sources++ % 200);
            since[next] = now_ns();
        }
    }
}

static void hold(int port, int many) {
    /* A few at a time, so that no backlog overflows. */
    for (int held = 0; held < many;) {
        int some = many - held < 256 ? many - held : 256;
        for (int i = 0; i < some; i++) join(port, 0);
        for (int greeted = 0; greeted < some;) {
            struct epoll_event events[EVENTS];
            int count = epoll_wait(epoll, events, EVENTS, 5000);
            if (count <= 0) fprintf(stderr, "the server fell silent\n"), exit(1);
            for (int i = 0; i < count; i++, greeted++) {
                char in[64];
                if (recv(events[i].data.fd, in, sizeof in, 0) <= 0) die("recv");
            }
        }
        held += some;
    }
    puts("held");
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0) {}
}

int main(int argc, char **argv) {
    raise_descriptors();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (argc == 9 && !strcmp(argv[1], "talk")) {
        run.server = atoi(argv[6]);
        speak(!strcmp(argv[5], "lines"));
        talk(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atof(argv[7]), atof(argv[8]));
    } else if (argc == 7 && !strcmp(argv[1], "greet")) {
        run.server = atoi(argv[4]);
        speak(false);
        greet(atoi(argv[2]), atoi(argv[3]), atof(argv[5]), atof(argv[6]));
    } else if (argc == 4 && !strcmp(argv[1], "hold")) {
        hold(atoi(argv[2]), atoi(argv[3]));
    } else {
        return fprintf(stderr, "see the head of load_tcp.c\n"), 2;
    }
}
