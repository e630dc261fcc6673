// The greedy: so many connections at once, and each that ends is begun again, at no more than a given pace.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "../loadgen/hello.h"
#include "flood.h"

enum { EVENTS = 512, TINY_BYTES = 64 };
/// What a slow reader asks for: enough to fill what stands between, and not all memory that TCP may have (tcp_mem).
enum { READ_BYTES = 2 << 20 };
/// Of connections that are begun again: more than a person's, less than what makes the generator itself the load.
static const uint64_t STARTS_A_SECOND = 5000;

struct client {
    enum { FREE, CONNECTING, HELD } phase;
    int fd;
    uint32_t sent;  // of the hello
};

static const struct options *options;
static enum kind kind;
static struct client *clients;
static int epoll;
static uint64_t started, ended, bytes, nonce = 1;
static uint8_t hello[HELLO_BYTES], filler[65536];

static void end(struct client *c) {
    if (c->fd >= 0) close_by_reset(c->fd);
    c->fd = -1, c->phase = FREE;
    ended++;
}

static bool begin(long index) {
    struct client *c = &clients[index];
    c->fd = connect_from(options, index);
    if (c->fd < 0) return false;
    started++;
    c->phase = CONNECTING, c->sent = 0;
    if (kind == SLOW_READERS) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &(int){4096}, sizeof(int));
    epoll_add(epoll, c->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, (uint64_t)index);
    return true;
}

static bool say(struct client *c, const void *data, size_t count) {
    ssize_t n = send(c->fd, data, count, MSG_NOSIGNAL);
    if (n > 0) bytes += (uint64_t)n;
    return n > 0 || (n < 0 && errno == EAGAIN);
}

static bool open_with(struct client *c, enum job job, uint64_t amount) {
    write_hello(hello, nonce++, job, amount);
    return say(c, hello, sizeof hello);
}

/// The connect is over: what this kind says first.
static bool connected(struct client *c) {
    c->phase = HELD;
    switch (kind) {
    case SILENT: return true;
    case SLOW: return say(c, "\x16", 1);
    case GARBAGE: return say(c, filler, 517);
    case SHORT: return open_with(c, JOB_SHORT, 0);
    case SLOW_READERS: return open_with(c, JOB_DOWNLOAD, READ_BYTES);
    case STALLED_UPLOADS: return open_with(c, JOB_IGNORE, 0);
    case TINY: return open_with(c, JOB_ECHO, 0);
    case KINDS: break;
    }
    return false;
}

/// Reads what came; false: the connection is over.
static bool drain(struct client *c) {
    uint8_t buffer[16384];
    for (;;) {
        ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
        if (n < 0) return errno == EAGAIN;
        if (n == 0 || kind == SHORT) return false;
        if (kind == TINY && !say(c, filler, TINY_BYTES)) return false;
    }
}

static bool on_event(struct client *c, uint32_t events) {
    if (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) return false;
    if (c->phase == CONNECTING && (events & EPOLLOUT) && !connected(c)) return false;
    if (kind == SLOW_READERS) return true;
    if (kind == STALLED_UPLOADS && (events & EPOLLOUT)) while (send(c->fd, filler, sizeof filler, MSG_NOSIGNAL) > 0) {}
    return !(events & EPOLLIN) || drain(c);
}

/// Twice a second: a byte more of a slow hello, a few bytes read by a slow reader.
static void go_on(void) {
    for (long i = 0; i < options->connections; i++) {
        struct client *c = &clients[i];
        if (c->phase != HELD) continue;
        bool lives = true;
        if (kind == SLOW) {
            lives = ++c->sent < HELLO_BYTES && say(c, hello + c->sent, 1);
        } else if (kind == SLOW_READERS) {
            uint8_t some[512];
            ssize_t n = recv(c->fd, some, sizeof some, 0);
            lives = n > 0 || (n < 0 && errno == EAGAIN);
        }
        if (!lives) end(c);
    }
}

static void prepare(void) {
    clients = calloc((size_t)options->connections, sizeof *clients);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!clients || epoll < 0) die("no memory for %ld connections", options->connections);
    for (long i = 0; i < options->connections; i++) clients[i].fd = -1;
    write_hello(hello, nonce++, JOB_SHORT, 0);
    if (kind == GARBAGE) memset(filler + 1, 'x', 517);
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
}

int run_flood(const struct options *chosen, enum kind chosen_kind) {
    options = chosen, kind = chosen_kind;
    prepare();
    uint64_t begun = now_ns(), later = begun, allowed = 0;
    long next = 0;
    bool is_ready = false;
    struct epoll_event events[EVENTS];
    char byte;
    while (!(read(STDIN_FILENO, &byte, 1) == 0)) {
        uint64_t now = now_ns();
        allowed = (now - begun) / (1000000000u / STARTS_A_SECOND);
        for (long looked = 0; looked < options->connections && started < allowed; looked++, next = (next + 1) % options->connections)
            if (clients[next].phase == FREE && !begin(next)) break;
        if (!is_ready && (started >= (uint64_t)options->connections || now - begun > 3000000000u)) {
            is_ready = true;
            puts("ready");
            fflush(stdout);
        }
        if (now - later > 500000000u) go_on(), later = now;
        int n = epoll_wait(epoll, events, EVENTS, 1);
        for (int i = 0; i < n; i++) {
            struct client *c = &clients[events[i].data.u64];
            if (c->phase != FREE && !on_event(c, events[i].events)) end(c);
        }
    }
    long held = 0;
    for (long i = 0; i < options->connections; i++) held += clients[i].phase == HELD;
    printf("{\"job\": \"%s\", \"started\": %llu, \"ended\": %llu, \"held\": %ld, \"bytes\": %llu}\n", kind_names[kind],
           (unsigned long long)started, (unsigned long long)ended, held, (unsigned long long)bytes);
    return 0;
}
