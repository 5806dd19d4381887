/* Forwards TCP connections to a port on 127.0.0.1, each after a time of silence: a server that is slow to accept.

     slow PORT MILLISECONDS

   Prints its own port on 127.0.0.1, a line; then for each line on standard input the number of connections it took so far. Serves until it is killed or
   its parent ends. Two threads for each connection. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct pair {
    int in, out;
    atomic_int users;
};

struct direction {
    struct pair *pair;
    int from, to;
};

static struct sockaddr_in target = {.sin_family = AF_INET};
static useconds_t silence;
static atomic_long taken;

static void fatal(const char *what)
{
    perror(what);
    exit(1);
}

static void pump(int from, int to)
{
    char data[16384];
    ssize_t n;
    while ((n = recv(from, data, sizeof data, 0)) > 0)
        for (ssize_t sent = 0, m; sent < n; sent += m)
            if ((m = send(to, data + sent, (size_t)(n - sent), MSG_NOSIGNAL)) < 0) {
                shutdown(from, SHUT_RD);
                return;
            }
    shutdown(to, SHUT_WR);
}

static void leave(struct pair *p)
{
    if (atomic_fetch_sub(&p->users, 1) > 1)
        return;
    close(p->in);
    close(p->out);
    free(p);
}

static void *back(void *pair)
{
    struct pair *p = pair;
    pump(p->out, p->in);
    leave(p);
    return NULL;
}

static void *forth(void *pair)
{
    struct pair *p = pair;
    pthread_t thread;
    int one = 1;
    usleep(silence);
    p->out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (p->out < 0)
        fatal("socket");
    setsockopt(p->in, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(p->out, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(p->out, (struct sockaddr *)&target, sizeof target) < 0)
        fatal("connect");
    atomic_store(&p->users, 2);
    if (pthread_create(&thread, NULL, back, p))
        fatal("pthread_create");
    pthread_detach(thread);
    pump(p->in, p->out);
    leave(p);
    return NULL;
}

static void *count(void *unused)
{
    int c;
    while ((c = getchar()) != EOF)
        if (c == '\n') {
            printf("%ld\n", atomic_load(&taken));
            fflush(stdout);
        }
    return unused;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: slow PORT MILLISECONDS\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    target.sin_port = htons((uint16_t)atoi(argv[1]));
    silence = (useconds_t)(atof(argv[2]) * 1000);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    pthread_t thread;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 1024) < 0
        || getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        fatal("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    if (pthread_create(&thread, NULL, count, NULL))
        fatal("pthread_create");
    for (;;) {
        struct pair *p = calloc(1, sizeof *p);
        if (p == NULL || (p->in = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
            fatal("accept");
        atomic_fetch_add(&taken, 1);
        if (pthread_create(&thread, NULL, forth, p))
            fatal("pthread_create");
        pthread_detach(thread);
    }
}
