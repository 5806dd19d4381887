"""Contexts: a deadline, and a cancel, that any number of requests obey. Go's `context` package is the model."""
from __future__ import annotations

from time import monotonic, monotonic_ns
from weakref import ref

from pooledhttp._core.cancel import Ambient, Canceller, Leaving, ambient
from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.timeout import FOR_EVER

NEVER = -1


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
    return NEVER if seconds > FOR_EVER else max(1, int(seconds * 1e9))          # 0 is no deadline, but says what is not waited for


class Context(Ambient):
    """What ends requests together: `timeout` seconds from now, `deadline` (of `time.monotonic()`), or `cancel()`, from any thread.

    `client.get(url, context=ctx)`, or `with ctx:`, inside which every request of this thread (or task: it is a context variable) obeys it,
    beside the context it is given. A request ends by the earliest of all deadlines that hold for it; `DeadlineExceeded.source` is "context" where it
    was a context's. A cancel is a `Cancelled`, within 50 ms, in whatever phase a request is; one that comes late does nothing.

    A pickled context carries the time that remains, and whether it was cancelled; not the ties to parent and children.
    TypeError and ValueError for what is no time.
    """

    __slots__ = ("__weakref__", "_children", "_parents", "deadline_ns")
    _use = Use
    deadline_ns: int                          # absolute monotonic nanoseconds, -1: none
    _parents: tuple[Context, ...]             # kept alive: a cancel of theirs is ours
    # Contexts, and what else has their `cancel`. No lock, which a fork could find held: each step on it is one of the interpreter's own,
    # whatever thread, finalizer or handler is in between.
    _children: set[ref[Any]]

    def __init__(self, timeout: float | None = None, *, deadline: float | None = None) -> None:
        ends = [monotonic_ns() + ns for ns in (() if timeout is None else (_nanoseconds(timeout),)) if ns >= 0]
        if deadline is not None:
            ns = _nanoseconds(deadline)
            if ns >= 0:
                ends.append(ns)
        self.deadline_ns = min(ends, default=NEVER)
        self.drains = True
        self._parents = ()
        self._children = set()

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
        self._children.add(ref(other, self._children.discard))
        if self.cancelled:                    # looked at after it was told: a cancel sees the other, or we see the cancel
            other.cancel(self.reason)

    def cancel(self, reason: Any = None) -> None:
        """End the requests that obey this context or one of its children, now and later, with `Cancelled` (`.reason`). The first reason counts."""
        left: list[Context] = [self]           # no recursion: a chain of children may be long
        seen = {id(self): self}                # there may be more than one way down to a child
        while left:
            context = left.pop()
            Canceller.cancel(context, reason)
            for each in context._children.copy():
                child = each()
                if child is None or id(child) in seen:
                    continue
                if isinstance(child, Context):
                    seen[id(child)] = child
                    left.append(child)
                else:
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
        left, seen = [self], {id(self)}
        while left:
            context = left.pop()
            if context is other:
                return True
            for parent in context._parents:
                if id(parent) not in seen:
                    seen.add(id(parent))
                    left.append(parent)
        return False

    def _and(self, other: Context) -> Context:
        """A context that ends with either."""
        if self._within(other):
            return self
        if other._within(self):
            return other
        both = Context()
        both._tie(self, other)
        return both

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


class Scope(Leaving):
    """What `Context.scope` returns."""

    __slots__ = ()

    if TYPE_CHECKING:
        def __enter__(self) -> Context: ...


def within(cancel: Canceller, deadline: int, source: str) -> tuple[int, str]:
    """The earlier of `deadline` (monotonic ns, -1: none), which is `source`'s, and the context's, where `cancel` is one."""
    ends = cancel.deadline_ns if isinstance(cancel, Context) else NEVER
    return (ends, "context") if ends >= 0 and (deadline < 0 or ends < deadline) else (deadline, source)


def in_force(given: Context | None) -> Context | None:
    """What a request obeys that was given `given`: that, and what is ambient."""
    if given is not None and not isinstance(given, Context):
        raise TypeError(f"context is a pooledhttp.Context or None, not {type(given).__name__}")
    entered = ambient.get() if Use.ambient else None
    if entered is None:
        return given
    effective: Context = entered[1]
    return effective if given is None else given._and(effective)
