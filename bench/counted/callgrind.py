"""Instructions, counted by callgrind between marks: the same from run to run, whatever else the machine does."""
from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import programs
from bench.processes import Failed, find

PATIENCE = 120.0         # seconds; on a quiet machine it takes ten
MAIN = 1                 # callgrind's number of the main thread
NAMED = re.compile(r"\((\d+)\)(?: (.*))?")
MANGLED = re.compile(r"__pyx_(?:(?:f|pf|pw|getprop|setprop)|tp_(new|dealloc|clear|traverse))_(.+)")
# What the programs that are counted see of the environment: what is in it costs, where it is copied.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}


@dataclass(frozen=True)
class Window:
    """What the main thread did between two marks: instructions by function (`object function`), and all of them."""
    name: str
    functions: Counter[str]

    @property
    def total(self) -> int:
        return sum(self.functions.values())


def parse(text: str) -> tuple[str, int, Counter[str]]:
    """Of one file of callgrind's: the name that `end` was given, the thread, and the instructions of each function itself."""
    name, thread, functions = "", MAIN, Counter[str]()
    objects: dict[str, str] = {}
    names: dict[str, str] = {}
    where = function = ""
    lines = iter(text.splitlines())
    for line in lines:
        first = line[:1]
        if first.isdigit() or first in ("+", "-", "*"):
            functions[f"{where} {function}"] += int(line.split()[1])
        elif line.startswith("calls="):
            next(lines)                                       # what the called function cost, which is counted there
        elif line.startswith("ob="):
            where = Path(_resolve(line[3:], objects)).name.partition(".")[0]
        elif line.startswith("fn="):
            function = readable(_resolve(line[3:], names))
        elif line.startswith("cob="):
            _resolve(line[4:], objects)
        elif line.startswith("cfn="):
            _resolve(line[4:], names)
        elif line.startswith("desc: Trigger: Client Request: "):
            name = line.removeprefix("desc: Trigger: Client Request: ")
        elif line.startswith("thread: "):
            thread = int(line[8:])
    return name, thread, functions


def _resolve(text: str, known: dict[str, str]) -> str:
    # A name is written in full once, and its number from then on.
    found = NAMED.fullmatch(text)
    if found is None:
        return text
    if found[2] is not None:
        known[found[1]] = found[2]
    return known.get(found[1], text)


def readable(function: str) -> str:
    """A function of Cython's without its mangling: `__pyx_f_10pooledhttp_5_trip_4trip_7Tripper_run` is pooledhttp._trip.trip.Tripper.run."""
    function = function.partition("'")[0]                     # 'n is callgrind's, for a recursion
    found = MANGLED.match(function)
    if found is None:
        return function
    slot, rest, parts = found[1], found[2], []
    while (size := re.match(r"\d+", rest)) and rest[size.end() + int(size[0]):][:1] == "_":
        parts.append(rest[size.end():size.end() + int(size[0])])
        rest = rest[size.end() + int(size[0]) + 1:]
    return ".".join([*parts, rest.lstrip("0123456789")]) + (f" ({slot})" if slot else "")


def count(*command: str | Path, cwd: Path | None = None, arguments: Sequence[str] = ()) -> dict[str, list[Window]]:
    """Runs this interpreter with `command` under callgrind; the windows by name, in order. Addresses and hashes are the same each time."""
    valgrind = find("valgrind", "valgrind")
    with tempfile.TemporaryDirectory(prefix="counted-") as directory:
        out = Path(directory) / "out"
        done = subprocess.run([find("setarch", "util-linux"), "-R", valgrind, "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes",
                               f"--callgrind-out-file={out}", "--log-file=" + str(Path(directory) / "log"), sys.executable, *map(str, command), *arguments],
                              cwd=cwd, env={**ENVIRONMENT, "PYTHONPATH": str(marks().parent)}, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=PATIENCE)
        if done.returncode:
            raise Failed((done.stderr.strip().splitlines() or [f"callgrind ended with {done.returncode}"])[-1])
        windows: dict[str, list[Window]] = defaultdict(list)
        for path in sorted(Path(directory).glob("out.*"), key=_order):
            name, thread, functions = parse(path.read_text())
            if name and thread == MAIN:
                windows[name].append(Window(name, functions))
        return dict(windows)


def _order(path: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", path.name)))


def least(windows: Sequence[Window]) -> Window:
    """The window of the lowest total: in others the server was slow and a wait was begun again, or the janitor's thread had to be started."""
    return min(windows, key=lambda w: w.total)


def marks() -> Path:
    return programs.module("marks")
