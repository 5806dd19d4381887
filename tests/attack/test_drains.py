"""What is drained in the background is nobody else's: not the reader's, not a second thread's, and nobody's end."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from pooledhttp import Cancelled, Client, Context, DeadlineExceeded, ResponseTooLarge, StreamClosed
from pooledhttp._pool.janitor import Janitor
from tests.exchange.support import adds_up, closed, until
from tests.support.peer import PATIENCE, Conn, Peer, header, respond

MakePeer = Callable[..., Peer]
OK = b"HTTP/1.1 200 OK\r\n"


class Raised(BaseException):
    """A signal's handler's own."""


@pytest.fixture
def janitor() -> Iterator[Janitor]:
    janitor = Janitor()
    yield janitor
    until(lambda: janitor._thread is None)


class Answer:
    """Something to be drained that says who does it."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.inside = threading.Lock()
        self.at_once = 0

    def fileno(self) -> int:
        if not self.inside.acquire(blocking=False):
            self.at_once += 1
        else:
            threading.Event().wait(0.001)           # long enough for whoever else is at it
            self.inside.release()
        return -1 if self.ended.is_set() else 0

    def drain_step(self) -> bool:
        return False

    def drain_end(self) -> None:
        self.ended.set()


@pytest.mark.parametrize("end", ["cancel", "deadline", "close"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_the_end_of_a_drain_is_not_the_readers(peer: MakePeer, client: Client, end: str, framing: str) -> None:
    go = threading.Event()
    first, rest = (b"Content-Length: 10\r\n\r\nhalf", b"andhal") if framing == "length" else (
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"6\r\nandhal\r\n0\r\n\r\n")

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(OK + first)
        assert go.wait(PATIENCE)
        conn.send(rest)
        conn.recv_until_closed()

    server = peer(script)
    ctx = Context(timeout=0.1) if end == "deadline" else Context()
    error: type[Exception] = {"cancel": Cancelled, "deadline": DeadlineExceeded, "close": StreamClosed}[end]
    with client.stream("GET", server.url(), context=ctx) as r:
        reply = r._reply
        assert reply.read(4) == b"half"
        if end == "cancel":
            ctx.cancel()
        if end == "close":
            reply.close()
        else:
            with pytest.raises(error):
                reply.read(4)
        go.set()
        while client.transport.stats().active:      # at any moment of the drain
            with pytest.raises(error):
                reply.read(4)
        with pytest.raises(error):
            reply.read_all()
    adds_up(client.transport.stats())


def test_nothing_is_read_where_the_connection_could_not_serve_again(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send((b"HTTP/1.0 200 OK\r\n" if i else OK + b"Connection: close\r\n") + b"Content-Length: 10\r\n\r\nhalf")
        conn.recv_until_closed()

    server = peer(script)
    for i in range(2):
        with client.stream("GET", server.url()):
            pass
        assert client.transport.stats().open == 0
        server.wait_closed(i)
    assert closed(client.transport.stats()) == {"drain_limit": 2}


def test_a_start_that_a_signal_breaks_off_makes_no_second_thread(janitor: Janitor, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    first, second = Answer(), Answer()

    def start_and_raise(self: threading.Thread) -> None:
        start(self)
        until(lambda: janitor._held)                # it took up its work
        raise Raised

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_and_raise)
        with pytest.raises(Raised):
            janitor.drain(first)
    janitor.drain(second)
    assert first.ended.wait(PATIENCE)
    assert second.ended.wait(PATIENCE)
    assert (first.at_once, second.at_once) == (0, 0)


def test_who_counted_on_a_thread_that_is_refused_is_not_forgotten(janitor: Janitor, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Answer(), Answer()

    def drain_the_other_and_refuse(self: threading.Thread) -> None:
        janitor.drain(second)                       # relies on the thread that is being started
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", drain_the_other_and_refuse)
    janitor.drain(first)
    assert first.ended.is_set()
    assert second.ended.is_set()


def test_the_limit_holds_for_the_answer_after_a_417_that_was_coded(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        while True:
            head = conn.recv_head()
            if header(head, "Expect"):
                conn.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n")
                return
            conn.recv_body(head)
            conn.send(respond(bytes(100_000)))

    server = peer(script)
    with pytest.raises(ResponseTooLarge):
        client.post(server.url(), content=b"body", headers={"Expect": "100-continue"}, max_response_bytes=1000)
    assert server.accepted == 2

