// Idle connections: open, hello, reply, and then nothing. Says "ready" and holds them until its standard input ends.
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "loadgen.h"

enum { OPENING_AT_ONCE = 64 };

int run_idle(const struct options *options) {
    clients_open(options, options->connections);
    stats_open(0);
    stats_begin();
    long started = 0, finished = 0, held = 0;
    struct epoll_event events[EVENTS_AT_ONCE];
    while (finished < options->connections) {
        for (; started < options->connections && started - finished < OPENING_AT_ONCE; started++)
            if (!client_start(started, JOB_HOLD, 0, now_ns())) finished++;
        int n = clients_wait(events, EVENTS_AT_ONCE, 0);
        for (int i = 0; i < n; i++) {
            struct client *client = client_at((long)events[i].data.u64);
            if (client->phase == ANSWERED) {
                if (!(events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))) continue;
                client_failed(client, "ended while it should be held");
                held--;
                continue;
            }
            int outcome = client_event(client, events[i].events);
            if (outcome != 0) finished++;
            if (outcome > 0) held++;
        }
    }
    printf("ready %ld\n", held);
    fflush(stdout);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0) {}
    for (long i = 0; i < options->connections; i++) {
        struct client *client = client_at(i);
        if (client->fd >= 0 && recv(client->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0) client_failed(client, "did not stay open");
        client_close(client, false);
    }
    return stats_print("idle", (uint64_t)held, 0);
}
