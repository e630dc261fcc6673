// Connections of the load generator: connect, hello, and the check of the reply.
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "loadgen.h"

static const struct options *options;
static struct client *clients;
static long client_count;
static int epoll;
static uint64_t next_nonce = 1;
static enum job current_job;
static uint64_t current_amount;

void clients_open(const struct options *chosen, long count) {
    options = chosen;
    client_count = count;
    clients = calloc((size_t)count, sizeof *clients);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!clients || epoll < 0) die("no memory or no descriptor for %ld connections", count);
    for (long i = 0; i < count; i++) clients[i].fd = -1;
}

struct client *client_at(long index) { return &clients[index]; }

void client_close(struct client *client, bool by_fin) {
    if (client->fd < 0) return;
    if (by_fin) close(client->fd);
    else close_by_reset(client->fd);
    client->fd = -1;
    client->phase = CLOSED;
}

void client_failed(struct client *client, const char *format, ...) {
    static int shown;
    if (shown++ < 3) {
        va_list arguments;
        va_start(arguments, format);
        fprintf(stderr, "connection %llu: ", (unsigned long long)client->nonce);
        vfprintf(stderr, format, arguments);
        fputc('\n', stderr);
        va_end(arguments);
    }
    stats_failure();
    client_close(client, false);
}

static bool send_hello(struct client *client) {
    uint8_t hello[HELLO_BYTES];
    client->sum = write_hello(hello, client->nonce, current_job, current_amount);
    ssize_t n = send(client->fd, hello, sizeof hello, MSG_NOSIGNAL);
    if (n == HELLO_BYTES) return client->phase = WAITING, true;
    if (n < 0 && errno == EAGAIN) return true;  // still connecting
    client_failed(client, "sending the hello: %s", n < 0 ? strerror(errno) : "cut short");
    return false;
}

static bool open_socket(struct client *client, long index) {
    client->fd = socket(options->target.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0) return client_failed(client, "socket: %s", strerror(errno)), false;
    if (current_job == JOB_ECHO) no_delay(client->fd);
    epoll_add(epoll, client->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, (uint64_t)index);
    return true;
}

bool client_start(long index, enum job job, uint64_t amount, uint64_t started_ns) {
    struct client *client = &clients[index];
    *client = (struct client){.phase = CONNECTING, .fd = client->fd, .nonce = next_nonce++, .started_ns = started_ns};
    current_job = job, current_amount = amount;
    if (client->fd < 0 && !open_socket(client, index)) return false;
    const struct sockaddr *target = (const struct sockaddr *)&options->target.storage;
    if (connect(client->fd, target, options->target.length) < 0 && errno != EINPROGRESS)
        return client_failed(client, "connect: %s", strerror(errno)), false;
    // On loopback the handshake is over when connect returns, so the hello mostly leaves at once.
    return send_hello(client);
}

void client_reset_for_reuse(struct client *client) {
    client->phase = CLOSED;
    if (connect(client->fd, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr)) < 0)
        client_close(client, false);
}

/// One in 16 asks the kernel for its port: a wrong PROXY header shows, and the cost stays small.
static bool port_is_right(struct client *client) {
    if (!options->expects_proxy || client->nonce % 16) return true;
    struct sockaddr_storage local;
    uint16_t told;
    memcpy(&told, client->reply + REPLY_PORT, 2);
    getsockname(client->fd, (struct sockaddr *)&local, &(socklen_t){sizeof local});
    return told == port_of((struct sockaddr *)&local);
}

int client_read_reply(struct client *client) {
    while (client->got < REPLY_BYTES) {
        ssize_t n = recv(client->fd, client->reply + client->got, REPLY_BYTES - client->got, 0);
        if (n < 0 && errno == EAGAIN) return 0;
        if (n <= 0) {
            client_failed(client, "after %u of %d reply bytes: %s", client->got, REPLY_BYTES, n ? strerror(errno) : "end of stream");
            return -1;
        }
        client->got += (uint32_t)n;
    }
    uint8_t expected[REPLY_BYTES];
    write_reply(expected, client->nonce, client->sum, 0, 1);
    memcpy(expected + REPLY_PORT, client->reply + REPLY_PORT, 2);
    if (memcmp(client->reply, expected, REPLY_BYTES) != 0 || !port_is_right(client)) {
        client_failed(client, "the reply is not the one to our hello, or names another client");
        return -1;
    }
    client->phase = ANSWERED;
    return 1;
}

int client_event(struct client *client, uint32_t events) {
    if (client->fd < 0 || client->phase == CLOSED) return 0;
    if (client->phase == CONNECTING && !send_hello(client)) return -1;
    if (client->phase == CONNECTING || !(events & (EPOLLIN | EPOLLERR | EPOLLHUP))) return 0;
    return client_read_reply(client);
}

int clients_wait(struct epoll_event *events, int capacity, uint64_t until_ns) {
    enum { PATIENCE_S = 10 };
    struct timespec patience = {.tv_sec = PATIENCE_S};
    if (until_ns) {
        uint64_t now = now_ns(), left = until_ns > now ? until_ns - now : 0;
        patience = (struct timespec){.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};
    }
    int n = epoll_pwait2(epoll, events, capacity, &patience, NULL);
    if (n < 0 && errno != EINTR) die("epoll_pwait2: %s", strerror(errno));
    if (n == 0 && !until_ns) die("nothing happened for %d s: a connection hangs", PATIENCE_S);
    return n < 0 ? 0 : n;
}
