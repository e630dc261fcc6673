/* What is at a path, and changes of it (inotify(7)). No call waits. */
#pragma once
#include <stdint.h>

enum { CL_LOOK_OTHER = 0, CL_LOOK_FILE = 1, CL_LOOK_FOLDER = 2, CL_LOOK_LINK = 3 };
struct cl_path_look {
    uint64_t device, inode;
    int64_t size;
    /* Nanoseconds since 1970, by the file system's clock: of its content, and of all that is known of it. */
    int64_t modified, changed;
    int32_t kind;
};
/* A link is not followed. */
int cl_path_look(const char *path, struct cl_path_look *out);
int cl_file_look(int fd, struct cl_path_look *out);
/* Where a link leads, without an end; its length, or -errno. */
int cl_path_link(const char *path, char *text, int room);

/* -EMFILE also if the user has as many as it may (fs.inotify.max_user_instances). */
int cl_watch_open(void);
enum {
    /* A directory by itself: whether it is moved, removed, or gets another mode. */
    CL_WATCH_FOLDER = 0,
    /* The same, and which names in it come, go, and are closed by who wrote to them. */
    CL_WATCH_NAMES = 1,
    /* What is no directory: also what is written to it. */
    CL_WATCH_FILE = 2,
};
/* The number of a watch, the same for a path that has one by then; -ENOSPC: the user has as many as it may
   (fs.inotify.max_user_watches). A link is not followed. */
int cl_watch_add(int watch, const char *path, int what);
void cl_watch_drop(int watch, int number);

enum {
    /* It is closed by who wrote to it. */
    CL_CHANGE_CLOSED = 1,
    CL_CHANGE_WRITTEN = 2,
    /* By a rename. */
    CL_CHANGE_PUT = 3,
    CL_CHANGE_MADE = 4,
    CL_CHANGE_GONE = 5,
    /* What is watched was moved or removed. */
    CL_CHANGE_ITSELF = 6,
    CL_CHANGE_MODE = 7,
    /* The queue was full: anything may have happened. Of no watch. */
    CL_CHANGE_LOST = 8,
};
/* Some of what has happened, in order; `name`: in a directory; empty: it is what is watched. How many, 0 for none, or
   -errno. */
int cl_watch_take(int watch, void *context, void (*take)(void *context, int number, uint32_t what, const char *name));
