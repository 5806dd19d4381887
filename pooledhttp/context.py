"""Contexts: a deadline, and a cancel, that any number of requests obey. Go's `context` package is the model."""
from __future__ import annotations

from contextvars import ContextVar
from time import monotonic, monotonic_ns
from weakref import WeakSet

from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.timeout import FOR_EVER
from pooledhttp.transport import Canceller

if TYPE_CHECKING:
    from typing_extensions import Self

NEVER = -1


class _Entered:
    """One `with` block of a context: what is ambient in it, and what was outside."""

    __slots__ = ("context", "effective", "outer")

    def __init__(self, context: Context, effective: Context, outer: _Entered | None) -> None:
        self.context = context
        self.effective = effective
        self.outer = outer


_ambient: ContextVar[_Entered | None] = ContextVar("pooledhttp.context", default=None)


class _Use:
    """Whether any context was ever made ambient in this process: a request looks for one only then. (A slot is read at half a class's cost.)"""

    __slots__ = ("ambient",)

    def __init__(self) -> None:
        self.ambient = False


Use = _Use()


def _nanoseconds(seconds: float) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"a context's time is a number of seconds, not {type(seconds).__name__}")
    if seconds != seconds:
        raise ValueError("a context's time is not NaN")
    return NEVER if seconds > FOR_EVER else max(0, int(seconds * 1e9))


class Context(Canceller):
    """What ends requests together: `timeout` seconds from now, `deadline` (of `time.monotonic()`), or `cancel()`, from any thread.

    `client.get(url, context=ctx)`, or `with ctx:`, inside which every request of this thread (or task: it is a context variable) obeys it,
    beside the context it is given. A request ends by the earliest of all deadlines that hold for it; `DeadlineExceeded.source` is "context" where it
    was a context's. A cancel is a `Cancelled`, within 50 ms, in whatever phase a request is; one that comes late does nothing.

    A pickled context carries the time that remains, and whether it was cancelled; not the ties to parent and children.
    TypeError and ValueError for what is no time.
    """

    __slots__ = ("__weakref__", "_children", "_parents", "deadline_ns")
    deadline_ns: int                          # absolute monotonic nanoseconds, -1: none
    _parents: tuple[Context, ...]             # kept alive: a cancel of theirs is ours
    _children: WeakSet[Any] | None            # contexts, and what else has their `cancel`

    def __init__(self, timeout: float | None = None, *, deadline: float | None = None) -> None:
        ends = [monotonic_ns() + ns for ns in (() if timeout is None else (_nanoseconds(timeout),)) if ns >= 0]
        if deadline is not None:
            ns = _nanoseconds(deadline)
            if ns >= 0:
                ends.append(ns)
        self.deadline_ns = min(ends, default=NEVER)
        self.drains = True
        self._parents = ()
        self._children = None

    @classmethod
    def scope(cls, timeout: float | None = None, *, deadline: float | None = None) -> Scope:
        """`with Context.scope(timeout=2.0) as ctx:` as `with Context(timeout=2.0)`; what is left when the block is left is cancelled."""
        return Scope(cls(timeout, deadline=deadline))

    def child(self, timeout: float | None = None, *, deadline: float | None = None) -> Context:
        """A context that ends with this one, or before it. Cancelling it leaves this one as it is."""
        made = Context(timeout, deadline=deadline)
        made._tie(self)
        return made

    def _tie(self, *parents: Context) -> None:
        self._parents = parents
        ends = [c.deadline_ns for c in (self, *parents) if c.deadline_ns >= 0]
        self.deadline_ns = min(ends, default=NEVER)
        for parent in parents:
            parent.tell(self)

    def tell(self, other: Any) -> None:
        """Call `other.cancel(reason)` when this is cancelled, also where it was already; `other` is held weakly."""
        with self.guard():
            if self._children is None:
                self._children = WeakSet()
            self._children.add(other)
        if self.cancelled:                    # looked at after it was told: a cancel sees the other, or we see the cancel
            other.cancel(self.reason)

    def cancel(self, reason: Any = None) -> None:
        """End the requests that obey this context or one of its children, now and later, with `Cancelled` (`.reason`). The first reason counts."""
        super().cancel(reason)
        if self._children is None:
            return
        with self.guard():
            children = list(self._children)
        for child in children:
            child.cancel(reason)

    @property
    def deadline(self) -> float | None:
        """When it ends, by `time.monotonic()`; None: never by itself."""
        return None if self.deadline_ns < 0 else self.deadline_ns / 1e9

    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0.0; None without one."""
        return None if self.deadline_ns < 0 else max(0.0, self.deadline_ns / 1e9 - monotonic())

    def _within(self, other: Context) -> bool:
        """Whether it ends at the latest with `other`."""
        return self is other or any(parent._within(other) for parent in self._parents)

    def _and(self, other: Context) -> Context:
        """A context that ends with either."""
        if self._within(other):
            return self
        if other._within(self):
            return other
        both = Context()
        both._tie(self, other)
        return both

    def __enter__(self) -> Self:
        Use.ambient = True
        outer = _ambient.get()
        _ambient.set(_Entered(self, self if outer is None else self._and(outer.effective), outer))
        return self

    def __exit__(self, *exc: object) -> None:
        entered = _ambient.get()
        if entered is None or entered.context is not self:
            raise RuntimeError("a context is left in another order than the contexts were entered")
        _ambient.set(entered.outer)

    def __repr__(self) -> str:
        left = self.remaining()
        time = "" if left is None else f" {left:.3f} s left"
        return f"<Context{time}{' cancelled' if self.cancelled else ''}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.remaining(), self.cancelled, self.reason)


def _rebuild(remaining: float | None, cancelled: bool, reason: Any) -> Context:
    made = Context(remaining)
    if cancelled:
        made.cancel(reason)
    return made


class Scope:
    """What `Context.scope` returns."""

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> Context:
        return self._context.__enter__()

    def __exit__(self, *exc: object) -> None:
        try:
            self._context.__exit__(*exc)
        finally:
            self._context.cancel("its scope was left")


def within(cancel: Canceller, deadline: int, source: str) -> tuple[int, str]:
    """The earlier of `deadline` (monotonic ns, -1: none), which is `source`'s, and the context's, where `cancel` is one."""
    ends = cancel.deadline_ns if isinstance(cancel, Context) else NEVER
    return (ends, "context") if ends >= 0 and (deadline < 0 or ends < deadline) else (deadline, source)


def in_force(given: Context | None) -> Context | None:
    """What a request obeys that was given `given`: that, and what is ambient."""
    if given is not None and not isinstance(given, Context):
        raise TypeError(f"context is a pooledhttp.Context or None, not {type(given).__name__}")
    entered = _ambient.get() if Use.ambient else None
    if entered is None:
        return given
    return entered.effective if given is None else given._and(entered.effective)
