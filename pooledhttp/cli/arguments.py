"""What the command is told: its options, and what they mean for the client."""
from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from pooledhttp._version import __version__
from pooledhttp.errors import Error
from pooledhttp.request import Request
from pooledhttp.timeout import Timeout

_EXIT = """exit status (where several apply, the highest):
    0  every URL was answered below 400
    1  something unexpected
    2  bad usage, or a URL that cannot be used
    3  an answer of 400 or more
    4  no answer, or not the whole of it (name, connection, TLS, protocol, --max-bytes)
    5  a limit of time passed
    6  a file, or the output, could not be written or read
  130  Ctrl-C (143: SIGTERM, 129: SIGHUP); what was done until then is shown
  141  nobody reads the output any more
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, and not the whole usage."""
        self.exit(2, f"{self.prog}: {message} (--help says more)\n")


def parser(prog: str) -> argparse.ArgumentParser:
    p = _Parser(
        prog=prog, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, epilog=_EXIT,
        description="Fetch URLs over pooled connections, and show for each its status, size, time and connection,\nthen the pool's statistics.")
    p.add_argument("urls", metavar="URL", nargs="*", help="- reads URLs from standard input, one a line")
    p.add_argument("-i", "--input", metavar="FILE", action="append", default=[],
                   help="URLs from a file, one a line, as they come; # begins a comment; - is standard input")
    p.add_argument("-c", "--workers", metavar="N", type=int, default=1, help="how many are fetched at once (default 1)")
    out = p.add_argument_group("output")
    out.add_argument("--json", action="store_true",
                     help="one JSON object a line: url, status, bytes, seconds, timings, reused, conn, error, headers, file")
    out.add_argument("-o", "--output", metavar="DIR",
                     help="save each body below 400 in a file of its own in DIR, named after its URL; what is there is never overwritten")
    out.add_argument("-v", "--verbose", action="store_true", help="on standard error, each step of each request as it happens")
    out.add_argument("-q", "--quiet", action="store_true", help="say nothing of what went well")
    out.add_argument("--no-progress", action="store_true", help="no bar (there is one where standard error is a terminal)")
    req = p.add_argument_group("requests")
    req.add_argument("-X", "--request", metavar="METHOD", help="the method (default GET, POST with a body)")
    req.add_argument("-I", "--head", action="store_true", help="the same as -X HEAD")
    req.add_argument("-H", "--header", metavar="'NAME: VALUE'", action="append", default=[], help="'NAME:' takes a default one away")
    req.add_argument("-d", "--data", metavar="DATA", action="append", default=[],
                     help="the body, a form unless -H says otherwise; @FILE from a file, - from standard input; several are joined by &")
    req.add_argument("--json-body", metavar="JSON", help="the body, as JSON; @FILE from a file, - from standard input")
    req.add_argument("-u", "--user", metavar="USER:PASSWORD", help="basic authentication")
    req.add_argument("--no-follow", action="store_true", help="a redirect is an answer like any other, and not followed")
    req.add_argument("--retries", metavar="N", type=int, default=0,
                     help="tries after the first, where it failed or was answered 429, 502, 503 or 504, and may be repeated (default 0)")
    limits = p.add_argument_group("limits")
    limits.add_argument("--timeout", metavar="S", type=float, help="seconds for each request, everything included")
    limits.add_argument("--connect-timeout", metavar="S", type=float, help="seconds for name and TCP (default 10, unless --timeout is given)")
    limits.add_argument("--read-timeout", metavar="S", type=float, help="the longest silence, in seconds (default 60, unless --timeout is given)")
    limits.add_argument("--max-bytes", metavar="N", type=int, help="the greatest body")
    tls = p.add_argument_group("TLS")
    tls.add_argument("-k", "--insecure", action="store_true", help="accept any certificate")
    tls.add_argument("--cacert", metavar="FILE", help="whom to trust instead of the usual authorities: a PEM file, or a directory")
    tls.add_argument("--cert", metavar="FILE", help="the client's certificate, in PEM")
    tls.add_argument("--key", metavar="FILE", help="its key, where it is not in the same file")
    p.add_argument("--version", action="version", version=f"pooledhttp {__version__}")
    return p


class Body:
    """What each request sends: bytes; or a file, opened for each, since each reads it from its begin."""

    def __init__(self, data: bytes | None, path: str | None = None) -> None:
        self.data = data
        self.path = path

    @classmethod
    def of(cls, given: str) -> Body:
        """From `@FILE`, `-`, or the body itself. OSError where it cannot be read."""
        path = "-" if given == "@-" else given.removeprefix("@") if given.startswith("@") else given if given == "-" else None
        if path is None:
            return cls(os.fsencode(given))
        if path == "-":
            if sys.stdin is None:
                raise OSError("standard input is closed")
            return cls(sys.stdin.buffer.read())
        with open(path, "rb") as f:
            if stat.S_ISREG(os.fstat(f.fileno()).st_mode):
                return cls(None, path)
            return cls(f.read())

    def whole(self) -> bytes:
        if self.path is None:
            return self.data or b""
        with open(self.path, "rb") as f:
            return f.read()


class Settings:
    """The command line, understood. Raises ValueError or OSError, in words for the user, for what makes no sense."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.urls: list[str] = args.urls
        self.inputs: list[str] = args.input
        self.workers: int = args.workers
        self.json: bool = args.json
        self.quiet: bool = args.quiet
        self.directory: str | None = args.output
        self.bar: bool = not (args.no_progress or args.quiet or args.verbose)
        if not self.urls and not self.inputs:
            raise ValueError("no URL is given")
        if self.workers < 1:
            raise ValueError("-c takes at least 1 worker")
        if args.retries < 0:
            raise ValueError("--retries is not negative")
        if args.max_bytes is not None and args.max_bytes < 0:
            raise ValueError("--max-bytes is not negative")
        if args.head and (args.request or args.data or args.json_body is not None):
            raise ValueError("-I goes with neither -X nor a body")
        if args.data and args.json_body is not None:
            raise ValueError("-d and --json-body exclude each other")
        stdin = [*self.urls, *self.inputs, *(d.removeprefix("@") for d in (*args.data, args.json_body or ""))].count("-")
        if stdin > 1:
            raise ValueError("standard input can be read once")
        self.method: str = "HEAD" if args.head else args.request or ("POST" if args.data or args.json_body is not None else "GET")
        if self.directory is not None and self.method.upper() == "HEAD":
            raise ValueError("-o: a HEAD has no body to save")
        self.headers = [self._header(h) for h in args.header]
        self.body = self._body(args)
        if self.directory is not None and not os.path.isdir(self.directory):
            raise ValueError(f"-o: {'not a' if os.path.exists(self.directory) else 'no such'} directory: {self.directory}")
        self.client: dict[str, Any] = {
            "headers": self.headers, "timeout": self._timeout(args), "max_response_bytes": args.max_bytes, "disable_compression": True,
            "follow_redirects": not args.no_follow, "retries": args.retries,
            "max_idle_conns": max(200, self.workers), "max_idle_conns_per_host": max(100, self.workers)}
        if args.verbose:
            from pooledhttp.cli.spoken import Spoken

            self.client["trace"] = Spoken
        self._trust(args)
        if args.user is not None:
            user, colon, password = args.user.partition(":")
            if not colon:
                raise ValueError("-u takes USER:PASSWORD")
            self.client["auth"] = (user, password)
        try:
            Request(self.method, "http://localhost/", headers=[(n, v) for n, v in self.headers if v is not None],
                    content=b"" if self.body is not None else None).wire()
        except Error as e:
            raise ValueError(str(e)) from None

    @staticmethod
    def _header(given: str) -> tuple[str, str | None]:
        name, colon, value = given.partition(":")
        if not colon:
            raise ValueError(f"-H takes 'Name: value', not {given.split(' ')[0]!r}")
        return name.strip(), value.strip() or None

    def _body(self, args: argparse.Namespace) -> Body | None:
        kind = None
        body = None
        if args.json_body is not None:
            import json

            kind, body = "application/json", Body.of(args.json_body)
            try:
                json.loads(body.whole())
            except ValueError as e:
                raise ValueError(f"--json-body: not JSON: {e}") from None
        elif args.data:
            kind = "application/x-www-form-urlencoded"
            parts = [Body.of(d) for d in args.data]
            body = parts[0] if len(parts) == 1 else Body(b"&".join([part.whole() for part in parts]))
        if kind is not None and not any(name.lower() == "content-type" for name, _ in self.headers):
            self.headers.append(("Content-Type", kind))
        return body

    @staticmethod
    def _timeout(args: argparse.Namespace) -> Timeout:
        limits = {}
        for name in ("connect", "read"):
            value = getattr(args, name + "_timeout")
            if value is not None:
                limits[name] = value
        return Timeout(args.timeout, **limits)

    def _trust(self, args: argparse.Namespace) -> None:
        if args.insecure and args.cacert is not None:
            raise ValueError("-k and --cacert exclude each other")
        if args.key is not None and args.cert is None:
            raise ValueError("--key goes with --cert")
        for path in (args.cacert, args.cert, args.key):
            if path is not None and not os.path.isdir(path):
                with open(path, "rb"):               # no request is made with half of what was meant
                    pass
        if args.insecure:
            self.client["verify"] = False
        elif args.cacert is not None:
            self.client["verify"] = args.cacert
        if args.cert is not None:
            self.client["cert"] = args.cert if args.key is None else (args.cert, args.key)


def settings(argv: Sequence[str] | None, prog: str) -> Settings:
    """SystemExit with status 2 and a line for what cannot be meant."""
    p = parser(prog)
    args = p.parse_args(argv)
    try:
        return Settings(args)
    except OSError as e:
        p.error(f"{e.filename}: {e.strerror}" if e.filename is not None else str(e))
    except (ValueError, TypeError) as e:
        p.error(" ".join(str(e).split()))
