#define _GNU_SOURCE
#include "CLinuxWatch.h"

#include <errno.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

static void note(const struct stat *status, struct cl_path_look *out) {
    out->device = (uint64_t)status->st_dev;
    out->inode = (uint64_t)status->st_ino;
    out->size = status->st_size;
    out->modified = (int64_t)status->st_mtim.tv_sec * 1000000000 + status->st_mtim.tv_nsec;
    out->changed = (int64_t)status->st_ctim.tv_sec * 1000000000 + status->st_ctim.tv_nsec;
    out->kind = S_ISREG(status->st_mode)   ? CL_LOOK_FILE
                : S_ISDIR(status->st_mode) ? CL_LOOK_FOLDER
                : S_ISLNK(status->st_mode) ? CL_LOOK_LINK
                                           : CL_LOOK_OTHER;
}

int cl_path_look(const char *path, struct cl_path_look *out) {
    struct stat status;
    if (lstat(path, &status) < 0) return -errno;
    note(&status, out);
    return 0;
}

int cl_file_look(int fd, struct cl_path_look *out) {
    struct stat status;
    if (fstat(fd, &status) < 0) return -errno;
    note(&status, out);
    return 0;
}

int cl_path_link(const char *path, char *text, int room) {
    ssize_t count = readlink(path, text, (size_t)room);
    if (count < 0) return -errno;
    return count == room ? -ENAMETOOLONG : (int)count;
}

int cl_watch_open(void) {
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int cl_watch_add(int watch, const char *path, int what) {
    uint32_t mask = IN_DONT_FOLLOW | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF;
    if (what == CL_WATCH_FILE)
        mask |= IN_MODIFY | IN_CLOSE_WRITE;
    else
        mask |= IN_ONLYDIR;
    if (what == CL_WATCH_NAMES) mask |= IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE;
    int number = inotify_add_watch(watch, path, mask);
    return number < 0 ? -errno : number;
}

void cl_watch_drop(int watch, int number) { (void)inotify_rm_watch(watch, number); }

static uint32_t meaning(uint32_t mask) {
    if (mask & IN_Q_OVERFLOW) return CL_CHANGE_LOST;
    if (mask & (IN_IGNORED | IN_UNMOUNT | IN_DELETE_SELF | IN_MOVE_SELF)) return CL_CHANGE_ITSELF;
    if (mask & IN_MOVED_TO) return CL_CHANGE_PUT;
    if (mask & IN_CREATE) return CL_CHANGE_MADE;
    if (mask & (IN_DELETE | IN_MOVED_FROM)) return CL_CHANGE_GONE;
    if (mask & IN_CLOSE_WRITE) return CL_CHANGE_CLOSED;
    if (mask & IN_MODIFY) return CL_CHANGE_WRITTEN;
    return CL_CHANGE_MODE;
}

int cl_watch_take(int watch, void *context, void (*take)(void *, int, uint32_t, const char *)) {
    _Alignas(struct inotify_event) char room[32768];
    ssize_t count;
    do count = read(watch, room, sizeof room);
    while (count < 0 && errno == EINTR);
    if (count < 0) return errno == EAGAIN ? 0 : -errno;
    int taken = 0;
    for (char *next = room; next < room + count; taken++) {
        const struct inotify_event *event = (const struct inotify_event *)next;
        take(context, event->wd, meaning(event->mask), event->len > 0 ? event->name : "");
        next += sizeof *event + event->len;
    }
    return taken;
}
