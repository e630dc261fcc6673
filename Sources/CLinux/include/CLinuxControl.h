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
/* The next of the held signals: its number, 0 when the time is over. timeout_ns < 0: for ever. */
int cl_signal_wait(int64_t timeout_ns);

/* Blocks until the other end of a pipe is closed. */
int cl_wait_for_end(int fd);

/* A blocking pipe: ends[0] is read, ends[1] is closed to open the gate. */
int cl_make_gate(int ends[2]);
int cl_process_id(void);
/* Until fd can be read or the time is over. */
void cl_wait_readable(int fd, int64_t timeout_ns);
void cl_sleep(int64_t nanoseconds);

/* One datagram to the Unix socket at path; a leading '@' means the abstract namespace. */
int cl_send_datagram(const char *path, const void *bytes, size_t count);

/* Opens a regular file for reading: its descriptor, and its size. -EISDIR for a directory, -EINVAL for what is no file. */
int cl_open_file(const char *path, int64_t *size);
/* 0 or -errno: all of the bytes are written, waiting if the descriptor is blocking. */
int cl_write_all(int fd, const void *bytes, size_t count);
ssize_t cl_read(int fd, void *buffer, size_t count);
/* Replaces path by the bytes in one step, keeping its mode: a reader sees the old file or the new one. */
int cl_replace_file(const char *path, const void *bytes, size_t count);
