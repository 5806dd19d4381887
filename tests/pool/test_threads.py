"""One pool under real threads: nobody sleeps through its turn, nobody shares, nobody is passed, and the sums add up at any moment."""
from __future__ import annotations

import random
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pooledhttp._pool.pool import Pool
from pooledhttp._pool.testing import FakeConn, User
from tests.pool.kit import assert_adds_up

THREADS = 16
ROUNDS = 200
PATIENCE = 20.0       # seconds: a wake-up that was lost fails the test instead of hanging it


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    """Threads take turns often, so that they meet."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


class Conn(FakeConn):
    """Knows how many use it."""

    def __init__(self, *, capacity: int = 1) -> None:
        super().__init__(capacity=capacity)
        self.room = capacity
        self.counting = threading.Lock()

    def enter(self) -> None:
        with self.counting:
            self.room -= 1
            assert self.room >= 0, "handed out to more than it has room for"
            assert self.closes == 0, "handed out closed"

    def leave(self) -> None:
        with self.counting:
            self.room += 1


def wait_for_turn(user: User, patience: float = PATIENCE) -> bool:
    """As a request waits: until its wake descriptor is readable and its state says what was granted."""
    poll = select.poll()
    poll.register(user.wake.fileno(), select.POLLIN)
    until = time.monotonic() + patience
    while user.state == "queued":
        left = until - time.monotonic()
        if left <= 0:
            return False
        poll.poll(left * 1_000)
        user.wake.clear()
    return True


def in_threads(work: Callable[[int], None], n: int = THREADS) -> None:
    """Runs `work(i)` in `n` threads that start together; raises the first failure."""
    errors: list[BaseException] = []
    start = threading.Barrier(n)

    def run(i: int) -> None:
        try:
            start.wait(PATIENCE)
            work(i)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Checker:
    """Reads `stats()` at random moments, and sweeps, while the others work."""

    def __init__(self, pool: Pool, *, sweep: bool = False) -> None:
        self.pool, self.sweep = pool, sweep
        self.looks = 0
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        dice = random.Random(7)
        try:
            while not self._stop.wait(dice.random() * 0.002):
                assert_adds_up(self.pool.stats())
                if self.sweep:
                    self.pool.sweep(time.monotonic_ns())
                self.looks += 1
        except BaseException as exc:
            self._failure = exc

    def __enter__(self) -> Checker:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure


@pytest.mark.parametrize("capacity", [1, 3])
def test_sixteen_threads_over_four_connections(capacity: int) -> None:
    pool = Pool(max_per_host=4, max_idle=3, max_idle_per_host=2, lifetime=0.05, idle_timeout=0.02)
    counts = {"requests": 0, "dials": 0, "gave_up": 0}
    counting = threading.Lock()

    def use(user: User, dice: random.Random) -> None:
        conn = user.conn
        assert isinstance(conn, Conn)
        conn.enter()
        if dice.random() < 0.3:
            time.sleep(dice.random() * 0.0005)               # a request that takes its time: lets the others run
        conn.leave()
        user.give(time.monotonic_ns(), dice.choice((None, None, None, None, "error")))

    def work(i: int) -> None:
        dice = random.Random(i)
        user = User(pool, "a")
        mine = {"requests": 0, "dials": 0, "gave_up": 0}
        for _ in range(5 * ROUNDS):
            outcome = user.checkout(time.monotonic_ns(), wait=True)
            mine["requests"] += 1
            if outcome == "wait":
                patient = dice.random() < 0.9
                served = wait_for_turn(user, PATIENCE if patient else dice.random() * 0.001)
                assert served or not patient, "slept through its turn"
                outcome = user.leave()
                if outcome != "queued" and not served:         # granted in the last moment: to the next
                    mine["gave_up"] += 1
                    if outcome == "conn":
                        user.give(time.monotonic_ns(), used=False)
                    else:
                        user.dial_failed()
                    continue
            if outcome == "dial":
                racing = dice.random() < 0.5 and user.race(time.monotonic_ns())
                if racing == "conn":
                    user.dial_failed()
                else:
                    state = user.leave()
                    mine["dials"] += 1
                    if state == "conn" and dice.random() < 0.5:
                        user.dialed(Conn(capacity=capacity), time.monotonic_ns(), keep=False)
                    elif dice.random() < 0.1:
                        user.dial_failed()
                        if state != "conn":
                            continue
                    else:
                        if state == "conn":
                            user.give(time.monotonic_ns(), used=False)
                        user.dialed(Conn(capacity=capacity), time.monotonic_ns())
            elif outcome == "queued":
                continue
            use(user, dice)
        with counting:
            for name, n in mine.items():
                counts[name] += n

    with Checker(pool, sweep=True) as checker:
        in_threads(work)
    stats = pool.stats()
    assert_adds_up(stats)
    assert stats.requests == counts["requests"] == THREADS * 5 * ROUNDS
    assert (stats.active, stats.dialing, stats.waiting) == (0, 0, 0)
    assert stats.dials >= counts["dials"] and stats.waits > 0 and checker.looks > 0
    pool.close()
    assert pool.stats().open == 0


def test_never_more_connections_than_the_limit() -> None:
    pool = Pool(max_per_host=4)
    most = 0
    together = threading.Barrier(4)

    def work(i: int) -> None:
        nonlocal most
        user = User(pool, "a")
        for n in range(ROUNDS):
            outcome = user.checkout(time.monotonic_ns(), wait=True)
            if outcome == "wait":
                assert wait_for_turn(user), "slept through its turn"
                outcome = user.leave()
            if outcome == "dial":
                user.dialed(Conn(), time.monotonic_ns())
            if n == 0 and i < 4:
                together.wait(PATIENCE)
            stats = pool.stats()
            most = max(most, stats.open + stats.dialing)
            assert stats.open + stats.dialing <= 4
            user.give(time.monotonic_ns(), "error" if i % 4 == 0 else None)

    in_threads(work)
    assert most == 4
    assert pool.stats().requests == THREADS * ROUNDS
    pool.close()


@pytest.mark.parametrize("limit", [1, 4])
def test_first_come_first_served(limit: int) -> None:
    pool = Pool(max_per_host=limit)
    joining = threading.Lock()
    queue: list[User] = []                 # in the order in which they joined
    served = 0
    first = [User(pool, "a") for _ in range(limit)]
    for user in first:
        assert user.checkout(time.monotonic_ns()) == "dial"
        user.dialed(Conn(), time.monotonic_ns())

    def work(i: int) -> None:
        nonlocal served
        if i == THREADS:
            while pool.stats().waiting < THREADS:      # nothing says when they have all asked
                time.sleep(0.001)
            for user in first:
                user.give(time.monotonic_ns())
            return
        for _ in range(ROUNDS):
            user = User(pool, "a")
            with joining:                  # so that the order of joining is known
                outcome = user.checkout(time.monotonic_ns(), wait=True)
                if outcome == "wait":
                    queue.append(user)
            if outcome == "wait":
                assert wait_for_turn(user), "slept through its turn"
                with joining:
                    before = queue[: queue.index(user)]
                    assert not [other for other in before if other.state == "queued"], "passed somebody who came earlier"
                    outcome = user.leave()
                    queue.remove(user)
                    served += 1
            if outcome == "dial":
                user.dialed(Conn(), time.monotonic_ns())
            conn = user.conn
            assert isinstance(conn, Conn)
            conn.enter()
            time.sleep(0)                  # whoever wants to ask, asks now
            conn.leave()
            user.give(time.monotonic_ns(), "error" if served % 7 == 0 else None)

    in_threads(work, THREADS + 1)
    assert served >= THREADS
    pool.close()


@pytest.mark.parametrize("cancel", [False, True])
def test_closing_in_the_midst_of_it_ends_all_and_loses_nobody(cancel: bool) -> None:
    pool = Pool(max_per_host=4)
    started = threading.Semaphore(0)
    outcomes: list[str] = []

    def work(i: int) -> None:
        if i == 0:
            for _ in range(200):
                started.acquire()
            pool.close_idle()
            pool.close(cancel)
            return
        user = User(pool, "a")
        while True:
            outcome = user.checkout(time.monotonic_ns(), wait=True)
            if outcome == "wait":
                assert wait_for_turn(user), "slept through its turn"
                outcome = user.leave()
            if outcome == "closed":
                outcomes.append(outcome)
                return
            started.release()
            if outcome == "dial":
                user.dialed(Conn(), time.monotonic_ns())
            user.give(time.monotonic_ns())

    with Checker(pool):
        in_threads(work)
    assert outcomes == ["closed"] * (THREADS - 1)
    stats = pool.stats()
    assert (stats.open, stats.dialing, stats.waiting) == (0, 0, 0)


def test_users_come_and_go_with_their_threads() -> None:
    """A waiter's memory and wake descriptor may be gone right after it was served."""
    pool = Pool(max_per_host=1)

    def once(i: int) -> None:
        user = User(pool, "a")
        outcome = user.checkout(time.monotonic_ns(), wait=True)
        if outcome == "wait":
            while user.state == "queued":
                time.sleep(0)              # does not even wait to be woken
            outcome = user.leave()
        if outcome == "dial":
            user.dialed(Conn(), time.monotonic_ns())
        user.give(time.monotonic_ns())

    for _ in range(5):
        in_threads(once, 8)
    assert pool.stats().requests == 40
    pool.close()


def test_hosts_that_fold_beside_requests_lose_no_count() -> None:
    pool = Pool(max_hosts=8)

    def work(i: int) -> None:
        for n in range(300):
            while True:
                user = User(pool, f"h{(i * 7 + n) % 40}")
                outcome = user.checkout(time.monotonic_ns())
                if outcome != "folded":
                    break
            if outcome == "dial":
                user.dialed(Conn(), time.monotonic_ns())
            user.leaked()
            user.give(time.monotonic_ns(), "not_reusable")

    with Checker(pool):
        in_threads(work, 8)
    stats = pool.stats()
    assert_adds_up(stats)
    assert stats.requests == stats.leaked == stats.dials == 8 * 300


def test_idle_over_many_hosts_is_never_over_its_limit() -> None:
    """Also as `stats()` adds it up: its rows are of one moment, or what went from host to host meanwhile would count twice."""
    pool = Pool(max_idle=4)
    hosts = [User(pool, f"h{i}") for i in range(64)]
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for user in hosts:
                if user.checkout(time.monotonic_ns()) == "dial":
                    user.dialed(Conn(), time.monotonic_ns())
                user.give(time.monotonic_ns())

    mover = threading.Thread(target=work)
    mover.start()
    try:
        most, kept = 0, 0
        for _ in range(1_000):
            stats = pool.stats()
            assert_adds_up(stats)
            most, kept = max(most, stats.idle), max(kept, pool.idle)
    finally:
        stop.set()
        mover.join()
    assert kept == 4, "the pool's own count"
    assert most == 4, "the sum over the rows"
    pool.close()
