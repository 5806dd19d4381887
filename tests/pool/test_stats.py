"""The statistics, who holds what, and hosts that fold into one row."""
from __future__ import annotations

import time
from typing import Any

import pytest

from pooledhttp._pool.stats import CLOSE_REASONS, HostStats, PoolStats
from pooledhttp._pool.testing import FakeConn, User
from tests.pool.kit import SECOND, World, assert_adds_up


def test_an_unused_pool_is_all_noughts() -> None:
    stats = World().stats()
    assert stats == PoolStats()
    assert stats.closed == dict.fromkeys(CLOSE_REASONS, 0) and stats.hosts == {}


def test_every_host_has_its_row_and_the_sums_are_over_all() -> None:
    world = World(max_per_host=2, max_idle=1)
    a = [world.dial("a"), world.dial("a")]
    world.waiting("a")
    world.idle(2, "b")
    a[0].leaked()
    a[0].give(world.now, "error")
    stats = world.stats()
    assert set(stats.hosts) == {"a", "b"}
    assert (stats.hosts["a"].active, stats.hosts["a"].dialing, stats.hosts["a"].leaked, stats.hosts["a"].closed["error"]) == (1, 1, 1, 1)
    assert stats.hosts["b"].idle == 1 and stats.hosts["b"].opened == 2 and stats.hosts["b"].closed["evicted"] == 1
    assert (stats.requests, stats.leaked, stats.open) == (5, 1, 2)


def test_str_is_one_readable_table() -> None:
    world = World()
    world.dial("https://a:443").give(world.now, "error")
    world.idle(2, "https://b:443")
    lines = str(world.stats()).splitlines()
    assert [line.split()[0] for line in lines] == ["host", "https://a:443", "https://b:443", "all"]
    assert lines[1].endswith("error 1") and lines[2].endswith("-")
    assert len({line.index(word) + len(word) for line, word in zip(lines[2:], ("2", "2"), strict=True)}) == 1      # columns line up
    assert "all" not in str(_one_host_only())


def _one_host_only() -> PoolStats:
    world = World()
    world.idle(1)
    return world.stats()


# --- who holds the connections ---------------------------------------------------------------------------------------------

def test_holders_says_who_for_how_long_and_whether_a_body_was_left_unread() -> None:
    world = World(max_per_host=2)
    get = world.user(label=b"GET", detail=b"/items?token=secret")
    post = world.user(label=b"POST", detail=b"/orders")
    for user, seconds in ((get, 3), (post, 2)):
        assert user.checkout(world.now) == "dial"
        user.dialed(FakeConn(), world.now)
        world.later(seconds)
    get.mark_unread()
    held = world.pool.holders(get.host, now=world.now)
    assert sorted(held) == [("GET", "/items", 5.0, True), ("POST", "/orders", 2.0, False)]


def test_holders_names_the_one_who_was_handed_a_connection() -> None:
    world = World(max_per_host=1)
    held = world.dial()
    waits = world.user(label=b"GET", detail=b"/next")
    assert waits.checkout(world.later(1).now, wait=True) == "wait"
    held.give(world.now)
    assert world.pool.holders(held.host, now=world.now) == [("GET", "/next", 0.0, False)]
    assert waits.leave() == "conn"
    waits.give(world.now)
    assert world.pool.holders(held.host) == []


def test_holders_cuts_what_is_long_and_names_eight_at_most() -> None:
    world = World()
    for _ in range(10):
        user = world.user(label=b"X" * 100, detail=b"/" + b"y" * 1_000)
        assert user.checkout(world.now) == "dial"
        user.dialed(FakeConn(), world.now)
    held = world.pool.holders(user.host, now=world.now)
    assert len(held) == 8 and len(world.pool.holders(user.host, 3)) == 3
    assert held[0][0] == "X" * 23 and held[0][1] == "/" + "y" * 158


def test_holders_counts_by_the_clock_unless_told() -> None:
    world = World()
    world.now = time.monotonic_ns() - 5 * SECOND
    user = world.dial()
    (_, _, seconds, _), = world.pool.holders(user.host)
    assert 5.0 <= seconds < 6.0


# --- folding ---------------------------------------------------------------------------------------------------------------

def visit(world: World, key: str) -> None:
    world.dial(key).give(world.later(1).now, "not_reusable")


def test_over_max_hosts_the_least_recently_used_fold_into_one_row() -> None:
    world = World(max_hosts=8)
    for i in range(8):
        visit(world, f"h{i}")
    visit(world, "h0")                                      # used again
    assert len(world.stats().hosts) == 8
    visit(world, "h8")
    stats = world.stats()
    assert set(stats.hosts) == {"h0", "h2", "h3", "h4", "h5", "h6", "h7", "h8", "(others)"}
    assert stats.hosts["(others)"].requests == 1 and stats.requests == 10 and stats.closed["not_reusable"] == 10


def test_thousands_of_hosts_are_held_in_bounded_rows_and_no_count_is_lost() -> None:
    world = World(max_hosts=64)
    for i in range(1_000):
        visit(world, f"h{i}")
        assert len(world.pool.stats().hosts) <= 65
    stats = world.stats()
    assert stats.requests == stats.opened == stats.closed["not_reusable"] == 1_000


def test_a_host_that_holds_anything_does_not_fold() -> None:
    world = World(max_hosts=4, max_per_host=1)
    idle, = world.idle(1, "idle")
    active = world.dial("active")
    waits = world.waiting("active")
    racer = world.dialing("dialing")
    for i in range(50):
        visit(world, f"h{i}")
    hosts = world.stats().hosts
    assert {"idle", "active", "dialing", "(others)"} <= set(hosts) and len(hosts) <= 6
    assert world.take("idle").conn is idle
    active.give(world.now)
    assert waits.leave() == "conn"
    assert racer.leave() == "queued"
    racer.dial_failed()


def test_where_nothing_can_fold_the_hosts_are_not_looked_through_again_for_each_new_one() -> None:
    world = World(max_hosts=8, max_idle=0)
    began = time.thread_time()
    for i in range(4_000):
        user = User(world.pool, f"h{i}", wake=world.wake)
        assert user.checkout(world.now) == "dial"
        user.dialed(FakeConn(), world.now)
        assert user.give(world.now) is None
    assert time.thread_time() - began < 2                  # a look through all for each of them would take longer
    assert world.stats().idle == 4_000


def test_a_request_whose_host_folded_is_told_and_finds_the_new_one() -> None:
    world = World(max_hosts=2)
    user = world.user("a")
    visit(world, "a")
    for i in range(4):
        visit(world, f"h{i}")
    assert user.checkout(world.now) == "folded"
    assert world.stats().hosts.get("a") is None
    assert world.user("a").checkout(world.now) == "dial"
    assert world.stats().requests == 6


def test_what_is_counted_for_a_folded_host_is_not_lost() -> None:
    world = World(max_hosts=2)
    user = world.dial("a")
    user.give(world.now, "error")
    for i in range(4):
        visit(world, f"h{i}")
    assert "a" not in world.stats().hosts
    user.leaked()
    assert world.stats().leaked == 1


def test_stats_may_be_asked_for_from_within_stats(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal handler or a finalizer would."""
    world = World(max_hosts=2)
    world.idle(1)
    inner: list[PoolStats] = []
    def interrupted() -> Any:
        if not inner:
            inner.append(PoolStats())
            inner[0] = world.pool.stats()
            for i in range(8):
                world.user(f"new{i}").checkout(world.now)   # and hosts come and fold
        return HostStats()

    monkeypatch.setattr("pooledhttp._pool.pool.HostStats", interrupted)
    outer = world.pool.stats()
    assert_adds_up(outer)
    assert inner[0].idle == 1
