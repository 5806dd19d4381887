"""Runs the clients of a scenario in turn, round by round, against one server."""
from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from bench.clients import Client, Sample, open_client
from bench.machine import Quiet, cores
from bench.processes import Failed
from bench.scenarios import LIMITS, OURS, Faster, Scenario, Task, Within
from bench.servers import Servers, bare_ms


@dataclass(frozen=True)
class Spread:
    """The median of some figures, and the lowest and the highest of them."""
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        return cls(statistics.median(figures), min(figures), max(figures))

    @property
    def share(self) -> float:
        """Half the distance from the lowest to the highest, as a share of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


@dataclass
class Outcome:
    """A client's rounds in a scenario. `error`: why it stopped, or never began."""
    version: str = ""
    samples: list[Sample] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True)
class Judgement:
    """What became of a goal. `by`: how far reached (positive) or missed (negative), as a share of the bound; None where a client's figures are missing."""
    goal: str
    figure: str
    by: float | None

    @property
    def reached(self) -> bool:
        return self.by is not None and self.by >= 0


@dataclass
class Table:
    """A scenario's outcomes. `switch_interval`: of the interpreter, in seconds. `others`: the share of the machine that other processes used.
    `server_ms`: what a bare socket waits for the server's answer, where times are measured.
    """
    scenario: Scenario
    outcomes: dict[str, Outcome]
    switch_interval: float = 0.005
    others: float = 0.0
    server_ms: float | None = None

    def figures(self, client: str) -> list[float]:
        """By round: requests a second, or milliseconds a request, in the scenario's unit."""
        return [(s.median_ms or 0.0) if self.scenario.timed else s.rate for s in self.outcomes[client].samples]

    def ratios(self, base: str) -> list[float]:
        """By round: how many times as fast as `base` we are; empty where one of the two has no whole set of rounds."""
        if any(c not in self.outcomes or self.outcomes[c].error or not self.outcomes[c].samples for c in (OURS, base)):
            return []
        pairs = zip(self.figures(OURS), self.figures(base), strict=True)
        return [theirs / ours if self.scenario.timed else ours / theirs for ours, theirs in pairs]

    def judge(self) -> list[Judgement]:
        return [self._faster(goal) if isinstance(goal, Faster) else self._within(goal) for goal in self.scenario.goals]

    def _faster(self, goal: Faster) -> Judgement:
        base = goal.base or self.best_peer()
        text, ratios = f"{OURS} >= {goal.times} x {base if goal.base else f'the best peer ({base})'}", self.ratios(base)
        if not ratios:
            return Judgement(text, "no figures", None)
        ratio = statistics.median(ratios)
        return Judgement(text, f"{ratio:.2f} x", ratio / goal.times - 1)

    def best_peer(self) -> str:
        """The one that we are the least faster than; "none" where there is no other."""
        ratios = {name: statistics.median(ratios) for name in self.outcomes if name not in (OURS, *LIMITS) and (ratios := self.ratios(name))}
        return min(ratios, key=lambda name: ratios[name], default="none")

    def _within(self, goal: Within) -> Judgement:
        bound = self.switch_interval * 1000 + self.scenario.delay_ms + goal.spare_ms
        parts = f"switch interval {self.switch_interval * 1000:.1f} + server {self.scenario.delay_ms:.1f} + {goal.spare_ms:.1f}"
        text = f"{OURS} <= {bound:.1f} ms a request ({parts})"
        outcome = self.outcomes.get(OURS)
        if outcome is None or outcome.error or not outcome.samples:
            return Judgement(text, "no figures", None)
        median = statistics.median(self.figures(OURS))
        return Judgement(text, f"{median:.2f} ms", 1 - median / bound)


def run(scenario: Scenario, names: Sequence[str], servers: Servers, *, rounds: int, seconds: float, warmup: float = 0.3,
        progress: Callable[[str], None] = lambda text: None) -> Table:
    """Each client's outcome. One that fails takes no further part; the others go on. Each round begins with another client: none profits from its place."""
    outcomes, quiet = {name: Outcome() for name in names}, Quiet()
    client_core, server_core = cores() if scenario.pinned else (None, None)
    ca = str(servers.certificate.ca) if scenario.tls else None
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(servers.serving(scenario, server_core))
        except Failed as failure:
            for outcome in outcomes.values():
                outcome.error = f"no server: {failure}"
            return Table(scenario, outcomes, sys.getswitchinterval())
        server_ms = bare_ms(url) if scenario.delay_ms else None
        clients: list[Client] = []
        task = Task(scenario, url, ca, warmup)
        progress("warming up")
        for name in names:
            try:
                client = open_client(name, task, client_core)
            except Failed as failure:
                outcomes[name].error = str(failure)
                continue
            stack.callback(client.close)
            clients.append(client)
        for client in list(clients):
            _attempt(client, clients, outcomes, client.ready)
            outcomes[client.name].version = client.version
        for r in range(scenario.rounds(rounds)):
            turn = r % len(clients) if clients else 0
            for client in clients[turn:] + clients[:turn]:
                quiet.look()
                progress(f"round {r + 1} of {scenario.rounds(rounds)}: {client.name}")
                _attempt(client, clients, outcomes, partial(_sample, client, outcomes, scenario.seconds(seconds)))
    return Table(scenario, outcomes, sys.getswitchinterval(), quiet.share, server_ms)


def _sample(client: Client, outcomes: dict[str, Outcome], seconds: float) -> None:
    outcomes[client.name].samples.append(client.round(seconds))


def _attempt(client: Client, clients: list[Client], outcomes: dict[str, Outcome], act: Callable[[], None]) -> None:
    try:
        act()
    except Failed as failure:
        outcomes[client.name].error = str(failure)
        clients.remove(client)
