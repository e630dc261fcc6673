#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Debian 12's glibc has no pidfd calls, and numbers are the same on every architecture. */
enum { PIDFD_OPEN = 434, CLOSE_RANGE = 436, PIDFD_GETFD = 438 };

static int own_process(void) {
    long fd = syscall(PIDFD_OPEN, getpid(), 0);
    return fd < 0 ? -errno : (int)fd;
}

int cl_take_descriptor(int process, int fd) {
    long taken = syscall(PIDFD_GETFD, process, fd, 0);
    return taken < 0 ? -errno : (int)taken;
}

int cl_copy_descriptor(int fd) {
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return copy < 0 ? -errno : copy;
}

static void close_between(int first, int last) {
    if (first <= last) syscall(CLOSE_RANGE, first, last, 0);
}

static int by_number(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static void close_all_but(int *kept, int count) {
    qsort(kept, (size_t)count, sizeof *kept, by_number);
    int first = 3;
    for (int i = 0; i < count; i++) {
        close_between(first, kept[i] - 1);
        if (kept[i] >= first) first = kept[i] + 1;
    }
    close_between(first, ~0u >> 1);
}

int cl_own_descriptors(const int *kept, int count) {
    if (count < 0 || count > 1 << 16) return -EINVAL;
    int *all = malloc((size_t)(count + 1) * sizeof *all);
    if (!all) return -ENOMEM;
    int process = own_process();
    if (process < 0) {
        free(all);
        return process;
    }
    /* While it can still be given up: whether descriptors may be taken. */
    int taken = cl_take_descriptor(process, process);
    if (taken >= 0) close(taken);
    int failed = taken < 0 ? taken : unshare(CLONE_FILES) < 0 ? -errno : 0;
    if (failed) {
        close(process);
        free(all);
        return failed;
    }
    for (int i = 0; i < count; i++) all[i] = kept[i];
    all[count] = process;
    close_all_but(all, count + 1);
    free(all);
    return process;
}

static void *try_to_own(void *result) {
    int process = cl_own_descriptors(NULL, 0);
    *(int *)result = process;
    return NULL; /* and its table goes with it */
}

int cl_may_own_descriptors(void) {
    pthread_t thread;
    int result = -EAGAIN;
    int failed = pthread_create(&thread, NULL, try_to_own, &result);
    if (failed) return -failed;
    pthread_join(thread, NULL);
    if (result < 0) return result;
    close(result);
    return 0;
}

int cl_close_listener(int fd) {
    shutdown(fd, SHUT_RDWR);
    return close(fd) < 0 ? -errno : 0;
}
