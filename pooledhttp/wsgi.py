"""A transport that calls a WSGI application in this process, on the requesting thread: no server, no port, no network (PEP 3333)."""
from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from time import perf_counter

from pooledhttp._typing import TYPE_CHECKING, Any, TypeAlias
from pooledhttp.content import BodySource
from pooledhttp.errors import RemoteProtocolError
from pooledhttp.headers import Headers
from pooledhttp.request import Request
from pooledhttp.response import Response

if TYPE_CHECKING:
    from types import TracebackType

    ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
    App: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_NO_BODY = frozenset((204, 304))


class WSGITransport:
    """`app` answers every request: `Client(transport=WSGITransport(app), base_url="http://testserver")`.

    Bodies are streamed both ways: the app reads the request's as it is made, and is asked for the next piece of its own when the
    response is read. It is called by as many threads at once as there are. `script_name` is where it is mounted: a path that begins so is
    split into SCRIPT_NAME and PATH_INFO. `remote_addr` is REMOTE_ADDR.

    What the app raises, the caller gets, also where it tells `start_response` of it (`exc_info`). With `raise_app_exceptions=False` it is
    as behind a server: a 500, or a RemoteProtocolError where the response had begun. Timeouts are not enforced: nothing interrupts a
    function that runs.
    """

    def __init__(self, app: App, *, raise_app_exceptions: bool = True, script_name: str = "", remote_addr: str = "127.0.0.1") -> None:
        if not callable(app):
            raise TypeError(f"a WSGI application is callable, and {type(app).__name__} is not")
        if script_name and (not script_name.startswith("/") or script_name.endswith("/")):
            raise ValueError(f"a script_name begins with a slash and does not end with one: {script_name!r}")
        self.app = app
        self.raise_app_exceptions = raise_app_exceptions
        self.script_name = script_name
        self.remote_addr = remote_addr
        self.closed: bool = False

    def round_trip(self, request: Request, *, timeout: Any = None, context: Any = None) -> Response:
        """Calls the app: the response as soon as it has begun, its body unread."""
        if self.closed:
            raise RuntimeError("the transport is closed")
        began = perf_counter()
        environ = self.environ(request)
        response = _Call(request, environ["wsgi.errors"], self.raise_app_exceptions).response(self.app, environ)
        response.elapsed = timedelta(seconds=perf_counter() - began)
        return response

    def environ(self, request: Request) -> dict[str, Any]:
        """The environment of the app's call. Bytes that are no ASCII stand as Latin-1, as PEP 3333 wants it."""
        from urllib.parse import unquote_to_bytes

        wire = request.wire()
        target, _, query = wire.target.decode("latin-1").partition("?")
        path = unquote_to_bytes(target).decode("latin-1")
        script = self.script_name.encode("utf-8").decode("latin-1")
        if script and (path == script or path.startswith(script + "/")):
            path = path[len(script):]
        body = wire.body
        out: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": script,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": wire.host,
            "SERVER_PORT": str(wire.port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": self.remote_addr,
            "HTTP_HOST": wire.authority.decode("latin-1"),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": request.url.scheme,
            "wsgi.input": io.BytesIO(body or b"") if body is None or isinstance(body, bytes) else io.BufferedReader(_Input(body)),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        if isinstance(body, BodySource) and body.length is None:
            out["HTTP_TRANSFER_ENCODING"] = "chunked"
            out["wsgi.input_terminated"] = True          # read to its end it ends: as gunicorn and others say it
        for name, value in Headers.from_wire(wire.fields).multi_items():
            key = name.upper().replace("-", "_")
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = "HTTP_" + key
            if key in out:
                value = f"{out[key]}{'; ' if key == 'HTTP_COOKIE' else ', '}{value}"
            out[key] = value
        return out

    def close_idle_connections(self) -> None:
        """There are none."""

    def close(self, *, cancel: bool = False) -> None:
        """Take no further request."""
        self.closed = True


class _Input(io.RawIOBase):
    """A request's body as a file, read from its source as the app reads it."""

    def __init__(self, body: Iterable[Any]) -> None:
        self._pieces = iter(body)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece).cast("B")
        n = min(len(buffer), len(self._rest))
        buffer[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n


class _Call:
    """One call of an app: what it said to `start_response` and `write`; then its response's body, iterated and closed by who reads it."""

    def __init__(self, request: Request, errors: Any, raising: bool) -> None:
        self._request = request
        self._errors = errors
        self._raising = raising
        self._status = 0
        self._reason = ""
        self._headers: list[tuple[str, str]] | None = None
        self._told: BaseException | None = None      # by `start_response`
        self._written: list[bytes] = []              # by `write`, or the first piece, and not handed out yet
        self._sent = False                           # the head is the caller's
        self._result: Any = None                     # what the app returned, until it is closed
        self._pieces: Iterator[bytes] = iter(())
        self._length = -1                            # Content-Length
        self._given = 0                              # bytes handed out

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None) -> Callable[[bytes], None]:
        """PEP 3333."""
        if exc_info is not None and exc_info[1] is not None:
            try:
                if self._sent:
                    raise exc_info[1].with_traceback(exc_info[2])
                self._told = exc_info[1]
            finally:
                exc_info = None                      # no cycle through the frame
        elif self._headers is not None:
            raise AssertionError("start_response() was called a second time, and without exc_info")
        code, _, reason = status.partition(" ")
        if len(code) != 3 or not (code.isascii() and code.isdigit()) or code < "200":
            raise ValueError(f"a status is three digits, of 200 and above, and a reason, not {status!r}")
        self._status, self._reason = int(code), reason
        self._headers = list(headers)
        return self._written.append

    def response(self, app: App, environ: dict[str, Any]) -> Response:
        """Runs the app to its first piece that is not empty (only then, says PEP 3333, the head is due)."""
        try:
            self._result = app(environ, self.start_response)
            self._pieces = iter(self._result)
            while not self._written:
                piece = self._next()
                if piece is None:
                    break
                if piece:
                    self._written.append(piece)
            if self._headers is None:
                raise AssertionError("the app did not call start_response() before its first piece")
            if self._told is not None and self._raising:
                raise self._told
            headers = Headers(self._headers)
        except BaseException as e:
            self.close()
            if self._raising or not isinstance(e, Exception):
                raise
            self._log(e)
            return Response(500, headers={"Content-Type": "text/plain"}, content=b"Internal Server Error", request=self._request)
        self._sent = True
        self._told = None
        if self._request.method == "HEAD" or self._status in _NO_BODY:
            self.close()
            response = Response(self._status, headers=headers, request=self._request)
        else:
            length = headers.get("content-length", "")
            self._length = int(length) if length.isascii() and length.isdigit() else -1
            response = Response(self._status, headers=headers, content=self, request=self._request)
        response.reason = self._reason
        return response

    def _next(self) -> bytes | None:
        piece = next(self._pieces, None)
        if piece is not None and not isinstance(piece, bytes):
            raise TypeError(f"a WSGI application gives bytes, not {type(piece).__name__}")
        return piece

    def __iter__(self) -> _Call:
        return self

    def __next__(self) -> bytes:
        try:
            piece = self._written.pop(0) if self._written else self._next()
        except Exception as e:
            if self._raising:
                raise
            self._log(e)
            raise self._cut_short(f"the application ended with {type(e).__name__}") from e
        if piece is None:
            if self._given < self._length:
                raise self._cut_short(f"{self._length - self._given} bytes were still to come")
            raise StopIteration
        if self._length >= 0:
            piece = piece[:self._length - self._given]           # what a server sends of it
        self._given += len(piece)
        return piece

    def _cut_short(self, why: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"the response's body was cut short: {why}", request=self._request, phase="body")

    def close(self) -> None:
        """The app's iterable is done with, at its end or before (PEP 3333: whoever has one calls its `close`, however it ended)."""
        result, self._result = self._result, None
        self._pieces = iter(())
        self._written.clear()
        close = getattr(result, "close", None)
        if close is not None:
            close()

    def __del__(self) -> None:
        self.close()

    def _log(self, e: BaseException) -> None:
        from traceback import print_exception

        print_exception(type(e), e, e.__traceback__, file=self._errors)
