"""Five hundred threads at once against one host that is slow to accept: how many connections does it take? (HikariCP's spike test.)

A thread that finds no idle connection dials; a connection that is given back meanwhile is taken instead. So a few connections serve them all,
and all but four of the dials that lose their race are given up.
"""
from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.exchange.conftest import MakeClient
from tests.exchange.support import adds_up, closed, until
from tests.support.slowserver import SlowServer

THREADS = 500
ORPHANS = 4               # dials that lost their race and are finished, at once
PATIENCE = 30.0


@contextmanager
def descriptors(least: int, most: int) -> Iterator[None]:
    """The process may have between `least` and `most` of them open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, least), most, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(("options", "files"), [({}, 4096), ({"max_idle_conns_per_host": 5}, 4096), ({"max_conns_per_host": 20}, 1024)],
                         ids=["no-limit", "5-idle", "20-at-most"])
def test_spike(new_client: MakeClient, options: dict[str, Any], files: int) -> None:
    lookups: list[str] = []

    def resolver(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
        lookups.append(host)
        return [(socket.AF_INET, ("127.0.0.1", port))]

    client = new_client(timeout=PATIENCE, resolver=resolver, **options)
    start = threading.Event()
    answers: list[bytes] = []
    failed: list[BaseException] = []

    def run() -> None:
        start.wait(PATIENCE)
        try:
            answers.append(client.get(f"http://spike.test:{server.port}/").content)
        except BaseException as e:  # noqa: B036 - looked at below
            failed.append(e)

    most = helpers = 0
    with SlowServer(backlog=16, accept=0.02, answer=0.005) as server, descriptors(4096, files):
        threads = [threading.Thread(target=run) for _ in range(THREADS)]
        for t in threads:
            t.start()
        began = time.monotonic()
        start.set()
        while any(t.is_alive() for t in threads):
            stats = client.transport.stats()
            adds_up(stats)
            most = max(most, stats.open)
            helpers = max(helpers, sum(t.name == "pooledhttp-helper" for t in threading.enumerate()))
            assert time.monotonic() - began < PATIENCE + 5, stats
            time.sleep(0.01)
        took = time.monotonic() - began
        for t in threads:
            t.join()
        assert failed == [] and answers == [b"slow"] * THREADS
        until(lambda: client.transport.stats().dialing == 0, "the end of the dials that lost their race")
        stats = client.transport.stats()
        seen = server.counts()
    print(f"{options}: {THREADS} answers in {took:.2f} s over {stats.opened} connections, at most {most} at once; {stats.dials} dials, "
          f"{stats.opened - (THREADS - stats.reuses)} of them pooled for others, {helpers} helpers, {stats.waits} waits; the server: {seen}")
    assert lookups == ["spike.test"]
    assert (stats.requests, stats.retries, stats.active, stats.waiting) == (THREADS, 0, 0, 0)
    assert seen["answered"] == THREADS
    assert set(closed(stats)) <= {"evicted"}
    assert helpers <= ORPHANS + 1              # one more looked up the name
    # Each connection served who dialed it, or is one of the few that were finished for those who come later.
    assert THREADS - stats.reuses <= stats.opened <= stats.dials <= THREADS
    if "max_conns_per_host" in options:
        assert most <= stats.opened <= 20 and stats.waits > THREADS // 2
        assert seen["most"] <= 20 + stats.dials - stats.opened          # the server sees late that a dial was given up
    else:
        assert stats.opened < THREADS // 2
        assert stats.idle == stats.open <= options.get("max_idle_conns_per_host", 100)
