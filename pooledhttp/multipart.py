"""Bodies of several parts: multipart/form-data (RFC 7578), streamed from where the parts are.

Names and file names stand in quotes as the WHATWG has it (HTML, "multipart/form-data encoding algorithm"): UTF-8, with a quote, CR and LF
percent-encoded. Other control characters are too, and a backslash at the end, which some servers read as an escape of the closing quote.
"""
from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from pooledhttp._proto.writer import field_block
from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.content import PIECE, BodySource, encode_content
from pooledhttp.errors import LocalProtocolError
from pooledhttp.headers import HeaderTypes, header_fields
from pooledhttp.url import flatten, scalar

if TYPE_CHECKING:
    from typing import IO, TypeAlias

FileContent: TypeAlias = "bytes | str | IO[bytes] | Iterable[bytes]"
FileValue: TypeAlias = ("FileContent | tuple[str | None, FileContent] | tuple[str | None, FileContent, str | None] "
                        "| tuple[str | None, FileContent, str | None, HeaderTypes]")
RequestFiles: TypeAlias = "Mapping[str, FileValue] | Iterable[tuple[str, FileValue]]"

_CODED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}      # what a file of that coding is as it stands
_BCHARS = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'()+_,-./:=? ")      # RFC 2046 section 5.1.1
_QUOTED = [b"%%%02X" % b if b < 32 or b in b'"\x7f' else bytes((b,)) for b in range(256)]


class MultipartBody(BodySource):
    """Parts with a boundary before each: `parts` are (head, content) each. The length is known where every part's is."""

    __slots__ = ("boundary", "parts")

    def __init__(self, parts: list[tuple[bytes, bytes | BodySource]], boundary: bytes) -> None:
        self.parts = parts
        self.boundary = boundary
        total = len(boundary) + 6                       # the end
        unknown = False
        for head, content in parts:
            size = content.length if isinstance(content, BodySource) else len(content)
            if size is None:
                unknown = True
            else:
                total += len(boundary) + 4 + len(head) + size + 2
        super().__init__(None if unknown else total)

    def rewind(self) -> bool:
        return all(content.rewind() for _, content in self.parts if isinstance(content, BodySource)) and super().rewind()

    def pieces(self) -> Iterator[Any]:
        return self._walk(whole=False)

    def spans(self) -> Iterator[Any]:
        # In a chunked body no part of a file can go from the kernel.
        return self._walk(whole=self.length is not None)

    def _walk(self, whole: bool) -> Iterator[Any]:
        small: list[bytes] = []                         # goes together
        size = 0
        for head, content in self.parts:
            small += (b"--", self.boundary, b"\r\n", head)
            size += len(head) + len(self.boundary) + 4
            if isinstance(content, BodySource):
                yield b"".join(small)
                small, size = [b"\r\n"], 2
                yield from content.sendable() if whole else content
            else:
                small += (content, b"\r\n")
                size += len(content) + 2
                if size >= PIECE:
                    yield b"".join(small)
                    small, size = [], 0
        yield b"".join((*small, b"--", self.boundary, b"--\r\n"))


def _quoted(what: str, text: str | bytes) -> bytes:
    if isinstance(text, str):
        try:
            text = text.encode("utf-8", "surrogateescape")          # a file's name that is no text goes as its bytes
        except UnicodeEncodeError:
            raise LocalProtocolError(f"a lone surrogate in the {what} of a part") from None
    escaped = b"".join([_QUOTED[b] for b in text])
    return b'"%b"' % (escaped[:-1] + b"%5C" if escaped.endswith(b"\\") else escaped)


def _guess(filename: str) -> str:
    from mimetypes import guess_type

    kind, coding = guess_type(filename)
    if coding is not None:
        kind = _CODED.get(coding)
    return kind or "application/octet-stream"


def _name_of(file: Any) -> str | None:
    """The last part of a file's own name; None where it has none, as "<stdin>" and a descriptor's number are."""
    name = getattr(file, "name", None)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not isinstance(name, str) or (name[:1] == "<" and name[-1:] == ">"):
        return None
    return os.path.basename(name) or None


def _field_name(name: Any) -> str | bytes:
    if isinstance(name, (str, bytes)):
        return name
    raise TypeError(f"the name of a form's field is a str, not {type(name).__name__}")


def _head(name: str | bytes, filename: str | bytes | None, kind: str | None, headers: HeaderTypes) -> bytes:
    lines = [] if headers is None else [(key, value) for key, value in header_fields(headers)]
    given = {key.lower() if isinstance(key, str) else bytes(key).lower().decode("latin-1") for key, _ in lines}
    head = b""
    if "content-disposition" not in given:
        head = b"Content-Disposition: form-data; name=" + _quoted("name", name)
        if filename is not None:
            head += b"; filename=" + _quoted("file name", filename)
        head += b"\r\n"
    if kind is not None and "content-type" not in given:
        lines.insert(0, ("Content-Type", kind))
    return head + field_block(lines) + b"\r\n"


def _file(name: str | bytes, value: Any) -> tuple[bytes, bytes | BodySource]:
    kind: str | None = None
    headers: HeaderTypes = None
    filename: Any
    if isinstance(value, (tuple, list)):
        if not 2 <= len(value) <= 4:
            raise TypeError(f"a file is (filename, file[, content_type[, headers]]), not {len(value)} values")
        filename, content, *more = value
        kind = more[0] if more else None
        headers = more[1] if len(more) > 1 else None
        if filename is not None:
            filename = os.fspath(filename)
    else:
        content = value
        filename = _name_of(value) or name
    body = encode_content(content)
    if kind is None and filename is not None:
        kind = _guess(os.fsdecode(filename))
    return _head(name, filename, kind, headers), body


def _field(name: Any, value: Any) -> tuple[bytes, bytes]:
    value = scalar(value)
    return _head(_field_name(name if isinstance(name, bytes) else scalar(name)), None, None, None), value.encode("utf-8") if isinstance(value, str) else value


def check_boundary(boundary: str) -> str:
    """RFC 2046 section 5.1.1: 1 to 70 of certain characters, the last no space. LocalProtocolError for another."""
    if not 1 <= len(boundary) <= 70 or not _BCHARS.issuperset(boundary) or boundary[-1] == " ":
        raise LocalProtocolError("the boundary of a multipart body is 1 to 70 letters, digits and '()+_,-./:=? (RFC 2046 section 5.1.1)")
    return boundary


def _boundary_of(content_type: str) -> str | None:
    """What a Content-Type says; None where it has no boundary."""
    for parameter in content_type.split(";")[1:]:                   # no boundary holds a semicolon, nor a quote
        key, _, value = parameter.partition("=")
        if key.strip(" \t").lower() == "boundary":
            value = value.strip(" \t")
            return check_boundary(value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value)
    return None


def encode_multipart(files: RequestFiles, data: Any = None, content_type: str | None = None) -> tuple[bytes | BodySource | None, str | None]:
    """The body of the fields in `data` (a mapping or pairs) and then of `files`, and its Content-Type; (None, None) without a file.

    `content_type` is the caller's own: its boundary is taken, and where a "multipart/..." has none, that is added. Otherwise
    the boundary is random. TypeError for what is no file, LocalProtocolError for a name or header that would break its part.
    """
    if isinstance(files, (str, bytes)) or not isinstance(files, Iterable):
        raise TypeError(f"files are a mapping or (name, file) pairs, not {type(files).__name__}")
    pairs = list(files.items() if isinstance(files, Mapping) else files)
    if not pairs:
        return None, None
    if isinstance(data, (str, bytes)) or hasattr(data, "read"):
        raise TypeError("data= beside files= is the form's other fields: a mapping or (name, value) pairs")
    parts: list[tuple[bytes, bytes | BodySource]] = [] if data is None else [_field(name, value) for name, value in flatten(data)]
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError("files are a mapping or (name, file) pairs")
        parts.append(_file(_field_name(pair[0]), pair[1]))
    kind = "multipart/form-data"
    boundary = None
    if content_type is not None and content_type[:10].lower() == "multipart/":
        kind = content_type.rstrip("; \t")
        boundary = _boundary_of(content_type)
    if boundary is None:
        boundary = os.urandom(16).hex()
        kind += f"; boundary={boundary}"
    body = MultipartBody(parts, boundary.encode("ascii"))
    in_memory = body.length is not None and body.length <= PIECE and not any(isinstance(content, BodySource) for _, content in parts)
    return b"".join(body) if in_memory else body, kind
