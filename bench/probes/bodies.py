"""Memory that large bodies take: fetched, and sent from a file."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bench.probes.base import AtMost, Best, Column, Hand, Options, Outcome, Probe, Round
from bench.processes import forget_peak, resident
from bench.scenarios import LIMIT, MIB, Scenario
from bench.servers import BIG, BIG_SIZE, Servers


class Peak(Probe):
    """The most memory that a process held during a request, beyond what it held before it. The requests before were for 1 KiB."""
    name = "peak"
    title = "a body fetched whole: resident memory at its peak, beyond that before the request"
    columns = (Column("kib_1m", "KiB for 1 MiB", digits=0), Column("mib_64m", "MiB for 64 MiB"))
    goals = (AtMost("kib_1m", 1024.0 + 256.0, "peak for a 1 MiB body <= body + 256 KiB"),)
    aside = {LIMIT: "it keeps no body"}

    @contextlib.contextmanager
    def stage(self, servers: Servers, options: Options, notes: list[str]) -> Iterator[Round]:
        small = Scenario("peak", "")
        with servers.serving(small, None) as url:
            def peak(client: str, outcome: Outcome, name: str, size: int) -> float:
                scenario = Scenario("peak", "", size=size, hosts=2)          # two paths on one origin
                with Hand(client, scenario, url.replace("/1k", f"/{name}")) as hand:
                    outcome.version = hand.version
                    hand.do("warm", url=url, size=small.size, times=20)
                    forget_peak(hand.child.pid)
                    before = resident(hand.child.pid)
                    hand.do("warm", url=url.replace("/1k", f"/{name}"), size=size, times=1)
                    return resident(hand.child.pid, "VmHWM") - before

            yield lambda client, outcome: {"kib_1m": peak(client, outcome, "1m", MIB), "mib_64m": peak(client, outcome, BIG, BIG_SIZE) / 1024}


class Upload(Probe):
    """The server throws the bytes away without copying them, and says how many they were."""
    name = "upload"
    title = "a file sent: MiB a second, and resident memory at its peak beyond that before"
    columns = (Column("rate", "MiB/s", lower=False, digits=0), Column("peak", "peak KiB", digits=0))
    goals = (Best("rate", "upload at least as fast as the best peer"), AtMost("peak", 2048.0, "memory flat during an upload (<= 2 MiB more)"))
    about = 1.5
    aside = {LIMIT: "it sends no files"}

    @contextlib.contextmanager
    def stage(self, servers: Servers, options: Options, notes: list[str]) -> Iterator[Round]:
        scenario, path = Scenario("upload", ""), servers.directory / "upload"
        with servers.sink() as url:
            with path.open("wb") as file:
                file.truncate(options.upload * MIB)           # holes: nothing is read from a disk
            with path.open("rb", buffering=0) as raw:
                while raw.read(MIB):                         # into the kernel's cache, which whoever came first would fill otherwise
                    pass
            little = servers.directory / "little"
            little.write_bytes(b"x" * 1000)

            def measure(client: str, outcome: Outcome) -> dict[str, float]:
                with Hand(client, scenario, url) as hand:
                    outcome.version = hand.version
                    hand.do("upload", path=str(little))
                    forget_peak(hand.child.pid)
                    before = resident(hand.child.pid)
                    seconds = hand.do("upload", path=str(path))["seconds"]
                    return {"rate": options.upload / seconds, "peak": resident(hand.child.pid, "VmHWM") - before}

            yield measure
        path.unlink()
