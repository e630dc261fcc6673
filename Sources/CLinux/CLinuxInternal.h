/* What more than one of these files needs. Not for others. */
#pragma once
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "CLinux.h"

static inline int result(long value) { return value < 0 ? -errno : (int)value; }

static inline int is_v4(const struct cl_endpoint *e) { return e->high == 0 && e->low >> 32 == 0xFFFF; }

static inline socklen_t to_sockaddr(const struct cl_endpoint *e, struct sockaddr_storage *out) {
    memset(out, 0, sizeof *out);
    if (is_v4(e)) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)out;
        v4->sin_family = AF_INET;
        v4->sin_port = htons(e->port);
        v4->sin_addr.s_addr = htonl((uint32_t)e->low);
        return sizeof *v4;
    }
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    uint64_t words[2] = {htobe64(e->high), htobe64(e->low)};
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(e->port);
    memcpy(&v6->sin6_addr, words, sizeof words);
    return sizeof *v6;
}

static inline int set(int fd, int level, int option, int value) {
    return setsockopt(fd, level, option, &value, sizeof value);
}

/* Small writes go out at once, and at the operator's choice of congestion control. */
static inline int set_stream_options(int fd, const char *congestion) {
    int failed = set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (congestion != NULL)
        failed |= setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion, (socklen_t)strlen(congestion));
    return failed ? -errno : 0;
}
