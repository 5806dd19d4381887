"""What it takes to begin: importing a client, making one."""
from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.clients import PATIENCE, interpreter
from bench.peers import PEERS
from bench.probes.base import AtMost, Column, Options, Outcome, Probe, Round
from bench.processes import Failed, end, start
from bench.scenarios import GO, LIMIT
from bench.servers import Servers

BARE = "socket, ssl"
PROGRAM = """
from time import perf_counter as clock
began = clock()
import {module}
imported = clock()
{making}
made = clock()
times = []
for _ in range(20):
    before = clock()
    one = {making}
    times.append(clock() - before)
    del one
print([(imported - began) * 1e3, (made - imported) * 1e6, sorted(times)[10] * 1e6])
"""


class Imports(Probe):
    """Within a fresh interpreter, its start not counted; the compiled files are there."""
    name = "import"
    title = "to begin: import in a fresh interpreter, then make a client (the first one, and a further one)"
    columns = (Column("import_ms", "import ms"), Column("first_us", "first client us", digits=0), Column("client_us", "a further one us"))
    goals = (AtMost("import_ms", 15.0, "import pooledhttp <= 15 ms over the bare interpreter"), AtMost("client_us", 50.0, "Client() <= 50 us"))
    most = 7
    about = 0.35
    aside = {LIMIT: "not Python", GO: "not Python"}

    @contextlib.contextmanager
    def stage(self, servers: Servers, options: Options, notes: list[str]) -> Iterator[Round]:
        def begin(python: Path, module: str, making: str) -> tuple[float, float, float]:
            child = start([python, "-c", PROGRAM.format(module=module, making=making)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                said, errors = child.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                raise Failed(f"no answer within {PATIENCE:.0f} s") from None
            finally:
                end(child)
            if child.returncode:
                raise Failed((errors.decode(errors="replace").strip().splitlines() or ["it ended"])[-1])
            imported, first, further = json.loads(said)
            return imported, first, further

        def measure(client: str, outcome: Outcome) -> dict[str, float]:
            peer = PEERS.get(client.partition("/")[0])
            if peer is None:
                raise Failed(f"there is no client {client!r}")
            imported, first, further = begin(interpreter(client), peer.module, peer.making)
            return {"import_ms": imported, "first_us": first, "client_us": further}

        bare = statistics.median(begin(Path(sys.executable), BARE, "None")[0] for _ in range(5))
        notes.append(f"`import {BARE}` takes {bare:.1f} ms")
        yield measure
