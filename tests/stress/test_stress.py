"""A short form of `make stress`, and what its ledger would not let pass."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stress.ledger import LEFT, OK, Ledger
from tests.stress.server import NOBODY, Record
from tests.support.processes import ROOT


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_few_seconds_of_it() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.stress", "--threads", "24", "--requests", "150", "--limit", "4"], cwd=ROOT, capture_output=True,
                          text=True, timeout=110)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    report = json.loads(done.stdout)
    assert report["wrong"] == []
    assert report["outcomes"]["ok"] > 2500
    assert report["pool"]["waits"] > 0 and report["events"]["looks"] > 5
    assert {"rst_body", "close_before", "early_error", "quiet_close"} <= set(report["faults_injected"])


def record(number: int, kind: str, *, host: int = 1, port: int = 999, attempt: int = 0) -> Record:
    return Record(number, 1, port, 1, host, kind, "GET", attempt)


def ledger(outcome: int | str, *, replayable: bool = True, port: int = 999) -> Ledger:
    """Of one request, 0, to host 1."""
    made = Ledger(2)
    made.adopt([(0, 1, replayable, outcome, port)])
    return made


@pytest.mark.parametrize(("made", "records"), [
    (ledger(OK), [record(0, "chunked")]),
    (ledger(OK), [record(0, "rst_before"), record(0, "plain", attempt=1)]),
    (ledger(LEFT), [record(0, "close_body")]),
    (ledger("RemoteProtocolError"), [record(0, "close_head")]),
    (ledger("ReadError"), [record(NOBODY, "slam")]),
    (ledger("StaleConnectionError", replayable=False), [record(1, "quiet_close")]),
    (ledger("TLSError", port=0), [record(NOBODY, "slam")]),
])
def test_what_is_explained(made: Ledger, records: list[Record]) -> None:
    made.issue(1, 1, True)
    made.audit(records, [False, True])
    assert made.wrong == []


@pytest.mark.parametrize(("made", "records", "says"), [
    (ledger(OK), [record(0, "close_body")], "never given"),
    (ledger(LEFT), [record(0, "close_before")], "never given"),
    (ledger(OK), [record(0, "plain", host=0)], "another host"),
    (ledger(OK), [record(0, "plain"), record(0, "plain", attempt=1)], "without need"),
    (ledger(OK, replayable=False), [record(0, "rst_before"), record(0, "plain", attempt=1)], "must not be"),
    (ledger("ReadError"), [record(0, "plain")], "unexplained ReadError"),
    (ledger("ReadError"), [], "unexplained ReadError"),
    (ledger("ReadError"), [record(0, "rst_body", port=1000)], "unexplained ReadError"),
    (ledger("StaleConnectionError"), [record(0, "rst_before")], "may be sent again"),
    (ledger("DeadlineExceeded"), [record(0, "delay")], "unexplained DeadlineExceeded"),
    (ledger("TLSError", port=0), [], "unexplained TLSError"),
    (ledger(OK), [record(0, "plain"), record(1, "plain")], "nobody made"),
    (ledger(OK), [record(0, "violation")], "no request"),
])
def test_what_is_not(made: Ledger, records: list[Record], says: str) -> None:
    made.audit(records, [False, True])
    assert len(made.wrong) == 1 and says in made.wrong[0], made.wrong


def test_a_client_that_mixes_up_answers_is_found(tmp_path: Path) -> None:
    """The whole program, on a client whose answers are sometimes another request's."""
    program = tmp_path / "mixed.py"
    program.write_text("""
import pooledhttp, sys
real, last = pooledhttp.Client.get, []
def get(self, url, **options):
    r = real(self, url, **options)
    last.append(r)
    return last.pop(0) if len(last) > 40 else r
pooledhttp.Client.get = get
from tests.stress.__main__ import main
sys.argv[1:] = "--threads 2 --requests 100 --no-forks --no-signals --tls 0".split()
sys.exit(main())
""")
    done = subprocess.run([sys.executable, program], cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True,
                          text=True, timeout=50)
    assert done.returncode == 1, done.stderr
    assert "another request's answer" in json.loads(done.stdout)["complaints"]
