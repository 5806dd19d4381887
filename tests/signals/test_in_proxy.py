"""Ctrl-C while a proxy is asked."""
from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from pooledhttp import Client
from tests.exchange.support import adds_up
from tests.signals.phases import Bell
from tests.support.ca import Authority
from tests.support.stalled_proxies import STALLS, Stalled


@pytest.mark.parametrize("stalled", STALLS, ids=lambda s: s.name)
def test_ctrl_c(stalled: Stalled, ca: Authority, new_client: Callable[..., Client]) -> None:
    with stalled.start(ca) as proxy:
        client = new_client(proxy=stalled.url(proxy), verify=str(ca.pem))
        with Bell(lambda: stalled.met(proxy), lambda: os.kill(os.getpid(), signal.SIGINT)) as bell:
            with pytest.raises(KeyboardInterrupt):
                client.get("https://127.0.0.1:9/")
            caught = time.monotonic()
        assert caught - bell.rung < 0.25
        stats = client.transport.stats()
        assert (stats.dials, stats.dialing, stats.opened) == (1, 0, 0)
        adds_up(stats)
