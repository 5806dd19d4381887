"""Reading while writing: early answers, and both directions at once (RFC 9112 section 9.5)."""
from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pooledhttp import Client, NetworkError, ReadError, Timeout, WriteError, WriteTimeout
from tests.exchange.support import closed, until
from tests.support.ca import Authority
from tests.support.peer import ClientGone, Conn, Peer, chunked, header, respond
from tests.support.processes import read_line, spawn_python
from tests.support.pyserver import pattern

MakePeer = Callable[..., Peer]
MIB = 1 << 20
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BIG = 16 * MIB              # more than the sockets of both sides hold


def generated(total: int, piece: int = 100_000) -> Iterator[bytes]:
    block = pattern(piece)
    for at in range(0, total, piece):
        yield block[:min(piece, total - at)]


def of_bytes(total: int) -> Any:
    return pattern(total)


BODIES = [pytest.param(of_bytes, id="bytes"), pytest.param(generated, id="generator")]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("how", ["close", "close-said", "half-close", "open"])
def test_a_refusal_while_we_send_is_the_answer(peer: MakePeer, client: Client, body: Callable[[int], Any], how: str) -> None:
    def script(conn: Conn, i: int) -> None:
        head = conn.recv_head()
        if b"/next" in head:
            conn.send(respond(b"next"))
            return
        conn.recv_exact(100_000)
        conn.send(respond(b"too much" * 1000, 413, {"Connection": "close"} if how == "close-said" else {}))
        if how == "half-close":
            conn.shutdown_write()
            conn.recv_until_closed()
        elif how == "open":
            conn.recv_until_closed()

    server = peer(script)
    r = client.post(server.url(), content=body(BIG))
    assert (r.status_code, r.content) == (413, b"too much" * 1000)
    server.wait_closed(0)
    assert len(server.conns[0].received) < BIG
    assert client.get(server.url("/next")).content == b"next"
    assert client.transport.stats().closed["not_reusable"] == 1
    assert server.accepted == 2


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_refusal_that_is_read_as_a_stream(peer: MakePeer, client: Client, body: Callable[[int], Any], streamed: bool) -> None:
    refusal = pattern(300_000)

    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(respond(refusal, 413))
        conn.shutdown_write()
        conn.recv_until_closed()

    # Its body is larger than a buffer, and is read after the upload was given up.
    server = peer(script)
    with client.stream("POST", server.url(), content=body(BIG)) as r:
        assert r.status_code == 413
        assert (b"".join(r.iter_bytes()) if streamed else r.read()) == refusal
    server.wait_closed(0)
    assert len(server.conns[0].received) < BIG
    assert closed(client.transport.stats()) == {"not_reusable": 1}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("answer", [respond(b"early"), CHUNKED + chunked(b"ear", b"ly"),
                                    b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nearly", respond(pattern(500_000)),
                                    b"HTTP/1.1 204 No\r\n\r\n", CHUNKED + chunked(b"early", trailers=b"A: b\r\n")],
                         ids=["length", "chunked", "obs-fold", "large", "204", "trailers"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_an_early_answer_that_is_no_refusal_lets_both_directions_finish(peer: MakePeer, client: Client, body: Callable[[int], Any], answer: bytes,
                                                                       streamed: bool) -> None:
    total = 5 * MIB
    uploads = []

    def script(conn: Conn, i: int) -> None:
        while True:
            head = conn.recv_head()
            conn.send(answer)
            uploads.append(conn.recv_body(head))

    server = peer(script)
    for n in range(1, 3):
        with client.stream("POST", server.url(), content=body(total)) if streamed else client.post(server.url(), content=body(total)) as r:
            got = b"".join(r.iter_bytes()) if streamed else r.content
        assert (r.status_code, got) in ((200, b"early"), (200, pattern(500_000)), (204, b""))
        until(lambda n=n: len(uploads) == n, "the upload's end")
    expected = pattern(total) if body is of_bytes else b"".join(generated(total))
    assert [upload == expected for upload in uploads] == [True, True]
    assert (server.accepted, closed(client.transport.stats())) == (1, {})


def test_the_answer_that_ends_by_close_stops_the_upload(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(b"HTTP/1.0 200 OK\r\n\r\nenough")
        conn.shutdown_write()
        conn.recv_until_closed()

    server = peer(script)
    assert client.post(server.url(), content=generated(BIG)).content == b"enough"
    server.wait_closed(0)
    assert len(server.conns[0].received) < BIG


def echo(conn: Conn, i: int) -> None:
    """Sends back what comes while it comes, chunked; reads nothing while it cannot write."""
    while True:
        head = conn.recv_head()
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        left = int(header(head, "Content-Length") or -1)
        while left:
            if left < 0:
                size = int(conn.recv_line(), 16)
                data = conn.recv_exact(size)
                conn.recv_exact(2)
                if not size:
                    break
            else:
                data = conn.recv_some(min(left, 65536))
                left -= len(data)
            del conn.received[:conn._taken]            # not kept: the test is about memory
            conn._taken = 0
            conn.send(b"%x\r\n%b\r\n" % (len(data), data))
        conn.send(b"0\r\n\r\n")


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_an_echo_never_deadlocks(peer: MakePeer, client: Client, body: Callable[[int], Any], streamed: bool) -> None:
    total = 8 * MIB
    expected = pattern(total) if body is of_bytes else b"".join(generated(total))
    server = peer(echo)
    for _ in range(2):
        with client.stream("POST", server.url(), content=body(total)) if streamed else client.post(server.url(), content=body(total)) as r:
            got = b"".join(r.iter_bytes()) if streamed else r.content
        assert got == expected
    assert (server.accepted, closed(client.transport.stats())) == (1, {})


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("body", BODIES)
def test_tls_an_echo_never_deadlocks(peer: MakePeer, new_client: Callable[..., Client], ca: Authority, body: Callable[[int], Any], streamed: bool) -> None:
    total = 4 * MIB
    expected = pattern(total) if body is of_bytes else b"".join(generated(total))
    server = peer(echo, tls=ca.server())
    client = new_client(verify=str(ca.pem))
    for _ in range(2):
        with client.stream("POST", server.url(), content=body(total)) if streamed else client.post(server.url(), content=body(total)) as r:
            got = b"".join(r.iter_bytes()) if streamed else r.content
        assert got == expected
    assert (server.accepted, closed(client.transport.stats())) == (1, {})


@pytest.mark.timing           # megabytes through a peer in Python, that speaks TLS
@pytest.mark.parametrize("body", BODIES)
def test_tls_a_refusal_while_we_send_is_the_answer(peer: MakePeer, new_client: Callable[..., Client], ca: Authority, body: Callable[[int], Any]) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(respond(b"too much", 413))
        conn.recv_until_closed()

    server = peer(script, tls=ca.server())
    r = new_client(verify=str(ca.pem)).post(server.url(), content=body(BIG))
    assert (r.status_code, r.content) == (413, b"too much")
    server.wait_closed(0)
    assert len(server.conns[0].received) < BIG


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("size", [39_000, 60_000, 90_000, 300_000])
def test_an_early_answer_with_a_large_head(peer: MakePeer, client: Client, body: Callable[[int], Any], size: int) -> None:
    """Larger than what a buffer has room for beside a request that is not sent yet."""
    total = 4 * MIB
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-Large: " + b"h" * size + b"\r\nContent-Length: 100000\r\n\r\n"

    def script(conn: Conn, i: int) -> None:
        while True:
            request = conn.recv_head()
            conn.send(head + pattern(100_000))
            conn.recv_body(request)

    server = peer(script)
    for fields in ({}, {"X-Ours": "o" * 38_000}, {"X-Ours": "o" * 200_000}):
        r = client.post(server.url(), content=body(total), headers=fields)
        assert (r.content, len(r.headers["X-Large"])) == (pattern(100_000), size)
    assert (server.accepted, closed(client.transport.stats())) == (1, {})


def test_what_follows_an_early_answer_is_no_answer_to_the_next_request(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        head = conn.recv_head()
        if b"/next" in head:
            conn.send(respond(b"next"))
            return
        conn.send(respond(b"early"))
        conn.recv_exact(1000)
        conn.send(respond(b"evil"))
        conn.recv_until_closed()

    server = peer(script)
    r = client.post(server.url(), content=generated(BIG))
    assert r.content == b"early"
    assert client.get(server.url("/next")).content == b"next"
    assert server.accepted == 2


MEMORY = """
import resource, sys
from pathlib import Path
import pooledhttp

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def generated(total):
    block = bytes(range(250)) * 400
    for at in range(0, total, len(block)):
        yield block[:min(len(block), total - at)]

url, total, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with pooledhttp.Client(transport=pooledhttp.Transport(), timeout=60.0) as client:
    def run(total):
        if how == "whole":
            return len(client.post(url, content=generated(total)).content)
        got = 0
        with client.stream("POST", url, content=generated(total)) as r:
            for piece in r.iter_bytes():
                got += len(piece)
        return got

    assert run(2 << 20) == 2 << 20
    before = peak()
    assert run(total) == total
    print(peak() - before, flush=True)
"""


@pytest.mark.parametrize("how", ["streamed", "whole"])
def test_an_echo_of_50_mib_takes_no_memory_but_the_bodys(peer: MakePeer, how: str) -> None:
    server = peer(echo)
    child = spawn_python("-c", MEMORY, server.url(), str(50 * MIB), how, stdout=subprocess.PIPE)
    with child:
        grew = int(read_line(child.stdout, 30.0))
    assert child.returncode == 0
    # Chunked, of unknown length: memory grows in steps of at most 16 MiB, and never twice.
    assert grew < (4 * MIB if how == "streamed" else (50 + 24) * MIB)


@pytest.mark.parametrize("body", BODIES)
def test_a_server_that_answers_and_stops_reading(peer: MakePeer, client: Client, body: Callable[[int], Any]) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(respond(b"early"))
        conn.stall()

    server = peer(script)
    # The answer is there, but the request is not sent: the longest silence ends it.
    with pytest.raises(WriteTimeout) as e:
        client.post(server.url(), content=body(BIG), timeout=Timeout(write=0.2))
    assert e.value.phase == "send"
    assert closed(client.transport.stats()) == {"timeout": 1}


@pytest.mark.parametrize("body", BODIES)
def test_a_reset_while_we_send(peer: MakePeer, client: Client, body: Callable[[int], Any]) -> None:
    def script(conn: Conn, i: int) -> None:
        if i == 0:
            conn.recv_exact(100_000)
            conn.reset()
        else:
            conn.recv_request()
            conn.send(respond(b"fine"))

    server = peer(script)
    with pytest.raises(WriteError) as e:
        client.post(server.url(), content=body(BIG))
    assert (e.value.phase, e.value.conn.reused, e.value.request.method) == ("send", False, "POST")
    assert closed(client.transport.stats()) == {"error": 1}
    assert client.get(server.url()).content == b"fine"


def test_a_reset_after_the_upload(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.reset()

    with pytest.raises(NetworkError) as e:
        client.post(peer(script).url(), content=b"x")
    assert (type(e.value), e.value.phase) == (ReadError, "headers")


def test_a_response_is_closed_while_its_upload_goes_on(peer: MakePeer, client: Client) -> None:
    ended = threading.Event()

    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
        try:
            while conn.recv_some():
                pass
        except ClientGone:
            pass
        ended.set()

    server = peer(script)
    with client.stream("POST", server.url(), content=generated(BIG)) as r:
        assert r.read(4) == b"some"
    assert ended.wait(10)
    assert closed(client.transport.stats()) == {"drain_limit": 1}
