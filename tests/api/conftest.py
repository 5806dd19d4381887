"""Fixtures of the client's tests."""
from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import settings

from pooledhttp import Client, default_transport

from .server import Server, Spy

# The same examples each time, and none failed by a slow machine.
settings.register_profile("api", deadline=None, derandomize=True)
settings.load_profile("api")


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
    yield session_server
    default_transport().close_idle_connections()
    session_server.reset()


@pytest.fixture
def spy(server: Server) -> Iterator[Spy]:      # made after the server: closed before it looks whether it is alone
    spy = Spy()
    yield spy
    spy.close()


@pytest.fixture
def client(spy: Spy) -> Iterator[Client]:
    with Client(transport=spy) as client:
        yield client
