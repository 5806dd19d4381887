"""How long a body is (RFC 9112 section 6.3), however the bytes come, and whether the connection may serve again (section 9.3)."""
from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import pytest

from pooledhttp import Client, Headers, RemoteProtocolError
from pooledhttp._conn.h1 import verdict_of
from pooledhttp._pool.stats import CLOSE_REASONS
from tests.exchange.support import closed, send_apart
from tests.support.peer import Conn, Peer, answering, chunked, respond
from tests.support.pyserver import pattern

Unix = Callable[..., tuple[Peer, Client]]
MakeClient = Callable[..., Client]


class Case(NamedTuple):
    name: str
    wire: bytes
    body: bytes = b""
    method: str = "GET"
    status: int = 200
    keep: bool = True            # the connection serves again
    ends: bool = False           # the server closes behind it
    trailers: tuple[tuple[str, str], ...] = ()
    version: str = "HTTP/1.1"
    headers: tuple[tuple[str, str], ...] = ()


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CASES = [
    Case("length", respond(b"hello"), b"hello"),
    Case("length-zero", respond(b"")),
    Case("length-leading-zeros", OK + b"Content-Length: 0005\r\n\r\nhello", b"hello"),
    Case("length-twice-equal", OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    Case("length-list-equal", OK + b"Content-Length: 5, 5\r\n\r\nhello", b"hello"),
    Case("no-reason", b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    Case("no-reason-no-space", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    Case("odd-status", respond(b"x", status=299), b"x", status=299),
    Case("status-above-599", respond(b"x", status=799), b"x", status=799),
    Case("latin-1", OK + b"X-Name: caf\xe9\r\nContent-Length: 1\r\n\r\nx", b"x", headers=(("X-Name", "caf\xe9"),)),
    Case("chunked", CHUNKED + chunked(b"hello ", b"world"), b"hello world"),
    Case("chunked-empty", CHUNKED + chunked()),
    Case("chunked-upper-case", OK + b"transfer-encoding: Chunked\r\n\r\n" + chunked(b"hello"), b"hello"),
    Case("chunked-hex", CHUNKED + b"00A\r\n0123456789\r\n000\r\n\r\n", b"0123456789"),
    Case("chunked-extensions", CHUNKED + b'5;a;b=c;d="e f"\r\nhello\r\n1;x\r\n!\r\n0;last\r\n\r\n', b"hello!"),
    Case("chunked-extension-of-quotes", CHUNKED + b'5;a="b\\"c;d"\r\nhello\r\n0\r\n\r\n', b"hello"),
    Case("chunked-trailers", CHUNKED + chunked(b"hello", trailers=b"X-Sum: 9\r\nX-Two: b\r\n"), b"hello",
         trailers=(("X-Sum", "9"), ("X-Two", "b"))),
    Case("chunked-trailers-alone", CHUNKED + chunked(trailers=b"X-Sum: 0\r\n"), trailers=(("X-Sum", "0"),)),
    Case("until-close", OK + b"\r\nhello", b"hello", keep=False, ends=True),
    Case("until-close-empty", OK + b"\r\n", keep=False, ends=True),
    Case("close-length", respond(b"hello", headers={"Connection": "close"}), b"hello", keep=False),
    Case("close-chunked", OK + b"Connection: foo, Close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"hello"), b"hello", keep=False),
    Case("head-length", OK + b"Content-Length: 5\r\n\r\n", method="HEAD"),
    Case("head-chunked", CHUNKED, method="HEAD"),
    Case("head-neither", OK + b"\r\n", method="HEAD"),
    Case("204", b"HTTP/1.1 204 No Content\r\n\r\n", status=204),
    Case("304-length", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n", status=304),
    Case("304-chunked", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", status=304),
    Case("100", b"HTTP/1.1 100 Continue\r\n\r\n" + respond(b"hello"), b"hello"),
    Case("100-with-fields", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" + respond(b"hello"), b"hello"),
    Case("103", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + respond(b"hello"), b"hello"),
    Case("1xx-several", b"HTTP/1.1 102 P\r\n\r\n" + b"HTTP/1.1 100 C\r\n\r\n" * 3 + b"HTTP/1.1 103 E\r\nLink: </a>\r\n\r\n" + respond(b"hello"), b"hello"),
    Case("1xx-as-many-as-may-be", b"HTTP/1.1 100 Continue\r\n\r\n" * 32 + respond(b"hello"), b"hello"),
    Case("100-before-chunked", b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED + chunked(b"hello"), b"hello"),
    Case("1.0", respond(b"hello", version="1.0"), b"hello", keep=False, version="HTTP/1.0"),
    Case("1.0-keep-alive", respond(b"hello", headers={"Connection": "Keep-Alive"}, version="1.0"), b"hello", version="HTTP/1.0"),
    Case("1.0-until-close", b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello", keep=False, ends=True, version="HTTP/1.0"),
    Case("1.0-keep-alive-until-close", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhello", b"hello", keep=False, ends=True, version="HTTP/1.0"),
    Case("obs-fold", OK + b"X-Long: one\r\n two\r\nContent-Length: 5\r\n\r\nhello", b"hello", headers=(("X-Long", "one two"),)),
    Case("obs-fold-chunked", OK + b"X-Long: one\r\n\ttwo\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"hello", trailers=b"T: 1\r\n"), b"hello",
         trailers=(("T", "1"),)),
    Case("obs-fold-until-close", OK + b"X-Long: one\r\n two\r\n\r\nhello", b"hello", keep=False, ends=True),
    Case("obs-fold-head", OK + b"X-Long: one\r\n two\r\nContent-Length: 5\r\n\r\n", method="HEAD"),
    Case("obs-fold-304", b"HTTP/1.1 304 N\r\nX-Long: one\r\n two\r\nContent-Length: 5\r\n\r\n", status=304),
    Case("obs-fold-1.0-keep-alive", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello", b"hello",
         version="HTTP/1.0"),
    Case("obs-fold-close", OK + b"Connection: close\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello", b"hello", keep=False),
    Case("bare-lf", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", b"hello"),
    Case("keep-alive-timeout-0", respond(b"x", headers={"Keep-Alive": "timeout=0"}), b"x", keep=False),
    Case("keep-alive-timeout-9", respond(b"x", headers={"Keep-Alive": "timeout=9, max=5"}), b"x"),
]
NEXT = respond(b"the next answer")


def serving(case: Case, deliver: Callable[[Conn, bytes], None]) -> Callable[[Conn, int], None]:
    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            if b"/case" not in head:
                conn.send(NEXT)
                continue
            deliver(conn, case.wire)
            if case.ends:
                return

    return script


def at_once(conn: Conn, data: bytes) -> None:
    conn.send(data)


def byte_by_byte(conn: Conn, data: bytes) -> None:
    send_apart(conn, data, [1] * len(data))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("deliver", [at_once, byte_by_byte], ids=["at-once", "byte-by-byte"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_response(unix: Unix, case: Case, deliver: Callable[[Conn, bytes], None], streamed: bool) -> None:
    peer, client = unix(serving(case, deliver))
    for _ in range(2):
        with client.stream(case.method, peer.url("/case")) if streamed else client.request(case.method, peer.url("/case")) as r:
            body = b"".join(r.iter_bytes()) if streamed else r.content
        assert (r.status_code, body, r.http_version) == (case.status, case.body, case.version)
        assert r.trailers == Headers(case.trailers)
        for name, value in case.headers:
            assert r.headers[name] == value
        after = client.get(peer.url("/next"))
        assert after.content == b"the next answer"
        assert r.conn is not None and after.conn is not None
        assert (after.conn.id == r.conn.id) == case.keep
    stats = client.transport.stats()
    assert (stats.open, stats.idle) == (1, 1)
    assert closed(stats) == ({} if case.keep else {"not_reusable": 2})


def test_every_split_of_a_chunked_body(unix: Unix) -> None:
    wire = CHUNKED + b"4\r\nWiki\r\n6;x=y\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nX-Sum: 9\r\n\r\n"
    start = len(CHUNKED) - 4

    def script(conn: Conn, i: int) -> None:
        for at in range(start, len(wire)):
            for second in (1, 3):
                conn.recv_request()
                send_apart(conn, wire, [at, second])

    peer, client = unix(script)
    for at in range(start, len(wire)):
        for second in (1, 3):
            r = client.get(peer.url())
            assert (r.content, r.trailers["x-sum"]) == (b"Wikipedia in \r\n\r\nchunks.", "9"), (at, second)
    assert peer.accepted == 1


SIZES = [1, 65535, 65536, 65537, 81919, 81920, 81921, 1 << 20]
SPLITS = ["length", "chunked", "chunked-small", "until-close", "obs-fold-length", "obs-fold-chunked", "obs-fold-until-close", "odd-chunk-late"]


def framed(body: bytes, how: str) -> bytes:
    fold = b"X: a\r\n b\r\n" if how.startswith("obs-fold") else b""
    kind = how.removeprefix("obs-fold-")
    if kind == "length":
        return OK + fold + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if kind == "until-close":
        return OK + fold + b"\r\n" + body
    head = OK + fold + b"Transfer-Encoding: chunked\r\n\r\n"
    if kind == "odd-chunk-late":
        half = len(body) // 2
        # A quoted quote in an extension is not plain: h11 goes on in the middle of the body.
        return head + chunked(body[:half])[:-5] + b'%x;odd="\\""\r\n%b\r\n0\r\n\r\n' % (len(body) - half, body[half:])
    step = 1000 if kind == "chunked-small" else 100_000
    return head + chunked(*(body[at:at + step] for at in range(0, len(body), step)))


@pytest.mark.parametrize("how", SPLITS)
def test_bodies_around_the_buffers_sizes(peer: Callable[..., Peer], client: Client, how: str) -> None:
    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            conn.send(framed(pattern(int(head.split(b" ")[1][1:])), how))
            if how.endswith("until-close"):
                return

    server = peer(script)
    for n in SIZES:
        assert client.get(server.url(f"/{n}")).content == pattern(n)
        with client.stream("GET", server.url(f"/{n}")) as r:
            assert b"".join(r.iter_bytes(7777)) == pattern(n)
        with client.stream("GET", server.url(f"/{n}")) as r:
            buffer, got = bytearray(n + 10), 0
            while k := r.readinto(memoryview(buffer)[got:]):
                got += k
            assert buffer[:got] == pattern(n)
    assert server.accepted == (3 * len(SIZES) if how.endswith("until-close") else 1)


@pytest.mark.parametrize("extra", [0, 1, 100, 4000])
def test_the_head_and_the_body_meet_at_the_buffers_end(peer: Callable[..., Peer], client: Client, extra: int) -> None:
    # Head and body together are just what a buffer holds, or a little less or more.
    bodies = []
    for n in range(81920 - 60 - extra, 81920 - 20 - extra):
        bodies.append(respond(pattern(n)))
    server = peer(answering(*bodies))
    for wire in bodies:
        assert client.get(server.url()).content == wire.partition(b"\r\n\r\n")[2]
    assert server.accepted == 1


@pytest.mark.parametrize("size", [60_000, 81_919, 81_920, 81_921, 300_000, 900_000])
@pytest.mark.parametrize("fold", [b"", b"X: a\r\n b\r\n"], ids=["plain", "obs-fold"])
def test_a_large_head(peer: Callable[..., Peer], client: Client, size: int, fold: bytes) -> None:
    line = b"X-Fill: " + b"f" * 990 + b"\r\n"
    head = OK + b"Content-Length: 70000\r\n" + fold + line * ((size - 200) // 1000)
    head += b"X-Rest: " + b"r" * (size - len(head) - 12) + b"\r\n\r\n"
    assert len(head) == size
    server = peer(answering(head + pattern(70000)))
    for _ in range(2):
        r = client.get(server.url())
        assert r.content == pattern(70000)
        assert len(r.headers.get_list("X-Fill")) == (size - 200) // 1000
        assert set(r.headers["X-Rest"]) == {"r"}
    assert server.accepted == 1


@pytest.mark.parametrize("fold", [b"", b"X: a\r\n b\r\n"], ids=["plain", "obs-fold"])
@pytest.mark.parametrize("limit", [200, 4096, 100_000])
def test_the_heads_limit_is_exact(peer: Callable[..., Peer], new_client: MakeClient, limit: int, fold: bytes) -> None:
    def head(size: int) -> bytes:
        start = OK + b"Content-Length: 2\r\n" + fold + b"X: "
        return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"

    server = peer(answering(head(limit) + b"ok", head(limit + 1) + b"ok"))
    client = new_client(max_response_header_bytes=limit)
    assert client.get(server.url()).content == b"ok"
    with pytest.raises(RemoteProtocolError, match=f"head is over the limit of {limit} bytes") as e:
        client.get(server.url())
    assert e.value.phase == "headers"
    assert closed(client.transport.stats()) == {"error": 1}


def test_an_endless_head_ends_at_the_limit(peer: Callable[..., Peer], new_client: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(OK)
        while True:
            conn.send(b"X: " + b"x" * 1000 + b"\r\n")

    with pytest.raises(RemoteProtocolError, match="over the limit"):
        new_client(max_response_header_bytes=300_000).get(peer(script).url())


@pytest.mark.timing           # h11 has to take a mebibyte of 103s
@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"], ids=["100", "103"])
def test_a_flood_of_interim_responses_ends(peer: Callable[..., Peer], client: Client, interim: bytes) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        while True:
            conn.send(interim * 10)

    with pytest.raises(RemoteProtocolError, match="interim") as e:
        client.get(peer(script).url())
    assert e.value.phase == "headers"
    assert closed(client.transport.stats()) == {"error": 1}


def test_large_interim_responses_are_bounded_together(peer: Callable[..., Peer], new_client: MakeClient) -> None:
    sent = []

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        for _ in range(30):
            conn.send(b"HTTP/1.1 100 Continue\r\nX: " + b"x" * 90_000 + b"\r\n\r\n")
            sent.append(1)
        conn.send(respond(b"hello"))

    with pytest.raises(RemoteProtocolError, match="interim"):
        new_client(max_response_header_bytes=100_000).get(peer(script).url())


EVIL = respond(b"evil")


@pytest.mark.parametrize("apart", [False, True], ids=["together", "later"])
@pytest.mark.parametrize("wire", [respond(b"mine"), CHUNKED + chunked(b"mine"), CHUNKED + chunked(b"mine", trailers=b"T: 1\r\n"),
                                  OK + b"X: a\r\n b\r\nContent-Length: 4\r\n\r\nmine", respond(pattern(200_000)), b"HTTP/1.1 204 No\r\n\r\n"],
                         ids=["length", "chunked", "trailers", "obs-fold", "large", "204"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_bytes_behind_the_answer_never_answer_the_next_request(unix: Unix, wire: bytes, apart: bool, streamed: bool) -> None:
    sent = threading.Event()

    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            if b"/first" in head:
                if apart:
                    send_apart(conn, wire, [])
                    conn.send(EVIL)
                else:
                    conn.send(wire + EVIL)
                sent.set()
            else:
                conn.send(NEXT)

    peer, client = unix(script)
    with client.stream("GET", peer.url("/first")) as r:
        if streamed:
            assert b"evil" not in b"".join(r.iter_bytes())
        else:
            assert b"evil" not in r.read()
    sent.wait(10)
    assert client.post(peer.url("/second")).content == b"the next answer"
    assert peer.accepted == 2
    reasons = closed(client.transport.stats())
    assert sum(reasons.values()) == 1
    assert set(reasons) <= {"not_reusable", "server_closed"}


VERDICTS = [
    ({}, None),
    ({"keep_alive_timeout": 5}, None),
    ({"keep_alive_timeout": 1}, None),
    ({"minor": 0, "conn_keep_alive": True}, None),
    ({"minor": 1, "conn_keep_alive": True}, None),
    ({"done": False}, "error"),
    ({"done": False, "conn_close": True}, "error"),
    ({"send_broke": True}, "not_reusable"),
    ({"leftover": True}, "not_reusable"),
    ({"asked_close": True}, "not_reusable"),
    ({"conn_close": True}, "not_reusable"),
    ({"conn_close": True, "conn_keep_alive": True}, "not_reusable"),
    ({"until_close": True}, "not_reusable"),
    ({"minor": 0}, "not_reusable"),
    ({"minor": 0, "conn_keep_alive": True, "until_close": True}, "not_reusable"),
    ({"minor": 0, "conn_keep_alive": True, "conn_close": True}, "not_reusable"),
    ({"keep_alive_timeout": 0}, "not_reusable"),
]


@pytest.mark.parametrize(("facts", "reason"), VERDICTS, ids=[",".join(facts) or "plain" for facts, _ in VERDICTS])
def test_the_reuse_verdict(facts: dict[str, int], reason: str | None) -> None:
    verdict = verdict_of(**facts)
    assert (None if verdict < 0 else CLOSE_REASONS[verdict]) == reason
