/* Files that must outlive a crash: each call says what failed, none waits for more than the disk. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* CRC-32C (Castagnoli, RFC 3720 B.4) of bytes, going on from `crc`; 0 at first. By the processor's own instruction where
   it has one. */
uint32_t cl_crc32c(uint32_t crc, const void *bytes, size_t count);
/* That of each piece of so many bytes, a multiple of 8; the last piece may be shorter. Several at once. */
void cl_crc32c_pieces(const void *bytes, size_t count, size_t piece, uint32_t *sums);
/* The same without that instruction. For tests. */
uint32_t cl_crc32c_by_table(uint32_t crc, const void *bytes, size_t count);

enum {
    CL_OPEN_READ = 0,
    CL_OPEN_WRITE = 1,
    /* Made (0600) if there is none. */
    CL_OPEN_MAKE = 2,
    /* The same, and empty. */
    CL_OPEN_EMPTY = 3,
};
/* No link is followed (-ELOOP): who may write to a folder must not lead elsewhere. No device or FIFO waits. */
int cl_file_open(const char *path, int how);
/* The same, by its name in an open folder; -ENXIO: it is no regular file. */
int cl_folder_file(int folder, const char *name, int how);
/* The descriptor, if it is one of a regular file; else it is closed, and this is -ENXIO. */
int cl_file_regular(int fd);

enum { CL_KIND_OTHER = 0, CL_KIND_FILE = 1, CL_KIND_DIRECTORY = 2 };
struct cl_file_status {
    int64_t size;
    /* Which file it is: no two that are there have the same. */
    uint64_t device;
    uint64_t inode;
    /* When its bytes were written last, in nanoseconds since 1970. */
    int64_t modified;
    uint32_t mode;
    uint32_t owner;
    uint32_t links;
    uint32_t kind;
};
/* Links are not followed. */
int cl_file_status(const char *path, struct cl_file_status *out);
/* Of an open file; no links: its name was taken away. */
int cl_open_file_status(int fd, struct cl_file_status *out);

ssize_t cl_file_read(int fd, void *buffer, size_t count, int64_t offset);
/* All of the bytes or an error, with part of them written perhaps. */
int cl_file_write(int fd, const void *bytes, size_t count, int64_t offset);
int cl_file_resize(int fd, int64_t size);
/* Blocks for so many bytes, and the size to match. */
int cl_file_allocate(int fd, int64_t offset, int64_t count);
/* fdatasync(2). */
int cl_file_sync(int fd);
/* The whole of a file, read-only, and in memory by now: a sector that can't be read is an error here (EIO), not SIGBUS
   later. NULL with an errno. */
const void *cl_file_map(int fd, size_t size, int *error);
void cl_file_unmap(const void *memory, size_t size);
/* Whether a page of such a file could not be read since: somebody has cut it, or the disk failed. It reads as zeros from
   then on, and the process lives. */
int cl_file_map_lost(const void *memory);

/* Links are not followed. */
int cl_file_mode(const char *path, int mode);
/* For its lock alone. */
int cl_directory_open(const char *path);
int cl_directory_make(const char *path, int mode);
int cl_directory_sync(const char *path);
/* Names without `.` and `..`, in no order. */
int cl_directory_names(const char *path, void *context, void (*take)(void *context, const char *name));
int cl_folder_names(int folder, void *context, void (*take)(void *context, const char *name));
/* Bytes that this process may still write on the file system of path. */
int64_t cl_free_bytes(const char *path);

/* `20261130T050000Z`. */
void cl_utc_stamp(int64_t seconds, char text[17]);
