/* The UDP references, each one thread on one socket; X is answered with `Hello,X`.
 *
 *   udp single   recvfrom and sendto
 *   udp batch    recvmmsg and sendmmsg
 *   udp gso      recvmmsg of joined datagrams (UDP_GRO), answers to one peer joined again (UDP_SEGMENT), sendmmsg
 */
#include "listening.h"

enum { BATCH = 32, LARGEST = 64 * 1024, RECEIVE_BUFFER = 4 << 20 };

static void serve_single(int fd) {
    static char bytes[LARGEST + 6] = "Hello,";
    for (;;) {
        struct sockaddr_in peer;
        socklen_t size = sizeof peer;
        ssize_t count = recvfrom(fd, bytes + 6, LARGEST, 0, (struct sockaddr *)&peer, &size);
        if (count >= 0) sendto(fd, bytes, count + 6, 0, (struct sockaddr *)&peer, size);
    }
}

static void send_all(int fd, struct mmsghdr *messages, int count) {
    for (int sent = 0; sent < count;) {
        int now = sendmmsg(fd, messages + sent, count - sent, 0);
        sent += now > 0 ? now : 1;
    }
}

static void serve_batch(int fd) {
    static char bytes[BATCH][LARGEST + 6];
    struct sockaddr_in peers[BATCH];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH];
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            memcpy(bytes[i], "Hello,", 6);
            parts[i] = (struct iovec){bytes[i] + 6, LARGEST};
            messages[i].msg_hdr = (struct msghdr){&peers[i], sizeof peers[i], &parts[i], 1, NULL, 0, 0};
        }
        int count = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < count; i++) parts[i] = (struct iovec){bytes[i], messages[i].msg_len + 6};
        send_all(fd, messages, count);
    }
}

static size_t segment_of(struct msghdr *message, size_t length) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(c), sizeof size);
            return size;
        }
    return length;
}

static void serve_gso(int fd) {
    static char in[BATCH][LARGEST], out[BATCH][2 * LARGEST];
    static char control[BATCH][CMSG_SPACE(sizeof(int))];
    struct sockaddr_in peers[BATCH];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH];
    int on = 1;
    if (setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on) < 0) die("setsockopt(UDP_GRO)");
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            parts[i] = (struct iovec){in[i], LARGEST};
            messages[i].msg_hdr =
                (struct msghdr){&peers[i], sizeof peers[i], &parts[i], 1, control[i], sizeof control[i], 0};
        }
        int count = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < count; i++) {
            struct msghdr *message = &messages[i].msg_hdr;
            size_t length = messages[i].msg_len, segment = segment_of(message, length), written = 0;
            size_t at = 0;
            do {
                size_t size = length - at < segment ? length - at : segment;
                memcpy(out[i] + written, "Hello,", 6);
                memcpy(out[i] + written + 6, in[i] + at, size);
                written += 6 + size;
                at += size;
            } while (at < length);
            parts[i] = (struct iovec){out[i], written};
            message->msg_controllen = 0;
            if (length > segment) {
                uint16_t size = segment + 6;
                message->msg_controllen = CMSG_SPACE(sizeof size);
                struct cmsghdr *c = CMSG_FIRSTHDR(message);
                c->cmsg_level = SOL_UDP;
                c->cmsg_type = UDP_SEGMENT;
                c->cmsg_len = CMSG_LEN(sizeof size);
                memcpy(CMSG_DATA(c), &size, sizeof size);
            }
        }
        send_all(fd, messages, count);
    }
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: udp single|batch|gso\n"), 2;
    int fd = listening("udp", SOCK_DGRAM), size = RECEIVE_BUFFER;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (!strcmp(argv[1], "single")) serve_single(fd);
    if (!strcmp(argv[1], "batch")) serve_batch(fd);
    serve_gso(fd);
}
