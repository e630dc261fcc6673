// Sockets and time for the tools of the benchmark. Anything that can't work ends the process with a message.
#pragma once
#include <stdint.h>
#include <stdnoreturn.h>
#include <sys/socket.h>

struct address {
    struct sockaddr_storage storage;
    socklen_t length;
};

noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t now_ns(void);

/// "127.0.0.1:80" or "[::1]:80".
struct address parse_address(const char *text);
uint16_t port_of(const struct sockaddr *address);
void set_port(struct address *address, uint16_t port);

/// A non-blocking listening socket with SO_REUSEADDR.
int listen_on(const struct address *address);
void no_delay(int fd);
/// Closes with RST, so that no TIME_WAIT is left and ports never run out.
void close_by_reset(int fd);
void epoll_add(int epoll, int fd, uint32_t events, uint64_t data);
/// Raises the soft limit of descriptors to the hard one and returns it.
long raise_descriptor_limit(void);
