"""Connections that carry more than one request at a time: on offer while there is room."""
from __future__ import annotations

from pooledhttp._pool.testing import FakeConn
from tests.pool.kit import World


def test_it_is_on_offer_until_it_is_full() -> None:
    world = World()
    first = world.dial(capacity=3)
    conn = first.conn
    assert [world.take().conn for _ in range(2)] == [conn, conn]
    assert world.user().checkout(world.now) == "dial"
    first.give(world.now)
    assert world.take().conn is conn
    stats = world.stats()
    assert (stats.open, stats.active, stats.idle, stats.reuses) == (1, 1, 0, 3)


def test_it_is_idle_when_its_last_user_is_gone() -> None:
    world = World(idle_timeout=30)
    users = [world.dial(capacity=3), world.take(), world.take()]
    conn = users[0].conn
    for user in users:
        assert world.stats().idle == 0
        world.later(100)
        assert world.sweep() == 0                             # nobody's idle time has begun
        user.give(world.now)
    assert world.stats().idle == 1
    world.later(29)
    assert world.sweep() == 1
    world.later(1)
    assert world.sweep() == 0
    assert conn.reason == "idle_timeout"


def test_one_dial_serves_all_who_wait_as_far_as_there_is_room() -> None:
    world = World(max_per_host=1)
    dials = world.user()
    assert dials.checkout(world.now) == "dial"
    queue = [world.waiting() for _ in range(50)]              # more than are woken under one hold of the lock
    dials.dialed(FakeConn(capacity=41), world.now)
    assert [user.state for user in queue] == ["conn"] * 40 + ["queued"] * 10
    stats = world.stats()
    assert (stats.opened, stats.reuses, stats.waiting) == (1, 40, 10)
    assert {user.leave() for user in queue[:40]} == {"conn"}
    for i, user in enumerate(queue[:10]):
        user.give(world.now)
        assert queue[40 + i].leave() == "conn"


def test_one_dial_serves_those_who_dial_too() -> None:
    world = World()
    first = world.user()
    assert first.checkout(world.now) == "dial"
    racers = [world.dialing() for _ in range(5)]
    first.dialed(FakeConn(capacity=100), world.now)
    assert {racer.leave() for racer in racers} == {"conn"}
    assert {racer.conn for racer in racers} == {first.conn}
    for racer in racers:
        racer.dial_failed()
    assert world.stats().active == 1


def test_an_orphan_with_room_serves_several() -> None:
    world = World(max_per_host=2)
    held = world.dial()
    racer = world.dialing()
    held.give(world.now)
    assert racer.leave() == "conn"
    queue = [world.waiting() for _ in range(3)]
    racer.dialed(FakeConn(capacity=2), world.now, keep=False)
    assert [user.state for user in queue] == ["conn", "conn", "queued"]


def test_past_its_life_it_takes_nobody_new_and_closes_behind_the_last() -> None:
    world = World(lifetime=100)
    first = world.dial(capacity=3)
    conn = first.conn
    second = world.take()
    world.later(100)
    fresh = world.dial()
    assert fresh.conn is not conn and conn.closes == 0
    assert first.give(world.now) == "lifetime"
    assert conn.closes == 0
    assert second.give(world.now) == "lifetime"
    assert conn.reason == "lifetime" and conn.closes == 1


def test_a_verdict_against_it_stops_new_users_and_is_the_reason_it_is_closed_by() -> None:
    world = World()
    users = [world.dial(capacity=3), world.take(), world.take()]
    conn = users[0].conn
    assert users[0].give(world.now, "not_reusable") == "not_reusable"
    assert world.user().checkout(world.now) == "dial"
    assert conn.closes == 0
    assert users[1].give(world.now, "error") == "error"
    assert conn.closes == 0
    assert users[2].give(world.now) == "not_reusable"         # the first of them
    assert conn.reason == "not_reusable" and conn.closes == 1
    assert world.closed("not_reusable") == 1


def test_close_idle_takes_it_off_offer_as_its_users_leave() -> None:
    world = World()
    first = world.dial(capacity=2)
    conn = first.conn
    second = world.take()
    world.pool.close_idle()
    assert first.give(world.now) == "shutdown"
    world.dial("b")                                           # the next request
    assert world.user().checkout(world.now) == "dial"
    assert second.give(world.now) == "shutdown"
    assert conn.reason == "shutdown"


def test_cancelling_interrupts_it_once_for_all_its_users() -> None:
    world = World()
    users = [world.dial(capacity=3), world.take(), world.take()]
    conn = users[0].conn
    world.pool.close(cancel=True)
    assert conn.interrupts == 1
    for user in users:
        assert conn.closes == 0
        assert user.give(world.now, "error") in ("error", "cancelled")
    assert conn.reason == "cancelled" and conn.closes == 1


def test_fresh_from_its_users_it_is_not_the_oldest_of_its_host() -> None:
    world = World(max_idle_per_host=1)
    shared, single = FakeConn(capacity=2), FakeConn()
    users = [world.user(), world.user()]
    assert [user.checkout(world.now) for user in users] == ["dial", "dial"]
    users[0].dialed(shared, world.now)                        # on offer from now on, for it has room
    users[1].dialed(single, world.now)
    users[1].give(world.now)
    users[0].give(world.later(10).now)
    assert single.reason == "evicted" and shared.reason is None


def test_fifo_spreads_over_shared_ones() -> None:
    world = World(fifo=True)
    conns = [FakeConn(capacity=10) for _ in range(3)]
    world.rest("a", *conns)
    users = [world.take() for _ in range(9)]
    assert [user.conn for user in users] == conns * 3


def test_lifo_fills_one_before_the_next() -> None:
    world = World()
    conns = [FakeConn(capacity=3) for _ in range(3)]
    world.rest("a", *conns)
    users = [world.take() for _ in range(9)]
    assert [user.conn for user in users] == [conns[2]] * 3 + [conns[1]] * 3 + [conns[0]] * 3


def test_holders_survive_the_leaving_of_another() -> None:
    world = World()
    first = world.user(label=b"GET", detail=b"/first")
    first.checkout(world.now)
    first.dialed(FakeConn(capacity=2), world.now)
    second = world.user(label=b"PUT", detail=b"/second")
    assert second.checkout(world.now) == "conn"
    assert world.pool.holders(first.host, now=world.now) == [("PUT", "/second", 0.0, False)]
    second.give(world.now)
    first.give(world.now)
    assert world.pool.holders(first.host) == []
