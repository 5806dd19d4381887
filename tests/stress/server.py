"""The hosts that break: `server.c`, compiled, running, and asked what it did."""
from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.ca import Authority
from tests.support.processes import end, read_line, spawn

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "?")
NOBODY = 0xFFFFFFFF               # the id of what happened to a connection, and not to a request
_RECORD = struct.Struct("=IIHHBBBB")
PATTERN = bytes((i * 2654435761 & 0xFFFFFFFF) >> 15 & 0xFF for i in range(1 << 20))


class Record(NamedTuple):
    """One try as the server saw it: the `nth` request on connection `serial`, which came from `port` to host number `host`."""
    id: int
    serial: int
    port: int
    nth: int
    host: int
    kind: str
    method: str
    attempt: int


class Server:
    """`url(host)`; `ask(question)`; `records()` since the last `round`; `close()`."""

    def __init__(self, directory: Path, *, hosts: int, tls: int, limit: int, seed: int, faults: float, ids: int) -> None:
        self.directory = directory
        self.secure = [i >= hosts - tls for i in range(hosts)]
        self.authority = Authority(directory)
        chain, key = self.authority.issue()
        chain.rename(directory / "chain.pem")
        key.rename(directory / "key.pem")
        program = directory / "server"
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise RuntimeError("the stress server needs a C compiler")
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, Path(__file__).with_name("server.c"), "-ldl"], check=True)
        self._child = spawn(program, directory, str(hosts), str(tls), str(limit), str(seed), str(faults), str(ids),
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        said = self._read()
        self.ports: list[int] = said["ports"]
        self.kinds: list[str] = said["kinds"]

    def url(self, host: int) -> str:
        return f"{'https' if self.secure[host] else 'http'}://127.0.0.1:{self.ports[host]}"

    def ask(self, question: str) -> dict[str, Any]:
        """`state`: what is accepted and open by host, and when a host had more
        connections than the limit (host, peak, since, until in ns). `round`: that, and a new round."""
        assert self._child.stdin is not None
        self._child.stdin.write(question.encode() + b"\n")
        self._child.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = read_line(self._child.stdout)
        if not line:
            raise RuntimeError(f"the stress server ended with {self._child.wait(5)}")
        said: dict[str, Any] = json.loads(line)
        return said

    def records(self) -> Iterator[Record]:
        """Complete after `ask("state")`."""
        with (self.directory / "log").open("rb") as log:
            while block := log.read(_RECORD.size * 4096):
                for number, serial, port, nth, host, kind, method, attempt in _RECORD.iter_unpack(block):
                    yield Record(number, serial, port, nth, host, self.kinds[kind], METHODS[method], attempt)

    @property
    def pid(self) -> int:
        return self._child.pid

    def close(self) -> None:
        end(self._child)


def resident() -> int:
    """This process's memory now, in bytes."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
