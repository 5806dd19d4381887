"""What a worker does with a URL: the request, its body counted or saved, and what came of it."""
from __future__ import annotations

import os
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from pooledhttp.errors import Error, InvalidURL, LocalProtocolError, TimeoutException, UnsupportedProtocol
from pooledhttp.transport import Canceller

if TYPE_CHECKING:
    from pooledhttp.cli.arguments import Body
    from pooledhttp.cli.inputs import Job
    from pooledhttp.client import Client
    from pooledhttp.conninfo import ConnInfo
    from pooledhttp.response import Response

OK, UNEXPECTED, USAGE, STATUS, NO_ANSWER, TIMEOUT, FILES = range(7)
_CHUNK = 1 << 16


class Result:
    """What came of a job. `code` is its exit status."""

    __slots__ = ("bytes", "conn", "error", "file", "headers", "job", "redirects", "seconds", "status", "timings")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.status: int | None = None
        self.bytes = 0
        self.seconds = 0.0
        self.timings: dict[str, float] = {}
        self.conn: ConnInfo | None = None
        self.headers: list[tuple[str, str]] = []
        self.redirects: list[str] = []               # where it was led
        self.file: str | None = None
        self.error: BaseException | None = None

    @property
    def code(self) -> int:
        e = self.error
        if e is None:
            return OK if self.status is not None and self.status < 400 else STATUS
        if isinstance(e, TimeoutException):
            return TIMEOUT
        if isinstance(e, (InvalidURL, LocalProtocolError)) or (isinstance(e, UnsupportedProtocol) and e.phase is None):
            return USAGE                             # with a phase it was a server that led there
        if isinstance(e, Error):
            return NO_ANSWER
        return FILES if isinstance(e, OSError) else UNEXPECTED


class Fetcher:
    """Called with a job, on any thread. `finished` holds what was not shown yet, by the job's index."""

    def __init__(self, client: Client, method: str, body: Body | None, cancel: Canceller) -> None:
        self.client = client
        self.method = method
        self.body = body
        self.cancel = cancel
        self.finished: dict[int, Result] = {}
        self._own = threading.local()

    def __call__(self, job: Job) -> Result:
        result = Result(job)
        began = monotonic()
        try:
            if job.error is not None:
                raise job.error
            self._fetch(job, result)
        except Exception as e:
            result.error = e
            if isinstance(e, Error) and result.conn is None:
                result.conn = e.conn
        result.seconds = monotonic() - began
        self.finished[job.index] = result
        return result

    def _fetch(self, job: Job, result: Result) -> None:
        assert job.url is not None
        options: dict[str, Any] = {"stream": True}
        body = self.body
        if body is None:
            response = self.client._request(self.method, job.url, options, self.cancel)
        elif body.path is None:
            response = self.client._request(self.method, job.url, {**options, "content": body.data}, self.cancel)
        else:
            with open(body.path, "rb") as f:
                response = self.client._request(self.method, job.url, {**options, "content": f}, self.cancel)
        with response:
            result.status = response.status_code
            result.headers = response.headers.multi_items()
            result.conn = response.conn
            if response.history and response.url is not None:
                result.redirects = [str(hop.url) for hop in (*response.history[1:], response) if hop.url is not None]
            try:
                if job.path is not None and response.ok:
                    self._save(response, result, job.path)
                else:
                    self._count(response, result)
            finally:
                result.timings = response.timings

    def _buffer(self) -> memoryview:
        own = self._own
        if not hasattr(own, "buffer"):
            own.buffer = memoryview(bytearray(_CHUNK))
        buffer: memoryview = own.buffer
        return buffer

    def _count(self, response: Response, result: Result) -> None:
        buffer = self._buffer()
        while n := response.readinto(buffer):
            result.bytes += n

    def _save(self, response: Response, result: Result, path: str) -> None:
        buffer = self._buffer()
        with open(path, "xb") as f:                  # x: what is there, and a link, is never written to
            try:
                with f:
                    while n := response.readinto(buffer):
                        f.write(buffer[:n])
                        result.bytes += n
            except BaseException:
                with suppress(FileNotFoundError):    # somebody else took it away
                    os.unlink(path)
                raise
        result.file = path
