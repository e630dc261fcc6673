// Short connections: connect, hello, reply, close. Latency runs from the start (or, paced, from when it was due) to the
// checked reply, so a relay that falls behind a pace can't hide it.
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

#include "loadgen.h"

static const struct options *options;
static long started, finished;
static uint64_t answered;
static long *idle, idle_count;  // indices of clients without a connection
static uint64_t first_ns;

static uint64_t due_ns(long number) {
    return first_ns + (uint64_t)number * 1000000000u / (uint64_t)options->rate;
}

static void release(long index) {
    idle[idle_count++] = index;
    finished++;
}

static void start_what_is_due(void) {
    while (started < options->connections && idle_count > 0) {
        uint64_t now = now_ns(), due = options->rate ? due_ns(started) : now;
        if (due > now) return;
        long index = idle[--idle_count];
        started++;
        if (!client_start(index, JOB_SHORT, 0, due)) release(index);
    }
}

/// By FIN: ours is sent, and the connection is done when the backend's has come back.
static bool ended_by_fin(struct client *client) {
    uint8_t byte;
    ssize_t n = recv(client->fd, &byte, 1, 0);
    if (n < 0 && errno == EAGAIN) return false;
    if (n == 0) client_close(client, true);
    else client_failed(client, "expected the end of the stream, got %s", n > 0 ? "more bytes" : strerror(errno));
    return true;
}

static void on_event(long index, uint32_t events) {
    struct client *client = client_at(index);
    if (client->phase == ANSWERED) {
        if (ended_by_fin(client)) release(index);
        return;
    }
    int outcome = client_event(client, events);
    if (outcome == 0) return;
    if (outcome > 0) {
        stats_add(now_ns() - client->started_ns);
        answered++;
        if (options->close_by_fin) {
            shutdown(client->fd, SHUT_WR);
            return;
        }
        client_reset_for_reuse(client);
    }
    release(index);
}

int run_short(const struct options *chosen) {
    options = chosen;
    long slots = options->rate ? 1024 : options->concurrent;
    clients_open(options, slots);
    stats_open(options->connections);
    idle = malloc((size_t)slots * sizeof *idle);
    if (!idle) die("no memory");
    while (idle_count < slots) idle[idle_count] = idle_count, idle_count++;
    prctl(PR_SET_TIMERSLACK, 1);
    stats_begin();
    first_ns = now_ns();
    struct epoll_event events[EVENTS_AT_ONCE];
    while (finished < options->connections) {
        start_what_is_due();
        bool more = options->rate && started < options->connections && idle_count > 0;
        int n = clients_wait(events, EVENTS_AT_ONCE, more ? due_ns(started) : 0);
        for (int i = 0; i < n; i++) on_event((long)events[i].data.u64, events[i].events);
    }
    return stats_print("short", answered, answered * (HELLO_BYTES + REPLY_BYTES));
}
