"""What the pool should do, in plain Python: lists and loops, no lock, no speed.

Only single-user steps on a made-up clock; connections have no descriptors, so a sweep finds the expired only. A connection is anything
hashable, its reason and its end of life are looked up by the caller.
"""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

REASONS = ("idle_timeout", "lifetime", "evicted", "server_closed", "not_reusable", "timeout", "cancelled", "error", "drain_limit", "shutdown", "forked")


@dataclass(eq=False)
class Conn:
    real: Any
    key: str
    capacity: int
    die_at: int                      # -1: never
    users: int = 0
    idle_since: int = 0
    idle_limit: int = -1
    offered: bool = False
    condemned: str | None = None     # closed for this when its last user leaves
    interrupted: bool = False
    reason: str | None = None


@dataclass(eq=False)
class Request:
    key: str
    conn: Conn | None = None
    state: str = "out"               # as `User.state`
    dialing: bool = False            # in the queue while a dial of its own is under way


@dataclass
class Host:
    offer: list[Conn] = field(default_factory=list)         # most recently used first
    conns: list[Conn] = field(default_factory=list)
    queue: list[Request] = field(default_factory=list)
    dialing: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)


class Model:
    def __init__(self, *, max_idle: int, max_idle_per_host: int, max_per_host: int, idle_timeout: int | None, fifo: bool) -> None:
        self.max_idle, self.max_idle_per_host, self.max_per_host = max_idle, max_idle_per_host, max_per_host
        self.idle_timeout, self.fifo = idle_timeout, fifo
        self.hosts: dict[str, Host] = {}
        self.idle: list[Conn] = []                          # over all hosts, idle longest first
        self.closed = self.ended = self.keep_none = False

    def host(self, key: str) -> Host:
        return self.hosts.setdefault(key, Host())

    # --- moves -------------------------------------------------------------------------------------------------------------

    def full(self, h: Host) -> bool:
        return 0 < self.max_per_host <= len(h.conns) + h.dialing

    def over(self, conn: Conn, now: int) -> str | None:
        """Why its time is over, if it is."""
        if conn.condemned:
            return conn.condemned
        if 0 <= conn.die_at <= now:
            return "lifetime"
        limits = [limit for limit in (self.idle_timeout, conn.idle_limit) if limit is not None and limit >= 0]
        if conn.users == 0 and any(now - conn.idle_since >= limit for limit in limits):
            return "idle_timeout"
        return None

    def take(self, h: Host, request: Request, conn: Conn) -> None:
        if conn in self.idle:
            self.idle.remove(conn)
        conn.users += 1
        request.conn = conn
        h.counts["reuses"] += 1
        if conn.users == conn.capacity:
            h.offer.remove(conn)

    def end(self, h: Host, conn: Conn, reason: str) -> None:
        conn.reason = "cancelled" if conn.interrupted else reason
        h.conns.remove(conn)
        for where in (h.offer, self.idle):
            if conn in where:
                where.remove(conn)
        h.closed[conn.reason] += 1
        self.grant_dials(h)

    def grant_dials(self, h: Host) -> None:
        for request in [r for r in h.queue if not r.dialing]:
            if self.full(h):
                break
            h.queue.remove(request)
            request.state = "dial"
            h.dialing += 1
            h.counts["dials"] += 1

    def settle(self, h: Host, conn: Conn, now: int) -> None:
        """It has room: for who waits, else on offer."""
        if conn not in h.offer:
            h.offer.insert(0, conn)
        while h.queue and h.offer:
            request = h.queue.pop(0)
            request.state = "conn"
            self.take(h, request, h.offer[0])
        if conn.users:
            return
        conn.idle_since = now
        self.idle.append(conn)
        h.offer.remove(conn)
        h.offer.insert(0, conn)
        here = [c for c in self.idle if c.key == conn.key]
        if 0 < self.max_idle_per_host < len(here):
            self.end(h, here[0], "evicted")
        if 0 < self.max_idle < len(self.idle):
            self.end(self.host(self.idle[0].key), self.idle[0], "evicted")

    def pick(self, h: Host, now: int) -> Conn | None:
        while h.offer:
            conn = h.offer[-1 if self.fifo else 0]
            reason = self.over(conn, now)
            if reason is None:
                return conn
            if conn.users:
                h.offer.remove(conn)
            else:
                self.end(h, conn, reason)
        return None

    # --- what requests do --------------------------------------------------------------------------------------------------

    def checkout(self, request: Request, now: int, *, wait: bool, first: bool) -> str:
        h = self.host(request.key)
        if self.closed and first:
            return "closed"
        if self.ended:
            if wait:
                request.state = "closed"
            return "wait"
        if first:
            self.keep_none = False
        conn = self.pick(h, now)
        if conn is not None:
            self.take(h, request, conn)
            if self.fifo and conn in h.offer:
                h.offer.remove(conn)
                h.offer.insert(0, conn)
            h.counts["requests"] += first
            return "conn"
        if self.full(h):
            if wait:
                request.state, request.dialing = "queued", False
                h.queue.insert(len(h.queue) if first else 0, request)
                h.counts["waits"] += 1
                h.counts["requests"] += first
            return "wait"
        h.dialing += 1
        h.counts["dials"] += 1
        h.counts["requests"] += first
        return "dial"

    def race(self, request: Request, now: int) -> str:
        h = self.host(request.key)
        if self.ended:
            request.state = "closed"
            return "wait"
        conn = self.pick(h, now)
        if conn is not None:
            self.take(h, request, conn)
            return "conn"
        request.state, request.dialing = "queued", True
        h.queue.append(request)
        return "wait"

    def leave(self, request: Request) -> str:
        state, request.state = request.state, "out"
        if state == "queued":
            self.host(request.key).queue.remove(request)
        return state

    def dialed(self, request: Request, conn: Conn, now: int, *, keep: bool) -> None:
        h = self.host(request.key)
        h.dialing -= 1
        h.counts["opened"] += 1
        h.conns.append(conn)
        conn.idle_since = now
        if keep:
            conn.users = 1
            request.conn = conn
            conn.interrupted = self.ended
            if conn.capacity > 1 and not self.ended:
                self.settle(h, conn, now)
        elif self.closed or self.keep_none:
            self.end(h, conn, "shutdown")
        else:
            self.settle(h, conn, now)

    def dial_failed(self, request: Request) -> None:
        h = self.host(request.key)
        h.dialing -= 1
        self.grant_dials(h)

    def give(self, request: Request, now: int, reason: str | None, *, idle_limit: int, used: bool) -> str | None:
        conn = request.conn
        assert conn is not None
        request.conn = None
        h = self.host(conn.key)
        conn.users -= 1
        if used:
            conn.idle_limit = idle_limit
        else:
            h.counts["reuses"] -= 1
        if reason is None:
            conn.idle_since = now
            if conn.interrupted:
                reason = "cancelled"
            elif self.closed or self.keep_none:
                reason = "shutdown"
            else:
                reason = self.over(conn, now)
        if reason is None:
            self.settle(h, conn, now)
        elif conn.users == 0:
            self.end(h, conn, conn.condemned or reason)
            reason = conn.reason
        else:
            if conn in h.offer:
                h.offer.remove(conn)
            conn.condemned = conn.condemned or reason
        return reason

    # --- what others do ----------------------------------------------------------------------------------------------------

    def sweep(self, now: int) -> int:
        for conn in list(self.idle):
            reason = self.over(conn, now)
            if reason:
                self.end(self.host(conn.key), conn, reason)
        return len(self.idle)

    def close_idle(self) -> None:
        self.keep_none = True
        for conn in list(self.idle):
            self.end(self.host(conn.key), conn, "shutdown")

    def close(self, *, cancel: bool) -> None:
        self.closed = True
        self.ended |= cancel
        self.close_idle()
        if cancel:
            for h in self.hosts.values():
                for conn in h.conns:
                    conn.interrupted = True
                for request in h.queue:
                    request.state = "closed"
                h.queue.clear()

    def row(self, key: str) -> dict[str, int]:
        h = self.host(key)
        idle = sum(conn.key == key for conn in self.idle)
        return {"idle": idle, "active": len(h.conns) - idle, "open": len(h.conns), "dialing": h.dialing,
                "waiting": sum(not request.dialing for request in h.queue),
                **{name: h.counts[name] for name in ("dials", "opened", "reuses", "waits", "requests")},
                **{reason: h.closed[reason] for reason in REASONS}}
