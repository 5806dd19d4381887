"""What is measured, and what is aimed at. Imports little: each client's process loads it."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OURS = "pooledhttp"
LIMIT = "wrk"
KIB, MIB = 1 << 10, 1 << 20


def body(size: int) -> bytes:
    """The `size` bytes that every server answers with."""
    return (bytes(range(256)) * (size // 256 + 1))[:size]


@dataclass(frozen=True)
class Faster:
    """Goal: our rate is at least `times` that of `base`, as the median of the rounds' ratios."""
    base: str
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
    `delay_ms`: the server answers so long after the request (0: nginx, as fast as it can). With a delay the median time of a request is measured, otherwise
    requests a second. `busy`: one other thread of the client's process computes in Python all the time.
    """
    name: str
    title: str
    size: int = KIB
    threads: int = 1
    tls: bool = False
    pinned: bool = False
    delay_ms: float = 0.0
    busy: bool = False
    quick: bool = True
    goals: tuple[Faster | Within, ...] = ()

    @property
    def timed(self) -> bool:
        return self.delay_ms > 0

    @property
    def unit(self) -> str:
        return "ms a request" if self.timed else "requests/s"

    @property
    def batch(self) -> int:
        """Requests between two looks at the clock."""
        return 10 if self.size <= 64 * KIB and not self.timed else 1


SCENARIOS = (
    Scenario("plain-1", "plain, 1 KiB, 1 thread, pinned", pinned=True, goals=(Faster(LIMIT, 0.7), Faster("pycurl", 1.3))),
    Scenario("plain-16", "plain, 1 KiB, 16 threads", threads=16, goals=(Faster("pyreqwest", 3.0),)),
    Scenario("tls-1", "TLS, 1 KiB, 1 thread, pinned", tls=True, pinned=True),
    Scenario("tls-16", "TLS, 1 KiB, 16 threads", tls=True, threads=16, goals=(Faster("pyreqwest", 2.0),)),
    Scenario("64k-1", "plain, 64 KiB, 1 thread, pinned", size=64 * KIB, pinned=True, quick=False),
    Scenario("1m-1", "plain, 1 MiB, 1 thread, pinned", size=MIB, pinned=True),
    Scenario("tls-1m-1", "TLS, 1 MiB, 1 thread, pinned", size=MIB, tls=True, pinned=True, quick=False),
    Scenario("busy", "plain, 1 KiB after 2 ms, 1 thread beside one that is busy in Python", delay_ms=2.0, busy=True, goals=(Within(2.0),)),
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
        return {"scenario": self.scenario.name, "url": self.url, "ca": self.ca, "warmup": self.warmup}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Task:
        return cls(BY_NAME[data["scenario"]], data["url"], data["ca"], data["warmup"])
