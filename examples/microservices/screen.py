"""What the demo shows: one table with a column per run, redrawn in a terminal, plain lines elsewhere."""
from __future__ import annotations

import sys
import time
from dataclasses import dataclass

BOLD, DIM, GREEN, RED, OFF = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"
WIDTH = 22


@dataclass
class Run:
    """One run's numbers, as they are now."""

    title: str
    requests: int = 0
    errors: int = 0
    p50: float = 0.0
    p99: float = 0.0
    calls: int = 0
    open: int = 0
    most_open: int = 0
    dials: int = 0
    reuses: int = 0
    handshakes: int = 0
    descriptors: int = 0
    most_descriptors: int = 0
    cpu: float = 0.0
    seconds: float = 0.0
    started: bool = False

    def rows(self) -> list[tuple[str, str]]:
        shown = [
            ("requests answered", f"{self.requests:,}"),
            ("errors", f"{self.errors:,}"),
            ("p50", f"{self.p50 * 1e3:.1f} ms"),
            ("p99", f"{self.p99 * 1e3:.1f} ms"),
            ("calls to the services", f"{self.calls:,}"),
            ("connections open", f"{self.open:,}"),
            ("  most at once", f"{self.most_open:,}"),
            ("dials", f"{self.dials:,}"),
            ("reuses", f"{self.reuses:,}"),
            ("TLS handshakes (servers)", f"{self.handshakes:,}"),
            ("descriptors (aggregator)", f"{self.descriptors:,}"),
            ("  most at once", f"{self.most_descriptors:,}"),
            ("processor time", f"{self.cpu:.2f} s"),
        ]
        return shown if self.started else [(name, "") for name, _ in shown]


def table(runs: list[Run], colour: bool) -> list[str]:
    bold, off = (BOLD, OFF) if colour else ("", "")
    columns = [run.rows() for run in runs]
    out = [" " * 27 + "".join(f"{bold}{run.title:>{WIDTH}}{off}" for run in runs), "─" * (27 + WIDTH * len(runs))]
    for i, (name, _) in enumerate(columns[0]):
        cells = ""
        for run, column in zip(runs, columns, strict=True):
            paint = (RED if run.errors else GREEN) if colour and name == "errors" and run.started else ""
            cells += f"{paint}{column[i][1]:>{WIDTH}}{OFF if paint else ''}"
        out.append(f" {name:<26}{cells}".rstrip())
    return out


class Screen:
    """`show` draws the runs so far; `close` leaves the terminal as it was."""

    def __init__(self, runs: list[Run], seconds: float) -> None:
        self.live = sys.stdout.isatty()
        self._runs, self._seconds = runs, seconds
        self._drawn = 0
        self._said = 0.0
        if self.live:
            print("\x1b[?25l", end="")

    def show(self, run: Run) -> None:
        if self.live:
            done = min(1.0, run.seconds / self._seconds)
            bar = "━" * round(done * 40) + DIM + "━" * (40 - round(done * 40)) + OFF
            lines = [*table(self._runs, True), "", f" {run.title:<24} {bar} {min(run.seconds, self._seconds):4.1f} s", ""]
            up = f"\x1b[{self._drawn}A" if self._drawn else ""
            print(up + "".join(f"\x1b[2K{line}\n" for line in lines), end="", flush=True)
            self._drawn = len(lines)
        elif time.monotonic() - self._said >= 1.0:
            self._said = time.monotonic()
            print(f"{run.title}: {run.seconds:4.1f} s  requests {run.requests}  errors {run.errors}  p50 {run.p50 * 1e3:.1f} ms  "
                  f"p99 {run.p99 * 1e3:.1f} ms  open {run.open}  dials {run.dials}  reuses {run.reuses}  handshakes {run.handshakes}  "
                  f"descriptors {run.descriptors}", flush=True)

    def finish(self) -> None:
        """The closing table, in place of the live one."""
        up = f"\x1b[{self._drawn}A\x1b[J" if self.live and self._drawn else "\n"
        print(up + "\n".join(table(self._runs, self.live)), flush=True)

    def close(self) -> None:
        if self.live:
            print("\x1b[?25h", end="", flush=True)


def _against(a: float, b: float) -> str:
    """How `b` stands to `a`, in words."""
    if not a or not b or 0.95 <= b / a <= 1.05:
        return "about the same"
    return f"{b / a:.1f} times as much" if b > a else f"{a / b:.1f} times less"


def conclusion(kept: Run, closed: Run) -> str:
    """What the reader should take home, from the numbers."""
    per = kept.calls / kept.handshakes if kept.handshakes else 0.0
    return (
        f"Kept connections: {kept.calls:,} calls by {kept.dials:,} dials and {kept.handshakes:,} TLS handshakes, one for every "
        f"{per:,.0f} calls. "
        f"Without keep-alives: {closed.calls:,} calls, {closed.dials:,} dials, {closed.handshakes:,} handshakes.\n"
        f"For the same load the median request took {kept.p50 * 1e3:.0f} ms against {closed.p50 * 1e3:.0f} ms "
        f"(the slowest hundredth {kept.p99 * 1e3:.0f} against {closed.p99 * 1e3:.0f}), where the services themselves take 50. Without "
        f"keep-alives the aggregator used {_against(kept.cpu, closed.cpu)} processor time ({closed.cpu:.1f} s beside {kept.cpu:.1f} s), "
        f"and the servers paid for {closed.handshakes:,} handshakes.\n"
        "So: one Client for the whole process, shared by all its threads, and nothing else to configure. disable_keep_alives=True is for "
        "what breaks reused connections, or must look the address up each time.")
