"""The limit per host, the queue before it, and the race between a dial and a connection that is given back."""
from __future__ import annotations

import select

import pytest

from pooledhttp._pool.testing import FakeConn, User
from tests.pool.kit import World


def woken(user: User) -> bool:
    """Whether the user's wake descriptor is readable, as its thread would see it."""
    poll = select.poll()
    poll.register(user.wake.fileno(), select.POLLIN)
    return bool(poll.poll(0))


# --- the limit -------------------------------------------------------------------------------------------------------------

def test_the_limit_counts_dialing_active_and_idle() -> None:
    world = World(max_per_host=3)
    idle = world.dial()                        # becomes idle below
    world.user().checkout(world.now)           # dialing
    active = world.dial()
    asks = world.user()
    assert asks.checkout(world.now) == "wait"
    idle.give(world.now)
    assert active.conn.closes == 0
    assert world.take().conn is not None       # the idle one serves before anybody is refused
    assert asks.checkout(world.now) == "wait"
    stats = world.stats()
    assert (stats.dialing, stats.active, stats.idle) == (1, 2, 0)


def test_the_limit_is_each_host_s_own() -> None:
    world = World(max_per_host=1)
    held = world.dial("a")
    assert world.user("a").checkout(world.now) == "wait"
    assert world.user("b").checkout(world.now) == "dial"
    held.give(world.now)


def test_a_request_that_must_wait_is_counted_once() -> None:
    world = World(max_per_host=1)
    held = world.dial()
    asks = world.user()
    assert asks.checkout(world.now) == "wait"                  # without a waiter: only told
    assert world.stats().requests == 1 and world.stats().waits == 0
    assert asks.checkout(world.now, wait=True) == "wait"
    stats = world.stats()
    assert (stats.requests, stats.waits, stats.waiting) == (2, 1, 1)
    held.give(world.now)
    assert asks.leave() == "conn"
    assert world.stats().waiting == 0


# --- first come, first served ----------------------------------------------------------------------------------------------

def test_a_returned_connection_goes_to_who_waits_longest() -> None:
    world = World(max_per_host=1)
    held = world.dial()
    conn = held.conn
    queue = [world.waiting() for _ in range(4)]
    for i, user in enumerate(queue):
        held.give(world.later(1).now)
        assert [u.state for u in queue[i:]] == ["conn"] + ["queued"] * (3 - i)
        assert woken(user) and not any(woken(u) for u in queue[i + 1:])
        assert user.leave() == "conn"
        assert user.conn is conn
        held = user
    assert world.stats().reuses == 4
    assert conn.closes == 0


def test_a_handed_over_connection_never_touches_the_idle_list() -> None:
    world = World(max_per_host=1, max_idle=1, max_idle_per_host=1)
    held = world.dial()
    user = world.waiting()
    held.give(world.now)
    stats = world.stats()
    assert (stats.idle, stats.active, stats.waiting) == (0, 1, 0)
    assert user.leave() == "conn"


def test_the_right_to_dial_goes_to_the_longest_waiting_when_a_dial_fails() -> None:
    world = World(max_per_host=1)
    dials = world.user()
    assert dials.checkout(world.now) == "dial"
    first, second = world.waiting(), world.waiting()
    dials.dial_failed()
    assert (first.state, second.state) == ("dial", "queued")
    assert woken(first) and not woken(second)
    assert first.leave() == "dial"
    first.dial_failed()
    assert second.leave() == "dial"
    stats = world.stats()
    assert (stats.dials, stats.dialing, stats.opened) == (3, 1, 0)


@pytest.mark.parametrize("reason", ["error", "not_reusable", "timeout"])
def test_the_right_to_dial_goes_to_the_longest_waiting_when_a_connection_is_closed(reason: str) -> None:
    world = World(max_per_host=2)
    held = [world.dial(), world.dial()]
    queue = [world.waiting() for _ in range(3)]
    held[0].give(world.now, reason)
    held[1].give(world.now, reason)
    assert [user.state for user in queue] == ["dial", "dial", "queued"]
    assert world.stats().dialing == 2


def test_the_room_of_a_connection_is_nobody_s_before_it_is_closed() -> None:
    """To the server it is a connection until then."""
    world = World(max_per_host=1)
    held, waits, asks = world.dial(), world.waiting(), world.user()
    seen: list[tuple[str, str]] = []
    held.conn.when_closed = lambda: seen.append((waits.state, asks.checkout(world.now)))
    held.give(world.now, "error")
    assert seen == [("queued", "wait")]
    assert waits.state == "dial" and woken(waits)


def test_the_room_of_an_expired_connection_is_the_request_s_that_found_it() -> None:
    world = World(max_per_host=1, idle_timeout=30)
    (old,) = world.idle(1)
    world.later(31)
    asks, late = world.user(), world.user()
    seen: list[str] = []
    old.when_closed = lambda: seen.append(late.checkout(world.now))
    assert asks.checkout(world.now) == "dial"
    assert (old.reason, seen) == ("idle_timeout", ["wait"])


def test_nobody_passes_the_queue() -> None:
    world = World(max_per_host=1)
    held = world.dial()
    first = world.waiting()
    late = world.user()
    held.give(world.now)
    assert late.checkout(world.now, wait=True) == "wait"       # the connection is first's, though it has not looked yet
    assert first.leave() == "conn"
    first.give(world.now)
    assert late.leave() == "conn"


def test_who_got_a_dead_connection_keeps_its_turn() -> None:
    world = World(max_per_host=1)
    held = world.dial()
    first, second, third = (world.waiting() for _ in range(3))
    held.give(world.now)
    assert first.leave() == "conn"
    first.conn.alive = False
    first.give(world.now, "server_closed", used=False)         # its place is free: second may dial
    assert second.state == "dial"
    assert first.checkout(world.now, wait=True, first=False) == "wait"
    assert second.leave() == "dial"
    second.dial_failed()
    assert (first.state, third.state) == ("dial", "queued")


def test_leaving_the_queue_leaves_the_others_in_order() -> None:
    world = World(max_per_host=1)
    held = world.dial()
    queue = [world.waiting() for _ in range(5)]
    for i in (2, 0, 4):                                        # the middle, the head, the tail
        assert queue[i].leave() == "queued"
    assert world.stats().waiting == 2
    held.give(world.now)
    assert queue[1].leave() == "conn"
    queue[1].give(world.now)
    assert queue[3].leave() == "conn"
    assert world.stats().waiting == 0


def test_a_connection_granted_in_the_last_moment_is_passed_on() -> None:
    world = World(max_per_host=1)
    held = world.dial()
    leaves, stays = world.waiting(), world.waiting()
    held.give(world.now)
    assert leaves.leave() == "conn"                            # its deadline has passed, but the connection is here
    reuses = world.stats().reuses
    assert leaves.give(world.now, used=False) is None
    assert stays.leave() == "conn"
    assert world.stats().reuses == reuses                      # one taken back, one handed on
    assert stays.conn.uses == 1


def test_a_right_to_dial_granted_in_the_last_moment_is_passed_on() -> None:
    world = World(max_per_host=1)
    held = world.dial()
    leaves, stays = world.waiting(), world.waiting()
    held.give(world.now, "error")
    assert leaves.leave() == "dial"
    leaves.dial_failed()
    assert stays.leave() == "dial"


def test_a_long_queue_is_told_in_full_when_the_pool_is_cancelled() -> None:
    world = World(max_per_host=1)
    held = world.dial()
    queue = [world.waiting() for _ in range(100)]              # more than are woken under one hold of the lock
    world.pool.close(cancel=True)
    assert {user.leave() for user in queue} == {"closed"}
    assert all(woken(user) for user in queue)
    assert held.give(world.now) == "cancelled"


# --- idle or dial ----------------------------------------------------------------------------------------------------------

def test_a_dialing_request_takes_what_is_given_back_first() -> None:
    world = World()
    held = world.dial()
    conn = held.conn
    racer = world.dialing()
    held.give(world.now)
    assert woken(racer)
    assert racer.state == "conn"
    assert racer.leave() == "conn"
    assert racer.conn is conn
    assert world.stats().dialing == 1                          # its own dial is still under way


def test_a_dialing_request_takes_what_came_between_asking_and_dialing() -> None:
    world = World()
    held = world.dial()
    conn = held.conn
    racer = world.user()
    assert racer.checkout(world.now) == "dial"
    held.give(world.now)
    assert racer.race(world.now) == "conn"
    assert racer.conn is conn
    racer.dial_failed()
    assert world.stats().dialing == 0


def test_a_finished_orphan_dial_is_pooled() -> None:
    world = World()
    held = world.dial()
    racer = world.dialing()
    held.give(world.now)
    assert racer.leave() == "conn"
    orphan = FakeConn()
    racer.dialed(orphan, world.now, keep=False)
    stats = world.stats()
    assert (stats.dialing, stats.idle, stats.active, stats.opened) == (0, 1, 1, 2)
    assert world.take().conn is orphan
    assert orphan.uses == 0


def test_a_finished_orphan_dial_goes_to_who_waits() -> None:
    world = World(max_per_host=2)
    held = world.dial()
    racer = world.dialing()
    held.give(world.now)
    assert racer.leave() == "conn"
    waits = world.waiting()                                    # active 1, dialing 1: at the limit
    orphan = FakeConn()
    racer.dialed(orphan, world.now, keep=False)
    assert waits.leave() == "conn"
    assert waits.conn is orphan


def test_a_failed_orphan_dial_hands_on_the_right_to_dial() -> None:
    world = World(max_per_host=2)
    held = world.dial()
    racer = world.dialing()
    held.give(world.now)
    assert racer.leave() == "conn"
    waits = world.waiting()
    racer.dial_failed()
    assert waits.leave() == "dial"


def test_dialing_requests_are_no_waiters() -> None:
    world = World()
    racers = [world.dialing() for _ in range(3)]
    assert world.stats().waiting == 0 and world.stats().waits == 0
    racers[0].dial_failed()                                    # no limit: nobody waits for the right to dial
    assert [racer.state for racer in racers] == ["queued"] * 3
    assert [racer.leave() for racer in racers] == ["queued"] * 3


def test_the_right_to_dial_skips_those_who_dial_already() -> None:
    world = World(max_per_host=2)
    held = world.dial()
    racer = world.dialing()
    waits = world.waiting()
    held.give(world.now, "error")
    assert (racer.state, waits.state) == ("queued", "dial")


def test_racers_and_waiters_are_served_in_one_order() -> None:
    world = World(max_per_host=2)
    held = world.dial()
    conn = held.conn
    racer = world.dialing()
    waits = world.waiting()
    held.give(world.now)
    assert (racer.state, waits.state) == ("conn", "queued")
    assert racer.leave() == "conn"
    racer.give(world.now)
    assert waits.leave() == "conn"
    assert waits.conn is conn


def test_a_racer_whose_dial_ends_first_leaves_the_queue_with_its_own() -> None:
    world = World()
    held = world.dial()
    racer = world.dialing()
    own = FakeConn()
    assert racer.leave() == "queued"
    racer.dialed(own, world.now)
    assert racer.conn is own
    held.give(world.now)
    assert world.stats().idle == 1


def test_both_at_once_the_own_connection_serves_and_the_other_goes_back() -> None:
    world = World()
    held = world.dial()
    racer = world.dialing()
    held.give(world.now)
    assert racer.leave() == "conn"
    assert racer.give(world.now, used=False) is None
    racer.dialed(FakeConn(), world.now)
    stats = world.stats()
    assert (stats.idle, stats.active, stats.reuses) == (1, 1, 0)
