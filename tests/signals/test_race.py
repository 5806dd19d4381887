"""Interrupts at random moments: between two steps of Python code, just before a wait, in a wait, in another thread."""
from __future__ import annotations

import subprocess
import sys

import pytest

from tests.deadlines.stalls import StallingServer
from tests.support.ca import Authority
from tests.support.processes import ROOT

SECONDS = 3.0


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_storm(ca: Authority, secure: bool) -> None:
    with StallingServer(ca.server() if secure else None) as server:
        done = subprocess.run([sys.executable, "-m", "tests.signals.storm", str(SECONDS), server.url("/ok"), str(ca.pem)], cwd=ROOT,
                              capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert int(done.stdout.split()[0]) > 10
