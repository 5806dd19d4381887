"""What a test may not leave behind: descriptors, threads, and the live objects that the compiled floors count."""
from __future__ import annotations

import gc
import importlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

PATIENCE = 5.0                 # seconds for what ends by itself: a janitor's last round, a peer's close
FDS = Path("/proc/self/fd")
TASKS = Path("/proc/self/task")


class Snapshot(NamedTuple):
    descriptors: dict[int, str]
    threads: dict[int, str]
    counts: dict[str, int]


def _descriptors() -> dict[int, str]:
    out = {}
    for fd in map(int, os.listdir(FDS)):
        try:
            out[fd] = os.readlink(FDS / str(fd))
        except FileNotFoundError:          # the listing's own
            continue
    return out


def _threads() -> dict[int, str]:
    named = {t.native_id: t.name for t in threading.enumerate()}
    return {task: named.get(task, "a native thread") for task in map(int, os.listdir(TASKS))}


def _counts() -> dict[str, int]:
    """`live()` of every compiled module that has one and is imported."""
    out = {}
    for name, module in sorted(sys.modules.items()):
        if name.startswith("pooledhttp._") and hasattr(module, "live"):
            out.update({f"{name}: {what}": n for what, n in module.live().items()})
    return out


def snapshot() -> Snapshot:
    return Snapshot(_descriptors(), _threads(), _counts())


def warm() -> None:
    """What the main thread makes once and keeps: its wake descriptor."""
    importlib.import_module("pooledhttp._core.runtime").current_wake()


def _close_idle() -> None:
    transport = sys.modules.get("pooledhttp.transport")
    if transport is not None:
        transport.default_transport().close_idle_connections()


def _left(before: Snapshot) -> list[str]:
    after = snapshot()
    out = [f"descriptor {fd}: {what}" for fd, what in after.descriptors.items() if before.descriptors.get(fd) != what]
    out += [f"descriptor {fd} ({what}) was closed, and is not the test's" for fd, what in before.descriptors.items()
            if fd not in after.descriptors]
    out += [f"thread {task}: {name}" for task, name in after.threads.items() if task not in before.threads]
    out += [f"{what}: {n - before.counts.get(what, 0)}" for what, n in after.counts.items() if n > before.counts.get(what, 0)]
    return out


def check(before: Snapshot, patience: float | None = None) -> list[str]:
    """What is there beyond `before` and does not go within `patience` seconds (PATIENCE); a line each."""
    _close_idle()
    until, collected, pause = time.monotonic() + (PATIENCE if patience is None else patience), False, 0.001
    while left := _left(before):
        if time.monotonic() > until:
            return left
        if pause > 0.02 and not collected:          # cycles are collected late; what they hold is not lost
            gc.collect()
            collected = True
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    return []
