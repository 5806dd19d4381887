"""One cookie: read from a `Set-Cookie` field, and matched with a request, by RFC 6265.

The objects are `http.cookiejar`'s, so that its jars and files hold them; its parser and its rules are not used: they drop cookies of a host
without a dot, send those of one host to its subdomains, take an address's last numbers for a domain, and lose a response's
cookies by a number in one of them. What is taken from its successor's draft, RFC 6265bis: the name prefixes, the limits of size, and that nobody in
the clear replaces a cookie that is `Secure`.
"""
from __future__ import annotations

import re
from calendar import monthrange, timegm
from http.cookiejar import Cookie

from pooledhttp.errors import LocalProtocolError

_LONGEST = 4096                # of a name and value, characters; of an attribute's value _ATTRIBUTE
_ATTRIBUTE = 1024
_FOREVER = 1 << 34             # seconds; no cookie lives longer
_BAD = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_AGE = re.compile(r"-?[0-9]+")
_DATE_TOKEN = re.compile(r"[^\t -/;-@\[-`{-~]+")
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?![0-9])")
_DAY = re.compile(r"([0-9]{1,2})(?![0-9])")
_YEAR = re.compile(r"([0-9]{2,4})(?![0-9])")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# Second levels at which country domains are registered. Who knows all public suffixes needs a list that changes weekly.
_REGISTRIES = frozenset(("ac", "co", "com", "edu", "gov", "mil", "net", "org"))


def is_address(host: str) -> bool:
    """An IPv4 or IPv6 address: it has no subdomains (section 5.1.3)."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def is_suffix(domain: str) -> bool:
    """Whether unrelated parties live beneath `domain`, as far as its looks say: "com", "co.uk"."""
    first, dot, rest = domain.partition(".")
    return not dot or (len(rest) == 2 and first in _REGISTRIES)


def default_path(path: str) -> str:
    """Where a cookie is sent whose server named no path (section 5.1.4)."""
    return path[:path.rfind("/")] or "/"


def path_matches(path: str, cookie_path: str) -> bool:
    """Section 5.1.4."""
    return path.startswith(cookie_path) and (len(path) == len(cookie_path) or cookie_path.endswith("/") or path[len(cookie_path)] == "/")


def domains_of(host: str) -> list[tuple[str, bool]]:
    """What cookies that go to `host` may have as their domain, and whether also those of that domain alone that were not said to be for its
    subdomains. "" stands for any host."""
    keys = [("", True), (host, True), ("." + host, True)]
    if "." not in host:
        keys.append((host + ".local", True))             # as http.cookiejar writes it
    elif not is_address(host):
        rest = host.partition(".")[2]
        while rest:
            keys += [("." + rest, False), (rest, False)]
            rest = rest.partition(".")[2]
    return keys


def make(name: str, value: str, *, domain: str = "", path: str = "/", domain_specified: bool = False, path_specified: bool = True,
         secure: bool = False, expires: float | None = None, rest: dict[str, str | None] | None = None) -> Cookie:
    """A cookie as http.cookiejar has it."""
    at = None if expires is None else int(expires)
    return Cookie(0, name, value, None, False, domain, domain_specified, domain.startswith("."), path, path_specified, secure, at, at is None,
                  None, None, rest or {}, False)  # type: ignore[arg-type]  # None stands for an attribute without a value, as http.cookiejar has it


def by_user(name: str, value: str, domain: str, path: str, secure: bool, expires: float | None) -> Cookie:
    """A cookie that the user sets: for `domain` and its subdomains, or for all hosts. LocalProtocolError for what would be read as another."""
    for what, given in (("name", name), ("value", value), ("domain", domain), ("path", path)):
        if not isinstance(given, str):
            raise TypeError(f"a cookie's {what} is a str, not {type(given).__name__}{'' if what == 'name' else f': {name!r}'}")
        if ";" in given or _BAD.search(given):
            raise LocalProtocolError(f"the {what} of the cookie {name!r} holds a semicolon or a control character")
    if not name or "=" in name or name != name.strip():
        raise LocalProtocolError(f"{name!r} is no name for a cookie")
    if not path.startswith("/"):
        raise ValueError(f"the path of the cookie {name!r} does not begin with '/'")
    return make(name, value, domain=domain.lower(), path=path, domain_specified=bool(domain), secure=secure, expires=expires)


def parse(field: str, host: str, path: str, secure: bool, now: float) -> Cookie | None:
    """The cookie of a `Set-Cookie` field from `host` in answer to a request of `path` (section 5.2 and 5.3), `secure` where that came over TLS.
    None where it is to be ignored. One that has expired is to be removed."""
    if _BAD.search(field):
        return None
    pair, *attributes = field.split(";")
    name, equals, value = pair.partition("=")
    name, value = name.strip(" \t"), value.strip(" \t")
    if not equals or not name or len(name) + len(value) > _LONGEST:
        return None
    said: dict[str, str] = {}
    rest: dict[str, str | None] = {}
    for attribute in attributes:
        key, equals, text = attribute.partition("=")
        key, text = key.strip(" \t"), text.strip(" \t")
        if len(text) > _ATTRIBUTE:
            continue
        if key.lower() in _KNOWN:
            said[key.lower()] = text                     # the last one counts
        elif key:
            rest[key] = text if equals else None
    place = said.get("path", "")
    named = place.startswith("/")
    owner = _owner(said.get("domain", "").lower().removeprefix("."), host)
    if owner is None:
        return None
    tls_only = "secure" in said
    prefix = name.lower()
    if prefix.startswith(("__secure-", "__host-")) and not (tls_only and secure):
        return None
    if prefix.startswith("__host-") and (owner != host or place != "/"):
        return None
    return make(name, value, domain=owner, path=place if named else default_path(path), domain_specified=owner != host, path_specified=named,
                secure=tls_only, expires=_expires(said, now), rest=rest)


_KNOWN = frozenset(("domain", "expires", "max-age", "path", "secure"))


def _owner(domain: str, host: str) -> str | None:
    """The cookie's domain, with a dot before it where it is for subdomains as well; None where `host` may not set it."""
    if not domain:
        return host
    if is_address(host) or is_suffix(domain):
        return host if domain == host else None
    return "." + domain if host == domain or host.endswith("." + domain) else None


def _expires(said: dict[str, str], now: float) -> float | None:
    """When a cookie ends, in seconds since the epoch; None: with the jar. `Max-Age` beats `Expires` (section 5.3)."""
    age = said.get("max-age", "")
    if _AGE.fullmatch(age):
        if age.startswith("-"):
            return 0
        return now + (_FOREVER if len(age) > 10 else min(int(age), _FOREVER)) if age.strip("0") else 0
    at = parse_date(said.get("expires", ""))
    return None if at is None else max(0, at)


def parse_date(text: str) -> int | None:
    """A date as servers write it, in seconds since the epoch (section 5.1.1: in whatever order, and without a time zone: all are GMT). None
    where it is none."""
    time = day = month = year = None
    for token in _DATE_TOKEN.findall(text):
        if time is None and (found := _TIME.match(token)):
            time = int(found[1]), int(found[2]), int(found[3])
        elif day is None and (found := _DAY.match(token)):
            day = int(found[1])
        elif month is None and token[:3].lower() in _MONTHS:
            month = _MONTHS.index(token[:3].lower()) + 1
        elif year is None and (found := _YEAR.match(token)):
            year = int(found[1])
    if time is None or day is None or month is None or year is None:
        return None
    if year < 100:
        year += 1900 if year >= 70 else 2000
    if year < 1601 or not 1 <= day <= monthrange(year, month)[1] or time[0] > 23 or time[1] > 59 or time[2] > 59:
        return None
    return timegm((year, month, day, *time))
