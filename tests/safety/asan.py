"""`python -m tests.safety.asan [--quick] [--deep] [pytest's arguments]`: tests with AddressSanitizer, UndefinedBehaviorSanitizer and LeakSanitizer.

The compiled modules are built anew in a copy of the tree, and the tests run there. Any report fails, also one by a process that a test started.
"""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.meta.sources import ROOT
from tests.safety.mirror import mirror

PLACE = ROOT / "build" / "asan"
TREE, REPORTS = PLACE / "tree", PLACE / "reports"
PARTS = ("tests/proto", "tests/net", "tests/pool", "tests/exchange", "tests/h2", "tests/api")
# None that makes up hundreds of cases, and not a test for each of 256 bytes.
QUICK = ("tests/proto", "tests/pool", "tests/exchange/test_framing.py", "tests/h2/test_safety.py", "-k",
         "not TestPool and not test_made and not test_mutated and not (test_writer and test_every_byte)")

OPTIONS = {
    "detect_leaks": 1,
    "leak_check_at_exit": 0,             # tests.safety.leaks looks while the interpreter still holds what it never frees
    "detect_stack_use_after_return": 1,
    "strict_string_checks": 1,
    "allocator_may_return_null": 1,      # tests ask for more than there is, and want a MemoryError
    # A crash stays one: tests make some, and pytest shows where they happen.
    "handle_segv": 0, "handle_sigbus": 0, "handle_abort": 0, "handle_sigill": 0, "handle_sigfpe": 0,
}


def _runtime() -> str:
    compiler = os.environ.get("CC", "cc").split()
    said = subprocess.run([*compiler, "-print-file-name=libasan.so"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    if not os.path.isabs(said):
        sys.exit("tests.safety.asan: the C compiler has no libasan.so; with Debian's gcc it comes as libasan8")
    return os.path.realpath(said)


def _joined(options: dict[str, object]) -> str:
    return ":".join(f"{k}={v}" for k, v in options.items())


def environment(reports: Path, deep: bool = False) -> dict[str, str]:
    """Of a Python that loads what POOLEDHTTP_SANITIZE=1 built; reports are written to files in `reports`.

    An allocation's callers are found by their frame pointers, of which the interpreter has none: only the first is sure. `deep` looks at
    what the compiler wrote down for debuggers, and takes ten times as long for all.
    """
    log: dict[str, object] = {"log_path": reports / "report"}
    if deep:
        log |= {"fast_unwind_on_malloc": 0, "malloc_context_size": 20}
    return {**os.environ, "LD_PRELOAD": _runtime(), "PYTHONMALLOC": "malloc", "POOLEDHTTP_SANITIZE": "1",
            "ASAN_OPTIONS": _joined({**OPTIONS, **log}), "UBSAN_OPTIONS": _joined({"print_stacktrace": 1, **log}),
            "LSAN_OPTIONS": _joined({"suppressions": Path(__file__).with_name("lsan.supp"), "print_suppressions": 0})}


def build() -> None:
    mirror(TREE)
    subprocess.run([sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"], cwd=TREE, check=True,
                   env={**os.environ, "POOLEDHTTP_SANITIZE": "1", "POOLEDHTTP_DEBUG": "1"})


def main(arguments: list[str]) -> int:
    build()
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    parts = QUICK if "--quick" in arguments else PARTS
    given = [a for a in arguments if a not in ("--quick", "--deep")]
    command = [sys.executable, "-m", "pytest", "-p", "tests.safety.leaks", "-p", "no:cacheprovider", "-m", "not unsanitized", "-o", "timeout=300",
               *([] if any(a.startswith("tests") for a in given) else parts), *given]
    env = {**environment(REPORTS, "--deep" in arguments), "PYTHONPATH": str(TREE)}
    code = subprocess.run(command, cwd=TREE, env=env, check=False).returncode
    for report in sorted(REPORTS.iterdir()):
        print(f"\n== {report.name}\n{report.read_text(errors='replace')}")
        code = code or 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
