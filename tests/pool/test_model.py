"""Whatever is done to a pool, in whatever order: it does what the model does, and its sums add up after every step."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, precondition, rule

from pooledhttp._pool.pool import Pool
from pooledhttp._pool.testing import FakeConn, User
from tests.pool.kit import SECOND, assert_adds_up
from tests.pool.model import Conn, Model, Request

KEYS = ("a", "b", "c")
LIMITS = st.sampled_from((0, 1, 2, 3))
VERDICTS = st.sampled_from((None, None, None, "error", "not_reusable", "timeout"))


@dataclass(eq=False)
class Both:
    """One request, in the pool and in the model."""

    user: User
    request: Request


class PoolMachine(RuleBasedStateMachine):
    """A request is in one bundle at a time: out, asked to wait, dialing, racing (dialing and queued), queued, holding."""

    out: Bundle[Both] = Bundle("out")
    dialing: Bundle[Both] = Bundle("dialing")
    racing: Bundle[Both] = Bundle("racing")
    queued: Bundle[Both] = Bundle("queued")
    holding: Bundle[Both] = Bundle("holding")

    @initialize(max_idle=LIMITS, max_idle_per_host=LIMITS, max_per_host=LIMITS, idle_timeout=st.sampled_from((None, 5, 30)),
                lifetime=st.sampled_from((None, None, 60)), fifo=st.booleans())
    def make(self, **options: Any) -> None:
        self.now = 1_000 * SECOND
        self.pool = Pool(**options)
        self.lifetime = options.pop("lifetime")
        if options["idle_timeout"]:
            options["idle_timeout"] *= SECOND
        self.model = Model(**options)
        self.conns: list[Conn] = []
        self.everybody: list[Both] = []

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            self.everybody.clear()

    # --- requests ----------------------------------------------------------------------------------------------------------

    @rule(target=out, key=st.sampled_from(KEYS))
    def a_new_request(self, key: str) -> Both:
        both = Both(User(self.pool, key), Request(key))
        self.everybody.append(both)
        return both

    def after_checkout(self, both: Both, outcome: str) -> Any:
        if outcome == "conn":
            self.compare_conn(both)
        return outcome

    def compare_conn(self, both: Both) -> None:
        assert both.request.conn is not None and both.user.conn is both.request.conn.real

    # Hypothesis takes one target a rule: who dials, holds or waits afterwards is told apart by `precondition`-free dispatch here.
    @rule(target=holding, both=consumes(out), wait=st.booleans(), first=st.sampled_from((True, True, True, False)), then_race=st.booleans(),
          capacity=st.sampled_from((1, 1, 1, 2, 3)))
    def a_whole_request(self, both: Both, wait: bool, first: bool, then_race: bool, capacity: int) -> Any:
        """Asks, and dials at once where it must; who is told to wait gives up at once."""
        outcome = both.user.checkout(self.now, wait=wait, first=first)
        assert outcome == self.model.checkout(both.request, self.now, wait=wait, first=first)
        if outcome == "conn":
            self.compare_conn(both)
            return both
        if outcome == "dial":
            if then_race:
                raced = both.user.race(self.now)
                assert raced == self.model.race(both.request, self.now)
                assert self.leave(both) in ("queued", "closed")
            self.dialed(both, capacity, keep=True)
            return both
        if outcome == "wait" and wait:
            assert self.leave(both) in ("queued", "closed")
        return multiple()

    @rule(target=dialing, both=consumes(out), first=st.booleans())
    def begins_to_dial(self, both: Both, first: bool) -> Any:
        if self.model.closed and first:
            return multiple()
        outcome = both.user.checkout(self.now, first=first)
        assert outcome == self.model.checkout(both.request, self.now, wait=False, first=first)
        if outcome == "conn":
            self.give(both, None, -1, used=False)
        return both if outcome == "dial" else multiple()

    @rule(target=racing, both=consumes(dialing))
    def races(self, both: Both) -> Any:
        outcome = both.user.race(self.now)
        assert outcome == self.model.race(both.request, self.now)
        if outcome == "conn":
            self.compare_conn(both)
            self.dial_failed(both)
            self.give(both, None, -1, used=True)
            return multiple()
        return both

    @rule(target=queued, both=consumes(out), first=st.booleans())
    def queues(self, both: Both, first: bool) -> Any:
        outcome = both.user.checkout(self.now, wait=True, first=first)
        assert outcome == self.model.checkout(both.request, self.now, wait=True, first=first)
        if outcome == "conn":
            self.compare_conn(both)
            self.give(both, None, -1, used=True)
        elif outcome == "dial":
            self.dial_failed(both)
        return both if outcome == "wait" else multiple()

    @rule(target=holding, both=consumes(queued), capacity=st.sampled_from((1, 1, 2)), gives_up=st.booleans())
    def leaves_the_queue(self, both: Both, capacity: int, gives_up: bool) -> Any:
        state = self.leave(both)
        if state == "conn":
            if gives_up:
                self.give(both, None, -1, used=False)
                return multiple()
            return both
        if state == "dial":
            if gives_up:
                self.dial_failed(both)
                return multiple()
            self.dialed(both, capacity, keep=True)
            return both
        return multiple()

    @rule(target=holding, both=consumes(racing), ends=st.sampled_from(("mine", "orphan", "fails")), capacity=st.sampled_from((1, 1, 2, 20)))
    def leaves_the_race(self, both: Both, ends: str, capacity: int) -> Any:
        state = self.leave(both)
        if ends == "fails":
            self.dial_failed(both)
        elif state == "conn" and ends == "orphan":
            self.dialed(both, capacity, keep=False)
        else:
            if state == "conn":
                self.give(both, None, -1, used=False)
            self.dialed(both, capacity, keep=True)
            return both
        return both if state == "conn" else multiple()

    @rule(target=holding, both=consumes(dialing), capacity=st.sampled_from((1, 1, 2, 20)))
    def dial_ends(self, both: Both, capacity: int) -> Both:
        self.dialed(both, capacity, keep=True)
        return both

    @rule(both=consumes(dialing))
    def dial_fails(self, both: Both) -> None:
        self.dial_failed(both)

    @rule(target=out, both=consumes(holding), verdict=VERDICTS, idle_limit=st.sampled_from((-1, -1, 0, 3)))
    def gives_back(self, both: Both, verdict: str | None, idle_limit: int) -> Both:
        self.give(both, verdict, idle_limit * SECOND if idle_limit > 0 else idle_limit, used=True)
        return both

    # --- both at once ------------------------------------------------------------------------------------------------------

    def leave(self, both: Both) -> str:
        state = both.user.leave()
        assert state == self.model.leave(both.request)
        if state == "conn":
            self.compare_conn(both)
        return state

    def dialed(self, both: Both, capacity: int, *, keep: bool) -> None:
        real = FakeConn(capacity=capacity)
        both.user.dialed(real, self.now, keep=keep)
        if self.lifetime:
            assert 0.9 * self.lifetime * SECOND <= real.die_at - self.now <= self.lifetime * SECOND
        conn = Conn(real, both.request.key, capacity, real.die_at)
        self.conns.append(conn)
        self.model.dialed(both.request, conn, self.now, keep=keep)

    def dial_failed(self, both: Both) -> None:
        both.user.dial_failed()
        self.model.dial_failed(both.request)

    def give(self, both: Both, verdict: str | None, idle_limit: int, *, used: bool) -> None:
        got = both.user.give(self.now, verdict, idle_limit=idle_limit, used=used)
        assert got == self.model.give(both.request, self.now, verdict, idle_limit=idle_limit, used=used)

    # --- everything else ---------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.0, 0.001, 1.0, 3.0, 10.0, 59.0)))
    def time_passes(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)

    @rule()
    def sweep(self) -> None:
        assert self.pool.sweep(self.now) == self.model.sweep(self.now)

    @rule()
    def close_idle(self) -> None:
        self.pool.close_idle()
        self.model.close_idle()

    @precondition(lambda self: len(self.everybody) > 8)
    @rule(cancel=st.booleans(), really=st.sampled_from((True, False, False)))
    def close(self, cancel: bool, really: bool) -> None:
        if really:
            self.pool.close(cancel)
            self.model.close(cancel=cancel)

    @invariant()
    def it_all_adds_up_and_is_as_in_the_model(self) -> None:
        if not hasattr(self, "pool"):
            return
        stats = self.pool.stats()
        assert_adds_up(stats)
        for key, row in stats.hosts.items():
            want = self.model.row(key)
            assert {name: row.closed[name] if name in row.closed else getattr(row, name) for name in want} == want, key
        for conn in self.conns:
            assert conn.real.reason == conn.reason
            assert conn.real.closes == (conn.reason is not None)
            assert conn.real.interrupts == conn.interrupted
        for both in self.everybody:
            assert both.user.state == both.request.state


PoolMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck),
                                         derandomize=True)
TestPool = PoolMachine.TestCase
