"""A stress run: rounds of requests by many threads on one client, with everything else that happens in a process going on beside them.

Beside the threads: the main one makes requests too, interrupted by SIGALRM, and forks now and then, the child making requests on the client it inherited; a
monitor reads `stats()` at random moments, closes what idles, sends everybody to one host. After each round, when all is quiet, what every
request came to is held against the server's log, and the pool's counts against both.
"""
from __future__ import annotations

import dataclasses
import faulthandler
import gc
import json
import os
import random
import resource
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from pooledhttp import Client, PoolStats
from tests.stress.ledger import Ledger
from tests.stress.server import Server, resident
from tests.stress.work import Worker
from tests.support import leaks

HANG = 60.0                # seconds without a request's end
QUIET = 20.0               # seconds for what is left of a round to end
CHILD = 30                 # requests of a forked child
GRACE = 0.25               # seconds that a connection's close may take to be seen by a server on a busy machine
FLAT = 16 << 20            # bytes that the process may grow by in the last three quarters of a run, and
FLATNESS = 1.15            # how much by this share: threads' heaps fill up slowly


@dataclasses.dataclass
class Options:
    threads: int = 64
    requests: int = 20_000           # a thread and round
    hosts: int = 8
    tls: int = 2
    limit: int = 8
    seed: int = 1
    faults: float = 100.0
    minutes: float = 0.0             # rounds until then; 0: one
    forks: bool = True
    signals: bool = True


class Rang(Exception):
    """What the main thread's SIGALRM handler raises."""


class Main:
    """The main thread's part of a round."""

    def __init__(self, run: Run, worker: Worker, numbers: range) -> None:
        self.run, self.worker, self.numbers = run, worker, numbers
        self.dice = random.Random(f"{run.options.seed} main {run.round}")
        self.at = numbers.start
        self.armed = False
        self.rung = self.interrupted = 0

    def ring(self, *_: object) -> None:
        self.rung += 1
        signal.setitimer(signal.ITIMER_REAL, self.dice.uniform(0.001, 0.05))
        if self.armed:
            self.armed = False
            raise Rang

    def turn(self) -> bool:
        """Some requests, or a fork; False where no number is left."""
        if self.numbers.stop - self.at <= CHILD:
            return False
        if self.run.options.forks and self.dice.random() < 0.02:
            self.run.fork(range(self.at, self.at + CHILD))
            self.at += CHILD
            return True
        at, room = self.at, min(20, self.numbers.stop - self.at)
        try:
            self.armed = self.run.options.signals and self.dice.random() < 0.5
            self.at += self.worker.step(at, room)
            self.armed = False
        except Rang:
            # Whatever it was in the midst of: what it had begun is ABANDONED, and its numbers are spent.
            self.interrupted += 1
            self.at = at + room
        return True


class Run:
    def __init__(self, options: Options, directory: Path) -> None:
        self.options = options
        o = options
        self.mains = max(200, o.threads * o.requests // 40)
        self.ledger = Ledger(o.threads * o.requests + self.mains)
        self.server = Server(directory, hosts=o.hosts, tls=o.tls, limit=o.limit, seed=o.seed, faults=o.faults, ids=self.ledger.ids)
        self.urls = [self.server.url(host) for host in range(o.hosts)]
        # A forked child asks these alone: OpenSSL has locks that another thread may have held when it was forked, and nobody gives back.
        self.plain = self.urls[:o.hosts - o.tls] or self.urls
        self.round = 0
        self.hot = -1
        self.done = [0] * (o.threads + 1)
        self.stop = threading.Event()
        self.forked: list[tuple[int, int]] = []         # when a child of ours lived, in ns
        self.total: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.over_peak, self.over_longest = 0, 0.0
        self.memory: list[tuple[float, int]] = []       # when (s), and bytes
        self.broken: set[int] = set()                   # what children that failed were to ask
        self.client = Client(verify=str(self.server.authority.pem), timeout=60.0, max_conns_per_host=o.limit)

    # --- beside the threads ------------------------------------------------------------------------------------------------

    def look(self) -> PoolStats:
        """Whatever is going on: it adds up."""
        stats: PoolStats = self.client.transport.stats()
        for row in (stats, *stats.hosts.values()):
            if (row.opened != row.open + sum(row.closed.values()) or row.open != row.idle + row.active or row.dials < row.opened + row.dialing
                    or min(row.idle, row.active, row.dialing, row.waiting, row.leaked) < 0):
                self.ledger.complain("stats() does not add up", str(stats))
        for row in stats.hosts.values():
            if row.open > self.options.limit:
                self.ledger.complain("stats() has more connections than the limit", str(stats))
        self.total["looks"] += 1
        return stats

    def monitor(self) -> None:
        o = self.options
        dice = random.Random(f"{o.seed} monitor {self.round}")
        last, since = -1, 0.0
        while not self.stop.wait(dice.uniform(0.0, 0.03)):
            self.look()
            if dice.random() < 0.03:
                self.client.transport.close_idle_connections()
                self.total["close_idle_connections"] += 1
            if dice.random() < 0.05:
                self.hot = dice.randrange(o.hosts) if dice.random() < 0.3 else -1
            now, done = time.monotonic(), sum(self.done)
            if now - since > 1.0 and done != last:
                faulthandler.dump_traceback_later(HANG, exit=True)
                last, since = done, now
                self.memory.append((now, resident()))

    def fork(self, numbers: range) -> None:
        """A child that makes `numbers` requests, and says what became of them."""
        for i in numbers:
            self.ledger.issue(i, 0, False)
        read, write = os.pipe()
        began = time.monotonic_ns()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)      # 3.12 warns of forks in a process with threads, which is the point
            pid = os.fork()
        if pid == 0:
            self._child(numbers, write)
        os.close(write)
        said = b""
        while block := os.read(read, 65536):
            said += block
        os.close(read)
        status = os.waitpid(pid, 0)[1]
        self.forked.append((began, time.monotonic_ns()))
        self.total["forks"] += 1
        if status or not said:
            self.ledger.complain("a forked child failed", f"status {status}: {said.decode()}")
            self.broken.update(numbers)
            return
        report = json.loads(said)
        self.ledger.adopt(report["entries"])
        for text in report["wrong"]:
            self.ledger.complain("in a forked child", text)
        for name in ("opened", "dials", "retries"):
            self.total[f"children's {name}"] += report[name]

    def _child(self, numbers: range, write: int) -> None:
        """Never returns. Only this thread is here; nothing of the parent's is to be touched."""
        code = 1
        try:
            # Not by dump_traceback_later: it would wait for the parent's watchdog.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            faulthandler.register(signal.SIGALRM, chain=True)
            signal.setitimer(signal.ITIMER_REAL, HANG / 2)
            ledger, stats = self.ledger, self.client.transport.stats()
            for i in numbers:
                ledger.outcome[i] = 0
            ledger.wrong.clear()
            ledger.complaints.clear()
            if stats.open or stats.dialing or stats.waiting:
                ledger.complain("it holds connections of its parent", str(stats))
            worker = Worker(self.client, self.plain, ledger, random.Random(f"{self.options.seed} child {numbers.start}"), lambda: -1)
            at = numbers.start
            while at < numbers.stop:
                at += worker.step(at, numbers.stop - at)
            after = self.look()
            report = {"entries": ledger.entries(numbers), "wrong": ledger.wrong,
                      **{name: getattr(after, name) - getattr(stats, name) for name in ("opened", "dials", "retries")}}
            said = json.dumps(report).encode()
            while said:
                said = said[os.write(write, said):]
            code = 0
        except BaseException:
            os.write(write, traceback.format_exc().encode())
        finally:
            os._exit(code)

    # --- a round -----------------------------------------------------------------------------------------------------------

    def crew(self, i: int, start: threading.Barrier) -> None:
        o = self.options
        worker = Worker(self.client, self.urls, self.ledger, random.Random(f"{o.seed} {self.round} {i}"), lambda: self.hot)
        at, end = i * o.requests, (i + 1) * o.requests
        start.wait()
        while at < end:
            at += worker.step(at, end - at)
            self.done[i] = at - i * o.requests
        self.total["leaks"] += worker.leaks
        self.total["checked"] += worker.checked
        self.total["received"] += worker.received

    def one_round(self) -> None:
        o = self.options
        before = leaks.snapshot()
        base = self.look()
        self.done[:] = [0] * len(self.done)
        self.stop.clear()
        faulthandler.dump_traceback_later(HANG, exit=True)
        start = threading.Barrier(o.threads)
        threads = [threading.Thread(target=self.crew, args=(i, start), name=f"worker {i}") for i in range(o.threads)]
        monitor = threading.Thread(target=self.monitor, name="monitor")
        numbers = range(o.threads * o.requests, self.ledger.ids)
        worker = Worker(self.client, self.urls, self.ledger, random.Random(f"{o.seed} {self.round} main"), lambda: self.hot, (Rang,))
        main = Main(self, worker, numbers)
        previous = signal.signal(signal.SIGALRM, main.ring)
        for thread in (*threads, monitor):
            thread.start()
        if o.signals:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        while any(thread.is_alive() for thread in threads):
            if not main.turn():
                threads[0].join(0.1)
                threads = [thread for thread in threads if thread.is_alive()] or threads
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        self.stop.set()
        monitor.join()
        self.memory.append((time.monotonic(), resident()))
        self.total.update({"signals": main.rung, "interrupted": main.interrupted, "leaks": worker.leaks + main.interrupted, "checked": worker.checked})
        self.settle(before, base)
        self.round += 1

    def settle(self, before: leaks.Snapshot, base: PoolStats) -> None:
        """Quiet, and then everything is counted."""
        ledger, transport = self.ledger, self.client.transport
        self._until(lambda: not (s := transport.stats()).active + s.dialing + s.waiting, "the pool is not quiet after the round")
        gc.collect()
        transport.close_idle_connections()
        stats = self.look()
        if stats.open:
            ledger.complain("connections are open after all was closed", str(stats))
        self._until(lambda: not any(self.server.ask("state")["open"]), "the server has connections after all was closed")
        faulthandler.cancel_dump_traceback_later()           # it has a thread
        if left := leaks.check(before):
            ledger.complain("left behind", "; ".join(left))
        state = self.server.ask("state")
        secure = self.server.secure
        kinds, again = ledger.audit((r for r in self.server.records() if r.id not in self.broken), secure)
        self.kinds += kinds
        outcomes = ledger.outcomes()
        never = outcomes.pop("never", 0)
        self.outcomes += outcomes
        self.total["again"] += again
        made = ledger.ids - never - CHILD * len(self.forked)
        requests = stats.requests - base.requests
        if not made - outcomes["abandoned"] <= requests <= made:
            ledger.complain("stats() counts other requests than were made", f"{requests}; {made} made, {outcomes['abandoned']} of them abandoned")
        if not stats.opened <= sum(state["accepted"]) - self.total["children's opened"]:
            ledger.complain("stats() counts connections that the server never saw", f"{stats.opened}, {state['accepted']}, {self.total}")
        if sum(state["accepted"]) > stats.dials + self.total["children's dials"]:
            ledger.complain("the server saw connections that stats() does not count", f"{stats.dials}, {state['accepted']}, {self.total}")
        if again > stats.retries - base.retries + self.total["children's retries"]:
            ledger.complain("the server saw more retries than stats() counts", f"{again}, {stats.retries - base.retries}")
        if stats.leaked > self.total["leaks"]:
            ledger.complain("stats() counts more leaks than there were", f"{stats.leaked}, {self.total['leaks']}")
        self._overs(state["overs"])
        self.server.ask("round")
        self.forked.clear()
        self.broken.clear()
        ledger.clear()

    def _overs(self, overs: list[tuple[int, int, int, int]]) -> None:
        """A forked child has copies of its parent's sockets for a moment, and connections of its own: while one lives, the limit is not looked at."""
        for host, peak, since, until in overs:
            if any(since < gone and (until or since) > began for began, gone in self.forked):
                continue
            self.total["overs"] += 1
            took = (until - since) / 1e9 if until else float("inf")
            self.over_peak, self.over_longest = max(self.over_peak, peak), max(self.over_longest, took)
            if took > GRACE:
                self.ledger.complain("more connections to a host than the limit", f"{peak} to host {host} for {took:.3f} s")

    def _until(self, true: Any, what: str) -> None:
        end = time.monotonic() + QUIET
        while not true():
            if time.monotonic() > end:
                self.ledger.complain(what, str(self.client.transport.stats()))
                return
            time.sleep(0.002)

    # --- all of it ---------------------------------------------------------------------------------------------------------

    def _memory(self) -> tuple[int, int]:
        """After a quarter of the time, and at the end, in bytes."""
        began, ended = self.memory[0][0], self.memory[-1][0]
        early = next(size for when, size in self.memory if when >= began + (ended - began) / 4)
        return early, self.memory[-1][1]

    def _unraisable(self, failed: Any) -> None:
        """A handler's exception in a finalizer is Python's to drop; any other is a bug."""
        if failed.exc_type is Rang:
            self.total["dropped by finalizers"] += 1
        else:
            self.ledger.complain("an exception that nobody could raise", repr(failed))

    def all(self) -> dict[str, Any]:
        o = self.options
        warnings.simplefilter("ignore", ResourceWarning)
        faulthandler.enable()
        sys.unraisablehook = self._unraisable
        threading.excepthook = lambda failed: self.ledger.complain("a thread's end", repr(failed))
        leaks.warm()
        began = time.monotonic()
        while self.round == 0 or (time.monotonic() - began < o.minutes * 60 and not self.ledger.wrong):
            self.one_round()
            if o.minutes:
                print(f"round {self.round}: {sum(self.outcomes.values())} requests, {resident() >> 20} MiB", file=sys.stderr, flush=True)
        seconds = time.monotonic() - began
        stats = self.client.transport.stats()
        self.client.close()
        early, late = self._memory()
        if (o.threads * o.requests >= 200_000 or o.minutes >= 5) and late > early * FLATNESS + FLAT:
            self.ledger.complain("memory is not flat", f"{early >> 20} MiB after a quarter, {late >> 20} MiB at the end")
        return {
            **dataclasses.asdict(o), "requests_made": sum(self.outcomes.values()), "rounds": self.round, "seconds": round(seconds, 1),
            "per_second": round(sum(self.outcomes.values()) / seconds), "outcomes": dict(self.outcomes.most_common()),
            "faults_injected": dict(self.kinds.most_common()),
            "events": dict(self.total), "pool": {name: getattr(stats, name) for name in ("opened", "dials", "reuses", "waits", "retries", "leaked")},
            "closed": {reason: n for reason, n in stats.closed.items() if n}, "over_limit": {"peak": self.over_peak, "longest": self.over_longest},
            "memory": {"at_25_percent": early, "at_end": late, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024},
            "complaints": dict(self.ledger.complaints), "wrong": self.ledger.wrong}
