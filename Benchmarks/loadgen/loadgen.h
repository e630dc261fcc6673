// The load generator: one thread, one epoll, a job a run. Its own cost is part of its report.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "../common/net.h"
#include "../common/wire.h"
#include "hello.h"

enum { MESSAGE_MAX = 65536 };

struct options {
    struct address target;
    const char *server_name;
    long names;        // e0000.example.com and so on instead, at most 10,000; 0: server_name
    long connections;  // short: in all; others: at once
    long concurrent;   // short: at once
    long rate;         // short: starts a second; 0: as fast as they end
    uint64_t amount;   // rtt: round trips in all; bulk: bytes a stream
    long message;      // rtt: bytes of a message
    bool upload;
    bool close_by_fin;
    bool expects_proxy;  // the backend must have been told our port
};

/// One connection. `phase` moves only forward.
struct client {
    enum { CLOSED, CONNECTING, WAITING, ANSWERED } phase;
    int fd;
    uint32_t got;
    uint64_t nonce, sum, started_ns;
    uint64_t moved;   // a job's own: bytes, or messages
    uint8_t reply[REPLY_BYTES];
};

// client.c
void clients_open(const struct options *options, long count);
struct client *client_at(long index);
/// Connects and, as soon as that is possible, sends the hello. False: failed, and reported.
bool client_start(long index, enum job job, uint64_t amount, uint64_t started_ns);
/// Reads the reply as far as it is there. 1: complete and right, 0: not yet, -1: failed, reported and closed.
int client_read_reply(struct client *client);
/// Handles one event until the reply is complete; as ``client_read_reply``.
int client_event(struct client *client, uint32_t events);
void client_close(struct client *client, bool by_fin);
/// Ends the connection with RST and keeps the socket for the next: cheaper than closing and opening one.
void client_reset_for_reuse(struct client *client);
void client_failed(struct client *client, const char *format, ...) __attribute__((format(printf, 2, 3)));
/// Waits for events; dies if nothing at all happened for ten seconds. `until_ns` 0: no deadline.
struct epoll_event;
int clients_wait(struct epoll_event *events, int capacity, uint64_t until_ns);
enum { EVENTS_AT_ONCE = 256 };

// stats.c
void stats_open(long capacity);
void stats_add(uint64_t latency_ns);
void stats_begin(void);
void stats_failure(void);
/// Prints one line of JSON; returns the exit status.
int stats_print(const char *job, uint64_t operations, uint64_t bytes);

// One file a job; each returns the exit status.
int run_short(const struct options *options);
int run_rtt(const struct options *options);
int run_bulk(const struct options *options);
int run_idle(const struct options *options);
