"""All servers of the matrix, each started once, when it is first asked for."""
from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from tests.support.servers.apache import Apache
from tests.support.servers.base import Server
from tests.support.servers.caddy import Caddy
from tests.support.servers.cheroot import Cheroot
from tests.support.servers.granian import Granian
from tests.support.servers.gunicorn import Gunicorn
from tests.support.servers.h2o import H2o
from tests.support.servers.haproxy import Haproxy
from tests.support.servers.hypercorn import Hypercorn
from tests.support.servers.lighttpd import Lighttpd
from tests.support.servers.nghttpd import Nghttpd
from tests.support.servers.nginx import Nginx
from tests.support.servers.uvicorn import Uvicorn
from tests.support.servers.varnish import Varnish
from tests.support.servers.waitress import Waitress

KINDS: dict[str, type[Server]] = {kind.name: kind for kind in (
    Nginx, Haproxy, Apache, Lighttpd, Caddy, H2o, Varnish, Gunicorn, Uvicorn, Granian, Hypercorn, Waitress, Cheroot, Nghttpd)}


def missing(name: str) -> str | None:
    """Why `name` cannot be tried here. What comes from the Python package index is always there: `make test` installs it."""
    kind = KINDS[name]
    if kind.find() is not None:
        return None
    say = f"{kind.binary} of the {'Python' if kind.python else 'Debian'} package {kind.package} is not installed"
    if kind.python:
        raise RuntimeError(say)
    return say


class Fleet:
    """`fleet[name]` is running and ready; `all(names)` are, started side by side. With a certificate and its key they speak TLS too."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self._certificate = certificate
        self._started: dict[str, Server] = {}

    def __getitem__(self, name: str) -> Server:
        server = self._start(name)
        server.ready()
        return server

    def all(self, names: Iterable[str]) -> dict[str, Server]:
        names = list(names)
        for name in names:
            self._start(name)
        return {name: self[name] for name in names}

    def another(self, name: str, *doors: str) -> Server:
        """One that is the caller's own to stop."""
        kind = KINDS[name]
        server = kind(self[kind.before].port["main"] if kind.before else 0, doors or None, self._certificate)
        try:
            server.ready()
        except BaseException:
            server.close()
            raise
        return server

    def close(self) -> None:
        for server in self._started.values():
            server.close()
        self._started.clear()

    def _start(self, name: str) -> Server:
        if name not in self._started:
            kind = KINDS[name]
            backend = self[kind.before].port["main"] if kind.before else 0
            self._started[name] = kind(backend, None, self._certificate)
        return self._started[name]


if __name__ == "__main__":              # starts those that are named, says where, and waits to be stopped
    fleet = Fleet()
    try:
        for name in sys.argv[1:]:
            print(name, fleet[name].port, fleet[name].directory, flush=True)
        sys.stdin.read()
    finally:
        fleet.close()
