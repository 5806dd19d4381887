"""One client's load, in a process of its own that lives through all rounds of a scenario: `python -m bench.worker CLIENT TASK`, TASK as JSON.

Answers on standard output, a JSON object a line: `{"version": ...}` when threads and connections are warm, then a sample for each line with a number of
seconds on standard input, or `{"error": ...}`, which is the last. The end of standard input ends it.
"""
from __future__ import annotations

import json
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from bench.peers import Get, Peer, make
from bench.scenarios import PERCENTILES, Task, body

PATIENCE = 30.0          # seconds that a thread may take beyond the round's before the round counts as failed


class WrongAnswer(Exception):
    pass


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds by per cent, each the time of a request (nearest rank)."""
    ordered, n = sorted(seconds), len(seconds)
    return {f"{p:g}": ordered[max(0, math.ceil(p * n / 100 - 1e-6) - 1)] * 1000 for p in PERCENTILES}


class Load:
    """The scenario's threads. Between rounds all of them wait."""

    def __init__(self, peer: Peer, task: Task) -> None:
        self._peer, self._scenario = peer, task.scenario
        threads = task.scenario.threads
        self._seconds = self._began = self._end = 0.0
        self._over = False
        self._counts, self._ends = [0] * threads, [0.0] * threads
        self._times: list[list[float]] = [[] for _ in range(threads)]
        self._errors: list[str] = []
        busy = task.scenario.busy
        self._computing = False
        self._start = threading.Barrier(threads + 1 + busy, self._clock)
        self._done = threading.Barrier(threads + 1)
        self._rest = threading.Barrier(2)
        for i in range(threads):
            self._spawn(partial(self._work, i))
        if busy:
            self._spawn(self._compute)

    def round(self, seconds: float) -> dict[str, Any]:
        """Lets all threads run for `seconds`. Returns a `Sample` as data; its seconds last until the last request was through."""
        self._seconds, self._computing = seconds, True
        try:
            cpu = time.process_time()
            self._start.wait(PATIENCE)
            self._done.wait(seconds + PATIENCE)
            cpu = time.process_time() - cpu
            self._computing = False
            if self._scenario.busy:
                self._rest.wait(PATIENCE)
        except threading.BrokenBarrierError:
            self._computing = False
            raise WrongAnswer(self._errors[0] if self._errors else f"a request took more than {PATIENCE:.0f} s") from None
        times = [t for each in self._times for t in each]
        return {"requests": sum(self._counts), "seconds": max(self._ends) - self._began, "cpu_seconds": cpu,
                "median_ms": statistics.median(times) * 1000 if times else None, "percentiles_ms": percentiles(times) if times else None}

    def _clock(self) -> None:
        self._began = time.perf_counter()
        self._end = self._began + self._seconds

    def _spawn(self, run: Callable[[], None]) -> None:
        def safely() -> None:
            try:
                run()
            except threading.BrokenBarrierError:
                return
            except BaseException as exc:             # it is reported, and the process ends
                self._errors.append(f"{type(exc).__name__}: {exc}")
                for barrier in (self._start, self._done, self._rest):
                    barrier.abort()

        threading.Thread(target=safely, daemon=True).start()

    def _work(self, i: int) -> None:
        get = self._peer.session()
        whole = body(self._scenario.size)
        if bytes(memoryview(get())) != whole:        # type: ignore[arg-type]
            raise WrongAnswer("the body is not what the server has")
        run = self._time if self._scenario.timed else self._count
        while True:
            self._start.wait()
            run(i, get, len(whole))
            self._ends[i] = time.perf_counter()
            self._done.wait()

    def _count(self, i: int, get: Get, size: int) -> None:
        clock, end, n, batch = time.perf_counter, self._end, 0, range(self._scenario.batch)
        while clock() < end:
            for _ in batch:
                if len(get()) != size:
                    raise WrongAnswer("a body of another length")
            n += len(batch)
        self._counts[i] = n

    def _time(self, i: int, get: Get, size: int) -> None:
        clock, end, times = time.perf_counter, self._end, self._times[i]
        times.clear()
        while (before := clock()) < end:
            if len(get()) != size:
                raise WrongAnswer("a body of another length")
            times.append(clock() - before)
        self._counts[i] = len(times)

    def _compute(self) -> None:
        x = 1
        while True:
            self._start.wait()
            while self._computing:
                for _ in range(1000):
                    x = (x * 31 + 7) % 1_000_003
            self._rest.wait()


def say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    try:
        task = Task.from_json(json.loads(sys.argv[2]))
        peer = make(sys.argv[1], task)
        load = Load(peer, task)
        load.round(task.warmup)
        say({"version": peer.version()})
        for line in sys.stdin:
            say(load.round(float(line)))
    except Exception as exc:
        say({"error": str(exc) if isinstance(exc, WrongAnswer) else f"{type(exc).__name__}: {exc}"})
        sys.stdout.flush()
    os._exit(0)          # the threads are in the middle of things


if __name__ == "__main__":
    main()
