"""CONNECT (RFC 9110 section 9.3.6): what is sent to a proxy for a tunnel, and what its answer means. Bytes in, facts out."""
from __future__ import annotations

from pooledhttp import errors
from pooledhttp._proto.fallback import Fallback

MAX_HEAD = 65536             # bytes of an answer's head
_SHOWN = 200                 # characters of what a proxy says that a message repeats


class Connect:
    """A tunnel through the proxy `who` (for messages) to `host` and `port`; `fields` is a checked block of further header fields.

    Send `outgoing`, then `feed` what comes, at most `room` bytes at a time, until it is True. Bytes that came behind the answer's head
    are in `early`: they are the tunnel's.
    """

    def __init__(self, who: str, host: str, port: int, fields: bytes = b"") -> None:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.outgoing = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n".encode("ascii") + fields + b"\r\n"
        self.room = 16384
        self.early = b""
        self._who = who
        self._to = authority
        self._authorized = b"\r\nproxy-authorization:" in b"\r\n" + fields.lower()
        self._answer = Fallback(b"CONNECT", MAX_HEAD)

    def feed(self, data: bytes) -> bool:
        """More of the answer, b"" where the proxy has closed: whether the tunnel is there. Raises ProxyError."""
        self._answer.feed(data)
        if not data and not self._answer.leftover:
            raise errors.ProxyError(f"the proxy {self._who} closed the connection without an answer to CONNECT {self._to}", phase="proxy")
        try:
            head = self._answer.head()
        except errors.RemoteProtocolError as exc:
            raise errors.ProxyError(f"the proxy {self._who} did not answer CONNECT {self._to} by HTTP's rules: {exc.message}", phase="proxy") from exc
        if head is None:
            return False
        if 200 <= head.status < 300:
            self.early = self._answer.leftover
            return True
        reason = head.reason.decode("latin-1")
        said = f"{head.status} {reason}".strip()
        if head.status == 407:
            advice = "it does not take the credentials given" if self._authorized else "give them in the proxy's URL"
            text = f"the proxy {self._who} wants credentials for {self._to} ({said}; {advice}){_offered(head.fields)}"
        else:
            text = f"the proxy {self._who} refused a tunnel to {self._to}: {said}"
        raise errors.ProxyError(text, phase="proxy", status_code=head.status, reason=reason)


def _offered(fields: bytes) -> str:
    """Which ways of authentication a 407 names."""
    found = [line.partition(b":")[2].strip().decode("latin-1") for line in fields.split(b"\r\n")
             if line.lower().startswith(b"proxy-authenticate:")]
    said = ", ".join(found)
    return f": {said[:_SHOWN]}" if said else ""
