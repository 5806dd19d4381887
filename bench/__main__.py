"""Compares this client with others on the same server, on this machine: `python -m bench --quick`.

A figure counts only as a ratio within one run, on a machine that does nothing else.
"""
from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from bench import compare, machine, peers, profiling, report
from bench.processes import Failed
from bench.scenarios import BY_NAME, LIMIT, OURS, SCENARIOS, Scenario
from bench.servers import Servers

CLIENTS = [OURS, LIMIT, *(name for name in peers.PEERS if name != OURS)]


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    args = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split(":")[0] + ".")
    args.add_argument("--quick", action="store_true", help="the quick scenarios, 5 rounds of half a second: under two minutes")
    args.add_argument("--rounds", type=int, help="rounds of each scenario (quick: 5, otherwise 7)")
    args.add_argument("--seconds", type=float, help="a client's share of a round (quick: 0.5, otherwise 2), or how long to profile (5)")
    args.add_argument("--warmup", type=float, default=0.3, help="seconds of requests before the first round")
    args.add_argument("--scenarios", help="comma-separated: " + ", ".join(BY_NAME))
    args.add_argument("--clients", help="comma-separated: " + ", ".join(CLIENTS) + "; or NAME/VARIANT: " + ", ".join(peers.variants()))
    args.add_argument("--variants", action="store_true", help="each peer's ways of use against each other, instead of the comparison")
    args.add_argument("--json", type=Path, metavar="FILE", help="all figures of all rounds as JSON")
    args.add_argument("--profile", metavar="SCENARIO", help="where our client's time goes, by perf, instead of the comparison")
    args.add_argument("--perf-data", metavar="FILE", help="keep what perf recorded")
    args.add_argument("--list", action="store_true", help="the scenarios and their goals")
    opts = args.parse_args(argv)
    opts.rounds = opts.rounds or (5 if opts.quick else 7)
    opts.seconds = opts.seconds or (5.0 if opts.profile else 0.5 if opts.quick else 2.0)
    names = opts.scenarios.split(",") if opts.scenarios else [s.name for s in SCENARIOS if s.quick or not opts.quick]
    clients = opts.clients.split(",") if opts.clients else peers.variants() if opts.variants else CLIENTS
    if wrong := [n for n in names + ([opts.profile] if opts.profile else []) if n not in BY_NAME]:
        args.error(f"no scenario {wrong[0]!r}; there are {', '.join(BY_NAME)}")
    if wrong := [c for c in clients if c not in CLIENTS + peers.variants()]:
        args.error(f"no client {wrong[0]!r}; there are {', '.join(CLIENTS + peers.variants())}")
    opts.scenarios, opts.clients = [BY_NAME[n] for n in names], clients
    return opts


def clients_for(scenario: Scenario, clients: list[str]) -> list[str]:
    return [c for c in clients if not (scenario.timed and c == LIMIT)]         # wrk has no thread that computes in Python


def show(scenario: str, text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{scenario and f'{scenario}: '}{text}", end="", file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    opts = arguments(argv)
    if opts.list:
        for s in SCENARIOS:
            print(f"{s.name:<9} {s.title}" + ("" if s.quick else "  (not with --quick)"))
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        servers = Servers(Path(directory))
        if opts.profile:
            try:
                client = opts.clients[0] if len(opts.clients) == 1 else OURS
                print(profiling.run(BY_NAME[opts.profile], client, servers, seconds=opts.seconds, keep=opts.perf_data))
            except Failed as failure:
                print(f"no profile: {failure}", file=sys.stderr)
                return 1
            return 0
        facts, tables = machine.facts(), []
        print(report.heading(facts, opts.rounds, opts.seconds), flush=True)
        for scenario in opts.scenarios:
            done = compare.run(scenario, clients_for(scenario, opts.clients), servers, rounds=opts.rounds, seconds=opts.seconds, warmup=opts.warmup,
                               progress=partial(show, scenario.name))
            tables.append(done)
            show("", "")
            print("\n" + report.table(done), flush=True)
    print("\n" + report.versions(tables))
    if any(s.goals for s in opts.scenarios) and not opts.variants:
        print("\n" + report.goals(tables))
    if opts.json:
        opts.json.write_text(json.dumps(report.as_data(facts, tables, opts.rounds, opts.seconds), indent=1) + "\n")
    failed = [f"{t.scenario.name}: {name}: {o.error}" for t in tables for name, o in t.outcomes.items() if o.error]
    for line in failed:
        print("FAILED " + line, file=sys.stderr)
    return 1 if failed else 0


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
