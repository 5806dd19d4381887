"""Compares this client with others on the same server, on this machine: `python -m bench`, or `--quick` for the main lines.

A figure counts only as a ratio within one run, on a machine that does nothing else.
"""
from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from bench import compare, document, machine, peers, pictures, probes, profiling, report
from bench.probes import PROBES, Options
from bench.processes import Failed
from bench.scenarios import BY_NAME, GO, H2_LIMIT, LIMIT, LIMITS, ONE_BY_ONE_IN_H2, OURS, SCENARIOS, SPEAK_H2, Scenario
from bench.servers import Servers

CLIENTS = [OURS, LIMIT, H2_LIMIT, GO, *(name for name in peers.PEERS if name != OURS)]
QUICK = [OURS, LIMIT, "pyreqwest", "pycurl", "urllib3"]
START = 1.2              # seconds that a client's process takes to be ready, about
NAMES = [*BY_NAME, *PROBES]


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    assert __doc__ is not None
    args = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split(":")[0] + ".")
    args.add_argument("--quick", action="store_true", help="the quick scenarios and clients, 5 rounds of half a second: under two minutes")
    args.add_argument("--rounds", type=int, help="rounds of each scenario (5)")
    args.add_argument("--seconds", type=float, help="a client's share of a round (quick: 0.5, otherwise 0.8), or how long to profile (5)")
    args.add_argument("--warmup", type=float, default=0.3, help="seconds of requests before the first round")
    args.add_argument("--scenarios", help="comma-separated: " + ", ".join(NAMES))
    args.add_argument("--clients", help="comma-separated: " + ", ".join(CLIENTS) + "; or NAME/VARIANT: " + ", ".join(peers.variants()))
    args.add_argument("--variants", action="store_true", help="each peer's ways of use against each other, instead of the comparison")
    args.add_argument("--idle", type=int, default=10000, help="how many idle connections, at most (10000)")
    args.add_argument("--upload", type=int, default=1024, metavar="MIB", help="size of the file that is sent (1024)")
    args.add_argument("--json", type=Path, metavar="FILE", help="all figures of all rounds as JSON, written after each scenario")
    args.add_argument("--pictures", type=Path, metavar="DIRECTORY", help="draw what was measured, as SVG and PNG; with --from, what is in that file")
    args.add_argument("--from", type=Path, dest="source", metavar="FILE", help="measure nothing: take the figures from this JSON")
    args.add_argument("--docs", type=Path, metavar="FILE", help="measure nothing: write the tables in docs/performance.md anew from this JSON")
    args.add_argument("--profile", metavar="SCENARIO", help="where our client's time goes, by perf, instead of the comparison")
    args.add_argument("--perf-data", metavar="FILE", help="keep what perf recorded")
    args.add_argument("--list", action="store_true", help="the scenarios")
    opts = args.parse_args(argv)
    opts.rounds = opts.rounds or 5
    opts.seconds = opts.seconds or (5.0 if opts.profile else 0.5 if opts.quick else 0.8)
    if opts.rounds < 1 or opts.seconds <= 0:
        args.error("--rounds and --seconds are positive")
    names = opts.scenarios.split(",") if opts.scenarios else [s.name for s in SCENARIOS if s.quick or not opts.quick]
    names += [] if opts.scenarios or opts.quick or opts.variants else list(PROBES)
    here = [c for c in (QUICK if opts.quick else CLIENTS) if c != GO or shutil.which("go")]
    clients = opts.clients.split(",") if opts.clients else peers.variants() if opts.variants else here
    if wrong := [n for n in names if n not in NAMES] + ([opts.profile] if opts.profile and opts.profile not in BY_NAME else []):
        args.error(f"no scenario {wrong[0]!r}; there are {', '.join(NAMES)}")
    if wrong := [c for c in clients if c not in CLIENTS + peers.variants()]:
        args.error(f"no client {wrong[0]!r}; there are {', '.join(CLIENTS + peers.variants())}")
    opts.scenarios, opts.probes, opts.clients = [BY_NAME[n] for n in names if n in BY_NAME], [PROBES[n] for n in names if n in PROBES], clients
    return opts


def clients_for(scenario: Scenario, clients: list[str]) -> list[str]:
    return [c for c in clients if not (scenario.busy and c in (LIMIT, GO))         # they have no thread that computes in Python
            and not (scenario.h2 and c.partition("/")[0] not in SPEAK_H2) and not (c == H2_LIMIT and not scenario.h2)
            and not (scenario.h2 and scenario.threads > 1 and c in ONE_BY_ONE_IN_H2)]


def minutes(opts: argparse.Namespace) -> float:
    """What the run will take, about."""
    seconds = 0.0
    for s in opts.scenarios:
        names = clients_for(s, opts.clients)
        seconds += 1.0 + len(names) * (START + opts.warmup) + s.rounds(opts.rounds) * sum(
            max(1.0, s.seconds(opts.seconds)) if c in LIMITS else s.seconds(opts.seconds) + 0.05 for c in names)
    for probe in opts.probes:
        seconds += probe.rounds(opts.rounds) * probe.about * sum(c not in probe.aside for c in opts.clients if c != H2_LIMIT)
    return seconds / 60


def show(scenario: str, text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{scenario and f'{scenario}: '}{text}", end="", file=sys.stderr, flush=True)


def measure(opts: argparse.Namespace, servers: Servers) -> dict[str, Any]:
    """Runs and prints everything that was asked for. Returns it as data."""
    facts, tables, results = machine.facts(), list[compare.Table](), list[probes.Result]()

    def save() -> dict[str, Any]:
        data = report.as_data(facts, tables, results, opts.rounds, opts.seconds)
        if opts.json:
            opts.json.parent.mkdir(parents=True, exist_ok=True)
            opts.json.write_text(json.dumps(data, indent=1) + "\n")
        return data

    print(report.heading(facts, opts.rounds, opts.seconds), flush=True)
    if not shutil.which("go") and not opts.quick:
        print("there is no go on PATH: Go is left out")
    print(f"about {minutes(opts):.0f} minutes", flush=True)
    for scenario in opts.scenarios:
        done = compare.run(scenario, clients_for(scenario, opts.clients), servers, rounds=opts.rounds, seconds=opts.seconds, warmup=opts.warmup,
                           progress=partial(show, scenario.name))
        tables.append(done)
        show("", "")
        print("\n" + report.table(done), flush=True)
        save()
    for probe in opts.probes:
        clients = [c for c in opts.clients if c != H2_LIMIT]
        result = probes.run(probe, clients, servers, Options(min(opts.seconds, 0.3), opts.idle, opts.upload), rounds=opts.rounds,
                            progress=partial(show, probe.name))
        results.append(result)
        show("", "")
        print("\n" + report.probed(result), flush=True)
        save()
    print("\n" + report.versions([*tables, *results]))
    if not opts.variants:
        if tables:
            print("\n" + report.summary(tables))
        print("\n" + report.goals([*tables, *results]))
    return save()


def failures(data: dict[str, Any]) -> list[str]:
    return [f"{s['name']}: {name}: {client['error']}" for s in data["scenarios"] + data["probes"] for name, client in s["clients"].items() if client["error"]]


def main(argv: Sequence[str]) -> int:
    opts = arguments(argv)
    if opts.list:
        for s in SCENARIOS:
            print(f"{s.name:<11} {s.title}" + ("" if s.quick else "  (not with --quick)"))
        for probe in PROBES.values():
            print(f"{probe.name:<11} {probe.title}  (not with --quick)")
        return 0
    if opts.docs:
        document.rewrite(document.PAGE, json.loads(opts.docs.read_text()))
        return 0
    if opts.source:
        data = json.loads(opts.source.read_text())
    else:
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            servers = Servers(Path(directory))
            if opts.profile:
                return profile(opts, servers)
            data = measure(opts, servers)
    if opts.pictures:
        for line in pictures.draw(data, opts.pictures):
            print(line)
    failed = failures(data)
    for line in failed:
        print("FAILED " + line, file=sys.stderr)
    return 1 if failed and not opts.source else 0


def profile(opts: argparse.Namespace, servers: Servers) -> int:
    try:
        client = opts.clients[0] if len(opts.clients) == 1 else OURS
        print(profiling.run(BY_NAME[opts.profile], client, servers, seconds=opts.seconds, keep=opts.perf_data))
    except Failed as failure:
        print(f"no profile: {failure}", file=sys.stderr)
        return 1
    return 0


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
