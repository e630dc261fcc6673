#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The calls of each event go to the kernel straight: glibc's are points where a thread may be cancelled, and switch
   that on and off in a process with threads. */
static ssize_t send_message(int fd, const struct msghdr *message) {
    return syscall(SYS_sendmsg, fd, message, MSG_NOSIGNAL);
}

static ssize_t send_bytes(int fd, const void *bytes, size_t count) {
    return syscall(SYS_sendto, fd, bytes, count, MSG_NOSIGNAL, NULL, 0);
}

ssize_t cl_receive(int fd, void *buffer, size_t count) {
    ssize_t n;
    do n = syscall(SYS_recvfrom, fd, buffer, count, 0, NULL, NULL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

ssize_t cl_peek(int fd, void *buffer, size_t count) {
    ssize_t n;
    do n = syscall(SYS_recvfrom, fd, buffer, count, MSG_PEEK, NULL, NULL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* A Unix socket copies what is skipped. All of it is queued. */
static ssize_t read_away(int fd, size_t count) {
    char scratch[16384];
    size_t done = 0;
    while (done < count) {
        ssize_t n = cl_receive(fd, scratch, count - done < sizeof scratch ? count - done : sizeof scratch);
        if (n <= 0) return done > 0 ? (ssize_t)done : n;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

ssize_t cl_skip(int fd, size_t count) {
    ssize_t n;
    do n = syscall(SYS_recvfrom, fd, NULL, count, MSG_TRUNC, NULL, NULL);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EFAULT) return read_away(fd, count);
    return n < 0 ? -errno : n;
}

ssize_t cl_send(int fd, const void *first, size_t first_count, const void *second, size_t second_count) {
    ssize_t n;
    if (first_count == 0 || second_count == 0) {
        const void *bytes = first_count ? first : second;
        do n = send_bytes(fd, bytes, first_count + second_count);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : n;
    }
    struct iovec parts[2] = {{(void *)first, first_count}, {(void *)second, second_count}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    do n = send_message(fd, &message);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int cl_set_low_water(int fd, int bytes) {
    return setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes) < 0 ? -errno : 0;
}

int cl_cap_buffers(int fd, int bytes) {
    int sent = setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    int received = setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    return sent < 0 || received < 0 ? -errno : 0;
}

ssize_t cl_splice(int from, int to, size_t count, bool more) {
    ssize_t n;
    do n = splice(from, NULL, to, NULL, count, SPLICE_F_MOVE | SPLICE_F_NONBLOCK | (more ? SPLICE_F_MORE : 0));
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int cl_paced_segment(int fd) {
    /* All versions of BBR pace in the socket; other congestion controls leave it to a queueing discipline. */
    char name[16] = "";
    int segment = 0;
    if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &(socklen_t){sizeof name}) < 0) return 0;
    if (strncmp(name, "bbr", 3) != 0) return 0;
    if (getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, &(socklen_t){sizeof segment}) < 0) return 0;
    return segment;
}

int cl_pipe(int ends[2], int capacity) {
    if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0) return -errno;
    fcntl(ends[1], F_SETPIPE_SZ, capacity); /* refused past the user's quota: the default size works too */
    return 0;
}
