"""What no server should say: each is bounded, named, and ends the connection; no other request is lost to it where it may be sent again."""
from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pooledhttp import Client, errors
from tests.exchange.support import blocked_in_kernel, until
from tests.support.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frames,
    frame,
)
from tests.support.peer import ClientGone, Conn, Peer

MakePeer = Callable[..., Peer]
MakeClient = Callable[..., Client]
OK = (":status", "200")


def heads(*fields: tuple[str, str]) -> Callable[[Frames, int], None]:
    return lambda h2, stream: h2.headers(stream, fields, end=True)


def raw(kind: int, flags: int, on: int | None, payload: bytes = b"") -> Callable[[Frames, int], None]:
    return lambda h2, stream: h2.send(kind, flags, stream if on is None else on, payload)


def flood(one: bytes, n: int = 200_000) -> Callable[[Frames, int], None]:
    def send(h2: Frames, stream: int) -> None:
        for _ in range(n // 1000):
            h2.conn.send(one * 1000)

    return send


def continuations(h2: Frames, stream: int) -> None:
    h2.send(HEADERS, 0, stream, h2.encoder.encode([OK]))
    for i in range(200_000):
        h2.send(CONTINUATION, 0, stream, h2.encoder.encode([(f"x{i % 50}", "y")]))


def bomb(h2: Frames, stream: int) -> None:
    """A field of 4,000 bytes, put into the table once, and named a thousand times by a byte each: 4 MB in 5 KB."""
    first = h2.encoder.encode([OK, ("x", "y" * 3900)])
    again = h2.encoder.encode([("x", "y" * 3900)])
    assert len(again) == 1
    h2.send(HEADERS, END_HEADERS, stream, first + again * 10_000)


def two_heads(h2: Frames, stream: int) -> None:
    h2.headers(stream, [OK])
    h2.headers(stream, [OK], end=True)


def more_than_length(h2: Frames, stream: int) -> None:
    h2.headers(stream, [OK, ("content-length", "3")])
    h2.data(stream, b"four", end=True)


def less_than_length(h2: Frames, stream: int) -> None:
    h2.headers(stream, [OK, ("content-length", "5")])
    h2.data(stream, b"four", end=True)


def data_first(h2: Frames, stream: int) -> None:
    h2.data(stream, b"x", end=True)


def after_the_end(h2: Frames, stream: int) -> None:
    h2.send(RST_STREAM, 0, stream + 2, struct.pack(">I", 0))


def interims(h2: Frames, stream: int) -> None:
    for _ in range(50):
        h2.headers(stream, [(":status", "103"), ("link", "x")])
    h2.headers(stream, [OK], end=True)


BAD: dict[str, Callable[[Frames, int], None]] = {
    "no status": heads(("x", "y")),
    "status twice": heads(OK, OK),
    "status of four digits": heads((":status", "2000")),
    "status of letters": heads((":status", "abc")),
    "status 101": heads((":status", "101")),
    "an unknown pseudo-header": heads(OK, (":odd", "x")),
    "a request's pseudo-header": heads(OK, (":path", "/")),
    "a pseudo-header behind a field": heads(("x", "y"), OK),
    "connection": heads(OK, ("connection", "close")),
    "transfer-encoding": heads(OK, ("transfer-encoding", "chunked")),
    "keep-alive": heads(OK, ("keep-alive", "timeout=5")),
    "upgrade": heads(OK, ("upgrade", "h2c")),
    "an upper-case name": heads(OK, ("X-Y", "z")),
    "a name with a space": heads(OK, ("x y", "z")),
    "an empty name": heads(OK, ("", "z")),
    "CR LF in a value": heads(OK, ("x", "a\r\nset-cookie: b")),
    "NUL in a value": heads(OK, ("x", "a\0b")),
    "two lengths": heads(OK, ("content-length", "1"), ("content-length", "2")),
    "a signed length": heads(OK, ("content-length", "-1")),
    "a length that overflows": heads(OK, ("content-length", "9" * 30)),
    "more than the length": more_than_length,
    "less than the length": less_than_length,
    "two heads": two_heads,
    "a body without a head": data_first,
    "fifty interim answers": interims,
    "a stream that nobody opened": after_the_end,
    "HEADERS on stream 0": raw(HEADERS, END_HEADERS, 0, b"\x88"),
    "DATA on stream 0": raw(DATA, 0, 0, b"x"),
    "a push": raw(PUSH_PROMISE, END_HEADERS, None, struct.pack(">I", 2) + b"\x82"),
    "SETTINGS of five bytes": raw(SETTINGS, 0, 0, b"12345"),
    "SETTINGS on a stream": raw(SETTINGS, 0, None, b""),
    "an initial window that overflows": raw(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 1 << 31)),
    "a window that overflows": lambda h2, stream: [h2.send(WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 1)) for _ in range(2)][0],
    "a window update of nothing": raw(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0)),
    "PING of seven bytes": raw(PING, 0, 0, b"1234567"),
    "GOAWAY on a stream": raw(GOAWAY, 0, 1, bytes(8)),
    "a CONTINUATION of nothing": raw(CONTINUATION, END_HEADERS, None, b"\x88"),
    "a frame that is too large": lambda h2, stream: h2.conn.send(frame(DATA, 0, stream, bytes(20_000))),
    "padding beyond the frame": raw(DATA, 0x8, None, b"\xffx"),
    "HPACK that is none": raw(HEADERS, END_HEADERS | END_STREAM, None, b"\xff\xff\xff\xff\xff\xff"),
    "HTTP/1.1": lambda h2, stream: h2.conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "an HPACK bomb": bomb,
    "a CONTINUATION flood": continuations,
    "a SETTINGS flood": flood(frame(SETTINGS, 0, 0)),
    "a PING flood": flood(frame(PING, 0, 0, bytes(8))),
    "a flood of answers to no PING": flood(frame(PING, ACK, 0, bytes(8))),
    "a PRIORITY flood": flood(frame(PRIORITY, 0, 3, bytes(5))),
    "an empty DATA flood": lambda h2, stream: (h2.headers(stream, [OK]), flood(frame(DATA, 0, stream))(h2, stream))[1],
}


@pytest.mark.parametrize("case", BAD)
def test_it_is_bounded_and_named(peer: MakePeer, h2c: MakeClient, case: str) -> None:
    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        stream = h2.request()[0]
        try:
            BAD[case](h2, stream)
        except ClientGone:
            return
        h2.drain()

    server = peer(script)
    client = h2c(timeout=10)
    with pytest.raises(errors.RemoteProtocolError) as e:
        client.post(server.url("/"), content=b"x")
    assert e.value.phase in ("headers", "body")
    assert ("floods" in str(e.value)) == ("flood" in case and case != "a CONTINUATION flood")
    server.wait_closed(0)
    assert client.transport.stats().open == 0


@pytest.mark.parametrize("case", ["HTTP/1.1", "an HPACK bomb", "HEADERS on stream 0", "HPACK that is none", "a frame that is too large"])
def test_others_on_the_connection_are_sent_again(peer: MakePeer, h2c: MakeClient, case: str) -> None:
    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        h2.answer(h2.request()[0], b"first")
        if i == 0:
            streams = h2.requests(2)
            try:
                BAD[case](h2, next(s for s in streams if dict(h2.heads[s])[":path"] == "/bad"))
            except ClientGone:
                return
        h2.drain()

    server = peer(script)
    client = h2c()
    assert client.get(server.url("/")).content == b"first"
    with ThreadPoolExecutor(2) as pool:
        bad = pool.submit(client.post, server.url("/bad"), content=b"x")
        good = pool.submit(client.get, server.url("/good"))
        assert good.result().content == b"first"
        with pytest.raises((errors.RemoteProtocolError, errors.StaleConnectionError)):
            bad.result()
    until(lambda: client.transport.stats().open == 1)


def test_more_than_the_window(peer: MakePeer, h2c: MakeClient) -> None:
    """Nobody reads it, and the server sends more than a stream's window of 1 MiB all the same."""

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        stream = h2.request()[0]
        h2.headers(stream, [OK])
        other = h2.request()[0]
        try:
            h2.data(stream, bytes((1 << 20) + 65536))
            h2.answer(other, b"fine")
        except ClientGone:
            return
        h2.drain()

    server = peer(script)
    client = h2c()
    with client.stream("GET", server.url("/")) as r:
        assert client.get(server.url("/"), timeout=5).content == b"fine"
        with pytest.raises(errors.RemoteProtocolError):
            r.read()


def test_who_breaks_the_protocol_is_told(peer: MakePeer, h2c: MakeClient) -> None:
    """By GOAWAY and its code, before the connection ends (RFC 9113 section 5.4.1)."""
    told: list[bytes] = []

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        h2.request()
        h2.send(WINDOW_UPDATE, 0, 0, bytes(4))
        told.append(h2.until(GOAWAY)[3])
        h2.drain()

    server = peer(script)
    with pytest.raises(errors.RemoteProtocolError):
        h2c().post(server.url("/"), content=b"x")
    server.wait_closed(0)
    assert int.from_bytes(told[0][4:8], "big") == PROTOCOL_ERROR


@pytest.mark.parametrize("window", [198_000, 202_000, 205_000, 208_000, 220_000, 400_000])
def test_a_broken_protocol_while_the_kernel_takes_no_more(peer: MakePeer, h2c: MakeClient, tmp_path: Path, window: int) -> None:
    """Our GOAWAY cannot go out: the connection ends all the same, at once, and a POST is not sent again."""
    methods: list[tuple[int, str]] = []
    threads: list[threading.Thread] = []

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn, settings=[(INITIAL_WINDOW_SIZE, window)])
        h2.send(WINDOW_UPDATE, 0, 0, struct.pack(">I", 10_000_000))
        stream, fields, _ = h2.request()
        methods.append((i, fields[":method"]))
        h2.answer(stream)
        stream = h2.until(HEADERS)[2]
        methods.append((i, dict(h2.heads[stream])[":method"]))
        until(lambda: blocked_in_kernel(threads[0]), "the upload's stall")
        h2.send(PING, 0, 0, b"12345")
        conn.stall()

    path = tmp_path / "peer.sock"
    peer(script, uds=path)
    client = h2c(uds=str(path), timeout=10)
    raised: list[BaseException] = []

    def work() -> None:
        client.get("http://x.test/")
        try:
            client.post("http://x.test/", content=bytes(1_000_000))
        except errors.Error as e:
            raised.append(e)

    threads.append(threading.Thread(target=work))
    threads[0].start()
    threads[0].join(10)
    assert [type(e) for e in raised] == [errors.StaleConnectionError]
    assert methods == [(0, "GET"), (0, "POST")]
    stats = client.transport.stats()
    assert (stats.open, stats.active, stats.retries) == (0, 0, 0)


def test_a_server_that_measures_the_path(peer: MakePeer, h2c: MakeClient) -> None:
    """A PING for each round trip of a body is no flood."""

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        stream = h2.request()[0]
        h2.headers(stream, [OK])
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for n in range(3000):
            h2.data(stream, b"x")
            h2.ping()
            while h2.acked == n:
                h2.read()
        h2.data(stream, b"", end=True)
        h2.drain()

    assert len(h2c().get(peer(script).url("/")).content) == 3000


def test_a_frame() -> None:
    """What the peer is built of says what the RFC's frames say (section 4.1)."""
    assert frame(PING, ACK, 0, b"12345678") == b"\0\0\x08\x06\x01\0\0\0\x0012345678"


def test_a_name_that_is_no_token_is_not_sent(h2c: MakeClient, peer: MakePeer) -> None:
    server = peer(lambda conn, i: Frames(conn).drain())
    client = h2c()
    bad: Sequence[dict[str, str]] = ({"a b": "c"}, {"x": "a\r\nb: c"}, {":path": "/"}, {"x": "a\0"})
    for headers in bad:
        with pytest.raises(errors.LocalProtocolError):
            client.get(server.url("/"), headers=headers)
    assert server.accepted == 0
