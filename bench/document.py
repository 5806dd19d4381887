"""Writes the figures into the page about performance, from the bench's JSON: the lines between two marks are made anew, the rest is people's."""
from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from bench.compare import Spread
from bench.processes import ROOT
from bench.scenarios import LIMITS, OURS

Data = dict[str, Any]

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures: written by `python -m bench --docs FILE.json` -->", "<!-- end of the figures -->"


def rewrite(page: Path, data: Data) -> None:
    """ValueError where the page has not both marks, once and in this order."""
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{page} lacks the marks of the figures' place")
    before, rest = text.split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{figures(data)}\n\n{END}{rest.split(END)[1]}")


def figures(data: Data) -> str:
    machine = data["machine"]
    parts = [f"{machine['python']}, Linux {machine['kernel']}, {machine['cores']} cores ({machine['cpu']}); {data['rounds']} rounds of {data['seconds']:g} s; "
             + ", ".join(f"{name} {version}" for name, version in data["versions"].items()) + "."]
    if data["scenarios"]:
        parts += ["### Rates and times", "Requests a second (`busy`, `latency-16`: milliseconds a request); in brackets, how many times as fast pooledhttp is, "
                  "± half the distance between the rounds furthest apart.",
                  rates(data)]
    noisy = [f"`{s['name']}` ({s['others']:.0%})" for s in data["scenarios"] if s["others"] > 0.1]
    if noisy:
        parts.append(f"**The machine was not quiet** during {', '.join(noisy)}: what other processes used of it.")
    for probe in data["probes"]:
        parts += [f"### `{probe['name']}`", probe["title"][0].upper() + probe["title"][1:] + ".", probed(probe)]
    if said := goals(data):
        parts += ["### Goals", said]
    if bad := worse(data):
        parts += ["### Where another is faster", bad]
    if failed := [f"- `{s['name']}`, {name}: {one['error']}" for s in data["scenarios"] + data["probes"] for name, one in s["clients"].items() if one["error"]]:
        parts += ["### What failed", "\n".join(failed)]
    return "\n\n".join(parts)


def table(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---", *("---:" for _ in head[1:])], *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def clients(data: Data, of: str) -> list[str]:
    return list(dict.fromkeys(name for s in data[of] for name in s["clients"]))


def rates(data: Data) -> str:
    names = clients(data, "scenarios")
    rows = [["", *names]]
    for s in data["scenarios"]:
        row = [f"`{s['name']}`"]
        for name in names:
            one = s["clients"].get(name)
            if one is None or one["error"] or not one["figures"]:
                row.append("–" if one is None else "failed")
                continue
            ratio = Spread.of(one["ours_over_it"]) if name != OURS and one["ours_over_it"] else None
            row.append(number(statistics.median(one["figures"])) + (f" ({ratio.median:.2f} x ±{ratio.share:.0%})" if ratio else ""))
        rows.append(row)
    return table(rows)


def probed(probe: Data) -> str:
    rows, notes = [["", *(c["title"] for c in probe["columns"])]], []
    for name, one in probe["clients"].items():
        if one["left_out"]:
            continue
        spreads = [one["spread"].get(c["key"]) for c in probe["columns"]]
        rows.append([name, *("–" if s is None or one["error"] else f"{s['median']:,.{c['digits']}f}" for s, c in zip(spreads, probe["columns"], strict=True))])
        notes += [f"- {name}: {note}" for note in one["notes"]]
    notes += [f"- {note}" for note in probe["notes"]]
    absent = [f"{name} ({one['left_out']})" for name, one in probe["clients"].items() if one["left_out"] and name not in LIMITS]
    text = table(rows)
    if absent:
        text += "\n\nNot there: " + ", ".join(absent) + "."
    return text + ("\n\n" + "\n".join(notes) if notes else "")


def goals(data: Data) -> str:
    rows = [["goal", "scenario", "figure", "verdict"]]
    for s in data["scenarios"] + data["probes"]:
        for one in s["goals"]:
            verdict = "not judged" if one["by"] is None else f"reached by {one['by']:.0%}" if one["reached"] else f"**missed** by {-one['by']:.0%}"
            rows.append([one["goal"], f"`{s['name']}`", one["figure"], verdict])
    return table(rows) if len(rows) > 1 else ""


def worse(data: Data) -> str:
    """Every line where a peer is ahead, also those that no goal speaks of."""
    lines = []
    for s in data["scenarios"]:
        for name, one in s["clients"].items():
            if name not in (OURS, *LIMITS) and one["ours_over_it"] and (ratio := statistics.median(one["ours_over_it"])) < 1:
                lines.append(f"- `{s['name']}`: {name}, {1 / ratio:.2f} x as fast")
    for probe in data["probes"]:
        ours = probe["clients"].get(OURS)
        for column in probe["columns"]:
            mine = ours["spread"].get(column["key"]) if ours and not ours["error"] else None
            if mine is None or column["lower"] is None:
                continue
            sign = 1 if column["lower"] else -1
            ahead = {name: theirs["median"] for name, one in probe["clients"].items()
                     if not one["error"] and (theirs := one["spread"].get(column["key"])) and sign * theirs["median"] < sign * mine["median"]}
            if ahead:
                all_of_them = ", ".join(f"{name} {figure:,.{column['digits']}f}" for name, figure in ahead.items())
                lines.append(f"- `{probe['name']}`, {column['title']}: {OURS} {mine['median']:,.{column['digits']}f}; {all_of_them}")
    return "\n".join(lines)
