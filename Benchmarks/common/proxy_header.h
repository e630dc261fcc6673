// The PROXY protocol as far as the benchmark needs it: v2 written by the floor; v1 and v2 read by the backend.
#pragma once
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define PROXY_V2_SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
enum { PROXY_V2_MAX = 16 + 36 };

/// Writes PROXY v2 (STREAM, no TLVs) for a connection from `source` to `destination`, of one family. Returns its length.
static inline size_t write_proxy_v2(uint8_t *out, const struct sockaddr *source, const struct sockaddr *destination) {
    memcpy(out, PROXY_V2_SIGNATURE "\x21", 13);
    size_t n = source->sa_family == AF_INET6 ? 36 : 12;
    out[13] = source->sa_family == AF_INET6 ? 0x21 : 0x11;
    out[14] = 0;
    out[15] = (uint8_t)n;
    uint8_t *p = out + 16;
    if (source->sa_family == AF_INET6) {
        const struct sockaddr_in6 *s = (const void *)source, *d = (const void *)destination;
        memcpy(p, &s->sin6_addr, 16), memcpy(p + 16, &d->sin6_addr, 16);
        memcpy(p + 32, &s->sin6_port, 2), memcpy(p + 34, &d->sin6_port, 2);
    } else {
        const struct sockaddr_in *s = (const void *)source, *d = (const void *)destination;
        memcpy(p, &s->sin_addr, 4), memcpy(p + 4, &d->sin_addr, 4);
        memcpy(p + 8, &s->sin_port, 2), memcpy(p + 10, &d->sin_port, 2);
    }
    return 16 + n;
}

/// Reads a header of `version` (1 or 2) at the start of `bytes`. Returns its length, 0 if it is incomplete, -1 if it is
/// wrong; `port` becomes the client's.
static inline int read_proxy(int version, const uint8_t *bytes, size_t count, uint16_t *port) {
    if (version == 1) {
        const uint8_t *end = memchr(bytes, '\n', count < 108 ? count : 108);
        if (!end) return count < 108 ? 0 : -1;
        unsigned source_port;
        if (sscanf((const char *)bytes, "PROXY TCP%*1[46] %*s %*s %u", &source_port) != 1) return -1;
        *port = (uint16_t)source_port;
        return (int)(end + 1 - bytes);
    }
    size_t compare = count < 13 ? count : 13;
    if (memcmp(bytes, PROXY_V2_SIGNATURE "\x21", compare) != 0) return -1;
    if (count < 16) return 0;
    size_t length = 16 + ((size_t)bytes[14] << 8 | bytes[15]);
    size_t port_at = 16 + (bytes[13] == 0x21 ? 32 : 8);
    if ((bytes[13] != 0x21 && bytes[13] != 0x11) || length < port_at + 4 || length > 1024) return -1;
    if (count < length) return 0;
    *port = (uint16_t)(bytes[port_at] << 8 | bytes[port_at + 1]);
    return (int)length;
}
