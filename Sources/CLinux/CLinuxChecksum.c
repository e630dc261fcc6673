#include "CLinuxFiles.h"

#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#define BY_INSTRUCTION __attribute__((target("sse4.2")))
#define STEP8(crc, byte) _mm_crc32_u8((uint32_t)(crc), byte)
#define STEP64(crc, word) _mm_crc32_u64(crc, word)
static int has_instruction(void) { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#define BY_INSTRUCTION __attribute__((target("crc")))
#define STEP8(crc, byte) __crc32cb((uint32_t)(crc), byte)
#define STEP64(crc, word) __crc32cd((uint32_t)(crc), word)
static int has_instruction(void) { return (getauxval(AT_HWCAP) & (1 << 7 /* HWCAP_CRC32 */)) != 0; }
#endif

/* Four bits a step. Slow, and right everywhere: processors without the instruction are from before 2008. */
uint32_t cl_crc32c_by_table(uint32_t crc, const void *bytes, size_t count) {
    static const uint32_t table[16] = {
        0x00000000, 0x105EC76F, 0x20BD8EDE, 0x30E349B1, 0x417B1DBC, 0x5125DAD3, 0x61C69362, 0x7198540D,
        0x82F63B78, 0x92A8FC17, 0xA24BB5A6, 0xB21572C9, 0xC38D26C4, 0xD3D3E1AB, 0xE330A81A, 0xF36E6F75,
    };
    const uint8_t *next = bytes;
    crc = ~crc;
    for (; count > 0; count--) {
        crc ^= *next++;
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

#ifdef BY_INSTRUCTION
static inline uint64_t word(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

BY_INSTRUCTION static uint32_t by_instruction(uint32_t crc, const uint8_t *next, size_t count) {
    uint64_t state = ~crc;
    for (; count >= 8; count -= 8, next += 8) state = STEP64(state, word(next));
    for (; count > 0; count--) state = STEP8(state, *next++);
    return ~(uint32_t)state;
}

/* The instruction gives its result after three cycles, and takes the next after one: three pieces at once. */
BY_INSTRUCTION static void three_by_instruction(const uint8_t *next, size_t piece, uint32_t *sums) {
    uint64_t a = 0xFFFFFFFF, b = 0xFFFFFFFF, c = 0xFFFFFFFF;
    for (size_t i = 0; i < piece; i += 8) {
        a = STEP64(a, word(next + i));
        b = STEP64(b, word(next + piece + i));
        c = STEP64(c, word(next + 2 * piece + i));
    }
    sums[0] = ~(uint32_t)a;
    sums[1] = ~(uint32_t)b;
    sums[2] = ~(uint32_t)c;
}
#endif

uint32_t cl_crc32c(uint32_t crc, const void *bytes, size_t count) {
#ifdef BY_INSTRUCTION
    if (has_instruction()) return by_instruction(crc, bytes, count);
#endif
    return cl_crc32c_by_table(crc, bytes, count);
}

void cl_crc32c_pieces(const void *bytes, size_t count, size_t piece, uint32_t *sums) {
    const uint8_t *next = bytes;
#ifdef BY_INSTRUCTION
    for (; has_instruction() && piece % 8 == 0 && count / 3 >= piece; count -= 3 * piece, next += 3 * piece, sums += 3)
        three_by_instruction(next, piece, sums);
#endif
    while (count > 0) {
        size_t part = count < piece ? count : piece;
        *sums++ = cl_crc32c(0, next, part);
        next += part;
        count -= part;
    }
}
