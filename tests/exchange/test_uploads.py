"""Request bodies, byte for byte as they are on the wire (RFC 9112 sections 6 and 7)."""
from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pooledhttp import Client, LocalProtocolError, Timeout, WriteError, WriteTimeout
from tests.exchange.support import client_socket, closed
from tests.support.peer import Conn, Peer, chunked, header, respond
from tests.support.pyserver import pattern

MakePeer = Callable[..., Peer]


class Recorder:
    """A script that answers, and keeps each request's bytes: its head, and what came behind that."""

    def __init__(self, answer: bytes = respond(b"ok")) -> None:
        self.answer = answer
        self.requests: list[tuple[bytes, bytes]] = []

    def __call__(self, conn: Conn, i: int) -> None:
        at = 0
        while True:
            conn.recv_request()
            head, _, rest = bytes(conn.received[at:]).partition(b"\r\n\r\n")
            at = len(conn.received)
            self.requests.append((head, rest))
            conn.send(self.answer)


def sent(server: Peer) -> tuple[bytes, bytes]:
    """The last request's head and the rest of it."""
    assert isinstance(server.script, Recorder)
    return server.script.requests[-1]


@pytest.mark.parametrize(("method", "n"), [*((m, n) for m in ("POST", "PUT", "PATCH", "DELETE", "GET") for n in (1, 8191, 8192, 8193, 70_000)),
                                           ("POST", 10 << 20)])
def test_bytes(peer: MakePeer, client: Client, method: str, n: int) -> None:
    server = peer(Recorder())
    assert client.request(method, server.url("/x"), content=pattern(n)).content == b"ok"
    head, rest = sent(server)
    assert head.startswith(method.encode() + b" /x HTTP/1.1\r\n")
    assert header(head, "Content-Length") == str(n)
    assert header(head, "Transfer-Encoding") is None
    assert rest == pattern(n)


@pytest.mark.parametrize(("method", "length"), [("POST", "0"), ("PUT", "0"), ("PATCH", "0"), ("GET", None), ("HEAD", None), ("DELETE", None),
                                                ("OPTIONS", None)])
def test_no_body(peer: MakePeer, client: Client, method: str, length: str | None) -> None:
    # RFC 9110 section 8.6: a method that means a body says that there is none.
    server = peer(Recorder(b"HTTP/1.1 204 No\r\n\r\n"))
    client.request(method, server.url())
    head, rest = sent(server)
    assert header(head, "Content-Length") == length
    assert rest == b""
    if method == "POST":
        client.request(method, server.url(), content=b"")
        assert header(sent(server)[0], "Content-Length") == "0"


@pytest.mark.parametrize("n", [0, 1, 1000, 8192])
def test_the_head_and_a_small_body_travel_in_one_packet(peer: MakePeer, client: Client, n: int) -> None:
    packets = []

    def script(conn: Conn, i: int) -> None:
        packets.append(conn.recv_some(1 << 20))
        conn.send(respond(b"ok"))

    client.post(peer(script).url("/x"), content=pattern(n))
    assert packets[0].endswith(b"\r\n\r\n" + pattern(n))


def test_files_are_sent_from_where_they_stand(peer: MakePeer, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(pattern(1_000_000))
    server = peer(Recorder())
    with path.open("rb") as file:
        client.post(server.url(), content=file)
        assert file.tell() == 1_000_000
        head, rest = sent(server)
        assert (header(head, "Content-Length"), rest) == ("1000000", pattern(1_000_000))
        file.seek(999_000)
        client.post(server.url(), content=file)
    head, rest = sent(server)
    assert (header(head, "Content-Length"), rest) == ("1000", pattern(1_000_000)[999_000:])
    client.post(server.url(), content=io.BytesIO(b"in memory"))
    head, rest = sent(server)
    assert (header(head, "Content-Length"), rest) == ("9", b"in memory")
    assert server.accepted == 1


def test_a_pipe_has_no_length_and_is_sent_chunked(peer: MakePeer, client: Client) -> None:
    server = peer(Recorder())
    r, w = os.pipe()
    with open(r, "rb", buffering=0) as out, open(w, "wb", buffering=0) as into:
        into.write(b"through a pipe")
        into.close()
        client.post(server.url(), content=out)
    head, rest = sent(server)
    assert (header(head, "Transfer-Encoding"), header(head, "Content-Length")) == ("chunked", None)
    assert rest == chunked(b"through a pipe")


def pieces() -> Iterator[bytes]:
    yield b"one"
    yield b""
    yield b"t" * 5000
    yield pattern(300_000)
    yield b""


PIECES = list(pieces())


class Iterable:
    def __iter__(self) -> Iterator[bytes]:
        return pieces()


@pytest.mark.parametrize("body", [pieces, Iterable, lambda: iter(PIECES), lambda: (bytearray(p) for p in PIECES), lambda: map(memoryview, PIECES)],
                         ids=["generator", "iterable", "iterator", "bytearrays", "memoryviews"])
def test_iterables_are_sent_chunked_piece_by_piece(peer: MakePeer, client: Client, body: Callable[[], Any]) -> None:
    server = peer(Recorder())
    for _ in range(2):
        assert client.post(server.url(), content=body()).content == b"ok"
        head, rest = sent(server)
        assert (header(head, "Transfer-Encoding"), header(head, "Content-Length")) == ("chunked", None)
        # An empty piece is no chunk: that would be the body's end.
        assert rest == chunked(*PIECES)
    assert server.accepted == 1


@pytest.mark.parametrize("body", [list, tuple, lambda p: bytearray(b"".join(p)), lambda p: memoryview(b"".join(p))],
                         ids=["list", "tuple", "bytearray", "memoryview"])
def test_what_knows_its_length_says_so(peer: MakePeer, client: Client, body: Callable[[list[bytes]], Any]) -> None:
    server = peer(Recorder())
    client.post(server.url(), content=body(PIECES))
    head, rest = sent(server)
    assert (header(head, "Transfer-Encoding"), header(head, "Content-Length")) == (None, str(sum(map(len, PIECES))))
    assert rest == b"".join(PIECES)


def test_only_empty_pieces(peer: MakePeer, client: Client) -> None:
    server = peer(Recorder())
    client.post(server.url(), content=(b"" for _ in range(3)))
    assert sent(server)[1] == b"0\r\n\r\n"
    client.post(server.url(), content=[b"", b""])
    head, rest = sent(server)
    assert (header(head, "Content-Length"), rest) == ("0", b"")
    assert server.accepted == 1


def test_a_declared_length_turns_chunks_into_plain_bytes(peer: MakePeer, client: Client) -> None:
    server = peer(Recorder())
    total = sum(map(len, PIECES))
    client.post(server.url(), content=pieces(), headers={"Content-Length": str(total)})
    head, rest = sent(server)
    assert (header(head, "Transfer-Encoding"), header(head, "Content-Length")) == (None, str(total))
    assert rest == b"".join(PIECES)


def test_bytes_can_be_asked_for_chunked(peer: MakePeer, client: Client) -> None:
    server = peer(Recorder())
    client.post(server.url(), content=b"hello", headers={"Transfer-Encoding": "chunked"})
    head, rest = sent(server)
    assert (header(head, "Transfer-Encoding"), header(head, "Content-Length")) == ("chunked", None)
    assert rest == chunked(b"hello")


@pytest.mark.parametrize("off", [-1, 1])
def test_a_wrong_declared_length_never_frames_a_request(peer: MakePeer, client: Client, off: int) -> None:
    server = peer(Recorder())
    total = sum(map(len, PIECES))
    with pytest.raises(LocalProtocolError, match="Content-Length") as e:
        client.post(server.url(), content=pieces(), headers={"Content-Length": str(total + off)})
    assert (e.value.phase, e.value.request.method) == ("send", "POST")
    server.wait_closed(0)
    # The server saw fewer bytes than announced and then the end, so it cannot take them for a whole request.
    assert len(server.conns[0].received.partition(b"\r\n\r\n")[2]) < total + off
    assert client.get(server.url()).content == b"ok"
    assert closed(client.transport.stats()) == {"error": 1}


@pytest.mark.parametrize("length", ["5", "3"])
def test_bytes_of_another_length_are_refused_before_a_connection(peer: MakePeer, client: Client, length: str) -> None:
    server = peer(Recorder())
    with pytest.raises(LocalProtocolError, match="Content-Length"):
        client.post(server.url(), content=b"four", headers={"Content-Length": length})
    assert client.transport.stats().dials == 0


class Trouble(Exception):
    pass


@pytest.mark.parametrize("trouble", [Trouble("mine"), KeyboardInterrupt()], ids=["Exception", "KeyboardInterrupt"])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_generator_that_raises(peer: MakePeer, client: Client, trouble: BaseException, n: int) -> None:
    closing = []

    def body() -> Iterator[bytes]:
        try:
            for _ in range(n):
                yield b"x" * 1000
            raise trouble
        finally:
            closing.append(True)

    server = peer(Recorder())
    assert client.get(server.url()).content == b"ok"
    with pytest.raises(type(trouble)) as e:
        client.post(server.url(), content=body())
    assert e.value is trouble
    assert closing == [True]
    server.wait_closed(0)
    assert not server.conns[0].received.endswith(b"0\r\n\r\n")       # no end that would make it a whole request
    assert client.get(server.url()).content == b"ok"
    stats = client.transport.stats()
    assert (stats.open, sum(closed(stats).values())) == (1, 1)


def test_a_piece_that_is_not_bytes(peer: MakePeer, client: Client) -> None:
    server = peer(Recorder())
    with pytest.raises(TypeError, match="bytes-like, not str"):
        client.post(server.url(), content=iter(["text"]))
    assert client.get(server.url()).content == b"ok"
    assert closed(client.transport.stats()) == {"error": 1}


def test_a_generator_that_makes_requests_itself(peer: MakePeer, client: Client) -> None:
    server = peer(lambda conn, i: echo(conn))

    def body(depth: int) -> Iterator[bytes]:
        yield b"<"
        yield client.post(server.url(), content=body(depth - 1) if depth else b"innermost").content
        yield b">"

    assert client.post(server.url(), content=body(3)).content == b"<<<<innermost>>>>"
    assert server.accepted == 5
    stats = client.transport.stats()
    assert (stats.open, stats.idle, stats.requests) == (5, 5, 5)


def echo(conn: Conn) -> None:
    while True:
        _, body = conn.recv_request()
        conn.send(respond(body))


def test_nothing_holds_a_generator_that_was_not_wanted(peer: MakePeer, client: Client) -> None:
    closing = []

    def body() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 10_000
        finally:
            closing.append(True)

    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(respond(b"no", 403))
        conn.recv_until_closed()

    r = client.post(peer(script).url(), content=body())
    assert (r.status_code, r.content) == (403, b"no")
    del r                                # with its request, whose body it was
    assert closing == [True]


def test_a_server_that_stops_reading(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.stall()

    server = peer(script)
    for body in (pattern(20 << 20), (pattern(100_000) for _ in range(1000))):
        with pytest.raises(WriteTimeout, match=r"write=0\.2") as e:
            client.post(server.url(), content=body, timeout=Timeout(write=0.2))
        assert (e.value.phase, e.value.request.method) == ("send", "POST")
    assert closed(client.transport.stats()) == {"timeout": 2}


def test_a_slow_generator_is_no_write_timeout(peer: MakePeer, client: Client) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(3):
            threading.Event().wait(0.15)
            yield b"x"

    assert client.post(peer(Recorder()).url(), content=body(), timeout=Timeout(write=0.1)).content == b"ok"


def test_the_own_close_of_a_request_is_kept(peer: MakePeer, client: Client) -> None:
    # RFC 9112 section 9.6: who sent `close` sends no further request, whatever the server answers.
    record = Recorder()
    server = peer(record)
    client.get(server.url(), headers={"Connection": "close"})
    client.get(server.url(), headers={"connection": "x, CLOSE"})
    client.get(server.url(), headers={"Connection": "closed"})
    client.get(server.url())
    assert server.accepted == 3
    assert sum(head.lower().count(b"close") for head, _ in record.requests) == 3
    assert closed(client.transport.stats()) == {"not_reusable": 2}


def test_a_request_whose_head_fills_the_buffer(peer: MakePeer, client: Client) -> None:
    server = peer(Recorder())
    for size in (40_000, 41_000, 80_000, 82_000, 500_000):
        server_head = {"X-Large": "h" * size}
        assert client.post(server.url(), headers=server_head, content=b"tail").content == b"ok"
        head, rest = sent(server)
        assert (header(head, "X-Large"), rest) == ("h" * size, b"tail")
    assert server.accepted == 1


def test_nothing_can_be_written(peer: MakePeer, client: Client) -> None:
    server = peer(Recorder())

    def body() -> Iterator[bytes]:
        yield b"x"
        server.wait_accepted(1)
        with client_socket(server.conns[0].sock.getpeername()) as spoiled:
            spoiled.shutdown(1)
        yield b"y"

    with pytest.raises(WriteError, match="sending the request: Broken pipe") as e:
        client.post(server.url(), content=body())
    assert (e.value.phase, e.value.conn.reused) == ("send", False)
