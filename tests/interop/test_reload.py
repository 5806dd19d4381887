"""nginx is told to reload, again and again, under the load of many threads.

Each time the old worker closes its idle connections at once, also one that a request is just being sent on: the client sees an end or
a reset before the first byte of the answer. No request that may be sent twice fails by it; one that may not is never sent twice.
"""
from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pooledhttp import Client, Response, StaleConnectionError
from tests.exchange.support import adds_up, until
from tests.support.ca import Authority
from tests.support.nginx import Nginx
from tests.support.pyserver import PyServer

THREADS = 32
RELOADS = 10               # at least; more, where none has met a request on its way
RELOADS_MAX = 60
ANSWERS = 100              # that each worker gives before it is replaced, at least
PATIENCE = 20.0
KINDS = ("GET", "HEAD", "OPTIONS", "keyed", "POST")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ca: Authority, pyserver: PyServer) -> Iterator[Nginx]:
    it = Nginx(tmp_path_factory.mktemp("reloaded"), certificate=ca.issue(), backend=pyserver.port)
    yield it
    it.close()


class Load:
    """Threads that ask for one token after the other, and what became of each."""

    def __init__(self, client: Client, url: str) -> None:
        self.client = client
        self.url = url
        self.answered: Counter[str] = Counter()
        self.posted: set[str] = set()
        self.failed: list[tuple[str, str, BaseException]] = []
        self.workers: Counter[str] = Counter()
        self.changed = threading.Condition()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(THREADS)]

    def __enter__(self) -> Load:
        for t in self._threads:
            t.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for t in self._threads:
            t.join(PATIENCE)
            assert not t.is_alive(), "a request hangs"

    def answered_by(self, n: int) -> None:
        """Waits until `n` workers have answered, each ANSWERS times."""
        def they_have() -> bool:
            return sum(times >= ANSWERS for times in self.workers.values()) >= n

        with self.changed:
            assert self.changed.wait_for(lambda: they_have() or self.broken(), PATIENCE), f"{self.workers} have answered, not {n}"

    def broken(self) -> list[tuple[str, str, BaseException]]:
        """What failed and should not have."""
        return [f for f in self.failed if f[0] != "POST" or type(f[2]) is not StaleConnectionError]

    def _run(self, i: int) -> None:
        n = 0
        while not self._over.is_set():
            n += 1
            kind = KINDS[(i + n) % len(KINDS)]
            token = f"{kind}-{i}x{n}"
            try:
                r = self._ask(kind, token)
                pid, _, said = r.text.partition(" ")
                assert r.status_code == 200 and (said == token or kind == "HEAD"), (r.status_code, r.text)
                with self.changed:
                    self.answered[kind] += 1
                    if kind == "POST":
                        self.posted.add(token)
                    if pid:
                        self.workers[pid] += 1
                        self.changed.notify_all()
            except BaseException as e:  # noqa: B036 - looked at by the test
                with self.changed:
                    self.failed.append((kind, token, e))
                    self.changed.notify_all()

    def _ask(self, kind: str, token: str) -> Response:
        params = {"token": token}
        if kind == "POST":
            return self.client.post(self.url, params=params, content=b"not twice")
        if kind == "keyed":
            return self.client.post(self.url, params=params, content=b"twice if need be", headers={"Idempotency-Key": token})
        return self.client.request(kind, self.url, params=params)


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
    assert len(load.workers) == reloads + 1
    assert min(load.answered[kind] for kind in KINDS) > 0
    assert stats.retries > 0, f"in {reloads} reloads no connection was closed under a request"
    assert stats.closed["error"] == stats.closed["timeout"] == stats.closed["cancelled"] == 0
    # As the server has it: what was answered was answered once, and what was not was not answered twice.
    until(lambda: load.posted <= posts(server.answered).keys(), "the last line of nginx's log")
    logged = posts(server.answered)
    assert logged.keys() <= load.posted | stale
    assert set(logged.values()) == {1}
