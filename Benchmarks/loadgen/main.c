#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "loadgen.h"

static const char usage[] =
    "usage: loadgen short|rtt|bulk|idle --target ADDRESS:PORT [options]\n"
    "  --sni NAME           server name in the hello (app.example.com)\n"
    "  --names N            spread over e0000.example.com and so on instead, 1 to 10000\n"
    "  --connections N      short: in all; others: at once (1000)\n"
    "  --concurrent N       short: at once (64)\n"
    "  --rate N             short: starts a second instead of as fast as they end\n"
    "  --amount N           rtt: round trips in all; bulk: bytes a stream\n"
    "  --message N          rtt: bytes of a message, 8 to 65536 (64)\n"
    "  --upload             bulk: from here to the backend\n"
    "  --fin                short: close by FIN instead of RST\n"
    "  --proxied            the backend must learn our port from a PROXY header\n"
    "Prints one line of JSON. Exit status 1 if any connection failed or any answer was wrong.\n";

static long number(const char *text) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || *end || value < 0) die("%s: expected a number", text);
    return value;
}

static struct options parse(int count, char **arguments) {
    struct options o = {.server_name = "app.example.com", .connections = 1000, .concurrent = 64, .message = 64};
    static const struct option known[] = {
        {"target", 1, 0, 't'}, {"sni", 1, 0, 's'},    {"connections", 1, 0, 'n'}, {"concurrent", 1, 0, 'c'}, {"rate", 1, 0, 'r'},
        {"names", 1, 0, 'e'},  {"amount", 1, 0, 'a'}, {"upload", 0, 0, 'u'}, {"fin", 0, 0, 'f'},         {"proxied", 0, 0, 'p'},    {"message", 1, 0, 'm'}, {0},
    };
    for (int c; (c = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        switch (c) {
        case 't': o.target = parse_address(optarg); break;
        case 's': o.server_name = optarg; break;
        case 'e': o.names = number(optarg); break;
        case 'n': o.connections = number(optarg); break;
        case 'c': o.concurrent = number(optarg); break;
        case 'r': o.rate = number(optarg); break;
        case 'a': o.amount = (uint64_t)number(optarg); break;
        case 'm': o.message = number(optarg); break;
        case 'u': o.upload = true; break;
        case 'f': o.close_by_fin = true; break;
        case 'p': o.expects_proxy = true; break;
        default: die("%s", usage);
        }
    }
    if (!o.target.length || o.connections < 1 || o.concurrent < 1 || o.message < 8 || o.message > MESSAGE_MAX || o.names > 10000) die("%s", usage);
    return o;
}

int main(int count, char **arguments) {
    if (count < 2) die("%s", usage);
    struct options options = parse(count - 1, arguments + 1);
    signal(SIGPIPE, SIG_IGN);
    long limit = raise_descriptor_limit();
    if (options.concurrent + 64 > limit) die("at most %ld connections at once: raise the limit of open files", limit - 64);
    prepare_hello(options.server_name, options.names);
    if (!strcmp(arguments[1], "short")) return run_short(&options);
    if (options.connections + 64 > limit) die("at most %ld connections at once: raise the limit of open files", limit - 64);
    if (!strcmp(arguments[1], "rtt")) return run_rtt(&options);
    if (!strcmp(arguments[1], "bulk")) return run_bulk(&options);
    if (!strcmp(arguments[1], "idle")) return run_idle(&options);
    die("%s", usage);
}
