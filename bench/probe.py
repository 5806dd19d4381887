"""One client, asked to do one thing after another: `python -m bench.probe CLIENT TASK`, TASK as JSON.

Says `{"version": ...}`, then for each line on standard input, `{"do": NAME, ...}` with the arguments of one of the functions here, what came of it; or
`{"error": ...}`, which is the last. The end of standard input ends it.
"""
from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import threading
import time
from typing import Any

from bench.peers import Fetch, Peer, make
from bench.peers.base import Get
from bench.scenarios import Task
from bench.worker import PATIENCE, WrongAnswer, say


class Hands:
    def __init__(self, client: str, task: Task) -> None:
        self._client, self._task = client, task
        self._peer: Peer | None = None
        self._get: Get | None = None
        self._fetch: Fetch | None = None
        self._opened = 0

    def peer(self) -> Peer:
        if self._peer is None:
            self._peer = make(self._client, self._task)
        return self._peer

    def gets(self, times: int) -> dict[str, Any]:
        """So many requests, one after the other."""
        if self._get is None:
            self._get = self.peer().session()
        get, size = self._get, self._task.scenario.size
        began = time.perf_counter()
        for _ in range(times):
            if len(get()) != size:
                raise WrongAnswer("a body of another length")
        return {"seconds": time.perf_counter() - began}

    def warm(self, url: str, size: int, times: int) -> dict[str, Any]:
        """So many requests for `url`, of the origin in hand."""
        if self._fetch is None:
            self._fetch = self.peer().fetch()
        for _ in range(times):
            if len(self._fetch(url)) != size:
                raise WrongAnswer("a body of another length")
        return {}

    def hold(self, hosts: int, seconds: float) -> dict[str, Any]:
        """Fetches from the first `hosts` of the origins, those from which it did not yet, so that a connection to each idles. Stops after `seconds`."""
        if self._fetch is None:
            self._fetch = self.peer().fetch()
        fetch, size, until = self._fetch, self._task.scenario.size, time.perf_counter() + seconds
        while self._opened < hosts and time.perf_counter() < until:
            if len(fetch(origin(self._task.url, self._opened))) != size:
                raise WrongAnswer("a body of another length")
            self._opened += 1
        return {"held": self._opened}

    def cost(self, seconds: float) -> dict[str, Any]:
        """Microseconds of a request to one of the origins, the median of batches; and of this process's processor time, all together."""
        assert self._fetch is not None
        fetch, url, until = self._fetch, origin(self._task.url, self._opened // 2), time.perf_counter() + seconds
        times: list[float] = []
        cpu = time.process_time()
        while time.perf_counter() < until or not times:
            began = time.perf_counter()
            for _ in range(10):
                fetch(url)
            times.append((time.perf_counter() - began) / 10)
        return {"us": statistics.median(times) * 1e6, "cpu_us": (time.process_time() - cpu) / len(times) / 10 * 1e6}

    def upload(self, path: str) -> dict[str, Any]:
        peer, size = self.peer(), os.stat(path).st_size
        began = time.perf_counter()
        answer = peer.upload(path)
        seconds = time.perf_counter() - began
        if int(bytes(memoryview(answer))) != size:        # type: ignore[arg-type]
            raise WrongAnswer("the server did not get as many bytes as the file has")
        return {"seconds": seconds}

    def spike(self, threads: int, each: int) -> dict[str, Any]:
        """A client without connections, and so many threads that begin at one moment, each with `each` requests one after the other."""
        peer = make(self._client, self._task)
        size, firsts, ends, errors = self._task.scenario.size, [0.0] * threads, [0.0] * threads, []
        gate = threading.Barrier(threads + 1)

        def work(i: int) -> None:
            try:
                get = peer.session()
                gate.wait(PATIENCE)
                for n in range(each):
                    if len(get()) != size:
                        raise WrongAnswer("a body of another length")
                    ends[i] = time.perf_counter()
                    if n == 0:
                        firsts[i] = ends[i]
            except Exception as exc:             # it is reported
                errors.append(f"{type(exc).__name__}: {exc}")
                gate.abort()

        workers = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(threads)]
        for worker in workers:
            worker.start()
        try:
            gate.wait(PATIENCE)
        except threading.BrokenBarrierError:
            raise WrongAnswer(errors[0] if errors else "its threads do not start") from None
        began = time.perf_counter()
        until = began + PATIENCE
        for worker in workers:
            worker.join(max(0.0, until - time.perf_counter()))
        if errors or any(worker.is_alive() for worker in workers):
            raise WrongAnswer(errors[0] if errors else f"a request took more than {PATIENCE:.0f} s")
        return {"first_ms": (statistics.median(firsts) - began) * 1000, "last_ms": (max(ends) - began) * 1000}


def origin(url: str, i: int) -> str:
    """The URL on the i-th of the addresses from 127.0.0.1 on."""
    return url.replace("127.0.0.1", f"127.{i // 62500}.{i // 250 % 250}.{i % 250 + 1}", 1)


def main() -> None:
    try:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        hands = Hands(sys.argv[1], Task.from_json(json.loads(sys.argv[2])))
        say({"version": hands.peer().version()})
        for line in sys.stdin:
            order = json.loads(line)
            say(getattr(hands, order.pop("do"))(**order))
    except Exception as exc:
        say({"error": str(exc) if isinstance(exc, WrongAnswer) else f"{type(exc).__name__}: {exc}"})
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
