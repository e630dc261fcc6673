// The hello that load generators send.
#pragma once
#include <stdint.h>

#include "../common/wire.h"

/// - names: 0, or how many names connections are spread over instead.
void prepare_hello(const char *server_name, long names);
/// Puts nonce, job and amount into `hello`; returns its checksum.
uint64_t write_hello(uint8_t hello[HELLO_BYTES], uint64_t nonce, enum job job, uint64_t amount);
