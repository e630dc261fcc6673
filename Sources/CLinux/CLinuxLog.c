#define _GNU_SOURCE
#include "CLinux.h"
#include "CLinuxFiles.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int cl_sink_open(int fd, int *kind) {
    struct stat status;
    if (fstat(fd, &status) < 0) return -errno;
    *kind = CL_SINK_PATIENT;
    if (S_ISSOCK(status.st_mode)) *kind = CL_SINK_SOCKET;
    if (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)) {
        /* O_NONBLOCK on the descriptor that we were given would be everybody's who shares it: a shell's terminal. */
        char path[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        int own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (own >= 0) return own;
        /* Another user's pipe, or no /proc. */
        *kind = CL_SINK_POLLED;
    }
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return own < 0 ? -errno : own;
}

ssize_t cl_sink_write(int fd, int kind, const void *bytes, size_t count) {
    ssize_t done;
    do {
        done = kind == CL_SINK_SOCKET ? send(fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL) : write(fd, bytes, count);
    } while (done < 0 && errno == EINTR);
    return done < 0 ? -errno : done;
}

int cl_log_open(const char *path) {
    /* Not blocking: opening a FIFO must not wait for its reader. Its owner may be another than the directory's: no link. */
    int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW;
    int fd = open(path, flags, 0640);
    return fd < 0 ? -errno : cl_file_regular(fd);
}

int cl_host_name(char *name, size_t size) {
    if (size == 0 || gethostname(name, size) < 0) return -errno;
    name[size - 1] = 0;
    return 0;
}

void cl_syslog_time(int64_t seconds, char text[16]) {
    static const char months[12][4] = {
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t when = (time_t)seconds;
    struct tm local;
    if (localtime_r(&when, &local) == NULL) gmtime_r(&(time_t){0}, &local);
    /* Of two digits each, whatever a time zone's file says: the text has room for no more. */
    snprintf(text, 16, "%s %2u %02u:%02u:%02u", months[(unsigned)local.tm_mon % 12], (unsigned)local.tm_mday % 100,
        (unsigned)local.tm_hour % 100, (unsigned)local.tm_min % 100, (unsigned)local.tm_sec % 100);
}

int cl_same_file(int a, int b) {
    struct stat one, other;
    if (fstat(a, &one) < 0 || fstat(b, &other) < 0) return 0;
    return one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

int cl_lower_priority(int steps) {
    /* Of this thread alone: Linux keeps one for each. */
    id_t thread = (id_t)syscall(SYS_gettid);
    errno = 0;
    int now = getpriority(PRIO_PROCESS, thread);
    if (now == -1 && errno != 0) return -errno;
    return setpriority(PRIO_PROCESS, thread, now + steps) < 0 ? -errno : 0;
}
