"""The budget: what each figure may be, by the build that it was counted on."""
from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.counted.figures import ANCHORS, FIGURES, Figure, Measured

STRANGE = 0.15           # what a ratio may be over the known builds' own, where this one is not among them
KEPT = 0.002             # functions with less than this share of a figure are not in the file
GROWN = 8                # named where a figure is over its budget


@dataclass
class Known:
    """A build, and what was counted on it."""
    build: dict[str, str]
    values: dict[str, float]
    functions: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """`budget` None: there is nothing to compare with, which is a failure too. `how`: where the budget comes from, where not from this build's own."""
    figure: Figure
    measured: float
    budget: float | None
    slack: float
    how: str = ""
    grown: tuple[tuple[str, int, int], ...] = ()

    @property
    def limit(self) -> float | None:
        if self.budget is None:
            return None
        limit = self.budget * (1 + self.slack)
        return limit if self.figure.most is None else min(limit, self.figure.most)

    @property
    def over(self) -> bool:
        return self.limit is None or self.measured > self.limit

    def line(self) -> str:
        what = f"{self.figure.title}: {amount(self.measured)} {self.figure.unit}"
        if self.budget is None or self.limit is None:
            return f"{what}, and no budget: {self.how}"
        most = "" if self.figure.most is None else f", never more than {amount(self.figure.most)}"
        how = f", {self.how}" if self.how else ""
        return f"{what}, budget {amount(self.budget)} ({self.measured / self.budget - 1:+.1%}, {self.slack:.0%} is allowed{most}){how}"

    def complaint(self) -> str:
        lines = ["OVER BUDGET  " + self.line()]
        lines += [f"    {after - before:+9,d}  {name} ({before:,} -> {after:,})" for name, before, after in self.grown]
        return "\n".join(lines)


def amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


class Budgets:
    """The file: `builds`, a list of those known. Figures of a build that is not in it are judged by their ratio to an anchor of the same run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        data = json.loads(path.read_text()) if path.exists() else {"builds": []}
        self.builds = [Known(b["build"], b["values"], b.get("functions", {})) for b in data["builds"]]

    def of(self, build: dict[str, str]) -> Known | None:
        return next((known for known in self.builds if known.build == build), None)

    def judge(self, build: dict[str, str], measured: Measured) -> list[Verdict]:
        known = self.of(build)
        return [self._own(f, measured, known) if known is not None and f.name in known.values else self._strange(f, measured, build)
                for f in FIGURES if f.name in measured.values]

    def _own(self, figure: Figure, measured: Measured, known: Known) -> Verdict:
        budget = known.values[figure.name]
        return Verdict(figure, measured.values[figure.name], budget, figure.slack,
                       grown=grown(known.functions.get(figure.name, {}), measured.functions.get(figure.name, Counter()), round(budget * KEPT)))

    def _strange(self, figure: Figure, measured: Measured, build: dict[str, str]) -> Verdict:
        value = measured.values[figure.name]
        have = [known for known in self.builds if figure.name in known.values and (figure.anchor is None or figure.anchor in known.values)]
        have = [known for known in have if alike(known.build, build)] or have
        if not have:
            return Verdict(figure, value, None, figure.slack, "the file has no build with this figure")
        if figure.anchor is None:
            return Verdict(figure, value, max(known.values[figure.name] for known in have), figure.slack, "by another build")
        if figure.anchor not in measured.values:
            return Verdict(figure, value, None, figure.slack, f"{figure.anchor} was not counted")
        ratio = max(known.values[figure.name] / known.values[figure.anchor] for known in have)
        title = next(a.title for a in ANCHORS if a.name == figure.anchor)
        return Verdict(figure, value, ratio * measured.values[figure.anchor], STRANGE, f"as {ratio:.3f} x {title} in this run")

    def update(self, build: dict[str, str], measured: Measured) -> None:
        """What was counted is this build's budget from now on; a figure that was not counted keeps its own."""
        known = self.of(build)
        if known is None:
            known = Known(build, {})
            self.builds.append(known)
        known.values.update({name: round(value, 3) if value < 100 else round(value) for name, value in measured.values.items()})
        for figure in FIGURES:
            functions = measured.functions.get(figure.name)
            if functions is not None:
                least = measured.values[figure.name] * KEPT
                known.functions[figure.name] = {name: n for name, n in functions.most_common() if n >= least}
        self.path.write_text(json.dumps({"builds": [vars(b) for b in self.builds]}, indent=1) + "\n")


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """The same processor's kind, and the same Python but for its last number."""
    def minor(build: dict[str, Any]) -> Sequence[str]:
        return str(build.get("python", "")).split(" ")[0].split(".")[:2]

    return one.get("machine") == other.get("machine") and minor(one) == minor(other)


def grown(before: dict[str, int], now: Counter[str], least: int = 0) -> tuple[tuple[str, int, int], ...]:
    """The functions that take more than they did, the most first. One that is not in `before` counts from `least`: it may have taken so much."""
    more = [(name, was, n) for name, n in now.items() if n > (was := before.get(name, least)) + 2]
    return tuple(sorted(more, key=lambda m: m[1] - m[2])[:GROWN])
