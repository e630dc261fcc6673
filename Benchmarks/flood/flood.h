// Greedy clients and quiet ones beside them: what a relay lets the second have while the first take what they can.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "../common/net.h"
#include "../common/wire.h"

struct options {
    struct address target;
    struct address source;  // the first of `sources`, IPv4
    long sources;
    const char *server_name;
    long connections;  // flood: at once
    long rate;         // quiet: new connections a second, of all sources
    double seconds;
};

enum kind { SILENT, SLOW, SHORT, GARBAGE, SLOW_READERS, STALLED_UPLOADS, TINY, KINDS };
extern const char *const kind_names[KINDS];

/// A socket of source `number`, with its connect under way; below 0: none, with errno.
int connect_from(const struct options *options, long number);

/// Each returns the exit status. `run_flood` goes on until its standard input ends.
int run_flood(const struct options *options, enum kind kind);
int run_quiet(const struct options *options);
