"""The page about performance and the pictures are made from the bench's JSON."""
from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import xml.etree.ElementTree as Tree
from pathlib import Path
from typing import Any

import pytest

from bench import document, pictures, report
from bench.clients import Sample
from bench.compare import Outcome, Table
from bench.probes import PROBES, Result
from bench.probes.base import Outcome as Probed
from bench.scenarios import BY_NAME, LIMIT, OURS, THREADS, point
from tests.support.processes import ROOT

MACHINE = {"python": "CPython 3.11", "kernel": "6", "cpu": "a processor", "cores": 2, "load": 0.1, "switch_interval_ms": 5.0}


@pytest.fixture
def data() -> dict[str, Any]:
    """Of every kind of table. The peer is twice as fast at `tls-1` and takes less memory; another failed."""
    def outcome(rate: float, ms: float) -> Outcome:
        times = {"50": ms, "99": 2 * ms, "99.9": 3 * ms, "100": 4 * ms}
        return Outcome("1", [Sample(round(rate), 1.0, 0.1, ms, times), Sample(round(rate), 1.0, 0.1, ms, times)])

    names = ["plain-1", "tls-1", "busy", "latency-16", "h2-1", "h2-16", *(point(n) for n in THREADS)]
    tables = [Table(BY_NAME[n], {OURS: outcome(1000, 7), LIMIT: outcome(2000, 3), "urllib3": outcome(2000 if n == "tls-1" else 100, 9),
                                 "pycurl": Outcome("1", [], "it died")}, 0.005, 0.5 if n == "tls-1" else 0.0) for n in names]
    idle = Result(PROBES["idle"], {OURS: Probed("1", [{"kib_100": 100, "kib_1000": 1000, "bytes_each": 900, "us_1": 50, "us_100": 50, "us_1000": 51}]),
                                   "urllib3": Probed("2", [{"kib_100": 50, "us_1": 90, "us_100": 90}], notes=["keeps 100 connections of 1,000"]),
                                   "httpx": Probed(error="it failed")})
    upload = Result(PROBES["upload"], {OURS: Probed("1", [{"rate": 1000, "peak": 10}]), "httpr": Probed(left_out="from memory only")}, ["a note"])
    made: dict[str, Any] = json.loads(json.dumps(report.as_data(MACHINE, tables, [idle, upload], 2, 1.0)))
    return made


def test_the_marked_place_is_written_anew_and_nothing_else(tmp_path: Path, data: dict[str, Any]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{document.BEGIN}\nold figures\n{document.END}\nafter\n")
    document.rewrite(page, data)
    once = page.read_text()
    assert once.startswith("before\n") and once.endswith("\nafter\n") and "old figures" not in once
    document.rewrite(page, data)
    assert page.read_text() == once
    assert "| `tls-1` | 1,000 | 2,000 (0.50 x ±0%) | 2,000 (0.50 x ±0%) | failed |" in once
    assert "| `busy` | 7.00 | 3.00 (0.43 x ±0%) | 9.00 (1.29 x ±0%) | failed |" in once
    assert "| urllib3 | 50 | – | – | – | 90.0 | 90.0 | – | – |" in once
    assert "- urllib3: keeps 100 connections of 1,000" in once
    assert "Not there: httpr (from memory only)." in once
    assert "**missed** by" in once and "reached by" in once


def test_what_is_bad_is_said(data: dict[str, Any]) -> None:
    text = document.figures(data)
    worse = text.split("### Where another is faster")[1].split("###")[0]
    assert "- `tls-1`: urllib3, 2.00 x as fast" in worse
    assert "- `idle`, KiB at 100: pooledhttp 100; urllib3 50" in worse
    assert "plain-1" not in worse and "wrk" not in worse
    assert "- `idle`, httpx: it failed" in text and "- `plain-1`, pycurl: it died" in text
    assert "**The machine was not quiet** during `tls-1` (50%)" in text


@pytest.mark.parametrize("text", ["none", document.BEGIN, f"{document.END} {document.BEGIN}", f"{document.BEGIN} {document.BEGIN} {document.END}"])
def test_a_page_without_its_marks_is_left_alone(tmp_path: Path, data: dict[str, Any], text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="lacks the marks"):
        document.rewrite(page, data)
    assert page.read_text() == text


def test_the_page_has_its_marks() -> None:
    text = document.PAGE.read_text()
    assert text.count(document.BEGIN) == text.count(document.END) == 1


def test_every_scenario_is_explained() -> None:
    text = document.PAGE.read_text().split(document.END)[1]
    names = [n for n in BY_NAME if not n.startswith("threads-")] + ["threads-", *PROBES]
    assert [n for n in names if f"`{n}" not in text] == []


def draw(data: dict[str, Any], directory: Path) -> list[str]:
    """In a process of its own: matplotlib keeps fonts open, and threads."""
    figures = directory.with_suffix(".json")
    figures.write_text(json.dumps(data))
    done = subprocess.run([sys.executable, "-m", "bench", "--from", figures, "--pictures", directory], cwd=ROOT, capture_output=True, text=True, timeout=55)
    if importlib.util.find_spec("matplotlib") is None:          # it comes with `make bench`, not with the tests
        assert "No module named 'matplotlib'" in done.stderr
        pytest.skip("no matplotlib")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_pictures_are_drawn_small_and_the_same_twice(tmp_path: Path, data: dict[str, Any]) -> None:
    said = draw(data, tmp_path / "one")
    assert len(said) == 2 * len(pictures.PICTURES), said
    draw(data, tmp_path / "two")
    for name in pictures.PICTURES:
        svg, png = tmp_path / f"one/{name}.svg", tmp_path / f"one/{name}.png"
        assert Tree.parse(svg).getroot().tag.endswith("svg")
        assert svg.stat().st_size < 100 << 10 and png.read_bytes()[:4] == b"\x89PNG" and png.stat().st_size < 150 << 10
        assert svg.read_bytes() == (tmp_path / f"two/{name}.svg").read_bytes()
    text = (tmp_path / "one/throughput.svg").read_text()
    assert OURS in text and "urllib3" in text and "pycurl" not in text


def test_what_has_no_figures_is_not_drawn(tmp_path: Path, data: dict[str, Any]) -> None:
    assert draw({**data, "scenarios": [], "probes": []}, tmp_path / "empty") == [f"no figures for {name}" for name in pictures.PICTURES]
    assert list((tmp_path / "empty").iterdir()) == []


def test_the_command_writes_what_it_measured(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "figures.json"
    done = subprocess.run([sys.executable, "-m", "bench", "--rounds", "1", "--seconds", "0.02", "--warmup", "0.01", "--clients", f"{OURS},http.client",
                           "--scenarios", "fresh-1,upload", "--upload", "2", "--json", out], cwd=ROOT, capture_output=True, text=True, timeout=55)
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads(out.read_text())
    assert [s["name"] for s in written["scenarios"] + written["probes"]] == ["fresh-1", "upload"]
    assert written["versions"].keys() == {OURS, "http.client"}
    assert "about 0 minutes" in done.stdout
    assert "| http.client |" in document.figures(written)


def test_the_whole_run_is_less_than_25_minutes() -> None:
    from bench.__main__ import CLIENTS, arguments, minutes

    opts = arguments(["--clients", ",".join(CLIENTS)])
    assert len(CLIENTS) == 13 and 5 < minutes(opts) < 25
    assert minutes(arguments(["--quick"])) < 2.5
