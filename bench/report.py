"""Tables for people, and the same as data."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.compare import Spread, Table
from bench.scenarios import OURS


def heading(facts: dict[str, Any], rounds: int, seconds: float) -> str:
    lines = [f"{facts['python']}, Linux {facts['kernel']}, {facts['cores']} cores ({facts['cpu']}), switch interval {facts['switch_interval_ms']:g} ms",
             f"{rounds} rounds of {seconds:g} s (wrk: whole seconds), client by client in turn; ratios are made round by round, then their median"]
    if facts["cores"] < 2:
        lines.append("WARNING: one core only: pinned clients share it with their server")
    return "\n".join(lines)


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.2f}" if figure < 100 else f"{figure:.1f}"


def table(data: Table) -> str:
    rows = [("", data.scenario.unit, "lowest - highest", "CPU us each", f"{OURS} is", "lowest - highest")]
    for name, outcome in data.outcomes.items():
        if outcome.error or not outcome.samples:
            rows.append((name, "FAILED", outcome.error or "", "", "", ""))
            continue
        figures = Spread.of(data.figures(name))
        cpu = Spread.of([s.cpu_us for s in outcome.samples])
        ratio = Spread.of(ratios) if name != OURS and (ratios := data.ratios(name)) else None
        rows.append((name, _number(figures.median), f"{_number(figures.low)} - {_number(figures.high)}", f"{cpu.median:.1f}" if not data.scenario.busy else "",
                     f"{ratio.median:.2f} x" if ratio else "", f"{ratio.low:.2f} - {ratio.high:.2f}" if ratio else ""))
    whole = [row for row in rows if row[1] != "FAILED"]
    widths = [max(len(row[i]) for row in (rows if i == 0 else whole)) for i in range(6)]
    lines = [f"{data.scenario.title}  [{data.scenario.name}]"]
    for row in rows:
        if row[1] == "FAILED":
            lines.append(f"  {row[0]:<{widths[0]}}  FAILED: {row[2]}")
        else:
            cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([f"  {row[0]:<{widths[0]}}", *cells]).rstrip())
    if data.server_ms is not None:
        lines.append(f"  the server's {data.scenario.delay_ms:.1f} ms are {data.server_ms:.2f} ms to a bare socket; "
                     f"switch interval {data.switch_interval * 1000:.1f} ms")
    if data.others > 0.1:
        lines.append(f"  NOT QUIET: other processes used {data.others:.0%} of the machine meanwhile; these ratios say little")
    return "\n".join(lines)


def goals(tables: Sequence[Table]) -> str:
    lines = ["Goals"]
    for data in tables:
        for one in data.judge():
            verdict = "not judged" if one.by is None else f"reached by {one.by:.0%}" if one.reached else f"MISSED by {-one.by:.0%}"
            lines.append(f"  {data.scenario.name:<9} {one.goal}: {one.figure}: {verdict}")
    return "\n".join(lines)


def versions(tables: Sequence[Table]) -> str:
    known = {name: outcome.version for data in tables for name, outcome in data.outcomes.items() if outcome.version}
    return "Versions: " + ", ".join(f"{name} {version}" for name, version in known.items())


def as_data(facts: dict[str, Any], tables: Sequence[Table], rounds: int, seconds: float) -> dict[str, Any]:
    """`scenarios`: for each its description, each client's version, rounds and error, the ratios by round, and the goals."""
    return {"machine": facts, "rounds": rounds, "seconds": seconds, "scenarios": [{
        **{key: value for key, value in asdict(data.scenario).items() if key != "goals"},
        "unit": data.scenario.unit,
        "others": data.others, "server_ms": data.server_ms,
        "clients": {name: {**asdict(outcome), "figures": data.figures(name), "ours_over_it": data.ratios(name)} for name, outcome in data.outcomes.items()},
        "goals": [{**asdict(one), "reached": one.reached} for one in data.judge()],
    } for data in tables]}
