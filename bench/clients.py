"""The clients as the bench sees them: processes that are made ready once a scenario, then run a round whenever they are asked."""
from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import Failed, Lines, end, find, start
from bench.programs import go
from bench.scenarios import GO, H2_LIMIT, LIMIT, Task

PATIENCE = 45.0          # seconds beyond a round's own
MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def interpreter(client: str) -> Path:
    """niquests has an environment of its own: it overwrites urllib3."""
    if client.partition("/")[0] != "niquests":
        return Path(sys.executable)
    python = Path(sys.prefix) / "niquests" / "bin" / "python"
    if not python.exists():
        raise Failed("it has no environment of its own: `make bench` makes one")
    return python


def command(client: str, part: str, task: Task) -> list[str | Path]:
    """`part`: worker, or probe."""
    what = json.dumps(task.to_json())
    return [go(), part, what] if client == GO else [interpreter(client), "-m", f"bench.{part}", client, what]


@dataclass(frozen=True)
class Sample:
    """One client's round. `cpu_seconds`: of the client's process. `median_ms` (of a request) and `percentiles_ms` (by per cent): where times are measured."""
    requests: int
    seconds: float
    cpu_seconds: float
    median_ms: float | None = None
    percentiles_ms: dict[str, float] | None = None

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_seconds / max(self.requests, 1) * 1e6


class Client(ABC):
    name: str
    version = ""

    @abstractmethod
    def ready(self) -> None:
        """Waits until the client is warm. Failed says why it is not."""

    @abstractmethod
    def round(self, seconds: float) -> Sample: ...

    @abstractmethod
    def close(self) -> None: ...


class Asked:
    """A child that answers in JSON, a line for each line it is sent; its first line says its version."""

    def __init__(self, command: Sequence[str | Path], core: int | None = None) -> None:
        self._errors = tempfile.TemporaryFile()          # noqa: SIM115 - closed by close()
        self.child = start(command, core=core, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0)
        self._lines = Lines(self.child)

    def say(self, line: str) -> None:
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            raise Failed("its process is gone") from None

    def answer(self, seconds: float = PATIENCE) -> dict[str, Any]:
        try:
            line = self._lines.read(seconds)
        except Failed as failure:
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
            raise Failed(": ".join([str(failure), *last])) from None
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise Failed(f"says: {line}") from None
        if "error" in answer:
            raise Failed(str(answer["error"]))
        return answer

    def close(self) -> None:
        end(self.child)
        self._errors.close()


class Worker(Client, Asked):
    """A client's load, in `bench.worker` or in the program in `bench/go`."""

    def __init__(self, name: str, task: Task, core: int | None) -> None:
        self.name = name
        Asked.__init__(self, command(name, "worker", task), core)

    def ready(self) -> None:
        self.version = self.answer()["version"]

    def round(self, seconds: float) -> Sample:
        self.begin(seconds)
        return self.finish(seconds)

    def begin(self, seconds: float) -> None:
        self.say(f"{seconds:f}")

    def finish(self, seconds: float) -> Sample:
        sample = Sample(**self.answer(seconds + PATIENCE))
        if not sample.requests:
            raise Failed("not one request")
        return sample

    def close(self) -> None:
        Asked.close(self)


class Tool(Client):
    """A load generator in C: the limit. It starts anew for each round, of whole seconds; it verifies no certificate."""

    def __init__(self, task: Task, core: int | None) -> None:
        self._task, self._core = task, core

    def measure(self, whole: int, command: Sequence[str | Path]) -> tuple[str, float]:
        """What it says after so many seconds, and its processor time."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        child = start(command, core=self._core, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            text = child.communicate(timeout=whole + PATIENCE)[0].decode()
        except subprocess.TimeoutExpired:
            raise Failed(f"no answer within {whole + PATIENCE:.0f} s") from None
        finally:
            end(child)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return text, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def close(self) -> None:
        pass


class H2load(Tool):
    """h2load, of nghttp2: one thread, one connection, as many streams at once as the scenario has threads."""
    name = H2_LIMIT

    def ready(self) -> None:
        done = subprocess.run([find("h2load", "nghttp2-client"), "--version"], capture_output=True, text=True)
        self.version = done.stdout.strip().rpartition("/")[2] or "?"

    def round(self, seconds: float) -> Sample:
        whole, scenario = max(1, round(seconds)), self._task.scenario
        clients = -(-scenario.threads // scenario.streams) if scenario.streams else 1
        text, cpu = self.measure(whole, [find("h2load", "nghttp2-client"), f"-D{whole}", f"-c{clients}", f"-m{scenario.threads // clients}",
                                         self._task.url])
        done = re.search(r"^requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout$", text, re.MULTILINE)
        got = re.search(r"^traffic: .* \((\d+)\) data$", text, re.MULTILINE)
        if done is None or got is None or not int(done[1]) or any(int(n) for n in done.groups()[1:]):
            raise Failed("says: " + text.strip())
        if int(got[1]) < int(done[1]) * scenario.size:
            raise Failed("bodies that are too short")
        return Sample(int(done[1]), float(whole), cpu, None, None)


class Wrk(Tool):
    """wrk, one thread and a connection for each of the scenario's."""
    name = LIMIT

    def ready(self) -> None:
        done = subprocess.run([find("wrk", "wrk"), "--version"], capture_output=True, text=True)
        found = re.match(r"wrk (\S+)", done.stdout + done.stderr)
        self.version = found[1].removeprefix("debian/") if found else "?"

    def round(self, seconds: float) -> Sample:
        whole, scenario, more = max(1, round(seconds)), self._task.scenario, list[str]()
        if scenario.timed:
            more += ["--latency"]
        if scenario.fresh:
            more += ["-H", "Connection: close"]
        return self._sample(*self.measure(whole, [find("wrk", "wrk"), "-t1", f"-c{scenario.threads}", f"-d{whole}s", *more, self._task.url]))

    def _sample(self, text: str, cpu: float) -> Sample:
        done = re.search(r"(\d+) requests in ([\d.]+)s, ([\d.]+)([KMGT]?)B read", text)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
        wrong = re.search(r"^.*(?:Socket errors|Non-2xx).*$", text, re.MULTILINE)
        if done is None or rate is None or wrong is not None or not int(done[1]):
            raise Failed(wrong[0].strip() if wrong else "says: " + text.strip())
        got = float(done[3]) * 1024 ** " KMGT".index(done[4] or " ")
        if got < 0.98 * int(done[1]) * self._task.scenario.size:          # wrk rounds
            raise Failed("bodies that are too short")
        times = {per_cent: float(number) * MILLISECONDS[unit] for per_cent, number, unit in re.findall(r"^ +(\d+)% +([\d.]+)(us|ms|s)$", text, re.MULTILINE)}
        return Sample(int(done[1]), int(done[1]) / float(rate[1]), cpu, times.get("50"), times or None)


def open_client(name: str, task: Task, core: int | None) -> Client:
    return Wrk(task, core) if name == LIMIT else H2load(task, core) if name == H2_LIMIT else Worker(name, task, core)
