"""Contexts as objects: deadlines, children, cancels, what is ambient."""
from __future__ import annotations

import contextvars
import gc
import pickle
import threading
import time
import weakref
from typing import Any

import pytest

from pooledhttp import Context
from pooledhttp.context import in_force


def near(a: float | None, b: float) -> bool:
    return a is not None and abs(a - b) < 0.1


def test_a_deadline() -> None:
    now = time.monotonic()
    assert (Context().deadline, Context().remaining()) == (None, None)
    assert near(Context(timeout=2.0).deadline, now + 2) and near(Context(2).remaining(), 2)
    assert near(Context(deadline=now + 3).remaining(), 3)
    assert near(Context(timeout=1, deadline=now + 3).remaining(), 1) and near(Context(timeout=3, deadline=now + 1).remaining(), 1)
    assert Context(timeout=0).remaining() == Context(timeout=-1).remaining() == Context(deadline=now - 5).remaining() == 0.0
    assert Context(timeout=float("inf")).deadline is None and Context(timeout=1e300).deadline is None


@pytest.mark.parametrize(("wrong", "error"), [("2", TypeError), (True, TypeError), (float("nan"), ValueError), ([], TypeError)])
def test_what_is_no_time(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="context's time"):
        Context(timeout=wrong)
    with pytest.raises(error, match="context's time"):
        Context(deadline=wrong)


def test_a_child_never_outlives_its_parent() -> None:
    parent = Context(timeout=1.0)
    assert near(parent.child(timeout=5).remaining(), 1) and near(parent.child(timeout=0.2).remaining(), 0.2)
    assert near(parent.child().remaining(), 1) and near(Context().child(timeout=3).remaining(), 3)
    grandchild = parent.child().child()
    other = parent.child()
    other.cancel("mine")
    assert (parent.cancelled, grandchild.cancelled, other.cancelled, other.reason) == (False, False, True, "mine")
    parent.cancel("all")
    assert (parent.cancelled, grandchild.cancelled, grandchild.reason, other.reason) == (True, True, "all", "mine")
    late = parent.child()
    assert (late.cancelled, late.reason) == (True, "all")


def test_the_first_reason_counts() -> None:
    ctx = Context()
    ctx.cancel("first")
    ctx.cancel("second")
    assert ctx.reason == "first"


def test_children_are_not_kept() -> None:
    parent = Context()
    gone = weakref.ref(parent.child())
    gc.collect()
    assert gone() is None
    child = parent.child()
    held = weakref.ref(parent)
    del parent
    gc.collect()
    assert held() is not None
    held_now = held()
    assert held_now is not None
    held_now.cancel()
    assert child.cancelled


def test_children_made_while_the_parent_is_cancelled() -> None:
    """Whoever asks for a child beside a cancel gets a cancelled one, now or in a moment."""
    for _ in range(200):
        parent = Context()
        start = threading.Barrier(3)
        children: list[Context] = []

        def make(parent: Context = parent, start: threading.Barrier = start, children: list[Context] = children) -> None:
            start.wait()
            children.extend([parent.child() for _ in range(20)])

        threads = [threading.Thread(target=make) for _ in range(2)]
        for t in threads:
            t.start()
        start.wait()
        parent.cancel()
        for t in threads:
            t.join()
        assert all(child.cancelled for child in children)


def test_ambient() -> None:
    a, b = Context(timeout=5), Context(timeout=1)
    assert in_force(None) is None and in_force(a) is a
    with a:
        assert in_force(None) is a and in_force(a) is a
        child = a.child()
        assert in_force(child) is child
        with b:
            both = in_force(None)
            assert both is not None and near(both.remaining(), 1)
            a.cancel("outer")
            assert (both.cancelled, both.reason, b.cancelled) == (True, "outer", False)
        assert in_force(None) is a
    assert in_force(None) is None
    assert a.cancelled and not b.cancelled           # leaving does not cancel


def test_given_and_ambient_both_hold() -> None:
    ambient, given = Context(), Context(timeout=1)
    with ambient:
        both = in_force(given)
        assert both is not None and near(both.remaining(), 1)
        ambient.cancel()
        assert both.cancelled and not given.cancelled


def test_the_same_context_twice_and_by_many_threads() -> None:
    ctx = Context()
    with ctx, ctx:
        assert in_force(None) is ctx
    seen: list[object] = []

    def work() -> None:
        assert in_force(None) is None                 # a thread starts with none
        with ctx:
            seen.append(in_force(None))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert seen == [ctx] * 8
    with ctx:
        assert contextvars.copy_context().run(in_force, None) is ctx


def test_left_in_another_order() -> None:
    a, b = Context(), Context()
    a.__enter__()
    b.__enter__()
    with pytest.raises(RuntimeError, match="another order"):
        a.__exit__(None, None, None)
    b.__exit__(None, None, None)
    a.__exit__(None, None, None)


def test_a_scope_cancels_what_is_left() -> None:
    with Context.scope(timeout=2.0) as ctx:
        assert in_force(None) is ctx and near(ctx.remaining(), 2)
        child = ctx.child()
    assert ctx.cancelled and child.cancelled and "scope" in str(ctx.reason)
    with pytest.raises(KeyError), Context.scope() as ctx:
        raise KeyError
    assert ctx.cancelled and in_force(None) is None


def test_a_pickle_carries_the_time_that_remains() -> None:
    ctx = Context(timeout=2.0)
    there = pickle.loads(pickle.dumps(ctx.child(timeout=1.0)))
    assert near(there.remaining(), 1) and not there.cancelled
    ctx.cancel("over")
    gone = pickle.loads(pickle.dumps(ctx))
    assert (gone.cancelled, gone.reason) == (True, "over")
    assert pickle.loads(pickle.dumps(Context())).deadline is None


def test_what_it_says_of_itself() -> None:
    ctx = Context(timeout=10)
    assert "left" in repr(ctx) and "cancelled" not in repr(ctx)
    ctx.cancel()
    assert "cancelled" in repr(ctx)
    assert repr(Context()) == "<Context>"
