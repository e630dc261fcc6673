#define _GNU_SOURCE
#include "CLinuxInternal.h"

#include <fcntl.h>
#include <linux/errqueue.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, whose headers can't be had beside glibc's own. */
enum { ORIGINAL_DESTINATION = 80 };

static void from_sockaddr(const struct sockaddr_storage *in, struct cl_endpoint *e) {
    if (in->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)in;
        e->high = 0;
        e->low = 0xFFFF00000000ull | ntohl(v4->sin_addr.s_addr);
        e->port = ntohs(v4->sin_port);
        return;
    }
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)in;
    uint64_t words[2];
    memcpy(words, &v6->sin6_addr, sizeof words);
    e->high = be64toh(words[0]);
    e->low = be64toh(words[1]);
    e->port = ntohs(v6->sin6_port);
}

static int is_v6_socket(int fd) {
    int domain = 0;
    socklen_t length = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_INET6;
}

int cl_set_transparent(int fd) {
    int failed = is_v6_socket(fd) ? set(fd, SOL_IPV6, IPV6_TRANSPARENT, 1) : set(fd, SOL_IP, IP_TRANSPARENT, 1);
    return failed ? -errno : 0;
}

/* Whether upstream sockets of an intercepting listener may set what they need: better known before the first client. */
static int may_intercept(int fd) {
    return set(fd, SOL_SOCKET, SO_MARK, 1) || set(fd, SOL_SOCKET, SO_MARK, 0) ? -errno : 0;
}

/* glibc 2.36 has no name for it. */
enum { MULTIPATH_TCP = 262 };

static int listening_socket(int family, int multipath) {
    int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    if (multipath) {
        int fd = socket(family, type, MULTIPATH_TCP);
        /* Not built in, or off (net.mptcp.enabled): plain TCP serves as well. What is short is short for TCP too. */
        if (fd >= 0 || errno == EMFILE || errno == ENFILE) return fd;
    }
    return socket(family, type, 0);
}

int cl_is_multipath(int fd) {
    int protocol = 0;
    socklen_t length = sizeof protocol;
    return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == 0 && protocol == MULTIPATH_TCP;
}

int cl_listen_again(int fd, int backlog, int fast_open) {
    if (set(fd, IPPROTO_TCP, TCP_FASTOPEN, fast_open) < 0 && fast_open > 0) return -errno;
    return listen(fd, backlog) < 0 ? -errno : 0;
}

int cl_listen(const struct cl_endpoint *at, const struct cl_listen_options *options) {
    struct sockaddr_storage address;
    socklen_t length = to_sockaddr(at, &address);
    int fd = listening_socket(address.ss_family, options->multipath);
    if (fd < 0) return -errno;
    int failed = set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (options->reuse_port) failed |= set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (address.ss_family == AF_INET6) failed |= set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (failed == 0) {
        failed = set_stream_options(fd, options->congestion);
        if (failed == 0)
            failed = cl_watch_over(fd, options->keepalive_idle_s, options->user_timeout_ms);
        if (failed < 0) errno = -failed;
    }
    if (failed == 0 && options->mode != CL_DIRECT) {
        failed = may_intercept(fd);
        if (failed == 0 && options->mode == CL_TRANSPARENT) failed = cl_set_transparent(fd);
        if (failed < 0) errno = -failed;
    }
    if (failed == 0 && options->defer_accept_s > 0)
        failed = set(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, options->defer_accept_s);
    if (failed == 0 && options->fast_open > 0) failed = set(fd, IPPROTO_TCP, TCP_FASTOPEN, options->fast_open);
    if (failed == 0 && options->interface != NULL)
        failed = setsockopt(
            fd, SOL_SOCKET, SO_BINDTODEVICE, options->interface, (socklen_t)strlen(options->interface) + 1);
    if (failed == 0) failed = bind(fd, (struct sockaddr *)&address, length);
    if (failed == 0) failed = listen(fd, options->backlog);
    if (failed != 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int cl_can_bind(const struct cl_endpoint *at) {
    struct sockaddr_storage address;
    struct cl_endpoint any = {at->high, at->low, 0};
    socklen_t length = to_sockaddr(&any, &address);
    /* A datagram socket: it takes no TCP port, and nobody can connect to it meanwhile. */
    int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int failed = bind(fd, (struct sockaddr *)&address, length) < 0 ? -errno : 0;
    close(fd);
    return failed;
}

int cl_local_endpoint(int fd, struct cl_endpoint *out) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0) return -errno;
    from_sockaddr(&address, out);
    return 0;
}

int cl_accept(int fd, struct cl_endpoint *peer) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    int accepted;
    do accepted = accept4(fd, (struct sockaddr *)&address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    while (accepted < 0 && errno == EINTR);
    if (accepted < 0) return -errno;
    from_sockaddr(&address, peer);
    return accepted;
}

int cl_original_destination(int fd, struct cl_endpoint *out) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    memset(&address, 0, sizeof address);
    int level = is_v6_socket(fd) ? SOL_IPV6 : SOL_IP;
    if (getsockopt(fd, level, ORIGINAL_DESTINATION, &address, &length) < 0) return -errno;
    from_sockaddr(&address, out);
    return 0;
}

int cl_connect_datagram(const struct cl_endpoint *to) {
    struct sockaddr_storage address;
    socklen_t length = to_sockaddr(to, &address);
    int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (connect(fd, (struct sockaddr *)&address, length) < 0) {
        int failed = -errno;
        close(fd);
        return failed;
    }
    /* What it can't have is told less well, and no reason to send nothing. */
    int on = 1;
    bool is_v4 = address.ss_family == AF_INET;
    setsockopt(fd, is_v4 ? SOL_IP : SOL_IPV6, is_v4 ? IP_RECVERR : IPV6_RECVERR, &on, sizeof on);
    return fd;
}

int cl_datagram_error(int fd, void *quote, size_t capacity, size_t *quoted) {
    for (;;) {
        char control[512] __attribute__((aligned(8)));
        struct iovec part = {quote, capacity};
        struct msghdr message = {
            .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        ssize_t n = recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN ? 0 : -errno;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c)) {
            bool is_error = (c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR)
                || (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_RECVERR);
            struct sock_extended_err error;
            if (!is_error || c->cmsg_len < CMSG_LEN(sizeof error)) continue;
            memcpy(&error, CMSG_DATA(c), sizeof error);
            /* Of this host's own refusals the call itself has told. */
            if (error.ee_origin != SO_EE_ORIGIN_ICMP && error.ee_origin != SO_EE_ORIGIN_ICMP6) continue;
            *quoted = (size_t)n;
            return (int)error.ee_errno;
        }
    }
}

int cl_socket_error(int fd) {
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) return errno;
    return error;
}

int cl_shutdown_write(int fd) { return result(shutdown(fd, SHUT_WR)); }

int cl_close(int fd) { return result(close(fd)); }

int cl_close_with_reset(int fd) {
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    return result(close(fd));
}

int cl_epoll_create(void) { return result(epoll_create1(EPOLL_CLOEXEC)); }

int cl_watch(int epoll, int fd, uint64_t key) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET, .data.u64 = key};
    return result(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}

int cl_watch_level(int epoll, int fd, uint64_t key) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = key};
    return result(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}

int cl_unwatch(int epoll, int fd) { return result(epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL)); }

int cl_wait(int epoll, struct cl_event *events, int capacity, int64_t timeout_ns) {
    enum { BATCH = 256 };
    struct epoll_event raw[BATCH];
    int timeout_ms = timeout_ns < 0 ? -1 : (int)((timeout_ns + 999999) / 1000000);
    int n = epoll_wait(epoll, raw, capacity < BATCH ? capacity : BATCH, timeout_ms);
    if (n < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < n; i++) {
        uint32_t e = raw[i].events;
        events[i].key = raw[i].data.u64;
        events[i].readiness = (uint8_t)((e & EPOLLIN ? CL_READABLE : 0) | (e & EPOLLOUT ? CL_WRITABLE : 0)
            | (e & EPOLLRDHUP ? CL_READ_END : 0) | (e & (EPOLLERR | EPOLLHUP) ? CL_HANGUP : 0)
            | (e & EPOLLPRI ? CL_URGENT : 0));
    }
    return n;
}

static uint64_t read_clock(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

uint64_t cl_now(void) { return read_clock(CLOCK_MONOTONIC); }
uint64_t cl_wall_clock(void) { return read_clock(CLOCK_REALTIME); }

int cl_eventfd(void) { return result(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); }

int cl_eventfd_signal(int fd) {
    uint64_t one = 1;
    return result(write(fd, &one, sizeof one));
}

int cl_eventfd_clear(int fd) {
    uint64_t count;
    return result(read(fd, &count, sizeof count));
}

int cl_open_null(void) { return result(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

void *cl_map(size_t bytes) {
    void *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void cl_unmap(void *memory, size_t bytes) { munmap(memory, bytes); }

void cl_discard(void *memory, size_t bytes) { madvise(memory, bytes, MADV_DONTNEED); }

int cl_cpu_count(void) {
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof cpus, &cpus) < 0) return -errno;
    return CPU_COUNT(&cpus);
}

int cl_cpu_at(int n) {
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof cpus, &cpus) < 0) return -errno;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &cpus) && n-- == 0) return cpu;
    return -EINVAL;
}

int cl_pin(int cpu) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(cpu, &cpus);
    return result(sched_setaffinity(0, sizeof cpus, &cpus));
}

int cl_name_thread(const char *name) { return -pthread_setname_np(pthread_self(), name); }

int64_t cl_raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return -errno;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) return -errno;
    return (int64_t)limit.rlim_cur;
}
