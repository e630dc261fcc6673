#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "CLinuxControl.h"

/* Threads that every node has, whatever its program is called, and hardly anything else together. */
static const char *const threads[] = {"worker-0", "log", "health"};
enum { thread_count = sizeof threads / sizeof threads[0], all_threads = (1 << thread_count) - 1, most_looked_at = 4096 };

/* A bit for which of them it is; 0: none. */
static int thread_kind(int tasks, const char *task) {
    char path[32], name[32];
    snprintf(path, sizeof path, "%.20s/comm", task);
    int fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t count = read(fd, name, sizeof name - 1);
    close(fd);
    if (count <= 0) return 0;
    name[count - (name[count - 1] == '\n')] = 0;
    for (int i = 0; i < thread_count; i++)
        if (strcmp(name, threads[i]) == 0) return 1 << i;
    return 0;
}

int cl_process_is_node(int process) {
    char path[32];
    if (process <= 0) return 0;
    snprintf(path, sizeof path, "/proc/%d/task", process);
    int tasks = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (tasks < 0) return 0;
    /* No memory is taken: workers ask. */
    _Alignas(struct dirent64) char entries[4096];
    int found = 0, looked_at = 0;
    long size;
    while (found != all_threads && (size = syscall(SYS_getdents64, tasks, entries, sizeof entries)) > 0) {
        for (long at = 0; at < size && found != all_threads && looked_at < most_looked_at; looked_at++) {
            struct dirent64 *entry = (struct dirent64 *)(entries + at);
            if (entry->d_name[0] != '.') found |= thread_kind(tasks, entry->d_name);
            at += entry->d_reclen;
        }
        if (looked_at >= most_looked_at) break;
    }
    close(tasks);
    return found == all_threads;
}
