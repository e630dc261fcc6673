// The backend behind every relay: strips and checks the PROXY header, reads the whole hello, answers it, and does the
// job that the hello names. One thread, one epoll. A connection that breaks the protocol is reset, which the load generator
// reports as a failure.
//
//   backend ADDRESS:PORT[+COUNT]=none|v1|v2 ...
//
// COUNT: so many ports, from that one on.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "../common/net.h"
#include "../common/proxy_header.h"
#include "../common/wire.h"

enum { HEAD_MAX = 1100 + HELLO_BYTES, DESCRIPTORS_MAX = 65536 };

struct listener {
    int proxy_version;  // 0: no header may come
};

struct stash;

struct peer {
    struct listener *listener;
    struct stash *stash;  // nil for a head that came whole
    uint8_t job;  // 0: the hello is not whole
    bool upload_is_wrong, replied_twice;
    uint64_t amount, moved, nonce, sum;
    uint16_t port;
};

static int epoll;
static struct listener *listeners[DESCRIPTORS_MAX];  // by descriptor
static struct peer *peers[DESCRIPTORS_MAX];
static uint8_t buffer[BULK_CHUNK];

static void drop(int fd, bool by_reset) {
    free(peers[fd]->stash);
    free(peers[fd]);
    peers[fd] = NULL;
    if (by_reset) close_by_reset(fd);
    else close(fd);
}

static bool reply(int fd, struct peer *peer, uint8_t verdict) {
    uint8_t bytes[REPLY_BYTES];
    write_reply(bytes, peer->nonce, peer->sum, peer->port, verdict);
    return send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) == REPLY_BYTES;
}

/// The head of a connection that did not come in one piece.
struct stash {
    size_t count;
    uint8_t bytes[HEAD_MAX];
};

/// Looks for PROXY header and hello in all that has come. 1: whole, and nothing after it that may not be; 0: not yet; -1: wrong.
static int parse_head(struct peer *peer, const uint8_t *bytes, size_t count) {
    int header = 0;
    if (peer->listener->proxy_version) {
        header = read_proxy(peer->listener->proxy_version, bytes, count, &peer->port);
        if (header <= 0) return header;
    }
    const uint8_t *hello = bytes + header;
    size_t length = count - (size_t)header;
    if (length > 0 && hello[0] != 0x16) return -1;
    if (length < HELLO_BYTES) return 0;
    // An upload that nobody reads begins with its hello; where more comes before a reply, it is wrong.
    if (length > HELLO_BYTES && hello[HELLO_JOB] != JOB_IGNORE) return -1;
    peer->job = hello[HELLO_JOB];
    peer->nonce = load64(hello + HELLO_NONCE);
    peer->amount = load64(hello + HELLO_AMOUNT);
    peer->sum = checksum(hello, HELLO_BYTES);
    return 1;
}

/// As ``parse_head``, and 2: ended.
static int read_head(int fd, struct peer *peer) {
    ssize_t n = recv(fd, buffer, HEAD_MAX - (peer->stash ? peer->stash->count : 0), 0);
    if (n <= 0) return n < 0 && errno == EAGAIN ? 0 : 2;
    if (!peer->stash) {
        int outcome = parse_head(peer, buffer, (size_t)n);
        if (outcome != 0) return outcome;
        peer->stash = calloc(1, sizeof *peer->stash);
    }
    if (!peer->stash || peer->stash->count + (size_t)n > HEAD_MAX) return -1;
    memcpy(peer->stash->bytes + peer->stash->count, buffer, (size_t)n);
    peer->stash->count += (size_t)n;
    return parse_head(peer, peer->stash->bytes, peer->stash->count);
}

// Each job: 0: goes on, -1: wrong, 2: ended.

static int echo(int fd) {
    for (;;) {
        ssize_t n = recv(fd, buffer, sizeof buffer, 0);
        if (n < 0) return errno == EAGAIN ? 0 : 2;
        if (n == 0) return 2;
        if (send(fd, buffer, (size_t)n, MSG_NOSIGNAL) != n) return -1;
        if (n < (ssize_t)sizeof buffer) return 0;  // edge-triggered: what comes later is a new edge
    }
}

static int stream(int fd, struct peer *peer) {
    if (peer->moved == peer->amount) return 0;
    while (peer->moved < peer->amount) {
        uint64_t left = peer->amount - peer->moved;
        ssize_t n = send(fd, pattern_at(peer->moved), left < BULK_CHUNK ? left : BULK_CHUNK, MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN ? 0 : 2;
        peer->moved += (uint64_t)n;
    }
    shutdown(fd, SHUT_WR);
    return 0;
}

static int sink(int fd, struct peer *peer) {
    static unsigned turn;
    for (;;) {
        bool look = turn++ % 8 == 0;
        ssize_t n = recv(fd, buffer, sizeof buffer, look ? 0 : MSG_TRUNC);
        if (n < 0) return errno == EAGAIN ? 0 : 2;
        if (n == 0) return 2;
        if (look && !pattern_matches(peer->moved, buffer, (size_t)n)) peer->upload_is_wrong = true;
        peer->moved += (uint64_t)n;
        if (peer->moved < peer->amount || peer->replied_twice) continue;
        peer->replied_twice = true;
        if (!reply(fd, peer, peer->upload_is_wrong || peer->moved > peer->amount ? 0 : 1)) return -1;
    }
}

/// Anything after the hello of a short or held connection is the end, or wrong.
static int nothing_more(int fd) {
    ssize_t n = recv(fd, buffer, 1, 0);
    return n > 0 ? -1 : n < 0 && errno == EAGAIN ? 0 : 2;
}

static int work(int fd, struct peer *peer) {
    switch (peer->job) {
    case JOB_SHORT:
    case JOB_HOLD: return nothing_more(fd);
    case JOB_ECHO: return echo(fd);
    case JOB_DOWNLOAD: {
        int outcome = stream(fd, peer);
        return outcome ? outcome : nothing_more(fd);
    }
    case JOB_UPLOAD: return sink(fd, peer);
    case JOB_IGNORE: return 0;  // what comes stays in the socket; the end shows as an error, or at the end of the run
    default: return -1;
    }
}

static void on_event(int fd, uint32_t events) {
    struct peer *peer = peers[fd];
    if (!peer) return;
    int outcome = events & EPOLLERR ? 2 : 0;
    if (outcome == 0 && !peer->job) {
        outcome = read_head(fd, peer);
        if (outcome == 1 && !reply(fd, peer, 1)) outcome = -1;
        if (outcome == 1 && peer->job == JOB_DOWNLOAD) {
            struct epoll_event both = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u64 = (uint64_t)fd};
            epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &both);
        }
        // What comes after the hello is a new edge, unless the end came with it.
        if (outcome == 1 && !(events & EPOLLRDHUP)) return;
    }
    if (outcome >= 0 && outcome != 2 && peer->job) outcome = work(fd, peer);
    if (outcome == -1) drop(fd, true);
    if (outcome == 2) drop(fd, false);
}

static void accept_all(int fd) {
    for (;;) {
        int accepted = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted < 0) {
            if (errno == ECONNABORTED) continue;
            if (errno != EAGAIN) fprintf(stderr, "backend: accept: %s\n", strerror(errno));
            return;
        }
        struct peer *peer = accepted < DESCRIPTORS_MAX ? calloc(1, sizeof *peer) : NULL;
        if (!peer) {
            close_by_reset(accepted);
            continue;
        }
        peer->listener = listeners[fd];
        peers[accepted] = peer;
        epoll_add(epoll, accepted, EPOLLIN | EPOLLRDHUP | EPOLLET, (uint64_t)accepted);
    }
}

static void open_listener(const struct address *address, int proxy_version) {
    int fd = listen_on(address);
    listeners[fd] = calloc(1, sizeof **listeners);
    listeners[fd]->proxy_version = proxy_version;
    epoll_add(epoll, fd, EPOLLIN, (uint64_t)fd);
}

static void open_listeners(char *argument) {
    char *mode = strchr(argument, '=');
    if (!mode) die("usage: backend ADDRESS:PORT[+COUNT]=none|v1|v2 ...");
    *mode++ = 0;
    char *plus = strchr(argument, '+');
    long count = plus ? strtol(plus + 1, NULL, 10) : 1;
    if (plus) *plus = 0;
    struct address address = parse_address(argument);
    unsigned first = port_of((struct sockaddr *)&address.storage);
    for (long i = 0; i < count; i++) {
        set_port(&address, (uint16_t)(first + i));
        open_listener(&address, !strcmp(mode, "v2") ? 2 : !strcmp(mode, "v1") ? 1 : 0);
    }
}

int main(int count, char **arguments) {
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    fill_pattern();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 1; i < count; i++) open_listeners(arguments[i]);
    struct epoll_event events[256];
    for (;;) {
        int n = epoll_wait(epoll, events, 256, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < n; i++) {
            int fd = (int)events[i].data.u64;
            if (listeners[fd]) accept_all(fd);
            else on_event(fd, events[i].events);
        }
    }
}
