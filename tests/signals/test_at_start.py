"""A signal's handler that raises just where a thread is started: nothing is counted twice, nothing is lost."""
from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pooledhttp import Client
from pooledhttp._net.helpers import Helpers
from pooledhttp._net.resolver import Resolver
from pooledhttp._pool.janitor import Janitor
from tests.exchange.support import until
from tests.signals.conftest import Alarm
from tests.support.peer import Conn, Peer, respond

pytestmark = pytest.mark.usefixtures("alarmed")


@pytest.fixture(params=["before", "after"])
def hit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """`hit(name)`: the next start of a thread of that name is met by the signal, before or after it is done."""
    real = threading.Thread.start
    armed = ""

    def start(self: threading.Thread) -> None:
        nonlocal armed
        if self.name != armed:
            real(self)
            return
        armed = ""
        if request.param == "after":
            real(self)
        signal.raise_signal(signal.SIGUSR1)

    def arm(name: str) -> None:
        nonlocal armed
        armed = name

    monkeypatch.setattr(threading.Thread, "start", start)
    yield arm


def test_a_helpers_job_runs_once_and_its_place_is_free_again(hit: Callable[[str], None]) -> None:
    helpers = Helpers(total=1, per_key=1)
    runs: list[int] = []
    for n in range(3):
        hit("pooledhttp-helper")
        with pytest.raises(Alarm):
            helpers.submit("a", lambda n=n: runs.append(n))  # type: ignore[misc]
        until(lambda n=n: runs == list(range(n + 1)), "the job")
        until(lambda: helpers.threads == 0, "the thread's end")
    assert helpers.has_room("a")


def test_who_joined_a_lookup_is_not_failed_by_anothers_signal(hit: Callable[[str], None]) -> None:
    helpers = Helpers()
    resolver = Resolver(lambda host, port: [(2, ("127.0.0.1", port))], threads=helpers)
    hit("pooledhttp-helper")
    with pytest.raises(Alarm):
        resolver.lookup("name.test", 80)
    again = resolver.lookup("name.test", 80)             # that one, or its answer
    until(lambda: again.done, "the answer")
    assert again.result() == [(2, ("127.0.0.1", 80))]
    until(lambda: helpers.threads == 0, "the thread's end")


def test_the_janitor_is_not_lost(hit: Callable[[str], None]) -> None:
    class Pool:
        watched = False
        idle = 1

        def sweep(self, now: int) -> int:
            swept.set()
            self.idle = 0
            return 0

    swept = threading.Event()
    janitor, pool = Janitor(), Pool()
    hit("pooledhttp-janitor")
    with pytest.raises(Alarm):
        janitor.watch(pool)
    assert not pool.watched
    janitor.watch(pool)                                  # as the next request does
    janitor.nudge()
    assert swept.wait(10)


def test_the_connection_that_won_against_a_dial_is_not_lost(hit: Callable[[str], None], peer: Callable[..., Peer], new_client: Any) -> None:
    # The second request's lookup hangs, until the first gives its connection back: a helper is to finish the dial.
    asked, go = threading.Semaphore(0), threading.Event()
    calls: list[str] = []

    def resolver(host: str, port: int) -> list[tuple[int, Any]]:
        calls.append(host)
        if len(calls) > 1:
            asked.release()
            assert go.wait(10)
        return [(2, ("127.0.0.1", port))]

    answer = threading.Event()

    def script(conn: Conn, _: int) -> None:
        conn.recv_head()
        assert answer.wait(10)
        conn.send(respond(b"1"))
        conn.recv_until_closed()

    client: Client = new_client(resolver=resolver, dns_cache_ttl=0)
    url = peer(script).url("/").replace("127.0.0.1", "name.test")
    first = threading.Thread(target=client.get, args=(url,))
    first.start()
    until(lambda: client.transport.stats().active == 1, "the first connection")

    def let_go() -> None:
        assert asked.acquire(timeout=10)
        hit("pooledhttp-helper")
        answer.set()

    second = threading.Thread(target=let_go)
    second.start()
    try:
        with pytest.raises(Alarm):
            client.get(url)
    finally:
        go.set()
        first.join()
        second.join()
    until(lambda: client.transport.stats().dialing == 0, "the dial's end")
    assert client.transport.stats().active == 0


def test_no_worker_of_a_map_waits_for_ever(hit: Callable[[str], None], peer: Callable[..., Peer], client: Client) -> None:
    def script(conn: Conn, _: int) -> None:
        while True:
            conn.recv_head()
            conn.send(respond(b"1"))

    url = peer(script).url("/")
    hit("pooledhttp-map-1")
    with pytest.raises(Alarm):
        list(client.map([url] * 8, workers=4))
    assert [r.content for r in client.map([url] * 8, workers=4)] == [b"1"] * 8
