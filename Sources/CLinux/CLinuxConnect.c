#define _GNU_SOURCE
#include "CLinuxInternal.h"

#include <linux/sockios.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* IP_LOCAL_PORT_RANGE, which Debian 12's headers lack. */
enum { LOCAL_PORT_RANGE = 51 };

int cl_guard_against_death(int fd, int keepalive_idle_s, int user_timeout_ms) {
    int failed = 0;
    if (keepalive_idle_s > 0) {
        failed |= set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        failed |= set(fd, IPPROTO_TCP, TCP_KEEPIDLE, keepalive_idle_s);
        failed |= set(fd, IPPROTO_TCP, TCP_KEEPINTVL, keepalive_idle_s < 15 ? keepalive_idle_s : 15);
    }
    if (user_timeout_ms > 0) failed |= set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, user_timeout_ms);
    return failed ? -errno : 0;
}

/* TCP_RTO_MAX_MS, of Linux 6.15. */
enum { RTO_MAX = 44 };

static int between(int low, int value, int high) { return value < low ? low : value > high ? high : value; }

int cl_watch_over(int fd, int keepalive_idle_s, int silence_ms) {
    int failed = 0;
    if (keepalive_idle_s > 0) {
        failed |= set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        failed |= set(fd, IPPROTO_TCP, TCP_KEEPIDLE, keepalive_idle_s);
        /* The system gives up after nine. */
        failed |= set(fd, IPPROTO_TCP, TCP_KEEPINTVL, between(1, silence_ms / 9000, keepalive_idle_s < 15 ? keepalive_idle_s : 15));
    }
    return failed ? -errno : 0;
}

int cl_set_longest_wait(int fd, int milliseconds) {
    return set(fd, IPPROTO_TCP, RTO_MAX, between(1000, milliseconds, 120000)) < 0 ? -errno : 0;
}

/* MPTCP_INFO of Linux 6.10 and newer, as far as it is used. */
struct multipath_info {
    uint8_t counts[6];
    uint32_t flags, token;
    uint64_t written, acknowledged;
    uint8_t others[52];
    uint32_t last_data_sent_ms, last_data_received_ms, last_ack_received_ms;
};
_Static_assert(sizeof(struct multipath_info) == 96, "as the kernel has it");

/* TCP_INFO of a multipath connection is of its first path, which may be gone while others go on. Its sockets have no
   RTO_MAX: the kernel may wait so long between two probes, and a peer is as silent as it is beyond that. */
static void hear_other_paths(int fd, struct cl_silence *out) {
    enum { SOL_MULTIPATH = 284, INFO = 1, LONGEST_WAIT_MS = 120000 };
    struct multipath_info info;
    socklen_t length = sizeof info;
    memset(&info, 0, sizeof info);
    if (getsockopt(fd, SOL_MULTIPATH, INFO, &info, &length) < 0 || length < sizeof info) return;
    out->owed = info.written != info.acknowledged;
    if (info.last_ack_received_ms < out->milliseconds) out->milliseconds = info.last_ack_received_ms;
    out->milliseconds = out->milliseconds > LONGEST_WAIT_MS ? out->milliseconds - LONGEST_WAIT_MS : 0;
    if (info.last_data_received_ms < out->quiet_milliseconds) out->quiet_milliseconds = info.last_data_received_ms;
}

int cl_silence_of(int fd, struct cl_silence *out) {
    /* glibc's structure ends before what has not been sent. */
    struct {
        struct tcp_info head;
        uint64_t pacing_rate, max_pacing_rate, bytes_acked, bytes_received;
        uint32_t segments_out, segments_in, not_sent, min_rtt;
    } info;
    memset(&info, 0, sizeof info);
    socklen_t length = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0) return -errno;
    out->owed = info.head.tcpi_unacked > 0 || info.not_sent > 0;
    /* One probe may still be on its way, or lost. */
    out->unanswered = info.head.tcpi_unacked > 0 || info.head.tcpi_probes > 1;
    out->milliseconds = info.head.tcpi_last_ack_recv;
    /* Both count from the handshake. An acknowledgement shows life only where something was sent. */
    out->quiet_milliseconds = info.head.tcpi_last_data_recv;
    out->sent_milliseconds = info.head.tcpi_last_data_sent;
    /* Only of who seems silent, so that others cost no call more. */
    if (out->owed && out->milliseconds >= 1000) hear_other_paths(fd, out);
    if (out->owed && out->milliseconds < out->quiet_milliseconds) out->quiet_milliseconds = out->milliseconds;
    return 0;
}

/* Gives a socket its source address; its port is taken at connect, where more are free (IP_BIND_ADDRESS_NO_PORT). */
static int bind_to(int fd, const struct cl_endpoint *from) {
    struct sockaddr_storage address;
    struct cl_endpoint any_port = {from->high, from->low, 0};
    socklen_t length = to_sockaddr(&any_port, &address);
    if (bind(fd, (struct sockaddr *)&address, length) == 0) return 0;
    /* At connect EADDRNOTAVAIL says that no port is left. */
    return errno == EADDRNOTAVAIL ? -ENXIO : -errno;
}

static int take_source(int fd, const struct cl_way *way) {
    int failed = way->is_foreign ? cl_set_transparent(fd) : 0;
    if (failed == 0 && set(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1) < 0) failed = -errno;
    return failed == 0 ? bind_to(fd, &way->from) : failed;
}

/* IPv4's connect refuses so a source that can't send there: a loopback address, or one that has gone since. */
static int of_source(int failed) { return failed == -EINVAL ? -ENXIO : failed; }

/* The ports that a socket may come from: all, but for the one that it connects to. On an address of this host, where nobody
   listens, it could else find itself there, and be connected. What is left is two halves: one in turn. 0: the system's. */
static uint32_t ports_beside(uint16_t port, uint32_t range, bool upper) {
    uint32_t low = range & 0xFFFF, high = range >> 16;
    if (range == 0 || port < low || port > high || low == high) return range;
    if (port == low || (upper && port != high)) return high << 16 | (port + 1u);
    return (port - 1u) << 16 | low;
}

/* True where the kernel has let the socket connect to itself: where sockets take no range of ports (before Linux 6.3). */
static bool is_self(int fd, const struct cl_endpoint *to) {
    struct cl_endpoint local;
    return cl_local_endpoint(fd, &local) == 0 && local.port == to->port && local.high == to->high
        && local.low == to->low;
}

/* The kernel takes no range of ports for a socket. */
static _Thread_local bool ranges_are_refused;

/* Whether a socket may come from that port; a range that is not known may be any. */
static bool is_among(uint16_t port, uint32_t range) {
    return range == 0 || (port >= (range & 0xFFFF) && port <= range >> 16);
}

/* Connects from a port beside the one that it connects to. fd stays open. */
static int connect_beside(int fd, const struct cl_endpoint *to, uint32_t range) {
    static _Thread_local bool upper;
    struct sockaddr_storage address;
    socklen_t length = to_sockaddr(to, &address);
    bool may_meet = is_among(to->port, range);
    for (int half = 0; half < 2; half++) {
        /* Without it ports are found more slowly where many are in use. */
        uint32_t ports = ports_beside(to->port, range, upper);
        if (ports != 0) ranges_are_refused = set(fd, SOL_IP, LOCAL_PORT_RANGE, (int)ports) < 0;
        if (may_meet) upper = !upper;
        if (connect(fd, (struct sockaddr *)&address, length) == 0 || errno == EINPROGRESS)
            return may_meet && (ports == 0 || ranges_are_refused) && is_self(fd, to) ? -ECONNREFUSED : 0;
        if (errno != EADDRNOTAVAIL || !may_meet || range == 0) break;
    }
    return -errno;
}

int cl_connect_by(
    const struct cl_endpoint *to, const struct cl_way *way, const struct cl_connect_options *options) {
    int fd = socket(is_v4(to) ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int failed = set_stream_options(fd, options->congestion);
    if (failed == 0 && way->mark != 0 && set(fd, SOL_SOCKET, SO_MARK, (int)way->mark) < 0) failed = -errno;
    if (failed == 0 && way->has_source) failed = take_source(fd, way);
    if (failed == 0) failed = connect_beside(fd, to, options->port_range);
    if (failed < 0) {
        if (way->has_source) failed = of_source(failed);
        close(fd);
        return failed;
    }
    return fd;
}

uint32_t cl_local_port_range(void) {
    FILE *file = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    if (file == NULL) return 0;
    unsigned low = 0, high = 0;
    int read = fscanf(file, "%u %u", &low, &high);
    fclose(file);
    return read == 2 && low > 0 && low <= high && high <= 65535 ? high << 16 | low : 0;
}

int cl_connect(const struct cl_endpoint *to, const struct cl_connect_options *options) {
    struct cl_way any = {0};
    return cl_connect_by(to, &any, options);
}

int cl_connect_again(
    int fd, const struct cl_endpoint *to, const struct cl_way *way, const struct cl_connect_options *options) {
    struct sockaddr_storage address;
    socklen_t length = to_sockaddr(to, &address);
    /* It is bound there, but IPv6 asks at bind alone whether the address is still this host's. */
    int failed = way->has_source ? bind_to(fd, &way->from) : 0;
    /* It still has the ports of its last connect, which was to the same place. */
    if (failed == 0 && (connect(fd, (struct sockaddr *)&address, length) == 0 || errno == EINPROGRESS))
        failed = ranges_are_refused && is_among(to->port, options->port_range) && is_self(fd, to) ? -ECONNREFUSED : 0;
    else if (failed == 0)
        failed = errno == EADDRNOTAVAIL ? connect_beside(fd, to, options->port_range) : -errno;
    if (failed == 0) return fd;
    close(fd);
    return way->has_source ? of_source(failed) : failed;
}

int cl_unacknowledged(int fd) {
    int bytes = 0;
    return ioctl(fd, SIOCOUTQ, &bytes) < 0 ? -errno : bytes;
}

int cl_disconnect(int fd) {
    struct sockaddr nothing = {.sa_family = AF_UNSPEC};
    return result(connect(fd, &nothing, sizeof nothing));
}

int cl_may_connect_as_others(void) {
    int failed = 0;
    for (int v6 = 0; v6 < 2 && failed == 0; v6++) {
        int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        /* What the host does not have, nobody connects by. */
        if (fd < 0) continue;
        failed = cl_set_transparent(fd);
        close(fd);
    }
    return failed;
}
