"""What ends by age: idle timeouts, the server's Keep-Alive, lifetimes."""
from __future__ import annotations

import math

import pytest

from pooledhttp._pool.pool import Pool
from tests.pool.kit import SECOND, World


def test_an_expired_connection_is_never_handed_out() -> None:
    world = World(idle_timeout=30)
    conn, = world.idle(1, apart=0)
    world.now += 30 * SECOND - 1
    user = world.take()                               # not yet
    assert user.conn is conn
    user.give(world.now)
    world.now += 30 * SECOND
    assert world.user().checkout(world.now) == "dial"
    assert conn.reason == "idle_timeout" and world.closed("idle_timeout") == 1


def test_all_expired_ones_on_the_way_are_closed_and_the_first_good_one_taken() -> None:
    world = World(idle_timeout=30, fifo=True)
    conns = world.idle(5, apart=10)                   # idle since 0, 10, 20, 30, 40; it is 50
    assert world.take().conn is conns[3]              # idle for 20 s
    assert [conn.reason for conn in conns] == ["idle_timeout"] * 3 + [None] * 2      # for 30, 40, 50 s


@pytest.mark.parametrize("never", [None, 0, 0.0, math.inf, 1e12])
def test_no_idle_timeout_is_never(never: float | None) -> None:
    world = World(idle_timeout=never)
    conn, = world.idle(1)
    world.later(10 * 365 * 86_400)
    world.sweep()
    assert world.take().conn is conn


@pytest.mark.parametrize("never", [None, 0, math.inf, 1e12])
def test_no_lifetime_is_never(never: float | None) -> None:
    world = World(lifetime=never)
    conn, = world.idle(1)
    assert conn.die_at == -1
    world.later(10 * 365 * 86_400)
    assert world.take().conn is conn


def test_the_default_idle_timeout_is_ninety_seconds() -> None:
    world = World()
    world.pool = Pool()
    conn, = world.idle(1, apart=0)
    world.later(89)
    world.take().give(world.now)
    world.later(90)
    world.sweep()
    assert conn.reason == "idle_timeout"


def test_the_server_s_limit_holds_for_its_connection_alone() -> None:
    world = World(idle_timeout=90)
    short, long = world.dial(), world.dial()
    conn, other = short.conn, long.conn
    short.give(world.now, idle_limit=4 * SECOND)
    long.give(world.now)
    world.later(4)
    assert world.sweep() == 1
    assert conn.reason == "idle_timeout" and other.reason is None


def test_the_server_s_last_word_on_idling_counts() -> None:
    world = World()
    user = world.dial()
    user.give(world.now, idle_limit=4 * SECOND)
    user = world.take()
    conn = user.conn
    user.give(world.now)                              # this answer says nothing of a limit
    world.later(100)
    assert world.take().conn is conn


def test_a_connection_that_was_not_used_keeps_the_server_s_limit() -> None:
    world = World(max_per_host=1)
    held = world.dial()
    leaves = world.waiting()
    held.give(world.now, idle_limit=4 * SECOND)
    assert leaves.leave() == "conn"
    leaves.give(world.now, used=False)
    world.later(4)
    assert world.sweep() == 0


def test_a_server_that_lets_it_idle_for_nothing_gets_no_second_request() -> None:
    world = World()
    user = world.dial()
    assert user.give(world.now, idle_limit=0) == "idle_timeout"


def test_lifetimes_differ_within_a_tenth_so_that_not_all_end_at_once() -> None:
    world = World(lifetime=100)
    conns = world.idle(200, apart=0)
    lives = [(conn.die_at - world.now) / SECOND for conn in conns]
    assert all(90 <= life <= 100 for life in lives)
    assert len(set(lives)) > 150
    assert max(lives) - min(lives) > 8                # spread over the tenth
    assert max(abs(a - b) for a, b in zip(lives, lives[1:], strict=False)) > 0.5


def test_the_end_of_life_comes_also_to_a_busy_connection_but_not_under_its_request() -> None:
    world = World(lifetime=100)
    user = world.dial()
    conn = user.conn
    world.later(1_000)
    assert conn.closes == 0
    assert user.give(world.now) == "lifetime"
    assert conn.reason == "lifetime"


def test_past_its_life_an_idle_connection_is_not_handed_out() -> None:
    world = World(lifetime=100)
    conn, = world.idle(1)
    world.now = conn.die_at
    assert world.user().checkout(world.now) == "dial"
    assert conn.reason == "lifetime"


def test_before_its_end_it_is() -> None:
    world = World(lifetime=100)
    conn, = world.idle(1)
    world.now = conn.die_at - 1
    assert world.take().conn is conn


def test_an_expired_connection_is_no_connection_to_a_dialing_request() -> None:
    world = World(idle_timeout=30)
    racer = world.user()
    assert racer.checkout(world.now) == "dial"
    conn, = world.idle(1)
    world.later(30)
    assert racer.race(world.now) == "wait"
    assert conn.reason == "idle_timeout"
