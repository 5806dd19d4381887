"""Text cut into lines, and `Link` fields into links."""
from __future__ import annotations


class LineSplitter:
    """Lines, without their ends (LF, CR LF, CR), from text that comes in pieces cut anywhere."""

    __slots__ = ("_cr", "_parts")

    def __init__(self) -> None:
        self._parts: list[str] = []      # of the line that has not ended; joined once, so that a long line costs no square
        self._cr = False                 # the last piece ended in CR: an LF may belong to it

    def feed(self, text: str) -> list[str]:
        """The lines that end in `text`."""
        if self._cr:
            text = "\r" + text
            self._cr = False
        if text.endswith("\r"):
            text = text[:-1]
            self._cr = True
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines = text.split("\n")
        if len(lines) == 1:
            if text:
                self._parts.append(text)
            return []
        if self._parts:
            self._parts.append(lines[0])
            lines[0] = "".join(self._parts)
        rest = lines.pop()
        self._parts = [rest] if rest else []
        return lines

    def end(self) -> list[str]:
        """The last line, where the text does not end in a line end."""
        lines = ["".join(self._parts)] if self._parts or self._cr else []
        self._parts = []
        self._cr = False
        return lines


def _quoted_split(text: str, mark: str) -> list[str]:
    """`text` at each `mark` outside "..." and <...>."""
    out = []
    start = 0
    inside = ""
    skip = False
    for i, ch in enumerate(text):
        if skip:
            skip = False
        elif inside:
            if ch == "\\" and inside == '"':
                skip = True
            elif ch == inside:
                inside = ""
        elif ch == '"':
            inside = '"'
        elif ch == "<":
            inside = ">"
        elif ch == mark:
            out.append(text[start:i])
            start = i + 1
    out.append(text[start:])
    return out


def parse_links(value: str) -> list[dict[str, str]]:
    """A `Link` field's value (RFC 8288 section 3) as one dict a link: "url", and its parameters by lower-case name."""
    links = []
    for part in _quoted_split(value, ","):
        head, *params = _quoted_split(part.strip(), ";")
        head = head.strip()
        if not (head.startswith("<") and head.endswith(">")):
            continue
        link = {"url": head[1:-1]}
        for param in params:
            name, _, text = param.partition("=")
            name, text = name.strip().lower(), text.strip()
            if len(text) > 1 and text[0] == text[-1] == '"':
                text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
            if name and name not in link:
                link[name] = text
        links.append(link)
    return links
