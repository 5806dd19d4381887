"""Netrc files: which entry, which file, when it is read, and what never is said of it."""
from __future__ import annotations

import os
import pickle
import sys
from base64 import b64decode
from pathlib import Path

import pytest

from pooledhttp import Client, MockTransport, NetRCAuth, Request, Response

# Before 3.11 the standard library's reader knows neither quotes nor an entry without a password.
NEW = sys.version_info >= (3, 11)
FILE = f"""
machine api.example.com login alice password {'"pass word"' if NEW else "pass"}
machine UPPER.example.com
    login bob
    password b:o:b
machine account.example.com account acc password pw
{"machine empty.example.com" if NEW else ""}
macdef init
    cd /tmp

machine ::1 login six password six
default login anonymous password guest
"""
ALICE = "alice:pass word" if NEW else "alice:pass"


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def credentials(auth: NetRCAuth, url: str, headers: dict[str, str] | None = None) -> str | None:
    """user:password as the request bears them."""
    value = auth(Request("GET", url, headers=headers)).headers.get("authorization")
    if value is None:
        return None
    scheme, _, token = str(value).partition(" ")
    return b64decode(token).decode() if scheme == "Basic" else str(value)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NETRC", raising=False)
    (tmp_path / "home").mkdir()
    return write(tmp_path / "netrc", FILE)


@pytest.mark.parametrize(("url", "wanted"), [
    ("http://api.example.com/", ALICE),
    ("https://API.example.com:8443/x", ALICE),
    ("http://upper.example.com/", "bob:b:o:b"),
    ("http://account.example.com/", "acc:pw"),
    ("http://[::1]:80/", "six:six"),
    ("http://other.example.com/", "anonymous:guest"),
    ("http://sub.api.example.com/", "anonymous:guest"),
    ("http://empty.example.com/", "anonymous:guest"),
])
def test_entries(file: Path, url: str, wanted: str) -> None:
    assert credentials(NetRCAuth(file), url) == wanted


def test_no_entry_no_header(file: Path) -> None:
    write(file, "machine a.example login u password p\n")
    assert credentials(NetRCAuth(str(file)), "http://b.example/") is None


def test_what_the_request_brings_wins(file: Path) -> None:
    auth = NetRCAuth(file)
    assert credentials(auth, "http://api.example.com/", {"authorization": "Bearer x"}) == "Bearer x"
    assert credentials(auth, "http://me:mine@api.example.com/") == "me:mine"


def test_the_default_file(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auth = NetRCAuth()
    assert credentials(auth, "http://api.example.com/") is None           # there is none
    home = write(tmp_path / "home" / ".netrc", "machine api.example.com login home password h\n")
    assert credentials(auth, "http://api.example.com/") == "home:h"
    monkeypatch.setenv("NETRC", str(file))
    assert credentials(auth, "http://api.example.com/") == ALICE
    monkeypatch.delenv("NETRC")
    home.chmod(0o644)
    with pytest.raises(ValueError, match=r"\.netrc.*permissive"):
        credentials(auth, "http://api.example.com/")
    assert credentials(NetRCAuth(home), "http://api.example.com/") == "home:h"       # a file that was named is whoever's


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auth = NetRCAuth(file)
    assert credentials(auth, "http://api.example.com/") == ALICE
    reads = []
    monkeypatch.setattr("pooledhttp.netrc._parse", lambda path, named: reads.append(path) or {"": ("new", "n")})
    assert credentials(auth, "http://api.example.com/") == ALICE
    assert reads == []
    write(file, "x")
    assert credentials(auth, "http://api.example.com/") == "new:n"
    assert credentials(auth, "http://api.example.com/") == "new:n"
    before = file.stat()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert credentials(auth, "http://api.example.com/") == "new:n"
    assert reads == [str(file)] * 2


def test_a_file_that_was_named_and_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        credentials(NetRCAuth(tmp_path / "none"), "http://h/")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        credentials(NetRCAuth(), "http://h/")


@pytest.mark.parametrize("text", ["machine h login u password hunter2 hunter3\n", "hunter2\n", "machine h login u password \xff\xfehunter2"])
def test_a_bad_file_is_named_and_not_quoted(file: Path, text: str) -> None:
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError) as info:
        credentials(NetRCAuth(file), "http://h/")
    assert str(file) in str(info.value)
    assert "hunter" not in str(info.value)
    assert info.value.__cause__ is None


def test_through_a_client_and_in_a_pickle(file: Path) -> None:
    auth = NetRCAuth(file)
    assert pickle.loads(pickle.dumps(auth)) == auth
    assert hash(auth) == hash(NetRCAuth(str(file))) and auth != NetRCAuth() and auth != 1
    assert "pass" not in repr(auth)
    seen = []
    transport = MockTransport(lambda request: seen.append(request.headers.get("authorization")) or Response(200))
    Client(transport=transport, auth=auth).get("http://account.example.com/")
    assert b64decode(seen[0].removeprefix("Basic ")) == b"acc:pw"
