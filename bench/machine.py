"""The machine that the figures come from, and whether anything else runs on it."""
from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

PAUSE = 0.02          # seconds; a round is hundreds of milliseconds


class Quiet:
    """Looks, in short pauses while the clients wait, at how much of all cores' time others use: `share` is 0 on a quiet machine, 1 on one that is full."""

    def __init__(self) -> None:
        self._used = self._all = 0

    def look(self, seconds: float = PAUSE) -> None:
        used, everything = ticks()
        time.sleep(seconds)
        used_then, everything_then = ticks()
        self._used += used_then - used
        self._all += everything_then - everything

    @property
    def share(self) -> float:
        return self._used / self._all if self._all else 0.0


def ticks() -> tuple[int, int]:
    """Clock ticks since boot, of all cores: used, and all."""
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    used = user + nice + system + irq + softirq + steal
    return used, used + idle + iowait


def cores() -> tuple[int | None, int | None]:
    """The client's core and the server's, for pinned scenarios; the same twice on a machine with one."""
    mine = sorted(os.sched_getaffinity(0))
    return mine[0], mine[min(1, len(mine) - 1)]


def facts() -> dict[str, Any]:
    return {"python": f"{platform.python_implementation()} {platform.python_version()}", "kernel": platform.release(), "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 2), "switch_interval_ms": sys.getswitchinterval() * 1000}


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
