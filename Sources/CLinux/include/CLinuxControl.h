/* What the control side needs of Linux besides the data path's calls: threads, signals, files, the service manager. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Starts run(context) on a thread with its own stack and every signal blocked. The thread is joined, once. */
int cl_thread_start(uint64_t *thread, size_t stack_bytes, void (*run)(void *), void *context);
int cl_thread_join(uint64_t thread);

/* Blocks SIGTERM, SIGINT and SIGHUP in the calling thread and those it starts, and ignores SIGPIPE. */
int cl_signals_hold(void);
/* A descriptor that can be read while one of the held signals waits. */
int cl_signal_open(void);
/* The next signal that waits: its number, 0 if there is none. `process` 0: the kernel sent it, or one of outside. */
int cl_signal_take(int fd, uint32_t *user, int *process);

/* 1 if a person may be looking at the descriptor. */
int cl_is_terminal(int fd);

/* What a descriptor is waited for, and what came; of CL_READABLE, CL_WRITABLE and, in got, CL_HANGUP. */
struct cl_poll_item {
    int fd;
    uint8_t wants;
    uint8_t got;
};
/* How many have something. timeout_ns < 0: for ever. Interrupted: 0. */
int cl_poll(struct cl_poll_item *items, int count, int64_t timeout_ns);

/* A listening Unix stream socket, not blocking; the path gets exactly this mode from its first moment on. */
int cl_unix_listen(const char *path, int mode, int backlog);
/* Lets members of a group connect, too: the socket file at path becomes that group's, with mode 0660. No link is followed. */
int cl_unix_share(const char *path, uint32_t group);
/* The next connection, not blocking. */
int cl_unix_accept(int fd);
/* Who was at the other end of a Unix socket when it connected (SO_PEERCRED). */
int cl_unix_peer(int fd, uint32_t *user, int *process);
/* The number of a group; -ENOENT: the system has none of that name. */
int cl_group_number(const char *name, uint32_t *group);
/* The user that this process acts as. */
uint32_t cl_user_id(void);
/* timeout_s > 0: blocking, each read and write takes so long at most; 0: not blocking. */
int cl_unix_connect(const char *path, int timeout_s);
/* The same, not blocking; -EDEADLK: this process itself listens there, by whatever path and links. process: who listens;
   0: in a namespace that this one does not see. */
int cl_unix_connect_to_other(const char *path, int *process);
/* 1: a process with the threads of a node. 0: it has not, or /proc does not tell. */
int cl_process_is_node(int process);
/* A Unix datagram socket, not blocking, that sends to the one at path. */
int cl_unix_datagram(const char *path);
/* The name of an errno, "ENOSPC"; never NULL. */
const char *cl_error_name(int error);
/* What stands at path, links not followed: 0 nothing, 1 a socket, 2 something else. */
int cl_path_kind(const char *path);
int cl_remove_path(const char *path);
/* 0: there is nothing. */
uint64_t cl_path_inode(const char *path);
/* What stands at the other path is replaced. */
int cl_rename_path(const char *from, const char *to);
/* Which file a path names, links followed: equal for all its names. */
int cl_path_identity(const char *path, uint64_t *device, uint64_t *inode);

/* What a pattern matches, in no order; `failed`: the directory that could not be read, or NULL. */
struct cl_paths {
    int count;
    const char *const *paths;
    char *failed;
    void *state;
};
/* glob(7). -ENFILE for more than `limit`. To be freed in any case. */
int cl_match_paths(const char *pattern, int limit, struct cl_paths *out);
void cl_free_paths(struct cl_paths *paths);

struct cl_endpoint;
/* 0 if this machine would let a socket bind to the address (its port is not looked at), -EADDRNOTAVAIL if not. */
int cl_can_bind(const struct cl_endpoint *at);
/* 1 if what is sent to the address stays on this machine, by its routes: its own addresses, what routes of type local add,
   broadcast; 0 if not; -errno if that can't be told. `ip_nonlocal_bind` does not matter here. */
int cl_is_local(const struct cl_endpoint *to);
/* 1 if the address is this machine's: by its routes, or where they can't be asked, since a socket may bind to it; else 0. */
int cl_host_has(const struct cl_endpoint *address);

/* Connections that a listening socket had no room for in its queue since it listens (SO_MEMINFO); 0 if it can't be told. */
uint32_t cl_listen_drops(int fd);

/* Of an IPv6 address: whether this machine has it, and whether a socket may use it yet (/proc/net/if_inet6). */
enum { CL_ADDRESS_ABSENT = 0, CL_ADDRESS_READY = 1, CL_ADDRESS_TENTATIVE = 2, CL_ADDRESS_DUPLICATE = 3 };
int cl_address_state(const struct cl_endpoint *at);

/* Descriptors 0, 1 and 2 are there afterwards: a socket must never become standard output. */
int cl_hold_standard_streams(void);

/* Blocks until the other end of a pipe is closed. */
int cl_wait_for_end(int fd);

/* A blocking pipe: ends[0] is read, ends[1] is closed to let the threads begin. */
int cl_make_barrier(int ends[2]);
int cl_process_id(void);
/* Until fd can be read or the time is over; a negative one never is. */
void cl_wait_readable(int fd, int64_t timeout_ns);
void cl_sleep(int64_t nanoseconds);

/* Gives freed memory of the heap back to the system. Walks the heap: not for events. */
void cl_trim_heap(void);

/* One datagram to the Unix socket at path, within a quarter of a second; a leading '@' means the abstract namespace. */
int cl_send_datagram(const char *path, const void *bytes, size_t count);

/* Opens a regular file for reading: its descriptor, and its size. -EISDIR for a directory, -EINVAL for what is no file. */
int cl_open_file(const char *path, int64_t *size);
/* 0 or -errno: all of the bytes are written, waiting if the descriptor is blocking. */
int cl_write_all(int fd, const void *bytes, size_t count);
ssize_t cl_read(int fd, void *buffer, size_t count);
/* Replaces path by the bytes in one step, keeping its mode: a reader sees the old file or the new one. */
int cl_replace_file(const char *path, const void *bytes, size_t count);

/* How a stream of lines is written to. */
enum {
    /* A regular file, or a descriptor of our own that never waits: EAGAIN is told. */
    CL_SINK_PATIENT = 0,
    CL_SINK_SOCKET = 1,
    /* A pipe that may block its writer: it is asked before each write, and given a page, which it then has room for. */
    CL_SINK_POLLED = 2,
};
/* A descriptor of our own for what fd is, to be closed; its flags are not changed. */
int cl_sink_open(int fd, int *kind);
ssize_t cl_sink_write(int fd, int kind, const void *bytes, size_t count);
/* A regular file to append to, made (0640) if there is none. No link is followed: -ELOOP. -ENXIO for what is no file. */
int cl_log_open(const char *path);
/* This machine's name, cut to fit. */
int cl_host_name(char *name, size_t size);
/* `Nov  9 08:04:05` by the local time zone, as RFC 3164 has it. */
void cl_syslog_time(int64_t seconds, char text[16]);
/* Whether both are the same file, pipe or socket. */
int cl_same_file(int a, int b);
/* Makes the calling thread less urgent by so many steps of nice. */
int cl_lower_priority(int steps);

/* A folder whose files this process alone writes, and its files by their names in it. */
/* make_mode > 0: the last part of the path is made if it is missing. */
int cl_folder_open(const char *path, int make_mode);
/* Takes from its mode what is beyond this one. */
int cl_folder_narrow(int folder, int mode);
int cl_folder_has(int folder, const char *name);
int cl_folder_remove(int folder, const char *name);
/* A descriptor, not blocking, that can be read once something in the folder has changed (inotify). */
int cl_folder_watch(const char *path);

/* flock(2), which ends with the descriptor; waits 0: -EWOULDBLOCK if another process has it. */
int cl_lock_file(int fd, int shared, int waits);
int cl_unlock_file(int fd);
int64_t cl_file_size(int fd);
/* The same; -ENOENT: it has no name any more. */
int64_t cl_linked_size(int fd);
/* fsync, which a folder's names need. */
int cl_flush_all(int fd);
