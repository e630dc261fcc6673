#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../loadgen/hello.h"
#include "flood.h"

const char *const kind_names[KINDS] = {"silent", "slow", "short", "garbage", "slow-readers", "stalled-uploads", "tiny"};

static const char usage[] =
    "usage: flood KIND --target ADDRESS:PORT --source ADDRESS[+COUNT] [options]\n"
    "  KIND: quiet, or what the greedy do: silent, slow, short, garbage, slow-readers, stalled-uploads, tiny\n"
    "  --sni NAME           server name in the hello (app.example.com)\n"
    "  --connections N      a flood's, at once (1000)\n"
    "  --rate N             quiet: new connections a second, of all sources (400)\n"
    "  --seconds S          quiet: how long (4)\n"
    "A flood says \"ready\" once its first connections were tried, and goes on until its standard input ends. Each prints one line\n"
    "of JSON.\n";

int connect_from(const struct options *options, long number) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    struct sockaddr_in from = *(const struct sockaddr_in *)&options->source.storage;
    from.sin_port = 0;
    from.sin_addr.s_addr = htonl(ntohl(from.sin_addr.s_addr) + (uint32_t)(number % options->sources));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){1}, sizeof(int));
    if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0) die("bind: %s", strerror(errno));
    if (connect(fd, (const struct sockaddr *)&options->target.storage, options->target.length) == 0 || errno == EINPROGRESS) return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static double number(const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || value < 0) die("%s: expected a number", text);
    return value;
}

static void parse_source(struct options *o, char *text) {
    char *plus = strchr(text, '+');
    o->sources = plus ? (long)number(plus + 1) : 1;
    if (plus) *plus = 0;
    char with_port[64];
    snprintf(with_port, sizeof with_port, "%s:0", text);
    o->source = parse_address(with_port);
    if (o->sources < 1 || o->source.storage.ss_family != AF_INET) die("--source: an IPv4 address, and how many from there");
}

static struct options parse(int count, char **arguments) {
    struct options o = {.server_name = "app.example.com", .connections = 1000, .rate = 400, .seconds = 4};
    static const struct option known[] = {{"target", 1, 0, 't'},      {"source", 1, 0, 's'}, {"sni", 1, 0, 'n'},
                                          {"connections", 1, 0, 'c'}, {"rate", 1, 0, 'r'},   {"seconds", 1, 0, 'd'}, {0}};
    for (int c; (c = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        switch (c) {
        case 't': o.target = parse_address(optarg); break;
        case 's': parse_source(&o, optarg); break;
        case 'n': o.server_name = optarg; break;
        case 'c': o.connections = (long)number(optarg); break;
        case 'r': o.rate = (long)number(optarg); break;
        case 'd': o.seconds = number(optarg); break;
        default: die("%s", usage);
        }
    }
    if (!o.target.length || !o.sources || o.connections < 1 || o.rate < 1) die("%s", usage);
    return o;
}

int main(int count, char **arguments) {
    if (count < 2) die("%s", usage);
    struct options options = parse(count - 1, arguments + 1);
    signal(SIGPIPE, SIG_IGN);
    long limit = raise_descriptor_limit();
    if (options.connections + 64 > limit) options.connections = limit - 64;
    prepare_hello(options.server_name, 0);
    if (!strcmp(arguments[1], "quiet")) return run_quiet(&options);
    for (int kind = 0; kind < KINDS; kind++)
        if (!strcmp(arguments[1], kind_names[kind])) return run_flood(&options, (enum kind)kind);
    die("%s", usage);
}
