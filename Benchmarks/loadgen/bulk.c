// Bulk streams, one way each. Every byte is counted; one receive in eight is copied and compared, the rest are
// dropped in the kernel, so that the generator stays cheaper than the relay.
#include <errno.h>
#include <sys/epoll.h>

#include "loadgen.h"

static const struct options *options;
static long alive;
static uint64_t bytes;
static uint8_t buffer[BULK_CHUNK];

/// True: over, well or not.
static bool download(struct client *client) {
    static unsigned turn;
    for (;;) {
        bool look = turn++ % 8 == 0;
        ssize_t n = recv(client->fd, buffer, sizeof buffer, look ? 0 : MSG_TRUNC);
        if (n < 0 && errno == EAGAIN) return false;
        if (n < 0) return client_failed(client, "downloading: %s", strerror(errno)), true;
        if (n == 0) {
            if (client->moved != options->amount)
                client_failed(client, "the stream ended after %llu bytes", (unsigned long long)client->moved);
            return client_close(client, false), true;
        }
        if (look && !pattern_matches(client->moved, buffer, (size_t)n))
            return client_failed(client, "wrong bytes at %llu", (unsigned long long)client->moved), true;
        client->moved += (uint64_t)n, bytes += (uint64_t)n;
        if (client->moved > options->amount) return client_failed(client, "more bytes than were asked for"), true;
    }
}

/// Sends while the socket takes it. True: failed.
static bool upload(struct client *client) {
    while (client->moved < options->amount) {
        uint64_t left = options->amount - client->moved;
        ssize_t n = send(client->fd, pattern_at(client->moved), left < BULK_CHUNK ? left : BULK_CHUNK, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return false;
        if (n < 0) return client_failed(client, "uploading: %s", strerror(errno)), true;
        client->moved += (uint64_t)n, bytes += (uint64_t)n;
    }
    return false;
}

/// The backend's second record: it has counted and compared the upload.
static bool upload_confirmed(struct client *client) {
    int outcome = client_read_reply(client);
    if (outcome > 0) client_close(client, false);
    return outcome != 0;
}

static void on_event(struct client *client, uint32_t events) {
    if (client->fd < 0) return;
    if (client->phase != ANSWERED) {
        int outcome = client_event(client, events);
        if (outcome < 0) alive--;
        if (outcome <= 0) return;
        client->got = 0;
    }
    bool over = !options->upload                          ? download(client)
                : client->moved < options->amount && upload(client) ? true
                                                          : upload_confirmed(client);
    if (over) alive--;
}

int run_bulk(const struct options *chosen) {
    options = chosen;
    fill_pattern();
    clients_open(options, options->connections);
    stats_open(0);
    stats_begin();
    for (long i = 0; i < options->connections; i++)
        if (client_start(i, options->upload ? JOB_UPLOAD : JOB_DOWNLOAD, options->amount, now_ns())) alive++;
    struct epoll_event events[EVENTS_AT_ONCE];
    while (alive > 0) {
        int n = clients_wait(events, EVENTS_AT_ONCE, 0);
        for (int i = 0; i < n; i++) on_event(client_at((long)events[i].data.u64), events[i].events);
    }
    return stats_print(options->upload ? "upload" : "download", (uint64_t)options->connections, bytes);
}
