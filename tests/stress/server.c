/* Hosts that answer, break and delay at random, and keep a log of it.

     server DIRECTORY HOSTS TLS LIMIT SEED FAULTS IDS

   Listens on HOSTS ports of 127.0.0.1, of which the last TLS speak TLS (DIRECTORY/chain.pem, key.pem; libssl.so.3). A request is
   `METHOD /ID/SIZE/TOKEN`, ID below IDS. What happens to the n-th try of ID is a function of SEED, ID and n alone; FAULTS scales how often, in
   percent. The answer's first line is `ID DIGEST TOKEN`, DIGEST being the CRC-32 of the target and the request's body; SIZE bytes of a pattern follow.

   The first line of output gives ports, and names of the kinds of answers. Each line of input is a question, answered by a line of JSON: what was accepted
   and is open, and when there were more than LIMIT connections to a host; `round` forgets what tries there were. DIRECTORY/log gets a record for each try. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HOSTS = 64, CONNECTIONS = 4096, HEAD = 16384, PATTERN = 1 << 20, PIECES = 24, OVERS = 4096 };
enum { MS = 1000000 };

/* Per 10,000 tries, at FAULTS = 100. Those for uploads are rolled first, where the body is over 8 KiB. */
#define KINDS(X) \
    X(plain, 0) X(chunked, 600) X(pieces, 300) X(delay, 200) X(long_delay, 8) X(drip, 50) X(interim, 200) X(says_close, 150) \
    X(quiet_close, 200) X(until_close, 60) X(leftover, 40) \
    X(close_before, 60) X(rst_before, 60) X(close_head, 40) X(rst_head, 40) X(close_body, 60) X(rst_body, 60) X(garbage, 30) \
    X(early_error, 800) X(early_answer, 800) X(close_upload, 200) X(rst_upload, 200) \
    X(slam, 0) X(violation, 0)
#define NAME(name, weight) #name,
#define ENUM(name, weight) K_##name,
#define WEIGHT(name, weight) weight,
static const char *const kinds[] = {KINDS(NAME)};
static const int weights[] = {KINDS(WEIGHT)};
enum { KINDS(ENUM) N_KINDS };
enum { SLAMS = 60 };                    /* of 10,000 connections */

struct record { uint32_t id, serial; uint16_t port, nth; uint8_t host, kind, method, attempt; };
enum { M_GET, M_HEAD, M_POST, M_PUT, M_DELETE, M_OTHER };
static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "DELETE"};

struct piece { size_t upto; long us; };         /* up to there, then wait */

struct conn {
    int fd, host, events;
    void *ssl;
    uint32_t serial;
    uint16_t port, nth;
    int64_t due;                        /* when the next piece goes, or the connection; 0: nothing is waited for */
    /* the request */
    char in[HEAD];
    size_t used;
    int body, chunk, whole;             /* in its body; the state of a chunked one; all was read */
    uint64_t left, seen, kill_at;
    uint32_t crc, id, size, token_len;
    int method, kind, upload;
    char token[64];
    uint64_t dice;
    /* the answer */
    int answering, sent, doomed;        /* doomed: closes quietly when due */
    char *out;
    size_t out_at, out_size, out_cap;
    struct piece pieces[PIECES];
    int n_pieces, at_piece;
    int lingering;
};

static struct conn *conns[CONNECTIONS];
static int listeners[HOSTS], ports[HOSTS], n_open[HOSTS], n_hosts, n_tls, limit, top;
static uint64_t seed, serial, accepted[HOSTS];
static double faults;
static uint8_t *tries;
static uint32_t n_ids;
static char pattern[PATTERN];
static uint32_t crc_table[256];
static FILE *tape;
static int epoll;
static struct over { int host, peak; int64_t since, until; } overs[OVERS];
static int n_overs, over_of[HOSTS];      /* index + 1 of a host's running one */

static void fatal(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static uint64_t mix(uint64_t x)         /* splitmix64's finalizer */
{
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static uint32_t roll(struct conn *c, uint32_t n)         /* 0 to n - 1 */
{
    c->dice = mix(c->dice);
    return (uint32_t)((c->dice >> 32) * n >> 32);
}

static uint32_t crc32_of(uint32_t crc, const char *p, size_t n)
{
    crc = ~crc;
    while (n--)
        crc = crc_table[(crc ^ (uint8_t)*p++) & 255] ^ (crc >> 8);
    return ~crc;
}

/* --- TLS: libssl by name, so that nothing but a C compiler is needed --- */

static void *tls_context;
static void *(*f_new)(void *);
static int (*f_set_fd)(void *, int), (*f_read)(void *, void *, int), (*f_write)(void *, const void *, int), (*f_error)(const void *, int), (*f_shutdown)(void *);
static void (*f_accepts)(void *), (*f_free)(void *), (*f_clear)(void);

static void *symbol(void *lib, const char *name)
{
    void *found = dlsym(lib, name);
    if (found == NULL) {
        fprintf(stderr, "libssl.so.3 has no %s\n", name);
        exit(1);
    }
    return found;
}

static void tls_load(const char *directory)
{
    char chain[4096], key[4096];
    void *lib = dlopen("libssl.so.3", RTLD_NOW);
    if (lib == NULL) {
        fprintf(stderr, "%s (--tls 0 does without)\n", dlerror());
        exit(1);
    }
    *(void **)&f_new = symbol(lib, "SSL_new");
    *(void **)&f_set_fd = symbol(lib, "SSL_set_fd");
    *(void **)&f_read = symbol(lib, "SSL_read");
    *(void **)&f_write = symbol(lib, "SSL_write");
    *(void **)&f_error = symbol(lib, "SSL_get_error");
    *(void **)&f_shutdown = symbol(lib, "SSL_shutdown");
    *(void **)&f_accepts = symbol(lib, "SSL_set_accept_state");
    *(void **)&f_free = symbol(lib, "SSL_free");
    *(void **)&f_clear = symbol(lib, "ERR_clear_error");
    void *(*method)(void), *(*context)(void *);
    int (*use_chain)(void *, const char *), (*use_key)(void *, const char *, int);
    long (*ctrl)(void *, int, long, void *);
    *(void **)&method = symbol(lib, "TLS_server_method");
    *(void **)&context = symbol(lib, "SSL_CTX_new");
    *(void **)&use_chain = symbol(lib, "SSL_CTX_use_certificate_chain_file");
    *(void **)&use_key = symbol(lib, "SSL_CTX_use_PrivateKey_file");
    *(void **)&ctrl = symbol(lib, "SSL_CTX_ctrl");
    snprintf(chain, sizeof chain, "%s/chain.pem", directory);
    snprintf(key, sizeof key, "%s/key.pem", directory);
    tls_context = context(method());
    if (use_chain(tls_context, chain) != 1 || use_key(tls_context, key, 1) != 1) {
        fprintf(stderr, "no certificate in %s\n", directory);
        exit(1);
    }
    ctrl(tls_context, 33, 1 | 2, NULL);         /* SSL_CTRL_MODE: partial writes, from a buffer that moves */
}

/* Bytes; 0 at the end; -1: not now; -2: broken. */
static ssize_t get(struct conn *c, void *p, size_t n)
{
    if (c->ssl == NULL) {
        ssize_t r = recv(c->fd, p, n, 0);
        return r >= 0 ? r : errno == EAGAIN || errno == EINTR ? -1 : -2;
    }
    f_clear();
    int r = f_read(c->ssl, p, (int)n);
    if (r > 0)
        return r;
    int e = f_error(c->ssl, r);
    return e == 2 || e == 3 ? -1 : e == 6 ? 0 : -2;        /* want read, want write; zero return */
}

static ssize_t put(struct conn *c, const void *p, size_t n)
{
    if (c->ssl == NULL) {
        ssize_t r = send(c->fd, p, n, MSG_NOSIGNAL);
        return r >= 0 ? r : errno == EAGAIN || errno == EINTR ? -1 : -2;
    }
    f_clear();
    int r = f_write(c->ssl, p, (int)n);
    if (r > 0)
        return r;
    int e = f_error(c->ssl, r);
    return e == 2 || e == 3 ? -1 : -2;
}

/* --- connections --- */

static void note(struct conn *c, int kind, uint32_t id, int attempt)
{
    struct record r = {id, c->serial, c->port, c->nth, (uint8_t)c->host, (uint8_t)kind, (uint8_t)c->method, (uint8_t)attempt};
    if (fwrite(&r, sizeof r, 1, tape) != 1)
        fatal("log");
}

static void drop(struct conn *c)
{
    if (c->ssl != NULL)
        f_free(c->ssl);
    close(c->fd);
    n_open[c->host]--;
    c->fd = -1;
    free(c->out);
    c->out = NULL;
}

static void reset(struct conn *c)
{
    struct linger now = {1, 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    drop(c);
}

static void farewell(struct conn *c)         /* an end in order */
{
    if (c->ssl != NULL)
        f_shutdown(c->ssl);
    drop(c);
}

static void watch(struct conn *c, int slot, int events)
{
    if (c->events == events)
        return;
    struct epoll_event event = {.events = (uint32_t)events, .data.u32 = (uint32_t)slot};
    if (epoll_ctl(epoll, c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &event) < 0)
        fatal("epoll_ctl");
    c->events = events;
}

/* How many connections to `host` the other side has open now, as far as the kernel knows. */
static int alive(int host)
{
    int n = 0;
    for (int i = 0; i < top; i++) {
        struct conn *c = conns[i];
        if (c->fd < 0 || c->host != host)
            continue;
        struct pollfd p = {c->fd, POLLRDHUP, 0};
        n += poll(&p, 1, 0) == 0;
    }
    return n;
}

static void look_for_overs(int host, int64_t now)
{
    int running = over_of[host];
    if (!running && n_open[host] <= limit)
        return;
    int n = alive(host);
    if (n > limit && !running && n_overs < OVERS) {
        overs[n_overs] = (struct over){host, n, now, 0};
        over_of[host] = ++n_overs;
    } else if (running) {
        struct over *o = &overs[running - 1];
        if (n > o->peak)
            o->peak = n;
        if (n <= limit) {
            o->until = now;
            over_of[host] = 0;
        }
    }
}

static void take(int host)
{
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    int one = 1, slot = 0, fd = accept4(listeners[host], (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    while (slot < top && conns[slot]->fd >= 0)
        slot++;
    if (slot == CONNECTIONS) {
        fprintf(stderr, "too many connections\n");
        exit(1);
    }
    if (slot == top && (conns[top++] = malloc(sizeof(struct conn))) == NULL)
        fatal("malloc");
    struct conn *c = conns[slot];
    memset(c, 0, offsetof(struct conn, in));
    memset((char *)c + offsetof(struct conn, used), 0, sizeof *c - offsetof(struct conn, used));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->fd = fd;
    c->host = host;
    c->serial = (uint32_t)++serial;
    c->port = ntohs(peer.sin_port);
    accepted[host]++;
    n_open[host]++;
    look_for_overs(host, now_ns());
    c->dice = mix(seed ^ mix(serial << 20));
    if (roll(c, 10000) < SLAMS * faults) {
        note(c, K_slam, UINT32_MAX, 0);
        if (roll(c, 2))
            reset(c);
        else
            drop(c);
        return;
    }
    if (host >= n_hosts - n_tls) {
        if ((c->ssl = f_new(tls_context)) == NULL)
            fatal("SSL_new");
        f_set_fd(c->ssl, fd);
        f_accepts(c->ssl);
    }
    watch(c, slot, EPOLLIN);
}

/* --- answers --- */

static void more(struct conn *c, size_t n)
{
    if (c->out_size + n <= c->out_cap)
        return;
    c->out_cap = (c->out_size + n) * 2;
    if ((c->out = realloc(c->out, c->out_cap)) == NULL)
        fatal("realloc");
}

static void add(struct conn *c, const char *p, size_t n)
{
    more(c, n);
    memcpy(c->out + c->out_size, p, n);
    c->out_size += n;
}

__attribute__((format(printf, 2, 3))) static void say(struct conn *c, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    add(c, line, (size_t)n);
}

static void cut(struct conn *c, size_t upto, long us)
{
    size_t last = c->n_pieces ? c->pieces[c->n_pieces - 1].upto : 0;
    if (upto > last && upto < c->out_size && c->n_pieces < PIECES - 1)
        c->pieces[c->n_pieces++] = (struct piece){upto, us};
}

/* Puts the whole answer, and when to send what of it, into `c`. */
static void compose(struct conn *c)
{
    int kind = c->kind, error = kind == K_early_error, early = error || kind == K_early_answer, has_body = c->method != M_HEAD;
    char first[128];
    int n_first = snprintf(first, sizeof first, "%u %08x %.*s\n", c->id, c->crc, (int)c->token_len, c->token);
    size_t size = (size_t)n_first + c->size, head, offset = c->id % 4096;
    int chunked = kind == K_chunked || (kind == K_pieces && c->id % 2) || (kind == K_close_body && c->id % 2) || (kind == K_rst_body && c->id % 2);
    c->out_size = c->out_at = 0;
    c->n_pieces = c->at_piece = 0;
    c->answering = 1;
    c->sent = 0;
    if (kind == K_interim)
        for (uint32_t i = roll(c, 3) + 1; i > 0; i--) {
            say(c, roll(c, 2) ? "HTTP/1.1 103 Early Hints\r\nLink: </%u>\r\n\r\n" : "HTTP/1.1 102 Processing\r\nX-Interim: %u\r\n\r\n", c->id);
            cut(c, c->out_size - 1, 0);
        }
    if (kind == K_garbage)
        say(c, roll(c, 2) ? "HTTP/1.1 2000 OK\r\n" : "\x16\x03\x01 what is this\r\n");
    say(c, "HTTP/1.1 %s\r\nX-Id: %u\r\nX-Digest: %08x\r\n", error ? "413 Too much" : "200 OK", c->id, c->crc);
    if (early)
        say(c, "X-Early: yes\r\n");
    if (kind == K_says_close || error || kind == K_until_close)
        say(c, "Connection: close\r\n");
    if (chunked)
        say(c, "Transfer-Encoding: chunked\r\n\r\n");
    else if (kind == K_until_close)
        say(c, "\r\n");
    else
        say(c, "Content-Length: %zu\r\n\r\n", size);
    head = c->out_size;
    if (has_body && !chunked) {
        add(c, first, (size_t)n_first);
        add(c, pattern + offset, c->size);
    } else if (has_body) {
        size_t at = 0;
        while (at < size) {
            size_t n = 1 + roll(c, roll(c, 4) ? 4000 : 20), k = 0;
            if (size > 50000)
                n *= 10;
            if (n > size - at)
                n = size - at;
            say(c, roll(c, 8) ? "%zx\r\n" : "%zX;ext=\"a b\"\r\n", n);
            for (; k < n && at + k < (size_t)n_first; k++)
                add(c, first + at + k, 1);
            if (k < n)
                add(c, pattern + offset + at + k - (size_t)n_first, n - k);
            at += n;
            add(c, "\r\n", 2);
        }
        say(c, roll(c, 3) ? "0\r\n\r\n" : "0\r\nX-Trailer: %u\r\n\r\n", c->id);
    }
    if (kind == K_leftover)
        add(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong", 43);
    if (kind == K_close_head || kind == K_rst_head)
        c->out_size = 1 + roll(c, (uint32_t)head - 1);
    if (kind == K_close_body || kind == K_rst_body)
        c->out_size = has_body ? head + roll(c, (uint32_t)(c->out_size - head)) : 1 + roll(c, (uint32_t)head - 1);
    if (kind == K_close_before || kind == K_rst_before)
        c->out_size = 0;
    if (kind == K_pieces || kind == K_drip || (kind == K_chunked && roll(c, 2))) {
        uint32_t n = kind == K_drip ? 12 : 2 + roll(c, 5);
        for (uint32_t i = 1; i <= n; i++)
            cut(c, c->out_size * i / (n + 1) + roll(c, 7), kind == K_drip ? 500 + roll(c, 2500) : roll(c, 2) ? 0 : roll(c, 300));
    }
    if ((kind == K_rst_head || kind == K_rst_body || kind == K_close_body) && roll(c, 2) && c->out_size > 1)
        cut(c, c->out_size - 1, 500);           /* so that some of it is read before the connection breaks */
    c->pieces[c->n_pieces++] = (struct piece){c->out_size, 0};
    long wait = kind == K_delay ? 500 + roll(c, 20000) : kind == K_long_delay ? 100000 + roll(c, 300000) : 0;
    if (wait)
        c->due = now_ns() + wait * 1000;
}

static int ended(struct conn *c, int slot);

/* Sends what may go now. 0: the connection is gone. */
static int push(struct conn *c, int slot)
{
    while (c->answering && !c->sent && c->due == 0) {
        struct piece *p = &c->pieces[c->at_piece];
        while (c->out_at < p->upto) {
            ssize_t r = put(c, c->out + c->out_at, p->upto - c->out_at);
            if (r == -1) {
                watch(c, slot, EPOLLIN | EPOLLOUT);
                return 1;
            }
            if (r < 0) {
                drop(c);
                return 0;
            }
            c->out_at += (size_t)r;
        }
        if (p->us)
            c->due = now_ns() + p->us * 1000;
        if (++c->at_piece == c->n_pieces)
            c->sent = 1;
    }
    watch(c, slot, EPOLLIN);
    return c->sent ? ended(c, slot) : 1;
}

/* The answer is out. 0: the connection is gone. */
static int ended(struct conn *c, int slot)
{
    switch (c->kind) {
    case K_rst_before: case K_rst_head: case K_rst_body:
        reset(c);
        return 0;
    case K_close_before: case K_close_head: case K_close_body:
        if (c->id % 3)
            farewell(c);
        else
            drop(c);
        return 0;
    case K_says_close: case K_until_close: case K_garbage:
        farewell(c);
        return 0;
    case K_quiet_close:
        if (c->id % 2) {
            farewell(c);
            return 0;
        }
        c->doomed = 1;
        c->due = now_ns() + roll(c, 5000) * 1000LL;
        break;
    case K_early_error:
        if (!c->whole && !c->lingering) {
            if (c->ssl != NULL)
                f_shutdown(c->ssl);
            shutdown(c->fd, SHUT_WR);
            c->lingering = 1;
            c->due = now_ns() + 2000LL * MS;
        }
        if (!c->whole)
            return 1;
        farewell(c);
        return 0;
    }
    if (!c->whole)
        return 1;
    c->answering = c->body = c->sent = 0;       /* the next request may come */
    (void)slot;
    return 1;
}

/* --- requests --- */

static int pick(struct conn *c, int upload)
{
    double r = roll(c, 1000000) / 100.0;
    for (int kind = upload ? K_early_error : K_chunked; kind < (upload ? K_slam : K_early_error); kind++) {
        r -= weights[kind] * faults;
        if (r < 0)
            return kind;
    }
    return K_plain;
}

static const char *field(const char *head, const char *name)
{
    const char *at = strcasestr(head, name);
    return at == NULL ? NULL : at + strlen(name);
}

/* The head at the start of `in` is complete, and a string. 0: nonsense. */
static int begin(struct conn *c)
{
    char *space = strchr(c->in, ' '), *target = space + 1, *end, *slash;
    if (space == NULL || (end = strchr(target, ' ')) == NULL || *target != '/')
        return 0;
    c->method = M_OTHER;
    for (int i = 0; i < M_OTHER; i++)
        if ((size_t)(space - c->in) == strlen(methods[i]) && memcmp(c->in, methods[i], (size_t)(space - c->in)) == 0)
            c->method = i;
    c->id = (uint32_t)strtoul(target + 1, &slash, 10);
    if (*slash != '/' || c->id >= n_ids)
        return 0;
    c->size = (uint32_t)strtoul(slash + 1, &slash, 10);
    if (*slash != '/' || c->size > PATTERN - 4096 || (c->token_len = (uint32_t)(end - slash - 1)) > sizeof c->token)
        return 0;
    memcpy(c->token, slash + 1, c->token_len);
    c->crc = crc32_of(0, target, (size_t)(end - target));
    const char *length = field(c->in, "\r\ncontent-length:");
    c->chunk = length == NULL && field(c->in, "\r\ntransfer-encoding: chunked") != NULL ? 1 : 0;
    c->left = length != NULL ? strtoull(length, NULL, 10) : 0;
    c->body = 1;
    c->whole = !c->chunk && c->left == 0;
    c->seen = 0;
    c->nth++;
    int attempt = tries[c->id] < 255 ? tries[c->id]++ : 255;
    c->dice = mix(seed ^ mix((uint64_t)c->id << 8 | (uint64_t)attempt));
    c->upload = c->chunk || c->left > 8192;
    c->kind = c->upload ? pick(c, 1) : K_plain;
    if (c->kind == K_plain)
        c->kind = pick(c, 0);
    c->kill_at = c->kind == K_close_upload || c->kind == K_rst_upload ? roll(c, c->left ? (uint32_t)c->left : 4000) : UINT64_MAX;
    note(c, c->kind, c->id, attempt);
    return 1;
}

/* Reads `n` bytes of the body at `p`; how many were the body's, -1: nonsense. */
static ssize_t feed(struct conn *c, const char *p, size_t n)
{
    size_t at = 0;
    while (at < n && !c->whole) {
        if (c->chunk == 0 || c->chunk == 2) {           /* data */
            size_t some = n - at < c->left ? n - at : (size_t)c->left;
            c->crc = crc32_of(c->crc, p + at, some);
            at += some;
            c->left -= some;
            c->seen += some;
            if (c->left == 0 && c->chunk == 0)
                c->whole = 1;
            else if (c->left == 0)
                c->chunk = 3;
            continue;
        }
        const char *newline = memchr(p + at, '\n', n - at);
        if (newline == NULL)
            break;                              /* a line stays in the buffer until it is whole */
        if (c->chunk == 1) {
            c->left = strtoull(p + at, NULL, 16);
            c->chunk = c->left ? 2 : 4;
        } else if (c->chunk == 3) {
            if (newline != p + at + 1)
                return -1;
            c->chunk = 1;
        } else if (newline == p + at + 1)
            c->whole = 1;
        at = (size_t)(newline + 1 - p);
    }
    return (ssize_t)at;
}

/* What `in` has. 0: the connection is gone. */
static int process(struct conn *c, int slot)
{
again:
    if (!c->body) {
        char *end = memmem(c->in, c->used, "\r\n\r\n", 4);
        if (end == NULL && c->used < HEAD)
            return 1;
        if (end != NULL)
            end[2] = 0;
        c->doomed = 0;
        c->due = 0;
        if (end == NULL || !begin(c)) {
            note(c, K_violation, UINT32_MAX, 0);
            drop(c);
            return 0;
        }
        c->used -= (size_t)(end + 4 - c->in);
        memmove(c->in, end + 4, c->used);
        if (c->kind == K_early_error || c->kind == K_early_answer) {
            compose(c);
            if (!push(c, slot))
                return 0;
        }
    }
    ssize_t n = feed(c, c->in, c->used);
    if (n >= 0) {
        c->used -= (size_t)n;
        memmove(c->in, c->in + n, c->used);
    }
    if (n < 0 || (c->whole && c->used && !c->sent)) {           /* nonsense, or a request before the last one was answered */
        note(c, K_violation, c->id, 1);
        drop(c);
        return 0;
    }
    if (c->seen >= c->kill_at) {
        if (c->kind == K_rst_upload)
            reset(c);
        else
            drop(c);
        return 0;
    }
    if (!c->whole)
        return 1;
    if (c->sent) {                                              /* early; the next request may be here already */
        if (!ended(c, slot))
            return 0;
        if (c->used)
            goto again;
        return 1;
    }
    if (c->answering)
        return 1;
    compose(c);
    return push(c, slot);
}

static void receive(struct conn *c, int slot)
{
    for (;;) {
        ssize_t n = get(c, c->in + c->used, HEAD - c->used);
        if (n == -1)
            return;
        if (n <= 0) {
            drop(c);
            return;
        }
        if (c->answering && c->whole) {
            note(c, K_violation, c->id, 2);             /* it speaks while it is to listen */
            drop(c);
            return;
        }
        c->used += (size_t)n;
        if (!process(c, slot))
            return;
    }
}

static void expire(struct conn *c, int slot)
{
    c->due = 0;
    if (c->lingering || c->doomed) {
        farewell(c);
        return;
    }
    push(c, slot);
}

/* --- questions --- */

static void list(const char *name, const uint64_t *of, const int *or)
{
    printf("\"%s\": [", name);
    for (int i = 0; i < n_hosts; i++)
        printf("%s%llu", i ? ", " : "", of != NULL ? (unsigned long long)of[i] : (unsigned long long)or[i]);
    printf("], ");
}

static void answer(void)
{
    char line[64];
    ssize_t n = read(0, line, sizeof line - 1);
    if (n <= 0)
        exit(0);
    line[n] = 0;
    if (fflush(tape))
        fatal("log");
    printf("{");
    list("accepted", accepted, NULL);
    list("open", NULL, n_open);
    printf("\"overs\": [");
    int kept = 0;
    for (int i = 0; i < n_overs; i++)
        printf("%s[%d, %d, %lld, %lld]", i ? ", " : "", overs[i].host, overs[i].peak, (long long)overs[i].since, (long long)overs[i].until);
    if (strncmp(line, "round", 5) == 0) {
        memset(tries, 0, n_ids);
        for (int i = 0; i < n_overs; i++)
            if (overs[i].until == 0) {
                overs[kept] = overs[i];
                over_of[overs[i].host] = ++kept;
            }
        n_overs = kept;
        seed = mix(seed);
        if (ftruncate(fileno(tape), 0) || fseek(tape, 0, SEEK_SET))
            fatal("log");
    }
    printf("]}\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc != 8) {
        fprintf(stderr, "usage: server DIRECTORY HOSTS TLS LIMIT SEED FAULTS IDS\n");
        return 2;
    }
    n_hosts = atoi(argv[2]);
    n_tls = atoi(argv[3]);
    limit = atoi(argv[4]);
    seed = mix(strtoull(argv[5], NULL, 10));
    faults = atof(argv[6]) / 100;
    n_ids = (uint32_t)strtoul(argv[7], NULL, 10);
    tries = calloc(n_ids, 1);
    char path[4096];
    snprintf(path, sizeof path, "%s/log", argv[1]);
    if (n_hosts < 1 || n_hosts > HOSTS || n_tls > n_hosts || tries == NULL || (tape = fopen(path, "wb")) == NULL)
        fatal(path);
    setvbuf(tape, NULL, _IOFBF, 1 << 20);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t x = i;
        for (int bit = 0; bit < 8; bit++)
            x = x & 1 ? x >> 1 ^ 0xedb88320 : x >> 1;
        crc_table[i] = x;
    }
    for (size_t i = 0; i < PATTERN; i++)
        pattern[i] = (char)(i * 2654435761u >> 15);
    if (n_tls)
        tls_load(argv[1]);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    printf("{\"ports\": [");
    for (int i = 0; i < n_hosts; i++) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t length = sizeof address;
        int fd = listeners[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)(CONNECTIONS + i)};
        if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, 1024) < 0 || getsockname(fd, (struct sockaddr *)&address, &length) < 0
            || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            fatal("listen");
        ports[i] = ntohs(address.sin_port);
        printf("%s%d", i ? ", " : "", ports[i]);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = CONNECTIONS + HOSTS};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event) < 0)
        fatal("epoll_ctl");
    printf("], \"kinds\": [");
    for (int i = 0; i < N_KINDS; i++)
        printf("%s\"%s\"", i ? ", " : "", kinds[i]);
    printf("]}\n");
    fflush(stdout);

    for (;;) {
        struct epoll_event events[256];
        int64_t next = INT64_MAX, now = now_ns();
        int over = 0;
        for (int i = 0; i < top; i++)
            if (conns[i]->fd >= 0 && conns[i]->due && conns[i]->due < next)
                next = conns[i]->due;
        for (int i = 0; i < n_hosts; i++)
            if (over_of[i])
                over = 1;
        int wait = next == INT64_MAX ? -1 : next <= now ? 0 : (int)((next - now + MS - 1) / MS);
        int n = epoll_wait(epoll, events, 256, over && (wait < 0 || wait > 1) ? 1 : wait);
        if (n < 0 && errno != EINTR)
            fatal("epoll_wait");
        for (int i = 0; i < n; i++) {
            uint32_t slot = events[i].data.u32;
            if (slot == CONNECTIONS + HOSTS)
                answer();
            else if (slot >= CONNECTIONS)
                take((int)slot - CONNECTIONS);
            else {
                struct conn *c = conns[slot];
                if (c->fd < 0)
                    continue;           /* dropped by an event before this one */
                if (events[i].events & EPOLLOUT && c->answering && !push(c, (int)slot))
                    continue;
                if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                    receive(c, (int)slot);
            }
        }
        now = now_ns();
        for (int i = 0; i < top; i++)
            if (conns[i]->fd >= 0 && conns[i]->due && conns[i]->due <= now)
                expire(conns[i], i);
        for (int i = 0; i < n_hosts; i++)
            if (over_of[i])
                look_for_overs(i, now_ns());
    }
}
