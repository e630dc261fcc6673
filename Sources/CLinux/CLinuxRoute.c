#define _GNU_SOURCE
#include "CLinux.h"
#include "CLinuxControl.h"
#include "CLinuxInternal.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>

struct route_question {
    struct nlmsghdr head;
    struct rtmsg route;
    struct rtattr attribute;
    unsigned char address[16];
};

static size_t ask_for(struct route_question *question, const struct cl_endpoint *to) {
    struct sockaddr_storage storage;
    to_sockaddr(to, &storage);
    int is_v4 = storage.ss_family == AF_INET;
    size_t length = is_v4 ? 4 : 16;
    const void *bytes = is_v4 ? (const void *)&((struct sockaddr_in *)&storage)->sin_addr
                              : (const void *)&((struct sockaddr_in6 *)&storage)->sin6_addr;
    memset(question, 0, sizeof *question);
    question->head.nlmsg_type = RTM_GETROUTE;
    question->head.nlmsg_flags = NLM_F_REQUEST;
    question->route.rtm_family = (unsigned char)storage.ss_family;
    question->route.rtm_dst_len = (unsigned char)(length * 8);
    question->attribute.rta_type = RTA_DST;
    question->attribute.rta_len = (unsigned short)RTA_LENGTH(length);
    memcpy(question->address, bytes, length);
    question->head.nlmsg_len = (unsigned)(NLMSG_LENGTH(sizeof(struct rtmsg)) + RTA_LENGTH(length));
    return question->head.nlmsg_len;
}

/* 1, 0, or -errno where the answer says neither. */
static int read_answer(const unsigned char *bytes, size_t count) {
    struct nlmsghdr head;
    if (count < sizeof head) return -EPROTO;
    memcpy(&head, bytes, sizeof head);
    if (head.nlmsg_type == NLMSG_ERROR) {
        struct nlmsgerr error;
        if (count < NLMSG_HDRLEN + sizeof error) return -EPROTO;
        memcpy(&error, bytes + NLMSG_HDRLEN, sizeof error);
        /* No route is no route of ours. */
        return error.error == -ENETUNREACH || error.error == -EHOSTUNREACH || error.error == -EACCES ? 0 : -EPROTO;
    }
    struct rtmsg route;
    if (head.nlmsg_type != RTM_NEWROUTE || count < NLMSG_HDRLEN + sizeof route) return -EPROTO;
    memcpy(&route, bytes + NLMSG_HDRLEN, sizeof route);
    switch (route.rtm_type) {
    case RTN_LOCAL:
    case RTN_BROADCAST:
    case RTN_ANYCAST:
    case RTN_MULTICAST: return 1;
    default: return 0;
    }
}

int cl_is_local(const struct cl_endpoint *to) {
    struct route_question question;
    size_t length = ask_for(&question, to);
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0) return -errno;
    unsigned char answer[4096];
    ssize_t count = send(fd, &question, length, 0);
    if (count >= 0) count = recv(fd, answer, sizeof answer, 0);
    int result = count < 0 ? -errno : read_answer(answer, (size_t)count);
    close(fd);
    return result;
}

int cl_host_has(const struct cl_endpoint *address) {
    int local = cl_is_local(address);
    return local < 0 ? cl_can_bind(address) == 0 : local == 1;
}
