"""Real servers, each in the clear and over TLS."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pooledhttp import Client, PoolStats, Response
from tests.interop.differences import of
from tests.support.ca import Authority
from tests.support.nginx import Nginx
from tests.support.pyserver import PyServer
from tests.support.servers.base import Server
from tests.support.servers.fleet import KINDS, Fleet, missing


class Web:
    """A client, and where its server is. `adds_up()` holds the pool's books and says its statistics."""

    def __init__(self, ca: Authority, url: Callable[..., str]) -> None:
        self._ca = ca
        self._made: list[Client] = []
        self.url = url
        self.client = self.new()

    def new(self, **options: Any) -> Client:
        self._made.append(Client(**{"verify": str(self._ca.pem), "timeout": 30.0, **options}))
        return self._made[-1]

    def adds_up(self, client: Client | None = None) -> PoolStats:
        transport = (client or self.client).transport
        until = time.monotonic() + 5
        # A dial that lost its race is finished by a helper, an answer that was left early is drained by the janitor.
        while (transport.stats().dialing or transport.stats().active) and time.monotonic() < until:
            time.sleep(0.002)
        stats: PoolStats = transport.stats()
        assert (stats.active, stats.dialing, stats.waiting) == (0, 0, 0)
        assert stats.open == stats.idle
        assert stats.opened == stats.open + sum(stats.closed.values())
        return stats

    def close(self) -> None:
        for client in self._made:
            client.close()


@pytest.fixture(params=["plain", "tls"])
def web(request: pytest.FixtureRequest, ca: Authority, nginx: Nginx) -> Iterator[Web]:
    it = Web(ca, lambda target: nginx.url(target, request.param))
    yield it
    it.close()


@pytest.fixture(params=["plain", "tls"])
def echo(request: pytest.FixtureRequest, ca: Authority, pyserver: PyServer, tls_pyserver: PyServer) -> Iterator[Web]:
    it = Web(ca, (tls_pyserver if request.param == "tls" else pyserver).url)
    yield it
    it.close()


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    it = Fleet()
    yield it
    it.close()


class Site(Web):
    """A server of the matrix, and a client that has sent it nothing yet."""

    def __init__(self, ca: Authority, server: Server) -> None:
        super().__init__(ca, server.url)
        self.server = server
        self.name = server.name
        self._closed = 0

    def closed_by(self, r: Response, what: str) -> None:
        """Holds that the server kept the connection after `r`, or said that it would not where that is known of it."""
        said = r.headers.get("connection", "").lower() == "close"
        assert said == (what in of(self.name, "closes after")), (what, r.headers)
        self._closed += said

    def opened_once(self) -> None:
        """One connection, but for those that the server is known to end."""
        stats = self.adds_up()
        assert (stats.closed["not_reusable"], stats.dials) == (self._closed, stats.opened), str(stats)
        assert stats.opened == max(1, self._closed + stats.open), str(stats)


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, ca: Authority, fleet: Fleet) -> Iterator[Site]:
    if reason := missing(request.param):
        pytest.skip(reason)
    it = Site(ca, fleet[request.param])
    yield it
    it.close()
