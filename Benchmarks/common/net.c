#define _GNU_SOURCE
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

noreturn void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct address parse_address(const char *text) {
    struct address result = {0};
    char host[64] = "";
    unsigned port = 0;
    struct sockaddr_in *v4 = (struct sockaddr_in *)&result.storage;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&result.storage;
    if (sscanf(text, "[%63[^]]]:%u", host, &port) == 2 && inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        result.length = sizeof *v6;
    } else if (sscanf(text, "%63[^:]:%u", host, &port) == 2 && inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        result.length = sizeof *v4;
    } else {
        die("%s: expected an address and a port, as 127.0.0.1:80 or [::1]:80", text);
    }
    return result;
}

uint16_t port_of(const struct sockaddr *address) {
    return ntohs(address->sa_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
                                                : ((const struct sockaddr_in *)address)->sin_port);
}

void set_port(struct address *address, uint16_t port) {
    if (address->storage.ss_family == AF_INET6) ((struct sockaddr_in6 *)&address->storage)->sin6_port = htons(port);
    else ((struct sockaddr_in *)&address->storage)->sin_port = htons(port);
}

int listen_on(const struct address *address) {
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (address->storage.ss_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){1}, sizeof(int));
    no_delay(fd);  // accepted sockets inherit it
    if (bind(fd, (const struct sockaddr *)&address->storage, address->length) < 0 || listen(fd, 4096) < 0)
        die("port %u: %s", port_of((const struct sockaddr *)&address->storage), strerror(errno));
    return fd;
}

void no_delay(int fd) { setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)); }

void close_by_reset(int fd) {
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1, .l_linger = 0}, sizeof(struct linger));
    close(fd);
}

void epoll_add(int epoll, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl: %s", strerror(errno));
}

long raise_descriptor_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    return (long)limit.rlim_cur;
}
