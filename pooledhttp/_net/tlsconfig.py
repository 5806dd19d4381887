"""What a dial needs to know of TLS: contexts made once and kept, the pool's identity key, and errors that say what was wrong."""
from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pooledhttp import errors

if TYPE_CHECKING:
    import ssl

Password = str | bytes | Callable[[], str | bytes]
KEPT_MAX = 256                # contexts kept; a process that needs more makes them anew
CA_FILE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How to speak TLS with a server. Make it with `settings`; equal settings share one context in the process.

    `verify`: True (certifi), False, paths of a CA file and a CA directory (either may be ""), or the user's own context.
    `cert`: paths of the client's certificate chain and key ("" where the key is in the same file).
    """

    verify: bool | tuple[str, str] | ssl.SSLContext = True
    cert: tuple[str, str] | None = None
    password: Password | None = None
    alpn: tuple[str, ...] = ("http/1.1",)

    def context(self) -> ssl.SSLContext:
        """The context to dial with, never changed once made; made anew where a file's mtime changed. Raises TLSError."""
        if not isinstance(self.verify, (bool, tuple)):
            return _users_context(self.verify, self.alpn)
        return _kept_context(self)

    def identity(self, server_hostname: str | None = None) -> str:
        """A short key for pools: connections under one key trust the same, show the same certificate and name the same host.

        "" for the defaults. Passwords and keys are not in it. It means something in this process only.
        """
        parts = []
        if self.verify is False:
            parts.append("insecure")
        elif isinstance(self.verify, tuple):
            parts.append("ca=" + os.pathsep.join(p for p in self.verify if p))
        elif self.verify is not True:
            parts.append(f"context#{_number(self.verify)}")
        if self.cert is not None:
            parts.append("cert=" + os.pathsep.join(p for p in self.cert if p))
            if self.password is not None:
                parts.append(f"key#{_number((self.cert, self.password))}")
        if self.alpn != ("http/1.1",):
            parts.append("alpn=" + "/".join(self.alpn))
        if server_hostname is not None:
            parts.append("name=" + server_hostname)
        return ",".join(parts)


def settings(verify: Any = True, cert: Any = None, *, trust_env: bool = False, environ: Mapping[str, str] | None = None) -> TlsSettings:
    """From `Transport`'s options.

    `verify`: True, False, the path of a CA file or directory, or an `ssl.SSLContext`. `cert`: a PEM path, or (cert, key) or
    (cert, key, password). With `trust_env`, and only where `verify is True`, SSL_CERT_FILE and SSL_CERT_DIR (together), else
    REQUESTS_CA_BUNDLE, else CURL_CA_BUNDLE replace certifi. They are read now and not again. Raises TypeError or ValueError.
    """
    known = sys.modules.get("ssl")
    chosen: bool | tuple[str, str] | ssl.SSLContext
    if verify is True:
        chosen = _from_env(os.environ if environ is None else environ) if trust_env else True
    elif verify is False or (known is not None and isinstance(verify, known.SSLContext)):
        chosen = verify
    elif isinstance(verify, (str, os.PathLike)):
        path = os.fspath(verify)
        if not isinstance(path, str) or not path:
            raise ValueError(f"verify is no path of a CA file or directory: {path!r}")
        chosen = ("", path) if os.path.isdir(path) else (path, "")
    else:
        raise TypeError(f"verify must be True, False, a path or an ssl.SSLContext, not {type(verify).__name__}")
    if cert is None:
        return TlsSettings(chosen)
    if not isinstance(chosen, (bool, tuple)):
        raise ValueError("cert beside an ssl.SSLContext: load the certificate into the context")
    password: Password | None = None
    if isinstance(cert, (str, os.PathLike)):
        cert = (cert,)
    if not isinstance(cert, tuple) or not 1 <= len(cert) <= 3:
        raise TypeError("cert must be a path, (cert, key) or (cert, key, password)")
    if len(cert) == 3:
        password = cert[2]
    paths = [os.fspath(p) if p is not None else "" for p in cert[:2]]
    return TlsSettings(chosen, (paths[0], paths[1] if len(paths) > 1 else ""), password)


def _from_env(environ: Mapping[str, str]) -> bool | tuple[str, str]:
    file, folder = environ.get("SSL_CERT_FILE", ""), environ.get("SSL_CERT_DIR", "")
    if file or folder:
        return file, folder
    for name in CA_FILE_VARIABLES:
        path = environ.get(name, "")
        if path:
            return ("", path) if os.path.isdir(path) else (path, "")
    return True


# -- contexts, one per settings --

Stamp = tuple[tuple[int, int, int], ...]


class _Kept:
    """One context, and the lock of whoever makes it (20-30 ms with certifi; others want the same and wait)."""

    __slots__ = ("lock", "stamp", "context")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.stamp: Stamp | None = None
        self.context: ssl.SSLContext | None = None


_kept: dict[TlsSettings, _Kept] = {}
_numbers_lock = threading.RLock()
_numbers: dict[Any, int] = {}
_context_numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_alpn_set: weakref.WeakSet[Any] = weakref.WeakSet()
_last_number = 0


def reset_after_fork() -> None:
    """In the child: a lock may have been held by a thread that is not here. The contexts stay good."""
    global _numbers_lock
    _numbers_lock = threading.RLock()
    for kept in _kept.values():
        kept.lock = threading.RLock()


def _number(thing: Any) -> int:
    """A number of its own for each thing: an `ssl.SSLContext` by identity for as long as it lives, anything else by value."""
    global _last_number
    known: Any = _numbers if isinstance(thing, tuple) else _context_numbers
    with _numbers_lock:
        number: int | None = known.get(thing)
        if number is None:
            number = known[thing] = _last_number = _last_number + 1
        return number


def _users_context(context: ssl.SSLContext, alpn: tuple[str, ...]) -> ssl.SSLContext:
    with _numbers_lock:
        if context not in _alpn_set:
            context.set_alpn_protocols(list(alpn))
            _alpn_set.add(context)
    return context


def _stamp(wanted: TlsSettings) -> Stamp:
    """What the files look like now; another stamp means that one has changed."""
    file, folder = wanted.verify if isinstance(wanted.verify, tuple) else ("", "")
    found = []
    try:
        for path in (file, *folder.split(os.pathsep), *(wanted.cert or ())):
            if path:
                found.append(_seen(path))
        # A directory's own mtime says that a name came or went, not that a file in it was written over.
        for path in folder.split(os.pathsep) if folder else ():
            for name in sorted(os.listdir(path)):
                with contextlib.suppress(FileNotFoundError):      # a dangling link
                    found.append(_seen(os.path.join(path, name)))
    except OSError as exc:
        raise errors.TLSError(f"cannot read {exc.filename!r}: {exc.strerror}", phase="tls") from exc
    return tuple(found)


def _seen(path: str) -> tuple[int, int, int]:
    stat = os.stat(path)
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _kept_context(wanted: TlsSettings) -> ssl.SSLContext:
    kept = _kept.get(wanted)
    if kept is None:
        if len(_kept) >= KEPT_MAX:
            _kept.clear()
        kept = _kept.setdefault(wanted, _Kept())
    stamp = _stamp(wanted)
    with kept.lock:
        if kept.context is None or kept.stamp != stamp:
            kept.context = _make_context(wanted)
            kept.stamp = stamp
        return kept.context


def _make_context(wanted: TlsSettings) -> ssl.SSLContext:
    import ssl

    if wanted.verify is False:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif wanted.verify is True:
        import certifi

        context = ssl.create_default_context(cafile=certifi.where())
    else:
        assert isinstance(wanted.verify, tuple)
        context = _with_authorities(*wanted.verify)
    if wanted.cert is not None:
        _load_cert(context, *wanted.cert, wanted.password)
    context.set_alpn_protocols(list(wanted.alpn))
    return context


def _with_authorities(file: str, folder: str) -> ssl.SSLContext:
    import ssl

    context = None
    parts: list[tuple[str | None, str | None]] = [(file, None)] if file else []
    for path in folder.split(os.pathsep):
        if path:
            parts += _in_folder(path)
    for cafile, capath in parts:
        try:
            if context is None:
                context = ssl.create_default_context(cafile=cafile, capath=capath)
            else:
                context.load_verify_locations(cafile=cafile, capath=capath)
        except (OSError, ValueError) as exc:
            raise errors.TLSError(f"cannot load CA certificates from {cafile or capath!r}: {_reason(exc)}", phase="tls") from exc
    if context is None:
        raise errors.TLSError(f"no CA certificates in {folder!r}", phase="tls")
    return context


def _in_folder(path: str) -> list[tuple[str | None, str | None]]:
    names = sorted(os.listdir(path))
    if any(re.fullmatch(r"[0-9a-f]{8}\.[0-9]+", name) for name in names):
        return [(None, path)]
    # Not hashed by `openssl rehash`: OpenSSL would find nothing in it, so its PEM files are read.
    return [(os.path.join(path, name), None) for name in names if name.endswith((".pem", ".crt", ".cer"))]


def _load_cert(context: ssl.SSLContext, cert: str, key: str, password: Password | None) -> None:
    def no_password() -> str:
        # Without this OpenSSL would ask on the terminal.
        raise ValueError("the key is encrypted and no password was given")

    try:
        context.load_cert_chain(cert, key or None, password if password is not None else no_password)
    except (OSError, ValueError, TypeError) as exc:
        raise errors.TLSError(f"cannot load the client certificate {cert!r}: {_reason(exc)}", phase="tls") from exc


def _reason(exc: BaseException) -> str:
    """An exception of ssl or the system in a few words, without `[SSL: ...]` and `(_ssl.c:1006)`."""
    text = str(exc.strerror) if isinstance(exc, OSError) and exc.strerror else str(exc) or type(exc).__name__
    text = re.sub(r"^\[[A-Z0-9_: ]+\] ", "", text)
    return re.sub(r" \(_ssl\.c:\d+\)$", "", text)


# -- what to call the server --

def hostname(host: str, server_hostname: str | None = None) -> str:
    """The name for SNI and the host name check: RFC 6066 section 3 knows no trailing dot, and an IPv6 zone is our side's own."""
    name = server_hostname if server_hostname is not None else host
    return name.partition("%")[0] if ":" in name else name.rstrip(".")


# -- errors --

# OpenSSL's X509_V_ERR_* by number (x509_vfy.h).
_VERIFY = {
    9: "it is not yet valid",
    10: "it has expired",
    18: "it is self-signed",
    19: "its chain ends in a self-signed certificate that is not trusted",
    2: "its issuer is unknown", 20: "its issuer is unknown", 21: "its issuer is unknown",
    23: "it was revoked",
    26: "it is not meant for servers",
    62: "it is for another host", 63: "it is for another host", 64: "it is for another address",
    66: "its key is too weak", 67: "its issuer's key is too weak", 68: "its issuer's signature is too weak",
}

_HINTS = {
    "UNSUPPORTED_PROTOCOL": "the server speaks only versions of TLS that are too old",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the server refuses our versions of TLS",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the server found nothing in common with us (ciphers, versions), or wants a client certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server wants a client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the server does not know the issuer of our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the server does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the server says that our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the server does not accept our certificate",
    "TLSV1_UNRECOGNIZED_NAME": "the server knows no host of this name",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "the server speaks none of the protocols we offered (ALPN)",
}


def tls_error(exc: BaseException, where: str, first: bytes = b"") -> errors.TLSError:
    """The package's exception for one of ssl's, or for the socket's in a handshake.

    `where` is "host:port"; `first` the peer's first bytes, which show where it does not speak TLS at all.
    """
    import ssl

    if isinstance(exc, ssl.SSLCertVerificationError):
        words = _VERIFY.get(exc.verify_code, "")
        said = str(exc.verify_message)
        text = f"{words} ({said})" if words else said
        return errors.CertificateError(f"the certificate of {where} was not accepted: {text}", phase="tls")
    if first[:5] == b"HTTP/":
        text = "it speaks plain HTTP on this port, not HTTPS"
    elif first and not 20 <= first[0] <= 24:
        text = f"it does not speak TLS on this port: it sent {first!r}"
    elif isinstance(exc, ssl.SSLError):
        text = _HINTS.get(getattr(exc, "reason", None) or "", "")    # ours have no such attribute
        text = f"{text} ({_reason(exc)})" if text else _reason(exc)
    elif isinstance(exc, OSError):
        text = f"the connection broke during the handshake: {_reason(exc)}"
    else:
        text = f"{type(exc).__name__}: {exc}"
    return errors.TLSError(f"TLS with {where} failed: {text}", phase="tls")
