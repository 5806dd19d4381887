"""The bench itself: that it runs, that it says what it should of clients that fail, and that its servers and its sums are right."""
from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import compare, profiling, report
from bench.clients import Sample, Worker, Wrk
from bench.compare import Outcome, Table
from bench.processes import Failed
from bench.scenarios import BY_NAME, LIMIT, OURS, SCENARIOS, Faster, Scenario, Task, Within, body
from bench.servers import Servers
from tests.support.processes import ROOT

QUICK = [s.name for s in SCENARIOS if s.quick]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Servers:
    return Servers(tmp_path_factory.mktemp("bench"))


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bench", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=55)


def test_every_quick_scenario_runs_with_our_client(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    done = bench("--quick", "--clients", OURS, "--rounds", "2", "--seconds", "0.02", "--warmup", "0.01", "--json", out)
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads(out.read_text())
    assert [s["name"] for s in data["scenarios"]] == QUICK
    for scenario in data["scenarios"]:
        ours = scenario["clients"][OURS]
        assert ours["error"] is None and ours["version"]
        assert [s["requests"] > 0 for s in ours["samples"]] == [True, True]
        assert scenario["title"] in done.stdout
    assert "plain-1   pooledhttp >= 0.75 x wrk: no figures: not judged" in done.stdout
    busy = data["scenarios"][QUICK.index("busy")]
    assert min(busy["clients"][OURS]["figures"] + [busy["server_ms"]]) >= BY_NAME["busy"].delay_ms


def test_a_client_that_fails_says_why_and_the_others_go_on(servers: Servers) -> None:
    table = compare.run(BY_NAME["plain-1"], ["nobody", OURS], servers, rounds=1, seconds=0.02, warmup=0.01)
    outcomes = table.outcomes
    assert outcomes["nobody"].error == "LookupError: there is no client 'nobody'"
    assert outcomes[OURS].error is None and len(outcomes[OURS].samples) == 1
    assert "FAILED: LookupError: there is no client 'nobody'" in report.table(table)


def test_a_server_that_does_not_start_fails_all_and_the_exit_code_says_so(tmp_path: Path) -> None:
    """Without nginx, gcc and wrk in sight."""
    code = ("import sys, bench.processes, bench.__main__ as m\n"
            "bench.processes.os.environ['PATH'] = ''; bench.processes.shutil.which = lambda *a, **k: None\n"
            "sys.exit(m.main(['--quick', '--scenarios', 'busy,plain-1', '--clients', 'pooledhttp']))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=55)
    assert done.returncode == 1
    assert "FAILED plain-1: pooledhttp: no server: nginx is missing: apt-get install nginx-light" in done.stderr
    assert "FAILED busy: pooledhttp: no server: gcc is missing" in done.stderr


def test_a_wrong_body_is_a_failure(servers: Servers) -> None:
    """A body of the right length is no excuse."""
    other = servers.files / "other"
    other.write_bytes(body(1024)[::-1])
    with servers.serving(BY_NAME["plain-1"], None) as url:
        worker = Worker(OURS, Task(BY_NAME["plain-1"], url.replace("/1k", "/other"), None, 0.01), None)
        try:
            with pytest.raises(Failed, match="the body is not what the server has"):
                worker.ready()
        finally:
            worker.close()


def test_a_client_whose_process_dies_is_a_failure(servers: Servers) -> None:
    with servers.serving(BY_NAME["plain-1"], None) as url:
        worker = Worker(OURS, Task(BY_NAME["plain-1"], url, None, 0.01), None)
        try:
            worker.ready()
            worker.child.kill()
            worker.child.wait(10)
            with pytest.raises(Failed, match="its process is gone|ended"):
                worker.round(0.01)
        finally:
            worker.close()


def test_the_delay_server_is_never_early_and_keeps_connections(servers: Servers) -> None:
    scenario = BY_NAME["busy"]
    request, whole = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", body(scenario.size)
    with servers.serving(scenario, None) as url:
        port = int(url.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), 10) as sock, sock.makefile("rb") as answers:
            times = []
            for i in range(20):
                count = 2 if i == 19 else 1                   # two at once are answered one by one
                sock.sendall(request[:20])                    # a head in two pieces
                began = time.monotonic()
                sock.sendall(request[20:] + request * (count - 1))
                for _ in range(count):
                    assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
                    while (line := answers.readline()) != b"\r\n":
                        if line.startswith(b"Content-Length"):
                            assert int(line.split()[1]) == len(whole)
                    assert answers.read(len(whole)) == whole
                times.append((time.monotonic() - began) * 1000)
    assert min(times) >= scenario.delay_ms
    assert times[-1] >= 2 * scenario.delay_ms
    assert statistics.median(times) < scenario.delay_ms + 50


def rates(*figures: float) -> Outcome:
    return Outcome("1", [Sample(round(f), 1.0, 0.1) for f in figures])


def test_ratios_are_made_round_by_round_then_their_median() -> None:
    scenario = Scenario("x", "x", goals=(Faster("peer", 3.0), Faster("wrk", 1.0), Faster("absent", 1.0)))
    table = Table(scenario, {OURS: rates(100, 900, 300), "peer": rates(50, 300, 200), "wrk": Outcome("1", rates(1, 2, 3).samples, "died")})
    assert table.ratios("peer") == [2.0, 3.0, 1.5]
    slower, failed, absent = table.judge()
    assert not slower.reached and slower.by == pytest.approx(2.0 / 3.0 - 1)
    assert (failed.by, failed.reached, absent.by) == (None, False, None)
    text = report.goals([table])
    assert "pooledhttp >= 3.0 x peer: 2.00 x: MISSED by 33%" in text
    assert "not judged" in text
    assert report.summary([table]).splitlines()[1:] == ["           peer  wrk", "  x  2.00 +-38%    -"]


@pytest.mark.parametrize(("median", "verdict"), [(9.0, "reached by 0%"), (4.5, "reached by 50%"), (18.0, "MISSED by 100%")])
def test_a_time_is_judged_against_its_bound(median: float, verdict: str) -> None:
    scenario = Scenario("x", "x", delay_ms=2.0, timed=True, busy=True, goals=(Within(2.0),))
    ours, theirs = ([Sample(1, 1.0, 1.0, m) for m in figures] for figures in ((median, 1.0, 100.0), (9.0, 9.0, 9.0)))
    table = Table(scenario, {OURS: Outcome("1", ours), "peer": Outcome("1", theirs)}, 0.005)
    assert f"pooledhttp <= 9.0 ms a request (switch interval 5.0 + server 2.0 + 2.0): {median:.2f} ms: {verdict}" in report.goals([table])
    assert table.ratios("peer")[0] == 9.0 / median          # times as fast, not as slow


WRK = """Running 1s test @ http://127.0.0.1:1/1k
  10000 requests in 1.10s, {read} read
{wrong}Requests/sec:   9090.00
Transfer/sec:     10.00MB
"""


def test_a_goal_against_the_best_peer_takes_the_one_we_beat_least() -> None:
    """The limit is no peer, and neither is one that failed."""
    scenario = Scenario("x", "x", goals=(Faster(None, 1.2),))
    outcomes = {OURS: rates(100, 120), "slow": rates(10, 10), "good": rates(80, 100), LIMIT: rates(500, 500), "died": rates(900)}
    outcomes["died"].error = "died"
    (one,) = Table(scenario, outcomes).judge()
    assert one.goal == "pooledhttp >= 1.2 x the best peer (good)"
    assert one.by == pytest.approx((100 / 80 + 1.2) / 2 / 1.2 - 1)
    (alone,) = Table(scenario, {OURS: rates(1)}).judge()
    assert (alone.figure, alone.by) == ("no figures", None)


def test_what_wrk_says_of_times_is_read() -> None:
    wrk = Wrk(Task(BY_NAME["latency-16"], "http://127.0.0.1:1/1k", None, 0.0), None)
    times = "  Latency Distribution\n     50%  900.00us\n     75%    2.50ms\n     99%    1.20s\n"
    sample = wrk._sample(times + WRK.format(read="10.50MB", wrong=""), 0.5)
    assert sample.percentiles_ms == {"50": 0.9, "75": 2.5, "99": 1200.0}
    assert sample.median_ms == 0.9


def test_what_wrk_says_is_read() -> None:
    wrk = Wrk(Task(BY_NAME["plain-1"], "http://127.0.0.1:1/1k", None, 0.0), None)
    sample = wrk._sample(WRK.format(read="10.50MB", wrong=""), 0.5)
    assert (sample.requests, round(sample.rate), sample.cpu_us) == (10000, 9090, 50.0)
    with pytest.raises(Failed, match="too short"):
        wrk._sample(WRK.format(read="5.50MB", wrong=""), 0.5)
    with pytest.raises(Failed, match="Non-2xx or 3xx responses: 7"):
        wrk._sample(WRK.format(read="10.50MB", wrong="  Non-2xx or 3xx responses: 7\n"), 0.5)
    with pytest.raises(Failed, match="unable to connect"):
        wrk._sample("unable to connect to 127.0.0.1:1 Connection refused\n", 0.0)


@pytest.mark.parametrize(("dso", "part"), [
    ("[kernel.kallsyms]", "kernel"), ("[unknown]", "kernel"), ("python3.11", "interpreter"), ("libpython3.12.so.1.0", "interpreter"),
    ("libc.so.6", "libc"), ("ld-linux-x86-64.so.2", "libc"), ("[vdso]", "libc"), ("libssl.so.3", "ssl"), ("_ssl.cpython-311-x86_64-linux-gnu.so", "ssl"),
    ("trip.so", "client"), ("_json.so", "other")])
def test_a_profile_knows_the_parts(dso: str, part: str) -> None:
    assert profiling.part_of(dso, frozenset({"trip.so"})) == part
