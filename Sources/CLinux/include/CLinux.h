/* Thin seams to Linux calls and macros that Swift can't import. Each returns >= 0 or -errno; none holds state. */
#pragma once
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "CLinuxControl.h"
#include "CLinuxFiles.h"
#include "CLinuxProcesses.h"
#include "CLinuxWatch.h"

/* An address as Swift's IPAddress holds it: IPv4 is IPv4-mapped. Words in host order. */
struct cl_endpoint {
    uint64_t high;
    uint64_t low;
    uint16_t port;
};

enum { CL_READABLE = 1, CL_WRITABLE = 2, CL_READ_END = 4, CL_HANGUP = 8, CL_URGENT = 16 };

struct cl_event {
    uint64_t key;
    uint8_t readiness;
};

/* What an accepted socket inherits, and what a listener is. Zero or NULL: leave as the system has it. */
struct cl_listen_options {
    int backlog;
    int keepalive_idle_s;
    int user_timeout_ms; /* as in cl_watch_over */
    int defer_accept_s;
    int reuse_port;
    const char *congestion;
    /* One of CL_DIRECT... */
    int mode;
    const char *interface; /* SO_BINDTODEVICE */
    int fast_open;         /* TCP_FASTOPEN: how many may wait */
    int multipath;         /* IPPROTO_MPTCP if the kernel has it, else TCP */
};

/* How a listener comes by its connections. The others need CAP_NET_ADMIN, for what they or their upstream sockets set. */
enum { CL_DIRECT, CL_TRANSPARENT, CL_REDIRECT };

struct cl_connect_options {
    uint32_t port_range; /* IP_LOCAL_PORT_RANGE: high << 16 | low; 0: the system's */
    int keepalive_idle_s;
    int user_timeout_ms;
    const char *congestion;
};

/* How a connection leaves this host. All zero: as the system likes. */
struct cl_way {
    struct cl_endpoint from; /* the address alone; the port is the kernel's choice */
    uint32_t mark;           /* SO_MARK */
    bool has_source;         /* `from` is one */
    bool is_foreign;         /* which need not be this host's (IP_TRANSPARENT) */
};

int cl_listen(const struct cl_endpoint *at, const struct cl_listen_options *options);
/* Of a socket that listens: its backlog, and how many with data in their SYN may wait; 0: none. */
int cl_listen_again(int fd, int backlog, int fast_open);
/* 1 if it is a socket of MPTCP. */
int cl_is_multipath(int fd);
/* The index of an interface; 0 if there is none of that name. */
uint32_t cl_interface_index(const char *name);
/* The index of the interface that an accepted connection's first packet came by; 0 if it can't be told. */
uint32_t cl_incoming_interface(int fd);
/* The name of an interface into 16 bytes; false if there is none by now. */
bool cl_interface_name(uint32_t index, char *name);
int cl_local_endpoint(int fd, struct cl_endpoint *out);
int cl_accept(int fd, struct cl_endpoint *peer);
/* The host's range of source ports, as cl_connect_options has it; 0 if it can't be read. */
uint32_t cl_local_port_range(void);
int cl_connect(const struct cl_endpoint *to, const struct cl_connect_options *options);
/* The same, by that way. -ENXIO: nothing can be sent there from `from`, mostly because this host does not have it. */
int cl_connect_by(
    const struct cl_endpoint *to, const struct cl_way *way, const struct cl_connect_options *options);
/* Whether this process may set cl_way's is_foreign: 0, or -EPERM. */
int cl_may_connect_as_others(void);
/* Where a connection went before nftables redirected it (SO_ORIGINAL_DST); -ENOENT: it was not. */
int cl_original_destination(int fd, struct cl_endpoint *out);
/* Lets a listening socket have connections to other addresses (IP_TRANSPARENT, IPV6_TRANSPARENT). */
int cl_set_transparent(int fd);
/* A UDP socket, not blocking, that sends to and hears from this one only, and keeps what ICMP says of its datagrams. */
int cl_connect_datagram(const struct cl_endpoint *to);
/* What ICMP has said next of a datagram that was sent: an errno, and the datagram's first `*quoted` bytes as far as the
   message had them; 0: nothing more. */
int cl_datagram_error(int fd, void *quote, size_t capacity, size_t *quoted);
/* Connects a socket that cl_disconnect left; it is closed if that fails at once. */
int cl_connect_again(
    int fd, const struct cl_endpoint *to, const struct cl_way *way, const struct cl_connect_options *options);
/* How many bytes were sent, FIN counting as one, that the peer has not acknowledged; -errno. */
int cl_unacknowledged(int fd);
/* Ends a connection with RST; the socket keeps its options and its place in an epoll, and may connect again. */
int cl_disconnect(int fd);
/* Keepalive and user timeout, in the units of cl_connect_options. */
int cl_guard_against_death(int fd, int keepalive_idle_s, int user_timeout_ms);
/* Keepalive for one that is idle, which is over after about as long a silence. */
int cl_watch_over(int fd, int keepalive_idle_s, int silence_ms);
/* How long a retransmission, or a probe of a window that is shut, waits at most: 1 to 120 seconds. Linux 6.15. */
int cl_set_longest_wait(int fd, int milliseconds);

/* What is known of the TCP of a socket's peer: see PeerSilence. */
struct cl_silence {
    bool owed;
    bool unanswered;
    /* Since the last acknowledgement; since the last data, or acknowledgement of data. */
    uint32_t milliseconds;
    uint32_t quiet_milliseconds;
    uint32_t sent_milliseconds; /* since bytes were last sent to it */
};
int cl_silence_of(int fd, struct cl_silence *out);
int cl_socket_error(int fd);

ssize_t cl_receive(int fd, void *buffer, size_t count);
/* As cl_receive, and leaves the bytes where they are. */
ssize_t cl_peek(int fd, void *buffer, size_t count);
/* Takes bytes off a TCP socket's queue without copying them. */
ssize_t cl_skip(int fd, size_t count);
ssize_t cl_send(int fd, const void *first, size_t first_count, const void *second, size_t second_count);
/* SO_SNDBUF and SO_RCVBUF: the kernel grows them no more by itself. */
int cl_cap_buffers(int fd, int bytes);
/* SO_RCVLOWAT. */
int cl_set_low_water(int fd, int bytes);
/* `more`: what goes to a socket is followed by more at once, so that the last segment may wait for it. */
ssize_t cl_splice(int from, int to, size_t count, bool more);
/* The segment size of a TCP socket whose congestion control paces what it sends; 0 if it does not, or can't be asked. */
int cl_paced_segment(int fd);
/* ends[0] is read, ends[1] is written. The capacity is a wish. */
int cl_pipe(int ends[2], int capacity);
int cl_shutdown_write(int fd);
int cl_close(int fd);
int cl_close_with_reset(int fd);
/* Closes a listening socket that others may have open too: it listens no more. */
int cl_close_listener(int fd);

/* Gives the calling thread a table of descriptors of its own, with nothing in it but the standard streams, `kept` (at
   most 7), and what is returned: where cl_take_descriptor takes from, the process's main table, in which it is open as
   well, by the same number. */
int cl_own_descriptors(const int *kept, int count);
/* 0, if this process's threads may do that. */
int cl_may_own_descriptors(void);
/* A descriptor of the calling thread's table for one of the process's main table. */
int cl_take_descriptor(int process, int fd);
int cl_copy_descriptor(int fd);

int cl_epoll_create(void);
int cl_watch(int epoll, int fd, uint64_t key);
int cl_watch_level(int epoll, int fd, uint64_t key);
int cl_unwatch(int epoll, int fd);
/* timeout_ns < 0: for ever. */
int cl_wait(int epoll, struct cl_event *events, int capacity, int64_t timeout_ns);

uint64_t cl_now(void);
uint64_t cl_wall_clock(void);

int cl_eventfd(void);
int cl_eventfd_signal(int fd);
int cl_eventfd_clear(int fd);
int cl_open_null(void);

/* Anonymous memory that costs nothing until touched; NULL if there is none. */
void *cl_map(size_t bytes);
void cl_unmap(void *memory, size_t bytes);
/* Gives pages back to the system; they read as zero afterwards. */
void cl_discard(void *memory, size_t bytes);

int cl_cpu_count(void);
/* The n-th cpu that this process may run on, or -EINVAL. */
int cl_cpu_at(int n);
int cl_pin(int cpu);
int cl_name_thread(const char *name);
/* Raises the soft limit of descriptors to the hard one; returns it. */
int64_t cl_raise_descriptor_limit(void);
