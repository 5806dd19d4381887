"""What the bench measures beside rates: that the counts are counts, that the servers do as they say, and what becomes of clients that cannot or fail."""
from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench import compare, probes
from bench.probe import origin
from bench.probes import PROBES, Options, idle
from bench.probes.base import AtMost, Best, Column, Hand, Outcome, Probe, Result, Round, Times
from bench.probes.calls import parse
from bench.scenarios import BY_NAME, LIMIT, OURS, Scenario, Task
from bench.servers import Servers
from bench.worker import percentiles
from tests.support.processes import ROOT

OPTIONS = Options(0.01, 100, 8)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Servers:
    return Servers(tmp_path_factory.mktemp("bench"))


def measured(name: str, servers: Servers, *clients: str) -> Result:
    result = probes.run(PROBES[name], clients, servers, OPTIONS, rounds=1)
    assert {client: o.error for client, o in result.outcomes.items()} == dict.fromkeys(clients)
    return result


@pytest.mark.slow
def test_calls_are_those_of_a_request(servers: Servers) -> None:
    """A request of http.client is a send and a receive, no more; ours has a probe besides."""
    result = measured("calls", servers, "http.client", OURS, LIMIT)
    assert result.median("http.client", "calls") == pytest.approx(2.0, abs=0.1)
    assert result.median(OURS, "calls") == pytest.approx(3.0, abs=0.1)
    assert result.outcomes[LIMIT].left_out and not result.outcomes[LIMIT].rounds


def test_straces_table_is_read() -> None:
    table = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           6       100        20 recvfrom
 40.00    0.000400           4       100           sendto
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           5       200        20 total
"""
    assert parse(table) == {"recvfrom": 100, "sendto": 100}


def test_idle_connections_are_there_and_cost_is_measured(servers: Servers) -> None:
    result = measured("idle", servers, OURS)
    outcome = result.outcomes[OURS]
    assert outcome.notes == []
    assert outcome.rounds[0].keys() == {"kib_100", "us_1", "us_100"}
    assert outcome.rounds[0]["us_100"] > 0


def test_connections_are_counted_where_they_are(servers: Servers) -> None:
    scenario = Scenario("idle", "", hosts=5)
    with servers.serving(scenario, None) as url, Hand("http.client", scenario, url) as hand:
        before = idle.sockets(hand.child.pid)
        assert hand.do("hold", hosts=5, seconds=10.0) == {"held": 5}
        assert idle.sockets(hand.child.pid) == before + 5


def test_a_client_that_does_not_keep_its_connections_is_named(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "sockets", lambda pid: 3)
    result = measured("idle", servers, OURS)
    assert result.outcomes[OURS].notes == ["keeps 3 connections of 100"]
    assert result.outcomes[OURS].rounds[0].keys() == {"us_1"}


def test_origins_are_addresses_of_this_machine() -> None:
    assert [origin("http://127.0.0.1:80/1k", i) for i in (0, 249, 250, 62500)] == [
        "http://127.0.0.1:80/1k", "http://127.0.0.250:80/1k", "http://127.0.1.1:80/1k", "http://127.1.0.1:80/1k"]


def test_a_body_takes_about_itself(servers: Servers) -> None:
    result = measured("peak", servers, OURS)
    peak = result.median(OURS, "mib_64m")
    assert peak is not None and 63 < peak < 80


def test_an_upload_arrives_and_who_cannot_is_left_out(servers: Servers) -> None:
    result = measured("upload", servers, OURS, "http.client")
    for client in (OURS, "http.client"):
        rate = result.median(client, "rate")
        assert rate is not None and rate > 1
    assert not (servers.directory / "upload").exists()


def test_what_a_peer_is_unable_to_do_is_no_failure(servers: Servers) -> None:
    """A peer whose `upload` is the one it inherits."""
    code = """import sys
from bench.peers import PEERS
from bench.peers.base import Peer
PEERS['http.client'].upload = Peer.upload
sys.argv[1] = 'http.client'
from bench.probe import main
main()
"""
    child = subprocess.run([sys.executable, "-c", code, "x", json.dumps(Task(Scenario("x", ""), "http://127.0.0.1:1/", None, 0.0).to_json())], cwd=ROOT,
                           input='{"do": "upload", "path": "README.md"}\n', capture_output=True, text=True, timeout=30)
    assert json.loads(child.stdout.splitlines()[1])["error"] == "Unable: http.client does not send a file but from memory"


@pytest.mark.parametrize("chunked", [False, True])
def test_the_sink_counts_bytes(servers: Servers, chunked: bool) -> None:
    with servers.sink() as url:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        for size in (0, 1, 300_000):                     # on one connection
            body = b"x" * size
            if chunked:
                connection.request("POST", "/", body=iter([body[:1000], body[1000:]]) if size > 1000 else iter([body] if body else []),
                                   headers={"Transfer-Encoding": "chunked"}, encode_chunked=True)
            else:
                connection.request("POST", "/", body=body, headers={"Expect": "100-continue"} if size == 1 else {})
            assert connection.getresponse().read() == str(size).encode()
        connection.close()


def test_the_slow_door_counts_and_delays(servers: Servers) -> None:
    scenario = Scenario("spike", "", tls=True)
    with servers.serving(scenario, None) as straight, servers.slow(straight, 100.0) as (url, taken):
        parts = urlsplit(url)
        assert taken() == 0
        context = ssl.create_default_context(cafile=str(servers.certificate.ca))
        with socket.create_connection(("127.0.0.1", parts.port or 0), 20) as bare:
            bare.settimeout(0.02)
            with pytest.raises(TimeoutError):
                context.wrap_socket(bare, server_hostname="127.0.0.1")          # nobody speaks yet
        connection = http.client.HTTPSConnection("127.0.0.1", parts.port, context=context, timeout=20)
        for _ in range(2):
            connection.request("GET", parts.path)
            assert len(connection.getresponse().read()) == 1024
        assert taken() == 2
        connection.close()


def test_a_spike_is_measured(servers: Servers) -> None:
    result = measured("spike", servers, OURS)
    first, last, connections = (result.median(OURS, key) for key in ("first_ms", "last_ms", "connections"))
    assert first is not None and last is not None and connections is not None
    assert 50.0 <= first <= last
    assert connections >= 1


def test_imports_are_measured_in_an_interpreter_of_their_own(servers: Servers) -> None:
    result = measured("import", servers, "http.client", OURS)
    assert all((figure := result.median(client, "import_ms")) is not None and figure > 0 for client in ("http.client", OURS))
    assert result.notes[0].startswith("`import socket, ssl` takes ")


def test_a_client_that_fails_is_named_and_the_others_go_on(servers: Servers) -> None:
    for name in ("import", "upload"):
        result = probes.run(PROBES[name], ["nobody", OURS], servers, OPTIONS, rounds=1)
        assert "there is no client 'nobody'" in (result.outcomes["nobody"].error or "")
        assert result.outcomes[OURS].error is None and result.outcomes[OURS].rounds


class Fake(Probe):
    name, title = "fake", "a fake"
    columns = (Column("ms", "ms"), Column("rate", "rate", lower=False))
    goals = (AtMost("ms", 10.0, "at most"), Times("ms", "rate", 2.0, "twice"), Best("ms", "fastest"), Best("rate", "most"))

    @contextlib.contextmanager
    def stage(self, servers: Servers, options: Options, notes: list[str]) -> Iterator[Round]:
        raise AssertionError("nobody measures it")
        yield


@pytest.mark.parametrize(("ms", "rate", "reached"), [(8.0, 5.0, [True, True, True, True]), (12.0, 2.0, [False, False, False, False])])
def test_goals_of_probes(ms: float, rate: float, reached: list[bool]) -> None:
    peers = {"peer": Outcome(rounds=[{"ms": 10.0, "rate": 4.0}]), "died": Outcome(rounds=[{"ms": 1.0, "rate": 100.0}], error="died"), "none": Outcome()}
    result = Result(Fake(), {OURS: Outcome(rounds=[{"ms": ms, "rate": rate}]), **peers})
    judgements = result.judge()
    assert [one.reached for one in judgements] == reached
    assert [one.goal for one in judgements[2:]] == ["fastest (peer)", "most (peer)"]
    assert {one.by for one in Result(Fake(), dict(peers)).judge()} == {None}


def test_percentiles_are_times_of_requests() -> None:
    of = percentiles([i / 1000 for i in range(1000, 0, -1)])
    assert {key: round(value) for key, value in of.items()} == {"50": 500, "75": 750, "90": 900, "95": 950, "99": 990, "99.9": 999, "100": 1000}
    assert set(percentiles([0.002]).values()) == {2.0}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="no go on PATH")
@pytest.mark.timeout(180)
def test_the_program_in_go_measures_all(servers: Servers, tmp_path: Path) -> None:
    for name in ("plain-1", "tls-16", "latency-16", "fresh-1"):
        outcome = compare.run(BY_NAME[name], ["go"], servers, rounds=1, seconds=0.02, warmup=0.01).outcomes["go"]
        assert outcome.error is None and outcome.samples[0].requests
    for probe in ("calls", "idle", "peak", "upload", "spike"):
        measured(probe, servers, "go")
