"""Tables for people, and the same as data."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.compare import Judgement, Spread, Table
from bench.probes import Result
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


def summary(tables: Sequence[Table]) -> str:
    """One table of all scenarios: how many times as fast as each we are, and how far the rounds lie apart."""
    names = [name for name in dict.fromkeys(name for data in tables for name in data.outcomes) if name != OURS]
    rows = [["", *names]]
    for data in tables:
        spreads = [Spread.of(ratios) if (ratios := data.ratios(name)) else None for name in names]
        rows.append([data.scenario.name, *("-" if s is None else f"{s.median:.2f} +-{s.share:.0%}" for s in spreads)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(names) + 1)]
    lines = ["  ".join([f"  {row[0]:<{widths[0]}}", *(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))]) for row in rows]
    return "\n".join([f"{OURS} is so many times as fast as (+- half the distance between the rounds furthest apart)", *lines])


def probed(result: Result) -> str:
    """The table of a probe: medians."""
    columns = result.probe.columns
    rows, lines = [("", *(c.title for c in columns))], [f"{result.probe.title}  [{result.probe.name}]"]
    width = max(map(len, result.outcomes), default=0)
    for name, outcome in result.outcomes.items():
        spreads = [outcome.spread(c.key) for c in columns]
        rows.append((name, *(f"{s.median:,.{c.digits}f}" if s is not None else "-" for s, c in zip(spreads, columns, strict=True))))
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns) + 1)]
    for row in rows:
        one = result.outcomes.get(row[0])
        if one is not None and (one.error or one.left_out):
            lines.append(f"  {row[0]:<{width}}  {f'FAILED: {one.error}' if one.error else f'left out: {one.left_out}'}")
        else:
            cells = [f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([f"  {row[0]:<{width}}", *cells, *(f"({note})" for note in (one.notes if one else []))]).rstrip())
    return "\n".join([*lines, *(f"  {note}" for note in result.notes)])


def judged(data: Table | Result) -> tuple[str, list[Judgement]]:
    return data.scenario.name if isinstance(data, Table) else data.probe.name, data.judge()


def goals(tables: Sequence[Table | Result]) -> str:
    lines = ["Goals"]
    for name, judgements in map(judged, tables):
        lines += [f"  {name:<9} {one.goal}: {one.figure}: {verdict(one)}" for one in judgements]
    return "\n".join(lines)


def verdict(one: Judgement) -> str:
    return "not judged" if one.by is None else f"reached by {one.by:.0%}" if one.reached else f"MISSED by {-one.by:.0%}"


def versions(tables: Sequence[Table | Result]) -> str:
    known = known_versions(tables)
    return "Versions: " + ", ".join(f"{name} {version}" for name, version in known.items())


def known_versions(tables: Sequence[Table | Result]) -> dict[str, str]:
    return {name: outcome.version for data in tables for name, outcome in data.outcomes.items() if outcome.version}


def as_data(facts: dict[str, Any], tables: Sequence[Table], probes: Sequence[Result], rounds: int, seconds: float) -> dict[str, Any]:
    """`scenarios`: for each its description, each client's version, rounds and error, the ratios by round, and the goals; `probes` likewise."""
    return {"machine": facts, "rounds": rounds, "seconds": seconds, "versions": known_versions([*tables, *probes]),
            "probes": [result.as_data() for result in probes], "scenarios": [{
        **{key: value for key, value in asdict(data.scenario).items() if key != "goals"},
        "unit": data.scenario.unit,
        "others": data.others, "server_ms": data.server_ms, "switch_interval_ms": data.switch_interval * 1000,
        "clients": {name: {**asdict(outcome), "figures": data.figures(name), "ours_over_it": data.ratios(name)} for name, outcome in data.outcomes.items()},
        "goals": [{**asdict(one), "reached": one.reached} for one in data.judge()],
    } for data in tables]}
