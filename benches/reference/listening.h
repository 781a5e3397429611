/* What the reference servers share: a socket on a loopback port of the kernel's choice, and the line that tells it, in
 * the form in which greetd tells its own. */
#pragma once
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int listening(const char *scheme, int type) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, size) < 0) die("bind");
    if (getsockname(fd, (struct sockaddr *)&at, &size) < 0) die("getsockname");
    printf("listening %s://127.0.0.1:%d handler=reference\n", scheme, ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}
