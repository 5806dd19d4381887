"""Clients that speak HTTP/2 in the clear by prior knowledge; where the build has no HTTP/2 there is nothing to test here."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pooledhttp import Client, features
from tests.exchange.conftest import new_client  # noqa: F401 - a fixture

collect_ignore_glob = [] if features()["http2"] else ["test_*.py"]


@pytest.fixture
def h2c(new_client: Callable[..., Client]) -> Callable[..., Client]:  # noqa: F811
    def make(**options: Any) -> Client:
        return new_client(http2="prior-knowledge", **options)

    return make
