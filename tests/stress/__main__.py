"""`python -m tests.stress [--threads N] [--requests N] [--hosts N] [--tls N] [--limit N] [--seed N] [--faults PERCENT] [--minutes N] ...`: see docs/testing.md.

Prints what it did as JSON; fails where anything was wrong.
"""
from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

from tests.stress.run import Options, Run


def options(arguments: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m tests.stress")
    for field in dataclasses.fields(Options):
        if isinstance(field.default, bool):
            parser.add_argument(f"--{field.name}", action=argparse.BooleanOptionalAction, default=field.default)
        else:
            parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    return Options(**vars(parser.parse_args(arguments)))


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="stress-") as directory:
        run = Run(options(), Path(directory))
        try:
            report = run.all()
        finally:
            run.server.close()
    print(json.dumps(report, indent=1))
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
