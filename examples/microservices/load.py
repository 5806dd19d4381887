"""A load that does not wait: request number n is due at n / rate seconds, and its time is counted from then.

Only the first one goes alone, and the clock starts at its answer: a process that was just started loads what it needs by it.
"""
from __future__ import annotations

import threading
import time
from queue import SimpleQueue

import pooledhttp

THREADS = 48


class Load:
    """`rate` requests a second to `url`, for `seconds`. `errors` counts what was not answered with 200."""

    def __init__(self, url: str, rate: float, seconds: float) -> None:
        self.url, self.rate, self.seconds = url, rate, seconds
        self.errors = 0
        self.first_error = ""
        self._times: list[float] = []
        self._due: SimpleQueue[tuple[int, float] | None] = SimpleQueue()
        self._client = pooledhttp.Client(transport=pooledhttp.Transport(), timeout=10.0)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(THREADS)]
        self._threads.append(threading.Thread(target=self._clock, daemon=True))
        self._due.put((0, time.monotonic()))
        self._first = threading.Event()
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()

    @property
    def answered(self) -> int:
        return len(self._times)

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def percentile(self, share: float) -> float:
        """Seconds within which this share of the requests was answered."""
        times = sorted(self._times[:])
        return times[min(len(times) - 1, int(len(times) * share))] if times else 0.0

    def stop(self) -> None:
        """Ends at once what is under way."""
        self._stop.set()
        self._first.set()
        for _ in range(THREADS):
            self._due.put(None)
        self._client.transport.close(cancel=True)
        for thread in self._threads:
            thread.join(1.0)

    def _clock(self) -> None:
        self._first.wait()
        self.began = time.monotonic()
        for n in range(1, round(self.rate * self.seconds)):
            due = self.began + n / self.rate
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            self._due.put((n, due))
        for _ in range(THREADS):
            self._due.put(None)

    def _work(self) -> None:
        while (job := self._due.get()) is not None and not self._stop.is_set():
            n, due = job
            try:
                response = self._client.get(f"{self.url}/{n}")
                said = "" if response.status_code == 200 else f"{response.status_code} {response.text}"
            except pooledhttp.Error as error:
                said = f"{type(error).__name__}: {error}"
            if said:
                self.errors += 1
                self.first_error = self.first_error or said
            self._times.append(time.monotonic() - due)
            self._first.set()
