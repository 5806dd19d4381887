"""Child processes that end when the bench ends, however it ends."""
from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """A client or a server does not do its part; the text says why."""


def find(program: str, package: str) -> str:
    path = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if path is None:
        raise Failed(f"{program} is missing: apt-get install {package}")
    return path


def start(command: Sequence[str | Path], *, core: int | None = None, **options: Any) -> subprocess.Popen[bytes]:
    """Starts `command` in the project's root, bound to one core where `core` is given."""
    guard = shutil.which("setpriv")
    prefix = [guard, "--pdeathsig", "TERM"] if guard else []
    if core is not None:
        prefix += [find("taskset", "util-linux"), "--cpu-list", str(core)]
    options.setdefault("env", {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")})     # nobody is to ask a proxy
    return subprocess.Popen([*prefix, *map(str, command)], cwd=ROOT, **options)


def end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


def resident(pid: int, field: str = "VmRSS") -> float:
    """Memory that the process holds, in KiB; `field` VmHWM: the most that it held since it began, or since `forget_peak`."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return float(line.split()[1])
    except OSError:
        pass
    raise Failed(f"its {field} cannot be read")


def forget_peak(pid: int) -> None:
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError as error:
        raise Failed(f"the kernel does not let its peak of memory be measured: {error}") from None


class Lines:
    """The lines of a child's standard output, each within a time."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        self._child, self._pipe, self._rest = child, child.stdout.fileno(), b""

    def read(self, seconds: float) -> str:
        """Failed where the child says nothing for so long, or has ended."""
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as ready:
            ready.register(self._pipe, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                left = until - time.monotonic()
                if left <= 0 or not ready.select(left):
                    raise Failed(f"no answer within {seconds:.0f} s")
                piece = os.read(self._pipe, 65536)
                if not piece:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._child.wait(5)
                    raise Failed("ended" + (f" (exit code {self._child.returncode})" if self._child.returncode is not None else " its output"))
                self._rest += piece
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()
