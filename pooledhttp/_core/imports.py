"""A fork waits for what other threads are just importing.

Python keeps a lock for each module that is being imported, and in a forked child nobody opens one that another thread had: the child's first import of that
module would hang. Much of ours is imported when first needed, which in a server is when its threads make their first requests.
"""
from __future__ import annotations

import sys
from threading import get_ident
from time import monotonic, sleep

PATIENCE = 0.5      # seconds: a module that takes longer does not keep the fork


def _others_import() -> bool:
    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", {})
    owners = [getattr(ref(), "owner", None) for ref in list(locks.values())]
    return any(owner is not None and owner != get_ident() for owner in owners)


def wait() -> None:
    """Returns when no other thread imports anything, or after `PATIENCE`."""
    if _others_import():
        until = monotonic() + PATIENCE
        while _others_import() and monotonic() < until:
            sleep(0.001)
