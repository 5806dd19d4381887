"""What is measured beside rates and times: a few figures of each client, in rounds, client by client in turn."""
from __future__ import annotations

import contextlib
import json
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.clients import PATIENCE, Asked, command
from bench.compare import Judgement, Spread
from bench.processes import Failed
from bench.scenarios import LIMIT, OURS, Scenario, Task
from bench.servers import Servers


@dataclass(frozen=True)
class Column:
    """`unit` is part of the heading. `lower`: less is better; None: neither."""
    key: str
    title: str
    lower: bool | None = True
    digits: int = 1


@dataclass
class Outcome:
    """A client's rounds: by column, what it has of them. `error`: why it stopped, or never began. `left_out`: why it has no part in this."""
    version: str = ""
    rounds: list[dict[str, float]] = field(default_factory=list)
    error: str | None = None
    left_out: str | None = None
    notes: list[str] = field(default_factory=list)

    def figures(self, key: str) -> list[float]:
        return [r[key] for r in self.rounds if key in r]

    def spread(self, key: str) -> Spread | None:
        figures = self.figures(key)
        return Spread.of(figures) if figures else None


class LeftOut(Exception):
    """The client cannot do this; that is no failure."""


@dataclass
class Result:
    probe: Probe
    outcomes: dict[str, Outcome]
    notes: list[str] = field(default_factory=list)

    def median(self, client: str, key: str) -> float | None:
        outcome = self.outcomes.get(client)
        figures = outcome.figures(key) if outcome is not None and outcome.error is None else []
        return statistics.median(figures) if figures else None

    def judge(self) -> list[Judgement]:
        return [goal.judge(self) for goal in self.probe.goals]

    def as_data(self) -> dict[str, Any]:
        return {"name": self.probe.name, "title": self.probe.title, "columns": [asdict(c) for c in self.probe.columns], "notes": self.notes,
                "clients": {name: {**asdict(o), "spread": {c.key: asdict(s) for c in self.probe.columns if (s := o.spread(c.key)) is not None}}
                            for name, o in self.outcomes.items()},
                "goals": [{**asdict(one), "reached": one.reached} for one in self.judge()]}


@dataclass(frozen=True)
class AtMost:
    """Goal: our figure is no more than `bound`."""
    key: str
    bound: float
    text: str

    def judge(self, result: Result) -> Judgement:
        ours = result.median(OURS, self.key)
        return Judgement(self.text, "no figures", None) if ours is None else Judgement(self.text, f"{ours:,.2f}", 1 - ours / self.bound)


@dataclass(frozen=True)
class Times:
    """Goal: our figure is no more than `times` another of ours."""
    key: str
    other: str
    times: float
    text: str

    def judge(self, result: Result) -> Judgement:
        ours, other = result.median(OURS, self.key), result.median(OURS, self.other)
        if ours is None or not other:
            return Judgement(self.text, "no figures", None)
        return Judgement(self.text, f"{ours / other:.2f} x", 1 - ours / other / self.times)


@dataclass(frozen=True)
class Best:
    """Goal: our figure is no worse than the best peer's."""
    key: str
    text: str

    def judge(self, result: Result) -> Judgement:
        lower = next(c.lower for c in result.probe.columns if c.key == self.key)
        ours = result.median(OURS, self.key)
        peers = {name: figure for name in result.outcomes if name != OURS and (figure := result.median(name, self.key)) is not None}
        if ours is None or not peers:
            return Judgement(self.text, "no figures", None)
        best = (min if lower else max)(peers, key=lambda name: peers[name])
        ratio = peers[best] / ours if lower else ours / peers[best]
        return Judgement(f"{self.text} ({best})", f"{ratio:.2f} x", ratio - 1)


class Probe(ABC):
    """One table. `most`: rounds, at most. `aside`: clients that have no part in it, and why."""
    name: str
    title: str
    columns: tuple[Column, ...]
    goals: tuple[AtMost | Times | Best, ...] = ()
    most: int = 3
    about: float = 1.0                # seconds that a client's round takes, about
    aside: dict[str, str] = {LIMIT: "it has no pool and no program around it"}

    @abstractmethod
    @contextlib.contextmanager
    def stage(self, servers: Servers, options: Options, notes: list[str]) -> Iterator[Round]:
        """The servers that it needs; yields what measures a client once. `notes`: what the table's reader should know."""
        yield lambda client, outcome: {}

    def rounds(self, asked: int) -> int:
        return min(asked, self.most)


@dataclass(frozen=True)
class Options:
    """`seconds`: for what is measured by time. `idle`: connections, at most. `upload`: MiB of the file to send."""
    seconds: float
    idle: int = 10000
    upload: int = 1024


Round = Callable[[str, Outcome], dict[str, float]]


class Hand(Asked):
    """A client in `bench.probe` or in the program in `bench/go`, ready."""

    def __init__(self, client: str, scenario: Scenario, url: str, ca: str | None = None, *, core: int | None = None, before: Sequence[str | Path] = ()) -> None:
        super().__init__([*before, *command(client, "probe", Task(scenario, url, ca, 0.0))], core)
        try:
            self.version = self.answer()["version"]
        except BaseException:
            self.close()
            raise

    def do(self, what: str, within: float = PATIENCE, /, **arguments: Any) -> dict[str, float]:
        self.say(json.dumps({"do": what, **arguments}))
        try:
            return {key: float(value) for key, value in self.answer(within).items()}
        except Failed as failure:
            if str(failure).startswith("Unable: "):
                raise LeftOut(str(failure).removeprefix("Unable: ")) from None
            raise

    def __enter__(self) -> Hand:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def run(probe: Probe, clients: Sequence[str], servers: Servers, options: Options, *, rounds: int,
        progress: Callable[[str], None] = lambda text: None) -> Result:
    """Each client's outcome. One that fails takes no further part; the others go on."""
    result = Result(probe, {name: Outcome(left_out=probe.aside.get(name)) for name in clients})
    going = [name for name in clients if name not in probe.aside]
    try:
        with probe.stage(servers, options, result.notes) as measure:
            for r in range(probe.rounds(rounds)):
                turn = r % len(going) if going else 0
                for name in going[turn:] + going[:turn]:
                    outcome = result.outcomes[name]
                    progress(f"round {r + 1} of {probe.rounds(rounds)}: {name}")
                    try:
                        outcome.rounds.append(measure(name, outcome))
                    except LeftOut as reason:
                        outcome.left_out = str(reason)
                        going.remove(name)
                    except (Failed, OSError) as failure:
                        outcome.error = str(failure)
                        going.remove(name)
    except Failed as failure:
        for name in going:
            result.outcomes[name].error = f"no server: {failure}"
    return result
