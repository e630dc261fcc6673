// Latencies, rate, failures, and what the load generator itself cost.
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "loadgen.h"

static uint32_t *latencies;
static long latency_count, latency_capacity;
static uint64_t begin_ns, failures;

void stats_open(long capacity) {
    latency_capacity = capacity;
    latencies = malloc((size_t)capacity * sizeof *latencies + 1);
    if (!latencies) die("no memory for %ld latencies", capacity);
    memset(latencies, 0, (size_t)capacity * sizeof *latencies);  // touch the pages before the clock runs
}
void stats_add(uint64_t latency_ns) {
    if (latency_count < latency_capacity) latencies[latency_count++] = latency_ns < UINT32_MAX ? (uint32_t)latency_ns : UINT32_MAX;
}
void stats_begin(void) { begin_ns = now_ns(); }
void stats_failure(void) { failures++; }

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}
static double percentile_us(double share) {
    return latency_count ? latencies[(long)(share * (double)(latency_count - 1))] / 1000.0 : 0;
}

int stats_print(const char *job, uint64_t operations, uint64_t bytes) {
    double seconds = (double)(now_ns() - begin_ns) / 1e9;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    qsort(latencies, (size_t)latency_count, sizeof *latencies, ascending);
    printf("{\"job\": \"%s\", \"operations\": %llu, \"bytes\": %llu, \"failures\": %llu, \"seconds\": %.6f, \"p50_us\": %.1f, "
           "\"p99_us\": %.1f, \"own_cpu_s\": %.6f}\n",
           job, (unsigned long long)operations, (unsigned long long)bytes, (unsigned long long)failures, seconds,
           percentile_us(0.50), percentile_us(0.99), cpu);
    fflush(stdout);
    return failures ? 1 : 0;
}
