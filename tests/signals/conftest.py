"""The exchange's fixtures serve here too; and a signal whose handler raises."""
from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.exchange.conftest import client, new_client, unix

__all__ = ["Alarm", "alarmed", "client", "new_client", "unix"]


class Alarm(BaseException):
    """What the handler raises; no exception that anything but these tests knows."""


@pytest.fixture
def alarmed() -> Iterator[None]:
    """SIGUSR1 raises `Alarm`, wherever the main thread is."""

    def ring(*_: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGUSR1, ring)
    yield
    signal.signal(signal.SIGUSR1, before)
