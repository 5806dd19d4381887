"""Draws what was measured, from the bench's JSON: `draw(data, directory)`. Needs matplotlib."""
from __future__ import annotations

import statistics
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.scenarios import GO, H2_LIMIT, LIMIT, LIMITS, OURS, THREADS, point

Data = dict[str, Any]

# Our own stands out; the others can be told apart by mark too.
STYLES = {OURS: ("#d62728", "o"), LIMIT: ("#9a9a9a", ""), H2_LIMIT: ("#9a9a9a", ""), GO: ("#00a0c8", "s"),
          "pyreqwest": ("#2a9d5c", "^"), "pycurl": ("#1f5fa8", "v"),
          "httpr": ("#8ac926", "<"), "primp": ("#c08a00", ">"), "urllib3": ("#7b3fb0", "D"), "http.client": ("#4a4a4a", "P"),
          "requests": ("#e377c2", "X"), "httpx": ("#8c564b", "p"), "niquests": ("#e8743b", "h")}
OTHER = ("#000000", ".")
FOOT = "same nginx, same machine, one run; medians of rounds in turn"


def draw(data: Data, directory: Path) -> list[str]:
    """Writes a NAME.svg and a NAME.png for each picture that the data has figures for. Returns what it did, a line each."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("Agg")
    plots: Any = import_module("matplotlib.pyplot")
    plots.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
                           "axes.grid": True, "grid.alpha": 0.25, "figure.facecolor": "white", "axes.axisbelow": True})
    directory.mkdir(parents=True, exist_ok=True)
    said = []
    for name, picture in PICTURES.items():
        figure, axes = plots.subplots(figsize=(8.2, 4.8), layout="constrained")
        if picture(axes, data):
            machine = data["machine"]
            figure.supxlabel(f"{machine['python']}, {machine['cores']} cores, {machine['cpu']}; {FOOT}", fontsize=7, color="#777777")
            for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 110, "metadata": {"Software": None}})):
                path = directory / f"{name}.{kind}"
                figure.savefig(path, **options)
                said.append(f"drew {path}: {path.stat().st_size // 1024} KiB")
        else:
            said.append(f"no figures for {name}")
        plots.close(figure)
    return said


def _scenario(data: Data, name: str) -> Data | None:
    return next((s for s in data["scenarios"] if s["name"] == name), None)


def _probe(data: Data, name: str) -> Data | None:
    return next((p for p in data["probes"] if p["name"] == name), None)


def _figure(scenario: Data | None, client: str) -> float | None:
    one = scenario["clients"].get(client) if scenario else None
    return statistics.median(one["figures"]) if one and one["figures"] and not one["error"] else None


def _line(axes: Any, client: str, x: list[float], y: list[float]) -> None:
    ours = client == OURS
    axes.plot(x, y, label=client, color=STYLES.get(client, OTHER)[0], marker=STYLES.get(client, OTHER)[1], markersize=6 if ours else 4,
              linewidth=3 if ours else 1.4, linestyle="--" if client in LIMITS else "-", zorder=3 if ours else 2)


def _legend(axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    last = {label: handle.get_ydata()[-1] for handle, label in zip(handles, labels, strict=True)}
    order = sorted(range(len(labels)), key=lambda i: -last[labels[i]])          # as the lines end, from the top
    axes.legend([handles[i] for i in order], [labels[i] for i in order], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _by_x(axes: Any, points: dict[str, list[tuple[float, float]]]) -> bool:
    for client, line in points.items():
        if line:
            _line(axes, client, [x for x, _ in line], [y for _, y in line])
    if not any(points.values()):
        return False
    _legend(axes)
    return True


def throughput(axes: Any, data: Data) -> bool:
    points: dict[str, list[tuple[float, float]]] = {}
    for threads in THREADS:
        scenario = _scenario(data, point(threads))
        for client in scenario["clients"] if scenario else []:
            if (rate := _figure(scenario, client)) is not None:
                points.setdefault(client, []).append((threads, rate / 1000))
    axes.set_xscale("log", base=2)
    axes.set_xticks(THREADS, [str(n) for n in THREADS])
    axes.set(xlabel="threads that share the client", ylabel="thousand requests a second", title="1 KiB GET by threads (more is better)")
    drawn = _by_x(axes, points)
    axes.set_ylim(bottom=0)
    return drawn


def http2(axes: Any, data: Data) -> bool:
    points: dict[str, list[tuple[float, float]]] = {}
    for threads in (1, 16, 64):
        scenario = _scenario(data, f"h2-{threads}")
        for client in scenario["clients"] if scenario else []:
            if (rate := _figure(scenario, client)) is not None:
                points.setdefault(client, []).append((threads, rate / 1000))
    axes.set_xscale("log", base=2)
    axes.set_xticks((1, 16, 64), ["1", "16", "64"])
    axes.set(xlabel="threads that share the client", ylabel="thousand requests a second", title="HTTP/2: 1 KiB GET by threads (more is better)")
    drawn = _by_x(axes, points)
    axes.set_ylim(bottom=0)
    return drawn


def latency(axes: Any, data: Data) -> bool:
    scenario = _scenario(data, "latency-16")
    points: dict[str, list[tuple[float, float]]] = {}
    for client, one in (scenario["clients"] if scenario else {}).items():
        rounds = [s["percentiles_ms"] for s in one["samples"] if s["percentiles_ms"]]
        for key in (rounds[0] if rounds and not one["error"] else {}):
            if key != "100":
                points.setdefault(client, []).append((1 / (1 - float(key) / 100), statistics.median(r[key] for r in rounds if key in r)))
    ticks = {"50 %": 2, "75": 4, "90": 10, "95": 20, "99": 100, "99.9 %": 1000}
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(list(ticks.values()), list(ticks))
    axes.minorticks_off()
    axes.set_yticks([2, 3, 5, 10, 20, 50, 100], ["2", "3", "5", "10", "20", "50", "100"])
    axes.set(xlabel="of the requests take no longer", ylabel="ms (logarithmic)", title="Times of a GET, 16 threads, server answers after 2 ms (less is better)")
    return _by_x(axes, points)


def _bars(axes: Any, figures: dict[str, float], digits: int, unit: str) -> bool:
    if not figures:
        return False
    ordered = sorted(figures, key=lambda name: -figures[name])
    bars = axes.barh(ordered, [figures[n] for n in ordered], color=[STYLES[OURS][0] if n == OURS else "#b9c3cf" for n in ordered])
    axes.bar_label(bars, labels=[f" {figures[n]:,.{digits}f} {unit}" for n in ordered])
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.14)
    return True


def busy(axes: Any, data: Data) -> bool:
    scenario = _scenario(data, "busy")
    figures = {c: ms for c in scenario["clients"] if (ms := _figure(scenario, c)) is not None} if scenario else {}
    if scenario and figures:
        floor = scenario["switch_interval_ms"] + scenario["delay_ms"]
        axes.axvline(floor, color="#555555", linestyle=":", linewidth=1.2)
        axes.text(floor, -0.9, f" server {scenario['delay_ms']:.0f} + one switch interval {scenario['switch_interval_ms']:.0f} ms", fontsize=8, color="#555555")
        axes.set_ylim(-1.3, len(figures) - 0.4)
    axes.set(xlabel="ms a GET, median (less is better)", title="One thread makes requests, one computes in Python")
    return _bars(axes, figures, 1, "ms")


def _by_size(data: Data, prefix: str) -> dict[str, list[tuple[float, float]]]:
    probe = _probe(data, "idle")
    points: dict[str, list[tuple[float, float]]] = {}
    for client, one in (probe["clients"] if probe else {}).items():
        for key, spread in one["spread"].items():
            if key.startswith(prefix) and not one["error"]:
                points.setdefault(client, []).append((int(key.removeprefix(prefix)), spread["median"]))
    return points


def memory(axes: Any, data: Data) -> bool:
    points = {client: [(x, kib / 1024) for x, kib in line if kib > 0] for client, line in _by_size(data, "kib_").items()}
    _sizes(axes, (100, 1000, 10000))
    axes.set_yscale("log")
    axes.set_yticks(ticks := [0.1, 1, 10, 100, 1000], [f"{n:,}" for n in ticks])
    axes.minorticks_off()
    axes.set(xlabel="idle connections, each to another host", ylabel="MiB resident (logarithmic)", title="Memory by idle connections (less is better)")
    return _by_x(axes, points)


def _sizes(axes: Any, sizes: tuple[int, ...]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{n:,}" for n in sizes])


def pool(axes: Any, data: Data) -> bool:
    _sizes(axes, (1, 100, 1000, 10000))
    axes.set_yscale("log")
    axes.set_yticks(ticks := [30, 50, 100, 200, 500, 1000, 2000, 5000, 10000], [f"{n:,}" for n in ticks])
    axes.minorticks_off()
    axes.set(xlabel="idle connections, each to another host", ylabel="us a 1 KiB GET (logarithmic)",
             title="Cost of a request by size of the pool (flat is better)")
    return _by_x(axes, _by_size(data, "us_"))


def overview(axes: Any, data: Data) -> bool:
    """How many times as fast we are as each, over the main scenarios."""
    chosen = [s for s in data["scenarios"] if s["name"] in ("plain-1", "plain-16", "tls-1", "tls-16", "64k-1", "1m-1", "busy", "h2-1", "h2-16",
                                                             "h2-1m-1")]
    clients = [c for c in STYLES if c not in (OURS, *LIMITS) and any(s["clients"].get(c, {}).get("ours_over_it") for s in chosen)]
    if not clients:
        return False
    height = 0.8 / len(clients)
    for i, client in enumerate(clients):
        bars = [(j, statistics.median(ratios)) for j, s in enumerate(chosen) if (ratios := s["clients"].get(client, {}).get("ours_over_it"))]
        axes.barh([j + (i - (len(clients) - 1) / 2) * height for j, _ in bars], [ratio - 1 for _, ratio in bars], left=1, height=height,
                  color=STYLES[client][0], label=client)
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5 x", "1 x", "2 x", "5 x", "10 x", "20 x", "50 x"])
    axes.minorticks_off()
    axes.set_yticks(range(len(chosen)), [s["name"] for s in chosen])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.set(xlabel=f"{OURS} is so many times as fast (logarithmic)", title=f"{OURS} beside the others")
    return True


PICTURES: dict[str, Callable[[Any, Data], bool]] = {"throughput": throughput, "http2": http2, "latency": latency, "busy": busy, "memory": memory, "pool": pool,
                                                    "overview": overview}
