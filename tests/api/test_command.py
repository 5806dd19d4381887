"""`python -m pooledhttp`."""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pooledhttp import __version__
from pooledhttp.__main__ import main

from .server import Server

ROOT = Path(__file__).resolve().parents[2]


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pooledhttp", *args], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def test_it_fetches_and_shows_what_the_pool_did(server: Server) -> None:
    urls = [f"{server.url}/bytes/{n}?q" for n in (1, 20000, 3)]
    done = run(*urls, "--timeout", "10")
    assert (done.returncode, done.stderr) == (0, "")
    rows, _, stats = done.stdout.partition("\n\n")
    found = [re.fullmatch(r"200 +([\d,]+) B +[\d.]+ ms +(new|reused) #\d+ +(\S+)", row) for row in rows.splitlines()]
    assert [m and m.groups() for m in found] == [("1", "new", urls[0]), ("20,000", "reused", urls[1]), ("3", "reused", urls[2])]
    assert server.url in stats
    assert "reuses" in stats


def test_many_workers(server: Server) -> None:
    done = run(*[f"{server.url}/number/{i}" for i in range(12)], "-c", "4")
    assert done.returncode == 0
    assert [row.rsplit("/", 1)[1] for row in done.stdout.splitlines()[:12]] == [str(i) for i in range(12)]


def test_failures_take_one_line_each(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([server.url + "/status/404", "http://u:secret@127.0.0.1:1/p?token=secret", server.url + "/number/1"]) == 1
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.split("\n\n")[0].splitlines()] == ["404", "200"]
    assert re.fullmatch(r"ConnectError: .+: http://127\.0\.0\.1:1/p\n", err)
    assert "secret" not in out + err


def test_a_deadline(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([server.url + "/held", "--timeout", "0.05"]) == 1
    assert capsys.readouterr().err.startswith("DeadlineExceeded: ")


@pytest.mark.parametrize("args", [[], ["ftp://h/"], ["example.com"], ["http://h/", "-c", "0"], ["http://h/", "-c", "x"],
                                  ["http://h/", "--timeout", "-1"], ["http://h/", "--timeout", "nan"], ["http://h/", "--no-such"]])
def test_bad_usage(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main(args)
    assert e.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main(["--version"])
    assert (e.value.code, capsys.readouterr().out) == (0, f"pooledhttp {__version__}\n")
