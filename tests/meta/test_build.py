"""The build: an sdist holds the sources, a wheel from it works in a clean environment, and warnings end it."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest

from tests.meta.sources import PACKAGE, ROOT, compiled, files, load_setup
from tests.support.nginx import Nginx

PYPROJECT = (ROOT / "pyproject.toml").read_text()


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """What `command` printed; AssertionError with it where the command failed."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("POOLEDHTTP_", "PYTHONPATH", "VIRTUAL_ENV"))}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env={**clean, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own files, in a directory where nothing was ever built."""
    where = tmp_path_factory.mktemp("checkout")
    for path in files():
        target = where / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    return where


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, checkout, cwd=checkout)
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist in isolation, with what pyproject.toml pins; strict, as in a checkout."""
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, sdist, cwd=out, POOLEDHTTP_WERROR="1")
    (made,) = out.iterdir()
    return made


def test_the_pins_agree() -> None:
    requires = re.search(r"^requires = \[(.*)\]$", PYPROJECT, re.MULTILINE)
    extra = re.search(r"^build = \[(.*)\]$", PYPROJECT, re.MULTILINE)
    assert requires is not None and extra is not None
    assert requires[1] == extra[1]
    assert sorted(re.findall(r'"(\w+)==\d+\.\d+\.\*"', requires[1])) == ["Cython", "setuptools"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_sdist_holds_the_sources_and_nothing_built(sdist: Path, checkout: Path) -> None:
    with tarfile.open(sdist) as tar:
        inside = {name.partition("/")[2] for name in tar.getnames()}
    wanted = {str(p.relative_to(ROOT)) for p in files() if p.is_relative_to(PACKAGE) or p.is_relative_to(ROOT / "tests")
              or p.is_relative_to(ROOT / "examples")}
    wanted |= {"Makefile", "setup.py", "pyproject.toml", "LICENSE", "README.md", ".ci/run", ".ci/system", "PKG-INFO"}
    assert wanted - inside == set()
    written = {str(p.relative_to(ROOT)) for folder in ("bench", "tests") for p in (ROOT / folder).rglob("*.c")}
    assert written <= inside
    assert [name for name in inside - written if name.endswith((".c", ".so", ".html", ".pyc"))] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_wheel_from_the_sdist_works_in_a_clean_environment(wheel: Path, tmp_path: Path, nginx: Nginx) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    stubs = {str(p.relative_to(ROOT)) for p in files(PACKAGE) if p.suffix in (".pyi", ".pxd", ".h", ".py") or p.name == "py.typed"}
    assert stubs - inside == set()
    libraries = {name.partition(".")[0].replace("/", ".") for name in inside if name.endswith(".so")}
    assert libraries == set(compiled())
    assert [name for name in inside if name.endswith((".c", ".pyx", ".html")) or name.startswith(("tests/", "examples/"))] == []

    run(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env/bin/python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    program = textwrap.dedent("""
        import sys
        import pooledhttp
        assert pooledhttp.__file__.startswith(sys.prefix), pooledhttp.__file__
        with pooledhttp.Client() as client:
            for _ in range(3):
                response = client.get(sys.argv[1]).raise_for_status()
            print(len(response.content), response.conn.reused, pooledhttp.__version__)
    """)
    said = run(python, "-I", "-W", "error", "-c", program, nginx.url("/64k"), cwd=tmp_path)
    version = re.search(r'^version = "(.*)"$', PYPROJECT, re.MULTILINE)
    assert version is not None
    assert said == f"65536 True {version[1]}\n"


SOURCES = {
    "clean": "cdef int f() noexcept nogil:\n    return 1\n\n\ndef use():\n    return f()\n",
    "hint": "cdef void f() nogil:\n    pass\n\n\ndef use():\n    with nogil:\n        f()\n",
    "cython warning": "cdef int f() noexcept nogil:\n    return 1\n\n\ndef use():\n    cdef int unset\n    return unset\n",
    "c warning": 'cdef extern from *:\n    """\n    static int f(unsigned a) { return a < 0; }\n    """\n    int f(unsigned)\n\n\n'
                 "def use():\n    return f(1)\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("setting", "from_sdist", "is_strict"), [(None, False, True), ("0", False, False), (None, True, False)])
def test_warnings_and_hints_are_errors(tmp_path: Path, source: str, setting: str | None, from_sdist: bool, is_strict: bool) -> None:
    shutil.copy(ROOT / "setup.py", tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\n')
    (tmp_path / "pooledhttp").mkdir()
    (tmp_path / "pooledhttp/__init__.py").touch()
    (tmp_path / "pooledhttp/one.pyx").write_text(SOURCES[source])
    if from_sdist:
        (tmp_path / "PKG-INFO").touch()
    env = {"CFLAGS": "-O0"} | ({} if setting is None else {"POOLEDHTTP_WERROR": setting})
    command = (sys.executable, "setup.py", "build_ext", "--inplace")
    if source == "clean" or not is_strict:
        run(*command, cwd=tmp_path, **env)
        assert len(list((tmp_path / "pooledhttp").glob("*.so"))) == 1
    else:
        for _ in range(2):           # the second build does not find the first one's C and think all is well
            with pytest.raises(AssertionError, match="hints are errors" if source != "c warning" else "-Werror"):
                run(*command, cwd=tmp_path, **env)


def test_a_build_uses_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = load_setup()
    assert setup.jobs() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("POOLEDHTTP_JOBS", "7")
    assert setup.jobs() == 7
