"""Requests of the main thread that stall, phase by phase, and the signals that meet them there."""
from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

from tests.deadlines.runs import CASES, Case, Run, Stage
from tests.support.peer import PATIENCE

# The stalls of the deadlines' tests, each once: which limit would end it does not matter here.
STALLS = [case for case in CASES if case.limit == "total"]


def asleep(thread: int) -> bool:
    """Whether the thread of that native id waits."""
    with open(f"/proc/self/task/{thread}/stat") as f:
        return f.read().rpartition(")")[2].split()[0] == "S"


class Bell(threading.Thread):
    """Rings, by `ring()`, once `met()` is true and the main thread waits (`still`); `rung` is when. `every`: again and again, in seconds."""

    def __init__(self, met: Callable[[], object], ring: Callable[[], object], every: float | None = None, still: bool = True) -> None:
        super().__init__(name="bell", daemon=True)
        self.met = met
        self.ring = ring
        self.still = still
        self.every = every
        self.over = threading.Event()
        self.rung = 0.0
        self.main = threading.main_thread().native_id or 0

    def run(self) -> None:
        until = time.monotonic() + PATIENCE
        while not (self.met() and (not self.still or asleep(self.main))):
            if self.over.wait(0.001) or time.monotonic() > until:
                return
        self.rung = time.monotonic()
        self.ring()
        while self.every is not None and not self.over.wait(self.every):
            self.ring()

    def __enter__(self) -> Bell:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        self.join()


_numbers = itertools.count()


def new_run(stage: Stage, case: Case, seconds: float = PATIENCE) -> Run:
    run = Run(case, seconds, f"r{next(_numbers)}")
    stage.set_up(run)
    return run


def troubles(run: Run) -> list[str]:
    """What is not as it should be afterwards: the connection gone and counted, the sums right, the client at work again."""
    # Between two reads of a stream the exception is raised in the caller's own code, and the block's end closes the response.
    run.reasons = ("cancelled", "drain_limit") if run.case.how in ("iter_bytes", "read", "readinto") else ("cancelled",)
    run.look()
    return run.outcome.trouble


def shown(runs: list[float]) -> list[str]:
    return [f"{seconds * 1e3:.1f} ms" for seconds in runs]


