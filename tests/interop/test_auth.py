"""Authentication by real servers: Apache's mod_auth_digest, and basic by Apache and nginx."""
from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from pooledhttp import BasicAuth, Client, DigestAuth, NetRCAuth
from pooledhttp.auth import AuthTypes
from tests.support.servers.base import Server
from tests.support.servers.guarded import PASSWORD, USER, GuardedApache, GuardedNginx
from tests.support.servers.routes import SIZES, content

NAME = next(iter(SIZES))


@pytest.fixture(scope="module")
def apache() -> Iterator[Server]:
    if reason := GuardedApache.missing():
        pytest.skip(reason)
    yield from _running(GuardedApache())


@pytest.fixture(scope="module")
def nginx_guarded() -> Iterator[Server]:
    yield from _running(GuardedNginx())


def _running(server: Server) -> Iterator[Server]:
    try:
        server.ready()
        yield server
    finally:
        server.close()


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(max_idle_conns=20, timeout=30.0) as client:
        yield client


@pytest.mark.parametrize("place", ["digest", "next"])
def test_digest(apache: Server, client: Client, place: str) -> None:
    client.auth = DigestAuth(USER, PASSWORD)
    r = client.get(apache.url(f"/{place}/{NAME}?q=a%20b"))
    assert (r.status_code, r.content, [h.status_code for h in r.history]) == (200, content(NAME), [401])
    assert ("nextnonce" in r.headers["Authentication-Info"]) == (place == "next")
    for _ in range(5):
        r = client.get(apache.url(f"/{place}/{NAME}"))
        assert (r.status_code, r.history) == (200, [])
    assert client.head(apache.url(f"/{place}/{NAME}")).history == []
    assert client.post(apache.url(f"/{place}/{NAME}"), content=b"x" * 100_000).history == []
    assert client.transport.stats().opened == 1


def test_digest_with_a_wrong_password(apache: Server, client: Client) -> None:
    r = client.get(apache.url(f"/digest/{NAME}"), auth=DigestAuth(USER, "wrong"))
    assert (r.status_code, [h.status_code for h in r.history]) == (401, [401])
    assert client.get(apache.url(f"/digest/{NAME}"), auth=DigestAuth("nobody", PASSWORD)).status_code == 401
    assert client.get(apache.url(f"/digest/{NAME}"), auth=(USER, PASSWORD)).status_code == 401
    assert client.transport.stats().opened == 1


@pytest.mark.parametrize("place", ["digest", "next"])
def test_digest_by_threads(apache: Server, client: Client, place: str) -> None:
    client.auth = DigestAuth(USER, PASSWORD)
    url = apache.url(f"/{place}/{NAME}")
    assert client.get(url).ok
    statuses: list[tuple[int, int]] = []

    def work() -> None:
        for _ in range(10):
            r = client.get(url)
            statuses.append((r.status_code, len(r.history)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [(200, 0)] * 80


def test_basic(apache: Server, nginx_guarded: Server, client: Client, tmp_path: Path) -> None:
    for server in (apache, nginx_guarded):
        url = server.url(f"/basic/{NAME}")
        netrc = tmp_path / "netrc"
        netrc.write_text(f'machine 127.0.0.1 login {USER} password "{PASSWORD}"\n')
        kinds: list[AuthTypes] = [(USER, PASSWORD), BasicAuth(USER, PASSWORD)]
        if sys.version_info >= (3, 11):                  # the standard library's reader knows quotes since then
            kinds.append(NetRCAuth(netrc))
        for auth in kinds:
            r = client.get(url, auth=auth)
            assert (r.status_code, r.content) == (200, content(NAME))
        assert client.get(url.replace("://", f"://{quote(USER)}:{quote(PASSWORD)}@")).status_code == 200
        for refused in (client.get(url), client.get(url, auth=(USER, "wrong")), client.get(url, auth=DigestAuth(USER, PASSWORD))):
            assert (refused.status_code, refused.history) == (401, [])
    assert client.transport.stats().opened == 2
