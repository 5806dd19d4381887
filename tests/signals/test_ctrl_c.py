"""Ctrl-C, and any handler that raises: in each phase the exception is the caller's within 100 ms, and nothing is left of the request."""
from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.deadlines.runs import Case, Run, Stage, stage
from tests.signals.phases import STALLS, Bell, new_run, shown, troubles
from tests.support.ca import Authority

TIMES = 3             # meetings, of which the median counts
SOON = 0.1
ROUNDS = 3            # of TIMES meetings: something else may have the processors
BOUND = 3.0           # seconds for each of them, however busy the machine


def interrupt() -> None:
    """As Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_elsewhere() -> None:
    """As Ctrl-C does where the kernel gives it to another thread."""
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)


@pytest.fixture
def place(ca: Authority) -> Iterator[Stage]:
    with stage(ca) as it:
        yield it


def strike(run: Run, ring: Callable[[], None], error: type[BaseException]) -> float:
    """Seconds from the signal to the exception."""
    with Bell(run, ring) as bell:
        try:
            run.call()
        except error:
            caught = time.monotonic()
        else:
            pytest.fail("nothing was raised")
    assert bell.rung, "the bell did not ring"
    return caught - bell.rung


def check(place: Stage, case: Case, ring: Callable[[], None], error: type[BaseException]) -> None:
    for n in range(ROUNDS):
        took = []
        for i in range(TIMES):
            run = new_run(place, case, f"r{n}-{i}")
            took.append(strike(run, ring, error))
            assert troubles(run) == []
        assert max(took) < BOUND, shown(took)
        if statistics.median(took) < SOON:
            return
    pytest.fail(f"late in {ROUNDS} rounds, the last: {shown(took)}")


@pytest.mark.parametrize("case", STALLS, ids=str)
def test_ctrl_c(place: Stage, case: Case) -> None:
    check(place, case, interrupt, KeyboardInterrupt)


@pytest.mark.parametrize("case", STALLS, ids=str)
def test_ctrl_c_that_another_thread_is_given(place: Stage, case: Case) -> None:
    """Nothing breaks the main thread's wait: as where a signal arrives just before the wait begins."""
    check(place, case, interrupt_elsewhere, KeyboardInterrupt)
