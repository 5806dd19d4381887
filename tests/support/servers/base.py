"""A real server as the matrix sees it: it starts on free ports in a directory of its own, says when it is ready, and leaves nothing when it is stopped.

A server has doors, each a port with the same routes (see routes): `main` keeps connections alive for minutes, `brief` closes them after a second without a
request, `few` after the fifth request. Not every server can do all. `door(how, keep)` names the one that does so for HTTP/1.1 (`how` is "h1"), for HTTP/2 in
the clear by prior knowledge ("h2c") and for HTTP/2 in TLS by ALPN ("h2"): `tls-main` beside `main`, and `h2c-main` where `main` does not speak both.
"""
from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from tests.support.peer import free_ports
from tests.support.processes import PATIENCE, ROOT, connectable, end, spawn_kept
from tests.support.servers.routes import SIZES, content

LONG, BRIEF, FEW = 600, 1, 5          # seconds, seconds, requests
SYSTEM = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin"


def secure(door: str) -> bool:
    return door.startswith("tls-")


def keeps(door: str) -> str:
    """Which of `main`, `brief` and `few` it is."""
    return door.rpartition("-")[2]


class Server:
    """`Kind(backend)` begins to start; `ready()` waits for it; `url(target, door)`; `signal(n)`; `close()`. `backend` is a port where
    the routes are answered, for servers that pass on; `certificate` a chain and its key, without which there is no TLS."""

    name: ClassVar[str]
    package: ClassVar[str]             # Debian's or the Python package index's
    binary: ClassVar[str]
    python: ClassVar[bool] = False
    before: ClassVar[str | None] = "uvicorn"     # what it passes on to
    doors: ClassVar[tuple[str, ...]] = ("main", "brief")
    speaks: ClassVar[tuple[str, ...]] = ("h1",)
    apart: ClassVar[bool] = False      # HTTP/2 in the clear has doors of its own
    asks_version: ClassVar[tuple[str, ...]] = ("-v",)

    def __init__(self, backend: int = 0, doors: tuple[str, ...] | None = None, certificate: tuple[Path, Path] | None = None) -> None:
        self.backend = backend
        self.certificate = certificate
        self._doors = doors or tuple(dict.fromkeys(
            self.door(how, keep) for how in self.speaks if how != "h2" or certificate for keep in self.doors))
        # Not pytest's: a server that changes its user has to find its files.
        self.directory = Path(tempfile.mkdtemp(prefix=f"interop-{self.name}-"))
        self.directory.chmod(0o755)
        self.files = self.directory / "files"
        self.files.mkdir()
        for name in SIZES:
            for where in (self.files, self.files / "close"):
                where.mkdir(exist_ok=True)
                (where / name).write_bytes(content(name))
        self._children: list[subprocess.Popen[bytes]] = []
        self._tries = 0
        self._start()

    @classmethod
    def find(cls) -> str | None:
        """Where its program is, or None where it is not installed."""
        return shutil.which(cls.binary, path=str(Path(sys.executable).parent) if cls.python else SYSTEM)

    @classmethod
    def version(cls) -> str:
        said = subprocess.run([str(cls.find()), *cls.asks_version], capture_output=True, text=True, timeout=PATIENCE, check=False)
        found = re.search(r"\d+\.\d+(\.\d+)*", said.stdout + said.stderr)
        return found[0] if found else "?"

    def commands(self) -> list[list[str]]:
        """What to run, one process or one for each door, with its configuration written."""
        raise NotImplementedError

    @classmethod
    def door(cls, how: str, keep: str = "main") -> str:
        return f"tls-{keep}" if how == "h2" else f"h2c-{keep}" if how == "h2c" and cls.apart else keep

    def url(self, target: str = "/", door: str = "main") -> str:
        return f"{'https' if secure(door) else 'http'}://127.0.0.1:{self.port[door]}{target}"

    def ready(self) -> None:
        """RuntimeError with what the server said where it does not start."""
        until = time.monotonic() + 3 * PATIENCE
        while not all(connectable(port) for port in self.port.values()):
            if any(child.poll() is not None for child in self._children) and self._tries < 5:
                self._end()                       # somebody else took a port meanwhile
                self._start()
            elif time.monotonic() > until or self._tries >= 5:
                self._end()
                raise RuntimeError(f"{self.name} does not start: {self.output()}")
            time.sleep(0.01)

    def output(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.directory.glob("*.log")))

    def reload(self) -> None:
        """Has it begin anew with no request lost, where it can."""
        raise NotImplementedError

    def signal(self, number: int) -> None:
        for child in self._children:
            child.send_signal(number)

    def spawn(self, *arguments: str) -> None:
        """Starts its program once more."""
        env = {**os.environ, "XDG_CONFIG_HOME": str(self.directory), "XDG_DATA_HOME": str(self.directory)}
        with (self.directory / f"output-{len(self._children)}.log").open("ab") as log:
            self._children.append(spawn_kept(str(self.find()), *arguments, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT))

    def pid(self, name: str) -> int:
        """The process that its file `name` names, 0 where there is none."""
        try:
            return int((self.directory / name).read_text().split()[0])
        except (FileNotFoundError, IndexError):       # not there yet, or not yet written
            return 0

    @staticmethod
    def below(pid: int) -> set[int]:
        """The processes that `pid` has started."""
        found: set[int] = set()
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError):         # a thread that has ended meanwhile
                found.update(map(int, (task / "children").read_text().split()))
        return found

    def main_process(self) -> int:
        """The first door's."""
        return min(self.below(self._children[0].pid))

    def replace(self, master: int, number: int) -> None:
        """Bids `master` replace its worker, and returns when the former has ended."""
        former = self.below(master)
        os.kill(master, number)

        def replaced() -> bool:
            now = self.below(master)
            return bool(now - former and former - now)

        self.wait(replaced, "other worker in the former's place")

    def await_pid(self, name: str, other_than: int) -> None:
        """Waits until its file `name` names another process than `other_than`."""
        self.wait(lambda: self.pid(name) not in (0, other_than), "other process")

    def await_end(self, pid: int) -> None:
        self.wait(lambda: not Path(f"/proc/{pid}").exists(), f"end of process {pid}")

    def wait(self, true: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + PATIENCE
        while not true():
            if time.monotonic() > until:
                raise AssertionError(f"no {what} of {self.name}: {self.output()}")
            time.sleep(0.01)

    def close(self) -> None:
        self._end()
        shutil.rmtree(self.directory)

    def write(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def _start(self) -> None:
        self._tries += 1
        self.port = dict(zip(self._doors, free_ports(len(self._doors)), strict=True))
        for command in self.commands():
            self.spawn(*command)

    def _end(self) -> None:
        for child in self._children:
            child.terminate()
        for child in self._children:
            end(child)
        self._children.clear()


class PythonServer(Server):
    """One from the Python package index: a process for each door."""

    python: ClassVar[bool] = True
    before: ClassVar[str | None] = None

    @classmethod
    def version(cls) -> str:
        return importlib.metadata.version(cls.package)

    def commands(self) -> list[list[str]]:
        return [self.command(door, port) for door, port in self.port.items()]

    def command(self, door: str, port: int) -> list[str]:
        raise NotImplementedError

    def idle(self, door: str) -> int:
        return BRIEF if keeps(door) == "brief" else LONG
