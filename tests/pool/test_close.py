"""close_idle(), close(), close(cancel=True): also while others are busy."""
from __future__ import annotations

from pooledhttp._pool.testing import FakeConn
from tests.pool.kit import World


def test_close_idle_closes_what_is_idle_now() -> None:
    world = World()
    conns = world.idle(3, "a") + world.idle(2, "b")
    world.pool.close_idle()
    assert [conn.reason for conn in conns] == ["shutdown"] * 5
    assert world.stats().open == 0


def test_after_close_idle_what_is_given_back_is_closed_until_the_next_request() -> None:
    world = World()
    first, second, third = world.dial(), world.dial(), world.dial("b")
    world.pool.close_idle()
    assert first.give(world.now) == "shutdown"
    assert third.give(world.now) == "shutdown"
    fresh = world.dial("b")                              # the next request, to whatever host
    assert second.give(world.now) is None
    assert fresh.give(world.now) is None
    assert world.stats().idle == 2


def test_a_retry_or_a_finished_orphan_is_no_next_request() -> None:
    world = World()
    user = world.user()
    assert user.checkout(world.now) == "dial"
    held = world.dial()
    world.pool.close_idle()
    orphan = FakeConn()
    user.dialed(orphan, world.now, keep=False)
    assert orphan.reason == "shutdown"
    assert user.checkout(world.now, first=False) == "dial"
    assert held.give(world.now) == "shutdown"


def test_after_close_idle_a_waiter_still_gets_its_turn() -> None:
    world = World(max_per_host=1)
    held = world.dial()
    waits = world.waiting()
    world.pool.close_idle()
    assert held.give(world.now) == "shutdown"
    assert waits.leave() == "dial"


def test_a_request_that_only_asked_whether_it_must_wait_is_the_next_request_too() -> None:
    world = World(max_per_host=1)
    held = world.dial()
    world.pool.close_idle()
    waits = world.user()
    assert waits.checkout(world.now) == "wait"
    assert waits.checkout(world.now, wait=True) == "wait"
    assert held.give(world.now) is None
    assert waits.leave() == "conn"


def test_a_closed_pool_takes_no_request() -> None:
    world = World()
    world.idle(1)
    world.pool.close()
    assert world.pool.is_closed
    assert world.user().checkout(world.now) == "closed"
    assert world.user("b").checkout(world.now, wait=True) == "closed"
    assert world.stats().requests == 1
    assert world.closed("shutdown") == 1


def test_what_is_in_flight_when_the_pool_is_closed_may_finish() -> None:
    world = World(max_per_host=1)
    held = world.dial()
    conn = held.conn
    waits = world.waiting()
    world.pool.close()
    assert conn.closes == 0 and conn.interrupts == 0
    assert waits.state == "queued"
    assert held.give(world.now) == "shutdown"
    assert waits.leave() == "dial"
    waits.dialed(FakeConn(), world.now)
    assert waits.conn.interrupts == 0
    assert waits.give(world.now) == "shutdown"
    assert world.stats().open == 0


def test_what_is_in_flight_when_the_pool_is_closed_may_retry() -> None:
    world = World()
    held = world.dial()
    world.pool.close()
    held.give(world.now, "server_closed")
    assert held.checkout(world.now, first=False) == "dial"
    held.dialed(FakeConn(), world.now)
    assert held.give(world.now) == "shutdown"


def test_close_twice_is_close() -> None:
    world = World()
    conn, = world.idle(1)
    world.pool.close()
    world.pool.close()
    world.pool.close_idle()
    assert conn.closes == 1


def test_cancelling_interrupts_what_is_in_flight_and_tells_who_waits() -> None:
    world = World(max_per_host=2)
    held = [world.dial(), world.dial()]
    other = world.dial("b")
    waits = world.waiting()
    conns = [user.conn for user in (*held, other)]
    world.pool.close(cancel=True)
    assert [conn.interrupts for conn in conns] == [1, 1, 1]
    assert [conn.closes for conn in conns] == [0, 0, 0]      # their users close them
    assert waits.leave() == "closed"
    for user in (*held, other):
        user.give(world.now, "error")
    assert [conn.reason for conn in conns] == ["cancelled"] * 3
    assert world.closed("cancelled") == 3 and world.stats().open == 0


def test_an_interrupted_connection_is_not_reused_even_where_its_request_got_through() -> None:
    world = World()
    held = world.dial()
    conn = held.conn
    world.pool.close(cancel=True)
    assert held.give(world.now) == "cancelled"
    assert conn.reason == "cancelled"


def test_many_in_flight_are_all_interrupted() -> None:
    world = World()
    held = [world.dial() for _ in range(200)]                # more than are interrupted at a time
    world.pool.close(cancel=True)
    assert [user.conn.interrupts for user in held] == [1] * 200


def test_cancelling_twice_interrupts_once() -> None:
    world = World()
    held = world.dial()
    world.pool.close(cancel=True)
    world.pool.close(cancel=True)
    assert held.conn.interrupts == 1


def test_cancelling_after_a_plain_close_still_interrupts() -> None:
    world = World()
    held = world.dial()
    world.pool.close()
    world.pool.close(cancel=True)
    assert held.conn.interrupts == 1


def test_a_descriptor_is_not_closed_while_somebody_interrupts_it() -> None:
    world = World()
    held = world.dial()
    conn = held.conn
    seen = []

    def given_back_meanwhile() -> None:
        held.give(world.now, "error")
        seen.append(conn.closes)

    conn.when_interrupted = given_back_meanwhile
    world.pool.close(cancel=True)
    assert seen == [0]                                       # pinned
    assert conn.closes == 1 and conn.reason == "cancelled"
    assert world.stats().open == 0


def test_a_dial_that_ends_after_cancelling_is_interrupted_at_once() -> None:
    world = World()
    user = world.user()
    assert user.checkout(world.now) == "dial"
    world.pool.close(cancel=True)
    conn = FakeConn()
    user.dialed(conn, world.now)
    assert conn.interrupts == 1
    assert user.give(world.now, "error") == "cancelled"


def test_a_dialing_request_is_told_that_all_is_cancelled() -> None:
    world = World()
    racer = world.dialing()
    late = world.user()
    assert late.checkout(world.now) == "dial"
    world.pool.close(cancel=True)
    assert racer.leave() == "closed"
    assert late.race(world.now) == "wait"                    # came too late to be told in the queue
    assert late.leave() == "closed"
    racer.dial_failed()
    late.dial_failed()
    assert world.stats().dialing == 0


def test_no_retry_after_cancelling() -> None:
    world = World()
    held = world.dial()
    world.pool.close(cancel=True)
    held.give(world.now, "server_closed")
    assert held.checkout(world.now, first=False) == "wait"
    assert held.checkout(world.now, wait=True, first=False) == "wait"
    assert held.state == "closed"
    stats = world.stats()
    assert (stats.waiting, stats.dialing, stats.open) == (0, 0, 0)


def test_stats_may_be_asked_in_the_midst_of_everything() -> None:
    world = World(max_idle=1)
    seen = []

    def look() -> None:
        seen.append(world.stats().open)

    user = world.dial()
    user.conn.when_closed = look
    user.give(world.now)
    world.idle(1, "c")                                       # evicts it
    held = world.dial("b")
    held.conn.when_interrupted = held.conn.when_closed = look
    world.pool.close(cancel=True)
    held.give(world.now, "error")
    assert len(seen) == 3


def test_an_interrupt_meant_for_one_user_never_hits_the_next() -> None:
    world = World()
    first = world.dial()
    conn = first.conn
    assert first.give(world.now) is None
    second = world.take()
    assert second.conn is conn
    first.interrupt(conn)                                # it looked a moment too early, and speaks a moment too late
    assert conn.interrupts == 0
    second.interrupt(conn)
    assert conn.interrupts == 1
    assert second.give(world.now) == "cancelled"
