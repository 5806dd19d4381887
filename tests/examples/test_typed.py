"""What the type checkers accept, runs."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("example", sorted((ROOT / "examples" / "typed").glob("[a-z]*.py")), ids=lambda p: p.name)
def test_it_runs(example: Path) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-m", "tests.docs.run", example], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
