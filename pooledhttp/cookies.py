"""Cookies: a mapping over `http.cookiejar`'s jar, safe to share among threads. The jar is made, and its module imported, with the first cookie."""
from __future__ import annotations

import time
from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from copy import copy
from threading import RLock
from weakref import WeakSet

from pooledhttp._core.runtime import at_fork
from pooledhttp._typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from http.cookiejar import Cookie, CookieJar, CookiePolicy
    from typing import TypeAlias

    from pooledhttp.request import Request
    from pooledhttp.response import Response
    from pooledhttp.url import URL

CookieTypes: TypeAlias = "Cookies | CookieJar | Mapping[str, str] | Iterable[tuple[str, str]] | None"

_PER_DOMAIN = 180         # cookies; beyond, the oldest goes
_DOMAINS = 3000           # beyond, the tenth goes whose cookies were set longest ago

_making = RLock()
_jars: WeakSet[CookieJar] = WeakSet()


def _after_fork_in_child() -> None:
    global _making
    _making = RLock()                    # another thread of the parent may have held it, or a jar's
    for jar in _jars:
        jar._cookies_lock = RLock()  # type: ignore[attr-defined]


at_fork(_after_fork_in_child)


class CookieConflict(RuntimeError):
    """Several cookies have the name: say `domain` or `path`."""


class Cookies(MutableMapping[str, str]):
    """Cookies by name; `cookies["sid"]` is a value.

    Made from a mapping, (name, value) pairs, other `Cookies` (copied), or an `http.cookiejar.CookieJar` (used itself: what is set here is in
    it, and can be saved from it). `jar` is the jar. Iteration gives each cookie's name, one as often as there are cookies of it;
    `cookies[name]` of such a one raises CookieConflict, a RuntimeError. Every operation is whole to other threads.

    A cookie set without a domain goes to every host that a request addresses, and not to where it is redirected from there.
    """

    __slots__ = ("__weakref__", "_jar")

    def __init__(self, cookies: CookieTypes = None) -> None:
        self._jar: CookieJar | None = None
        if cookies is None:
            return
        if type(cookies) not in (dict, list, tuple, Cookies):
            from http.cookiejar import CookieJar

            if isinstance(cookies, CookieJar):
                self._jar = cookies
                _jars.add(cookies)
                return
        self._add(cookies)

    @property
    def jar(self) -> CookieJar:
        """The `http.cookiejar.CookieJar`, whose policy's blocked and allowed domains hold here too."""
        jar = self._jar
        if jar is None:
            from http.cookiejar import CookieJar

            with _making:
                jar = self._jar
                if jar is None:
                    self._jar = jar = CookieJar()
                    _jars.add(jar)
        return jar

    # --- by name --------------------------------------------------------------------------------------------------------

    def set(self, name: str, value: str, domain: str = "", path: str = "/", *, secure: bool = False, expires: float | None = None) -> None:
        """Set a cookie for `domain` and its subdomains, or for every host. `secure`: over https only. `expires`: seconds since the epoch."""
        from pooledhttp.set_cookie import by_user

        self._store(by_user(name, value, domain, path, secure, expires))

    def get(self, name: str, default: Any = None, domain: str | None = None, path: str | None = None) -> Any:
        """The value of the one cookie of that name (and domain, and path), or `default`. CookieConflict where there are several."""
        found = self._find(name, domain, path)
        if not found:
            return default
        if len(found) > 1:
            where = ", ".join(sorted([f"{cookie.domain or 'any host'}{cookie.path}" for cookie in found]))
            raise CookieConflict(f"several cookies {name!r}: {where}; name the domain or the path")
        return found[0].value or ""

    def delete(self, name: str, domain: str | None = None, path: str | None = None) -> None:
        """Remove the cookies of that name (and domain, and path), if there are any."""
        jar = self._jar
        if jar is not None:
            with _lock_of(jar):
                for cookie in self._find(name, domain, path):
                    _discard(jar, cookie)

    def clear(self, domain: str | None = None, path: str | None = None) -> None:
        """Remove all cookies, or those of a domain, or of a path in it."""
        jar = self._jar
        if jar is not None:
            with _lock_of(jar):
                for cookie in self._find(None, domain, path):
                    _discard(jar, cookie)

    def update(self, cookies: CookieTypes = None, /, **named: str) -> None:  # type: ignore[override]  # a jar is neither a mapping nor pairs
        """Set all of `cookies`; those of a jar or of `Cookies` with their domain, path and the rest."""
        if cookies is not None:
            self._add(cookies)
        if named:
            self._add(named)

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return str(value)

    def __setitem__(self, name: str, value: str) -> None:
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        if not self._find(name, None, None):
            raise KeyError(name)
        self.delete(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self._find(name, None, None))

    def __iter__(self) -> Iterator[str]:
        return iter([cookie.name for cookie in self._all()])

    def __len__(self) -> int:
        return len(self._all())

    def __bool__(self) -> bool:
        """Whether there is any cookie."""
        jar = self._jar
        return jar is not None and bool(jar._cookies) and next(iter(jar), None) is not None  # type: ignore[attr-defined]

    def items(self) -> ItemsView[str, str]:
        return _Items(self)

    def values(self) -> ValuesView[str]:
        return _Values(self)

    def __repr__(self) -> str:
        return f"<Cookies [{', '.join([f'{cookie.name} for {cookie.domain or chr(42)}{cookie.path}' for cookie in self._all()])}]>"

    def __copy__(self) -> Cookies:
        return Cookies(self)

    copy = __copy__

    def __reduce__(self) -> tuple[Any, ...]:
        jar = self._jar
        return _restore, (self._all(), None if jar is None or _is_plain(jar._policy) else jar._policy)  # type: ignore[attr-defined]

    # --- on the way -----------------------------------------------------------------------------------------------------

    def header(self, request: Request, *, redirected: bool = False) -> str | None:
        """The value of the `Cookie` field for `request`, the longest paths first (RFC 6265 section 5.4); None where there is none.

        The request's own cookies replace those of the same name. `redirected`: the request goes to another origin than the one that
        the caller addressed, and cookies without a domain stay behind. Where the request bears a `Cookie` field of its own, that is all.
        """
        if "cookie" in request.headers:
            return None
        found = self._for(request, redirected)
        own = request.cookies
        if own:
            mine = own._for(request, redirected)
            names = {cookie.name for cookie in mine}
            found = [cookie for cookie in found if cookie.name not in names] + mine
        if not found:
            return None
        found.sort(key=_order)
        return "; ".join([f"{cookie.name}={cookie.value}" if cookie.value is not None else cookie.name for cookie in found])

    def extract(self, response: Response, request: Request | None) -> None:
        """Take up the cookies that `response`, the answer to `request`, sets, as far as its host may set them."""
        fields = response.headers.get_list("set-cookie")
        if not fields:
            return
        from pooledhttp.set_cookie import parse

        url = request.url if request is not None else None
        host, path, secure = (url.host, url.path, url.scheme == "https") if url is not None else ("", "/", False)
        now = int(time.time())
        jar = self.jar
        for field in fields:
            cookie = parse(field, host, path, secure, now)
            if cookie is None:
                continue
            with _lock_of(jar):
                if not secure and self._shadows(jar, cookie, host):
                    continue
                if cookie.is_expired(now):
                    _discard(jar, cookie)
                elif url is None or _accepts(jar._policy, cookie, url, now):  # type: ignore[attr-defined]
                    self._store(cookie)

    def _for(self, request: Request, redirected: bool) -> list[Cookie]:
        """The cookies that go with `request`; those that have expired are removed."""
        jar = self._jar
        if jar is None:
            return []
        from pooledhttp.set_cookie import domains_of, path_matches

        url = request.url
        path = url.path
        secure = url.scheme == "https"
        now = int(time.time())
        out = []
        with _lock_of(jar):
            kept = jar._cookies  # type: ignore[attr-defined]
            policy = jar._policy  # type: ignore[attr-defined]
            for domain, exact in domains_of(url.host):
                if redirected and not domain:
                    continue
                for place, named in list(kept.get(domain, {}).items()):
                    if not path_matches(path, place):
                        continue
                    for cookie in list(named.values()):
                        if cookie.is_expired(now):
                            _discard(jar, cookie)
                        elif (secure or not cookie.secure) and (exact or cookie.domain_specified) and _returns(policy, cookie, url, now):
                            out.append(cookie)
        return out

    def _shadows(self, jar: CookieJar, cookie: Cookie, host: str) -> bool:
        """Whether `cookie`, which came in the clear, would stand before one that is `Secure` (RFC 6265bis section 5.7)."""
        from pooledhttp.set_cookie import domains_of, path_matches

        kept = jar._cookies  # type: ignore[attr-defined]
        return any(other.secure and path_matches(cookie.path, place) for domain, _ in domains_of(host)
                   for place, named in list(kept.get(domain, {}).items()) for other in [named.get(cookie.name)] if other is not None)

    def _store(self, cookie: Cookie) -> None:
        jar = self.jar
        kept = jar._cookies  # type: ignore[attr-defined]
        with _lock_of(jar):
            places = kept.get(cookie.domain)
            if places is None:
                if len(kept) >= _DOMAINS:
                    _make_room(kept)
                before = None
            else:
                before = places.get(cookie.path, {}).get(cookie.name)
                if before is None and sum(map(len, places.values())) >= _PER_DOMAIN:
                    _discard(jar, min(_in(places), key=_age))
            now = time.time_ns()
            # Replaced, it keeps its place in the order (section 5.3); what others made has none, and comes first.
            cookie.created = now if before is None else _age(before)  # type: ignore[attr-defined]
            cookie.stored = now  # type: ignore[attr-defined]
            jar.set_cookie(cookie)

    def _add(self, cookies: Any) -> None:
        if isinstance(cookies, Cookies):
            for cookie in cookies._all():
                self._store(copy(cookie))
            return
        if type(cookies) is not dict:
            from http.cookiejar import CookieJar

            if isinstance(cookies, CookieJar):
                for cookie in Cookies(cookies)._all():
                    self._store(copy(cookie))
                return
        pairs: Any = cookies.items() if isinstance(cookies, Mapping) else cookies
        if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Iterable):
            raise TypeError(f"cookies are a mapping, (name, value) pairs, Cookies or a CookieJar, not {type(cookies).__name__}")
        for pair in pairs:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(f"cookies are a mapping or (name, value) pairs: one of them is {type(pair).__name__}")
            self.set(*pair)

    def _all(self) -> list[Cookie]:
        jar = self._jar
        if jar is None:
            return []
        with _lock_of(jar):
            return list(jar)

    def _find(self, name: str | None, domain: str | None, path: str | None) -> list[Cookie]:
        wanted = None if domain is None else domain.lower().removeprefix(".")
        return [cookie for cookie in self._all()
                if (name is None or cookie.name == name) and (path is None or cookie.path == path)
                and (wanted is None or cookie.domain.removeprefix(".") == wanted)]


class _Items(ItemsView[str, str]):
    """Every cookie's name and value, also where several have the name."""

    _mapping: Cookies

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter([(cookie.name, cookie.value or "") for cookie in self._mapping._all()])


class _Values(ValuesView[str]):
    """Every cookie's value."""

    _mapping: Cookies

    def __iter__(self) -> Iterator[str]:
        return iter([cookie.value or "" for cookie in self._mapping._all()])


def _lock_of(jar: CookieJar) -> Any:
    return jar._cookies_lock  # type: ignore[attr-defined]


def _order(cookie: Cookie) -> tuple[int, int]:
    return -len(cookie.path), _age(cookie)


def _age(cookie: Cookie) -> int:
    return getattr(cookie, "created", 0)


def _discard(jar: CookieJar, cookie: Cookie) -> None:
    """Remove that cookie, or the one that it would replace, and the empty dicts that would be left of it."""
    kept = jar._cookies  # type: ignore[attr-defined]
    places = kept.get(cookie.domain)
    named = places.get(cookie.path) if places is not None else None
    if named is None or named.pop(cookie.name, None) is None:
        return
    if not named:
        places.pop(cookie.path, None)
        if not places:
            kept.pop(cookie.domain, None)


def _in(places: dict[str, dict[str, Cookie]]) -> list[Cookie]:
    return [cookie for named in list(places.values()) for cookie in list(named.values())]


def _make_room(kept: dict[str, dict[str, dict[str, Cookie]]]) -> None:
    def last(domain: str) -> int:
        return max([getattr(cookie, "stored", 0) for cookie in _in(kept.get(domain, {}))], default=0)

    for domain in sorted([domain for domain in list(kept) if domain], key=last)[:_DOMAINS // 10]:       # "" is what the user said of all
        kept.pop(domain, None)


def _restore(cookies: list[Cookie], policy: CookiePolicy | None) -> Cookies:
    self = Cookies()
    for cookie in cookies:
        self.jar.set_cookie(cookie)
    if policy is not None:
        self.jar.set_policy(policy)
    return self


def set_by(response: Response) -> Cookies:
    """The cookies that a response set."""
    cookies = Cookies()
    cookies.extract(response, response.request)
    return cookies


# --- a jar's policy: RFC 6265 is ours to keep, and a policy may forbid more -------------------------------------------------


class _AsUrllib:
    """A request as a policy wants to see it: what `urllib.request.Request` has of names and places."""

    unverifiable = False

    def __init__(self, url: URL) -> None:
        self.type = url.scheme
        self.host = url.authority
        self.origin_req_host = url.host
        self._url = str(url)

    def get_full_url(self) -> str:
        return self._url

    def get_header(self, name: str, default: str | None = None) -> str | None:
        return self.host if name.lower() == "host" else default

    def has_header(self, name: str) -> bool:
        return name.lower() == "host"


def _is_plain(policy: CookiePolicy) -> bool:
    from http.cookiejar import DefaultCookiePolicy

    return type(policy) is DefaultCookiePolicy and policy.allowed_domains() is None and not policy.blocked_domains()


def _allows(policy: Any, cookie: Cookie) -> bool | None:
    """What http.cookiejar's own policy says of the domain; None of any other policy, which is asked about everything."""
    from http.cookiejar import DefaultCookiePolicy

    if type(policy) is DefaultCookiePolicy:
        return not policy.is_blocked(cookie.domain) and not policy.is_not_allowed(cookie.domain)
    return None


def _accepts(policy: Any, cookie: Cookie, url: URL, now: int) -> bool:
    allowed = _allows(policy, cookie)
    if allowed is not None:
        return allowed
    policy._now = now               # as its jar does before it asks
    return bool(policy.set_ok(cookie, _AsUrllib(url)))


def _returns(policy: Any, cookie: Cookie, url: URL, now: int) -> bool:
    allowed = _allows(policy, cookie)
    if allowed is not None:
        return allowed
    policy._now = now
    request = _AsUrllib(url)
    return bool(policy.domain_return_ok(cookie.domain, request) and policy.path_return_ok(cookie.path, request) and policy.return_ok(cookie, request))
