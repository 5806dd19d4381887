"""A pool on a made-up clock, whose sums are checked after every step."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from pooledhttp._core.runtime import WakeHandle
from pooledhttp._pool.pool import Pool
from pooledhttp._pool.stats import HostStats, PoolStats
from pooledhttp._pool.testing import FakeConn, User

SECOND = 1_000_000_000


def assert_adds_up(stats: PoolStats) -> None:
    """`opened == open + sum(closed)` and `open == idle + active`, in every row and in all; no gauge is negative."""
    rows: list[HostStats] = [stats, *stats.hosts.values()]
    for row in rows:
        assert row.opened == row.open + sum(row.closed.values()), row
        assert row.open == row.idle + row.active, row
        assert min(row.idle, row.active, row.dialing, row.waiting) >= 0, row
        assert row.opened <= row.dials, row
        assert row.reuses < 1 << 63, row                # unsigned: below nothing is very much
    for name in ("idle", "active", "dialing", "waiting", "open", "dials", "opened", "reuses", "waits", "retries", "requests", "leaked"):
        assert getattr(stats, name) == sum(getattr(row, name) for row in stats.hosts.values()), name


class World:
    """A pool and its time. Options are `Pool`'s; without them nothing ends by age."""

    def __init__(self, **options: Any) -> None:
        self.pool = Pool(**{"idle_timeout": None, **options})
        self.now = 1_000 * SECOND
        self.wake = WakeHandle()           # of those that never wait
        self._users: list[User] = []        # a user that is collected gives back what it has; these hold on

    def later(self, seconds: float) -> World:
        self.now += round(seconds * SECOND)
        return self

    def stats(self) -> PoolStats:
        stats = self.pool.stats()
        assert_adds_up(stats)
        return stats

    def closed(self, reason: str) -> int:
        return self.stats().closed[reason]

    def sweep(self) -> int:
        left: int = self.pool.sweep(self.now)
        assert left == self.stats().idle
        return left

    def user(self, key: str = "a", **options: Any) -> User:
        self._users.append(User(self.pool, key, **options))
        return self._users[-1]

    def take(self, key: str = "a") -> User:
        """A user with an idle connection: there must be one."""
        user = self.user(key)
        assert user.checkout(self.now) == "conn"
        self.stats()
        return user

    def dial(self, key: str = "a", **conn: Any) -> User:
        """A user with a connection of its own making: no idle one may be there."""
        user = self.user(key)
        assert user.checkout(self.now) == "dial"
        user.dialed(FakeConn(**conn), self.now)
        self.stats()
        return user

    def dialing(self, key: str = "a") -> User:
        """A user who has begun to dial, and takes what is given back first."""
        user = self.user(key)
        assert user.checkout(self.now) == "dial"
        assert user.race(self.now) == "wait"
        self.stats()
        return user

    def waiting(self, key: str = "a") -> User:
        """A user in the queue: the host must be at its limit."""
        user = self.user(key)
        assert user.checkout(self.now, wait=True) == "wait"
        assert user.state == "queued"
        self.stats()
        return user

    def rest(self, key: str, *conns: FakeConn, apart: float = 1.0) -> None:
        """These connections become idle `apart` seconds after each other. No other one may be idle there before."""
        users = [User(self.pool, key, wake=self.wake) for _ in conns]
        assert {user.checkout(self.now) for user in users} == {"dial"}
        for user, conn in zip(users, conns, strict=True):
            user.dialed(conn, self.now)
            assert user.give(self.now) is None
            self.later(apart)
        self.stats()

    def idle(self, n: int, key: str = "a", *, apart: float = 1.0, **conn: Any) -> list[FakeConn]:
        """`n` connections that became idle `apart` seconds after each other, the oldest first."""
        conns = [FakeConn(**conn) for _ in range(n)]
        self.rest(key, *conns, apart=apart)
        return conns


@contextlib.contextmanager
def silent_and_hung_up() -> Iterator[tuple[int, int]]:
    """Two descriptors: one that is never readable, one that always is, as after the server's close."""
    quiet, keep = os.pipe()
    ended, end = os.pipe()
    os.close(end)
    try:
        yield quiet, ended
    finally:
        for fd in (quiet, keep, ended):
            os.close(fd)
