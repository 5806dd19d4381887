"""Where our client's time goes: its load of one scenario under `perf record`."""
from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

from bench.clients import Worker
from bench.machine import cores
from bench.processes import Failed, end, find, start
from bench.scenarios import Scenario, Task
from bench.servers import Servers

FREQUENCY = 1999
PARTS = ((re.compile(r"^\[(?!vdso)|\.ko\b"), "kernel"), (re.compile(r"python\d"), "interpreter"),
         (re.compile(r"^(_ssl|libssl|libcrypto)"), "ssl"), (re.compile(r"^(libc|libpthread|libm|ld-linux|ld)\b|vdso"), "libc"))


def part_of(dso: str, modules: frozenset[str]) -> str:
    """The part that a shared object (as perf names it) belongs to. `modules`: file names of the client's own."""
    if dso in modules:
        return "client"
    return next((part for pattern, part in PARTS if pattern.search(dso)), "other")


def run(scenario: Scenario, client: str, servers: Servers, *, seconds: float, keep: str | None) -> str:
    """The report. `keep`: a file for perf's data, for `perf report -i` afterwards."""
    perf = find("perf", "linux-perf")
    client_core, server_core = cores() if scenario.pinned else (None, None)
    ca = str(servers.certificate.ca) if scenario.tls else None
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        data = keep or f"{directory}/perf.data"
        url = stack.enter_context(servers.serving(scenario, server_core))
        worker = Worker(client, Task(scenario, url, ca, 0.5), client_core)
        stack.callback(worker.close)
        worker.ready()
        worker.begin(seconds + 0.5)
        # The software clock is there on virtual machines too, where the processor's counters often are not.
        recorder = start([perf, "record", "-e", "cpu-clock", "-F", str(FREQUENCY), "-g", "-o", data, "-p", str(worker.child.pid),
                          "--", "sleep", str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            said = recorder.communicate(timeout=seconds + 30)[0].decode(errors="replace")
        finally:
            end(recorder)
        if recorder.returncode:
            raise Failed(f"perf record: exit code {recorder.returncode}: {said.strip()}")
        sample = worker.finish(seconds + 0.5)
        objects, symbols = _shares(perf, data, "dso"), _shares(perf, data, "dso,symbol")
    modules = frozenset(p.name for p in _modules(client))
    parts: defaultdict[str, float] = defaultdict(float)
    for share, names in objects:
        parts[part_of(names[0], modules)] += share
    lines = [f"{client} {worker.version}, {scenario.title}: {sample.rate:,.0f} requests/s under perf, {sample.cpu_us:.1f} us of CPU each", "", "By part"]
    lines += [f"  {share:5.1f} %  {part}" for part, share in sorted(parts.items(), key=lambda item: -item[1])]
    lines += ["", "By shared object"] + [f"  {share:5.1f} %  {names[0]}" for share, names in objects if share >= 0.3]
    lines += ["", "By function (itself)"] + [f"  {share:5.1f} %  {names[0]:<36} {names[1]}" for share, names in symbols[:40]]
    if keep:
        lines += ["", f"call graphs: perf report -i {keep}"]
    return "\n".join(lines)


def _shares(perf: str, data: str, key: str) -> list[tuple[float, list[str]]]:
    """(per cent, names) by falling share."""
    done = subprocess.run([perf, "report", "-i", data, "--stdio", "--no-children", "-g", "none", "--sort", key, "-t", "\t", "--percent-limit", "0"],
                          capture_output=True, text=True)
    rows = []
    for line in done.stdout.splitlines():
        share, _, rest = line.strip().partition("\t")
        if rest and re.fullmatch(r"[\d.]+% *", share):
            rows.append((float(share.rstrip("% ")), [name.strip() for name in rest.split("\t")]))
    return rows


def _modules(client: str) -> list[Path]:
    from importlib.util import find_spec

    found = find_spec(client.partition("/")[0])
    if found is None or found.origin is None:
        return []
    origin = Path(found.origin)
    return [origin] if not found.submodule_search_locations else list(origin.parent.rglob("*.so"))
