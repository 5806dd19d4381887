"""What a broken or hostile server sends: a clear error, that connection closed, and nothing of it in the next answer."""
from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

import pytest

from pooledhttp import Client, Error, ReadError, RemoteProtocolError, ResponseTooLarge
from tests.exchange.support import closed, send_apart
from tests.support.peer import Conn, Peer, answering, chunked, respond
from tests.support.pyserver import pattern

MakePeer = Callable[..., Peer]
MakeClient = Callable[..., Client]
Unix = Callable[..., tuple[Peer, Client]]
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class Bad(NamedTuple):
    name: str
    wire: bytes
    says: str
    phase: str = "headers"
    ends: bool = False            # the server closes behind it
    method: str = "GET"


BAD = [
    Bad("nothing", b"", "closed the connection without an answer", ends=True),
    Bad("one-byte", b"H", "in the middle of the response's head", ends=True),
    Bad("half-a-head", OK + b"Content-Le", "in the middle of the response's head", ends=True),
    Bad("half-a-head-for-h11", OK + b"X: a\r\n b\r\nContent-Le", "within the response's head, after 37 bytes|in the middle of the response's head", ends=True),
    Bad("only-100", b"HTTP/1.1 100 Continue\r\n\r\n", "in the middle of the response's head|without an answer|within the response's head", ends=True),
    Bad("only-103", b"HTTP/1.1 103 Early\r\n\r\n", "within the response's head, after 0 bytes", ends=True),
    Bad("not-http", b"SSH-2.0-OpenSSH_9.2\r\n", "bad status line: b'SSH-2.0-OpenSSH_"),
    Bad("tls-alert", b"\x15\x03\x03\x00\x02\x02\x46", "the server speaks TLS on this port: use https://"),
    Bad("html", b"<html><body>Hello</body></html>", "bad status line"),
    Bad("http-0.9", b"hello, world, this is the body", "bad status line"),
    Bad("version-2", b"HTTP/2.0 200 OK\r\n\r\n", "the server speaks HTTP/2.0"),
    Bad("version-9.9", b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n", "the server speaks HTTP/9.9"),
    Bad("version-1.2", b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n", "the server speaks HTTP/1.2"),
    Bad("lower-case", b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "bad status line"),
    Bad("status-of-two", b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", "bad status line"),
    Bad("status-of-four", b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", "bad status line"),
    Bad("status-of-letters", b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n", "bad status line"),
    Bad("status-000", b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n", "bad status line: b'HTTP/1.1 000 OK'"),
    Bad("101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "101"),
    Bad("length-twice", OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "[Cc]onflicting Content-Length"),
    Bad("length-list", OK + b"Content-Length: 5, 6\r\n\r\nhello!", "[Cc]onflicting Content-Length"),
    Bad("length-plus", OK + b"Content-Length: +5\r\n\r\nhello", "Content-Length"),
    Bad("length-minus", OK + b"Content-Length: -5\r\n\r\nhello", "Content-Length"),
    Bad("length-hex", OK + b"Content-Length: 0x5\r\n\r\nhello", "Content-Length"),
    Bad("length-fraction", OK + b"Content-Length: 5.0\r\n\r\nhello", "Content-Length"),
    Bad("length-empty", OK + b"Content-Length: \r\n\r\nhello", "Content-Length"),
    Bad("length-blank-within", OK + b"Content-Length: 5 5\r\n\r\nhello", "Content-Length"),
    Bad("length-overflow-63", OK + b"Content-Length: 9223372036854775808\r\n\r\nhello", "Content-Length is over 9223372036854775807: 9223372036854775808"),
    Bad("length-overflow-64", OK + b"Content-Length: 18446744073709551621\r\n\r\nhello", "Content-Length"),
    Bad("length-endless", OK + b"Content-Length: " + b"9" * 400 + b"\r\n\r\nhello", "Content-Length"),
    Bad("length-other-digits", OK + "Content-Length: \u0665\r\n\r\nhello".encode(), "Content-Length"),
    Bad("length-and-chunked", OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "both Content-Length and Transfer-Encoding"),
    Bad("chunked-and-length", OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "both Content-Length and Transfer-Encoding"),
    Bad("both-to-head", OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "both Content-Length", method="HEAD"),
    Bad("gzip-chunked", OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding"),
    Bad("identity", OK + b"Transfer-Encoding: identity\r\n\r\n", "Transfer-Encoding"),
    Bad("chunked-twice", OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding"),
    Bad("chunked-then-more", OK + b"Transfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n", "Transfer-Encoding"),
    Bad("xchunked", OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "a control character in field b'Transfer-Encoding'"),
    Bad("chunked-1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding in an HTTP/1.0 response"),
    Bad("field-without-colon", OK + b"Content-Length 5\r\n\r\nhello", "bad field line: b'Content-Length 5'"),
    Bad("blank-before-colon", OK + b"Content-Length : 5\r\n\r\nhello", "bad field line: b'Content-Length '"),
    Bad("empty-name", OK + b": 5\r\n\r\nhello", "bad field line: b''"),
    Bad("nul-in-value", OK + b"X: a\0b\r\nContent-Length: 0\r\n\r\n", "a control character in field b'X'"),
    Bad("cr-in-value", OK + b"X: a\rb\r\nContent-Length: 0\r\n\r\n", "a control character in field b'X'"),
    Bad("fold-first", OK + b" X: a\r\nContent-Length: 0\r\n\r\n", "a folded line before the first field"),
    Bad("chunk-size-letters", CHUNKED + b"xyz\r\nhello\r\n0\r\n\r\n", "bad chunk size: b'xyz'", "body"),
    Bad("chunk-size-minus", CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", "bad chunk size: b'-5'", "body"),
    Bad("chunk-size-plus", CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n", "bad chunk size: b'.5'", "body"),
    Bad("chunk-size-0x", CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", "bad chunk size: b'0x5'", "body"),
    Bad("chunk-size-empty", CHUNKED + b"\r\nhello\r\n0\r\n\r\n", "bad chunk size: b''", "body"),
    Bad("chunk-size-21-digits", CHUNKED + b"1" * 21 + b"\r\nhello\r\n0\r\n\r\n", "bad chunk size: b'1{21}'", "body"),
    Bad("chunk-size-overflow", CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n", "a chunk's size is over 9223372036854775807", "body"),
    Bad("chunk-too-long", CHUNKED + b"4\r\nhello\r\n0\r\n\r\n", "chunk", "body"),
    Bad("chunk-line-endless", CHUNKED + b"5;" + b"x" * 2_000_000, "over the limit", "body"),
    Bad("chunk-second-bad", CHUNKED + b"5\r\nhello\r\nzz\r\n", "bad chunk size: b'zz'", "body"),
    Bad("trailer-bad", CHUNKED + b"5\r\nhello\r\n0\r\nX y\r\n\r\n", "a bad field in the trailer section", "body"),
    Bad("trailers-endless", CHUNKED + b"0\r\n" + b"X: yyyyyyyyyyyyyyyy\r\n" * 100_000, "over the limit", "body"),
    Bad("length-cut", OK + b"Content-Length: 10\r\n\r\nhello", "cut short: 5 bytes were still to come", "body", ends=True),
    Bad("length-cut-at-once", OK + b"Content-Length: 10\r\n\r\n", "cut short: 10 bytes were still to come", "body", ends=True),
    Bad("length-cut-h11", OK + b"X: a\r\n b\r\nContent-Length: 10\r\n\r\nhello", "truncated body: got 5 of 10 bytes", "body", ends=True),
    Bad("length-cut-large", OK + b"Content-Length: 300000\r\n\r\n" + pattern(200_000), "cut short: 100000 bytes were still to come", "body", ends=True),
    Bad("length-forged", OK + b"Content-Length: 9223372036854775807\r\n\r\n" + pattern(100_000), "cut short", "body", ends=True),
    Bad("chunked-cut-in-data", CHUNKED + b"A\r\nhello", "chunked body was cut short", "body", ends=True),
    Bad("chunked-cut-in-size", CHUNKED + b"5\r\nhello\r\n1", "chunked body was cut short", "body", ends=True),
    Bad("chunked-cut-before-end", CHUNKED + b"5\r\nhello\r\n", "chunked body was cut short", "body", ends=True),
    Bad("chunked-cut-in-trailers", CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n", "truncated body: the connection ended in the trailer section", "body", ends=True),
    Bad("chunked-cut-at-last", CHUNKED + b"5\r\nhello\r\n0\r\n", "chunked body was cut short", "body", ends=True),
]


def serving(bad: Bad, apart: bool) -> Callable[[Conn, int], None]:
    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            if b"/good" in head:
                conn.send(respond(b"good"))
                continue
            if apart and len(bad.wire) < 5000:
                send_apart(conn, bad.wire, [1] * len(bad.wire))
            else:
                conn.send(bad.wire)
            if bad.ends:
                return

    return script


@pytest.mark.parametrize("manner", ["whole", "streamed", "byte-by-byte"])
@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
def test_a_bad_answer(unix: Unix, bad: Bad, manner: str) -> None:
    # What comes byte by byte may be found out before its end: the client's close then ends the script.
    peer, client = unix(serving(bad, manner == "byte-by-byte"))
    assert client.get(peer.url("/good")).content == b"good"
    fresh = client.transport.stats().opened
    with pytest.raises(Error, match=bad.says) as e:
        if bad.name == "nothing":
            # On a reused connection it would be stale.
            client.transport.close_idle_connections()
            fresh += 1
        if manner == "streamed":
            with client.stream(bad.method, peer.url("/bad")) as r:
                for _ in r.iter_bytes(3):
                    pass
        else:
            client.request(bad.method, peer.url("/bad"))
    assert type(e.value) is RemoteProtocolError
    assert (e.value.phase, e.value.request.url, e.value.request.method) == (bad.phase, peer.url("/bad"), bad.method)
    assert e.value.conn is not None
    assert e.value.conn.requests == (1 if bad.name == "nothing" else 2)
    assert "\n" not in str(e.value)
    assert closed(client.transport.stats())["error"] == 1
    for _ in range(2):
        assert client.get(peer.url("/good")).content == b"good"
    assert client.transport.stats().opened == fresh + 1


def test_a_reset_in_the_body(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(OK + b"\r\n" + b"not the end")
        started.wait(10)
        conn.reset()

    started = threading.Event()
    with client.stream("GET", peer(script).url()) as r:
        assert r.read(11) == b"not the end"
        started.set()
        with pytest.raises(ReadError, match="reading the response's body: Connection reset") as e:
            r.read()
    assert (e.value.phase, e.value.request.method, e.value.conn) == ("body", "GET", r.conn)
    assert closed(client.transport.stats()) == {"error": 1}


def pieces(body: bytes) -> bytes:
    return chunked(*(body[at:at + 999] for at in range(0, len(body), 999)))


FRAMED: dict[str, Callable[[bytes], bytes]] = {
    "length": respond,
    "chunked": lambda body: CHUNKED + pieces(body),
    "until-close": lambda body: OK + b"\r\n" + body,
    "obs-fold-length": lambda body: respond(body, headers={"X": "a\r\n b"}),
    "obs-fold-chunked": lambda body: OK + b"X: a\r\n b\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces(body),
    "obs-fold-until-close": lambda body: OK + b"X: a\r\n b\r\n\r\n" + body,
    "trailers": lambda body: CHUNKED + chunked(body, trailers=b"A: b\r\n"),
}


@pytest.mark.parametrize("limit", [0, 10, 5000, 70_000, 200_000])
@pytest.mark.parametrize("how", FRAMED)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_max_response_bytes(peer: MakePeer, client: Client, how: str, limit: int, streamed: bool) -> None:
    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            conn.send(FRAMED[how](pattern(int(head.split(b" ")[1][1:]))))
            if how.endswith("until-close"):
                return

    def fetch(n: int) -> bytes:
        if not streamed:
            return client.get(server.url(f"/{n}"), max_response_bytes=limit).content
        with client.stream("GET", server.url(f"/{n}"), max_response_bytes=limit) as r:
            got = bytearray()
            for piece in r.iter_bytes():
                got += piece
                assert len(got) <= limit
            return bytes(got)

    server = peer(script)
    assert fetch(limit) == pattern(limit)
    with pytest.raises(ResponseTooLarge, match=f"max_response_bytes={limit}") as e:
        fetch(limit + 1)
    assert (e.value.phase, e.value.request.method) == ("body", "GET")
    assert e.value.conn is not None
    assert fetch(limit) == pattern(limit)


@pytest.mark.parametrize(("method", "wire"), [
    ("HEAD", OK + b"Content-Length: 1000\r\n\r\n"), ("HEAD", OK + b"X: a\r\n b\r\nContent-Length: 1000\r\n\r\n"),
    ("GET", b"HTTP/1.1 304 N\r\nContent-Length: 1000\r\n\r\n"), ("GET", b"HTTP/1.1 304 N\r\nX: a\r\n b\r\nContent-Length: 1000\r\n\r\n")],
    ids=["head", "head-obs-fold", "304", "304-obs-fold"])
def test_max_response_bytes_is_of_the_body_and_not_of_what_it_would_be(peer: MakePeer, client: Client, method: str, wire: bytes) -> None:
    server = peer(answering(wire))
    for _ in range(2):
        assert client.request(method, server.url(), max_response_bytes=10).content == b""
    assert server.accepted == 1


def test_a_forged_length_allocates_nothing(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(OK + b"Content-Length: %d\r\n\r\n" % (1 << 40) + pattern(200_000))

    server = peer(script)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="cut short"):
            client.get(server.url())
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_an_endless_body_stops_at_the_limit(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        head, _ = conn.recv_request()
        conn.send(OK + (b"Transfer-Encoding: chunked\r\n" if b"chunked" in head else b"") + b"\r\n")
        while True:
            conn.send(b"2710\r\n" + b"x" * 10000 + b"\r\n")

    server = peer(script)
    for target in ("/chunked", "/close"):
        with pytest.raises(ResponseTooLarge):
            client.get(server.url(target), max_response_bytes=1 << 20)
    assert closed(client.transport.stats()) == {"error": 2}
