#define _GNU_SOURCE
#include "CLinuxControl.h"

#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* What glob(3)'s callback, which is given no context, could not read; of the call that runs. */
static __thread char *unreadable;
static __thread int unreadable_error;

static int note_unreadable(const char *path, int error) {
    /* A directory that is not there has no files. */
    if (error == ENOENT || error == ENOTDIR) return 0;
    free(unreadable);
    unreadable = strdup(path);
    unreadable_error = error;
    return 1;
}

int cl_match_paths(const char *pattern, int limit, struct cl_paths *out) {
    memset(out, 0, sizeof *out);
    glob_t *found = calloc(1, sizeof *found);
    if (found == NULL) return -ENOMEM;
    unreadable = NULL;
    unreadable_error = 0;
    int failed = glob(pattern, GLOB_NOSORT, note_unreadable, found);
    out->state = found;
    out->failed = unreadable;
    unreadable = NULL;
    if (failed == GLOB_NOMATCH) return 0;
    if (failed == GLOB_ABORTED) return -(unreadable_error ? unreadable_error : EIO);
    if (failed != 0) return -ENOMEM;
    if (found->gl_pathc > (size_t)limit) return -ENFILE;
    out->paths = (const char *const *)found->gl_pathv;
    out->count = (int)found->gl_pathc;
    return 0;
}

void cl_free_paths(struct cl_paths *paths) {
    if (paths->state != NULL) globfree(paths->state);
    free(paths->state);
    free(paths->failed);
    memset(paths, 0, sizeof *paths);
}

int cl_path_identity(const char *path, uint64_t *device, uint64_t *inode) {
    struct stat status;
    if (stat(path, &status) < 0) return -errno;
    *device = (uint64_t)status.st_dev;
    *inode = (uint64_t)status.st_ino;
    return 0;
}
