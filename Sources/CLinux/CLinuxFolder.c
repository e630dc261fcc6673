#define _GNU_SOURCE
#include "CLinuxControl.h"

#include <dirent.h>
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

int cl_folder_file(int folder, const char *name, int how) {
    /* Not blocking: opening a FIFO must not wait. No link: who may write to the folder must not lead elsewhere. */
    int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
    flags |= how == CL_FILE_READ ? O_RDONLY : O_RDWR;
    if (how == CL_FILE_MAKE) flags |= O_CREAT;
    if (how == CL_FILE_NEW) flags |= O_CREAT | O_EXCL;
    int fd = openat(folder, name, flags, 0600);
    if (fd < 0) return -errno;
    struct stat status;
    int failed = fstat(fd, &status) < 0 ? -errno : 0;
    if (!failed && !S_ISREG(status.st_mode)) failed = -ENXIO;
    if (!failed) return fd;
    close(fd);
    return failed;
}

int cl_folder_has(int folder, const char *name) {
    struct stat status;
    if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0) return 1;
    return errno == ENOENT ? 0 : -errno;
}

int cl_folder_remove(int folder, const char *name) { return unlinkat(folder, name, 0) < 0 ? -errno : 0; }

int cl_folder_each(int folder, void *context, void (*each)(void *context, const char *name)) {
    int own = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (own < 0) return -errno;
    DIR *directory = fdopendir(own);
    if (directory == NULL) {
        int error = errno;
        close(own);
        return -error;
    }
    const struct dirent *entry;
    errno = 0;
    while ((entry = readdir(directory)) != NULL) {
        each(context, entry->d_name);
        errno = 0;
    }
    int failed = -errno;
    closedir(directory);
    return failed;
}

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

ssize_t cl_read_at(int fd, void *buffer, size_t count, int64_t offset) {
    ssize_t done;
    do done = pread(fd, buffer, count, (off_t)offset);
    while (done < 0 && errno == EINTR);
    return done < 0 ? -errno : done;
}

int cl_write_at(int fd, const void *bytes, size_t count, int64_t offset) {
    const char *next = bytes;
    while (count > 0) {
        ssize_t done = pwrite(fd, next, count, (off_t)offset);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return -errno;
        if (done == 0) return -EIO;
        next += done;
        offset += done;
        count -= (size_t)done;
    }
    return 0;
}

int cl_cut_file(int fd, int64_t size) { return ftruncate(fd, (off_t)size) < 0 ? -errno : 0; }
int cl_flush_data(int fd) { return fdatasync(fd) < 0 ? -errno : 0; }
int cl_flush_all(int fd) { return fsync(fd) < 0 ? -errno : 0; }
