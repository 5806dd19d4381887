"""All phases, all limits: each a `Case`, run several times at once in threads of its own, each on a client of its own."""
from __future__ import annotations

import itertools
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pooledhttp
from pooledhttp import Client, Timeout, errors
from tests.deadlines.stalls import BEGINNINGS, SMALL_BUFFER, StallingServer, half_a_handshake
from tests.support import front
from tests.support.ca import Authority
from tests.support.peer import PATIENCE, Conn, FullBacklog, Peer, respond

TIMES = 3                # runs of a case, of which the median counts
STAGGER = 0.01          # seconds between two starts: what ends at the same moment would wait for the GIL and for each other
NEVER = Timeout(None, pool=None, connect=None, tls_handshake=None, response_header=None, read=None, write=None)

ERROR = {"pool": errors.PoolTimeout, "connect": errors.ConnectTimeout, "tls_handshake": errors.TLSHandshakeTimeout,
         "response_header": errors.ResponseHeaderTimeout, "read": errors.ReadTimeout, "write": errors.WriteTimeout,
         "total": errors.DeadlineExceeded}


@dataclass(frozen=True)
class Case:
    """`where`: the stall. `limit`: the field of `Timeout` that ends it. `how`: the request or the way its body is read."""

    where: str
    limit: str
    phase: str
    tls: bool = False
    how: str = "whole"

    def __str__(self) -> str:
        return f"{'tls-' if self.tls else ''}{self.where}-{self.how}-{self.limit}"


def _cases() -> Iterator[Case]:
    for where, field_of, phase in (("pool", "pool", "pool"), ("dns", "connect", "dns"), ("backlog", "connect", "connect"),
                                   ("silent-handshake", "tls_handshake", "tls"), ("half-handshake", "tls_handshake", "tls")):
        for limit in (field_of, "total"):
            yield Case(where, limit, phase)
            yield Case(where, limit, phase, how="map")
    for tls in (False, True):
        for where, phase in (("head", "headers"), ("body", "body")):
            for limit in ("read", "total"):
                yield Case(where, limit, phase, tls, "map")
        for limit in ("write", "total"):
            for how in ("bytes", "pieces", "map"):
                yield Case("send", limit, "send", tls, how)
        for limit in ("read", "response_header", "total"):
            yield Case("head", limit, "headers", tls)
        for limit in ("response_header", "total"):
            yield Case("head-dribble", limit, "headers", tls)
        for limit in ("read", "total"):
            for how in ("whole", "iter_bytes", "read", "readinto"):
                yield Case("body", limit, "body", tls, how)
            yield Case("chunked", limit, "body", tls)
            yield Case("chunked", limit, "body", tls, "iter_bytes")
            for where in ("until-close", "large", "folded"):
                yield Case(where, limit, "body", tls)
            yield Case("folded-head", limit, "headers", tls)
        for how in ("whole", "iter_bytes"):
            yield Case("body-dribble", "total", "body", tls, how)


CASES = list(_cases())


@dataclass
class Outcome:
    error: BaseException | None = None
    late: float = 0.0            # seconds after the limit; negative: early
    trouble: list[str] = field(default_factory=list)


def lateness(runs: list[Outcome]) -> float:
    return statistics.median(run.late for run in runs)


class Run:
    """One meeting of one client with one stall."""

    def __init__(self, case: Case, seconds: float, name: str) -> None:
        self.case = case
        self.seconds = seconds
        self.name = name
        self.outcome = Outcome()
        self.timeout = Timeout(seconds) if case.limit == "total" else Timeout(None, **_only(case.limit, seconds))
        self.call: Callable[[], Any]
        self.began: Callable[[], float] | None = None           # when the stall did, where that is not the call's own start
        self.met: Callable[[], Any] = lambda: self.client.transport.stats().dialing        # whether the stall has begun
        self.after: Callable[[], Any] = lambda: None            # heals the stall
        self.gone: Callable[[], bool] | None = None             # whether the server saw the connection end
        self.again = ""                                         # what must work then
        self.client: Client
        self.opened = 1
        self.reasons: tuple[str, ...] = ("timeout",)                             # that the connection is closed for, one of them

    def run(self) -> None:
        out = self.outcome
        start = time.monotonic()
        try:
            self.call()
            out.trouble.append("nothing was raised")
        except BaseException as e:  # noqa: B036 - it is looked at by the test
            end = time.monotonic()
            out.error = e.with_traceback(None)          # whose frames would keep what the request held
            e.__cause__ = e.__context__ = None
            out.late = end - (self.began() if self.began is not None else start) - self.seconds
        try:
            self.look()
        except BaseException as e:  # noqa: B036
            out.trouble.append(f"afterwards: {e!r}")

    def look(self) -> None:
        """The connection is gone and the pool is whole."""
        trouble = self.outcome.trouble
        client = self.client
        before = client.transport.stats()
        held = 1 if self.case.where == "pool" else 0
        self.expect("active, dialing, waiting", (before.active, before.dialing, before.waiting), (held, 0, 0))
        self.expect(f"closed for {self.reasons}", sum(before.closed[reason] for reason in self.reasons),
                    1 if self.gone is not None and not front.ON else 0)             # HTTP/2 resets the stream
        self.expect("opened", before.opened, before.open + sum(before.closed.values()))
        self.after()
        if self.gone is not None and not self.gone():
            trouble.append("the server's end of the connection is still open")
        if client.get(self.again, timeout=PATIENCE).content != b"ok":
            trouble.append("the next request was not answered")
        stats = client.transport.stats()
        self.expect("opened in the end", stats.opened, self.opened if self.gone is None or not front.ON else 1)
        self.expect("opened adds up", stats.opened, stats.open + sum(stats.closed.values()))
        self.expect("idle, active, dialing, waiting", (stats.idle, stats.active, stats.dialing, stats.waiting), (stats.open, 0, 0, 0))

    def expect(self, what: str, got: object, wanted: object) -> None:
        if got != wanted:
            self.outcome.trouble.append(f"{what}: {got!r}, not {wanted!r}")


def _only(limit: str, seconds: float) -> dict[str, float | None]:
    limits: dict[str, float | None] = dict.fromkeys(("pool", "connect", "tls_handshake", "response_header", "read", "write"))
    limits[limit] = seconds
    return limits


def get(client: Client, url: str, run: Run) -> object:
    """A plain get, or one by a thread of `map`, which can be cancelled and so waits in another way."""
    return list(client.map([url], timeout=run.timeout)) if run.case.how == "map" else client.get(url, timeout=run.timeout)


def consume(response: pooledhttp.Response, how: str) -> None:
    """Read a body to its end."""
    if how == "iter_bytes":
        for _ in response.iter_bytes():
            pass
    elif how == "read":
        while response.read(4096):
            pass
    else:
        while response.readinto(bytearray(4096)):
            pass


def pieces(n: int, size: int = 65536) -> Iterator[bytes]:
    for _ in range(n):
        yield b"p" * size


class Stage:
    """The servers, and what each run needs of them."""

    def __init__(self, ca: Authority) -> None:
        self.ca = ca
        self.stack = ExitStack()

    @cached_property
    def plain(self) -> StallingServer:
        return self.stack.enter_context(StallingServer())

    @cached_property
    def tls(self) -> StallingServer:
        return self.stack.enter_context(StallingServer(self.ca.server()))

    @cached_property
    def full(self) -> FullBacklog:
        return self.stack.enter_context(FullBacklog())

    def set_up(self, run: Run) -> None:
        case = run.case
        setting = getattr(self, "_" + case.where.partition("-")[0].replace("half", "silent"), self._wire)
        setting(run)

    def client(self, run: Run, **options: Any) -> Client:
        run.client = self.stack.enter_context(Client(verify=str(self.ca.pem), timeout=NEVER, **options))
        return run.client

    def _pool(self, run: Run) -> None:
        client = self.client(run, max_conns_per_host=1)
        self.plain.new(run.name)
        held = client.request("GET", self.plain.url(f"/body/{run.name}"), stream=True, timeout=PATIENCE)
        run.call = lambda: get(client, self.plain.url("/ok"), run)
        run.met = lambda: client.transport.stats().waiting
        run.again = self.plain.url("/ok")
        run.after = held.close
        run.opened = 2

    def _dns(self, run: Run) -> None:
        answer = threading.Event()

        def resolver(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
            if not answer.wait(PATIENCE):
                raise AssertionError("nobody wants the answer")
            return [(socket.AF_INET, ("127.0.0.1", port))]

        client = self.client(run, resolver=resolver)
        # A name of its own: helpers are capped per host, and lookups in flight are shared.
        run.again = f"http://{run.name}.test:{self.plain.port}/ok"
        run.call = lambda: get(client, run.again, run)
        run.after = answer.set

    def _backlog(self, run: Run) -> None:
        client = self.client(run)
        run.call = lambda: get(client, f"http://127.0.0.1:{self.full.port}/", run)
        run.again = self.plain.url("/ok")

    def _silent(self, run: Run) -> None:
        healed, ended = threading.Event(), threading.Event()

        def script(conn: Conn, i: int) -> None:
            if healed.is_set():
                conn.start_tls(self.ca.server())
                conn.recv_head()
                conn.send(respond(b"ok"))
            else:
                if run.case.where == "half-handshake":
                    half_a_handshake(conn, self.ca.server())
                conn.recv_until_closed()
                ended.set()

        peer = self.stack.enter_context(Peer(script))
        client = self.client(run)
        run.again = f"https://127.0.0.1:{peer.port}/"

        def after() -> None:
            if not ended.wait(PATIENCE):
                run.outcome.trouble.append("the server's end of the connection is still open")
            healed.set()

        run.met = lambda: peer.conns and peer.conns[0].received
        run.after = after
        run.call = lambda: get(client, run.again, run)

    def _wire(self, run: Run) -> None:
        """A stall on a warm connection."""
        case = run.case
        server = self.tls if case.tls else self.plain
        stall = server.new(run.name)
        self.stack.callback(stall.done.set)
        url = server.url(f"/{case.where}/{run.name}")
        client = self.client(run, socket_options=SMALL_BUFFER if case.where == "send" else ())
        if client.get(server.url("/ok"), timeout=PATIENCE).content != b"ok":
            raise AssertionError("the connection was not warmed up")
        run.opened = 2
        run.again = server.url("/ok")
        run.met = lambda: stall.began
        run.after = stall.done.set
        run.gone = lambda: stall.gone.wait(PATIENCE)
        if case.limit == "read" and BEGINNINGS[case.where]:
            run.began = lambda: stall.began
        if case.where == "send" and case.how == "map":
            run.call = lambda: list(client.map([pooledhttp.Request("PUT", url, content=bytes(8 << 20))], timeout=run.timeout))
        elif case.where == "send":
            content = bytes(8 << 20) if case.how == "bytes" else None
            run.call = lambda: client.put(url, content=content if content is not None else pieces(128), timeout=run.timeout)
        elif case.how in ("whole", "map"):
            run.call = lambda: get(client, url, run)
        else:
            def stream() -> None:
                with client.stream("GET", url, timeout=run.timeout) as r:
                    consume(r, case.how)
            run.call = stream


@contextmanager
def stage(ca: Authority) -> Iterator[Stage]:
    it = Stage(ca)
    with it.stack:
        yield it


_names = itertools.count()


def run_all(cases: list[Case], seconds: float, ca: Authority) -> dict[Case, list[Outcome]]:
    """Each case TIMES times, all at once."""
    with stage(ca) as place:
        runs = [Run(case, seconds, f"r{os.getpid()}-{next(_names)}") for _ in range(TIMES) for case in cases]
        for run in runs:
            place.set_up(run)
        threads = []
        for run in runs:
            thread = threading.Thread(target=run.run, name=f"run of {run.case}")
            thread.start()
            threads.append(thread)
            time.sleep(STAGGER)
        for thread in threads:
            thread.join()
    return {case: [run.outcome for run in runs if run.case is case] for case in cases}
