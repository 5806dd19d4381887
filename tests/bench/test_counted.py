"""The counted gates: that counts repeat, that what is over its budget fails and says why, and that a build which nobody knows does not pass unlooked at."""
from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from bench.counted import callgrind, figures
from bench.counted.__main__ import FILE, main
from bench.counted.budgets import STRANGE, Budgets, Verdict, grown
from bench.counted.figures import ANCHORS, FIGURES, Measured, build

HERE = {"python": "3.11.7 (main) [GCC 12.2.0]", "compiler": "gcc 12", "machine": "x86_64 avx2"}
WINDOW = """\
desc: Trigger: Client Request: plain_get
thread: 1
ob=(1) /usr/lib/libpython3.11.so.1.0
fl=(1) ceval.c
fn=(1) _PyEval_EvalFrameDefault
10 100
+1 20
cob=(2) /somewhere/head.cpython-311-x86_64-linux-gnu.so
cfi=(2) head.c
cfn=(2) __pyx_f_10pooledhttp_6_proto_4head_parse_head
calls=3 5
* 5000
fn=(3) PyObject_Free'2
* 7

ob=(2)
fl=(2)
fn=(2)
5 5000
fn=(1)
8 1
"""


def at(path: Path, *builds: tuple[dict[str, str], dict[str, float]], functions: dict[str, dict[str, int]] | None = None) -> Budgets:
    path.write_text(json.dumps({"builds": [{"build": b, "values": v, "functions": functions or {}} for b, v in builds]}))
    return Budgets(path)


def only(verdicts: list[Verdict]) -> Verdict:
    assert len(verdicts) == 1
    return verdicts[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "budgets.json"


def test_three_percent_are_allowed_and_no_more(path: Path) -> None:
    budgets = at(path, (HERE, {"plain_get": 10000}))
    assert not only(budgets.judge(HERE, Measured({"plain_get": 10299}))).over
    verdict = only(budgets.judge(HERE, Measured({"plain_get": 10301})))
    assert verdict.over
    assert "10,301 instructions, budget 10,000 (+3.0%" in verdict.complaint()


def test_the_complaint_names_the_functions_that_grew(path: Path) -> None:
    budgets = at(path, (HERE, {"plain_get": 10000}), functions={"plain_get": {"head parse_head": 4000, "libc memcpy": 6000}})
    now = Counter({"head parse_head": 5500, "libc memcpy": 6000, "libc malloc": 500})
    verdict = only(budgets.judge(HERE, Measured({"plain_get": 12000}, {"plain_get": now})))
    lines = verdict.complaint().splitlines()
    assert lines[0].startswith("OVER BUDGET  a plain GET")
    assert [line.split() for line in lines[1:]] == [["+1,500", "head", "parse_head", "(4,000", "->", "5,500)"], ["+480", "libc", "malloc", "(20", "->", "500)"]]


def test_what_shrank_did_not_grow() -> None:
    assert grown({"a": 10, "b": 20}, Counter({"a": 10, "b": 15})) == ()


def test_a_goal_holds_whatever_the_file_says(path: Path) -> None:
    budgets = at(path, (HERE, {"plain_calls": 4.0, "idle_connection": 1010.0}))
    calls, idle = budgets.judge(HERE, Measured({"plain_calls": 4.0, "idle_connection": 1030.0}))
    assert calls.over and idle.over
    assert "never more than 1,024" in idle.complaint()


def test_a_strange_build_is_judged_by_ratio(path: Path) -> None:
    budgets = at(path, (HERE, {"plain_get": 10000, "plain_http_client": 400000}))
    strange = {**HERE, "compiler": "gcc 15"}
    twice = Measured({"plain_get": 20000, "plain_http_client": 800000})
    verdict = only(budgets.judge(strange, twice))
    assert not verdict.over and verdict.budget == 20000 and verdict.slack == STRANGE
    assert "as 0.025 x http.client's plain GET" in verdict.line()
    twice.values["plain_get"] = 20000 * (1 + STRANGE) + 1
    assert only(budgets.judge(strange, twice)).over
    assert budgets.of(strange) is None


def test_a_strange_build_is_held_against_one_like_it(path: Path) -> None:
    other = {**HERE, "python": "3.13.1 (main) [GCC 12.2.0]"}
    budgets = at(path, (other, {"plain_get": 9000, "plain_http_client": 100000}), (HERE, {"plain_get": 10000, "plain_http_client": 400000}))
    counted = Measured({"plain_get": 20000, "plain_http_client": 400000})
    assert only(budgets.judge({**HERE, "python": "3.11.9 (main) [GCC 14]"}, counted)).over
    assert not only(budgets.judge({**HERE, "python": "3.13.9 (main) [GCC 14]"}, counted)).over


@pytest.mark.parametrize(("values", "why"), [({}, "no build with this figure"), ({"plain_get": 1, "plain_http_client": 1}, "was not counted")])
def test_nothing_to_compare_with_is_a_failure(path: Path, values: dict[str, float], why: str) -> None:
    verdict = only(at(path, (HERE, values)).judge({}, Measured({"plain_get": 1.0})))
    assert verdict.over and why in verdict.complaint()


def test_of_two_counts_the_lower_one_holds() -> None:
    low = Measured({"a": 2.0, "b": 1.0}, {"a": Counter(x=2)}).lower(Measured({"a": 1.0, "b": 3.0, "c": 5.0}, {"a": Counter(x=1), "c": Counter(x=5)}))
    assert low == Measured({"a": 1.0, "b": 1.0, "c": 5.0}, {"a": Counter(x=1), "c": Counter(x=5)})


def test_a_file_that_is_not_there_has_no_budgets(path: Path) -> None:
    assert only(Budgets(path).judge(HERE, Measured({"plain_get": 1.0}))).over


def test_an_update_keeps_what_was_not_counted(path: Path) -> None:
    other = {**HERE, "compiler": "gcc 15"}
    budgets = at(path, (other, {"plain_get": 1}), (HERE, {"plain_get": 10000, "client": 5}))
    budgets.update(HERE, Measured({"plain_get": 9000.4}, {"plain_get": Counter({"libc malloc": 8990, "libc free": 10})}))
    kept = Budgets(path)
    assert [(known.build, known.values) for known in kept.builds] == [(other, {"plain_get": 1}), (HERE, {"plain_get": 9000, "client": 5})]
    assert kept.builds[1].functions == {"plain_get": {"libc malloc": 8990}}
    kept.update({"python": "4"}, Measured({"plain_get": 1.0}))
    assert len(Budgets(path).builds) == 3


def test_callgrinds_file_is_read() -> None:
    name, thread, functions = callgrind.parse(WINDOW)
    assert (name, thread) == ("plain_get", 1)
    assert functions == {"libpython3 _PyEval_EvalFrameDefault": 120, "head pooledhttp._proto.head.parse_head": 5000, "libpython3 PyObject_Free": 7,
                         "head _PyEval_EvalFrameDefault": 1}


@pytest.mark.parametrize(("mangled", "name"), [
    ("__pyx_pw_10pooledhttp_5_trip_4trip_7Tripper_3exchange", "pooledhttp._trip.trip.Tripper.exchange"),
    ("__pyx_f_10pooledhttp_4_net_3tcp_sock_try_recv", "pooledhttp._net.tcp.sock_try_recv"),
    ("__pyx_tp_dealloc_10pooledhttp_5_trip_5reply_Reply", "pooledhttp._trip.reply.Reply (dealloc)"),
    ("PyDict_New'2", "PyDict_New"),
])
def test_names_are_readable(mangled: str, name: str) -> None:
    assert callgrind.readable(mangled) == name


@pytest.mark.slow
def test_a_count_repeats_and_sees_what_is_added() -> None:
    """The same program twice: within 0.5 %. With a tenth more work it is a tenth more."""
    program = ("import marks\ndef work(n):\n for i in range(n): sorted({i: str(i) for i in range(20)})\n"
               "work(50)\nfor n in %d, %d:\n marks.begin()\n work(n)\n marks.end('work')\n")
    first, more = callgrind.count("-c", program % (500, 550))["work"]
    again, _ = callgrind.count("-c", program % (500, 550))["work"]
    assert again.total == pytest.approx(first.total, rel=0.005)
    assert more.total == pytest.approx(1.1 * first.total, rel=0.01)
    assert [name for name, _, _ in grown(first.functions, more.functions)][0].startswith("libpython" if "libpython" in str(first.functions) else "python")


@pytest.mark.slow
def test_the_command_fails_over_budget_and_says_what_it_is(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at(path, (build(), {"plain_releases": 0.5, "tls_releases": 1.0}))
    assert main(["--only", "releases", "--budgets", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "OVER BUDGET  releases of the GIL by a plain GET: 1.00 releases, budget 0.50 (+100.0%" in printed
    assert "ok  releases of the GIL by a TLS GET: 1.00 releases" in printed
    assert main(["--only", "releases", "--budgets", str(path), "--update"]) == 0
    assert main(["--only", "releases", "--budgets", str(path)]) == 0


def test_the_budget_has_every_figure() -> None:
    names = {figure.name for figure in (*FIGURES, *ANCHORS)}
    assert {figure.anchor for figure in FIGURES} - {None} <= names
    for known in Budgets(FILE).builds:
        assert known.values.keys() == names
        assert known.functions.keys() == {figure.name for figure in FIGURES if figure.unit == "instructions"}
        assert [f.name for f in FIGURES if f.most is not None and known.values[f.name] > f.most] == []
    assert Budgets(FILE).builds
    assert {figure.group for figure in (*FIGURES, *ANCHORS)} == set(figures.GROUPS)
