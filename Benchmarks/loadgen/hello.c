// A ClientHello as a browser sends it, padded to 517 bytes (RFC 7685).
#include <stdio.h>

#include "../common/net.h"
#include "hello.h"

static uint8_t template[HELLO_BYTES];
static long names;           // 0: one
static uint8_t *digits;      // of the name in the template

static uint8_t *put16(uint8_t *p, unsigned value) {
    p[0] = (uint8_t)(value >> 8), p[1] = (uint8_t)value;
    return p + 2;
}

static uint8_t *extension(uint8_t *p, unsigned type, const void *body, size_t length) {
    p = put16(put16(p, type), (unsigned)length);
    memcpy(p, body, length);
    return p + length;
}

void prepare_hello(const char *server_name, long count) {
    char first[] = "e0000.example.com";
    if (count) server_name = first;
    size_t name = strlen(server_name);
    if (name == 0 || name > 128) die("--sni: 1 to 128 octets");
    uint8_t *p = template;
    memcpy(p, "\x16\x03\x01", 3), p = put16(p + 3, HELLO_BYTES - 5);
    memcpy(p, "\x01\x00", 2), p = put16(p + 2, HELLO_BYTES - 9);
    memcpy(p, "\x03\x03", 2), p += 2;
    memset(p, 0x5a, 32), p += 32;              // random; nonce, job and amount go here
    *p++ = 32, memset(p, 0xa5, 32), p += 32;   // session id
    static const uint8_t ciphers[] = {0x13, 1, 0x13, 2, 0x13, 3, 0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30, 0xcc, 0xa9, 0xcc, 0xa8};
    p = put16(p, sizeof ciphers), memcpy(p, ciphers, sizeof ciphers), p += sizeof ciphers;
    *p++ = 1, *p++ = 0;  // compression: null
    uint8_t *extensions = p;
    p += 2;
    uint8_t sni[5 + 128];
    put16(sni, (unsigned)name + 3), sni[2] = 0, put16(sni + 3, (unsigned)name), memcpy(sni + 5, server_name, name);
    p = extension(p, 0, sni, 5 + name);
    names = count;
    digits = p - name + 1;
    p = extension(p, 23, "", 0);                                                     // extended_master_secret
    p = extension(p, 10, "\x00\x06\x00\x1d\x00\x17\x00\x18", 8);                     // supported_groups
    p = extension(p, 11, "\x01\x00", 2);                                             // ec_point_formats
    p = extension(p, 16, "\x00\x0c\x02h2\x08http/1.1", 14);                          // ALPN
    p = extension(p, 13, "\x00\x08\x04\x03\x08\x04\x04\x01\x05\x03", 10);            // signature_algorithms
    uint8_t share[38] = {0, 36, 0, 0x1d, 0, 32};
    memset(share + 6, 0x42, 32), p = extension(p, 51, share, sizeof share);          // key_share, x25519
    p = extension(p, 45, "\x01\x01", 2);                                             // psk_key_exchange_modes
    p = extension(p, 43, "\x04\x03\x04\x03\x03", 5);                                 // supported_versions
    static const uint8_t zeros[HELLO_BYTES];
    p = extension(p, 21, zeros, (size_t)(template + HELLO_BYTES - p - 4));           // padding
    put16(extensions, (unsigned)(p - extensions - 2));
}

/// One of the names, each as likely as the others, and the same in every run.
static void choose_name(uint64_t nonce) {
    uint64_t mixed = nonce * 0x9e3779b97f4a7c15u;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebu;
    uint64_t number = (mixed >> 32) * (uint64_t)names >> 32;
    for (int i = 3; i >= 0; i--, number /= 10) digits[i] = (uint8_t)('0' + number % 10);
}

uint64_t write_hello(uint8_t hello[HELLO_BYTES], uint64_t nonce, enum job job, uint64_t amount) {
    if (names) choose_name(nonce);
    memcpy(hello, template, HELLO_BYTES);
    store64(hello + HELLO_NONCE, nonce);
    hello[HELLO_JOB] = (uint8_t)job;
    store64(hello + HELLO_AMOUNT, amount);
    return checksum(hello, HELLO_BYTES);
}
