/* What goes from process to process: listening sockets, descriptors in messages, a program that is started with some. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct cl_endpoint;
struct cl_listen_options;

/* What a descriptor that this process was given is. */
struct cl_listener_facts {
    int family;         /* AF_INET, AF_INET6, or another */
    int protocol;       /* IPPROTO_TCP, IPPROTO_MPTCP, or another */
    int listens;        /* SO_ACCEPTCONN */
    int takes_both;     /* of IPv6: IPv4 connections come here as well */
    int is_elsewhere;   /* of another network namespace; 0 also if the kernel can't tell (before 5.14) */
    uint32_t interface; /* it is bound to this one; 0: to none */
};
/* Also where it is bound, for the two families. -ENOTSOCK and -EBADF: no socket, no descriptor. */
int cl_listener_look(int fd, struct cl_listener_facts *facts, struct cl_endpoint *at);
/* Makes a listening socket what cl_listen makes of a new one, as far as that can change while it listens: its options, its
   backlog, its mode. It is not blocking, and not inherited further, afterwards. */
int cl_listener_inherit(int fd, const struct cl_listen_options *options);
/* 1: this kernel makes sockets of Multipath TCP. */
int cl_has_multipath(void);
/* No program that this process starts has it. */
int cl_close_on_exec(int fd);

/* As cl_send_datagram, with a descriptor that the receiver gets a copy of (SCM_RIGHTS). */
int cl_send_descriptor(const char *path, const void *bytes, size_t count, int fd);

/* A Unix datagram socket, not blocking, at an address of the abstract namespace that the kernel chooses; `name` gets
   '@' and its at most 15 bytes. What it receives says who sent it. */
int cl_notify_listen(char name[17]);
/* The next datagram: its bytes, at most `size`, `*process` that sent it, and what descriptors came with it, at most
   *count, each not inherited further; *count becomes their number. -EAGAIN: none waits. -EMSGSIZE: it was cut, and its
   descriptors are closed. */
ssize_t cl_notify_receive(int fd, void *bytes, size_t size, int *process, int *fds, int *count);

/* Starts a program with fds[0] as its descriptor 3 and so on, and nothing else but the standard streams of what is to be
   closed on exec. Its environment is that of `environment`, and LISTEN_PID with its own process id. No signal is blocked.
   It gets SIGTERM if the calling thread ends. The process id. For a process of one thread. */
int cl_start_with(
    const char *path, char *const *arguments, char *const *environment, const int *fds, int count);
/* How a child has ended, if it has: 1 with its exit code or the number of the signal that ended it. 0: it runs. */
int cl_child_ended(int process, int *code, int *signal);
/* A descriptor that can be read once the process has ended (pidfd). */
int cl_watch_process(int process);
/* From here on children of children that end are this process's. */
int cl_adopt_orphans(void);
int cl_send_signal(int process, int signal);
/* The path of the program that this process runs. */
int cl_own_program(char *path, size_t size);
/* 1: two descriptors are the same socket. */
int cl_is_same_socket(int a, int b);
