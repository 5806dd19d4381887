"""Memory and the cost of a request, by the number of connections that idle."""
from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from bench.machine import cores
from bench.probes.base import AtMost, Column, Hand, Options, Outcome, Probe, Round, Times
from bench.processes import Failed, resident
from bench.scenarios import Scenario
from bench.servers import Servers

SIZES = (100, 1000, 10000)
PATIENCE = 15.0          # seconds to open what a size asks for, beyond the size before


class Idle(Probe):
    """A client fetches once from each of so many origins (addresses of this machine), and keeps the connections. Between the sizes its memory is read, and
    what a request to one of the origins takes."""
    name = "idle"
    title = "idle connections, each to a host of its own: resident memory beyond that with one, and microseconds of a 1 KiB GET to one of the hosts, pinned"
    columns = (Column("kib_100", "KiB at 100", digits=0), Column("kib_1000", "at 1,000", digits=0), Column("kib_10000", "at 10,000", digits=0),
               Column("bytes_each", "bytes each", digits=0),
               Column("us_1", "us at 1"), Column("us_100", "at 100"), Column("us_1000", "at 1,000"), Column("us_10000", "at 10,000"))
    goals = (AtMost("bytes_each", 1024.0, "resident memory per idle connection with its host's own <= 1,024 bytes"),
             Times("us_10000", "us_100", 1.1, "a request with 10,000 idle connections takes as long as with 100, within 10 %"))
    most = 2
    about = 8.0

    @contextlib.contextmanager
    def stage(self, servers: Servers, options: Options, notes: list[str]) -> Iterator[Round]:
        client_core, server_core = cores()
        sizes = [1, *(size for size in SIZES if size <= options.idle)]
        scenario = Scenario("idle", "", hosts=max(sizes))
        room = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with servers.serving(scenario, server_core) as url:
            def measure(client: str, outcome: Outcome) -> dict[str, float]:
                got: dict[str, float] = {}
                with Hand(client, scenario, url, core=client_core) as hand:
                    outcome.version = hand.version
                    first, base = 0.0, (0, 0.0)
                    for size in sizes:
                        if room != resource.RLIM_INFINITY and size > room - 100:
                            _note(outcome, f"no more than {room} descriptors are allowed here: not {size:,}")
                            break
                        try:
                            held = int(hand.do("hold", PATIENCE + 45.0, hosts=size, seconds=PATIENCE)["held"])
                        except Failed as failure:
                            if not got:
                                raise
                            _note(outcome, f"on the way to {size:,}: {failure}")
                            break
                        if held < size:
                            _note(outcome, f"held {held:,} after {PATIENCE:.0f} s more: not {size:,}")
                            break
                        if (kept := sockets(hand.child.pid)) < size:
                            _note(outcome, f"keeps {kept:,} connections of {size:,}")
                            break
                        memory = resident(hand.child.pid)
                        cost = hand.do("cost", seconds=options.seconds)
                        first = first or memory
                        if size > 1:
                            got[f"kib_{size}"] = memory - first
                        base = base if base[0] else (size, memory) if size > 1 else base
                        if size > base[0] > 0:
                            got["bytes_each"] = (memory - base[1]) * 1024 / (size - base[0])
                        got[f"us_{size}"] = cost["us"]
                return got

            yield measure


def sockets(pid: int) -> int:
    """How many sockets the process holds. One or two may be for itself."""
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):          # closed meanwhile
            count += os.readlink(link).startswith("socket:")
    return count


def _note(outcome: Outcome, text: str) -> None:
    if text not in outcome.notes:
        outcome.notes.append(text)
