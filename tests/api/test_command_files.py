"""`python -m pooledhttp -o DIR`: each body in a file of its own, whole or not at all, and nothing else touched."""
from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pooledhttp import URL
from pooledhttp.cli.command import main
from pooledhttp.cli.saving import Names, safe_name
from tests.support.peer import Conn, Peer

from .server import Server

Capture = pytest.CaptureFixture[str]
BODY = bytes(i % 251 for i in range(100000))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "saved"
    path.mkdir()
    return path


def saved(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_each_in_a_file_of_its_own_in_order(server: Server, directory: Path, capsys: Capture) -> None:
    urls = [server.url + path for path in ("/bytes/100000", "/number/7", "/number/7", "/number/7?q", "/status/404", "/number/8")]
    assert main([*urls, "-o", str(directory), "-c", "6", "--json"]) == 3
    assert saved(directory) == {"100000": BODY, "7": b"7", "7-2": b"7", "7-3": b"7", "8": b"8"}
    files = [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()]
    assert files == [str(directory / name) for name in ("100000", "7", "7-2", "7-3")] + [None, str(directory / "8")]


def test_what_is_there_is_never_overwritten(server: Server, directory: Path, tmp_path: Path, capsys: Capture) -> None:
    mine, victim = directory / "7", tmp_path / "victim"
    mine.write_text("mine")
    victim.write_text("mine too")
    (directory / "8").symlink_to(victim)
    (directory / "9").symlink_to(tmp_path / "nothing")
    (directory / "7-2").mkdir()
    for _ in range(2):
        assert main([f"{server.url}/number/{n}" for n in (7, 8, 9)] + ["-o", str(directory), "-q"]) == 0
    assert (mine.read_text(), victim.read_text(), (tmp_path / "nothing").exists()) == ("mine", "mine too", False)
    assert {name: (directory / name).read_text() for name in ("7-3", "8-2", "9-2", "7-4", "8-3", "9-3")} == {
        "7-3": "7", "8-2": "8", "9-2": "9", "7-4": "7", "8-3": "8", "9-3": "9"}


@pytest.mark.parametrize(("url", "name"), [
    ("http://h", "index"), ("http://h/", "index"), ("http://h/a/b.txt", "b.txt"), ("http://h/a/b/", "b"), ("http://h/a.txt?x=../../y", "a.txt"),
    ("http://h/%2e%2e%2fetc%2fpasswd", "_etc_passwd"), ("http://h/..%2f..", "_"), ("http://h/%2E%2E", "index"), ("http://h/.ssh", "ssh"),
    ("http://h/-rf", "rf"), ("http://h/%00%0a%1b[31m", "___%5B31m"), ("http://h/a%5cb", "a_b"), ("http://h/%ff", "_"),
    ("http://h/caf%C3%A9.txt", "caf\u00e9.txt"), ("http://h/a%E2%80%AEtxt.exe", "a_txt.exe"), ("http://h/" + "x" * 500 + ".tar", "x" * 196 + ".tar"),
    ("http://h/" + "%C3%A9" * 300, "\u00e9" * 100), ("http://h/x." + "y" * 300, "x." + "y" * 198), ("http://h/%20.%20", "index"), ("http://h/a.", "a")])
def test_names_are_safe(url: str, name: str) -> None:
    found = safe_name(URL(url))
    assert found == name.replace("%5B", "_")
    assert "/" not in found
    assert len(found.encode()) <= 200


def test_a_name_is_given_once_however_they_meet(tmp_path: Path) -> None:
    names = Names(str(tmp_path))
    given = [os.path.basename(names.path(URL("http://h/" + name))) for name in ("a.b-2.c", "a.b.c", "a.b.c", "a.b.c", "a-2", "a", "a", "a.b-2.c")]
    assert given == ["a.b-2.c", "a.b.c", "a.b-3.c", "a.b-4.c", "a-2", "a", "a-3", "a.b-2-2.c"]


def broken(peer: Callable[..., Peer]) -> Peer:
    """Promises a million bytes, sends half of them."""
    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(500_000))

    return peer(script)


def test_a_partial_file_does_not_stay(peer: Callable[..., Peer], server: Server, directory: Path, capsys: Capture) -> None:
    assert main([broken(peer).url("/half"), server.url + "/bytes/200", server.url + "/number/1", "-o", str(directory), "--max-bytes", "600000"]) == 4
    assert sorted(saved(directory)) == ["1", "200"]
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert main([server.url + "/bytes/200", "-o", str(directory), "--max-bytes", "100"]) == 4
    assert sorted(saved(directory)) == ["1", "200"]


def test_a_directory_that_takes_no_file(server: Server, directory: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gone between the start and the answer: a name in it cannot be made, whoever asks."""
    def gone(self: Names, url: URL) -> str:
        return str(directory / "gone" / "x")

    monkeypatch.setattr(Names, "path", gone)
    assert main([server.url + "/number/1", server.url + "/status/404", "-o", str(directory)]) == 6
    out, err = capsys.readouterr()
    assert out.startswith("404")
    assert err == f"FileNotFoundError: No such file or directory: {directory}/gone/x: {server.url}/number/1\n"


def test_a_file_that_appears_meanwhile_is_not_written_to(server: Server, directory: Path, tmp_path: Path, capsys: Capture,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    victim, link = tmp_path / "victim", directory / "link"
    victim.write_text("mine")
    link.symlink_to(victim)
    monkeypatch.setattr(Names, "path", lambda self, url: str(link))
    assert main([server.url + "/number/1", "-o", str(directory), "-q"]) == 6
    assert (victim.read_text(), link.is_symlink()) == ("mine", True)
    assert capsys.readouterr().err.startswith("FileExistsError: File exists: ")


def test_a_full_disk_is_one_line(server: Server, directory: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (70000, limits[1]))         # the kernel refuses what is beyond: EFBIG
    try:
        assert main([server.url + "/bytes/100000", server.url + "/number/1", "-o", str(directory)]) == 6
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert saved(directory) == {"1": b"1"}
    assert capsys.readouterr().err.startswith("OSError: ")


def test_a_large_body_is_never_in_memory(peer: Callable[..., Peer], directory: Path, capsys: Capture) -> None:
    size, block = 64 << 20, bytes(1 << 20)

    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(block)):
            conn.send(block)

    url = peer(script).url("/large")
    tracemalloc.start()
    try:
        result: Any = main([url, "-o", str(directory), "-q"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (result, (directory / "large").stat().st_size) == (0, size)
    assert peak < 8 << 20
