"""What is counted, and how each figure is measured."""
from __future__ import annotations

import contextlib
import json
import platform
import re
import ssl
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.counted import callgrind
from bench.counted.callgrind import Window, least
from bench.probes.calls import each_get
from bench.processes import Failed, find
from bench.scenarios import OURS, Scenario
from bench.servers import Servers

KINDS = ("plain", "tls")
INSIDE = Path(__file__).parent / "inside.py"
TIMES = 200              # requests of a window
IDLE = (500, 2500)       # connections: the figure is the slope between
PATIENCE = 60.0
IMPORT = "import sys\nimport marks\nmarks.begin()\nimport {}\nmarks.end('import')\n"


@dataclass(frozen=True)
class Figure:
    """`group`: of GROUPS, which counts it. `anchor`: the figure that it is divided by where no budget is known for this build. `slack`: what it may be
    over its budget, as a share. `most`: what it may never be, whatever the budget says: a goal."""
    name: str
    group: str
    title: str
    unit: str
    anchor: str | None = None
    slack: float = 0.03
    most: float | None = None


# The janitor's calls, and those of a wait that the server's slowness made two, are in the shares of calls and releases.
FIGURES = (
    Figure("plain_get", "instructions", "a plain GET of 1 KiB, on a warm connection", "instructions", "plain_http_client"),
    Figure("tls_get", "instructions", "a GET of 1 KiB over TLS 1.3, on a warm connection", "instructions", "tls_http_client"),
    Figure("client", "instructions", "Client()", "instructions", "plain_http_client"),
    Figure("import", "imports", "import pooledhttp", "instructions", "import_bare"),
    Figure("plain_calls", "calls", "system calls of a plain GET", "calls", slack=0.1, most=3.3),
    Figure("tls_calls", "calls", "system calls of a TLS GET", "calls", slack=0.1, most=3.3),
    Figure("plain_releases", "releases", "releases of the GIL by a plain GET", "releases", slack=0.1, most=1.1),
    Figure("tls_releases", "releases", "releases of the GIL by a TLS GET", "releases", slack=0.1, most=1.1),
    Figure("idle_connection", "idle", "an idle connection", "bytes", most=1024),
    Figure("idle_host", "idle", "an idle connection with its host", "bytes", slack=0.05),
)
ANCHORS = (
    Figure("plain_http_client", "instructions", "http.client's plain GET", "instructions"),
    Figure("tls_http_client", "instructions", "http.client's GET over TLS", "instructions"),
    Figure("import_bare", "imports", "import socket, ssl", "instructions"),
)


@dataclass
class Measured:
    """Values by figure; for instructions also the functions, each with its own."""
    values: dict[str, float] = field(default_factory=dict)
    functions: dict[str, Counter[str]] = field(default_factory=dict)

    def lower(self, other: Measured) -> Measured:
        """Of each figure the lower one of two counts."""
        low = Measured(dict(self.values), dict(self.functions))
        for name, value in other.values.items():
            if name not in low.values or value < low.values[name]:
                low.values[name] = value
                if name in other.functions:
                    low.functions[name] = other.functions[name]
        return low


def build() -> dict[str, str]:
    """What instructions depend on beside our sources."""
    compiler = str(sysconfig.get_config_var("CC")).split()[0]
    said = subprocess.run([find(compiler, "gcc"), "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    flags = set(re.findall(r"\w+", next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")))
    valgrind = subprocess.run([find("valgrind", "valgrind"), "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {"python": " ".join(sys.version.split()), "compiler": said, "cython": version("Cython"), "openssl": ssl.OPENSSL_VERSION,
            "libc": " ".join(platform.libc_ver()), "valgrind": valgrind,
            # valgrind imitates one of three processors, by what the real one has; libc and OpenSSL choose their code by that.
            "machine": " ".join([platform.machine(), *sorted(flags & {"avx", "avx2"})])}


def instructions(servers: Servers, times: int = TIMES) -> Measured:
    with _both(servers) as task:
        windows = callgrind.count(INSIDE, "instructions", json.dumps({**task, "times": times}))
    each = {"client": times, **{f"{kind}_get": times for kind in KINDS}, **{f"{kind}_http_client": times // 4 for kind in KINDS}}
    measured = Measured()
    for name, n in each.items():
        _note(measured, name, least(windows[name]), n)
    return measured


def imports(servers: Servers) -> Measured:
    measured = Measured()
    with tempfile.TemporaryDirectory() as empty:
        for name, what in (("import", "pooledhttp"), ("import_bare", "socket, ssl")):
            subprocess.run([sys.executable, "-c", f"import {what}"], cwd=empty, env=callgrind.ENVIRONMENT, check=True)         # so that it is compiled
            _note(measured, name, least(callgrind.count("-c", IMPORT.format(what), cwd=Path(empty))["import"]), 1)
    return measured


def _note(measured: Measured, name: str, window: Window, times: int) -> None:
    measured.values[name] = window.total / times
    measured.functions[name] = Counter({function: round(n / times) for function, n in window.functions.items()})


def calls(servers: Servers) -> Measured:
    measured = Measured()
    with servers.both() as urls:
        for kind, url in zip(KINDS, urls, strict=True):
            each, _ = each_get(OURS, Scenario("counted", "", tls=kind == "tls"), url, str(servers.certificate.ca))
            measured.values[f"{kind}_calls"] = sum(each.values())
    return measured


def releases(servers: Servers, times: int = 1000) -> Measured:
    with _both(servers) as task:
        return Measured(_run("releases", {**task, "times": times}))


def idle(servers: Servers, sizes: tuple[int, int] = IDLE) -> Measured:
    with servers.serving(Scenario("counted", "", hosts=2), None) as url:
        return Measured(_run("idle", {"url": url, "few": sizes[0], "many": sizes[1]}))


def _run(name: str, task: dict[str, Any]) -> dict[str, float]:
    done = subprocess.run([sys.executable, INSIDE, name, json.dumps(task)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
                          env={**callgrind.ENVIRONMENT, "PYTHONPATH": str(callgrind.marks().parent), "PYTHONMALLOC": "malloc"})
    if done.returncode:
        raise Failed((done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1])
    return dict(json.loads(done.stdout))


@contextlib.contextmanager
def _both(servers: Servers) -> Iterator[dict[str, str]]:
    with servers.both() as urls:
        yield {**dict(zip(KINDS, urls, strict=True)), "ca": str(servers.certificate.ca)}


GROUPS: dict[str, Callable[[Servers], Measured]] = {"instructions": instructions, "imports": imports, "calls": calls, "releases": releases, "idle": idle}


def measure(groups: Sequence[str], servers: Servers, progress: Callable[[str], None] = lambda text: None) -> Measured:
    measured = Measured()
    for name in groups:
        progress(name)
        measured = measured.lower(GROUPS[name](servers))
    return measured
