"""The checkers see what they are for: a small module with one fault in each function, built as setup.py builds ours and run as they run."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.sources import ROOT
from tests.safety import asan, memcheck

# Volatile, so that the compiler leaves nothing out.
FAULTS = '''
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc


def nothing():
    cdef volatile char* p = <char*>malloc(8)
    p[7] = 1
    free(<void*>p)


def write_past(int n):
    cdef volatile char* p = <char*>malloc(n)
    p[n] = 1
    free(<void*>p)


def read_past(bytes text):
    return PyBytes_AS_STRING(text)[len(text) + 1]


def read_freed(int n):
    cdef volatile char* p = <char*>malloc(n)
    free(<void*>p)
    return p[0]


def write_past_the_stack(int n):
    cdef char[8] room
    cdef volatile char* p = room
    p[n] = 1
    return p[0]


def overflow(int a):
    return a + 1


def shift(int64_t a, int by):
    return a << by


def misaligned(bytes text):
    return (<int64_t*>(PyBytes_AS_STRING(text) + 1))[0]


def unwritten(int n):
    cdef volatile char* p = <char*>malloc(n)
    cdef char c = p[n - 1]
    free(<void*>p)
    return "odd" if c & 1 else "even"


def lose_memory(int n):
    cdef volatile char* p = <char*>malloc(n)
    p[0] = 1


def lose_an_object(int n):
    cdef object text = b"x" * n
    Py_INCREF(text)
'''
# What calls a fault, and what the report says of it.
SEEN = {
    "write_past(8)": "heap-buffer-overflow",
    "read_past(b'12345')": "heap-buffer-overflow",
    "read_freed(8)": "heap-use-after-free",
    "write_past_the_stack(8)": "stack-buffer-overflow|insufficient space",
    "overflow(2**31 - 1)": "signed integer overflow",
    "shift(1, 64)": "shift exponent 64 is too large",
    "misaligned(b'1234567890')": "misaligned address",
    "lose_memory(100)": "LeakSanitizer: detected memory leaks",
    "lose_an_object(100)": "LeakSanitizer: detected memory leaks",
}
LEAKS = "import sys; from tests.safety.leaks import leaked; import pooledhttp.faults as f; f.{}; sys.exit(leaked())"


def build(where: Path, sanitize: bool) -> Path:
    shutil.copy(ROOT / "setup.py", where)
    (where / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\n')
    (where / "pooledhttp").mkdir()
    (where / "pooledhttp/__init__.py").touch()
    (where / "pooledhttp/faults.pyx").write_text(FAULTS)
    # Not strict: the compiler sees some of these too.
    env = {**os.environ, "POOLEDHTTP_WERROR": "0", "POOLEDHTTP_SANITIZE": str(int(sanitize)), "CFLAGS": "-O0 -w"}
    subprocess.run([sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"], cwd=where, env=env, check=True)
    return where


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("sanitized"), True)


def run(where: Path, tmp_path: Path, call: str) -> tuple[int, str]:
    """A fault's exit code, and what was reported."""
    env = {**asan.environment(tmp_path), "PYTHONPATH": f"{where}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", LEAKS.format(call)], env=env, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=60, check=False)
    return done.returncode, done.stdout + "".join(p.read_text() for p in tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("call", SEEN)
def test_the_sanitizers_see_it(sanitized: Path, tmp_path: Path, call: str) -> None:
    code, said = run(sanitized, tmp_path, call)
    assert code != 0
    assert re.search(SEEN[call], said), said[-4000:]
    assert "faults" in said          # and where


@pytest.mark.slow
def test_the_sanitizers_see_nothing_where_there_is_nothing(sanitized: Path, tmp_path: Path) -> None:
    assert run(sanitized, tmp_path, "nothing()") == (0, "")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_memcheck_sees_it(tmp_path: Path) -> None:
    where = build(tmp_path, False)
    code = "import sys; import pooledhttp.faults as f; f.nothing()"
    for call, want in (("", 0), ("; f.unwritten(8); f.read_past(b'12345'); f.write_past(8); f.read_freed(8)", memcheck.FAILED)):
        report = tmp_path / "report"
        done = subprocess.run(memcheck.command(report, "-S", "-c", f"import sys; sys.path.insert(0, {str(where)!r}); {code}{call}"),
                              env=memcheck.environment(), cwd=where, timeout=120, check=False)
        said = report.read_text()
        assert done.returncode == want, said[-4000:]
        found = re.findall(r"== (\w[^\n]*)\n==\d+==    at [^\n]*faults", said)
        assert found == ([] if not call else ["Conditional jump or move depends on uninitialised value(s)", "Invalid read of size 1",
                                               "Invalid write of size 1", "Invalid read of size 1"])
