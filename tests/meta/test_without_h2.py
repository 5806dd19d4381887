"""A build without libnghttp2: it says so in a line, HTTP/1.1 alone is offered, and everything else works."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.meta.sources import ROOT
from tests.support.ca import Authority
from tests.support.peer import Peer, answering, respond

# As if the two modules had not been built.
WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in ("pooledhttp._conn.h2", "pooledhttp._conn.h2role", "pooledhttp._proto.h2") else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
import pooledhttp
assert pooledhttp.features()["http2"] is False
client = pooledhttp.Client(verify=sys.argv[2])
r = client.get(sys.argv[1])
print(r.http_version, r.conn.alpn, r.text)
try:
    pooledhttp.Transport(http2="prior-knowledge")
except ValueError as e:
    print(e)
client.close()
"""


def test_without(peer: Callable[..., Peer], ca: Authority) -> None:
    context = ca.new_server("127.0.0.1")
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = peer(answering(respond(b"fine")), tls=context)
    done = subprocess.run([sys.executable, "-c", WITHOUT, f"https://127.0.0.1:{server.port}/", str(ca.pem)], cwd=ROOT, capture_output=True, text=True,
                          timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["HTTP/1.1 http/1.1 fine", 'http2="prior-knowledge" cannot be: this build has no libnghttp2']


@pytest.mark.parametrize(("wanted", "says", "ends"), [
    ("0", "", "None"),
    ("", "setup.py: HTTP/2 is left out: there is no pkg-config (Debian: libnghttp2-dev, pkgconf)\n", "None"),
    ("1", "setup.py: POOLEDHTTP_HTTP2=1, but there is no pkg-config (Debian: libnghttp2-dev, pkgconf)\n", ""),
])
def test_what_the_build_says(tmp_path: Path, wanted: str, says: str, ends: str) -> None:
    env = {"POOLEDHTTP_HTTP2": wanted, "PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", "import setup; print(setup.nghttp2())"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=30,
                          check=False)
    assert (done.stdout.strip(), done.stderr) == (ends, says)
