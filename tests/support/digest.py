"""The server's side of digest authentication (RFC 7616), written apart from the client's: it parses with urllib and hashes by the book."""
from __future__ import annotations

import hashlib
import threading
import urllib.request
from urllib.parse import unquote

HASHES = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}


class Digest:
    """`answer(method, target, authorization, body)` → (status, fields). `uses`: how often a nonce may be used before it is stale."""

    def __init__(self, user: str = "mufasa", password: str = "Circle of Life", realm: str = 'a "realm", quoted', *, algorithm: str | None = "SHA-256",
                 qop: str | None = "auth", userhash: bool = False, charset: bool = False, opaque: str | None = 'o"p=q', uses: int = 1 << 30,
                 nextnonce: bool = False) -> None:
        self.user = user
        self.password = password
        self.realm = realm
        self.algorithm = algorithm
        self.qop = qop
        self.userhash = userhash
        self.charset = charset
        self.opaque = opaque
        self.uses = uses
        self.nextnonce = nextnonce
        self.counts: dict[str, list[int]] = {}        # by nonce: the counts that were seen
        self.challenged = 0                           # requests that bore no answer
        self.stale = 0
        self.wrong: list[str] = []                    # what did not fit
        self._lock = threading.Lock()

    def hash(self, data: bytes) -> str:
        return hashlib.new(HASHES[(self.algorithm or "MD5").removesuffix("-sess")], data).hexdigest()

    def nonce(self) -> str:
        nonce = f"nonce{len(self.counts)}/+=="
        self.counts[nonce] = []
        return nonce

    def challenge(self, stale: bool = False) -> str:
        def quoted(text: str) -> str:
            return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

        parts = ["Digest realm=" + quoted(self.realm), "nonce=" + quoted(self.nonce())]
        if self.algorithm is not None:
            parts.append("algorithm=" + self.algorithm)
        if self.qop is not None:
            parts.append("qop=" + quoted(self.qop))
        if self.opaque is not None:
            parts.append("opaque=" + quoted(self.opaque))
        if self.userhash:
            parts.append("userhash=true")
        if self.charset:
            parts.append("charset=UTF-8")
        if stale:
            parts.append("stale=TRUE")
        return ", ".join(parts)

    def answer(self, method: str, target: str, authorization: str | None, body: bytes = b"") -> tuple[int, list[tuple[str, str]]]:
        with self._lock:
            if authorization is None or not authorization.startswith("Digest "):
                self.challenged += 1
                return 401, [("WWW-Authenticate", self.challenge())]
            given = urllib.request.parse_keqv_list(urllib.request.parse_http_list(authorization.removeprefix("Digest ")))
            given = {name: value.replace('\\"', '"').replace("\\\\", "\\") for name, value in given.items()}
            problem = self._problem(given, method, target, body)
            if problem is not None:
                self.wrong.append(problem)
                return 401, [("WWW-Authenticate", self.challenge())]
            counts = self.counts[given["nonce"]]
            if len(counts) >= self.uses:
                self.stale += 1
                return 401, [("WWW-Authenticate", self.challenge(stale=True))]
            counts.append(int(given.get("nc", "0"), 16))
            return 200, [("Authentication-Info", f'nextnonce="{self.nonce()}"')] if self.nextnonce else []

    def _problem(self, given: dict[str, str], method: str, target: str, body: bytes) -> str | None:
        """What is wrong with an answer; None where it is right."""
        said = {name: given.get(name) for name in ("realm", "opaque", "algorithm", "uri")}
        if said != {"realm": self.realm, "opaque": self.opaque, "algorithm": self.algorithm, "uri": target}:
            return f"echoed {said}"
        user, password, realm = self.user.encode(), self.password.encode(), self.realm.encode("latin-1")
        if self.userhash:
            named = given.get("username") == self.hash(user + b":" + realm) and given.get("userhash") == "true"
        elif self.charset and not self.user.isascii():
            named = "username" not in given and unquote(given.get("username*", "").removeprefix("UTF-8''")) == self.user
        else:
            named = given.get("username", "").encode("latin-1") == user
        if not named:
            return "the username"
        key = self.hash(b":".join((user, realm, password)))
        if given.get("nonce") not in self.counts:
            return "an unknown nonce"
        if (self.algorithm or "").endswith("-sess"):
            key = self.hash(f"{key}:{given['nonce']}:{given['cnonce']}".encode())
        what = f"{method}:{target}"
        if self.qop is None:
            if given.keys() & {"qop", "nc"}:
                return "a qop that nobody offered"
            return None if given["response"] == self.hash(f"{key}:{given['nonce']}:{self.hash(what.encode())}".encode()) else "the response"
        if given.get("qop") not in [option.strip() for option in self.qop.split(",")]:
            return "the qop"
        if given["qop"] == "auth-int":
            what += ":" + self.hash(body)
        if int(given["nc"], 16) in self.counts[given["nonce"]]:
            return "a count that was used"
        middle = f"{given['nonce']}:{given['nc']}:{given['cnonce']}:{given['qop']}"
        return None if given["response"] == self.hash(f"{key}:{middle}:{self.hash(what.encode())}".encode()) else "the response"
