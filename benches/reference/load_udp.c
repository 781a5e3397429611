/* The UDP load, from one thread; it prints one line of results.
 *
 *   load_udp sockets PORT SOCKETS DEPTH single|gso SERVER WARMUP SECONDS
 *       keeps DEPTH requests in flight on each of SOCKETS connected sockets; `gso` sends and receives them joined
 *       (UDP_SEGMENT, UDP_GRO)
 *   load_udp peers PORT PEERS DEPTH SERVER WARMUP SECONDS
 *       keeps DEPTH requests in flight over all of PEERS source addresses in 127/8, all from one socket
 *
 * What was not answered within 200 ms is lost, and asked again. SERVER is the process whose CPU time is taken (0: none);
 * times are in seconds. */
#include "measure.h"

enum { EVENTS = 256, SOCKETS = 16384, DEEPEST = 64, READ = 64 * 1024, ANSWER = PAYLOAD + 6, BUFFER = 4 << 20 };
static const uint64_t PATIENCE = 200000000;

struct sender {
    int fd;
    uint32_t in_flight;
    uint64_t asked, heard;
};
static struct sender senders[SOCKETS];
static char requests[DEEPEST * PAYLOAD], expected[ANSWER + 1];

static void enlarge(int fd) {
    int size = BUFFER;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
}

static void ask(struct sender *s, uint32_t count, bool gso, uint64_t now) {
    s->asked = now;
    s->in_flight += count;
    if (gso && count) send(s->fd, requests, count * PAYLOAD, 0);
    for (uint32_t i = 0; !gso && i < count; i++) send(s->fd, requests, PAYLOAD, 0);
}

static uint32_t take(const char *in, size_t size) {
    uint32_t count = 0;
    for (; size >= ANSWER; size -= ANSWER, in += ANSWER, count++) run.wrong += memcmp(in, expected, ANSWER) != 0;
    run.wrong += size != 0;
    return count;
}

static void hear(struct sender *s, bool gso) {
    static char in[READ];
    uint32_t answers = 0;
    for (ssize_t got; answers < s->in_flight && (got = recv(s->fd, in, sizeof in, MSG_DONTWAIT)) > 0;)
        answers += take(in, got);
    uint64_t now = now_ns();
    if (answers) record(now - s->asked);
    s->heard = now;
    run.messages += answers;
    s->in_flight -= answers < s->in_flight ? answers : s->in_flight;
    ask(s, answers, gso, now);
}

static void sockets(int port, int many, uint32_t depth, bool gso, double warmup, double seconds) {
    int epoll = epoll_create1(EPOLL_CLOEXEC), on = 1, segment = PAYLOAD;
    struct sockaddr_in to = loopback(port);
    for (int i = 0; i < many; i++) {
        int fd = senders[i].fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0) die("connect");
        enlarge(fd);
        if (gso && (setsockopt(fd, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment) < 0 ||
                    setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on) < 0))
            die("setsockopt(UDP_SEGMENT, UDP_GRO)");
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        ask(&senders[i], depth, gso, senders[i].heard = now_ns());
    }
    uint64_t warm = now_ns() + (uint64_t)(warmup * 1e9), looked = 0;
    for (bool measuring = false;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, 100);
        uint64_t now = now_ns();
        if (!measuring && now >= warm) {
            measuring = true;
            begin_measuring(seconds);
        }
        if (measuring && now >= run.end) return report();
        for (int i = 0; i < count; i++) hear(&senders[events[i].data.u32], gso);
        if (now - looked < PATIENCE / 4) continue;
        looked = now;
        for (int i = 0; i < many; i++)
            if (senders[i].in_flight && now > senders[i].heard + PATIENCE && now > senders[i].asked + PATIENCE) {
                run.lost += senders[i].in_flight;
                senders[i].in_flight = 0;
                ask(&senders[i], depth, gso, now);
            }
    }
}

/* Asks in the name of one source address after another. */
static void ask_as(int fd, struct sockaddr_in *to, uint32_t source) {
    struct iovec part = {requests, PAYLOAD};
    char control[CMSG_SPACE(sizeof(struct in_pktinfo))] = {0};
    struct msghdr message = {to, sizeof *to, &part, 1, control, sizeof control, 0};
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = IPPROTO_IP;
    c->cmsg_type = IP_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo));
    struct in_pktinfo info = {.ipi_spec_dst.s_addr = htonl(INADDR_LOOPBACK + 1 + source)};
    memcpy(CMSG_DATA(c), &info, sizeof info);
    if (sendmsg(fd, &message, 0) < 0) die("sendmsg");
}

static void peers(int port, uint32_t many, uint32_t depth, double warmup, double seconds) {
    struct sockaddr_in to = loopback(port), any = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any) < 0) die("bind");
    enlarge(fd);
    struct timeval patience = {.tv_usec = PATIENCE / 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    uint64_t warm = now_ns() + (uint64_t)(warmup * 1e9);
    uint32_t next = 0, in_flight = 0;
    for (bool measuring = false;;) {
        for (; in_flight < depth; in_flight++) ask_as(fd, &to, next++ % many);
        /* Each peer is to have a session before the measurement begins. */
        uint64_t now = now_ns();
        if (!measuring && now >= warm && next > 2 * many) {
            measuring = true;
            begin_measuring(seconds);
        }
        if (measuring && now >= run.end) return report();
        char in[256];
        ssize_t got = recv(fd, in, sizeof in, 0);
        if (got < 0) run.lost += in_flight, in_flight = 0;
        for (; got > 0 && in_flight; got = recv(fd, in, sizeof in, MSG_DONTWAIT)) {
            run.messages += take(in, got);
            in_flight--;
        }
    }
}

int main(int argc, char **argv) {
    raise_descriptors();
    for (int i = 0; i < DEEPEST; i++) memcpy(requests + i * PAYLOAD, REQUEST, PAYLOAD);
    snprintf(expected, sizeof expected, "Hello,%s", REQUEST);
    if (argc == 9 && !strcmp(argv[1], "sockets")) {
        run.server = atoi(argv[6]);
        sockets(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), !strcmp(argv[5], "gso"), atof(argv[7]), atof(argv[8]));
    } else if (argc == 8 && !strcmp(argv[1], "peers")) {
        run.server = atoi(argv[5]);
        peers(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atof(argv[6]), atof(argv[7]));
    } else {
        return fprintf(stderr, "see the head of load_udp.c\n"), 2;
    }
}
