"""Bodies read as streams: to the end, in part, not at all, from another thread."""
from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pooledhttp import Client, PoolTimeout, RemoteProtocolError, Response, StreamClosed, StreamConsumed, StreamError, Timeout
from tests.exchange.support import adds_up, blocked_in_kernel, closed, send_apart, until
from tests.support.peer import Conn, Peer, answering, chunked, respond
from tests.support.pyserver import pattern

MakePeer = Callable[..., Peer]
MakeClient = Callable[..., Client]
Unix = Callable[..., tuple[Peer, Client]]
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
FRAMED: dict[str, Callable[[bytes], bytes]] = {
    "length": respond,
    "chunked": lambda body: CHUNKED + chunked(*(body[at:at + 7000] for at in range(0, len(body), 7000))),
    "obs-fold": lambda body: respond(body, headers={"X": "a\r\n b"}),
    "trailers": lambda body: CHUNKED + chunked(*(body[at:at + 7000] for at in range(0, len(body), 7000)), trailers=b"A: b\r\n"),
}


@pytest.mark.parametrize("how", FRAMED)
def test_every_way_of_reading(peer: MakePeer, client: Client, how: str) -> None:
    body = pattern(200_000)
    server = peer(answering(FRAMED[how](body)))

    def pieces(r: Response, size: int) -> list[bytes]:
        out = list(r.iter_bytes(size))
        assert all(0 < len(piece) <= size for piece in out)
        return out

    def by_read(r: Response, size: int) -> list[bytes]:
        out = []
        while piece := r.read(size):
            out.append(piece)
        assert all(len(piece) == size for piece in out[:-1])
        assert r.read(size) == b""
        return out

    def by_readinto(r: Response, size: int) -> list[bytes]:
        out = []
        buffer = bytearray(size)
        while n := r.readinto(buffer):
            out.append(bytes(buffer[:n]))
        assert r.readinto(buffer) == 0
        return out

    for way in (pieces, by_read, by_readinto):
        for size in (1000, 65536, 150_000, 300_000):
            with client.stream("GET", server.url()) as r:
                assert not r.closed
                assert client.transport.stats().active == 1
                assert b"".join(way(r, size)) == body
                # Given back at the body's last byte, not when the block is left.
                assert r.closed
                assert client.transport.stats().idle == 1
            if how == "trailers":
                assert r.trailers["a"] == "b"
    with client.stream("GET", server.url()) as r:
        assert r.read(10) == body[:10]
        assert r.read() == body[10:]
    with client.stream("GET", server.url()) as r:
        assert r.read() == body
        assert r.content == body
        assert b"".join(r.iter_bytes()) == body
    assert (server.accepted, closed(client.transport.stats())) == (1, {})


def test_small_pieces_come_as_they_arrive(unix: Unix) -> None:
    got = threading.Semaphore(0)

    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            conn.send(CHUNKED if b"chunked" in head else OK + b"Content-Length: 30\r\n\r\n")
            for n in range(10):
                conn.send(b"3\r\n%03d\r\n" % n if b"chunked" in head else b"%03d" % n)
                if not got.acquire(timeout=10):
                    raise AssertionError("the client did not hand on what had arrived")
            if b"chunked" in head:
                conn.send(b"0\r\n\r\n")

    peer, client = unix(script)
    for target in ("/chunked", "/length"):
        with client.stream("GET", peer.url(target)) as r:
            pieces = r.iter_bytes()
            for n in range(10):
                assert next(pieces) == b"%03d" % n
                got.release()
            assert next(pieces, None) is None
    assert peer.accepted == 1


@pytest.mark.parametrize("how", ["length", "chunked"])
def test_closed_early_where_the_rest_has_arrived(unix: Unix, how: str) -> None:
    body = pattern(20_000)
    sent = threading.Semaphore(0)

    def script(conn: Conn, i: int) -> None:
        while True:
            conn.recv_request()
            conn.send(FRAMED[how](body))
            sent.release()

    peer, client = unix(script)
    for take in (0, 1, 5000):
        with client.stream("GET", peer.url()) as r:
            assert r.read(take) == body[:take]
            assert sent.acquire(timeout=10)
        assert client.transport.stats().idle == 1
        with pytest.raises(StreamClosed):
            r.read()
    assert peer.accepted == 1
    adds_up(client.transport.stats())


@pytest.mark.parametrize("how", FRAMED)
def test_closed_early_where_much_is_to_come(peer: MakePeer, client: Client, how: str) -> None:
    server = peer(answering(FRAMED[how](pattern(20 << 20))))
    with client.stream("GET", server.url()) as r:
        assert r.read(10) == pattern(10)
    assert r.closed
    until(lambda: closed(client.transport.stats()) == {"drain_limit": 1})
    server.wait_closed(0)
    assert client.get(server.url()).content == pattern(20 << 20)
    assert server.accepted == 2


def test_closed_early_where_the_rest_never_comes(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(OK + b"Content-Length: 10\r\n\r\nhalf")
        conn.recv_until_closed()

    server = peer(script)
    with client.stream("GET", server.url()) as r:
        assert r.read(4) == b"half"
    until(lambda: closed(client.transport.stats()) == {"drain_limit": 1})
    server.wait_closed(0)


def test_reading_after_close_and_twice(peer: MakePeer, client: Client) -> None:
    server = peer(answering(respond(b"hello")))
    r = client.get(server.url(), stream=True)
    r.close()
    r.close()
    for read in (r.read, lambda: r.content, lambda: r.readinto(bytearray(5)), lambda: list(r.iter_bytes()), lambda: r.text, lambda: r.read(3)):
        with pytest.raises(StreamClosed) as e:
            read()
        assert e.value.request is r.request
    r = client.get(server.url(), stream=True)
    assert list(r.iter_bytes()) == [b"hello"]
    for read in (r.read, lambda: r.content, lambda: list(r.iter_bytes())):
        with pytest.raises(StreamConsumed):
            read()
    r = client.get(server.url(), stream=True)
    pieces = r.iter_bytes(2)
    assert next(pieces) == b"he"
    r.close()
    with pytest.raises(StreamClosed):
        next(pieces)
    assert server.accepted == 1


def test_an_unread_body_is_named_by_who_waits_for_its_connection(peer: MakePeer, new_client: MakeClient) -> None:
    client = new_client(max_conns_per_host=2, timeout=Timeout(pool=0.05))
    server = peer(answering(respond(pattern(1 << 20))))
    secret = server.url("/held?token=secret#part").replace("//", "//user:password@")
    with client.stream("GET", secret), client.stream("POST", server.url("/also"), content=b""):
        with pytest.raises(PoolTimeout) as e:
            client.get(server.url("/third"))
        says = str(e.value)
        assert f"max_conns_per_host=2 of http://{server.host}:{server.port}" in says
        assert f"GET http://{server.host}:{server.port}/held for 0.0 s, body left unread" in says.replace(" 0.1 s", " 0.0 s")
        assert f"POST http://{server.host}:{server.port}/also for " in says
        assert not [word for word in ("secret", "user", "password", "token", "part") if word in says]
        assert (e.value.phase, e.value.request.url) == ("pool", server.url("/third"))
        stats = client.transport.stats()
        assert (stats.waits, stats.waiting, stats.active, stats.requests) == (1, 0, 2, 3)
        assert stats.wait_seconds >= 0.05
    assert client.get(server.url()).status_code == 200


def test_a_failed_read_stays_failed(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(OK + b"Content-Length: 10\r\n\r\nhalf")

    server = peer(script)
    r = client.get(server.url(), stream=True)
    assert r.read(4) == b"half"
    with pytest.raises(RemoteProtocolError, match="6 bytes"):
        r.read(4)
    assert r.closed
    for _ in range(2):
        with pytest.raises(StreamClosed):
            r.read(4)
    r.close()
    assert client.transport.stats().leaked == 0


class Broken(Exception):
    pass


@pytest.mark.parametrize("how", ["length", "chunked", "obs-fold", "until-close"])
def test_a_signals_exception_in_a_read_does_not_look_like_the_bodys_end(peer: MakePeer, client: Client, how: str) -> None:
    heads = {"length": OK + b"Content-Length: 10\r\n\r\n", "chunked": CHUNKED + b"A\r\n", "obs-fold": OK + b"X: a\r\n b\r\nContent-Length: 10\r\n\r\n",
             "until-close": OK + b"\r\n"}
    here = threading.get_ident()

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(heads[how] + b"half")
        entered.wait(10)
        while not handled.wait(0.01):
            signal.pthread_kill(here, signal.SIGUSR1)
        conn.recv_until_closed()

    def handler(number: int, frame: Any) -> None:
        if not handled.is_set():
            handled.set()
            raise Broken

    entered, handled = threading.Event(), threading.Event()
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        r = client.get(peer(script).url(), stream=True)
        assert r.read(4) == b"half"
        with pytest.raises(Broken):
            entered.set()
            r.read(4)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert sum(closed(client.transport.stats()).values()) == 1
    for _ in range(2):
        with pytest.raises(StreamError):
            r.read(4)
    r.close()


@pytest.mark.parametrize("how", ["length", "chunked", "obs-fold"])
def test_another_thread_closes_while_one_reads(unix: Unix, how: str) -> None:
    """The reader ends at once, and nothing that it still does reaches another exchange."""
    heads = {"length": OK + b"Content-Length: 1000000\r\n\r\n", "chunked": CHUNKED + b"FFFFF\r\n",
             "obs-fold": OK + b"X: a\r\n b\r\nContent-Length: 100\r\n\r\n"}

    def script(conn: Conn, i: int) -> None:
        head, _ = conn.recv_request()
        if b"/stalls" in head:
            send_apart(conn, heads[how] + b"half", [])
            conn.recv_until_closed()
        else:
            conn.send(respond(b"fine"))

    peer, client = unix(script)
    r = client.get(peer.url("/stalls"), stream=True)
    assert r.read(4) == b"half"
    raised: list[BaseException] = []

    def read() -> None:
        try:
            r.read(4)
        except BaseException as e:
            raised.append(e)

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: blocked_in_kernel(reader))
    r.close()
    reader.join(10)
    assert not reader.is_alive()
    assert [type(e) for e in raised] == [StreamClosed]
    assert (client.transport.stats().open, sum(closed(client.transport.stats()).values())) == (0, 1)
    assert client.get(peer.url("/fine")).content == b"fine"


def test_two_threads_that_read_one_response(unix: Unix) -> None:
    """One reads, the other is told so; not a byte is lost or doubled."""
    go_on = threading.Event()

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        send_apart(conn, OK + b"Content-Length: 8\r\n\r\nhalf", [])
        go_on.wait(10)
        conn.send(b"rest")
        conn.recv_request()

    peer, client = unix(script)
    r = client.get(peer.url(), stream=True)
    assert r.read(4) == b"half"
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(r.read(4)))
    reader.start()
    until(lambda: blocked_in_kernel(reader))
    for read in (lambda: r._reply.read(10), lambda: r._reply.readinto(bytearray(10)), r._reply.read_all):
        with pytest.raises(StreamError, match="another thread"):
            read()
    go_on.set()
    reader.join(10)
    assert got == [b"rest"]
    assert r.read(4) == b""
    assert closed(client.transport.stats()) == {}


@pytest.mark.parametrize("how", FRAMED)
def test_many_threads_on_one_response_lose_nothing(peer: MakePeer, client: Client, how: str) -> None:
    body = pattern(3_000_000)
    server = peer(answering(FRAMED[how](body)))
    r = client.get(server.url(), stream=True)
    lock = threading.Lock()
    got: list[bytes] = []

    def read() -> None:
        while True:
            with lock:
                piece = r.read(10_000)
                got.append(piece)
            if not piece:
                return

    threads = [threading.Thread(target=read) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(20)
    assert b"".join(got) == body
    assert client.transport.stats().idle == 1


def test_threads_that_close_and_read_at_random(peer: MakePeer, client: Client) -> None:
    """No order: whatever happens, it ends in data, or in a StreamError, and the pool adds up."""
    body = pattern(400_000)
    server = peer(answering(FRAMED["chunked"](body)))
    wrong: list[BaseException] = []
    for n in range(30):
        r = client.get(server.url(), stream=True)
        start = threading.Barrier(3)

        def work(what: Callable[[], Any], start: threading.Barrier = start) -> None:
            start.wait(10)
            try:
                what()
            except StreamError:
                pass
            except BaseException as e:
                wrong.append(e)

        def drain(r: Response = r) -> None:
            while r._reply.read(5000):
                pass

        threads = [threading.Thread(target=work, args=(what,)) for what in (drain, drain, r.close)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(10)
            assert not t.is_alive(), n
        r.close()
        assert client.get(server.url()).content == body
    assert wrong == []
    stats = client.transport.stats()
    adds_up(stats)
    assert stats.active == 0
