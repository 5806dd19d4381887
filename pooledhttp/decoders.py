"""Content codings (RFC 9110 section 8.4) undone, in steps of bounded output: a few bytes never become more memory than was asked for.

gzip and deflate are always there; br with `brotli` or `brotlicffi` from 1.2 on (older ones cannot be bounded); zstd with Python 3.14,
`backports.zstd` or `zstandard`. What is there is looked for once, when a request or a response first needs to know.
"""
from __future__ import annotations

import sys
from collections.abc import Callable
from io import BytesIO
from threading import Lock

from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.errors import DecodingError, ResponseTooLarge, StreamError
from pooledhttp.replies import BytesReply, too_large

if TYPE_CHECKING:
    from pooledhttp.headers import Headers

CHUNK = 65536                # bytes of coded body read at once
SLICE = 16384                # of members behind the first, fed at once: what is behind a member is copied at its end
STEP = 65536                 # bytes of output that a decoder makes at least room for
WHOLE = sys.maxsize          # room for all
MAX_CODINGS = 5              # one on top of the other: more is an attack
MAX_BEHIND = 65536           # bytes behind the end of the coded data that are passed over
ZSTD_WINDOW = 23             # log2 of the bytes that a frame may make us keep (RFC 9659)


ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Excess(ValueError):
    """Too much behind the end."""


class Codec:
    """One coding. `feed` takes all of `data`, and gives at most about `room` bytes; what is left is given by feed(b"") while `more` is set."""

    more = False
    errors: tuple[type[Exception], ...] = ()

    def feed(self, data: bytes, room: int) -> bytes:
        raise NotImplementedError

    @property
    def complete(self) -> bool:
        """The coded data may end here. So it may before its first byte: an empty body is empty in any coding."""
        raise NotImplementedError


class Members(Codec):
    """Codings of one or more members, one behind the other. What follows the last and begins no other is padding: passed over, up to a limit."""

    lead = 2                     # bytes that tell whether a member begins

    def __init__(self) -> None:
        self._member: Any = None
        self._ended = 0          # members
        self._rest = b""         # not taken yet
        self._later = memoryview(b"")        # behind that
        self._behind = -1        # bytes passed over; -1: still in the members

    def feed(self, data: bytes, room: int) -> bytes:
        if self._later and len(self._rest) < self.lead:          # nothing else comes while there is any
            data = bytes(self._later[:SLICE])
            self._later = self._later[SLICE:]
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if self._ended and len(data) > 2 * SLICE:
            self._later = memoryview(data)[SLICE:]
            data = data[:SLICE]
        self.more = bool(self._later)
        if self._member is None and not self._begin(data):
            return b""
        out = self._decode(self._member, data, room)
        if self._member.eof:
            self._rest = self._member.unused_data
            self._member = None
            self._ended += 1
            self.more = bool(self._rest)
        self.more = self.more or bool(self._later)
        return out

    def _begin(self, data: bytes) -> bool:
        if self._behind < 0:
            if len(data) < self.lead:
                self._rest = data
                return False
            if not self._ended or self._follows(data):
                self._member = self._new(data)
                return True
            self._behind = 0
        self._behind += len(data)
        if self._behind > MAX_BEHIND:
            raise Excess(f"more than {MAX_BEHIND} bytes behind its end")
        return False

    def _follows(self, data: bytes) -> bool:
        """Whether `data`, behind a member, begins another."""
        return False

    def _new(self, data: bytes) -> Any:
        raise NotImplementedError

    def _decode(self, member: Any, data: bytes, room: int) -> bytes:
        raise NotImplementedError

    @property
    def complete(self) -> bool:
        return self._member is None and (self._ended > 0 or not self._rest)


class Gzip(Members):
    """RFC 1952."""

    def __init__(self) -> None:
        super().__init__()
        import zlib

        self.errors = (zlib.error, Excess)
        self._make = zlib.decompressobj

    def _follows(self, data: bytes) -> bool:
        return data.startswith(b"\x1f\x8b")

    def _new(self, data: bytes) -> Any:
        return self._make(31)

    def _decode(self, member: Any, data: bytes, room: int) -> bytes:
        out: bytes = member.decompress(data, room)
        self._rest = member.unconsumed_tail
        self.more = len(out) >= room             # zlib may hold back output that no input is left of
        return out


class Deflate(Gzip):
    """RFC 1950, as the name means; or RFC 1951 alone, as some servers understood it."""

    def _follows(self, data: bytes) -> bool:
        return False

    def _new(self, data: bytes) -> Any:
        wrapped = data[0] & 15 == 8 and data[0] >> 4 < 8 and int.from_bytes(data[:2], "big") % 31 == 0
        return self._make(15 if wrapped else -15)


class Brotli(Codec):
    """RFC 7932."""

    def __init__(self) -> None:
        module = _brotli()
        self.errors = (module.error,)
        self._decoder = module.Decompressor()
        self._begun = False

    def feed(self, data: bytes, room: int) -> bytes:
        self._begun = True
        room = min(room, 4 * STEP)               # brotlicffi makes all of it at once, whatever comes
        out: bytes = self._decoder.process(data, output_buffer_limit=room)
        self.more = bool(out) and (len(out) >= room or not self._decoder.can_accept_more_data())
        return out

    @property
    def complete(self) -> bool:
        return not self._begun or bool(self._decoder.is_finished())


class Zstd(Members):
    """RFC 8878, by a module like Python 3.14's `compression.zstd`."""

    lead = 4

    def __init__(self) -> None:
        super().__init__()
        module = _zstd()
        self.errors = (module.ZstdError, Excess)
        self._options: object = None
        self._make: Callable[..., Any] = ZstdFrame
        if hasattr(module, "DecompressionParameter"):
            self._options = {module.DecompressionParameter.window_log_max: ZSTD_WINDOW}
            self._make = module.ZstdDecompressor

    def _follows(self, data: bytes) -> bool:
        return data.startswith(ZSTD_MAGIC) or _skippable(data)

    def _new(self, data: bytes) -> Any:
        return self._make(options=self._options)

    def _decode(self, member: Any, data: bytes, room: int) -> bytes:
        out: bytes = member.decompress(data, room)
        self.more = not (member.eof or member.needs_input)
        return out


def _skippable(data: bytes) -> bool:
    return data[1:4] == b"\x2a\x4d\x18" and data[0] >> 4 == 5


class ZstdFrame:
    """A frame as `compression.zstd.ZstdDecompressor` does it, by the package `zstandard`.

    That one's output can be bounded by nothing but its input: so it is fed a block at a time, which makes 128 KiB at most
    (RFC 8878 section 3.1.1).
    """

    def __init__(self, options: object) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._frame = zstandard.ZstdDecompressor(max_window_size=1 << ZSTD_WINDOW).decompressobj()
        self._unit = self._header
        self._rest = b""
        self._at = 0                     # where in it the next unit begins
        self._skip = 0                   # bytes to come of a skippable frame
        self._sum = False                # a checksum ends the frame
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        at, out = self._at, b""
        if data:
            data, at = self._rest[at:] + data, 0
        else:
            data = self._rest
        while not out and not self.eof:
            size = self._unit(data, at)
            if size == 0 or len(data) - at < size:
                break
            if self._skip:
                self._skip -= size
                self.eof = not self._skip
            else:
                out = self._frame.decompress(data[at:at + size])
                self.eof = self._frame.eof
            at += size
        self._rest, self._at = data, at
        if self.eof:
            self.unused_data = data[at:]
        self.needs_input = not out
        return out

    # Each says of how many bytes the next unit is, which begins at `at`, and what comes behind it; 0 where too few are there to say.

    def _header(self, data: bytes, at: int) -> int:
        if data[at:at + 4] != ZSTD_MAGIC:
            if not _skippable(data[at:]):
                return len(data) - at                    # it says what is wrong
            if len(data) - at < 8:
                return 0
            self._skip = 8 + int.from_bytes(data[at + 4:at + 8], "little")
            self._unit = self._skipped
            return self._skipped(data, at)
        if len(data) - at < 5:
            return 0
        flags = data[at + 4]
        single = flags >> 5 & 1
        size = 6 - single + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
        if len(data) - at >= size:
            self._sum = bool(flags & 4)
            self._unit = self._block
        return size

    def _skipped(self, data: bytes, at: int) -> int:
        return min(self._skip, len(data) - at)

    def _block(self, data: bytes, at: int) -> int:
        if len(data) - at < 3:
            return 0
        head = int.from_bytes(data[at:at + 3], "little")
        size = head >> 3
        if size > 1 << 17:
            raise self._error("a block of more than 128 KiB")
        size = 4 if head & 6 == 2 else 3 + size          # a byte to be repeated
        if head & 1 and len(data) - at >= size:
            self._unit = self._last
        return size

    def _last(self, data: bytes, at: int) -> int:
        return 4 if self._sum else 0


# --- what there is ----------------------------------------------------------------------------------------------------------

_modules: dict[str, Any] = {}


def _found(name: str) -> bool:
    """Whether a top-level module is there to be imported. (importlib.util would have to be imported to ask.)"""
    return name in sys.modules or any(finder.find_spec(name, None) is not None for finder in sys.meta_path if hasattr(finder, "find_spec"))


def _brotli() -> Any:
    """A module that decodes br with a limit, or None."""
    if "br" not in _modules:
        from importlib import import_module

        candidates = [import_module(name) for name in ("brotli", "brotlicffi") if _found(name)]
        _modules["br"] = next((module for module in candidates if hasattr(module.Decompressor, "can_accept_more_data")), None)
    return _modules["br"]


def _zstd() -> Any:
    """`compression.zstd` or its like, or `zstandard`, or None."""
    if "zstd" not in _modules:
        from importlib import import_module

        module = None
        if _found("_zstd"):
            module = import_module("compression.zstd")
        elif _found("backports"):
            try:
                module = import_module("backports.zstd")
            except ImportError:                          # a namespace, and it has other parts only
                module = None
        if module is None and _found("zstandard"):
            module = import_module("zstandard")
        _modules["zstd"] = module
    return _modules["zstd"]


def _codec(coding: str) -> Callable[[], Codec] | None:
    """What undoes a coding (in lower case); None where nothing here does."""
    if coding in ("gzip", "x-gzip"):
        return Gzip
    if coding == "deflate":
        return Deflate
    if coding == "br" and _brotli() is not None:
        return Brotli
    if coding == "zstd" and _zstd() is not None:
        return Zstd
    return None


def versions() -> dict[str, str | bool]:
    """For `features()`: what does each coding, or False."""
    import zlib
    from importlib.metadata import PackageNotFoundError, version

    out: dict[str, str | bool] = {"gzip": f"zlib {zlib.ZLIB_RUNTIME_VERSION}"}
    for name, module in (("brotli", _brotli()), ("zstd", _zstd())):
        if module is None:
            out[name] = False
        elif module.__name__ == "compression.zstd":
            out[name] = f"{module.__name__} {module.zstd_version}"
        else:
            try:
                out[name] = f"{module.__name__} {version(module.__name__)}"
            except PackageNotFoundError:                 # a module that no package installed
                out[name] = module.__name__
    return out


_accepted = ""


def accept_encoding() -> str:
    """What `Accept-Encoding` says: the codings that are undone here."""
    global _accepted
    if not _accepted:
        _accepted = ", ".join([coding for coding in ("gzip", "deflate", "br", "zstd") if _codec(coding) is not None])
    return _accepted


# --- bodies -----------------------------------------------------------------------------------------------------------------

def codings(headers: Headers, status: int) -> tuple[str, ...]:
    """What is to be undone, in the order in which it was done; () where a coding is unknown, or a part of a coded whole (206) came."""
    if status == 206:
        return ()
    names = [coding.lower() for coding in headers.get_list("content-encoding", split_commas=True)]
    names = [name for name in names if name not in ("", "identity")]
    return tuple(names) if None not in map(_codec, names) else ()


class Decoded:
    """The decoded body behind `reply`, whose `read(n)` gives the coded one; read as a Reply is. Raises DecodingError where it is broken."""

    def __init__(self, reply: Any, names: tuple[str, ...]) -> None:
        self._reply = reply
        self._names = names[::-1]                        # the last to be done is the first to be undone
        self._codecs: list[Codec] = []
        self._out = memoryview(b"")                      # decoded, and not taken yet
        self._lock = Lock()
        self.begun = False

    def read(self, n: int) -> bytes:
        """Up to n bytes, at least one; b"" at the end."""
        if not self._lock.acquire(False):
            raise StreamError("another thread reads this response")
        try:
            if not self._out:
                out = self._pull(n)
                if len(out) <= n:
                    return out
                self._out = memoryview(out)
            data = bytes(self._out[:n])
            self._out = self._out[n:]
            return data
        finally:
            self._lock.release()

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(view.nbytes)
        view[:len(data)] = data
        return len(data)

    def read_all(self, limit: int) -> bytes:
        """The rest; ResponseTooLarge where it is over `limit` bytes (-1: none)."""
        whole = BytesIO()
        while data := self.read(4 * STEP):
            whole.write(data)
            if 0 <= limit < whole.tell():
                raise ResponseTooLarge(too_large(limit), phase="body", conn=self._reply.conn)
        return whole.getvalue()

    def _pull(self, n: int) -> bytes:
        if not self.begun:
            self.begun = True
            if len(self._names) > MAX_CODINGS:
                raise self._broken(f"the body has {len(self._names)} content codings, and at most {MAX_CODINGS} are undone")
            self._codecs = [make() for make in map(_codec, self._names) if make is not None]
        return self._from(len(self._codecs) - 1, max(n, STEP))

    def _from(self, i: int, room: int) -> bytes:
        """Some output of codec number i; b"" at its end."""
        if i < 0:
            data: bytes = self._reply.read(CHUNK)
            return data
        codec = self._codecs[i]
        while True:
            data = b"" if codec.more else self._from(i - 1, STEP)
            if not data and not codec.more:
                if not codec.complete:
                    raise self._broken(f"the body ends within its {self._names[i]} coding")
                return b""
            try:
                out = codec.feed(data, room)
            except codec.errors as e:
                raise self._broken(f"the body's {self._names[i]} coding is broken: {_words(e)}") from e
            if out:
                return out

    def _broken(self, message: str) -> DecodingError:
        return DecodingError(message, phase="body", conn=self._reply.conn)


def _words(e: Exception) -> str:
    words = e.args[0] if e.args else ""
    text = words.decode("latin-1") if isinstance(words, bytes) else str(words)
    return text.rpartition(": ")[2] or type(e).__name__


def _one_member(data: bytes, limit: int) -> bytes | None:
    """A whole body that is one gzip member, of `limit` bytes at most (-1: no limit); None where it is anything else."""
    import zlib

    member = zlib.decompressobj(31)
    try:
        out = member.decompress(data, min(limit, WHOLE - 1) + 1)         # 0: room for all
    except zlib.error:
        return None
    return out if member.eof and not member.unused_data and (limit < 0 or len(out) <= limit) else None


def decode(data: bytes, names: tuple[str, ...], limit: int, conn: Any) -> bytes:
    """A whole body decoded; at most `limit` bytes (-1: no limit). DecodingError, ResponseTooLarge."""
    if not data:
        return b""
    if names in (("gzip",), ("x-gzip",)):
        out = _one_member(data, limit)                   # as nearly all coded bodies are
        if out is not None:
            return out
    at_once = limit < 0 and len(names) == 1
    body = Decoded(BytesReply(data, conn, at_once), names)
    if not at_once:
        return body.read_all(limit)
    out = body.read(WHOLE)                               # one call of the library's, but for several members
    rest = body.read_all(-1)
    return out + rest if rest else out
