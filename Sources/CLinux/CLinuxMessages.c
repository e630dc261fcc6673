#define _GNU_SOURCE
#include "CLinuxInternal.h"

#include <stddef.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "CLinuxProcesses.h"

/* One message has no more (SCM_MAX_FD). */
enum { most_descriptors = 253 };

int cl_send_descriptor(const char *path, const void *bytes, size_t count, int fd) {
    struct sockaddr_un to;
    memset(&to, 0, sizeof to);
    to.sun_family = AF_UNIX;
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof to.sun_path) return -EINVAL;
    memcpy(to.sun_path, path, length);
    if (path[0] == '@') to.sun_path[0] = 0;
    int sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sender < 0) return -errno;
    /* A receiver that stands still must not stop us. */
    struct timeval patience = {.tv_usec = 250000};
    (void)setsockopt(sender, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    struct iovec part = {(void *)bytes, count};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    memset(control, 0, sizeof control);
    struct msghdr message = {
        .msg_name = &to,
        .msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length),
        .msg_iov = &part,
        .msg_iovlen = 1,
    };
    if (fd >= 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    int failed = sendmsg(sender, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
    close(sender);
    return failed;
}

int cl_notify_listen(char name[17]) {
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    socklen_t length = sizeof at.sun_family;
    int failed = bind(fd, (struct sockaddr *)&at, length);
    length = sizeof at;
    if (failed == 0) failed = getsockname(fd, (struct sockaddr *)&at, &length);
    if (failed == 0) failed = set(fd, SOL_SOCKET, SO_PASSCRED, 1);
    size_t size = length - offsetof(struct sockaddr_un, sun_path);
    if (failed == 0 && (size < 2 || size > 16)) {
        errno = EADDRNOTAVAIL;
        failed = -1;
    }
    if (failed < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    name[0] = '@';
    memcpy(name + 1, at.sun_path + 1, size - 1);
    name[size] = 0;
    return fd;
}

ssize_t cl_notify_receive(int fd, void *bytes, size_t size, int *process, int *fds, int *count) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int) * most_descriptors)];
    struct iovec part = {bytes, size};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int room = *count;
    *count = 0;
    *process = 0;
    ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) return -errno;
    int is_cut = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head != NULL; head = CMSG_NXTHDR(&message, head)) {
        if (head->cmsg_level != SOL_SOCKET) continue;
        if (head->cmsg_type == SCM_CREDENTIALS && head->cmsg_len == CMSG_LEN(sizeof(struct ucred))) {
            struct ucred who;
            memcpy(&who, CMSG_DATA(head), sizeof who);
            *process = who.pid;
        }
        if (head->cmsg_type != SCM_RIGHTS) continue;
        size_t number = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < number; i++) {
            int each;
            memcpy(&each, CMSG_DATA(head) + i * sizeof each, sizeof each);
            if (is_cut || *count >= room) {
                close(each);
                is_cut = 1;
            } else {
                fds[(*count)++] = each;
            }
        }
    }
    if (!is_cut) return got;
    for (int i = 0; i < *count; i++) close(fds[i]);
    *count = 0;
    return -EMSGSIZE;
}
