"""The janitor's step: it closes what is expired or dead among the idle, and nothing else, while others come and go."""
from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from pooledhttp._pool.testing import FakeConn
from tests.pool.kit import SECOND, World, assert_adds_up, silent_and_hung_up

MANY = 3_000          # idle connections: a dozen slices


class Conn(FakeConn):
    busy = False


@pytest.fixture
def fds() -> Iterator[tuple[int, int]]:
    with silent_and_hung_up() as both:
        yield both


def test_the_expired_are_closed_and_the_others_counted() -> None:
    world = World(idle_timeout=30)
    conns = world.idle(4, "a", apart=10)                 # idle for 40, 30, 20, 10 s
    assert world.sweep() == 2
    assert [conn.reason for conn in conns] == ["idle_timeout", "idle_timeout", None, None]


def test_past_their_life_they_are_closed() -> None:
    world = World(lifetime=100)
    conns = world.idle(20, apart=0)
    world.later(89)
    assert world.sweep() == 20
    world.later(11)
    assert world.sweep() == 0
    assert {conn.reason for conn in conns} == {"lifetime"}


def test_what_the_server_closed_is_noticed(fds: tuple[int, int]) -> None:
    quiet, ended = fds
    world = World()
    alive, = world.idle(1, fd=quiet)
    dead, = world.idle(1, "b", fd=ended)
    assert world.sweep() == 1
    assert (alive.reason, dead.reason) == (None, "server_closed")


def test_what_becomes_readable_later_is_noticed_by_a_later_sweep() -> None:
    reads, writes = os.pipe()
    try:
        world = World()
        conn, = world.idle(1, fd=reads)
        assert world.sweep() == 1 and conn.closes == 0
        os.write(writes, b"x")
        assert world.sweep() == 0 and conn.reason == "server_closed"
    finally:
        os.close(reads)
        os.close(writes)


def test_one_without_a_descriptor_hides_none_behind_it(fds: tuple[int, int]) -> None:
    world = World()
    dead, = world.idle(1, fd=fds[1])
    world.idle(1, "b")
    assert world.sweep() == 1
    assert dead.reason == "server_closed"


def test_readable_but_good_stays_and_keeps_its_age(fds: tuple[int, int]) -> None:
    world = World(idle_timeout=30, max_idle=3)
    ticket, other = FakeConn(fd=fds[1]), FakeConn()
    ticket.good_when_readable = True
    world.rest("a", ticket, other, apart=10)
    third, = world.idle(1, "b", apart=0)
    assert world.sweep() == 3
    assert ticket.closes == 0
    world.idle(1, "c", apart=0)                          # one too many: the oldest is still the one with the ticket
    assert (ticket.reason, other.reason, third.reason) == ("evicted", None, None)


def test_readable_but_good_keeps_its_turn(fds: tuple[int, int]) -> None:
    world = World()
    ticket, newest = FakeConn(fd=fds[1]), FakeConn()
    ticket.good_when_readable = True
    world.rest("a", ticket, newest)
    world.sweep()
    assert world.take().conn is newest
    assert world.take().conn is ticket


def test_readable_but_good_still_expires(fds: tuple[int, int]) -> None:
    world = World(idle_timeout=30)
    ticket, = world.idle(1, fd=fds[1], apart=20)
    ticket.good_when_readable = True
    assert world.sweep() == 1
    world.later(10)
    assert world.sweep() == 0
    assert ticket.reason == "idle_timeout"


# --- in the midst of a sweep -----------------------------------------------------------------------------------------------

def looked_at(world: World, fd: int, during: object, *, good: bool = True, key: str = "a") -> FakeConn:
    """An idle connection that is readable; while the sweep looks at it, `during` runs."""
    conn, = world.idle(1, key, fd=fd)

    def look() -> bool:
        assert callable(during)
        conn.when_readable = None
        during()
        assert_adds_up(world.pool.stats())
        return good

    conn.when_readable = look
    return conn


def test_while_it_is_looked_at_nobody_gets_it(fds: tuple[int, int]) -> None:
    world = World()
    outcome: list[str] = []
    conn = looked_at(world, fds[1], lambda: outcome.append(world.user().checkout(world.now)))
    world.sweep()
    assert outcome == ["dial"]
    assert world.take().conn is conn


def test_who_waits_for_it_gets_it_when_it_is_good(fds: tuple[int, int]) -> None:
    world = World(max_per_host=1)
    waits = world.user()
    conn = looked_at(world, fds[1], lambda: waits.checkout(world.now, wait=True))
    world.sweep()
    assert waits.leave() == "conn"
    assert waits.conn is conn


def test_who_waits_for_it_may_dial_when_it_is_dead(fds: tuple[int, int]) -> None:
    world = World(max_per_host=1)
    waits = world.user()
    conn = looked_at(world, fds[1], lambda: waits.checkout(world.now, wait=True), good=False)
    world.sweep()
    assert conn.reason == "server_closed"
    assert waits.leave() == "dial"


def test_another_that_is_given_back_meanwhile_is_handed_out(fds: tuple[int, int]) -> None:
    world = World(max_per_host=2)
    conn = looked_at(world, fds[1], lambda: None)
    world.take()                                          # it itself
    held = world.dial()
    other = held.conn
    world._users[-2].give(world.now)
    waits = [world.user(), world.user()]

    def during() -> None:
        assert [user.checkout(world.now, wait=True) for user in waits] == ["wait", "wait"]
        held.give(world.now)
        assert [user.state for user in waits] == ["conn", "queued"]

    def look() -> bool:
        during()
        return True

    conn.when_readable = look
    world.sweep()
    conn.when_readable = None
    assert [user.leave() for user in waits] == ["conn", "conn"]
    assert [user.conn for user in waits] == [other, conn]


@pytest.mark.parametrize("cancel", [None, False, True])
def test_closing_the_pool_closes_it_too(fds: tuple[int, int], cancel: bool | None) -> None:
    world = World()
    conn = looked_at(world, fds[1], (lambda: world.pool.close_idle()) if cancel is None else (lambda: world.pool.close(cancel)))
    world.sweep()
    assert conn.reason == "shutdown" and conn.closes == 1 and conn.interrupts == 0


def test_close_idle_and_a_next_request_meanwhile_close_it_too(fds: tuple[int, int]) -> None:
    world = World()

    def during() -> None:
        world.pool.close_idle()
        assert world.user("b").checkout(world.now) == "dial"

    conn = looked_at(world, fds[1], during)
    world.sweep()
    assert conn.reason == "shutdown"


def test_it_counts_for_the_limits_when_it_comes_back(fds: tuple[int, int]) -> None:
    world = World(max_idle=2)
    fresh: list[FakeConn] = []
    conn = looked_at(world, fds[1], lambda: fresh.extend(world.idle(2, "b")))
    world.sweep()
    assert conn.reason == "evicted"                       # it is the oldest of three
    assert [c.reason for c in fresh] == [None, None]


@pytest.mark.parametrize("fifo", [False, True])
def test_a_request_that_passes_over_it_does_not_make_it_young(fds: tuple[int, int], fifo: bool) -> None:
    world = World(max_idle_per_host=2, fifo=fifo)
    fresh: list[FakeConn] = []
    conn = looked_at(world, fds[1], lambda: fresh.extend(world.idle(2)))
    world.sweep()
    assert conn.reason == "evicted" and [c.reason for c in fresh] == [None, None]


@pytest.mark.parametrize("fifo", [False, True])
def test_a_request_that_passes_over_it_does_not_change_its_turn(fds: tuple[int, int], fifo: bool) -> None:
    world = World(fifo=fifo)
    fresh: list[FakeConn] = []
    conn = looked_at(world, fds[1], lambda: fresh.extend(world.idle(2)))
    world.sweep()
    in_turn = [conn, *fresh] if fifo else [*reversed(fresh), conn]
    assert [world.take().conn for _ in range(3)] == in_turn


def test_eviction_passes_over_it(fds: tuple[int, int]) -> None:
    world = World(max_idle=1, max_idle_per_host=1)
    conn = looked_at(world, fds[1], lambda: world.idle(2))
    world.sweep()
    assert conn.closes == 1 and world.closed("evicted") == 2 and world.stats().idle == 1


def test_a_second_sweep_meanwhile_keeps_out(fds: tuple[int, int]) -> None:
    world = World(idle_timeout=30)
    left: list[int] = []
    conn = looked_at(world, fds[1], lambda: left.append(world.pool.sweep(world.now + 60 * SECOND)))
    assert world.sweep() == 1
    assert left == [0] and conn.closes == 0               # what is looked at counts as active
    world.later(60)
    assert world.sweep() == 0                             # and the next one works


def test_neighbours_come_and_go_while_one_is_looked_at(fds: tuple[int, int]) -> None:
    quiet, ended = fds
    world = World(idle_timeout=1_000, max_idle=0, max_idle_per_host=0)
    crowd = [FakeConn(fd=quiet) for _ in range(300)]       # the slices' boundary lies among them
    world.rest("a", *crowd, apart=0)
    taken = []

    def during() -> None:
        for key in ("a", "b", "a"):
            taken.append(world.take(key))
        world.idle(3, "c", fd=quiet)

    between = world.idle(2, "b", fd=quiet)
    conn = looked_at(world, ended, during, good=False, key="d")
    newest = world.idle(100, "e", fd=quiet, apart=0)
    assert world.sweep() == 300 + 2 + 100 - 3 + 3
    assert conn.reason == "server_closed"
    for user in taken:
        user.give(world.now)
    assert not any(c.closes for c in (*crowd, *between, *newest))
    world.later(2_000)
    assert world.sweep() == 0                              # all of them are still on the list


# --- many ------------------------------------------------------------------------------------------------------------------

def test_thousands_of_idle_ones_over_many_slices(fds: tuple[int, int]) -> None:
    quiet, ended = fds
    world = World(max_idle=0, max_idle_per_host=0, idle_timeout=100)
    old = world.idle(MANY, "a", fd=quiet, apart=0)
    world.later(50)
    dead = world.idle(MANY, "b", fd=ended, apart=0)
    tickets = world.idle(MANY, "c", fd=ended, apart=0)
    for conn in tickets:
        conn.good_when_readable = True
    assert world.sweep() == 2 * MANY
    assert {conn.reason for conn in old} == {None} and {conn.reason for conn in dead} == {"server_closed"}
    assert {conn.reason for conn in tickets} == {None}
    world.later(50)
    assert world.sweep() == MANY
    assert {conn.reason for conn in old} == {"idle_timeout"}
    world.later(50)
    assert world.sweep() == 0
    assert all(conn.closes == 1 for conn in (*old, *dead, *tickets))


def test_sweeps_of_thousands_beside_concurrent_checkouts(fds: tuple[int, int]) -> None:
    quiet, ended = fds
    world = World(max_idle=0, max_idle_per_host=0)
    keys = [f"host{i}" for i in range(4)]
    for key in keys:
        conns = [Conn(fd=ended if i % 8 == 0 else quiet) for i in range(MANY // 4)]
        for conn in conns:
            conn.good_when_readable = True
        world.rest(key, *conns, apart=0)
    errors: list[BaseException] = []
    start = threading.Barrier(len(keys) + 1)

    def come_and_go(key: str) -> None:
        try:
            start.wait()
            for _ in range(1_000):
                user = world.user(key)
                assert user.checkout(world.now) == "conn"
                conn = user.conn
                assert isinstance(conn, Conn) and not conn.busy
                conn.busy = True
                conn.busy = False
                assert user.give(world.now) is None
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=come_and_go, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in threads):
        world.pool.sweep(world.now)
        assert_adds_up(world.pool.stats())
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    assert world.sweep() == MANY
    world.pool.close()
    assert world.closed("shutdown") == MANY and world.stats().open == 0
