// Round trips over long connections, one message in flight on each. A message is a piece of the pattern that begins with its
// own number, so that an answer to another one shows.
#include <errno.h>
#include <sys/epoll.h>

#include "loadgen.h"

static uint64_t asked, wanted, done;
static long alive;
static size_t message_bytes;

static bool ask(struct client *client) {
    uint8_t message[MESSAGE_MAX];
    memcpy(message, pattern_at(asked), message_bytes);
    client->moved = asked++;
    store64(message, client->moved);
    client->got = 0;
    client->started_ns = now_ns();
    if (send(client->fd, message, message_bytes, MSG_NOSIGNAL) == (ssize_t)message_bytes) return true;
    client_failed(client, "sending a message: %s", strerror(errno));
    return false;
}

/// Whether `count` bytes at `offset` of the answer are the message's.
static bool is_right(const struct client *client, const uint8_t *bytes, size_t offset, size_t count) {
    uint8_t number[8];
    store64(number, client->moved);
    for (; offset < sizeof number && count > 0; offset++, bytes++, count--)
        if (*bytes != number[offset]) return false;
    return memcmp(bytes, pattern_at(client->moved) + offset, count) == 0;
}

/// 1: the answer is complete and right; 0: not yet; -1: failed.
static int read_answer(struct client *client) {
    static uint8_t answer[MESSAGE_MAX];
    while (client->got < message_bytes) {
        ssize_t n = recv(client->fd, answer, message_bytes - client->got, 0);
        if (n < 0 && errno == EAGAIN) return 0;
        if (n <= 0) return client_failed(client, "in a round trip: %s", n ? strerror(errno) : "end of stream"), -1;
        if (!is_right(client, answer, client->got, (size_t)n)) return client_failed(client, "an answer is not the message"), -1;
        client->got += (uint32_t)n;
    }
    stats_add(now_ns() - client->started_ns);
    return 1;
}

static void on_event(struct client *client, uint32_t events) {
    if (client->fd < 0) return;
    int outcome = client->phase == ANSWERED ? read_answer(client) : client_event(client, events);
    if (outcome == 0) return;
    if (outcome > 0) {
        if (client->phase == ANSWERED && client->moved != UINT64_MAX) done++;
        if (asked < wanted && ask(client)) return;
        client_close(client, false);
    }
    alive--;
}

int run_rtt(const struct options *options) {
    fill_pattern();
    clients_open(options, options->connections);
    stats_open((long)options->amount);
    wanted = options->amount;
    message_bytes = (size_t)options->message;
    stats_begin();
    for (long i = 0; i < options->connections; i++) {
        if (!client_start(i, JOB_ECHO, 0, now_ns())) continue;
        client_at(i)->moved = UINT64_MAX;  // no message yet: the first answer is the reply to the hello
        alive++;
    }
    struct epoll_event events[EVENTS_AT_ONCE];
    while (alive > 0) {
        int n = clients_wait(events, EVENTS_AT_ONCE, 0);
        for (int i = 0; i < n; i++) on_event(client_at((long)events[i].data.u64), events[i].events);
    }
    return stats_print("rtt", done, done * message_bytes * 2);
}
