"""Showing how far a fan-out has come: the caller's function, or a bar of rich's or tqdm's."""
from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeAlias

Report: TypeAlias = "Callable[[int, int | None], object]"
Progress: TypeAlias = "bool | Report | None"


_EVERY = 0.1             # seconds between two drawings


def _nothing() -> None:
    pass


def check(progress: Any) -> None:
    """TypeError for what can report nothing."""
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise TypeError(f"progress is True or a callable (done, total), not {type(progress).__name__}")


def reporter(progress: Progress, total: int | None) -> tuple[Report | None, Callable[[], object]]:
    """What to call with (done, total or None), and what to call at the end.

    True is a bar on standard error, by rich, else by tqdm, else none; and none where standard error is no terminal.
    """
    if progress is None or progress is False:
        return None, _nothing
    if progress is not True:
        return progress, _nothing
    for bar in (_rich, _tqdm):
        try:
            return bar(total)
        except ImportError:
            continue
    return None, _nothing


def _rich(total: int | None) -> tuple[Report | None, Callable[[], object]]:
    rich = import_module("rich.progress")
    console = import_module("rich.console").Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        return None, _nothing
    columns = rich.BarColumn(), rich.MofNCompleteColumn(), rich.TimeElapsedColumn(), rich.TimeRemainingColumn()
    # Its proxy would send what is printed to standard error: wrong wherever the output goes elsewhere. No thread of its own draws.
    shown = rich.Progress(*columns, console=console, auto_refresh=False, redirect_stdout=sys.stdout is not None and sys.stdout.isatty())
    row = shown.add_task("", total=total)
    shown.start()
    drawn = monotonic()

    def report(done: int, total: int | None) -> None:
        nonlocal drawn
        now = monotonic()
        due = now - drawn >= _EVERY
        if due:
            drawn = now
        shown.update(row, completed=done, total=total, refresh=due)

    return report, shown.stop


def _tqdm(total: int | None) -> tuple[Report | None, Callable[[], object]]:
    tqdm = import_module("tqdm").tqdm
    # Without its watching thread, which would never end. disable=None: only on a terminal.
    shown = type("tqdm", (tqdm,), {"monitor_interval": 0})(total=total, unit="req", disable=None)

    def report(done: int, total: int | None) -> None:
        if shown.total != total:
            shown.total = total
        shown.update(done - shown.n)

    return (None if shown.disable else report), shown.close
