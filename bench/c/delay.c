/* An HTTP/1.1 server that answers each request a given time after it was complete, on connections that stay open.

     delay MICROSECONDS BODY_FILE

   Prints its port on 127.0.0.1, a line, and serves until it is killed or its parent ends. One thread: epoll, and a timerfd for each connection. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { CONNECTIONS = 256, HEAD = 8192, BODY = 65536 };

struct connection {
    int fd, timer;          /* fd -1: free */
    int waiting;            /* a request is complete, its answer not sent */
    size_t used;
    char head[HEAD];
};

static struct connection connections[CONNECTIONS];
static char answer[BODY + 256];
static size_t answer_size;
static struct itimerspec delay;
static int epoll;

static void fatal(const char *what)
{
    perror(what);
    exit(1);
}

static void drop(struct connection *c)
{
    close(c->fd);
    close(c->timer);
    c->fd = -1;
}

static void watch(int fd, int slot, int timer)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)slot * 2 + timer};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        fatal("epoll_ctl");
}

static void take(int listener)
{
    int one = 1, slot = 0, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    while (slot < CONNECTIONS && connections[slot].fd >= 0)
        slot++;
    if (slot == CONNECTIONS) {
        close(fd);
        return;
    }
    struct connection *c = &connections[slot];
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->fd = fd;
    c->used = c->waiting = 0;
    c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (c->timer < 0)
        fatal("timerfd_create");
    watch(c->fd, slot, 0);
    watch(c->timer, slot, 1);
}

/* Starts the clock for the request that `head` begins with, if it is complete. */
static void look(struct connection *c)
{
    char *end = c->waiting ? NULL : memmem(c->head, c->used, "\r\n\r\n", 4);
    if (end == NULL)
        return;
    c->used -= (size_t)(end + 4 - c->head);
    memmove(c->head, end + 4, c->used);
    c->waiting = 1;
    if (timerfd_settime(c->timer, 0, &delay, NULL) < 0)
        fatal("timerfd_settime");
}

static void receive(struct connection *c)
{
    ssize_t n = recv(c->fd, c->head + c->used, HEAD - c->used, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {           /* also a head that does not fit */
        drop(c);
        return;
    }
    c->used += (size_t)n;
    look(c);
}

static void expire(struct connection *c)
{
    uint64_t times;
    if (read(c->timer, &times, sizeof times) != sizeof times)
        return;
    c->waiting = 0;
    if (send(c->fd, answer, answer_size, MSG_NOSIGNAL) != (ssize_t)answer_size) {
        drop(c);
        return;
    }
    look(c);
}

int main(int argc, char **argv)
{
    static char body[BODY];
    FILE *file = argc == 3 ? fopen(argv[2], "rb") : NULL;
    if (file == NULL) {
        fprintf(stderr, "usage: delay MICROSECONDS BODY_FILE (at most %d bytes)\n", BODY);
        return 2;
    }
    size_t size = fread(body, 1, BODY, file);
    fclose(file);
    answer_size = (size_t)sprintf(answer, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %zu\r\n\r\n", size);
    memcpy(answer + answer_size, body, size);
    answer_size += size;
    long us = atol(argv[1]);
    delay.it_value.tv_sec = us / 1000000;
    delay.it_value.tv_nsec = us % 1000000 * 1000 + (us == 0);        /* zero would disarm the timer */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    for (int i = 0; i < CONNECTIONS; i++)
        connections[i].fd = -1;

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, CONNECTIONS) < 0
        || getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        fatal("listen");
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fatal("epoll_create1");
    watch(listener, CONNECTIONS, 0);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    for (;;) {
        struct epoll_event events[64];
        int n = epoll_wait(epoll, events, 64, -1);
        if (n < 0 && errno != EINTR)
            fatal("epoll_wait");
        for (int i = 0; i < n; i++) {
            uint32_t slot = events[i].data.u32 / 2;
            if (slot == CONNECTIONS)
                take(listener);
            else if (connections[slot].fd < 0)
                continue;           /* dropped by an event before this one */
            else if (events[i].data.u32 % 2)
                expire(&connections[slot]);
            else
                receive(&connections[slot]);
        }
    }
}
