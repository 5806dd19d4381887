"""The janitor's bell may be rung at any step of the wait for it, in the same thread: a finalizer comes when it wants."""
from __future__ import annotations

import sys
import threading
from types import FrameType

from pooledhttp._pool.janitor import Bell


def test_rung_in_the_midst_of_its_wait() -> None:
    bell = Bell()
    rang = []

    def profile(frame: FrameType, event: str, arg: object) -> None:
        if event != "return" and len(rang) < 1000:
            rang.append(event)
            bell.ring()

    waited = []

    def wait() -> None:
        sys.setprofile(profile)
        try:
            waited.extend(bell.wait(0.01) for _ in range(3))
        finally:
            sys.setprofile(None)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "a ring in the midst of a wait hangs"
    assert rang and True in waited


def test_it_rings_once() -> None:
    bell = Bell()
    assert not bell.wait(0)
    bell.ring()
    bell.ring()
    assert bell.wait(0)
    assert not bell.wait(0)
    threading.Timer(0.01, bell.ring).start()
    assert bell.wait(10)
