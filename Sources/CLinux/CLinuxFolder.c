#define _GNU_SOURCE
#include "CLinuxControl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

int cl_folder_open(const char *path, int make_mode) {
    if (make_mode > 0 && mkdir(path, (mode_t)make_mode) < 0 && errno != EEXIST) return -errno;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int cl_folder_narrow(int folder, int mode) {
    struct stat status;
    if (fstat(folder, &status) < 0) return -errno;
    if ((status.st_mode & 07777 & ~mode) == 0) return 0;
    return fchmod(folder, status.st_mode & (mode_t)mode) < 0 ? -errno : 0;
}

int cl_folder_has(int folder, const char *name) {
    struct stat status;
    if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0) return 1;
    return errno == ENOENT ? 0 : -errno;
}

int cl_folder_remove(int folder, const char *name) { return unlinkat(folder, name, 0) < 0 ? -errno : 0; }

int cl_folder_watch(const char *path) {
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd < 0) return -errno;
    if (inotify_add_watch(fd, path, IN_CREATE | IN_MODIFY | IN_MOVED_TO | IN_DELETE | IN_ONLYDIR) >= 0) return fd;
    int error = errno;
    close(fd);
    return -error;
}

int cl_lock_file(int fd, int shared, int waits) {
    int failed;
    do failed = flock(fd, (shared ? LOCK_SH : LOCK_EX) | (waits ? 0 : LOCK_NB));
    while (failed < 0 && errno == EINTR);
    return failed < 0 ? -errno : 0;
}

int cl_unlock_file(int fd) { return flock(fd, LOCK_UN) < 0 ? -errno : 0; }

int64_t cl_linked_size(int fd) {
    struct stat status;
    if (fstat(fd, &status) < 0) return -errno;
    return status.st_nlink == 0 ? -ENOENT : (int64_t)status.st_size;
}

int64_t cl_file_size(int fd) {
    struct stat status;
    return fstat(fd, &status) < 0 ? -errno : (int64_t)status.st_size;
}

int cl_flush_all(int fd) { return fsync(fd) < 0 ? -errno : 0; }
