"""A signal's handler that raises ends the request in the main thread, whether that leads or sleeps, and the connection lives on."""
from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from pooledhttp import Client, errors
from tests.exchange.support import closed, until
from tests.support.frames import CANCEL, Frames
from tests.support.peer import Conn, Peer


class Enough(Exception):
    pass


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise Enough

    before = signal.signal(signal.SIGALRM, ring)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize("phase", ["head", "body"])
def test_it_ends_at_once(peer: Callable[..., Peer], h2c: Callable[..., Client], alarm: Callable[[float], None], leads: bool, phase: str) -> None:
    resets: dict[int, int] = {}
    go = threading.Event()

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        h2.resets = resets
        while True:
            stream, fields, _ = h2.request()
            if fields[":path"] == "/long":
                go.set()
                continue
            if fields[":path"] == "/fine":
                h2.answer(stream, b"fine")
            elif phase == "body":
                h2.headers(stream, [(":status", "200")])

    server = peer(script)
    client = h2c()
    client.get(server.url("/fine"))
    if not leads:
        other = threading.Thread(target=lambda: pytest.raises(errors.DeadlineExceeded, client.get, server.url("/long"), timeout=1.0))
        other.start()
        assert go.wait(10)
    took = []
    for _ in range(3):
        alarm(0.1)
        began = time.monotonic()
        with pytest.raises(Enough):
            client.get(server.url("/never"))
        took.append(time.monotonic() - began)
    assert 0.09 < sorted(took)[1] < 0.2, took
    assert client.get(server.url("/fine")).content == b"fine"
    until(lambda: len(resets) >= 3)
    assert set(resets.values()) == {CANCEL}
    if not leads:
        other.join()
    stats = client.transport.stats()
    assert (stats.opened, closed(stats)) == (1, {})
