"""haproxy and gunicorn are told to reload, and they and nginx to be replaced by another one on the same port, again and again under the load of many threads.

No request that may be sent twice fails by it. (nginx's reload is in test_reload, with the server's own account of what it answered.)
"""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from pooledhttp import Client, Transport
from tests.exchange.support import adds_up, until
from tests.interop.load import KINDS, PATIENCE, Load
from tests.support.servers.base import Server
from tests.support.servers.fleet import Fleet, missing

CASES = [("nginx", "restart", 5), ("haproxy", "reload", 5), ("haproxy", "restart", 5), ("gunicorn", "reload", 4), ("gunicorn", "restart", 2)]       # how often
Case = tuple[Server, Callable[[], None], int]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case[:2]))
def case(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[Case]:
    name, how, times = request.param
    if reason := missing(name):
        pytest.skip(reason)
    server = fleet.another(name, "main")
    try:
        yield server, getattr(server, how), times
    finally:
        server.close()


def test_under_load(case: Case) -> None:
    server, again, times = case
    with Client(timeout=PATIENCE, transport=Transport()) as client, client.transport:
        with Load(client, server.url("/worker")) as load:
            began = time.monotonic()
            load.answered_by(1)
            for i in range(times):
                again()
                load.answered_by(i + 2)
            took = time.monotonic() - began
        until(lambda: client.transport.stats().dialing == 0, "the end of the dials that lost their race")
        stats = client.transport.stats()
        adds_up(stats)
        assert (stats.active, stats.waiting) == (0, 0)
    stale = sum(kind == "POST" for kind, _, _ in load.failed)
    print(f"{server.name} {server.version()}: {times} times in {took:.2f} s, {load.answered.total()} answers, {stats.retries} retries, {stale} POSTs stale; "
          f"{stats.opened} connections, closed by the server: {stats.closed['server_closed']} unannounced, {stats.closed['not_reusable']} announced")
    assert load.broken() == []
    assert len(load.workers) == times + 1
    assert min(load.answered[kind] for kind in KINDS) > 0
    assert stats.closed["timeout"] == stats.closed["cancelled"] == 0
