"""nginx is told to reload, again and again, under the load of many threads.

Each time the old worker closes its idle connections at once, also one that a request is just being sent on: the client sees an end or
a reset before the first byte of the answer. No request that may be sent twice fails by it; one that may not is never sent twice.
"""
from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pooledhttp import Client
from tests.exchange.support import adds_up, until
from tests.interop.load import KINDS, PATIENCE, Load
from tests.support.ca import Authority
from tests.support.nginx import Nginx
from tests.support.pyserver import PyServer

RELOADS = 10               # at least; more, where none has met a request on its way
RELOADS_MAX = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ca: Authority, pyserver: PyServer) -> Iterator[Nginx]:
    it = Nginx(tmp_path_factory.mktemp("reloaded"), certificate=ca.issue(), backend=pyserver.port)
    yield it
    it.close()


def posts(log: Path) -> Counter[str]:
    """How often each POST without a key was answered, by the server's own account."""
    return Counter(line.split()[1] for line in log.read_text().splitlines() if line.startswith("POST POST-"))


@pytest.mark.parametrize(("how", "limit"), [("plain", 0), ("tls", 0), ("plain", 8)])
def test_reloads_under_load(server: Nginx, ca: Authority, how: str, limit: int) -> None:
    server.answered.write_text("")
    with Client(verify=str(ca.pem), timeout=PATIENCE, max_conns_per_host=limit) as client:
        with Load(client, server.url("/worker", how)) as load:
            began = time.monotonic()
            load.answered_by(1)
            reloads = 0
            while reloads < RELOADS or (client.transport.stats().retries == 0 and reloads < RELOADS_MAX):
                server.reload()
                reloads += 1
                load.answered_by(reloads + 1)
            took = time.monotonic() - began
        until(lambda: client.transport.stats().dialing == 0, "the end of the dials that lost their race")
        stats = client.transport.stats()
        adds_up(stats)
        assert (stats.active, stats.waiting) == (0, 0)
    stale = {token for kind, token, _ in load.failed if kind == "POST"}
    print(f"{how}, {limit or 'any number of'} connections: {reloads} reloads in {took:.2f} s, "
          f"{load.answered.total()} answers, {stats.retries} retries, {len(stale)} POSTs stale; "
          f"{stats.opened} connections, closed by the server: {stats.closed['server_closed']} unannounced, {stats.closed['not_reusable']} announced")
    assert load.broken() == []
    assert len(load.workers) >= reloads + 1          # a worker of the test before may have taken one more
    assert min(load.answered[kind] for kind in KINDS) > 0
    assert stats.retries > 0, f"in {reloads} reloads no connection was closed under a request"
    assert stats.closed["error"] == stats.closed["timeout"] == stats.closed["cancelled"] == 0
    # As the server has it: what was answered was answered once, and what was not was not answered twice.
    until(lambda: load.posted <= posts(server.answered).keys(), "the last line of nginx's log")
    logged = posts(server.answered)
    assert logged.keys() <= load.posted | stale
    assert set(logged.values()) == {1}
