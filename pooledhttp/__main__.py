"""`python -m pooledhttp URL [URL ...]`: fetch, and show what the pool did."""
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from pooledhttp._version import __version__
from pooledhttp.client import Client
from pooledhttp.errors import Error, InvalidURL, UnsupportedProtocol
from pooledhttp.response import Response
from pooledhttp.timeout import Timeout
from pooledhttp.url import URL


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pooledhttp",
        description="Fetch URLs over pooled connections: status, size, time and connection of each, then the pool's statistics.",
        epilog="Exit status: 0 all answered below 400; 1 one was answered otherwise or not at all; 2 bad usage.")
    parser.add_argument("urls", metavar="URL", nargs="+")
    parser.add_argument("-c", "--workers", metavar="WORKERS", type=int, default=1, help="how many are fetched at once (default 1)")
    parser.add_argument("--timeout", metavar="S", type=float, help="seconds for each request, everything included")
    parser.add_argument("--version", action="version", version=f"pooledhttp {__version__}")
    return parser


def _line(url: URL, response: Response) -> str:
    conn = response.conn
    seconds = sum(response.timings.values())
    how = "-" if conn is None else f"reused #{conn.id}" if conn.reused else f"new #{conn.id}"
    return f"{response.status_code}  {len(response.content):>11,} B  {seconds * 1000:>9.1f} ms  {how:<12}  {url.without_userinfo()}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the process's); returns its exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        urls = [URL(url) for url in args.urls]
        for url in urls:
            url.effective_port                                         # noqa: B018 - refuses a scheme we do not speak
        timeout = Timeout() if args.timeout is None else Timeout(args.timeout)
    except (InvalidURL, UnsupportedProtocol, ValueError) as e:
        parser.error(str(e))
    if args.workers < 1:
        parser.error("-c takes at least 1 worker")
    failed = False
    with Client(timeout=timeout, max_idle_conns_per_host=max(100, args.workers)) as client:
        try:
            for url, result in zip(urls, client.map(urls, workers=args.workers, return_exceptions=True), strict=True):
                if isinstance(result, Response):
                    failed = failed or result.status_code >= 400
                    print(_line(url, result), flush=True)
                else:
                    failed = True
                    name = type(result).__name__ if isinstance(result, Error) else f"unexpected {type(result).__name__}"
                    print(f"{name}: {' '.join(str(result).split())}: {url.redacted}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        print()
        print(client.transport.stats())
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has enough of it. What is still buffered must not be tried once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)
