"""Coded bodies on the wire: decoded, bounded, and the connection kept; memory stays flat whatever a few bytes become."""
from __future__ import annotations

import gzip
import random
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import brotli
import pytest
import zstandard

from pooledhttp import Client, DecodingError, HTTPStatusError, RemoteProtocolError, ResponseTooLarge, StreamClosed, StreamError
from tests.exchange.support import blocked_in_kernel, closed, until
from tests.support.nginx import Nginx, content
from tests.support.peer import PATIENCE, Conn, Peer, answering, chunked, header, respond

MakeClient = Callable[..., Client]
MakePeer = Callable[..., Peer]
MIB = 1 << 20

TEXT = b"hello, hello, hello " * 50
NOISE = random.Random(5).randbytes(300_000)          # no smaller for being coded


def coded(body: bytes, coding: str = "gzip", status: int = 200, how: str = "length") -> bytes:
    fields = [("Content-Encoding", coding), ("Content-Type", "text/plain")]
    if how == "chunked":
        pieces = [body[at:at + 7000] for at in range(0, len(body), 7000)]
        return respond(b"", status, [*fields, ("Transfer-Encoding", "chunked")], length=False) + chunked(*pieces)
    if how == "h11":
        fields.append(("X-Folded", "a\r\n b"))
    return respond(body, status, fields)


@pytest.mark.parametrize("how", ["length", "chunked", "h11"])
@pytest.mark.parametrize("limit", [None, 300_000])
@pytest.mark.parametrize("body", [TEXT, NOISE, TEXT * 200], ids=["small", "noise", "large"])
def test_a_coded_body(peer: MakePeer, client: Client, body: bytes, limit: int | None, how: str) -> None:
    raw = gzip.compress(body, 6)
    server = peer(answering(coded(raw, how=how)))
    for _ in range(2):
        r = client.get(server.url(), max_response_bytes=limit)
        assert r.content == body
        assert r.text == body.decode("utf-8", "replace")
        assert (r.headers["content-encoding"], r.closed) == ("gzip", True)
        with client.stream("GET", server.url(), max_response_bytes=limit) as r:
            pieces = list(r.iter_bytes(10_000))
        assert b"".join(pieces) == body
        assert max(map(len, pieces)) <= 10_000
        with client.stream("GET", server.url()) as r:
            assert b"".join(r.iter_raw()) == raw
        with client.stream("GET", server.url(), max_response_bytes=limit) as r:
            assert r.read() == body
    assert server.accepted == 1


def test_the_fast_lane(peer: MakePeer, new_client: MakeClient) -> None:
    server = peer(answering(coded(gzip.compress(TEXT)), respond(b"plain"), coded(gzip.compress(b"bad"), status=404)))
    client = new_client()
    assert [client.get(server.url()).text for _ in range(2)] == [TEXT.decode(), "plain"]
    r = client.get(server.url())
    assert (r.status_code, r.text, list(r.iter_raw())) == (404, "bad", [gzip.compress(b"bad")])
    strict = Client(transport=client.transport, raise_for_status=True)
    with pytest.raises(HTTPStatusError) as e:
        strict.get(server.url())
    assert e.value.response.text == "bad"
    assert server.accepted == 1


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("method", "answer"), [
    ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 500\r\n\r\n"),
    ("GET", b"HTTP/1.1 204 No Content\r\nContent-Encoding: gzip\r\n\r\n"),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Encoding: br\r\nContent-Length: 500\r\n\r\n"),
    ("GET", b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\nContent-Length: 0\r\n\r\n"),
    ("GET", b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")])
def test_no_body_is_no_broken_one(peer: MakePeer, client: Client, method: str, answer: bytes, streamed: bool) -> None:
    server = peer(answering(answer))
    for limit in (None, 10):
        if streamed:
            with client.stream(method, server.url(), max_response_bytes=limit) as r:
                assert list(r.iter_bytes()) == []
        else:
            assert client.request(method, server.url(), max_response_bytes=limit).content == b""
    assert server.accepted == 1


@pytest.mark.parametrize("how", ["length", "chunked"])
@pytest.mark.parametrize(("body", "encode"), [(b"hi", gzip.compress), (NOISE, gzip.compress), (TEXT * 500, gzip.compress)], ids=["tiny", "noise", "large"])
def test_the_limit_is_for_the_decoded_body(peer: MakePeer, client: Client, body: bytes, encode: Callable[[bytes], bytes], how: str) -> None:
    raw = encode(body)
    server = peer(answering(coded(raw, how=how)))
    assert client.get(server.url(), max_response_bytes=len(body)).content == body
    with client.stream("GET", server.url(), max_response_bytes=len(body)) as r:
        assert r.content == body
    with pytest.raises(ResponseTooLarge, match=f"max_response_bytes={len(body) - 1}") as e:
        client.get(server.url(), max_response_bytes=len(body) - 1)
    assert (e.value.phase, e.value.request.method) == ("body", "GET")
    assert e.value.conn is not None
    out = b""
    with client.stream("GET", server.url(), max_response_bytes=len(body) - 1) as r, pytest.raises(ResponseTooLarge):
        for piece in r.iter_bytes(50_000):
            out += piece
    assert out == body[:len(out)]
    assert len(out) < len(body)
    assert client.get(server.url()).content == body


def test_the_limit_of_plain_bodies_is_as_before(peer: MakePeer, client: Client) -> None:
    server = peer(answering(*[respond(b"12345", headers=headers) for headers in (
        {"Content-Encoding": "identity"}, [], {"Content-Encoding": "pack200-gzip"})]))
    for _ in range(3):
        with pytest.raises(ResponseTooLarge):
            client.get(server.url(), max_response_bytes=4)
    for _ in range(3):
        assert client.get(server.url(), max_response_bytes=5).content == b"12345"


# --- bombs ------------------------------------------------------------------------------------------------------------------

def zeros_gzip(mib: int) -> bytes:
    return gzip.compress(bytes(10 * MIB)) * (mib // 10)


def zeros_deflate(mib: int) -> bytes:
    """One stream of one block after another."""
    d = zlib.compressobj(9, wbits=-15)
    head = d.compress(bytes(MIB)) + d.flush(zlib.Z_FULL_FLUSH)
    return head + (d.compress(bytes(MIB)) + d.flush(zlib.Z_FULL_FLUSH)) * (mib - 1) + raw_end()


def raw_end() -> bytes:
    return zlib.compressobj(wbits=-15).flush()


def zeros_br(mib: int) -> bytes:
    out: bytes = brotli.compress(bytes(mib * MIB), quality=3)
    return out


def zeros_zstd(mib: int) -> bytes:
    return zstandard.ZstdCompressor().compress(bytes(50 * MIB)) * (mib // 50)


def zeros_twice(mib: int) -> bytes:
    return gzip.compress(zeros_gzip(mib))


@contextmanager
def flat(most: int) -> Iterator[None]:
    """What is allocated inside stays under `most` bytes at any moment."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        yield
        assert tracemalloc.get_traced_memory()[1] - before < most
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("coding", "make", "mib"), [
    ("gzip", zeros_gzip, 10240), ("deflate", zeros_deflate, 200), ("br", zeros_br, 100), ("zstd", zeros_zstd, 200), ("gzip, gzip", zeros_twice, 2000)])
def test_a_bomb_stops_at_the_limit(peer: MakePeer, client: Client, coding: str, make: Callable[[int], bytes], mib: int) -> None:
    bomb = make(mib)
    server = peer(answering(coded(bomb, coding)))
    with flat(3 * MIB):
        with pytest.raises(ResponseTooLarge):
            client.get(server.url(), max_response_bytes=MIB)
        seen = 0
        with client.stream("GET", server.url(), max_response_bytes=5 * MIB) as r, pytest.raises(ResponseTooLarge):
            for piece in r.iter_bytes():
                seen += len(piece)
        assert 5 * MIB - 65536 <= seen <= 5 * MIB


@pytest.mark.parametrize(("coding", "make"), [("gzip", zeros_gzip), ("br", zeros_br), ("zstd", zeros_zstd), ("gzip, gzip", zeros_twice)])
def test_without_a_limit_a_stream_of_it_is_flat(peer: MakePeer, client: Client, coding: str, make: Callable[[int], bytes]) -> None:
    server = peer(answering(coded(make(100), coding)))
    with flat(2 * MIB), client.stream("GET", server.url()) as r:
        assert sum(map(len, r.iter_bytes())) == 100 * MIB
    assert closed(client.transport.stats()) == {}


# --- what is broken ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("raw", [b"no gzip", gzip.compress(TEXT)[:-3], gzip.compress(NOISE)[:-8] + b"\0" * 8])
def test_broken_coding(peer: MakePeer, client: Client, raw: bytes, streamed: bool) -> None:
    server = peer(answering(coded(raw), respond(b"next")))
    with pytest.raises(DecodingError, match=r"gzip coding.*\(GET http://127") as e:
        if streamed:
            with client.stream("GET", server.url("/x?token=1")) as r:
                list(r.iter_bytes())
        else:
            client.get(server.url("/x?token=1"))
    assert (e.value.phase, e.value.conn.id > 0) == ("body", True)
    assert client.get(server.url()).content == b"next"
    assert server.accepted == 1                       # the framing was whole


def test_a_body_that_the_wire_cut_is_the_wires_fault(peer: MakePeer, client: Client) -> None:
    answer = coded(gzip.compress(NOISE))[:-5]

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(answer)

    server = peer(script)
    with pytest.raises(RemoteProtocolError, match="cut short"):
        client.get(server.url())
    with client.stream("GET", server.url()) as r, pytest.raises(RemoteProtocolError, match="cut short"):
        list(r.iter_bytes())


def test_closed_before_its_end(peer: MakePeer, client: Client) -> None:
    server = peer(answering(coded(gzip.compress(NOISE))))
    with client.stream("GET", server.url()) as r:
        assert len(r.read(10)) == 10
    with pytest.raises(StreamClosed):
        r.read(10)
    until(lambda: client.transport.stats().active == 0)


# --- what is asked for ------------------------------------------------------------------------------------------------------

def test_what_is_asked_for(peer: MakePeer, new_client: MakeClient) -> None:
    raw = gzip.compress(TEXT)
    asked: list[str | None] = []

    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            asked.append(header(head, "Accept-Encoding"))
            conn.send(coded(raw, status=206 if header(head, "Range") else 200))

    server = peer(script)
    client = new_client()
    assert [client.get(server.url()).content for _ in range(2)] == [TEXT, TEXT]
    assert client.get(server.url(), headers={"Accept-Encoding": "gzip"}).content == TEXT
    assert client.get(server.url(), headers={"Range": "bytes=0-10"}).content == raw
    assert asked == ["gzip, deflate, br, zstd"] * 2 + ["gzip", None]
    asked.clear()
    plain = new_client(disable_compression=True)
    assert [plain.get(server.url()).content for _ in range(2)] == [raw, raw]
    assert plain.get(server.url(), headers={"Accept-Encoding": "gzip"}).content == raw
    with plain.stream("GET", server.url()) as r:
        assert b"".join(r.iter_bytes(3)) == raw
    with pytest.raises(ResponseTooLarge):
        plain.get(server.url(), max_response_bytes=len(raw) - 1)
    assert plain.get(server.url(), max_response_bytes=len(raw)).content == raw
    assert asked == [None, None, "gzip", None, None, None]


@pytest.mark.parametrize("server", ["plain", "tls"])
def test_nginx_codes_what_it_sends(nginx: Nginx, new_client: MakeClient, server: str) -> None:
    client = new_client(verify=False)
    for name in ("64k", "1m"):
        r = client.get(nginx.url(f"/gzip/{name}", server))
        assert (r.headers.get("content-encoding"), r.content) == ("gzip", content(name))
        with client.stream("GET", nginx.url(f"/gzip/{name}", server)) as r:
            assert b"".join(r.iter_bytes(999)) == content(name)
    part = client.get(nginx.url("/gzip/64k", server), headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.headers.get("content-encoding"), part.content) == (206, None, content("64k")[100:200])
    head = client.head(nginx.url("/gzip/64k", server))
    assert (head.headers.get("content-encoding"), head.content) == ("gzip", b"")
    assert client.transport.stats().opened == 1


def test_one_thread_at_a_time(peer: MakePeer, client: Client) -> None:
    raw = gzip.compress(NOISE)
    go_on = threading.Event()

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(coded(raw)[:-1000])
        if not go_on.wait(PATIENCE):
            raise AssertionError("nobody let it go on")
        conn.send(raw[-1000:])

    server = peer(script)
    out: list[bytes] = []
    with client.stream("GET", server.url()) as r:
        reader = threading.Thread(target=lambda: out.extend(r.iter_bytes()))
        reader.start()
        until(lambda: blocked_in_kernel(reader), "the reader's waiting")
        with pytest.raises(StreamError, match="another thread"):
            r._source.read(10)
        go_on.set()
        reader.join()
    assert b"".join(out) == NOISE


def test_a_redirects_broken_coding_is_nobodys_concern(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            there = [("Location", "/there"), ("Content-Encoding", "gzip")]
            conn.send(respond(b"there") if b"/there" in head else respond(b"no gzip", 302, there))

    server = peer(script)
    for _ in range(2):
        r = client.get(server.url(), max_response_bytes=100)
        assert (r.content, len(r.history)) == (b"there", 1)
        with pytest.raises(DecodingError):
            _ = r.history[0].content
    assert server.accepted == 1
