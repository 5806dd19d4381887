"""Locks that a forked child makes anew: a thread of the parent, which is not there, may have held them."""
from __future__ import annotations

from threading import RLock
from weakref import WeakSet

from pooledhttp._core.runtime import at_fork
from pooledhttp._typing import Any

_holders: WeakSet[Any] = WeakSet()


def renewed(holder: Any) -> RLock:
    """A lock to be `holder._lock`, in each process its own."""
    _holders.add(holder)
    return RLock()


def _after_fork_in_child() -> None:
    for holder in list(_holders):
        holder._lock = RLock()


at_fork(_after_fork_in_child)
