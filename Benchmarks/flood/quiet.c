// Those who take little: each source holds one stream that says something twenty times a second, and together they begin new
// connections at a steady rate, whatever becomes of the ones before. A connect is good if its reply comes within three seconds.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "../loadgen/hello.h"
#include "flood.h"

enum { AT_ONCE = 8192, STREAMS_MAX = 64, EVENTS = 256, MESSAGE = 64 };
static const uint64_t PATIENCE_NS = 3000000000u, STREAM_PERIOD_NS = 50000000u;

struct visit {
    enum { FREE, HELLO, REPLY, STREAMING } phase;
    bool is_stream;
    int fd;
    uint64_t started_ns, sum, nonce;
    uint32_t got, owed;  // bytes of the reply; of a stream's echo
};

static struct visit visits[AT_ONCE];
static int epoll;
static long tried, good, resets, streams_failed, late_messages;
static uint32_t *latencies;
static long latency_count, latency_room;
static uint64_t nonce = 1, measured_from, measured_until;

static bool counts(const struct visit *visit) { return visit->started_ns >= measured_from && visit->started_ns < measured_until; }

static void end(struct visit *visit, bool failed) {
    if (visit->fd >= 0) close_by_reset(visit->fd);
    if (failed && visit->is_stream) {
        if (visit->phase == STREAMING) resets++;
        else streams_failed++;
    }
    visit->phase = FREE, visit->fd = -1;
}

static void begin(const struct options *o, struct visit *visit, long source, bool is_stream) {
    *visit = (struct visit){.phase = HELLO, .is_stream = is_stream, .started_ns = now_ns(), .nonce = nonce++};
    if (!is_stream && counts(visit)) tried++;
    visit->fd = connect_from(o, source);
    if (visit->fd < 0) {
        end(visit, true);
        return;
    }
    no_delay(visit->fd);
    epoll_add(epoll, visit->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, (uint64_t)(visit - visits));
}

static void replied(struct visit *visit) {
    if (visit->is_stream) {
        visit->phase = STREAMING;
        return;
    }
    uint64_t taken = now_ns() - visit->started_ns;
    if (counts(visit)) {
        if (taken <= PATIENCE_NS) good++;
        if (latency_count < latency_room) latencies[latency_count++] = taken < UINT32_MAX ? (uint32_t)taken : UINT32_MAX;
    }
    end(visit, false);
}

static void on_event(struct visit *visit) {
    uint8_t bytes[4096];
    if (visit->phase == HELLO) {
        uint8_t hello[HELLO_BYTES];
        visit->sum = write_hello(hello, visit->nonce, visit->is_stream ? JOB_ECHO : JOB_SHORT, 0);
        ssize_t n = send(visit->fd, hello, sizeof hello, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return;
        if (n != HELLO_BYTES) return end(visit, true);
        visit->phase = REPLY;
    }
    while (visit->phase != FREE) {
        ssize_t n = recv(visit->fd, bytes, visit->phase == REPLY ? REPLY_BYTES - visit->got : sizeof bytes, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) return end(visit, true);
        if (visit->phase == STREAMING) {
            visit->owed -= (uint32_t)n < visit->owed ? (uint32_t)n : visit->owed;
            continue;
        }
        visit->got += (uint32_t)n;
        if (visit->got == REPLY_BYTES) replied(visit);
    }
}

static void speak(struct visit *visit) {
    static const uint8_t message[MESSAGE];
    if (visit->phase != STREAMING) return;
    if (visit->owed) late_messages++;
    ssize_t n = send(visit->fd, message, sizeof message, MSG_NOSIGNAL);
    if (n > 0) visit->owed += (uint32_t)n;
    else if (n < 0 && errno != EAGAIN) end(visit, true);
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}
static double percentile_us(double share) {
    return latency_count ? latencies[(long)(share * (double)(latency_count - 1))] / 1000.0 : 0;
}

int run_quiet(const struct options *o) {
    epoll = epoll_create1(EPOLL_CLOEXEC);
    latency_room = (long)(o->seconds * (double)o->rate) + 16;
    latencies = calloc((size_t)latency_room, sizeof *latencies);
    if (epoll < 0 || !latencies) die("no memory, or no descriptor");
    for (long i = 0; i < AT_ONCE; i++) visits[i].fd = -1;
    long streams = o->sources < STREAMS_MAX ? o->sources : STREAMS_MAX, next = streams, source = 0;
    uint64_t start = now_ns(), period = 1000000000u / (uint64_t)o->rate, due = start, spoken = start;
    measured_from = start, measured_until = start + (uint64_t)(o->seconds * 1e9);
    for (long i = 0; i < streams; i++) begin(o, &visits[i], i, true);
    for (uint64_t now = start; now < measured_until + PATIENCE_NS; now = now_ns()) {
        bool is_over = now >= measured_until;
        if (is_over && latency_count >= tried) break;
        for (; !is_over && due <= now; due += period) {
            for (long i = 0; i < AT_ONCE - streams && visits[next].phase != FREE; i++) next = next + 1 < AT_ONCE ? next + 1 : streams;
            if (visits[next].phase != FREE) end(&visits[next], true);
            begin(o, &visits[next], source++, false);
        }
        if (!is_over && now - spoken >= STREAM_PERIOD_NS) {
            for (long i = 0; i < streams; i++) speak(&visits[i]);
            spoken = now;
        }
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll, events, EVENTS, 1);
        for (int i = 0; i < n; i++) on_event(&visits[events[i].data.u64]);
    }
    qsort(latencies, (size_t)latency_count, sizeof *latencies, ascending);
    printf("{\"tried\": %ld, \"good\": %ld, \"p50_us\": %.1f, \"p99_us\": %.1f, \"streams\": %ld, \"streams_refused\": %ld, "
           "\"streams_reset\": %ld, \"late_messages\": %ld}\n",
           tried, good, percentile_us(0.5), percentile_us(0.99), streams, streams_failed, resets, late_messages);
    return 0;
}
