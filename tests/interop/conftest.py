"""Real servers, each in the clear and over TLS."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pooledhttp import Client, PoolStats, Response, features
from tests.interop.differences import of, reason
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
def fleet(ca: Authority) -> Iterator[Fleet]:
    it = Fleet(ca.issue())
    yield it
    it.close()


VERSIONS = {"h1": "HTTP/1.1", "h2c": "HTTP/2", "h2": "HTTP/2"}


def sites(*hows: str, door: str = "main") -> list[Any]:
    """What `site` can be: each server that speaks so (see Server.door) and has such doors."""
    return [pytest.param((name, how), id=name if how == "h1" else f"{name}-{how}")
            for how in hows for name, kind in KINDS.items() if how in kind.speaks and door in kind.doors]


def untried(name: str, how: str) -> str | None:
    if VERSIONS[how] == "HTTP/2" and not features()["http2"]:
        return "this build has no libnghttp2"
    return missing(name)


class Site(Web):
    """A server of the matrix, how it is spoken to, and a client that has sent it nothing yet."""

    def __init__(self, ca: Authority, server: Server, how: str = "h1") -> None:
        self.how = how
        self.server = server
        self.name = server.name
        self.version = VERSIONS[how]
        self._closed = 0
        super().__init__(ca, lambda target, keep="main": server.url(target, server.door(how, keep)))

    def new(self, **options: Any) -> Client:
        return super().new(**({"http2": "prior-knowledge", **options} if self.how == "h2c" else options))

    def of(self, what: str) -> Any:
        return of(self.name, what, self.how)

    def needs(self, route: str) -> None:
        if route in self.of("lacks"):
            pytest.skip(reason(self.name, "lacks", self.how))

    def closed_by(self, r: Response, what: str) -> None:
        """Holds that the server kept the connection after `r`, or said that it would not where that is known of it."""
        said = r.headers.get("connection", "").lower() == "close"
        assert said == (what in self.of("closes after")), (what, r.headers)
        self._closed += said

    def opened_once(self) -> None:
        """One connection, but for those that the server is known to end."""
        stats = self.adds_up()
        assert (stats.closed["not_reusable"], stats.dials) == (self._closed, stats.opened), str(stats)
        assert stats.opened == max(1, self._closed + stats.open), str(stats)


@pytest.fixture(params=sites("h1", "h2c", "h2"))
def site(request: pytest.FixtureRequest, ca: Authority, fleet: Fleet) -> Iterator[Site]:
    name, how = request.param
    if why := untried(name, how):
        pytest.skip(why)
    it = Site(ca, fleet[name], how)
    yield it
    it.close()
