"""Names, where getaddrinfo hangs for real: the scenes of `names`."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.exchange.names import SCENES, WITH_NAMESERVER
from tests.support import interposed
from tests.support.processes import PATIENCE, end, read_line, spawn

ENTER = 'mount --bind "$1" /etc/resolv.conf; [ ! -e /etc/nsswitch.conf ] || mount --bind "$2" /etc/nsswitch.conf; shift 2; exec "$@"'


def play(scene: str, *command: str | Path, **env: str) -> None:
    child = spawn(*command, scene, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **env})
    try:
        assert child.stdout is not None and child.stderr is not None
        said = read_line(child.stdout, 30)
        start = time.monotonic()
        code = child.wait(PATIENCE)
        took = time.monotonic() - start
        assert (said, code) == (b"done\n", 0), child.stderr.read().decode()
        assert child.stderr.read() == b""
        assert took < 2.0, "a lookup that hangs holds the interpreter's exit"
    finally:
        end(child)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return interposed.build(tmp_path_factory.mktemp("interposed"))


@pytest.mark.parametrize("scene", SCENES)
def test_with_a_getaddrinfo_that_hangs(scene: str, library: Path) -> None:
    before = [os.environ["LD_PRELOAD"]] if "LD_PRELOAD" in os.environ else []           # AddressSanitizer's library wants to be the first
    play(scene, sys.executable, "-m", "tests.exchange.names", "interposed", LD_PRELOAD=":".join([*before, str(library)]))


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """A command that runs the rest of its line in a network of its own, where names are asked of 127.0.0.1."""
    unshare = shutil.which("unshare")
    if unshare is None or shutil.which("mount") is None:
        pytest.skip("there is no unshare(1)")
    folder = tmp_path_factory.mktemp("namespace")
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:30 attempts:1\n")
    (folder / "nsswitch.conf").write_text("hosts: files dns\n")
    own_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command: list[str | Path] = [unshare, *own_user, "--net", "--mount", "sh", "-ec", ENTER, "sh", folder / "resolv.conf", folder / "nsswitch.conf"]
    tried = subprocess.run([*command, sys.executable, "-c", ""], capture_output=True, text=True, timeout=PATIENCE)
    if tried.returncode:
        pytest.skip(f"no namespace of one's own may be made here: {tried.stderr.strip()}")
    return command


@pytest.mark.parametrize("scene", SCENES | WITH_NAMESERVER)
def test_with_a_nameserver_of_our_own(scene: str, namespace: list[str | Path]) -> None:
    play(scene, *namespace, sys.executable, "-m", "tests.exchange.names", "namespace")
