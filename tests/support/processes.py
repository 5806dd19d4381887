"""Child processes that end when the tests end, however they end."""
from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 10.0


def spawn(*command: str | Path, **options: object) -> subprocess.Popen[bytes]:
    """Starts `command` from the project's root, killed with us where the system can do that."""
    guard = shutil.which("setpriv")
    prefix = [guard, "--pdeathsig", "KILL"] if guard else []
    return subprocess.Popen([*prefix, *map(str, command)], cwd=ROOT, **options)  # type: ignore[call-overload,no-any-return]


def spawn_kept(*command: str | Path, **options: object) -> subprocess.Popen[bytes]:
    """Starts a server that forks: none of its processes outlives us or `end` (see keeper). Its signals reach it through its keeper."""
    keeper = [sys.executable, "-I", "-S", Path(__file__).with_name("keeper.py"), str(os.getpid())]
    return subprocess.Popen([*map(str, keeper), *map(str, command)], start_new_session=True, **options)  # type: ignore[call-overload,no-any-return]


def spawn_python(*arguments: str | Path, **options: object) -> subprocess.Popen[bytes]:
    return spawn(sys.executable, *arguments, **options)


def read_line(pipe: IO[bytes], timeout: float = PATIENCE) -> bytes:
    """One line of a child's output; AssertionError where it does not come in time."""
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.readline()), daemon=True)
    reader.start()
    reader.join(timeout)
    if not got:
        raise AssertionError("the child process said nothing")
    return got[0]


def end(child: subprocess.Popen[bytes], timeout: float = PATIENCE) -> int:
    """Asks a child to end, then makes it; its exit code."""
    if child.poll() is None:
        child.terminate()
    try:
        code = child.wait(timeout)
    except subprocess.TimeoutExpired:
        child.kill()
        code = child.wait()
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    return code


def connectable(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        # Where nobody listens, a port of the range that the system gives out may be given to the probe itself, which then connects to itself.
        return probe.connect_ex(("127.0.0.1", port)) == 0 and probe.getsockname() != probe.getpeername()
