"""System calls, counted by strace."""
from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench.probes.base import AtMost, Column, Hand, Options, Outcome, Probe, Round
from bench.processes import Failed, find
from bench.scenarios import LIMIT, Scenario
from bench.servers import Servers

FEW, MANY = 100, 600
LINE = re.compile(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+)(?: +\d+)? +(\w+)$")


class Calls(Probe):
    """Sequential requests on one connection: the calls of a process that made MANY, less those of one that made FEW, of all its threads."""
    name = "calls"
    title = "system calls of a plain 1 KiB GET, one after another on one connection, one thread"
    columns = (Column("calls", "calls", digits=2),)
    goals = (AtMost("calls", 3.05, "<= 3 system calls a plain GET, one after another"),)
    most = 1
    about = 3.0
    aside = {LIMIT: "it is the limit of rates"}

    @contextlib.contextmanager
    def stage(self, servers: Servers, options: Options, notes: list[str]) -> Iterator[Round]:
        scenario = Scenario("calls", "")
        with servers.serving(scenario, None) as url:
            def measure(client: str, outcome: Outcome) -> dict[str, float]:
                each, outcome.version = each_get(client, scenario, url, None)
                outcome.notes = [", ".join(f"{name} {n:.2f}" for name, n in sorted(each.items(), key=lambda item: -item[1]) if n >= 0.05)]
                return {"calls": sum(each.values())}

            yield measure


def each_get(client: str, scenario: Scenario, url: str, ca: str | None) -> tuple[dict[str, float], str]:
    """The calls of a GET by name, and the client's version."""
    calls, version = count(client, scenario, url, ca, MANY)
    calls.subtract(count(client, scenario, url, ca, FEW)[0])
    return {name: n / (MANY - FEW) for name, n in calls.items()}, version


def count(client: str, scenario: Scenario, url: str, ca: str | None, times: int) -> tuple[Counter[str], str]:
    """All calls of a process that makes so many requests, and the client's version."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "calls"
        with Hand(client, scenario, url, ca, before=[find("strace", "strace"), "-f", "-c", "-o", log]) as hand:
            hand.do("gets", times=times)
            assert hand.child.stdin is not None
            hand.child.stdin.close()              # the client ends, and strace writes its table
            try:
                hand.child.wait(20)
            except subprocess.TimeoutExpired:
                raise Failed("it does not end") from None
        return parse(log.read_text()), hand.version


def parse(table: str) -> Counter[str]:
    """What `strace -c` wrote."""
    calls: Counter[str] = Counter()
    for line in table.splitlines():
        if (found := LINE.match(line)) and found[2] != "total":
            calls[found[2]] += int(found[1])
    return calls
