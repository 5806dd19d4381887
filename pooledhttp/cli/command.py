"""The command itself: fetch, show, and say by the exit status how it went."""
from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import NoReturn

from pooledhttp.cli.arguments import Settings, settings
from pooledhttp.cli.fetching import FILES, OK, USAGE, Fetcher
from pooledhttp.cli.inputs import Inputs, Job
from pooledhttp.cli.output import Bar, Output, OutputLost
from pooledhttp.cli.saving import Names
from pooledhttp.client import Client
from pooledhttp.errors import Cancelled
from pooledhttp.fanout import LATER, Threads, spread
from pooledhttp.transport import Canceller

_BROKEN_PIPE = 128 + signal.SIGPIPE


class Ended(KeyboardInterrupt):
    """A signal asks the command to end, as Ctrl-C does."""

    signum: int = signal.SIGINT


def _jobs(inputs: Inputs, names: Names | None) -> Iterator[object]:
    index = 0
    for text in inputs:
        if text is LATER:
            yield text
            continue
        assert isinstance(text, str)
        yield Job(index, text, names)
        index += 1


def _run(what: Settings, client: Client, inputs: Inputs, output: Output, bar: Bar) -> int:
    cancel = Canceller()
    fetch = Fetcher(client, what.method, what.body, cancel)
    names = None if what.directory is None else Names(what.directory)
    results = spread(_jobs(inputs, names), Threads(fetch, cancel, what.workers), ahead=2 * what.workers,
                     progress=bar.update if bar.on else None, total=inputs.total if bar.on else None)
    code, shown = OK, 0
    try:
        with closing(results):  # type: ignore[type-var]  # a generator
            for result in results:
                del fetch.finished[result.job.index]
                output.result(result)
                shown += 1
                code = max(code, result.code)
    except KeyboardInterrupt as e:
        for _, result in sorted(fetch.finished.items()):        # done, and waiting for their turn
            if not isinstance(result.error, Cancelled):
                output.result(result)
                shown += 1
        output.complain(f"interrupted: {shown} done")
        code = 128 + getattr(e, "signum", signal.SIGINT)
    except OSError as e:
        if isinstance(e, BrokenPipeError):
            raise
        output.complain(f"the input: {e.strerror or e}")
        code = max(code, FILES)
    bar.hide()
    output.stats(client.transport.stats())
    return code


def main(argv: Sequence[str] | None = None, prog: str = "pooledhttp") -> int:
    """Run the command with these arguments (default: the process's); its exit status.

    SystemExit for bad usage and for `--help`; BrokenPipeError and OutputLost where nobody takes the output.
    """
    what = settings(argv, prog)
    bar = Bar(what.bar)
    output = Output(bar, as_json=what.json, quiet=what.quiet)
    try:
        inputs = Inputs(what.urls, what.inputs)
    except OSError as e:
        output.complain(f"{prog}: {e.filename or 'standard input'}: {e.strerror}")
        return USAGE
    with closing(inputs):
        try:
            client = Client(**what.client)
        except (OSError, ValueError, TypeError) as e:              # files of certificates
            output.complain(f"{prog}: {e}")
            return USAGE
        with client:
            return _run(what, client, inputs, output, bar)


def _end(signum: int, frame: object) -> None:
    ended = Ended()
    ended.signum = signum
    raise ended


def _silence() -> None:
    """What is still buffered must not be tried once more at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):
                os.dup2(null, stream.fileno())
    os.close(null)


def script() -> NoReturn:
    """`python -m pooledhttp` and the script `pooledhttp`: never returns."""
    prog = os.path.basename(sys.argv[0]) if sys.argv else ""
    if prog in ("", "__main__.py"):
        prog = "python -m pooledhttp"
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_DFL:             # whoever ignores it, as nohup does, means it
            signal.signal(signum, _end)
    try:
        status = main(None, prog)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _silence()                                                 # whoever read the output has enough of it
        status = _BROKEN_PIPE
    except OutputLost as e:
        if sys.stderr is not None:
            print(f"{prog}: {e}", file=sys.stderr)
        _silence()
        status = FILES
    except KeyboardInterrupt as e:                                 # before the first request, or a second one
        status = 128 + getattr(e, "signum", signal.SIGINT)
    sys.exit(status)
