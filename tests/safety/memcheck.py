"""`python -m tests.safety.memcheck [--quick] [pytest's arguments]`: the parser's tests under valgrind's memcheck.

It sees what AddressSanitizer does not: bytes that are read before anybody wrote them. Every report fails that memcheck.supp does not name.
"""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.meta.sources import ROOT

PLACE = ROOT / "build" / "valgrind"
FAILED = 99
# No comparison with h11, and not a test for each of 256 bytes.
QUICK = ("tests/proto/test_head.py", "tests/proto/test_chunked.py", "tests/proto/test_writer.py", "-k", "not test_writer or not test_every_byte")


def command(report: Path, *arguments: str) -> list[str]:
    """Runs Python with `arguments` under memcheck; it exits with FAILED where `report` names an error."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        sys.exit("tests.safety.memcheck needs valgrind: apt-get install valgrind")
    return [valgrind, "--tool=memcheck", f"--error-exitcode={FAILED}", f"--log-file={report}", "--error-limit=no", "--num-callers=25", "--leak-check=no",
            f"--suppressions={Path(__file__).with_name('memcheck.supp')}", sys.executable, *arguments]


def environment() -> dict[str, str]:
    # Every object in memory of its own, so that each byte has bounds.
    return {**os.environ, "PYTHONMALLOC": "malloc"}


def main(arguments: list[str]) -> int:
    PLACE.mkdir(parents=True, exist_ok=True)
    report = PLACE / "report"
    parts = QUICK if "--quick" in arguments else ("tests/proto",)
    given = [a for a in arguments if a != "--quick"]
    # Most of the time went into importing what these tests do not need.
    pytest = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--noconftest", "--assert=plain", "-o", "timeout=600",
              *([] if any(a.startswith("tests") for a in given) else parts), *given]
    code = subprocess.run(command(report, *pytest), cwd=ROOT, env=environment(), check=False).returncode
    if code:
        print(f"\n== {report.relative_to(ROOT)}\n{report.read_text(errors='replace')}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
