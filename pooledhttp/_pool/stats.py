"""What a pool counts, as plain values."""
from __future__ import annotations

CLOSE_REASONS = ("idle_timeout", "lifetime", "evicted", "server_closed", "not_reusable", "timeout", "cancelled", "error", "drain_limit",
                 "shutdown", "forked")
_COUNTS = ("idle", "active", "dialing", "waiting", "open", "dials", "opened", "reuses", "waits", "retries", "requests", "leaked")


class HostStats:
    """Counts of one pool key, or of a whole pool. Gauges say how it is now; counters only grow.

    Always `opened == open + sum(closed.values())`, and `open == idle + active`. `dials` counts permits to dial, also those not used in the end; `reuses`
    counts how often a pooled connection was taken, also the first time where the request that dialed it was served by another one. `retries` counts
    requests sent again, because their reused connection was stale or by a `Retry`; a try of the latter counts in `requests` too.
    """

    idle: int
    active: int
    dialing: int
    waiting: int
    open: int
    dials: int
    opened: int
    reuses: int
    waits: int
    wait_seconds: float
    retries: int
    requests: int
    leaked: int
    closed: dict[str, int]

    def __init__(self) -> None:
        for name in _COUNTS:
            setattr(self, name, 0)
        self.wait_seconds = 0.0
        self.closed = dict.fromkeys(CLOSE_REASONS, 0)

    def _add(self, other: HostStats) -> None:
        for name in (*_COUNTS, "wait_seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, n in other.closed.items():
            self.closed[reason] += n

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]  # mutable, and compared by value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class PoolStats(HostStats):
    """A pool's counts: the sums over all its hosts, and `hosts`, the same per pool key. `str()` is one readable table."""

    hosts: dict[str, HostStats]

    def __init__(self) -> None:
        super().__init__()
        self.hosts = {}

    def __str__(self) -> str:
        head = ("host", "open", "idle", "active", "dialing", "waiting", "requests", "dials", "reuses", "retries", "closed")
        rows = [(key, h) for key, h in self.hosts.items()]
        if len(rows) != 1:
            rows.append(("all", self))
        table = [head]
        for key, h in rows:
            why = ", ".join(f"{reason} {n}" for reason, n in h.closed.items() if n)
            table.append((key, str(h.open), str(h.idle), str(h.active), str(h.dialing), str(h.waiting), str(h.requests), str(h.dials), str(h.reuses),
                          str(h.retries), why or "-"))
        widths = [max(len(r[i]) for r in table) for i in range(len(head))]
        return "\n".join("  ".join(c.ljust(w) if i in (0, 10) else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))).rstrip()
                         for r in table)
