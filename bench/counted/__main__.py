"""Counts what does not depend on how busy the machine is, and compares it with bench/budgets.json: `make counted`; `--update` writes that file."""
from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

from bench.counted.budgets import Budgets, amount
from bench.counted.figures import ANCHORS, FIGURES, GROUPS, Measured, build, measure
from bench.processes import Failed
from bench.servers import Servers

FILE = Path(__file__).resolve().parent.parent / "budgets.json"


def main(argv: Sequence[str]) -> int:
    assert __doc__ is not None
    args = argparse.ArgumentParser(prog="python -m bench.counted", description=__doc__.split(":")[0] + ".")
    args.add_argument("--update", action="store_true", help="what is counted now is the budget from now on")
    args.add_argument("--only", metavar="GROUPS", help="comma-separated: " + ", ".join(GROUPS))
    args.add_argument("--functions", metavar="FIGURE", help="the functions that this figure's instructions are in")
    args.add_argument("--repeat", type=int, default=1, metavar="N", help="count so many times, and show how far apart the figures are")
    args.add_argument("--budgets", type=Path, default=FILE, help="another file than bench/budgets.json")
    opts = args.parse_args(argv)
    groups = opts.only.split(",") if opts.only else list(GROUPS)
    if wrong := [g for g in groups if g not in GROUPS]:
        args.error(f"no group {wrong[0]!r}; there are {', '.join(GROUPS)}")
    began = time.monotonic()
    try:
        budgets, here = Budgets(opts.budgets), build()
        with tempfile.TemporaryDirectory(prefix="counted-") as directory:
            servers = Servers(Path(directory))
            # Twice where it becomes the budget: the lower count holds.
            runs = [measure(groups, servers, _progress) for _ in range(max(opts.repeat, 2 if opts.update else 1))]
            counted = reduce(Measured.lower, runs)
            again = sorted({verdict.figure.group for verdict in budgets.judge(here, counted) if verdict.over and not opts.update})
            if again:
                counted = counted.lower(measure(again, servers, _progress))
    except Failed as failure:
        print(f"cannot count: {failure}", file=sys.stderr)
        return 1
    print(f"counted in {time.monotonic() - began:.0f} s", file=sys.stderr)
    if opts.repeat > 1:
        _spread(runs)
    if opts.functions:
        _functions(counted, opts.functions)
    if opts.update:
        budgets.update(here, counted)
        print(f"{opts.budgets} has these figures now:")
        for figure in (*FIGURES, *ANCHORS):
            if figure.name in counted.values:
                print(f"  {figure.title}: {amount(counted.values[figure.name])} {figure.unit}")
        return 0
    verdicts = budgets.judge(here, counted)
    if budgets.of(here) is None:
        print("This build (Python, compiler, libraries, processor) is not in the file. Instructions are judged by their ratio to other work counted in\n"
              "this run, which says less; `make counted-update`, on sources that are known to be good, adds it:")
        for key, value in here.items():
            print(f"  {key}: {value}")
    for verdict in verdicts:
        print(verdict.complaint() if verdict.over else "ok  " + verdict.line())
    return 1 if any(verdict.over for verdict in verdicts) else 0


def _progress(text: str) -> None:
    print(f"counting {text} ...", file=sys.stderr, flush=True)


def _spread(runs: Sequence[Measured]) -> None:
    print(f"how far apart {len(runs)} runs are:")
    for figure in (*FIGURES, *ANCHORS):
        if figure.name in runs[0].values:
            values = [run.values[figure.name] for run in runs]
            print(f"  {figure.title}: {' '.join(map(amount, values))}  ({max(values) / min(values) - 1:.2%})")


def _functions(run: Measured, name: str) -> None:
    functions = run.functions[name]
    objects = {o: sum(n for function, n in functions.items() if function.startswith(o + " ")) for o in {f.partition(" ")[0] for f in functions}}
    for what, n in [*sorted(objects.items(), key=lambda item: -item[1]), *functions.most_common(50)]:
        print(f"{n:9,d}  {n / run.values[name]:6.1%}  {what}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
