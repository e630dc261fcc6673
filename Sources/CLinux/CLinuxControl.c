#define _GNU_SOURCE
#include "CLinux.h"

#include <malloc.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct start {
    void (*run)(void *);
    void *context;
};

static void *thread_main(void *argument) {
    struct start start = *(struct start *)argument;
    free(argument);
    start.run(start.context);
    return NULL;
}

int cl_thread_start(uint64_t *thread, size_t stack_bytes, void (*run)(void *), void *context) {
    pthread_attr_t attributes;
    struct start *start = malloc(sizeof *start);
    if (start == NULL) return -ENOMEM;
    *start = (struct start){run, context};
    int failed = pthread_attr_init(&attributes);
    if (failed) {
        free(start);
        return -failed;
    }
    sigset_t all, before;
    sigfillset(&all);
    /* Of a mapped file that was cut: CLinuxMapped.c goes on after it, if the thread takes it. */
    sigdelset(&all, SIGBUS);
    pthread_t handle;
    failed = pthread_attr_setstacksize(&attributes, stack_bytes);
    if (!failed) {
        pthread_sigmask(SIG_SETMASK, &all, &before);
        failed = pthread_create(&handle, &attributes, thread_main, start);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_attr_destroy(&attributes);
    if (failed) {
        free(start);
        return -failed;
    }
    *thread = (uint64_t)handle;
    return 0;
}

int cl_thread_join(uint64_t thread) { return -pthread_join((pthread_t)thread, NULL); }

static void held(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGUSR1);
    sigaddset(set, SIGUSR2);
}

int cl_signals_hold(void) {
    sigset_t set;
    held(&set);
    struct sigaction ignore;
    memset(&ignore, 0, sizeof ignore);
    ignore.sa_handler = SIG_IGN;
    if (sigaction(SIGPIPE, &ignore, NULL) < 0) return -errno;
    /* Started in the background of a shell, SIGINT may come ignored; an ignored signal can't be waited for. */
    struct sigaction normal;
    memset(&normal, 0, sizeof normal);
    normal.sa_handler = SIG_DFL;
    int failed = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (failed) return -failed;
    const int taken[] = {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (sigaction(taken[i], &normal, NULL) < 0) return -errno;
    return 0;
}

int cl_signal_open(void) {
    sigset_t set;
    held(&set);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int cl_signal_take(int fd, uint32_t *user, int *process) {
    struct signalfd_siginfo info;
    ssize_t done = read(fd, &info, sizeof info);
    if (done == (ssize_t)sizeof info) {
        *user = info.ssi_uid;
        *process = (int)info.ssi_pid;
        return (int)info.ssi_signo;
    }
    return done >= 0 || errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

int cl_poll(struct cl_poll_item *items, int count, int64_t timeout_ns) {
    enum { LIMIT = 256 };
    struct pollfd raw[LIMIT];
    if (count < 0 || count > LIMIT) return -EINVAL;
    for (int i = 0; i < count; i++) {
        short events = (short)((items[i].wants & CL_READABLE ? POLLIN : 0) | (items[i].wants & CL_WRITABLE ? POLLOUT : 0));
        raw[i] = (struct pollfd){.fd = items[i].fd, .events = events};
    }
    struct timespec time = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    int ready = ppoll(raw, (nfds_t)count, timeout_ns < 0 ? NULL : &time, NULL);
    if (ready < 0 && errno != EINTR) return -errno;
    for (int i = 0; i < count; i++) {
        short got = ready > 0 ? raw[i].revents : 0;
        items[i].got = (uint8_t)((got & POLLIN ? CL_READABLE : 0) | (got & POLLOUT ? CL_WRITABLE : 0)
            | (got & (POLLERR | POLLHUP | POLLNVAL) ? CL_HANGUP : 0));
    }
    return ready < 0 ? 0 : ready;
}

/* The length, or -ENAMETOOLONG. */
static int unix_address(const char *path, struct sockaddr_un *out) {
    memset(out, 0, sizeof *out);
    out->sun_family = AF_UNIX;
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof out->sun_path) return -ENAMETOOLONG;
    memcpy(out->sun_path, path, length);
    return (int)(offsetof(struct sockaddr_un, sun_path) + length + 1);
}

int cl_is_terminal(int fd) { return isatty(fd) == 1; }

int cl_unix_listen(const char *path, int mode, int backlog) {
    struct sockaddr_un address;
    int length = unix_address(path, &address);
    if (length < 0) return length;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    /* The file that bind makes takes the socket's mode: there is no moment in which others may connect. */
    int failed = fchmod(fd, (mode_t)mode);
    if (!failed) failed = bind(fd, (struct sockaddr *)&address, (socklen_t)length);
    if (!failed) failed = listen(fd, backlog);
    if (!failed) return fd;
    int error = errno;
    close(fd);
    return -error;
}

int cl_unix_accept(int fd) {
    int accepted;
    do accepted = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    while (accepted < 0 && errno == EINTR);
    return accepted < 0 ? -errno : accepted;
}

int cl_unix_share(const char *path, uint32_t group) {
    /* By the file, not by its name: what stands there by now need not be what was made. */
    int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return -errno;
    struct stat status;
    int failed = fstat(fd, &status) < 0 ? -errno : S_ISSOCK(status.st_mode) ? 0 : -ENOTSOCK;
    if (!failed && fchownat(fd, "", (uid_t)-1, (gid_t)group, AT_EMPTY_PATH) < 0) failed = -errno;
    char name[32];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    if (!failed && chmod(name, 0660) < 0) failed = -errno;
    close(fd);
    return failed;
}

int cl_unix_peer(int fd, uint32_t *user, int *process) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) return -errno;
    *user = peer.uid;
    *process = (int)peer.pid;
    return 0;
}

int cl_group_number(const char *name, uint32_t *group) {
    enum { ROOM = 1 << 20 };
    char *room = malloc(ROOM);
    if (room == NULL) return -ENOMEM;
    struct group entry, *found = NULL;
    int failed = getgrnam_r(name, &entry, room, ROOM, &found);
    if (found != NULL) *group = (uint32_t)entry.gr_gid;
    free(room);
    if (found != NULL) return 0;
    /* What sources of groups say of one that they don't know differs (getgrnam(3)). */
    return failed == 0 || failed == ESRCH || failed == EBADF || failed == EPERM ? -ENOENT : -failed;
}

uint32_t cl_user_id(void) { return (uint32_t)geteuid(); }

int cl_unix_connect(const char *path, int timeout_s) {
    struct sockaddr_un address;
    int length = unix_address(path, &address);
    if (length < 0) return length;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (timeout_s > 0 ? 0 : SOCK_NONBLOCK), 0);
    if (fd < 0) return -errno;
    struct timeval time = {.tv_sec = timeout_s};
    int failed = 0;
    if (timeout_s > 0) {
        failed = setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
        if (!failed) failed = setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
    }
    if (!failed) failed = connect(fd, (struct sockaddr *)&address, (socklen_t)length);
    if (!failed) return fd;
    int error = errno;
    close(fd);
    return -error;
}

int cl_unix_connect_to_other(const char *path, int *process) {
    int fd = cl_unix_connect(path, 0);
    if (fd < 0) return fd;
    struct ucred listener;
    socklen_t length = sizeof listener;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &listener, &length) == 0 && listener.pid != getpid()) {
        *process = (int)listener.pid;
        return fd;
    }
    close(fd);
    return -EDEADLK;
}

int cl_unix_datagram(const char *path) {
    struct sockaddr_un address;
    int length = unix_address(path, &address);
    if (length < 0) return length;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (connect(fd, (struct sockaddr *)&address, (socklen_t)length) == 0) return fd;
    int error = errno;
    close(fd);
    return -error;
}

const char *cl_error_name(int error) {
    const char *name = strerrorname_np(error);
    return name != NULL ? name : "unknown";
}

int cl_path_kind(const char *path) {
    struct stat status;
    if (lstat(path, &status) < 0) return errno == ENOENT ? 0 : -errno;
    return S_ISSOCK(status.st_mode) ? 1 : 2;
}

uint64_t cl_path_inode(const char *path) {
    struct stat status;
    return lstat(path, &status) < 0 ? 0 : (uint64_t)status.st_ino;
}

int cl_rename_path(const char *from, const char *to) { return rename(from, to) < 0 ? -errno : 0; }

int cl_remove_path(const char *path) { return unlink(path) < 0 ? -errno : 0; }

int cl_hold_standard_streams(void) {
    for (int fd = 0; fd <= 2; fd++) {
        /* The lowest free number is what open gives, so a closed one is filled as it is met. */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY) < 0) return -errno;
    }
    return 0;
}

int cl_wait_for_end(int fd) {
    char byte;
    ssize_t count;
    do count = read(fd, &byte, 1);
    while (count > 0 || (count < 0 && errno == EINTR));
    return count < 0 ? -errno : 0;
}

int cl_make_barrier(int ends[2]) { return pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0; }

int cl_process_id(void) { return (int)getpid(); }

void cl_wait_readable(int fd, int64_t timeout_ns) {
    struct pollfd poll = {.fd = fd, .events = POLLIN};
    struct timespec time = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    (void)ppoll(&poll, 1, timeout_ns < 0 ? NULL : &time, NULL);
}

void cl_sleep(int64_t nanoseconds) {
    struct timespec time = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    (void)nanosleep(&time, NULL);
}

int cl_send_datagram(const char *path, const void *bytes, size_t count) {
    return cl_send_descriptor(path, bytes, count, -1);
}

int cl_open_file(const char *path, int64_t *size) {
    struct stat status;
    /* Some devices act on being opened. */
    if (stat(path, &status) < 0) return -errno;
    if (S_ISDIR(status.st_mode)) return -EISDIR;
    if (!S_ISREG(status.st_mode)) return -EINVAL;
    /* Not blocking: opening a FIFO, if it is one by now, must not wait for its writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return -errno;
    int failed = fstat(fd, &status) < 0 ? -errno : 0;
    if (!failed && S_ISDIR(status.st_mode)) failed = -EISDIR;
    if (!failed && !S_ISREG(status.st_mode)) failed = -EINVAL;
    if (failed) {
        close(fd);
        return failed;
    }
    *size = status.st_size;
    return fd;
}

ssize_t cl_read(int fd, void *buffer, size_t count) {
    ssize_t done;
    do done = read(fd, buffer, count);
    while (done < 0 && errno == EINTR);
    return done < 0 ? -errno : done;
}

int cl_write_all(int fd, const void *bytes, size_t count) {
    const char *next = bytes;
    while (count > 0) {
        ssize_t done = write(fd, next, count);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return -errno;
        next += done;
        count -= (size_t)done;
    }
    return 0;
}

int cl_replace_file(const char *path, const void *bytes, size_t count) {
    char real[PATH_MAX];
    /* Through a symbolic link, the file is replaced and the link stays. */
    if (realpath(path, real) == NULL) return -errno;
    struct stat status;
    if (stat(real, &status) < 0) return -errno;
    char temporary[PATH_MAX + 16];
    snprintf(temporary, sizeof temporary, "%s.XXXXXX", real);
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) return -errno;
    int failed = fchmod(fd, status.st_mode & 07777) < 0 ? -errno : 0;
    if (!failed) failed = cl_write_all(fd, bytes, count);
    if (!failed && fsync(fd) < 0) failed = -errno;
    if (close(fd) < 0 && !failed) failed = -errno;
    if (!failed && rename(temporary, real) < 0) failed = -errno;
    if (failed) unlink(temporary);
    return failed;
}

void cl_trim_heap(void) { malloc_trim(0); }
