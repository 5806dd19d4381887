"""Fixtures of the client's tests."""
from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pooledhttp import Client

from .server import Server, Spy


@pytest.fixture(scope="session")
def session_server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server(session_server: Server) -> Iterator[Server]:
    session_server.release.clear()
    yield session_server
    session_server.release.set()


@pytest.fixture
def spy() -> Iterator[Spy]:
    spy = Spy()
    yield spy
    spy.close()


@pytest.fixture
def client(spy: Spy) -> Iterator[Client]:
    with Client(transport=spy) as client:
        yield client
