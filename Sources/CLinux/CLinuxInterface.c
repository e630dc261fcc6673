#define _GNU_SOURCE
#include "CLinux.h"

#include <stdio.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

/* The options that a TCP socket shows its packet information by, which need no packet to be read. */
enum { PACKET_OPTIONS_4 = 9 /* IP_PKTOPTIONS */, PACKET_OPTIONS_6 = 6 /* IPV6_2292PKTOPTIONS */ };

static int is_v6(int fd) {
    int domain = 0;
    socklen_t length = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_INET6;
}

uint32_t cl_incoming_interface(int fd) {
    int six = is_v6(fd), on = 1;
    int level = six ? SOL_IPV6 : SOL_IP;
    if (setsockopt(fd, level, six ? IPV6_RECVPKTINFO : IP_PKTINFO, &on, sizeof on) < 0) return 0;
    union {
        struct cmsghdr header;
        char bytes[256];
    } space;
    memset(&space, 0, sizeof space);
    socklen_t length = sizeof space;
    if (getsockopt(fd, level, six ? PACKET_OPTIONS_6 : PACKET_OPTIONS_4, &space, &length) < 0) return 0;
    struct msghdr message = {.msg_control = &space, .msg_controllen = length};
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            return info.ipi6_ifindex;
        }
        if (c->cmsg_level == SOL_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            return (uint32_t)info.ipi_ifindex;
        }
    }
    return 0;
}

uint32_t cl_interface_index(const char *name) { return if_nametoindex(name); }

bool cl_interface_name(uint32_t index, char *name) { return index != 0 && if_indextoname(index, name) != NULL; }

int cl_address_state(const struct cl_endpoint *at) {
    char wanted[33];
    snprintf(wanted, sizeof wanted, "%016llx%016llx", (unsigned long long)at->high, (unsigned long long)at->low);
    FILE *file = fopen("/proc/net/if_inet6", "re");
    if (file == NULL) return CL_ADDRESS_ABSENT;
    int state = CL_ADDRESS_ABSENT;
    char address[33];
    unsigned flags;
    /* Address, interface, prefix length, scope, flags (IFA_F_TENTATIVE 0x40, IFA_F_DADFAILED 0x08), name. */
    while (fscanf(file, "%32s %*x %*x %*x %x %*s", address, &flags) == 2) {
        if (strcmp(address, wanted) != 0) continue;
        int found = flags & 0x08 ? CL_ADDRESS_DUPLICATE : flags & 0x40 ? CL_ADDRESS_TENTATIVE : CL_ADDRESS_READY;
        /* On two links: one that can be used is enough. */
        if (state == CL_ADDRESS_ABSENT || found < state) state = found;
    }
    fclose(file);
    return state;
}

uint32_t cl_listen_drops(int fd) {
    enum { MEMORY_INFO = 55, DROPS = 8 /* SK_MEMINFO_DROPS */ };
    uint32_t values[16] = {0};
    socklen_t length = sizeof values;
    if (getsockopt(fd, SOL_SOCKET, MEMORY_INFO, values, &length) < 0) return 0;
    return length >= (DROPS + 1) * sizeof values[0] ? values[DROPS] : 0;
}
