"""python -m examples.batch [--workers 16] [--seconds 60] URL...

Ends when all is done (exit code 0, or 1 with errors), when the time is over (1), or by Ctrl-C or SIGTERM (130, 143); always with a word on what was done.
"""
from __future__ import annotations

import argparse
import signal
import sys

from examples.batch.job import run
from pooledhttp import Client, Context


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m examples.batch", description="Says how large is what each URL gives.")
    arguments.add_argument("--workers", type=int, default=16)
    arguments.add_argument("--seconds", type=float, help="for all of it (default: no limit)")
    arguments.add_argument("urls", nargs="+", metavar="URL")
    options = arguments.parse_args()
    context = Context(timeout=options.seconds)
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not by an exception: that would leave the loop over the results wherever it is. A cancel may come from a signal's handler.
        signal.signal(number, lambda number, frame: context.cancel(number))
    with Client(max_idle_conns_per_host=options.workers, timeout=30.0) as client:
        outcome = run(client, options.urls, context, options.workers)
    for url, size in outcome.sizes.items():
        print(f"{size:>12,} {url}")
    for url, error in outcome.errors.items():
        print(f"{url}: {error}", file=sys.stderr)
    print(f"{len(outcome.sizes)} done, {len(outcome.errors)} failed, {len(outcome.left)} left")
    if context.cancelled:
        return 128 + int(context.reason)
    return 1 if outcome.errors or outcome.left else 0


if __name__ == "__main__":
    sys.exit(main())
