#define _GNU_SOURCE
#include "CLinuxFiles.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* What is mapped. Beyond so many, one whose page can't be read ends the process, as without all this. */
enum { MOST = 256 };
static struct {
    /* 0: free; 1: being filled in. */
    _Atomic uintptr_t start;
    _Atomic size_t size;
    _Atomic int lost;
} mapped[MOST];

static _Atomic int is_watching;
static struct sigaction before;
static uintptr_t page_size;

static int find(uintptr_t at) {
    for (int i = 0; i < MOST; i++) {
        uintptr_t start = atomic_load(&mapped[i].start);
        if (start > 1 && at >= start && at - start < atomic_load(&mapped[i].size)) return i;
    }
    return -1;
}

/* Puts zeros in the place of the page, and goes on. All of it may be called in a signal handler. */
static void on_bus_error(int number, siginfo_t *info, void *context) {
    int error = errno;
    uintptr_t at = (uintptr_t)info->si_addr;
    int found = find(at);
    if (found >= 0) {
        void *page = (void *)(at & ~(page_size - 1));
        if (mmap(page, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED) {
            atomic_store(&mapped[found].lost, 1);
            errno = error;
            return;
        }
    }
    errno = error;
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, info, context);
    } else {
        /* The access is made again, and ends the process as it would have. */
        signal(number, SIG_DFL);
    }
}

static void watch(void) {
    if (atomic_exchange(&is_watching, 1)) return;
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGBUS, &action, &before);
}

static void note(const void *memory, size_t size) {
    watch();
    for (int i = 0; i < MOST; i++) {
        uintptr_t none = 0;
        if (!atomic_compare_exchange_strong(&mapped[i].start, &none, 1)) continue;
        atomic_store(&mapped[i].lost, 0);
        atomic_store(&mapped[i].size, size);
        atomic_store(&mapped[i].start, (uintptr_t)memory);
        return;
    }
}

const void *cl_file_map(int fd, size_t size, int *error) {
    void *memory = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    *error = 0;
    if (memory == MAP_FAILED) {
        *error = errno;
        return NULL;
    }
    /* Kernels before 5.14 don't know it: pages come as they are read. */
    if (madvise(memory, size, MADV_POPULATE_READ) == 0 || errno == EINVAL) {
        note(memory, size);
        return memory;
    }
    *error = errno == EFAULT || errno == EHWPOISON ? EIO : errno;
    munmap(memory, size);
    return NULL;
}

void cl_file_unmap(const void *memory, size_t size) {
    int found = find((uintptr_t)memory);
    if (found >= 0) atomic_store(&mapped[found].start, 0);
    munmap((void *)memory, size);
}

int cl_file_map_lost(const void *memory) {
    int found = find((uintptr_t)memory);
    return found >= 0 && atomic_load(&mapped[found].lost);
}
