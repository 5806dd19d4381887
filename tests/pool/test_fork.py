"""abandon(): what a forked child does with its parent's connections."""
from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable

import pytest

from pooledhttp._pool.testing import FakeConn
from tests.pool.kit import World, assert_adds_up, silent_and_hung_up


def test_all_are_closed_as_forked_whatever_their_state() -> None:
    world = World(max_per_host=3, max_idle=5)
    idle = world.idle(2, "a")
    active, waits_for = world.dial("b"), world.dial("b")
    held = world.dial("b")
    waits = world.waiting("b")
    conns = [*idle, active.conn, waits_for.conn, held.conn]
    world.pool.abandon()
    assert [conn.reason for conn in conns] == ["forked"] * 5
    stats = world.stats()
    assert (stats.open, stats.idle, stats.active, stats.dialing, stats.waiting) == (0, 0, 0, 0, 0)
    assert stats.closed["forked"] == 5 and stats.hosts["b"].closed["forked"] == 3
    assert waits.leave() == "closed"


def test_the_pool_works_afterwards() -> None:
    world = World(max_per_host=1)
    world.idle(1)
    world.pool.abandon()
    user = world.dial()
    conn = user.conn
    waits = world.waiting()
    user.give(world.now)
    assert waits.leave() == "conn"
    waits.give(world.now)
    assert world.take().conn is conn
    assert world.sweep() == 0


def test_a_request_of_the_forking_thread_may_give_back_what_is_closed_already() -> None:
    world = World()
    held = world.dial()
    conn = held.conn
    world.pool.abandon()
    assert held.give(world.now) == "forked"
    assert conn.closes == 1
    assert world.closed("forked") == 1


def test_a_dial_of_the_forking_thread_goes_on() -> None:
    world = World(max_per_host=1)
    racer = world.dialing()
    world.pool.abandon()
    assert world.stats().dialing == 0
    assert racer.leave() == "out"
    racer.dialed(FakeConn(), world.now)
    assert world.stats().active == 1 and world.stats().dialing == 0
    racer.give(world.now)
    assert world.stats().idle == 1


def test_a_failed_dial_of_the_forking_thread_does_not_count_below_nothing() -> None:
    world = World(max_per_host=1)
    racer = world.dialing()
    world.pool.abandon()
    racer.leave()
    racer.dial_failed()
    assert world.stats().dialing == 0
    world.dial()


def test_a_fork_in_the_midst_of_a_sweep_leaves_a_pool_that_sweeps() -> None:
    with silent_and_hung_up() as (quiet, ended):
        world = World(idle_timeout=30)
        conn = FakeConn(fd=ended)
        world.rest("a", conn)
        world.idle(1, "b", fd=quiet)

        def fork() -> bool:
            conn.when_readable = None
            world.pool.abandon()
            return True

        # In a real child nothing returns to the sweep; here what it does with the abandoned one is not of interest.
        conn.when_readable = lambda: in_child(fork, lambda: after_a_fork_during_a_sweep(world))
        world.sweep()
        assert conn.reason == "server_closed"


class Noticed(FakeConn):
    freed = 0

    def __del__(self) -> None:
        type(self).freed += 1


def test_what_the_janitor_is_inside_of_is_not_freed_in_the_child() -> None:
    """It may be half-way through a TLS record, and what is half done must not be taken apart."""
    with silent_and_hung_up() as (_, ended):
        world = World()

        def fork() -> bool:
            def abandon() -> None:
                world.pool.abandon()
                assert world.closed("forked") == 1
                assert Noticed.freed == 0

            return in_child(abandon)

        def rest() -> None:
            conn = Noticed(fd=ended)
            conn.when_readable = fork
            world.rest("a", conn)

        rest()
        world.sweep()
        assert world.closed("server_closed") == 1 and Noticed.freed == 1


def after_a_fork_during_a_sweep(world: World) -> None:
    assert world.stats().closed["forked"] == 2
    world.idle(2, "c")
    assert world.sweep() == 2
    world.later(60)
    assert world.sweep() == 0


def in_child(*steps: Callable[[], object]) -> bool:
    """Runs `steps` in a forked child and asserts that they ran through; False."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for step in steps:
                step()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    return False


@pytest.mark.unsanitized("forks beside busy threads")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_children_forked_while_threads_are_busy_have_a_whole_pool() -> None:
    world = World(max_per_host=2, max_idle=3)
    stop = threading.Event()

    def work(key: str) -> None:
        user = world.user(key)
        while not stop.is_set():
            outcome = user.checkout(world.now)
            if outcome == "dial":
                user.dialed(FakeConn(), world.now)
            if outcome != "wait":
                user.give(world.now, "error" if user.conn.uses > 20 else None)

    def child() -> None:
        world.pool.abandon()
        assert_adds_up(world.pool.stats())
        assert world.pool.stats().open == 0
        for key in ("a", "b"):
            user = world.dial(key)
            user.give(world.now)
            assert world.take(key).conn is not None
        assert world.sweep() == 0
        world.pool.close(cancel=True)

    threads = [threading.Thread(target=work, args=(key,)) for key in ("a", "a", "a", "b", "b")]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            in_child(child)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert_adds_up(world.pool.stats())
