/* An HTTP/1.1 server that takes request bodies and answers with the number of bytes it got, on connections that stay open.

     sink

   Prints its port on 127.0.0.1, a line, and serves until it is killed or its parent ends. A thread for each connection. The bytes of a body with a
   Content-Length are not even copied out of the kernel; a chunked body is read. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 1 << 18 };

struct peer {
    int fd;
    size_t used;
    char data[BUFFER + 1];
};

static void fatal(const char *what)
{
    perror(what);
    exit(1);
}

/* Reads more; 0 where nothing comes any more or there is no room. */
static int more(struct peer *p)
{
    ssize_t n = p->used < BUFFER ? recv(p->fd, p->data + p->used, BUFFER - p->used, 0) : 0;
    if (n <= 0)
        return 0;
    p->used += (size_t)n;
    p->data[p->used] = 0;
    return 1;
}

static void drop(struct peer *p, size_t n)
{
    p->used -= n;
    memmove(p->data, p->data + n, p->used + 1);
}

/* Takes `size` bytes. */
static int skip(struct peer *p, uint64_t size)
{
    size_t here = p->used < size ? p->used : (size_t)size;
    drop(p, here);
    for (size -= here; size;) {
        ssize_t n = recv(p->fd, NULL, size < BUFFER * 16 ? (size_t)size : BUFFER * 16, MSG_TRUNC);
        if (n <= 0)
            return 0;
        size -= (uint64_t)n;
    }
    return 1;
}

static int chunks(struct peer *p, uint64_t *total)
{
    for (uint64_t size = 1; size;) {
        char *end;
        while ((end = memmem(p->data, p->used, "\r\n", 2)) == NULL)
            if (!more(p))
                return 0;
        size = strtoull(p->data, NULL, 16);
        drop(p, (size_t)(end + 2 - p->data));
        if (!skip(p, size + 2))         /* no trailers */
            return 0;
        *total += size;
    }
    return 1;
}

static int serve(struct peer *p)
{
    char answer[128], body[32], *end, *field;
    uint64_t total = 0;
    while ((end = memmem(p->data, p->used, "\r\n\r\n", 4)) == NULL)
        if (!more(p))
            return 0;
    *end = 0;
    size_t head = (size_t)(end + 4 - p->data);
    int chunked = strcasestr(p->data, "\r\ntransfer-encoding: chunked") != NULL, expects = strcasestr(p->data, "\r\nexpect: 100-continue") != NULL;
    field = strcasestr(p->data, "\r\ncontent-length:");
    if (field != NULL)
        total = strtoull(field + 17, NULL, 10);
    drop(p, head);
    if (expects && send(p->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25, MSG_NOSIGNAL) != 25)
        return 0;
    if (chunked ? !chunks(p, &total) : !skip(p, total))
        return 0;
    int length = sprintf(body, "%llu", (unsigned long long)total);
    length = sprintf(answer, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", length, body);
    return send(p->fd, answer, (size_t)length, MSG_NOSIGNAL) == length;
}

static void *run(void *peer)
{
    struct peer *p = peer;
    while (serve(p))
        ;
    close(p->fd);
    free(p);
    return NULL;
}

int main(void)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 64) < 0
        || getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        fatal("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        pthread_t thread;
        struct peer *p = calloc(1, sizeof *p);
        if (p == NULL || (p->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0 || pthread_create(&thread, NULL, run, p))
            fatal("accept");
        pthread_detach(thread);
    }
}
