"""Which idle connection is taken, and which ones are closed over the limits."""
from __future__ import annotations

import pytest

from pooledhttp._pool.testing import FakeConn
from tests.pool.kit import World


def test_the_first_request_dials_and_the_next_reuses() -> None:
    world = World()
    user = world.dial()
    conn = user.conn
    assert user.give(world.now) is None
    again = world.take()
    assert again.conn is conn
    assert conn.closes == 0 and conn.uses == 1
    stats = world.stats()
    assert (stats.requests, stats.dials, stats.opened, stats.reuses) == (2, 1, 1, 1)


def test_lifo_takes_the_most_recently_used_first() -> None:
    world = World()
    oldest, middle, newest = world.idle(3)
    assert [world.take().conn for _ in range(3)] == [newest, middle, oldest]


def test_fifo_takes_the_one_idle_longest_first() -> None:
    world = World(fifo=True)
    conns = world.idle(3)
    users = [world.take() for _ in range(3)]
    assert [user.conn for user in users] == conns


def test_fifo_spreads_over_all_connections_in_turn() -> None:
    world = World(fifo=True)
    conns = world.idle(3)
    seen = []
    for _ in range(6):
        user = world.take()
        seen.append(user.conn)
        user.give(world.later(1).now)
    assert seen == conns * 2


def test_lifo_keeps_to_one_connection() -> None:
    world = World()
    world.idle(3)
    seen = set()
    for _ in range(6):
        user = world.take()
        seen.add(user.conn)
        user.give(world.later(1).now)
    assert len(seen) == 1


def test_a_connection_is_never_shared_between_keys() -> None:
    world = World()
    world.idle(1, "https://a:443")
    assert world.user("https://b:443").checkout(world.now) == "dial"


def test_over_max_idle_the_one_idle_longest_over_all_hosts_is_closed() -> None:
    world = World(max_idle=3)
    a_old, a_new = world.idle(2, "a")
    b, = world.idle(1, "b")
    c, = world.idle(1, "c")
    assert (a_old.reason, a_new.reason, b.reason, c.reason) == ("evicted", None, None, None)
    world.take("a").give(world.later(1).now)             # a_new is now the freshest, b the oldest
    d, = world.idle(1, "d")
    assert (a_new.reason, b.reason, c.reason, d.reason) == (None, "evicted", None, None)
    assert world.stats().idle == 3 and world.closed("evicted") == 2
    assert world.stats().hosts["b"].closed["evicted"] == 1


def test_over_max_idle_per_host_the_oldest_of_that_host_is_closed_and_the_fresh_one_kept() -> None:
    world = World(max_idle_per_host=2)
    other, = world.idle(1, "b")
    first, second, third = world.idle(3, "a")
    assert (first.reason, second.reason, third.reason) == ("evicted", None, None)
    assert other.reason is None
    assert world.stats().hosts["a"].idle == 2


@pytest.mark.parametrize("fifo", [False, True])
def test_eviction_does_not_depend_on_the_order_of_reuse(fifo: bool) -> None:
    world = World(max_idle=2, fifo=fifo)
    conns = world.idle(4)
    assert [conn.reason for conn in conns] == ["evicted", "evicted", None, None]


def test_a_limit_of_one_keeps_the_fresh_one() -> None:
    world = World(max_idle=1, max_idle_per_host=1)
    conns = world.idle(3)
    assert [conn.reason for conn in conns] == ["evicted", "evicted", None]


def test_zero_is_no_limit() -> None:
    world = World(max_idle=0, max_idle_per_host=0, max_per_host=0)
    conns = world.idle(500, apart=0)
    assert not any(conn.closes for conn in conns)
    assert world.stats().idle == 500


def test_what_is_closed_is_closed_once_and_for_one_reason() -> None:
    world = World(max_idle=1)
    conns = world.idle(5)
    world.pool.close()
    world.pool.close(cancel=True)
    assert [conn.closes for conn in conns] == [1] * 5
    assert world.closed("evicted") == 4 and world.closed("shutdown") == 1


@pytest.mark.parametrize("reason", ["not_reusable", "timeout", "cancelled", "error", "server_closed", "drain_limit"])
def test_a_connection_given_back_with_a_reason_is_closed_and_counted_by_it(reason: str) -> None:
    world = World()
    user = world.dial()
    conn = user.conn
    assert user.give(world.now, reason) == reason
    assert conn.reason == reason and world.closed(reason) == 1
    assert world.user().checkout(world.now) == "dial"


def test_a_connection_found_dead_when_taken_counts_no_reuse() -> None:
    world = World()
    conn, = world.idle(1)
    conn.alive = False
    user = world.take()
    assert user.give(world.now, "server_closed", used=False) == "server_closed"
    assert user.checkout(world.now, first=False) == "dial"
    stats = world.stats()
    assert (stats.requests, stats.reuses, stats.dials, conn.uses) == (2, 0, 2, 1)


def test_a_pool_that_is_dropped_closes_what_idles_in_it() -> None:
    conn = FakeConn()
    world = World()
    user = world.user()
    user.checkout(world.now)
    user.dialed(conn, world.now)
    user.give(world.now)
    del user, world
    assert conn.closes == 1 and conn.reason == "shutdown"
