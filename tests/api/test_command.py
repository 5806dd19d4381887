"""`python -m pooledhttp`: what it prints, sends and returns. Within this process, but for what only a process has."""
from __future__ import annotations

import base64
import gzip
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pooledhttp import __version__
from pooledhttp.cli.command import main, script
from tests.support.peer import Peer, answering, header, respond

from .server import Server

ROOT = Path(__file__).resolve().parents[2]
Capture = pytest.CaptureFixture[str]


def run(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pooledhttp", *args],
                          **{"cwd": ROOT, "capture_output": True, "text": True, "timeout": 30, "check": False, **options})


def objects(capsys: Capture) -> list[dict[str, Any]]:
    out, err = capsys.readouterr()
    assert err == ""
    return [json.loads(line) for line in out.splitlines()]


def test_it_fetches_and_shows_what_the_pool_did(server: Server) -> None:
    urls = [f"{server.url}/bytes/{n}?q" for n in (1, 20000, 3)]
    done = run(*urls, "--timeout", "10")
    assert (done.returncode, done.stderr) == (0, "")
    rows, _, stats = done.stdout.partition("\n\n")
    found = [re.fullmatch(r"200 +([\d,]+) B +[\d.]+ ms +(new|reused) #\d+ +(\S+)", row) for row in rows.splitlines()]
    assert [m and m.groups() for m in found] == [("1", "new", urls[0]), ("20,000", "reused", urls[1]), ("3", "reused", urls[2])]
    assert server.url in stats
    assert "reuses" in stats


def test_many_workers(server: Server, capsys: Capture) -> None:
    assert main([*[f"{server.url}/number/{i}" for i in range(12)], "-c", "4"]) == 0
    assert [row.rsplit("/", 1)[1] for row in capsys.readouterr().out.splitlines()[:12]] == [str(i) for i in range(12)]


def test_bodies_are_as_on_the_wire(peer: Any, tmp_path: Path, capsys: Capture) -> None:
    raw = gzip.compress(b"hello " * 100)
    server = peer(answering(respond(raw, headers={"Content-Encoding": "gzip"})))
    assert main([server.url("/a.gz"), "-o", str(tmp_path), "--json", "-H", "Accept-Encoding: gzip"]) == 0
    assert main([server.url("/b.gz"), "-o", str(tmp_path), "--json"]) == 0
    assert [one["bytes"] for one in objects(capsys)] == [len(raw)] * 2
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes() == raw
    assert [header(bytes(conn.received), "Accept-Encoding") for conn in server.conns] == ["gzip", None]


def test_quiet_says_only_what_went_wrong(server: Server, capsys: Capture) -> None:
    assert main([server.url + "/number/1", server.url + "/status/500", "http://127.0.0.1:1/", "-q"]) == 4
    out, err = capsys.readouterr()
    assert (out.split()[0], out.count("\n"), err.split()[0], err.count("\n")) == ("500", 1, "ConnectError:", 1)


# --- one JSON object a line ---------------------------------------------------------------------------------------------------------


def test_json_lines(server: Server, capsys: Capture) -> None:
    url = server.url + "/bytes/70000?a=b"
    assert main([url.replace("//", "//u:secret@"), url, server.url + "/status/404", "http://127.0.0.1:1/x", "nonsense", "--json"]) == 4
    first, again, missing, refused, nonsense = objects(capsys)
    assert (first["url"], first["status"], first["bytes"], first["reused"], first["error"], first["file"]) == (url, 200, 70000, False, None, None)
    assert (again["reused"], again["conn"]) == (True, first["conn"])
    assert first["headers"]["content-length"] == ["70000"]
    assert set(first["timings"]) == {"pool", "dns", "connect", "tls", "send", "wait", "body"}
    assert 0 < sum(first["timings"].values()) <= first["seconds"] < 30
    assert (missing["status"], missing["error"]) == (404, None)
    assert (refused["status"], refused["error"]["type"], refused["error"]["phase"], refused["conn"]) == (None, "ConnectError", "connect", None)
    assert (nonsense["url"], nonsense["error"]["type"]) == ("nonsense", "InvalidURL")
    assert {tuple(o) for o in (first, again, missing, refused, nonsense)} == {(
        "url", "status", "bytes", "seconds", "timings", "reused", "conn", "remote_addr", "error", "headers", "redirects", "file")}


def test_redirects(server: Server, capsys: Capture) -> None:
    url, echo = server.url + "/status/302", server.url + "/echo"
    assert main([url, "--json"]) == main([url, "--json", "--no-follow"]) == main([url]) == main([url, "--no-follow"]) == 0
    out = capsys.readouterr().out.splitlines()
    followed, shown = json.loads(out[0]), json.loads(out[1])
    assert (followed["url"], followed["status"], followed["redirects"]) == (url, 200, [echo])
    assert (shown["status"], shown["redirects"], shown["headers"]["location"]) == (302, [], ["/echo"])
    assert out[2].startswith("200 ")
    assert out[2].endswith(f"{url} -> {echo}")
    assert [line for line in out if line.startswith("302 ") and line.endswith(url)]


def test_redirects_that_lead_nowhere(capsys: Capture) -> None:
    with Peer(answering(respond(b"", 302, {"Location": "ftp://x/"}))) as nowhere, Peer(answering(respond(b"", 302, {"Location": "/"}))) as round_and_round:
        assert main([nowhere.url(), round_and_round.url()]) == 4
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["UnsupportedProtocol", "TooManyRedirects"]


def test_retries(capsys: Capture) -> None:
    with Peer(answering(respond(b"", 503), respond(b"", 503), respond(b"here"))) as peer:
        assert main([peer.url(), "--retries", "2"]) == 0
    with pytest.raises(SystemExit, match="2"):
        main(["http://127.0.0.1:1/", "--retries", "-1"])
    assert "--retries" in capsys.readouterr().err


def test_quiet_json_has_what_went_wrong(server: Server, capsys: Capture) -> None:
    assert main([server.url + "/number/1", server.url + "/status/404", "--json", "-q"]) == 3
    assert [o["status"] for o in objects(capsys)] == [404]


# --- what is sent -------------------------------------------------------------------------------------------------------------------


def sent(server: Server, directory: Path, *args: str) -> dict[str, Any]:
    """What came to the server."""
    out = directory / "out"
    out.mkdir()
    assert main([server.url + "/echo", "-q", "-o", str(out), *args]) == 0
    told: dict[str, Any] = json.loads((out / "echo").read_bytes())
    told["fields"] = {name.lower(): value for name, value in told["headers"]}
    return told


def test_method_and_headers(server: Server, tmp_path: Path) -> None:
    told = sent(server, tmp_path, "-X", "patch", "-H", "X-One: 1: a ", "-H", "x-two:2", "-H", "Accept:", "-u", "user:pass:word")
    assert told["method"] == "PATCH"
    assert (told["fields"]["x-one"], told["fields"]["x-two"]) == ("1: a", "2")
    assert "accept" not in told["fields"]
    assert told["fields"]["authorization"] == "Basic " + base64.b64encode(b"user:pass:word").decode()


def test_a_form(server: Server, tmp_path: Path) -> None:
    told = sent(server, tmp_path, "-d", "a=1", "-d", "b=\u00e9")
    assert (told["method"], told["body"].encode("latin-1").decode()) == ("POST", "a=1&b=\u00e9")
    assert told["fields"]["content-type"] == "application/x-www-form-urlencoded"


def test_a_body_from_a_file_for_each_url(server: Server, tmp_path: Path, capsys: Capture) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"line\r\n\n" * 3)
    told = sent(server, tmp_path, "-d", f"@{body}", "-X", "PUT", "-H", "content-type: text/x")
    assert (told["method"], told["body"], told["fields"]["content-type"]) == ("PUT", "line\r\n\n" * 3, "text/x")
    assert main([server.url + "/echo"] * 6 + ["-c", "3", "-d", f"@{body}", "--json"]) == 0
    assert len({o["bytes"] for o in objects(capsys)}) == 1


def test_json_bodies(server: Server, tmp_path: Path) -> None:
    told = sent(server, tmp_path, "--json-body", '{"a": [1]}')
    assert (told["method"], told["body"], told["fields"]["content-type"]) == ("POST", '{"a": [1]}', "application/json")


def test_bodies_and_urls_from_standard_input(server: Server, tmp_path: Path) -> None:
    for n, flag in enumerate(("-", "@-")):
        out = tmp_path / str(n)
        out.mkdir()
        done = run(server.url + "/echo", "-q", "-o", str(out), "-d", flag, input="from the pipe")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert json.loads((out / "echo").read_bytes())["body"] == "from the pipe"
    text = f"# a comment\n\n  {server.url}/number/1  \r\n{server.url}/number/2"
    for way in (["-"], ["-i", "-"]):
        done = run(*way, input=text)
        assert (done.returncode, done.stderr) == (0, "")
        assert [line.rsplit("/", 1)[1] for line in done.stdout.splitlines()[:2]] == ["1", "2"]


def test_what_is_ready_is_shown_while_the_input_is_silent(server: Server) -> None:
    child = subprocess.Popen([sys.executable, "-m", "pooledhttp", "-", "-q", "--json"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        for status in (404, 500, 403):
            child.stdin.write(f"{server.url}/status/{status}\n".encode())
            child.stdin.flush()
            assert json.loads(child.stdout.readline())["status"] == status
        child.stdin.close()
        assert child.wait(30) == 3
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def test_urls_from_files(server: Server, tmp_path: Path, capsys: Capture) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(f"{server.url}/number/1\nnonsense\n{server.url}/number/2\n")
    two.write_bytes(b"\xff\xfe\n" + f"{server.url}/number/3".encode())
    assert main(["-i", str(one), server.url + "/number/0", "-i", str(two), "--json"]) == 2
    assert [o["url"].rpartition("/")[2] if o["error"] is None else o["error"]["type"] for o in objects(capsys)] == [
        "0", "1", "InvalidURL", "2", "InvalidURL", "3"]


def test_a_head(server: Server, capsys: Capture) -> None:
    assert main([server.url + "/bytes/500", "-I", "--json"]) == 0
    (told,) = objects(capsys)
    assert (told["bytes"], told["headers"]["content-length"]) == (0, ["500"])


# --- failures ------------------------------------------------------------------------------------------------------------------------


def test_failures_take_one_line_each(server: Server, capsys: Capture) -> None:
    assert main([server.url + "/status/404", "http://u:secret@127.0.0.1:1/p?token=secret", server.url + "/number/1"]) == 4
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.split("\n\n")[0].splitlines()] == ["404", "200"]
    assert re.fullmatch(r"ConnectError: .+: http://127\.0\.0\.1:1/p\n", err)
    assert "secret" not in out + err


def test_a_bad_url_does_not_keep_the_others(server: Server, capsys: Capture) -> None:
    assert main(["example.com", "ftp://u:secret@h/", server.url + "/number/1", "http://h/\x1b[31m\n", "http://:secret@/?secret"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("200")
    assert [line.split(":")[0] for line in err.splitlines()] == ["InvalidURL", "UnsupportedProtocol", "UnsafeURL", "InvalidURL"]
    assert "secret" not in out + err
    assert "\x1b" not in out + err


@pytest.mark.parametrize(("path", "args", "code"), [
    ("/number/1", (), 0), ("/status/302", (), 0), ("/status/302", ("--no-follow",), 0), ("/status/404", (), 3), ("/status/500", (), 3),
    ("/bytes/100", ("--max-bytes", "99"), 4), ("/bytes/100", ("--max-bytes", "100"), 0),
    ("/held", ("--timeout", "0.05"), 5), ("/held", ("--read-timeout", "0.05"), 5)])
def test_exit_statuses(server: Server, capsys: Capture, path: str, args: tuple[str, ...], code: int) -> None:
    assert main([server.url + path, *args]) == code


def test_the_highest_status_wins(server: Server, capsys: Capture) -> None:
    bad, missing, refused, slow = "nonsense", server.url + "/status/404", "http://127.0.0.1:1/", server.url + "/held"
    assert main([missing, bad]) == 3
    assert main([refused, missing, bad]) == 4
    assert main([slow, refused, missing, "--timeout", "0.1"]) == 5


BAD_USAGE: list[list[str]] = [
    [], ["http://h/", "-c", "0"], ["http://h/", "-c", "x"], ["http://h/", "--timeout", "-1"], ["http://h/", "--timeout", "nan"],
    ["http://h/", "--no-such"], ["http://h/", "--time", "1"], ["http://h/", "--max-bytes", "-1"], ["http://h/", "-I", "-d", "x"],
    ["http://h/", "-d", "x", "--json-body", "1"], ["http://h/", "--json-body", "{"], ["-", "-i", "-"], ["-", "-d", "-"],
    ["http://h/", "-H", "no colon"], ["http://h/", "-H", "a b: c"], ["http://h/", "-H", "a: b\r\nc: d"], ["http://h/", "-X", "a b"],
    ["http://h/", "-X", "CONNECT"], ["http://h/", "-u", "nobody"], ["http://h/", "-u", "secret"], ["http://h/", "-d", "@no/such"],
    ["http://h/", "-k", "--cacert", "x"], ["http://h/", "--cacert", "no/such"], ["http://h/", "--cert", "no/such"], ["http://h/", "--key", "x"],
    ["http://h/", "-o", "no/such"], ["http://h/", "-o", __file__], ["http://h/", "-o", ".", "-I"],
    ["http://h/", "-H", "Content-Length: 5"]]


@pytest.mark.parametrize("args", BAD_USAGE, ids=" ".join)
def test_bad_usage(args: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as e:
        main(args)
    out, err = capsys.readouterr()
    assert (e.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("pooledhttp: ")
    assert "secret" not in err


@pytest.mark.parametrize("path", ["no/such", "."])
def test_an_input_that_cannot_be_read(path: str, capsys: Capture) -> None:
    assert main(["-i", path]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"pooledhttp: {path}: ")


@pytest.mark.parametrize("option", ["--cert", "--cacert"])
def test_files_that_are_no_certificates(server: Server, option: str, capsys: Capture) -> None:
    assert main([server.url.replace("http", "https") + "/number/1", option, __file__, "-q"]) in (4, 6)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


def test_a_closed_standard_input() -> None:
    for args in (["-"], ["http://h/", "-d", "-"]):
        done = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "pooledhttp", *args],
                              cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "standard input" in done.stderr


def test_version_and_help(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as e:
        main(["--version"])
    assert (e.value.code, capsys.readouterr().out) == (0, f"pooledhttp {__version__}\n")
    done = run("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m pooledhttp ")
    assert "exit status" in done.stdout


def test_the_script_of_the_package_is_this_one() -> None:
    found = re.search(r'^\[project\.scripts\]\npooledhttp = "([\w.]+):(\w+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    assert getattr(importlib.import_module(found[1]), found[2]) is script
