"""What is measured, and what is aimed at. Imports little: each client's process loads it."""
from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

OURS = "pooledhttp"
LIMIT = "wrk"
H2_LIMIT = "h2load"        # the same where HTTP/2 is spoken
LIMITS = (LIMIT, H2_LIMIT)
GO = "go"
SPEAK_H2 = (OURS, H2_LIMIT, GO, "pycurl", "pyreqwest", "httpx", "niquests")
ONE_BY_ONE_IN_H2 = ("httpx",)    # several threads make it break its own HTTP/2 connection
KIB, MIB = 1 << 10, 1 << 20
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0)


def body(size: int) -> bytes:
    """The `size` bytes that every server answers with."""
    return (bytes(range(256)) * (size // 256 + 1))[:size]


@dataclass(frozen=True)
class Faster:
    """Goal: our rate is at least `times` that of `base`, as the median of the rounds' ratios. `base` None: that of the best peer, the limit apart."""
    base: str | None
    times: float


@dataclass(frozen=True)
class Within:
    """Goal: our median time for a request is at most the interpreter's switch interval, the server's delay and `spare_ms` on top."""
    spare_ms: float


@dataclass(frozen=True)
class Scenario:
    """One table of the report.

    `size`: bytes of each answer's body. `threads`: of the client, each with one request at a time.
    `pinned`: the client on one core, the server on another; otherwise both go where the kernel puts them.
    `delay_ms`: the server answers so long after the request (0: nginx, as fast as it can). `timed`: the times of the requests are measured, otherwise
    requests a second. `busy`: one other thread of the client's process computes in Python all the time. `fresh`: a connection for each request.
    `h2`: over TLS and by HTTP/2, each client as it shares connections then; `streams`: how many the server allows on one (0: 128).
    `hosts`: so many origins, to each of which the client keeps a connection. `sweep`: a point of a curve; it gets fewer and shorter rounds.
    """
    name: str
    title: str
    size: int = KIB
    threads: int = 1
    tls: bool = False
    h2: bool = False
    streams: int = 0
    pinned: bool = False
    delay_ms: float = 0.0
    timed: bool = False
    busy: bool = False
    fresh: bool = False
    hosts: int = 1
    sweep: bool = False
    quick: bool = False
    goals: tuple[Faster | Within, ...] = ()

    @property
    def unit(self) -> str:
        return "ms a request" if self.timed else "requests/s"

    @property
    def batch(self) -> int:
        """Requests between two looks at the clock."""
        return 10 if self.size <= 64 * KIB and not (self.timed or self.delay_ms or self.fresh) else 1

    def rounds(self, asked: int) -> int:
        return min(asked, 3) if self.sweep or (self.h2 and not self.goals) else asked

    def seconds(self, asked: float) -> float:
        return asked * 0.6 if self.sweep else asked


FEW_STREAMS = 4          # the bench's server has a door that allows so many
THREADS = (1, 4, 16, 64)


def point(threads: int) -> str:
    """The scenario that is the point of the curve by threads."""
    return f"plain-{threads}" if threads == 16 else f"threads-{threads}"


SCENARIOS = (
    Scenario("plain-1", "plain, 1 KiB, 1 thread, pinned", pinned=True, quick=True,
             goals=(Faster(LIMIT, 0.75), Faster("pycurl", 1.4), Faster("go", 2.0), Faster("urllib3", 8.0))),
    Scenario("plain-16", "plain, 1 KiB, 16 threads", threads=16, quick=True, goals=(Faster("go", 2.0), Faster("pyreqwest", 3.5), Faster("pycurl", 7.0))),
    Scenario("tls-1", "TLS, 1 KiB, 1 thread, pinned", tls=True, pinned=True, quick=True, goals=(Faster("pycurl", 1.15),)),
    Scenario("tls-16", "TLS, 1 KiB, 16 threads", tls=True, threads=16, quick=True, goals=(Faster("go", 1.8), Faster("pyreqwest", 2.5))),
    Scenario("64k-1", "plain, 64 KiB, 1 thread, pinned", size=64 * KIB, pinned=True),
    Scenario("1m-1", "plain, 1 MiB, 1 thread, pinned", size=MIB, pinned=True, quick=True, goals=(Faster(None, 1.2),)),
    Scenario("tls-1m-1", "TLS, 1 MiB, 1 thread, pinned", size=MIB, tls=True, pinned=True),
    Scenario("busy", "plain, 1 KiB after 2 ms, 1 thread beside one that is busy in Python", delay_ms=2.0, timed=True, busy=True, quick=True,
             goals=(Within(1.0),)),
    Scenario("busy-8", "plain, 1 KiB after 2 ms, 8 threads beside one that is busy in Python", delay_ms=2.0, threads=8, busy=True,
             goals=(Faster("urllib3", 1.5),)),
    Scenario("latency-16", "plain, 1 KiB after 2 ms, 16 threads: times", delay_ms=2.0, threads=16, timed=True),
    Scenario("fresh-1", "plain, 1 KiB, 1 thread, a connection for each request, pinned", pinned=True, fresh=True),
    Scenario("h2-1", "HTTP/2, 1 KiB, 1 thread, pinned", tls=True, h2=True, pinned=True, goals=(Faster("pyreqwest", 1.3), Faster("go", 1.1))),
    Scenario("h2-16", "HTTP/2, 1 KiB, 16 threads, pinned", tls=True, h2=True, threads=16, pinned=True, goals=(Faster("pyreqwest", 1.4), Faster("go", 1.0))),
    Scenario("h2-64", "HTTP/2, 1 KiB, 64 threads, pinned", tls=True, h2=True, threads=64, pinned=True),
    Scenario("h2-16-few", "HTTP/2, 1 KiB, 16 threads, pinned, the server allows 4 streams on a connection", tls=True, h2=True, streams=FEW_STREAMS, threads=16,
             pinned=True),
    Scenario("h2-64k-1", "HTTP/2, 64 KiB, 1 thread, pinned", size=64 * KIB, tls=True, h2=True, pinned=True),
    Scenario("h2-1m-1", "HTTP/2, 1 MiB, 1 thread, pinned", size=MIB, tls=True, h2=True, pinned=True),
    *(Scenario(point(n), f"plain, 1 KiB, {n} thread{'s' * (n > 1)}", threads=n, sweep=True) for n in THREADS if n != 16),
)
BY_NAME = {s.name: s for s in SCENARIOS}


@dataclass(frozen=True)
class Task:
    """What a client's process is told: fetch `url` in `scenario`'s way. `ca`: PEM file with the authority that vouches for a TLS server."""
    scenario: Scenario
    url: str
    ca: str | None
    warmup: float        # seconds of requests before the first round

    def to_json(self) -> dict[str, Any]:
        return {"scenario": {**asdict(self.scenario), "goals": [], "batch": self.scenario.batch}, "url": self.url, "ca": self.ca, "warmup": self.warmup}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Task:
        scenario = {key: value for key, value in data["scenario"].items() if key != "batch"}
        return cls(Scenario(**{**scenario, "goals": ()}), data["url"], data["ca"], data["warmup"])
