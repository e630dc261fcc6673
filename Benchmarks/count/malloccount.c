// Preloaded where probes aren't allowed: counts calls of the C allocator into the file that PIPELINED_BENCH_COUNTS
// names, mapped, so that the driver reads it while the relay runs. Needs glibc, linked dynamically.
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);

enum { MALLOC, CALLOC, REALLOC, ALIGNED, KINDS };
static _Atomic uint64_t early[KINDS];
static _Atomic uint64_t *counts = early;

__attribute__((constructor)) static void map_counts(void) {
    const char *path = getenv("PIPELINED_BENCH_COUNTS");
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0) return;
    void *map = ftruncate(fd, 4096) == 0 ? mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    if (map != MAP_FAILED) counts = map;
}

static void count(int kind) { atomic_fetch_add_explicit(&counts[kind], 1, memory_order_relaxed); }

void *malloc(size_t size) { return count(MALLOC), __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return count(CALLOC), __libc_calloc(n, size); }
void *realloc(void *old, size_t size) { return count(REALLOC), __libc_realloc(old, size); }
void *memalign(size_t alignment, size_t size) { return count(ALIGNED), __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { return count(ALIGNED), __libc_memalign(alignment, size); }
int posix_memalign(void **out, size_t alignment, size_t size) {
    count(ALIGNED);
    void *block = __libc_memalign(alignment, size);
    if (!block) return ENOMEM;
    *out = block;
    return 0;
}
