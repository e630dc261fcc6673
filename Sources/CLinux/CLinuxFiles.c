#define _GNU_SOURCE
#include "CLinuxFiles.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

static int result(long value) { return value < 0 ? -errno : (int)value; }

static int open_at(int folder, const char *path, int how) {
    int flags = how == CL_OPEN_READ ? O_RDONLY : O_RDWR;
    if (how >= CL_OPEN_MAKE) flags |= O_CREAT;
    if (how == CL_OPEN_EMPTY) flags |= O_TRUNC;
    return result(openat(folder, path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600));
}

int cl_file_open(const char *path, int how) { return open_at(AT_FDCWD, path, how); }

int cl_folder_file(int folder, const char *name, int how) {
    int fd = open_at(folder, name, how);
    return fd < 0 ? fd : cl_file_regular(fd);
}

int cl_file_regular(int fd) {
    struct stat status;
    int failed = result(fstat(fd, &status));
    if (!failed && !S_ISREG(status.st_mode)) failed = -ENXIO;
    if (!failed) return fd;
    close(fd);
    return failed;
}

static int take_status(int failed, const struct stat *status, struct cl_file_status *out) {
    if (failed < 0) return -errno;
    out->size = status->st_size;
    out->device = status->st_dev;
    out->inode = status->st_ino;
    out->modified = (int64_t)status->st_mtim.tv_sec * 1000000000 + status->st_mtim.tv_nsec;
    out->mode = status->st_mode & 07777;
    out->owner = status->st_uid;
    out->links = (uint32_t)status->st_nlink;
    out->kind = S_ISREG(status->st_mode) ? CL_KIND_FILE : S_ISDIR(status->st_mode) ? CL_KIND_DIRECTORY : CL_KIND_OTHER;
    return 0;
}

int cl_file_status(const char *path, struct cl_file_status *out) {
    struct stat status;
    return take_status(lstat(path, &status), &status, out);
}

int cl_open_file_status(int fd, struct cl_file_status *out) {
    struct stat status;
    return take_status(fstat(fd, &status), &status, out);
}

ssize_t cl_file_read(int fd, void *buffer, size_t count, int64_t offset) {
    ssize_t done;
    do done = pread(fd, buffer, count, offset);
    while (done < 0 && errno == EINTR);
    return done < 0 ? -errno : done;
}

int cl_file_write(int fd, const void *bytes, size_t count, int64_t offset) {
    const char *next = bytes;
    while (count > 0) {
        ssize_t done = pwrite(fd, next, count, offset);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return -errno;
        /* A disk that takes nothing and says nothing. */
        if (done == 0) return -EIO;
        next += done;
        offset += done;
        count -= (size_t)done;
    }
    return 0;
}

int cl_file_resize(int fd, int64_t size) { return result(ftruncate(fd, size)); }

int cl_file_allocate(int fd, int64_t offset, int64_t count) {
    int failed;
    do failed = posix_fallocate(fd, offset, count);
    while (failed == EINTR);
    return -failed;
}

int cl_file_sync(int fd) {
    int failed;
    do failed = fdatasync(fd);
    while (failed < 0 && errno == EINTR);
    return result(failed);
}

int cl_file_mode(const char *path, int mode) { return result(fchmodat(AT_FDCWD, path, (mode_t)mode, AT_SYMLINK_NOFOLLOW)); }

int cl_directory_open(const char *path) { return result(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)); }

int cl_directory_make(const char *path, int mode) { return result(mkdir(path, (mode_t)mode)); }

int cl_directory_sync(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    int failed = result(fsync(fd));
    close(fd);
    return failed;
}

int cl_directory_names(const char *path, void *context, void (*take)(void *context, const char *name)) {
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return -errno;
    int failed = cl_folder_names(folder, context, take);
    close(folder);
    return failed;
}

int cl_folder_names(int folder, void *context, void (*take)(void *context, const char *name)) {
    /* With a place of its own in the list of names. */
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
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) take(context, entry->d_name);
        errno = 0;
    }
    int failed = -errno;
    closedir(directory);
    return failed;
}

int64_t cl_free_bytes(const char *path) {
    struct statvfs space;
    if (statvfs(path, &space) < 0) return -errno;
    int64_t bytes;
    if (__builtin_mul_overflow((int64_t)space.f_bavail, (int64_t)space.f_frsize, &bytes)) return INT64_MAX;
    return bytes;
}

void cl_utc_stamp(int64_t seconds, char text[17]) {
    time_t time = (time_t)seconds;
    struct tm parts;
    text[0] = 0;
    if (gmtime_r(&time, &parts) != NULL) (void)strftime(text, 17, "%Y%m%dT%H%M%SZ", &parts);
}
