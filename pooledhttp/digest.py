"""Digest authentication (RFC 7616, and RFC 2069 where a server names no qop)."""
from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from hashlib import new as new_hash
from itertools import count
from threading import RLock
from weakref import WeakSet

from pooledhttp._core.runtime import at_fork
from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.auth import Auth, as_bytes
from pooledhttp.challenges import Challenge, parse_challenges, parse_params
from pooledhttp.content import BodySource, rewound

if TYPE_CHECKING:
    from pooledhttp.request import Request
    from pooledhttp.response import Response

# By IANA's registry of "HTTP Digest Algorithm Values", and two that servers use unregistered; hashlib's names, weakest first.
_HASHES = {"md5": "md5", "sha": "sha1", "sha-256": "sha256", "sha-512-256": "sha512_256", "sha-512": "sha512"}
_STRENGTH = {name: i for i, name in enumerate(_HASHES)}
_ORIGINS = 256          # whose challenges are kept; the oldest goes
_NONCES = 1024          # whose uses are remembered; the oldest goes
_STALE = 2              # fresh nonces that may turn out stale before the 401 is the caller's
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&+-.^_`|~")      # RFC 8187's attr-char


def _hash(algorithm: str, *parts: bytes | str) -> str:
    """The hex digest of `parts`, colons between them."""
    data = b":".join([part.encode("latin-1") if isinstance(part, str) else part for part in parts])
    return new_hash(algorithm, data, usedforsecurity=False).hexdigest()


def _available(name: str) -> bool:
    try:
        new_hash(name, usedforsecurity=False)
    except ValueError:              # an OpenSSL without it
        return False
    return True


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class _Space:
    """A challenge that is being answered: what it said, and how often its nonce was used."""

    __slots__ = ("algorithm", "charset", "cnonce", "hash", "nonce", "opaque", "qop", "realm", "session", "userhash", "uses")

    def __init__(self, params: dict[str, str], hash_name: str, qop: str) -> None:
        self.algorithm = params.get("algorithm")
        self.hash = hash_name
        self.session = (self.algorithm or "").lower().endswith("-sess")
        self.qop = qop
        self.realm = params["realm"]
        self.nonce = params["nonce"]
        self.opaque = params.get("opaque")
        self.charset = params.get("charset", "").lower() == "utf-8"
        self.userhash = params.get("userhash", "").lower() == "true"
        # For -sess the key holds the client's nonce: one for as long as the server's nonce lives, whichever of them the server hashes.
        self.cnonce = _cnonce() if self.session else ""
        self.uses = count(1)                 # these two are the nonce's: see _Memory

    def renewed(self, nonce: str) -> _Space:
        """The same space with the server's next nonce."""
        other = _Space.__new__(_Space)
        for name in _Space.__slots__:
            setattr(other, name, getattr(self, name))
        other.nonce = nonce
        other.uses = count(1)
        other.cnonce = _cnonce() if self.session else ""
        return other


def _cnonce() -> str:
    return os.urandom(16).hex()


def choose(challenges: Iterable[Challenge]) -> tuple[_Space, bool] | None:
    """The strongest Digest challenge that can be answered, and whether it says that only the nonce was stale; None where there is none."""
    best: tuple[int, _Space, bool] | None = None
    for challenge in challenges:
        params = challenge.params
        if challenge.scheme != "digest" or "realm" not in params or "nonce" not in params:
            continue
        base = params.get("algorithm", "MD5").lower().removesuffix("-sess")
        name = _HASHES.get(base)
        if name is None or not _available(name):
            continue
        offered = [option.strip().lower() for option in params.get("qop", "").split(",") if option.strip()]
        qop = "auth" if "auth" in offered else "auth-int" if "auth-int" in offered else ""
        if offered and not qop:
            continue
        strength = _STRENGTH[base]
        if best is None or strength > best[0]:           # of equals the server's first
            best = strength, _Space(params, name, qop), params.get("stale", "").lower() == "true"
    return None if best is None else best[1:]


class _Memory:
    """The challenges that one `DigestAuth` has met, by origin. A forked child starts with none: its parent uses the same nonces."""

    __slots__ = ("__weakref__", "lock", "nonces", "spaces")

    def __init__(self) -> None:
        self.lock = RLock()
        self.spaces: dict[str, _Space] = {}
        self.nonces: dict[tuple[str, str], _Space] = {}
        _memories.add(self)

    def get(self, origin: str) -> _Space | None:
        with self.lock:
            return self.spaces.get(origin)

    def keep(self, origin: str, space: _Space) -> None:
        with self.lock:
            self._count(origin, space)
            self.spaces.pop(origin, None)
            if len(self.spaces) >= _ORIGINS:
                self.spaces.pop(next(iter(self.spaces)), None)
            self.spaces[origin] = space

    def drop(self, origin: str, space: _Space) -> None:
        with self.lock:
            if self.spaces.get(origin) is space:
                self.spaces.pop(origin, None)

    def use(self, space: _Space) -> int:
        """The next nonce count: no two requests have the same."""
        with self.lock:
            return next(space.uses)

    def renew(self, origin: str, space: _Space, nonce: str) -> None:
        """The server's next nonce; of several threads' answers the last one's."""
        with self.lock:
            current = self.spaces.get(origin)
            if current is not None and current.nonce != nonce and current.realm == space.realm:
                renewed = space.renewed(nonce)
                self._count(origin, renewed)
                self.spaces[origin] = renewed

    def _count(self, origin: str, space: _Space) -> None:
        """A nonce that came before goes on where it was: servers give one to several threads, and answers overtake each other."""
        key = origin, space.nonce
        known = self.nonces.pop(key, None)
        if known is not None:
            space.uses = known.uses
            if space.session and known.session:
                space.cnonce = known.cnonce
        if len(self.nonces) >= _NONCES:
            self.nonces.pop(next(iter(self.nonces)), None)
        self.nonces[key] = space


_memories: WeakSet[_Memory] = WeakSet()


def _after_fork_in_child() -> None:
    for memory in _memories:
        memory.lock = RLock()
        memory.spaces = {}
        memory.nonces = {}


at_fork(_after_fork_in_child)


class DigestAuth(Auth):
    """Digest authentication with user and password (str, in UTF-8, or bytes): RFC 7616.

    MD5, SHA-256 and SHA-512-256 and their -sess variants (of several challenges the strongest), qop "auth", "auth-int" where nothing
    else is offered, and none (RFC 2069); `userhash`, `charset`, `opaque`, `stale` and `nextnonce`. An origin's challenge is kept: the
    requests after the first carry their answer at once, and all threads count its nonce together. A 401 that comes in spite of the
    answer is the caller's; so is one that nothing here can answer, or whose request's body cannot be sent again.
    """

    __slots__ = ("_memory", "_password", "_user")

    def __init__(self, user: str | bytes, password: str | bytes) -> None:
        self._user = as_bytes("user", _composed(user), "digest")
        self._password = as_bytes("password", _composed(password), "digest")
        self._memory = _Memory()

    def __call__(self, request: Request) -> Request:
        """The request with the answer to the challenge that its origin is known to make, or without any."""
        space = self._memory.get(request.url.key)
        if space is None or not self._sign(request, space):
            request.headers.pop("Authorization", None)       # a URL's userinfo would say the password in the clear
        return request

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        origin = request.url.key
        memory = self._memory
        space = memory.get(origin)
        if space is None or not self._sign(request, space):
            space = None
            request.headers.pop("Authorization", None)
        response = yield request
        answers = 0                           # to challenges that this very request met
        while response.status_code == 401:
            chosen = choose(parse_challenges(response.headers.get_list("www-authenticate")))
            if chosen is None:
                break
            offered, stale = chosen
            # Only a stale nonce says that the password was right (section 3.3). Threads may use one up between its making and its use.
            if answers and not (stale and answers <= _STALE):
                break
            memory.keep(origin, offered)
            if not rewound(request.body) or not self._sign(request, offered):
                return
            space = offered
            answers += 1
            response = yield request
        if space is None:
            return
        if response.status_code == 401:
            memory.drop(origin, space)
            return
        info = response.headers.get("authentication-info")
        nonce = parse_params(info).get("nextnonce") if info is not None else None
        if nonce:
            memory.renew(origin, space, nonce)

    def _sign(self, request: Request, space: _Space) -> bool:
        """Sets `Authorization`; False where it covers the body, and that cannot be read twice."""
        user, realm, nonce, target = self._user, space.realm, space.nonce, request.url.target
        name = space.hash
        key = _hash(name, user, realm, self._password)
        if space.session:
            key = _hash(name, key, nonce, space.cnonce)
        what = [request.method, target]
        if space.qop == "auth-int":
            body = _body_hash(name, request.body)
            if body is None:
                return False
            what.append(body)
        cnonce = space.cnonce or (_cnonce() if space.qop else "")
        used = f"{self._memory.use(space):08x}"
        middle = [nonce, used, cnonce, space.qop] if space.qop else [nonce]
        response = _hash(name, key, *middle, _hash(name, *what))
        if space.userhash:
            fields = [f'username="{_hash(name, user, realm)}"']
        elif space.charset and not user.isascii():
            fields = ["username*=UTF-8''" + "".join([chr(b) if b in _PLAIN else f"%{b:02X}" for b in user])]       # RFC 8187
        else:
            fields = ["username=" + _quote(user.decode("latin-1"))]
        fields += ["realm=" + _quote(realm), "nonce=" + _quote(nonce), "uri=" + _quote(target), f'response="{response}"']
        if space.algorithm is not None:
            fields.append("algorithm=" + space.algorithm)
        if space.opaque is not None:
            fields.append("opaque=" + _quote(space.opaque))
        if space.qop:
            fields += ["qop=" + space.qop, "nc=" + used]
        if cnonce:
            fields.append(f'cnonce="{cnonce}"')
        if space.userhash:
            fields.append("userhash=true")
        request.headers["Authorization"] = "Digest " + ", ".join(fields)
        return True

    def __eq__(self, other: object) -> bool:
        return (self._user, self._password) == (other._user, other._password) if isinstance(other, DigestAuth) else NotImplemented

    def __hash__(self) -> int:
        return hash((self._user, self._password))

    def __repr__(self) -> str:
        return f"{type(self).__name__}([secure])"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._user, self._password)


def _composed(text: str | bytes) -> str | bytes:
    """NFC, as RFC 7616 section 4 has it: the same letters are the same bytes, whatever they were typed on."""
    if isinstance(text, str) and not text.isascii():
        from unicodedata import normalize

        return normalize("NFC", text)
    return text


def _body_hash(name: str, body: bytes | BodySource | None) -> str | None:
    """The digest of a body, read piece by piece; None where it could not be read again to be sent."""
    if not isinstance(body, BodySource):
        return new_hash(name, body or b"", usedforsecurity=False).hexdigest()
    started, body.started = body.started, True
    if not rewound(body):
        body.started = started
        return None
    digest = new_hash(name, usedforsecurity=False)
    for piece in body:
        digest.update(piece)
    return digest.hexdigest()
