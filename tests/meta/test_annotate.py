"""The functions that run without the GIL touch no Python: each of their lines scores 0 in Cython's annotated source."""
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.sources import PACKAGE, ROOT, files, load_setup

# The functions of a small exchange, which must be among those looked at.
HOT: dict[str, set[str]] = {
    "_core/runtime.pyx": {"buffer_take", "buffer_give", "wake_hold", "wake_drop", "wake_signal", "on_main"},
    "_proto/head.pyx": {"parse_head"},
    "_proto/chunked.pyx": {"chunked_feed"},
    "_net/eager.pyx": {"eager_begin", "eager_end", "eager_recv"},
    "_net/tcp.pyx": {"sock_recv", "sock_try_send", "sock_probe", "sock_wait", "recv_into", "try_send", "probe"},
    "_pool/core.pyx": {"pool_checkout", "pool_give", "pool_lock", "pool_unlock", "_take_locked", "_serve_locked", "_settle_locked"},
    "_conn/h1.pyx": {"begin", "exchange", "fill", "deaf", "head_done", "small_body", "read_chunked", "reuse_verdict", "verdict", "probe"},
    "_trip/trip.pyx": {"run", "attempt"},
}
START = re.compile(r"^(?P<indent>[ ]*)(?:cdef|cpdef)\b[^=(]*\b(?P<name>\w+)\(")
SIGNATURE_END = re.compile(r"\bnogil\s*:\s*(#.*)?$")
# Plain reads of a field of a bytes object that the exchange holds; a point each.
FIELD_READ = re.compile(r"\bPyBytes_(?:GET_SIZE|AS_STRING)\(")
LINE = re.compile(r'<pre class="cython line score-(\d+)"[^>]*>.*?<span class="">0*(\d+)</span>:')


def nogil_lines(text: str) -> tuple[dict[int, str], set[str]]:
    """Line number → function, for all lines of `nogil` functions outside `with gil` blocks; and the functions with such blocks."""
    out: dict[int, str] = {}
    takers: set[str] = set()
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        start = START.match(lines[at])
        first = at
        if start is None:
            at += 1
            continue
        while at + 1 < len(lines) and "".join(lines[first:at + 1]).count("(") > "".join(lines[first:at + 1]).count(")"):
            at += 1
        if not SIGNATURE_END.search(lines[at]):
            at = first + 1
            continue
        at += 1
        depth, held = len(start["indent"]), -1
        while at < len(lines):
            indent = len(lines[at]) - len(lines[at].lstrip())
            if lines[at].strip():
                if indent <= depth:
                    break
                if held >= 0 and indent <= held:
                    held = -1
                if re.match(r"\s*with gil\b", lines[at]):
                    held = indent
                    takers.add(start["name"])
                elif held < 0:
                    out[at + 1] = start["name"]
            at += 1
    return out, takers


def scores(html: str) -> dict[int, int]:
    return {int(line): int(score) for score, line in LINE.findall(html)}


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the annotated HTML of every compiled module, made with the build's own directives."""
    where = tmp_path_factory.mktemp("annotated")
    program = ("import sys; from tests.meta.sources import load_setup; s = load_setup(); "
               "s.cythonized(s.extensions(), build_dir=sys.argv[1], force=True, quiet=True)")
    subprocess.run([sys.executable, "-c", program, str(where)], cwd=ROOT, env={**os.environ, "POOLEDHTTP_ANNOTATE": "1"}, check=True)
    return where


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nogil_functions_touch_no_python(annotated: Path) -> None:
    yellow, missing = [], []
    for pyx in files(PACKAGE):
        if pyx.suffix != ".pyx":
            continue
        text = pyx.read_text()
        scored = scores((annotated / pyx.relative_to(ROOT)).with_suffix(".html").read_text())
        assert len(scored) >= text.count("\n")
        looked_at, takers = nogil_lines(text)
        missing += [f"{pyx.relative_to(PACKAGE)}: {name}" for name in HOT.get(str(pyx.relative_to(PACKAGE)), ())
                    if name not in looked_at.values() or name in takers]
        yellow += [f"{pyx.relative_to(ROOT)}:{n} scores {scored[n]}: {text.splitlines()[n - 1].strip()}" for n in looked_at
                   if scored[n] > len(FIELD_READ.findall(text.splitlines()[n - 1]))]
    assert yellow == []
    assert missing == [], "hot functions that are not there, not nogil, or take the GIL"
    assert [name for name in HOT if not (PACKAGE / name).exists()] == []


def test_the_gate_sees_python_in_a_nogil_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """\
cdef object keep = None

cdef int clean(int a,
               int b) noexcept nogil:
    return a + b

cdef int dirty(int a) noexcept nogil:
    with gil:
        print(a)
    return a

cdef int held(int a) noexcept:
    keep.x = a
    return a
"""
    assert nogil_lines(text) == ({5: "clean", 10: "dirty"}, {"dirty"})
    (tmp_path / "m.pyx").write_text(text)
    setup = load_setup()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POOLEDHTTP_ANNOTATE", "1")
    monkeypatch.setenv("POOLEDHTTP_WERROR", "0")
    setup.cythonized([setup.Extension("m", ["m.pyx"])], quiet=True)
    scored = scores((tmp_path / "m.html").read_text())
    assert scored[5] == 0
    assert scored[9] > 0
    assert scored[13] > 0
