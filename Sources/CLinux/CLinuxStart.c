#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "CLinuxProcesses.h"

/* Debian 12's glibc has no pidfd calls. */
enum { first = 3, PIDFD_OPEN = 434 };

/* In the child. The errno of what failed. */
static int become(
    const char *path, char *const *arguments, char **environment, char *own, const int *fds, int *high, int count,
    int parent) {
    sigset_t none;
    sigemptyset(&none);
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0) return errno;
    if (getppid() != parent) return ESRCH;
    /* First above all of their places, so that none is overwritten before it was copied. */
    for (int i = 0; i < count; i++) {
        high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, first + count + 1);
        if (high[i] < 0) return errno;
    }
    for (int i = 0; i < count; i++)
        if (dup2(high[i], first + i) < 0) return errno;
    snprintf(own, 32, "LISTEN_PID=%d", (int)getpid());
    if (sigprocmask(SIG_SETMASK, &none, NULL) < 0) return errno;
    execve(path, arguments, environment);
    return errno;
}

int cl_start_with(
    const char *path, char *const *arguments, char *const *environment, const int *fds, int count) {
    if (count < 0 || count > 1 << 20) return -EINVAL;
    size_t words = 0;
    while (environment[words] != NULL) words++;
    char **all = malloc((words + 2) * sizeof *all);
    int *high = malloc(((size_t)count + 1) * sizeof *high);
    char own[32] = "LISTEN_PID=0";
    int ends[2] = {-1, -1}, failed = all == NULL || high == NULL ? -ENOMEM : 0;
    if (!failed && pipe2(ends, O_CLOEXEC) < 0) failed = -errno;
    int process = -1;
    if (!failed) {
        memcpy(all, environment, words * sizeof *all);
        all[words] = own;
        all[words + 1] = NULL;
        int parent = (int)getpid();
        process = fork();
        if (process < 0) failed = -errno;
        if (process == 0) {
            int report = fcntl(ends[1], F_DUPFD_CLOEXEC, first + count + 1);
            int error = report < 0 ? errno : become(path, arguments, all, own, fds, high, count, parent);
            if (report >= 0) (void)!write(report, &error, sizeof error);
            _exit(127);
        }
    }
    if (ends[1] >= 0) close(ends[1]);
    if (!failed) {
        int error = 0;
        ssize_t got;
        do got = read(ends[0], &error, sizeof error);
        while (got < 0 && errno == EINTR);
        if (got == sizeof error) {
            failed = -error;
            while (waitpid(process, NULL, 0) < 0 && errno == EINTR) {}
        }
    }
    if (ends[0] >= 0) close(ends[0]);
    free(all);
    free(high);
    return failed ? failed : process;
}

int cl_child_ended(int process, int *code, int *signal) {
    int status = 0;
    pid_t ended = waitpid(process, &status, WNOHANG);
    if (ended < 0) return -errno;
    if (ended == 0) return 0;
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    *signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return 1;
}

int cl_watch_process(int process) {
    long fd = syscall(PIDFD_OPEN, process, 0);
    return fd < 0 ? -errno : (int)fd;
}

int cl_adopt_orphans(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 ? -errno : 0; }

int cl_send_signal(int process, int signal) { return kill(process, signal) < 0 ? -errno : 0; }

int cl_own_program(char *path, size_t size) {
    ssize_t length = readlink("/proc/self/exe", path, size);
    if (length < 0) return -errno;
    if ((size_t)length >= size) return -ENAMETOOLONG;
    path[length] = 0;
    return (int)length;
}
