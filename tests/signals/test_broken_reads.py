"""A read that a signal's handler breaks off, and whose caller goes on: never a body with a hole in it."""
from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from pooledhttp import Client, Response, StreamClosed
from tests.exchange.support import blocked_in_kernel, closed, until
from tests.signals.conftest import Alarm
from tests.support.peer import Conn, Peer, respond

pytestmark = pytest.mark.usefixtures("alarmed")


@pytest.mark.parametrize("plain", [True, False], ids=["compiled", "h11"])
def test_what_follows_is_closed(peer: Callable[..., Peer], client: Client, plain: bool) -> None:
    go = threading.Event()
    head = respond(b"0123456789", headers={} if plain else {"X": "a\r\n b"})         # a folded field is h11's

    def script(conn: Conn, _: int) -> None:
        conn.recv_head()
        conn.send(head[:-5])
        assert go.wait(10)
        conn.send(head[-5:])
        conn.recv_until_closed()

    main = threading.main_thread()

    def ring() -> None:
        until(lambda: reading.is_set() and blocked_in_kernel(main), "the main thread's waiting")
        signal.pthread_kill(main.ident or 0, signal.SIGUSR1)

    reading = threading.Event()
    bell = threading.Thread(target=ring)
    with client.stream("GET", peer(script).url("/")) as r:
        bell.start()
        reading.set()
        with pytest.raises(Alarm):
            r.read(10)                                   # half of it is there
        go.set()
        with pytest.raises(StreamClosed):
            r.read(10)
    bell.join()
    assert closed(client.transport.stats()) == {"cancelled": 1}


class Pieces:
    """An endless body, whose second piece is met by the signal."""

    given = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.given += 1
        if self.given == 2:
            raise Alarm
        return b"01234"


def test_between_two_pieces() -> None:
    r = Response(200, content=Pieces())
    with pytest.raises(Alarm):
        r.read(10)
    with pytest.raises(StreamClosed):
        r.read(10)                                       # five bytes were read, and nobody has them
