#define _GNU_SOURCE
#include "CLinuxInternal.h"

#include <fcntl.h>
#include <net/if.h>
#include <sys/stat.h>
#include <unistd.h>

#include "CLinuxProcesses.h"

/* glibc 2.36 has no name for the protocol, and headers before Linux 5.14 none for the cookie. */
enum { MULTIPATH_TCP = 262, NAMESPACE_COOKIE = 71, BOUND_INDEX = 62 };

static int number(int fd, int level, int option) {
    int value = 0;
    socklen_t length = sizeof value;
    return getsockopt(fd, level, option, &value, &length) < 0 ? 0 : value;
}

static uint64_t cookie(int fd) {
    uint64_t value = 0;
    socklen_t length = sizeof value;
    return getsockopt(fd, SOL_SOCKET, NAMESPACE_COOKIE, &value, &length) < 0 ? 0 : value;
}

static int is_elsewhere(int fd) {
    uint64_t its = cookie(fd);
    if (its == 0) return 0;
    int ours = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (ours < 0) return 0;
    uint64_t here = cookie(ours);
    close(ours);
    return here != 0 && here != its;
}

int cl_listener_look(int fd, struct cl_listener_facts *facts, struct cl_endpoint *at) {
    memset(facts, 0, sizeof *facts);
    memset(at, 0, sizeof *at);
    int type = 0;
    socklen_t length = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0) return -errno;
    facts->family = number(fd, SOL_SOCKET, SO_DOMAIN);
    facts->protocol = type == SOCK_STREAM ? number(fd, SOL_SOCKET, SO_PROTOCOL) : 0;
    if (facts->family != AF_INET && facts->family != AF_INET6) return 0;
    facts->listens = number(fd, SOL_SOCKET, SO_ACCEPTCONN);
    facts->takes_both = facts->family == AF_INET6 && !number(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    facts->is_elsewhere = is_elsewhere(fd);
    facts->interface = (uint32_t)number(fd, SOL_SOCKET, BOUND_INDEX);
    return cl_local_endpoint(fd, at);
}

int cl_close_on_exec(int fd) { return result(fcntl(fd, F_SETFD, FD_CLOEXEC)); }

int cl_listener_inherit(int fd, const struct cl_listen_options *options) {
    int flags = fcntl(fd, F_GETFL);
    int failed = flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    if (failed == 0) failed = fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (failed == 0 && options->reuse_port) failed = set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (failed < 0) return -errno;
    failed = set_stream_options(fd, options->congestion);
    if (failed == 0) failed = cl_watch_over(fd, options->keepalive_idle_s, options->user_timeout_ms);
    if (failed < 0) return failed;
    if (options->mode != CL_DIRECT && (set(fd, SOL_SOCKET, SO_MARK, 1) < 0 || set(fd, SOL_SOCKET, SO_MARK, 0) < 0))
        return -errno;
    if (options->mode == CL_TRANSPARENT) {
        failed = cl_set_transparent(fd);
        if (failed < 0) return failed;
    } else {
        /* What it may have been for; a socket that never was one refuses nothing. */
        int is_v6 = number(fd, SOL_SOCKET, SO_DOMAIN) == AF_INET6;
        (void)set(fd, is_v6 ? SOL_IPV6 : SOL_IP, is_v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, 0);
    }
    (void)set(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, options->defer_accept_s);
    return cl_listen_again(fd, options->backlog, options->fast_open);
}

int cl_has_multipath(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, MULTIPATH_TCP);
    if (fd < 0) return 0;
    close(fd);
    return 1;
}

int cl_is_same_socket(int a, int b) {
    struct stat one, other;
    if (fstat(a, &one) < 0 || fstat(b, &other) < 0) return 0;
    return one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}
