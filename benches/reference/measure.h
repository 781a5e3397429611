/* What the load clients share: clocks, the CPU time of the server, a histogram of latencies, the line of results. */
#pragma once
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Every request is so long, without its line feed. */
enum { PAYLOAD = 16 };
static const char REQUEST[PAYLOAD + 1] = "0123456789abcdef";

static void die(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* The time that all threads of a process spent on a processor, in nanoseconds; proc_pid_schedstat. */
static uint64_t cpu_ns(int pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = pid ? opendir(path) : NULL;
    uint64_t sum = 0;
    for (struct dirent *task; tasks && (task = readdir(tasks));) {
        if (task->d_name[0] == '.') continue; /* `..` is the process, whose figure is its first thread's once more */
        char name[512];
        snprintf(name, sizeof name, "%s/%s/schedstat", path, task->d_name);
        FILE *file = fopen(name, "r");
        unsigned long long spent = 0;
        if (file && fscanf(file, "%llu", &spent) == 1) sum += spent;
        if (file) fclose(file);
    }
    if (tasks) closedir(tasks);
    return sum;
}

/* Each power of two in 64 buckets: latencies are exact to 1.6 %. */
enum { STEPS = 64, POWERS = 59 };
static uint64_t buckets[POWERS][STEPS];

static void record(uint64_t ns) {
    int shift = ns < STEPS ? -1 : 57 - __builtin_clzll(ns);
    buckets[shift + 1][shift < 0 ? ns : (ns >> shift) - STEPS]++;
}

static double percentile_us(double share) {
    uint64_t all = 0, seen = 0;
    for (int p = 0; p < POWERS; p++)
        for (int s = 0; s < STEPS; s++) all += buckets[p][s];
    for (int p = 0; p < POWERS; p++)
        for (int s = 0; s < STEPS; s++)
            if (all && (seen += buckets[p][s]) >= share * all)
                return (p ? (double)(STEPS + s) * (1ull << (p - 1)) : s) / 1e3;
    return 0;
}

static struct {
    int server;
    uint64_t begin, cpu, end;
    uint64_t messages, wrong, lost;
} run;

/* The warm-up is over. */
static void begin_measuring(double seconds) {
    memset(buckets, 0, sizeof buckets);
    run.messages = run.wrong = run.lost = 0;
    run.cpu = cpu_ns(run.server);
    run.begin = now_ns();
    run.end = run.begin + (uint64_t)(seconds * 1e9);
}

static void report(void) {
    uint64_t cpu = cpu_ns(run.server) - run.cpu;
    printf("messages=%llu seconds=%.6f cpu_ns=%llu wrong=%llu lost=%llu p50_us=%.2f p99_us=%.2f\n",
           (unsigned long long)run.messages, (now_ns() - run.begin) / 1e9, (unsigned long long)cpu,
           (unsigned long long)run.wrong, (unsigned long long)run.lost, percentile_us(.5), percentile_us(.99));
}

static struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void raise_descriptors(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}
