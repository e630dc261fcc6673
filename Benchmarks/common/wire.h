// What the load generator and the backend say to each other, so that each can check the other through any relay.
//
// A connection begins with a TLS ClientHello of 517 bytes, the size that browsers send. Its `random` carries a nonce,
// the job that the backend should do, and an amount. The backend answers with one TLS-shaped record of 96 bytes: the nonce, a
// checksum of the whole hello, and the client port that the PROXY header named.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { HELLO_BYTES = 517, REPLY_BYTES = 96 };

// Offsets into the hello: record header 5, handshake header 4, version 2, then `random`.
enum { HELLO_NONCE = 11, HELLO_JOB = HELLO_NONCE + 8, HELLO_AMOUNT = HELLO_JOB + 1 };

// Offsets into the reply.
enum { REPLY_NONCE = 9, REPLY_SUM = 17, REPLY_PORT = 25, REPLY_VERDICT = 27 };

enum job { JOB_SHORT = 's', JOB_ECHO = 'e', JOB_DOWNLOAD = 'd', JOB_UPLOAD = 'u', JOB_HOLD = 'h', JOB_IGNORE = 'i' };

static inline uint64_t load64(const void *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
static inline void store64(void *p, uint64_t v) { memcpy(p, &v, 8); }

/// A checksum that notices changed, lost and reordered bytes; not against malice. About 70 ns for a hello.
static inline uint64_t checksum(const uint8_t *bytes, size_t count) {
    uint64_t sum = 0x9e3779b97f4a7c15u;
    size_t i = 0;
    for (; i + 8 <= count; i += 8) sum = (sum ^ load64(bytes + i)) * 0xff51afd7ed558ccdu, sum ^= sum >> 29;
    for (; i < count; i++) sum = (sum ^ bytes[i]) * 0xff51afd7ed558ccdu;
    return sum;
}

/// Fills a reply record for the hello that `nonce` and `sum` came from.
static inline void write_reply(uint8_t reply[REPLY_BYTES], uint64_t nonce, uint64_t sum, uint16_t port, uint8_t verdict) {
    memset(reply, 0, REPLY_BYTES);
    memcpy(reply, "\x16\x03\x03\x00\x5b" "PLB1", 9);  // a handshake record: no relay may take it for an alert
    store64(reply + REPLY_NONCE, nonce);
    store64(reply + REPLY_SUM, sum);
    memcpy(reply + REPLY_PORT, &port, 2);
    reply[REPLY_VERDICT] = verdict;
}

// Bulk bytes repeat with a prime period, so that a lost, doubled or swapped block of any usual size shows.
enum { PATTERN_PERIOD = 262139, BULK_CHUNK = 256 * 1024 };
static uint8_t pattern[PATTERN_PERIOD + BULK_CHUNK];

static inline void fill_pattern(void) {
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < PATTERN_PERIOD; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        pattern[i] = (uint8_t)x;
    }
    for (size_t i = PATTERN_PERIOD; i < sizeof pattern; i++) pattern[i] = pattern[i - PATTERN_PERIOD];
}
static inline const uint8_t *pattern_at(uint64_t offset) { return pattern + offset % PATTERN_PERIOD; }

/// Whether `count` bytes received at stream position `offset` are the pattern; looks at both ends of them.
static inline int pattern_matches(uint64_t offset, const uint8_t *bytes, size_t count) {
    size_t n = count < 64 ? count : 64;
    return memcmp(bytes, pattern_at(offset), n) == 0 && memcmp(bytes + count - n, pattern_at(offset + count - n), n) == 0;
}
