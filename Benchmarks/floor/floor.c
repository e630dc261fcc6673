// The floor of the comparison: as little as a relay can do and still read a hello, prepend PROXY v2 and relay both
// ways. One backend, no routes, no timeouts, no limits, no logs. What a relay costs above this is its own.
//
//   floor LISTEN:PORT BACKEND:PORT
//   floor LISTEN:PORT original      to where an intercepted client was going, without a header
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../common/net.h"
#include "../common/proxy_header.h"

enum { CLIENT, BACKEND, HEAD_MAX = 4096, CHUNK = 256 * 1024, SPLICE_FROM = 32 * 1024, PIPE_BYTES = 1024 * 1024 };

/// One direction: from fd[i] to fd[!i].
struct way {
    int pipe[2];      // -1: copying
    size_t in_pipe;
    uint8_t *rest;    // what the last send did not take
    size_t rest_from, rest_count;
    bool ended;       // the source's FIN has come
    bool closed;      // and was passed on
};

struct link {
    int fd[2];
    struct way way[2];
    bool waits_for_room, dead;
    uint32_t head_count;
    uint8_t *head;  // only while the hello is incomplete
    struct sockaddr_in6 client;
    struct link *next_dead;
};

static int epoll, listener;
static struct address listen_address, backend_address;
static bool to_original;
static struct link *dead;
static uint8_t buffer[CHUNK];

static void watch(struct link *link, int side, int operation, uint32_t events) {
    struct epoll_event event = {.events = events | EPOLLIN | EPOLLRDHUP | EPOLLET, .data.u64 = (uint64_t)(uintptr_t)link | (uint64_t)side};
    epoll_ctl(epoll, operation, link->fd[side], &event);
}

enum how { BY_FIN, BY_RESET, BY_RESET_OF_CLIENT, BY_RESET_OF_BACKEND };

/// Closes both sides; a reset is passed on to the side that it did not come from. Freed after the batch of events that
/// may still name it.
static void end(struct link *link, enum how how) {
    if (link->dead) return;
    for (int i = 0; i < 2; i++) {
        struct way *way = &link->way[i];
        if (way->pipe[0] >= 0) close(way->pipe[0]), close(way->pipe[1]);
        free(way->rest);
        if (link->fd[i] < 0) continue;
        if (how == BY_FIN || how == BY_RESET_OF_CLIENT + (enum how)i) close(link->fd[i]);
        else close_by_reset(link->fd[i]);
    }
    free(link->head);
    link->dead = true;
    link->next_dead = dead;
    dead = link;
}

static void wait_for_room(struct link *link) {
    if (link->waits_for_room) return;
    link->waits_for_room = true;
    watch(link, CLIENT, EPOLL_CTL_MOD, EPOLLOUT);
    watch(link, BACKEND, EPOLL_CTL_MOD, EPOLLOUT);
}

/// Sends, and keeps what did not fit. False: the other side is gone.
static bool give(struct link *link, int from, const uint8_t *bytes, size_t count) {
    struct way *way = &link->way[from];
    ssize_t n = send(link->fd[!from], bytes, count, MSG_NOSIGNAL);
    if (n == (ssize_t)count) return true;
    if (n < 0 && errno != EAGAIN) return false;
    size_t sent = n < 0 ? 0 : (size_t)n;
    way->rest = malloc(count - sent);
    if (!way->rest) return false;
    memcpy(way->rest, bytes + sent, count - sent);
    way->rest_from = 0, way->rest_count = count - sent;
    wait_for_room(link);
    return true;
}

// The steps of a pump. 1: go on, 0: wait for an event, -1: reset both.

static int flush_rest(struct link *link, int from) {
    struct way *way = &link->way[from];
    ssize_t n = send(link->fd[!from], way->rest + way->rest_from, way->rest_count, MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN ? 0 : -1;
    way->rest_from += (size_t)n, way->rest_count -= (size_t)n;
    if (way->rest_count) return 0;
    free(way->rest);
    way->rest = NULL;
    return 1;
}

static int flush_pipe(struct link *link, int from) {
    struct way *way = &link->way[from];
    while (way->in_pipe) {
        ssize_t n = splice(way->pipe[0], NULL, link->fd[!from], NULL, way->in_pipe, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n <= 0) return n < 0 && errno == EAGAIN ? (wait_for_room(link), 0) : -1;
        way->in_pipe -= (size_t)n;
    }
    return 1;
}

static int fill_pipe(struct link *link, int from) {
    struct way *way = &link->way[from];
    ssize_t n = splice(link->fd[from], NULL, way->pipe[1], NULL, PIPE_BYTES, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (n < 0) return errno == EAGAIN ? 0 : -1;
    if (n == 0) way->ended = true;
    way->in_pipe += (size_t)n;
    return 1;
}

static int copy(struct link *link, int from, bool until_empty) {
    struct way *way = &link->way[from];
    ssize_t n = recv(link->fd[from], buffer, CHUNK, 0);
    if (n < 0) return errno == EAGAIN ? 0 : -1;
    if (n == 0) return way->ended = true, 1;
    if (!give(link, from, buffer, (size_t)n)) return -1;
    if (n >= SPLICE_FROM && pipe2(way->pipe, O_NONBLOCK | O_CLOEXEC) == 0) fcntl(way->pipe[1], F_SETPIPE_SZ, PIPE_BYTES);
    return n >= SPLICE_FROM || until_empty;  // a short read emptied it: what comes later is a new edge
}

static int pump(struct link *link, int from, bool until_empty) {
    struct way *way = &link->way[from];
    int step = 1;
    while (step == 1 && !way->closed) {
        if (way->rest) step = flush_rest(link, from);
        else if (way->in_pipe) step = flush_pipe(link, from);
        else if (way->ended) way->closed = true, shutdown(link->fd[!from], SHUT_WR);
        else if (way->pipe[0] >= 0) step = fill_pipe(link, from);
        else step = copy(link, from, until_empty);
    }
    return step;
}

/// Whether `bytes` begin with a whole ClientHello that has a server name. 1: yes, 0: not whole yet, -1: no.
static int has_server_name(const uint8_t *b, size_t n) {
    if (n < 5) return 0;
    if (b[0] != 0x16) return -1;
    size_t end = 5 + ((size_t)b[3] << 8 | b[4]), at = 5 + 4 + 34;
    if (n < end) return end > HEAD_MAX ? -1 : 0;
    if (at >= end || (at += 1u + b[at]) + 2 > end) return -1;                            // session id
    if ((at += 2 + ((size_t)b[at] << 8 | b[at + 1])) >= end) return -1;                  // ciphers
    if ((at += 1u + b[at]) + 2 > end) return -1;                                         // compression
    for (at += 2; at + 4 <= end; at += 4 + ((size_t)b[at + 2] << 8 | b[at + 3]))
        if (b[at] == 0 && b[at + 1] == 0) return 1;
    return -1;
}

/// Connects and sends PROXY header and hello in one write.
static bool connect_backend(struct link *link, const uint8_t *hello, size_t count) {
    struct address *backend = &backend_address;
    if (to_original) {
        backend->length = sizeof backend->storage;
        if (getsockname(link->fd[CLIENT], (struct sockaddr *)&backend->storage, &backend->length) < 0) return false;
    }
    int fd = link->fd[BACKEND] = socket(backend->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    no_delay(fd);
    if (connect(fd, (struct sockaddr *)&backend->storage, backend->length) < 0 && errno != EINPROGRESS) return false;
    watch(link, CLIENT, EPOLL_CTL_ADD, 0);
    watch(link, BACKEND, EPOLL_CTL_ADD, 0);
    uint8_t first[PROXY_V2_MAX + HEAD_MAX];
    size_t header =
        to_original ? 0 : write_proxy_v2(first, (struct sockaddr *)&link->client, (struct sockaddr *)&listen_address.storage);
    memcpy(first + header, hello, count);
    return give(link, CLIENT, first, header + count);
}

static void read_hello(struct link *link) {
    uint8_t *into = link->head ? link->head : buffer;
    ssize_t n = recv(link->fd[CLIENT], into + link->head_count, HEAD_MAX - link->head_count, 0);
    if (n < 0 && errno == EAGAIN) n = 0;
    else if (n <= 0) return end(link, n < 0 ? BY_RESET : BY_FIN);
    size_t count = link->head_count + (size_t)n;
    int outcome = has_server_name(into, count);
    if (outcome < 0 || (outcome > 0 && !connect_backend(link, into, count))) return end(link, BY_RESET);
    if (outcome > 0) return;
    if (!link->head) {
        link->head = malloc(HEAD_MAX);
        if (!link->head) return end(link, BY_RESET);
        memcpy(link->head, buffer, count);
        watch(link, CLIENT, EPOLL_CTL_ADD, 0);
    }
    link->head_count = (uint32_t)count;
}

static void accept_all(void) {
    for (;;) {
        struct sockaddr_in6 client;
        int fd = accept4(listener, (struct sockaddr *)&client, &(socklen_t){sizeof client}, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno != EAGAIN && errno != ECONNABORTED) fprintf(stderr, "floor: accept: %s\n", strerror(errno));
            return;
        }
        struct link *link = calloc(1, sizeof *link);
        if (!link) die("floor: no memory");
        link->fd[CLIENT] = fd, link->fd[BACKEND] = -1;
        link->client = client;
        link->way[0].pipe[0] = link->way[1].pipe[0] = -1;
        read_hello(link);
    }
}

static void on_event(struct link *link, int side, uint32_t events) {
    if (link->dead) return;
    if (events & EPOLLERR) return end(link, side == CLIENT ? BY_RESET_OF_CLIENT : BY_RESET_OF_BACKEND);
    if (link->fd[BACKEND] < 0) return read_hello(link);
    int outcome = 0;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) outcome = pump(link, side, events & EPOLLRDHUP);
    if (outcome >= 0 && (events & EPOLLOUT)) outcome = pump(link, !side, true);
    if (outcome < 0) end(link, BY_RESET);
    else if (link->way[0].closed && link->way[1].closed) end(link, BY_FIN);
}

int main(int count, char **arguments) {
    if (count != 3) die("usage: floor LISTEN:PORT BACKEND:PORT|original");
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    listen_address = parse_address(arguments[1]);
    to_original = strcmp(arguments[2], "original") == 0;
    if (!to_original) backend_address = parse_address(arguments[2]);
    listener = listen_on(&listen_address);
    if (to_original && setsockopt(listener, IPPROTO_IPV6, IPV6_TRANSPARENT, &(int){1}, sizeof(int)) < 0)
        die("floor: IPV6_TRANSPARENT: %s", strerror(errno));
    setsockopt(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, &(int){3}, sizeof(int));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    epoll_add(epoll, listener, EPOLLIN, 0);
    struct epoll_event events[256];
    for (;;) {
        int n = epoll_wait(epoll, events, 256, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < n; i++) {
            uint64_t data = events[i].data.u64;
            if (data == 0) accept_all();
            else on_event((struct link *)(uintptr_t)(data & ~1ull), (int)(data & 1), events[i].events);
        }
        for (struct link *link; (link = dead); free(link)) dead = link->next_dead;
    }
}
