"""HTTP/2 exchanges, each on a stream: what is sent, what is read, and what becomes of the connection."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pooledhttp import Client, Context, errors
from tests.exchange.support import closed, until
from tests.support.frames import (
    CANCEL,
    DATA,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    INTERNAL_ERROR,
    MAX_CONCURRENT_STREAMS,
    NO_ERROR,
    RST_STREAM,
    Frames,
)
from tests.support.peer import Conn, Peer

MakePeer = Callable[..., Peer]
MakeClient = Callable[..., Client]


def test_a_request_as_it_is_sent(peer: MakePeer, h2c: MakeClient) -> None:
    seen = []

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        while True:
            stream, fields, body = h2.request()
            seen.append((list(h2.heads[stream]), body))
            h2.answer(stream, b"fine", fields=[("x-answer", "a"), ("x-answer", "b")])

    server = peer(script)
    client = h2c()
    r = client.post(server.url("/p?q=1"), content=b"body", headers={"X-Up": "Yes", "TE": "trailers"})
    assert (r.http_version, r.status_code, r.reason, r.content) == ("HTTP/2", 200, "OK", b"fine")
    assert r.headers.get_list("X-Answer") == ["a", "b"]
    client.get(server.url("/g"), headers={"Connection": "keep-alive", "Keep-Alive": "timeout=5", "Proxy-Connection": "x", "TE": "gzip"})
    (post, body), (get, _) = seen
    assert post[:4] == [(":method", "POST"), (":scheme", "http"), (":authority", f"127.0.0.1:{server.port}"), (":path", "/p?q=1")]
    names = [name for name, _ in post]
    assert ("x-up", "Yes") in post and ("content-length", "4") in post and ("te", "trailers") in post and body == b"body"
    assert len(names) == len(set(names)) and all(name == name.lower() for name in names)
    assert not {name for name, _ in get} & {"host", "connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"}
    assert client.transport.stats().opened == 1


@pytest.mark.parametrize("n", [2, 16, 64])
def test_threads_share_a_connection(peer: MakePeer, h2c: MakeClient, n: int) -> None:
    """All are under way at once: none is answered before the last has come."""

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        h2.answer(h2.request()[0], b"first")
        while True:
            streams = [(stream, h2.heads[stream]) for stream in h2.requests(n)]
            for stream, fields in reversed(streams):
                h2.answer(stream, dict(fields)[":path"].encode())

    server = peer(script)
    client = h2c()
    assert client.get(server.url("/")).content == b"first"
    with ThreadPoolExecutor(n) as pool:
        for _ in range(5):
            got = list(pool.map(lambda k: client.get(server.url(f"/{k}")).content, range(n)))
            assert got == [b"/%d" % k for k in range(n)]
    stats = client.transport.stats()
    assert (stats.opened, stats.requests, server.accepted) == (1, 5 * n + 1, 1)


def test_the_servers_limit_of_streams(peer: MakePeer, h2c: MakeClient) -> None:
    """One connection until it is full, then another, up to http2_max_conns_per_host; then the rest waits its turn."""
    under_way: dict[int, int] = {}
    most: list[int] = []
    go = threading.Event()

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn, [(MAX_CONCURRENT_STREAMS, 3)])
        h2.answer(h2.request()[0])
        if i == 0:
            h2.answer(h2.request()[0])
        while True:
            streams = []
            for _ in range(3):
                streams.append(h2.request()[0])
                under_way[i] = len(streams)
                most.append(len(streams))
            go.wait(10)
            for stream in streams:
                under_way[i] -= 1
                h2.answer(stream, b"x")

    server = peer(script)
    client = h2c(http2_max_conns_per_host=1)
    client.get(server.url("/"))
    client.get(server.url("/"))            # the limit is known
    with ThreadPoolExecutor(9) as pool:
        answers = [pool.submit(client.get, server.url("/")) for _ in range(9)]
        until(lambda: client.transport.stats().waiting == 6 and under_way.get(0) == 3)
        go.set()
        assert [a.result().content for a in answers] == [b"x"] * 9
    assert max(most) == 3 and server.accepted == 1


def test_a_second_connection_where_the_first_is_full(peer: MakePeer, h2c: MakeClient) -> None:
    release = threading.Event()

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn, [(MAX_CONCURRENT_STREAMS, 2)])
        if i == 0:
            h2.answer(h2.request()[0])
            h2.answer(h2.request()[0])
        held = []
        while True:
            held.append(h2.request()[0])
            if len(held) == 2 or release.is_set():
                release.wait(10)
                for stream in held:
                    h2.answer(stream, b"x")
                held = []

    server = peer(script)
    client = h2c(http2_max_conns_per_host=3)
    client.get(server.url("/"))
    client.get(server.url("/"))
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(client.get, server.url("/")) for _ in range(8)]
        until(lambda: server.accepted == 3 and client.transport.stats().waiting == 2)
        release.set()
        assert [a.result().content for a in answers] == [b"x"] * 8
    assert client.transport.stats().opened == 3


def test_bodies_of_all_sizes(peer: MakePeer, h2c: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        while True:
            stream, fields, _ = h2.request()
            n, known = fields[":path"][1:].split("-")
            body = bytes(i % 251 for i in range(int(n)))
            h2.headers(stream, [(":status", "200"), *([("content-length", n)] if known == "known" else [])], end=not body)
            if body:
                h2.data(stream, body, end=True)

    client = h2c()
    server = peer(script)
    for n in (0, 1, 16384, 16385, 65000, 81000, 82000, 200_000, 1_000_000):
        for known in ("known", "unknown"):
            want = bytes(i % 251 for i in range(n))
            assert client.get(server.url(f"/{n}-{known}")).content == want
            with client.stream("GET", server.url(f"/{n}-{known}")) as r:
                assert b"".join(r.iter_bytes(7001)) == want
    assert client.transport.stats().opened == 1


def test_the_window_opens_as_a_body_is_read(peer: MakePeer, h2c: MakeClient) -> None:
    """8 MiB, and the server never sends more than it may."""
    size = 8 << 20

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        stream = h2.request()[0]
        h2.headers(stream, [(":status", "200")])
        sent = 0
        own, whole = (1 << 20), 65535
        while sent < size:
            while sent + 16384 > min(own + h2.credit.get(stream, 0), whole + h2.credit.get(0, 0)):
                h2.read()
            h2.data(stream, b"x" * 16384)
            sent += 16384
        h2.data(stream, b"", end=True)
        h2.drain()

    client = h2c()
    with client.stream("GET", peer(script).url("/")) as r:
        assert sum(map(len, r.iter_bytes())) == size


def test_a_slow_reader_holds_up_nobody(peer: MakePeer, h2c: MakeClient) -> None:
    """Twenty bodies of which each fills its window and is not read, more than the connection's window together; others go on."""

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        for _ in range(20):
            stream = h2.request()[0]
            h2.headers(stream, [(":status", "200")])
            for _ in range(64):
                while 65535 + h2.credit.get(0, 0) < 16384:
                    h2.read()
                h2.data(stream, b"x" * 16384)
                h2.credit[0] = h2.credit.get(0, 0) - 16384
        while True:
            h2.answer(h2.request()[0], b"fine")

    client = h2c()
    server = peer(script)
    left = [client.request("GET", server.url("/"), stream=True) for _ in range(20)]
    for _ in range(20):
        assert client.get(server.url("/")).content == b"fine"
    for r in left:
        r.close()
    until(lambda: client.transport.stats().active == 0)
    assert closed(client.transport.stats()) == {}


def test_uploads(peer: MakePeer, h2c: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn, [(INITIAL_WINDOW_SIZE, 1 << 24)])
        h2.send(8, 0, 0, (1 << 24).to_bytes(4, "big"))
        while True:
            stream, fields, body = h2.request()
            h2.answer(stream, body or b"none", fields=[("x-length", fields.get("content-length", "-"))])

    client = h2c()
    server = peer(script)
    big = bytes(range(256)) * 4000
    for content, length in ((b"abc", "3"), (big, str(len(big))), ((big[i:i + 1000] for i in range(0, len(big), 1000)), "-"),
                            ([big[:10], big[10:]], str(len(big))), (iter([]), "-")):
        r = client.post(server.url("/"), content=content)
        assert (r.headers["x-length"], r.content) == (length, big if length != "3" and r.content != b"none" else r.content)
    assert client.transport.stats().opened == 1


def test_an_upload_waits_for_the_window(peer: MakePeer, h2c: MakeClient) -> None:
    """The first 64 KiB, then as the server allows; a small request passes meanwhile."""

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        while sum(map(len, h2.bodies.values())) < 65535:
            h2.read()
        (upload,) = h2.bodies
        small = h2.request()[0]
        h2.answer(small, b"small")
        for _ in range(8):
            for stream in (0, upload):
                h2.send(8, 0, stream, (20_000).to_bytes(4, "big"))
        h2.until(DATA, upload)
        while len(h2.bodies[upload]) < 200_000:
            h2.read()
        h2.answer(upload, b"large")
        h2.drain()

    client = h2c()
    server = peer(script)
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(client.put, server.url("/"), content=b"x" * 200_000)
        server.wait_for(lambda p: p.conns and len(p.conns[0].received) > 65535)
        assert client.get(server.url("/")).content == b"small"
        assert large.result().content == b"large"


def test_an_early_answer_stops_the_upload(peer: MakePeer, h2c: MakeClient) -> None:
    """RST_STREAM NO_ERROR behind a whole answer is a success (RFC 9113 section 8.1); so is an error that comes before the upload's end."""

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        h2.until(HEADERS)
        h2.answer(1, b"enough", 200)
        h2.reset(1, NO_ERROR)
        h2.until(HEADERS, 3)
        h2.answer(3, b"no", 403)
        h2.until(RST_STREAM, 3)
        h2.answer(h2.request()[0], b"next")
        h2.drain()

    client = h2c()
    server = peer(script)
    for want in ((200, b"enough"), (403, b"no")):
        r = client.post(server.url("/"), content=bytes(1 << 20))
        assert (r.status_code, r.content) == want
    assert client.get(server.url("/")).content == b"next"
    assert client.transport.stats().opened == 1


def test_interim_answers_and_trailers(peer: MakePeer, new_client: MakeClient) -> None:
    told = []

    class Follower:
        def got_1xx(self, status: int, fields: object) -> None:
            told.append((status, fields))

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        stream = h2.request()[0]
        h2.headers(stream, [(":status", "103"), ("link", "</a>")])
        h2.headers(stream, [(":status", "200")])
        h2.data(stream, b"body")
        h2.headers(stream, [("x-sum", "1"), ("x-sum", "2")], end=True)
        h2.drain()

    client = new_client(http2="prior-knowledge", trace=Follower())
    r = client.get(peer(script).url("/"))
    assert (r.content, r.trailers.multi_items()) == (b"body", [("x-sum", "1"), ("x-sum", "2")])
    assert told == [(103, [("link", "</a>")])]


def test_trailers_are_sent(peer: MakePeer, h2c: MakeClient) -> None:
    heads = []

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        stream, _, body = h2.request()
        heads.append((h2.heads[stream], body))
        h2.answer(stream)
        h2.drain()

    class Body:
        trailers = {"X-Sum": "3"}

        def __iter__(self) -> object:
            return iter([b"a", b"bc"])

    assert h2c().post(peer(script).url("/"), content=Body()).status_code == 200
    assert heads[0][0][-1] == ("x-sum", "3") and heads[0][1] == b"abc"


def test_expect(peer: MakePeer, h2c: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        kind, flags, stream, _ = h2.until(HEADERS)
        assert not flags & END_STREAM
        h2.headers(stream, [(":status", "100")])
        h2.request()
        h2.answer(stream, h2.bodies[stream])
        stream = h2.until(HEADERS)[2]
        h2.answer(stream, b"no", 413)
        h2.until(RST_STREAM, stream)
        assert stream not in h2.bodies
        h2.drain()

    client = h2c(expect_continue_timeout=30)
    server = peer(script)
    assert client.post(server.url("/"), content=b"asked for", headers={"Expect": "100-continue"}).content == b"asked for"
    assert client.post(server.url("/"), content=b"not wanted", headers={"Expect": "100-continue"}).status_code == 413
    assert client.transport.stats().opened == 1


def test_head_and_bodiless(peer: MakePeer, h2c: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        while True:
            stream, fields, _ = h2.request()
            h2.answer(stream, status=int(fields[":path"][1:]), fields=[("content-length", "10")] if fields[":method"] == "HEAD" else [])

    client = h2c()
    server = peer(script)
    r = client.head(server.url("/200"))
    assert (r.headers["content-length"], r.content) == ("10", b"")
    for status in (204, 304, 404):
        assert client.get(server.url(f"/{status}")).status_code == status


def test_what_ends_a_stream_leaves_the_connection(peer: MakePeer, h2c: MakeClient) -> None:
    """A deadline, a cancel and an early close reset the stream (RST_STREAM CANCEL), and no more."""
    resets: list[dict[int, int]] = []

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        resets.append(h2.resets)
        while True:
            stream, fields, _ = h2.request()
            if fields[":path"] == "/fine":
                h2.answer(stream, b"fine")
            elif fields[":path"] == "/body":
                h2.headers(stream, [(":status", "200")])
                h2.data(stream, b"x" * 100)

    client = h2c()
    server = peer(script)
    with pytest.raises(errors.DeadlineExceeded):
        client.get(server.url("/never"), timeout=0.1)
    context = Context()
    with ThreadPoolExecutor(1) as pool:
        cancelled = pool.submit(client.get, server.url("/never"), context=context)
        until(lambda: client.transport.stats().active == 1)
        context.cancel("enough")
        with pytest.raises(errors.Cancelled, match="enough"):
            cancelled.result()
    with client.stream("GET", server.url("/body")) as r:
        assert len(next(r.iter_bytes(100))) == 100
    with pytest.raises(errors.DeadlineExceeded):
        client.get(server.url("/body"), timeout=0.1)
    assert client.get(server.url("/fine")).content == b"fine"
    until(lambda: len(resets[0]) == 4)
    assert set(resets[0].values()) == {CANCEL}
    stats = client.transport.stats()
    assert (stats.opened, closed(stats)) == (1, {})


def test_a_deadline_is_kept_on_time(peer: MakePeer, h2c: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        h2.answer(h2.request()[0])
        h2.drain()

    client = h2c()
    server = peer(script)
    client.get(server.url("/"))

    def one(_: int) -> float:
        began = time.monotonic()
        with pytest.raises(errors.DeadlineExceeded):
            client.get(server.url("/"), timeout=0.3)
        return time.monotonic() - began

    with ThreadPoolExecutor(5) as pool:
        took = sorted(pool.map(one, range(5)))
    assert took[0] >= 0.3 and took[2] < 0.4, took


def test_the_limits_of_silence_are_each_streams_own(peer: MakePeer, h2c: MakeClient) -> None:
    """One stream's bytes are not the other's."""

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        h2.answer(h2.request()[0])
        a, b = h2.requests(2)
        h2.headers(a, [(":status", "200")])
        h2.headers(b, [(":status", "200")])
        silent, talking = (a, b) if dict(h2.heads[a])[":path"] == "/silent" else (b, a)
        for _ in range(10):
            h2.data(talking, b"x")
            time.sleep(0.06)              # what a talking server is
        h2.data(talking, b"x", end=True)
        h2.drain()

    from pooledhttp import Timeout

    client = h2c()
    server = peer(script)
    client.get(server.url("/"))
    with ThreadPoolExecutor(2) as pool:
        silent = pool.submit(client.get, server.url("/silent"), timeout=Timeout(read=0.3))
        talking = pool.submit(client.get, server.url("/talking"), timeout=Timeout(read=0.3))
        assert talking.result().content == b"x" * 11
        with pytest.raises(errors.ReadTimeout):
            silent.result()


def test_a_reset_is_an_error_of_the_stream(peer: MakePeer, h2c: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        h2.reset(h2.request()[0], INTERNAL_ERROR)
        stream = h2.request()[0]
        h2.headers(stream, [(":status", "200")])
        h2.data(stream, b"half")
        h2.reset(stream, INTERNAL_ERROR)
        h2.answer(h2.request()[0], b"fine")
        h2.drain()

    client = h2c()
    server = peer(script)
    for phase in ("headers", "body"):
        with pytest.raises(errors.RemoteProtocolError, match="INTERNAL_ERROR") as e:
            client.get(server.url("/"))
        assert e.value.phase == phase
    assert client.get(server.url("/")).content == b"fine"
    assert client.transport.stats().opened == 1


def test_a_read_is_ended_by_close_from_another_thread(peer: MakePeer, h2c: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        stream = h2.request()[0]
        h2.headers(stream, [(":status", "200")])
        h2.until(RST_STREAM, stream)
        h2.answer(h2.request()[0], b"fine")
        h2.drain()

    client = h2c()
    server = peer(script)
    r = client.request("GET", server.url("/"), stream=True)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(r.read)
        time.sleep(0.05)                   # most often it is inside by then; what is asserted holds either way
        r.close()
        with pytest.raises(errors.StreamClosed):
            read.result()
    assert client.get(server.url("/")).content == b"fine"


def test_closing_the_transport_ends_all(peer: MakePeer, h2c: MakeClient) -> None:
    begun = threading.Semaphore(0)

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        while True:
            h2.request()
            begun.release()

    client = h2c()
    server = peer(script)
    with ThreadPoolExecutor(8) as pool:
        hung = [pool.submit(client.get, server.url("/")) for _ in range(8)]
        for _ in range(8):
            assert begun.acquire(timeout=10)
        client.transport.close(cancel=True)
        for one in hung:
            with pytest.raises(errors.Cancelled):
                one.result()
