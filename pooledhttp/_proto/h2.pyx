"""HTTP/2 (RFC 9113) sans I/O, by libnghttp2, which holds the peer to the protocol; what it lets pass goes through HTTP/1's own parser of heads."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy

from pooledhttp._core.compat cimport (
    EINTR, c_pread, errno, ph_add_int, ph_gil_releases, ph_load_int, ph_now, ph_or_int, ph_rouse, pthread_mutex_destroy, pthread_mutex_init,
    pthread_mutex_lock, pthread_mutex_unlock,
)
from pooledhttp._core.runtime cimport Wake, wake_drop, wake_hold, wake_signal
from pooledhttp._core.status cimport ST_EOF, ST_H1, ST_PROTO, ST_UNDONE
from pooledhttp._proto.nghttp2 cimport *

cdef enum:
    CONNECTION_WINDOW = 16777216
    BLOCK = 32768
    ROOM = 100                   # until the peer says how many streams it allows
    QUIET_MAX = 1000             # frames that say nothing of any stream, within
    QUIET_NS = 10_000_000_000

cdef int _streams = 0


# --- memory ----------------------------------------------------------------------------------------------------------------

cdef int text_add(Text* t, const char* p, size_t n) noexcept nogil:
    cdef size_t cap
    cdef char* grown
    if n == 0:
        return 0
    if t.n + n > t.cap:
        cap = t.cap * 2 if t.cap else 512
        while cap < t.n + n:
            cap *= 2
        grown = <char*>realloc(t.p, cap)
        if grown == NULL:
            return -1
        t.p = grown
        t.cap = cap
    memcpy(t.p + t.n, p, n)
    t.n += n
    return 0


cdef H2Stream* h2_stream() noexcept nogil:
    cdef H2Stream* s = <H2Stream*>calloc(1, sizeof(H2Stream))
    if s != NULL:
        s.refs = 1
        s.file_fd = -1
        pthread_mutex_init(&s.m, NULL)
        ph_add_int(&_streams, 1)
    return s


cdef void h2_hold(H2Stream* s) noexcept nogil:
    ph_add_int(&s.refs, 1)


cdef void h2_drop(H2Stream* s) noexcept nogil:
    cdef Block* b
    if ph_add_int(&s.refs, -1) != 0:
        return
    while s.first != NULL:
        b = s.first
        s.first = b.next
        free(b)
    free(s.text.p)
    free(s.nv)
    free(s.tail.p)
    free(s.head.p)
    free(s.trailers.p)
    pthread_mutex_destroy(&s.m)
    free(s)
    ph_add_int(&_streams, -1)


cdef void h2_ring(H2Stream* s) noexcept nogil:
    cdef Wake* w
    if ph_or_int(&s.bell, NEWS) & NEWS or not ph_load_int(&s.waits):
        return
    pthread_mutex_lock(&s.m)
    w = s.wake
    if w != NULL:
        wake_hold(w)                     # its thread may end at any time
    pthread_mutex_unlock(&s.m)
    if w != NULL:
        wake_signal(w)
        wake_drop(w)
    else:
        ph_rouse(&s.bell)


# --- the request -----------------------------------------------------------------------------------------------------------

cdef inline char _lower(char c) noexcept nogil:
    return c + 32 if 65 <= c <= 90 else c


cdef bint _is(const char* p, size_t n, const char* word, size_t m) noexcept nogil:
    return n == m and memcmp(p, word, m) == 0


cdef bint _of_connection(const char* name, size_t n, const char* value, size_t m) noexcept nogil:
    # RFC 9113 section 8.2.2; the name is in lower case.
    if n == 10:
        return _is(name, n, b"connection", 10) or _is(name, n, b"keep-alive", 10)
    if n == 2:
        return _is(name, n, b"te", 2) and not _is(value, m, b"trailers", 8)
    return _is(name, n, b"host", 4) or _is(name, n, b"upgrade", 7) or _is(name, n, b"proxy-connection", 16) or _is(name, n, b"transfer-encoding", 17)


cdef size_t _fields(nghttp2_nv* nv, char* p, size_t n) noexcept nogil:
    # Field lines, in place: names in lower case. nv NULL: only count.
    cdef size_t i = 0, end, colon, lo, hi, count = 0
    while i < n:
        end = i
        while end < n and p[end] != 10:
            end += 1
        colon = i
        while colon < end and p[colon] != 58:
            if nv != NULL:
                p[colon] = _lower(p[colon])
            colon += 1
        lo = colon + 1
        hi = end
        while hi > lo and (p[hi - 1] == 13 or p[hi - 1] == 32 or p[hi - 1] == 9):
            hi -= 1
        while lo < hi and (p[lo] == 32 or p[lo] == 9):
            lo += 1
        if colon < end and colon > i:
            if nv == NULL:
                count += 1
            elif not _of_connection(p + i, colon - i, p + lo, hi - lo):
                nv[count].name = <uint8_t*>(p + i)
                nv[count].namelen = colon - i
                nv[count].value = <uint8_t*>(p + lo)
                nv[count].valuelen = hi - lo
                nv[count].flags = 0
                count += 1
        i = end + 1
    return count


cdef inline void _pair(nghttp2_nv* nv, const char* name, size_t n, const char* value, size_t m) noexcept nogil:
    nv.name = <uint8_t*>name
    nv.namelen = n
    nv.value = <uint8_t*>value
    nv.valuelen = m
    nv.flags = 0


cdef int h2_request(H2Stream* s, Part method, Part target, Part authority, Part fields, bint secure) noexcept nogil:
    cdef char* p
    if (text_add(&s.text, method.p, method.n) or text_add(&s.text, target.p, target.n) or text_add(&s.text, authority.p, authority.n)
            or text_add(&s.text, fields.p, fields.n)):
        return -1
    p = s.text.p
    s.nv = <nghttp2_nv*>malloc((4 + _fields(NULL, p + method.n + target.n + authority.n, fields.n)) * sizeof(nghttp2_nv))
    if s.nv == NULL:
        return -1
    _pair(&s.nv[0], b":method", 7, p, method.n)
    _pair(&s.nv[1], b":scheme", 7, b"https" if secure else b"http", 5 if secure else 4)
    _pair(&s.nv[2], b":authority", 10, p + method.n + target.n, authority.n)
    _pair(&s.nv[3], b":path", 5, p + method.n, target.n)
    s.n_nv = 4 + _fields(s.nv + 4, p + method.n + target.n + authority.n, fields.n)
    return 0


cdef ssize_t _read_upload(nghttp2_session* ng, int32_t id, uint8_t* buf, size_t room, uint32_t* flags, nghttp2_data_source* source, void* ud) noexcept nogil:
    cdef bint ring = False
    cdef H2* h = <H2*>ud
    cdef H2Stream* s = <H2Stream*>source.ptr
    cdef size_t n = 0, take
    cdef ssize_t r
    cdef Part* part
    pthread_mutex_lock(&s.m)
    if s.detached or s.held:
        pthread_mutex_unlock(&s.m)
        if ring:
            h2_ring(s)
        return NGHTTP2_ERR_DEFERRED
    while n < room and s.at_part < s.n_parts:
        part = &s.parts[s.at_part]
        take = room - n if room - n < part.n else part.n
        memcpy(buf + n, part.p, take)
        part.p += take
        part.n -= take
        n += take
        if part.n == 0:
            s.at_part += 1
    if s.at_part == s.n_parts and s.file_left > 0 and n < room and not s.file_err:
        take = room - n if <uint64_t>(room - n) < s.file_left else <size_t>s.file_left
        while True:
            r = c_pread(s.file_fd, buf + n, take, s.file_at)
            if r >= 0 or errno != EINTR:
                break
        if r > 0:
            s.file_at += r
            s.file_left -= r
            n += r
        else:
            s.file_err = errno + 1 if r < 0 else 1
            ring = True
    if n:
        s.moved = h.now
    if s.at_part == s.n_parts and s.file_left == 0:
        if s.more:
            s.wanted = 1
            ring = True
        else:
            flags[0] |= NGHTTP2_DATA_FLAG_EOF
            if s.tail.n and _submit_tail(h, s) == 0:
                flags[0] |= NGHTTP2_DATA_FLAG_NO_END_STREAM
    pthread_mutex_unlock(&s.m)
    if ring:
        h2_ring(s)
    return n if n or flags[0] & NGHTTP2_DATA_FLAG_EOF else NGHTTP2_ERR_DEFERRED


cdef int _submit_tail(H2* h, H2Stream* s) noexcept nogil:
    cdef size_t n = _fields(NULL, s.tail.p, s.tail.n)
    cdef nghttp2_nv* nv
    cdef int r
    if n == 0:
        return -1
    nv = <nghttp2_nv*>malloc(n * sizeof(nghttp2_nv))
    if nv == NULL:
        return -1
    n = _fields(nv, s.tail.p, s.tail.n)
    r = nghttp2_submit_trailer(h.ng, s.id, nv, n)
    free(nv)
    return r


cdef int h2_submit(H2* h, H2Stream* s) noexcept nogil:
    cdef nghttp2_data_provider upload
    cdef int32_t id
    upload.source.ptr = <void*>s
    upload.read_callback = _read_upload
    id = nghttp2_submit_request(h.ng, NULL, s.nv, s.n_nv, &upload if s.has_body else NULL, <void*>s) if not h.goaway else -1
    if id < 0:
        if id == NGHTTP2_ERR_NOMEM:
            return -1
        h.goaway = 1                      # no more ids, or a GOAWAY is under way: on another connection
        pthread_mutex_lock(&s.m)
        s.fail = ST_UNDONE
        s.closed = 1
        pthread_mutex_unlock(&s.m)
        h2_ring(s)
        return 0
    s.id = id
    s.live = 1
    h2_hold(s)
    s.next = h.live
    if h.live != NULL:
        h.live.prev = s
    h.live = s
    return 0


cdef void _unlive(H2* h, H2Stream* s) noexcept nogil:
    if not s.live:
        return
    s.live = 0
    if s.prev != NULL:
        s.prev.next = s.next
    else:
        h.live = s.next
    if s.next != NULL:
        s.next.prev = s.prev
    s.prev = s.next = NULL
    h2_drop(s)


cdef void h2_cancel(H2* h, H2Stream* s) noexcept nogil:
    if s.live:
        nghttp2_submit_rst_stream(h.ng, NGHTTP2_FLAG_NONE, s.id, NGHTTP2_CANCEL)


cdef void h2_refund(H2* h, H2Stream* s) noexcept nogil:
    cdef size_t n
    pthread_mutex_lock(&s.m)
    n = s.took
    s.took = 0
    pthread_mutex_unlock(&s.m)
    if n and s.live:
        nghttp2_session_consume_stream(h.ng, s.id, n)


cdef void h2_resume(H2* h, H2Stream* s) noexcept nogil:
    if s.live:
        nghttp2_session_resume_data(h.ng, s.id)


# --- what the peer says ----------------------------------------------------------------------------------------------------

cdef inline H2Stream* _of(nghttp2_session* ng, int32_t id) noexcept nogil:
    return <H2Stream*>nghttp2_session_get_stream_user_data(ng, id)


cdef int _on_begin_frame(nghttp2_session* ng, const nghttp2_frame_hd* hd, void* ud) noexcept nogil:
    # PING, SETTINGS, PRIORITY, empty DATA: each costs its sender nothing, and us an answer or our time.
    cdef H2* h = <H2*>ud
    if hd.type == NGHTTP2_DATA and (hd.length > 0 or hd.flags & NGHTTP2_FLAG_END_STREAM):
        h.quiet = 0                       # a server that measures the path sends a PING for each round trip of a body
        return 0
    if hd.type == NGHTTP2_HEADERS or hd.type == NGHTTP2_RST_STREAM or hd.type == NGHTTP2_WINDOW_UPDATE or hd.type == NGHTTP2_GOAWAY:
        return 0
    if h.now - h.quiet_since > <int64_t>QUIET_NS:
        h.quiet_since = h.now
        h.quiet = 0
    h.quiet += 1
    if h.quiet > QUIET_MAX:
        h.err = BR_H2_FLOOD
        return NGHTTP2_ERR_CALLBACK_FAILURE
    return 0


cdef int _on_begin_headers(nghttp2_session* ng, const nghttp2_frame* frame, void* ud) noexcept nogil:
    cdef H2Stream* s = _of(ng, frame.hd.stream_id)
    if s != NULL:
        s.heard = (<H2*>ud).now
    return 0


cdef int _on_header(nghttp2_session* ng, const nghttp2_frame* frame, const uint8_t* name, size_t n, const uint8_t* value, size_t m, uint8_t flags,
                    void* ud) noexcept nogil:
    cdef H2* h = <H2*>ud
    cdef H2Stream* s = _of(ng, frame.hd.stream_id)
    cdef Text* t
    cdef int r = 0
    if s == NULL:
        return 0
    pthread_mutex_lock(&s.m)
    s.head_total += n + m + 32
    if s.head_total > h.max_head:
        s.fail = ST_PROTO                 # a small frame can stand for a large head: the connection ends
        s.err = BR_H2_HEAD
        r = NGHTTP2_ERR_CALLBACK_FAILURE
    elif not s.detached:
        t = &s.trailers if s.final else &s.head
        if n == 7 and name[0] == 58:      # :status, the only one
            if m == 3 and value[0] == 49:
                r = text_add(t, b"HTTP/1.1 100 ", 13) or text_add(t, <const char*>value, m) or text_add(t, b"\r\n", 2)
            else:
                r = text_add(t, b"HTTP/1.1 ", 9) or text_add(t, <const char*>value, m) or text_add(t, b" \r\n", 3)
        else:
            r = text_add(t, <const char*>name, n) or text_add(t, b": ", 2) or text_add(t, <const char*>value, m) or text_add(t, b"\r\n", 2)
        if r:
            r = NGHTTP2_ERR_CALLBACK_FAILURE
    pthread_mutex_unlock(&s.m)
    return r


cdef int _on_frame_recv(nghttp2_session* ng, const nghttp2_frame* frame, void* ud) noexcept nogil:
    cdef bint ring = False
    cdef H2* h = <H2*>ud
    cdef H2Stream* s
    cdef size_t at
    cdef int r = 0
    if frame.hd.type == NGHTTP2_HEADERS or frame.hd.type == NGHTTP2_DATA:
        s = _of(ng, frame.hd.stream_id)
        if s == NULL:
            return 0
        pthread_mutex_lock(&s.m)
        s.heard = h.now
        if frame.hd.type == NGHTTP2_HEADERS and not s.final and not s.detached:
            at = s.head_ready
            r = text_add(&s.head, b"\r\n", 2)
            s.head_ready = s.head.n
            if s.head.n - at < 12 or s.head.p[at + 9] != 49:
                s.final = 1
            ring = True
        if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
            s.ended = 1
            ring = True
        elif s.got and s.want_n == 0 or s.got and not s.bulk:
            ring = True
        pthread_mutex_unlock(&s.m)
        if ring:
            h2_ring(s)
        return NGHTTP2_ERR_CALLBACK_FAILURE if r else 0
    if frame.hd.type == NGHTTP2_RST_STREAM:
        s = _of(ng, frame.hd.stream_id)
        if s != NULL:
            s.reset = 1
    elif frame.hd.type == NGHTTP2_SETTINGS:
        if not frame.hd.flags & NGHTTP2_FLAG_ACK:
            r = nghttp2_session_get_remote_settings(ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS) & 0x7fffffff
            h.room = r if r < 1000 else 1000
            h.settled = 1
    elif frame.hd.type == NGHTTP2_GOAWAY:
        h.goaway = h.gone = 1
        if frame.goaway.error_code == NGHTTP2_HTTP_1_1_REQUIRED:
            h.no_h2 = 1
    elif frame.hd.type == NGHTTP2_PING and frame.hd.flags & NGHTTP2_FLAG_ACK:
        h.pinged = 0
    return 0


cdef int _on_invalid_frame(nghttp2_session* ng, const nghttp2_frame* frame, int error, void* ud) noexcept nogil:
    # It answers with RST_STREAM, or ends the connection. A server that breaks the one rule may break others: no more of it.
    cdef H2* h = <H2*>ud
    cdef H2Stream* s = _of(ng, frame.hd.stream_id) if frame.hd.stream_id > 0 else NULL
    h.goaway = 1
    if s != NULL:
        pthread_mutex_lock(&s.m)
        s.fail = ST_PROTO
        s.err = BR_H2_MESSAGE
        pthread_mutex_unlock(&s.m)
        h2_ring(s)
    return 0


cdef int _on_data(nghttp2_session* ng, uint8_t flags, int32_t id, const uint8_t* data, size_t n, void* ud) noexcept nogil:
    cdef H2* h = <H2*>ud
    cdef H2Stream* s = _of(ng, id)
    cdef size_t take, consumed = 0
    cdef Block* b
    cdef bint fine = True
    nghttp2_session_consume_connection(ng, n)        # who does not read holds up nobody else
    if s == NULL:
        nghttp2_session_consume_stream(ng, id, n)
        return 0
    pthread_mutex_lock(&s.m)
    s.heard = h.now
    if s.detached:
        consumed = n
        n = 0
    elif s.want_n and s.first == NULL:
        take = n if n < s.want_n else s.want_n
        memcpy(s.want_p, data, take)
        s.want_p += take
        s.want_n -= take
        s.got += take
        data += take
        n -= take
        consumed = take
    while n > 0 and fine:
        b = s.last
        if b == NULL or b.at + b.n == BLOCK:
            b = <Block*>malloc(sizeof(Block) + BLOCK)
            if b == NULL:
                fine = False
                break
            b.next = NULL
            b.at = b.n = 0
            if s.last != NULL:
                s.last.next = b
            else:
                s.first = b
            s.last = b
        take = BLOCK - b.at - b.n
        if take > n:
            take = n
        memcpy(<char*>b + sizeof(Block) + b.at + b.n, data, take)
        b.n += take
        data += take
        n -= take
    pthread_mutex_unlock(&s.m)
    if consumed:
        nghttp2_session_consume_stream(ng, id, consumed)
    return 0 if fine else NGHTTP2_ERR_CALLBACK_FAILURE


cdef int _on_frame_send(nghttp2_session* ng, const nghttp2_frame* frame, void* ud) noexcept nogil:
    cdef bint ring = False
    cdef H2Stream* s
    cdef H2* h = <H2*>ud
    if frame.hd.type != NGHTTP2_HEADERS and frame.hd.type != NGHTTP2_DATA:
        return 0
    if frame.hd.type == NGHTTP2_DATA:
        h.quiet = 0                       # and of an upload
    s = _of(ng, frame.hd.stream_id)
    if s == NULL:
        return 0
    pthread_mutex_lock(&s.m)
    s.begun = 1
    if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
        s.sent = 1
        s.t_sent = h.now
        if s.has_body:
            ring = True
    pthread_mutex_unlock(&s.m)
    if ring:
        h2_ring(s)
    return 0


cdef int _on_close(nghttp2_session* ng, int32_t id, uint32_t code, void* ud) noexcept nogil:
    cdef H2* h = <H2*>ud
    cdef H2Stream* s = _of(ng, id)
    if s == NULL:
        return 0
    pthread_mutex_lock(&s.m)
    s.closed = 1
    if s.fail:
        pass
    elif code == NGHTTP2_REFUSED_STREAM:             # by RST_STREAM, or above what GOAWAY names
        s.fail = ST_H1 if h.no_h2 else ST_UNDONE
    elif code == NGHTTP2_HTTP_1_1_REQUIRED:
        h.goaway = h.no_h2 = 1
        s.fail = ST_H1
    elif not s.ended:                    # after a whole answer it only says that the upload may stop
        s.fail = ST_PROTO
        s.err = H2_RESET + (<int>code if code < 14 else 14)
        if not s.reset and not s.detached:       # by us: what came does not fit together
            s.err = BR_H2_MESSAGE
            h.goaway = 1
        if code == NGHTTP2_ENHANCE_YOUR_CALM:
            h.goaway = 1
            s.fail = ST_EOF if not s.final else ST_PROTO
    pthread_mutex_unlock(&s.m)
    h2_ring(s)
    _unlive(h, s)
    return 0


# --- the session -----------------------------------------------------------------------------------------------------------

cdef int h2_open(H2* h, size_t max_head) noexcept nogil:
    cdef nghttp2_session_callbacks* cb = NULL
    cdef nghttp2_option* option = NULL
    cdef nghttp2_settings_entry entries[3]
    cdef int r
    h.max_head = max_head
    h.room = ROOM
    if nghttp2_session_callbacks_new(&cb) or nghttp2_option_new(&option):
        nghttp2_session_callbacks_del(cb)
        return -1
    nghttp2_session_callbacks_set_on_begin_frame_callback(cb, _on_begin_frame)
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, _on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback(cb, _on_header)
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, _on_frame_recv)
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, _on_invalid_frame)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, _on_data)
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, _on_close)
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, _on_frame_send)
    nghttp2_option_set_no_auto_window_update(option, 1)
    nghttp2_option_set_peer_max_concurrent_streams(option, ROOM)
    r = nghttp2_session_client_new2(&h.ng, cb, <void*>h, option)
    nghttp2_session_callbacks_del(cb)
    nghttp2_option_del(option)
    if r:
        return -1
    entries[0].settings_id = NGHTTP2_SETTINGS_ENABLE_PUSH
    entries[0].value = 0
    entries[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    entries[1].value = STREAM_WINDOW
    entries[2].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
    entries[2].value = <uint32_t>(max_head if max_head < 0x7fffffff else 0x7fffffff)
    if (nghttp2_submit_settings(h.ng, NGHTTP2_FLAG_NONE, entries, 3)
            or nghttp2_session_set_local_window_size(h.ng, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW)):
        return -1
    return 0


cdef void h2_close(H2* h) noexcept nogil:
    if h.ng != NULL:
        nghttp2_session_del(h.ng)
        h.ng = NULL


cdef int h2_feed(H2* h, const char* p, size_t n) noexcept nogil:
    h.now = ph_now()
    if nghttp2_session_mem_recv(h.ng, <const uint8_t*>p, n) < 0:
        return -1
    if not nghttp2_session_check_request_allowed(h.ng):
        if not h.gone and nghttp2_session_get_next_stream_id(h.ng) <= 0x7fffffff:
            h.broke = 1
        h.goaway = 1
    return 0


cdef ssize_t h2_frames(H2* h, const uint8_t** p) noexcept nogil:
    cdef ssize_t r = nghttp2_session_mem_send(h.ng, p)
    if r == 0 and not nghttp2_session_want_read(h.ng) and not nghttp2_session_want_write(h.ng):
        return -1
    return r if r >= 0 else -1


cdef bint h2_owes(H2* h) noexcept nogil:
    return nghttp2_session_want_write(h.ng) != 0


cdef int h2_ping(H2* h) noexcept nogil:
    h.pinged = 1
    return nghttp2_submit_ping(h.ng, NGHTTP2_FLAG_NONE, NULL)


cdef void h2_goodbye(H2* h) noexcept nogil:
    nghttp2_submit_goaway(h.ng, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL, 0)     # RFC 9113 section 6.8; without memory it is not said


cdef void h2_fail(H2* h, int status, int err) noexcept nogil:
    cdef H2Stream* s
    while h.live != NULL:
        s = h.live
        pthread_mutex_lock(&s.m)
        s.closed = 1
        if not s.fail and not s.ended:
            s.fail = status
            s.err = err
        pthread_mutex_unlock(&s.m)
        h2_ring(s)
        _unlive(h, s)


def version() -> str:
    """Of libnghttp2, as it is loaded."""
    return (<bytes>nghttp2_version(0).version_str).decode()


def live() -> dict:
    """Live objects, for the tests' teardown."""
    return {"streams": ph_load_int(&_streams)}


def gil_releases() -> int:
    return ph_gil_releases()
