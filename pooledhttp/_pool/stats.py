"""What a pool counts, as plain values."""
from __future__ import annotations

from dataclasses import dataclass, field, fields

CLOSE_REASONS = ("idle_timeout", "lifetime", "evicted", "server_closed", "not_reusable", "timeout", "cancelled", "error", "drain_limit",
                 "shutdown", "forked")


@dataclass
class HostStats:
    """Counts of one pool key, or of a whole pool. Gauges say how it is now; counters only grow.

    Always `opened == open + sum(closed.values())`, and `open == idle + active`.
    """

    idle: int = 0
    active: int = 0
    dialing: int = 0
    waiting: int = 0
    open: int = 0
    dials: int = 0
    opened: int = 0
    reuses: int = 0
    waits: int = 0
    wait_seconds: float = 0.0
    retries: int = 0
    requests: int = 0
    leaked: int = 0
    closed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLOSE_REASONS, 0))

    def _add(self, other: HostStats) -> None:
        for f in fields(HostStats):
            if f.name == "closed":
                for reason, n in other.closed.items():
                    self.closed[reason] += n
            else:
                setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))


@dataclass
class PoolStats(HostStats):
    """A pool's counts: the sums over all its hosts, and `hosts`, the same per pool key. `str()` is one readable table."""

    hosts: dict[str, HostStats] = field(default_factory=dict)

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
