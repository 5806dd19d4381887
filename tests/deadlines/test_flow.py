"""Limits while bytes flow: what is slow but not silent passes, what flows for ever ends, and nothing restarts a clock."""
from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pooledhttp import Client, Timeout, errors
from tests.deadlines.stalls import SMALL_BUFFER
from tests.support import front
from tests.support.ca import Authority
from tests.support.peer import Conn, Peer, Script, respond

LATE = 0.05
MakePeer = Callable[..., Peer]


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request: pytest.FixtureRequest, ca: Authority) -> ssl.SSLContext | None:
    return ca.server() if request.param else None


@pytest.fixture
def client(ca: Authority) -> Iterator[Client]:
    with Client(verify=str(ca.pem), timeout=None, socket_options=SMALL_BUFFER) as c:
        yield c


def only(**limits: float) -> Timeout:
    """These limits and no other."""
    return Timeout(None, **{**dict.fromkeys(("pool", "connect", "tls_handshake", "read", "write")), **limits})


def settled(client: Client, **closed: int) -> None:
    """Nothing is under way; these were closed. HTTP/2 resets the stream, and its connection goes on."""
    stats = client.transport.stats()
    assert (stats.active, stats.dialing, stats.waiting) == (0, 0, 0)
    assert stats.opened == stats.open + sum(stats.closed.values())
    assert {reason: n for reason, n in stats.closed.items() if n} == ({} if front.ON else closed)


def dribbling(data: bytes, pause: float, size: int = 1) -> Script:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        for at in range(0, len(data), size):
            conn.send(data[at:at + size])
            time.sleep(pause)

    return script


# --- silence is what `read` and `write` bound --------------------------------------------------------------------------------

def test_a_dribbled_head_is_no_silence(peer: MakePeer, tls: ssl.SSLContext | None, client: Client) -> None:
    server = peer(dribbling(respond(b"ok"), 0.02), tls=tls)
    start = time.monotonic()
    assert client.get(server.url(), timeout=only(read=0.3)).content == b"ok"
    assert time.monotonic() - start > 0.5


@pytest.mark.parametrize("how", ["whole", "stream"])
def test_a_dribbled_body_is_no_silence(peer: MakePeer, tls: ssl.SSLContext | None, client: Client, how: str) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(respond(b"", headers={"Content-Length": "30"}, length=False))
        for _ in range(30):
            conn.send(b"x")
            time.sleep(0.02)

    server = peer(script, tls=tls)
    if how == "whole":
        body = client.get(server.url(), timeout=only(read=0.3)).content
    else:
        with client.stream("GET", server.url(), timeout=only(read=0.3)) as r:
            body = b"".join(r.iter_bytes())
    assert body == b"x" * 30


def test_a_dribbled_record_is_no_silence(peer: MakePeer, ca: Authority, client: Client) -> None:
    """One TLS record in many segments: bytes come all the time, though none of the body can be had before its last."""
    def script(conn: Conn, i: int) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = ca.server().wrap_bio(incoming, outgoing, server_side=True)
        while True:
            incoming.write(conn.recv_some())
            try:
                server.do_handshake()
                break
            except ssl.SSLWantReadError:
                conn.send(outgoing.read())
        conn.send(outgoing.read())
        while True:
            try:
                assert server.read(65536).endswith(b"\r\n\r\n")
                break
            except ssl.SSLWantReadError:
                incoming.write(conn.recv_some())
        server.write(respond(b"z" * 200))
        record = outgoing.read()
        for at in range(0, len(record), 10):
            conn.send(record[at:at + 10])
            time.sleep(0.02)

    server = peer(script)
    start = time.monotonic()
    assert client.get(f"https://127.0.0.1:{server.port}/", timeout=only(read=0.3)).content == b"z" * 200
    assert time.monotonic() - start > 0.45


@pytest.mark.parametrize("how", ["bytes", "pieces"])
def test_a_slow_reader_is_no_silence(peer: MakePeer, tls: ssl.SSLContext | None, tmp_path: Path, ca: Authority, how: str) -> None:
    """The upload lasts many times `write`, and what TLS takes at once (64 KiB) longer than `write`. Over a Unix socket: on TCP both
    kernels hold back what is small beside a segment, and are silent by themselves."""
    size, part, pause = 160 << 10, 4096, 0.035

    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        left = size
        while left:
            time.sleep(pause)
            left -= len(conn.recv_exact(min(left, part)))
        conn.send(respond(b"took it"))

    server = peer(script, tls=tls, uds=tmp_path / "s")
    with Client(verify=str(ca.pem), uds=str(tmp_path / "s"), socket_options=[(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)]) as client:
        start = time.monotonic()
        content = bytes(size) if how == "bytes" else iter([bytes(512)] * (size // 512))
        r = client.put(server.url(), content=content, headers={"Content-Length": str(size)}, timeout=only(write=0.4))
        assert r.content == b"took it"
        assert time.monotonic() - start > 1.2


def test_a_slow_generator_is_no_silence_of_the_server(peer: MakePeer, tls: ssl.SSLContext | None, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        _, body = conn.recv_request()
        conn.send(respond(str(len(body)).encode()))

    def content() -> Iterator[bytes]:
        for _ in range(3):
            time.sleep(0.25)
            yield b"p" * 300_000

    server = peer(script, tls=tls)
    assert client.put(server.url(), content=content(), timeout=only(write=0.2, read=0.2)).content == b"900000"


@pytest.mark.parametrize("how", ["iter_bytes", "read", "readinto"])
def test_the_reader_may_wait(peer: MakePeer, tls: ssl.SSLContext | None, client: Client, how: str) -> None:
    """`read` counts while we wait for the server, and not while nobody reads; silence counts again afterwards."""
    more = threading.Event()

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(respond(b"half", headers={"Content-Length": "8"}, length=False))
        more.wait()
        conn.send(b"1234"[:3])
        conn.recv_until_closed()

    server = peer(script, tls=tls)
    with client.stream("GET", server.url(), timeout=only(read=0.3)) as r:
        pieces = r.iter_bytes()

        def take() -> bytes:
            if how == "iter_bytes":
                return next(pieces)
            if how == "read":
                return r.read(4)
            buffer = bytearray(4)
            return bytes(buffer[:r.readinto(buffer)])

        assert take() == b"half"
        time.sleep(0.4)
        more.set()
        if how == "read":
            start = time.monotonic()
            with pytest.raises(errors.ReadTimeout) as caught:       # wants four, gets three
                take()
        else:
            assert take() == b"123"
            start = time.monotonic()
            with pytest.raises(errors.ReadTimeout) as caught:
                take()
        assert 0.29 < time.monotonic() - start < 0.5
        assert caught.value.phase == "body"
    settled(client, timeout=1)


# --- a deadline is hard --------------------------------------------------------------------------------------------------------

def median_late(runs: list[float]) -> float:
    assert min(runs) >= 0, runs
    return sorted(runs)[len(runs) // 2]


def endless(conn: Conn, i: int) -> None:
    conn.recv_request()
    conn.send(respond(b"", headers={"Transfer-Encoding": "chunked"}, length=False))
    piece = b"10000\r\n" + bytes(65536) + b"\r\n"
    while True:
        conn.send(piece)


def test_an_endless_body_ends(peer: MakePeer, tls: ssl.SSLContext | None, client: Client) -> None:
    """There is always a byte to be had at once, and no read ever waits."""
    server = peer(endless, tls=tls)
    late = []
    for _ in range(3):
        start = time.monotonic()
        with pytest.raises(errors.DeadlineExceeded) as caught, client.stream("GET", server.url(), timeout=0.3) as r:
            for _ in r.iter_bytes():
                if time.monotonic() > start + 2:
                    pytest.fail("the body goes on after its deadline")
        late.append(time.monotonic() - start - 0.3)
        assert (caught.value.phase, caught.value.source) == ("body", "request")
    assert median_late(late) < LATE
    settled(client, timeout=3)


def test_what_comes_after_the_deadline_is_too_late(peer: MakePeer, tls: ssl.SSLContext | None, client: Client) -> None:
    """The reader waits past the deadline; the rest lies ready in the kernel."""
    sent = threading.Event()

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(respond(b"half", headers={"Content-Length": "8"}, length=False))
        sent.wait()
        conn.send(b"more")
        sent.clear()
        conn.recv_until_closed()

    server = peer(script, tls=tls)
    with client.stream("GET", server.url(), timeout=0.2) as r:
        assert r.read(4) == b"half"
        sent.set()
        time.sleep(0.3)
        with pytest.raises(errors.DeadlineExceeded) as caught:
            r.read(4)
        assert caught.value.phase == "body"
    settled(client, timeout=1)


def test_nothing_is_sent_after_the_deadline(peer: MakePeer, tls: ssl.SSLContext | None, client: Client) -> None:
    """A connection may be at hand; the server is not asked what nobody waits for."""
    asked: list[bytes] = []

    def script(conn: Conn, i: int) -> None:
        while True:
            asked.append(conn.recv_request()[0].split(b" ")[1])
            conn.send(respond(b"fine"))

    server = peer(script, tls=tls)
    client.get(server.url("/before"))
    for _ in range(5):
        with pytest.raises(errors.DeadlineExceeded):
            client.get(server.url("/late"), timeout=1e-9)
    client.get(server.url("/after"))
    assert asked == [b"/before", b"/after"]


def test_an_endless_upload_ends(peer: MakePeer, tls: ssl.SSLContext | None, client: Client) -> None:
    """The server takes every piece at once, and no send ever waits; the generator does."""
    def script(conn: Conn, i: int) -> None:
        conn.recv_until_closed()

    pieces = 0

    def content() -> Iterator[bytes]:
        nonlocal pieces
        while pieces < 400:
            pieces += 1
            time.sleep(0.005)
            yield b"p"

    server = peer(script, tls=tls)
    late = []
    for _ in range(3):
        pieces = 0
        start = time.monotonic()
        with pytest.raises(errors.DeadlineExceeded) as caught:
            client.post(server.url(), content=content(), timeout=0.3)
        late.append(time.monotonic() - start - 0.3)
        assert caught.value.phase == "send"
    assert median_late(late) < LATE
    settled(client, timeout=3)


def test_interim_responses_do_not_put_the_head_off(peer: MakePeer, tls: ssl.SSLContext | None, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        while True:
            conn.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            time.sleep(0.03)

    server = peer(script, tls=tls)
    for timeout, error in ((only(response_header=0.15, read=0.1), errors.ResponseHeaderTimeout), (Timeout(0.15, read=0.1), errors.DeadlineExceeded)):
        late = []
        for _ in range(3):
            start = time.monotonic()
            with pytest.raises(error) as caught:
                client.get(server.url(), timeout=timeout)
            late.append(time.monotonic() - start - 0.15)
            assert caught.value.phase == "headers"
        assert median_late(late) < LATE


def test_an_answered_upload_still_has_its_limits(peer: MakePeer, tls: ssl.SSLContext | None, client: Client) -> None:
    """The answer is whole while the upload is not, and the server reads no more."""
    given_up = threading.Event()

    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(respond(b"so soon"))
        given_up.wait(10)

    server = peer(script, tls=tls)
    for timeout, error in ((only(write=0.3), errors.WriteTimeout), (Timeout(0.3), errors.DeadlineExceeded)):
        given_up.clear()
        start = time.monotonic()
        with pytest.raises(error) as caught:
            client.put(server.url(), content=bytes(8 << 20), timeout=timeout)
        assert 0.3 <= time.monotonic() - start < 1
        assert caught.value.phase == "send"
        given_up.set()
    settled(client, timeout=2)
