"""Clients whose transport is closed, and whose counts are added up, at the test's end."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pooledhttp import Client, Transport
from tests.exchange.support import adds_up
from tests.support.peer import Peer, Script

MakeClient = Callable[..., Client]
MakePeer = Callable[..., Peer]


@pytest.fixture
def new_client() -> Iterator[MakeClient]:
    """`new_client(timeout=..., **transport_options)`: a client over a transport of its own. Nothing hangs for longer than the test's patience."""
    made: list[Transport] = []

    def make(*, timeout: Any = 10.0, **options: Any) -> Client:
        made.append(Transport(**options))
        return Client(transport=made[-1], timeout=timeout)

    yield make
    for transport in made:
        transport.close()
        adds_up(transport.stats())


@pytest.fixture
def client(new_client: MakeClient) -> Client:
    return new_client()


@pytest.fixture
def unix(peer: MakePeer, new_client: MakeClient, tmp_path: Path) -> Callable[..., tuple[Peer, Client]]:
    """`unix(script)`: a peer on a Unix socket, where a script can wait until what it sent was received, and a client for it."""

    def make(script: Script, **options: Any) -> tuple[Peer, Client]:
        path = tmp_path / "peer.sock"
        return peer(script, uds=path), new_client(uds=str(path), **options)

    return make
