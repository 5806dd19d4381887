"""Fixtures: sessions and clients of the other libraries, over our transports."""
from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import requests

from pooledhttp.adapters.httpx import PooledTransport
from pooledhttp.adapters.requests import PooledAdapter


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def adapter() -> PooledAdapter:
    return PooledAdapter()


@pytest.fixture
def session(adapter: PooledAdapter) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        yield session


@pytest.fixture
def transport() -> PooledTransport:
    return PooledTransport()


@pytest.fixture
def client(transport: PooledTransport) -> Iterator[httpx.Client]:
    with httpx.Client(transport=transport) as client:
        yield client
