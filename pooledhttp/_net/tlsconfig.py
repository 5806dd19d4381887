"""What a dial needs to know of TLS: contexts made once and kept, the pool's identity key, and errors that say what was wrong."""
from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from pooledhttp import errors
from pooledhttp._net import openssl
from pooledhttp._net.caenv import CA_VARIABLES, environments

if TYPE_CHECKING:
    import ssl

Password = str | bytes | Callable[[], str | bytes]
Verify: TypeAlias = "bool | str | tuple[str, str] | ssl.SSLContext"
KEPT_MAX = 256                # contexts kept; a process that needs more makes them anew
KEY_LOG = "SSLKEYLOGFILE"
SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How to speak TLS with a server. Make it with `settings`; where all but `fingerprint` is equal, the context is one.

    `verify`: True (certifi), False, "system" (truststore), paths of a CA file and of a CA directory (either may be ""), or the user's
    own context. `cert`: paths of the client's certificate chain and key ("" where the key is in the same file). `fingerprint`: the
    SHA-256 of the leaf that alone is accepted, 64 lower-case hex digits. `named`: the variables of the environment that gave the two paths.
    """

    verify: Verify = True
    cert: tuple[str, str] | None = None
    password: Password | None = None
    alpn: tuple[str, ...] = ("http/1.1",)
    fingerprint: str | None = None
    named: tuple[str, str] = ("", "")

    def context(self) -> ssl.SSLContext:
        """The context to dial with, never changed once made; made anew where a file's mtime changed. Raises TLSError."""
        if not isinstance(self.verify, (bool, str, tuple)):
            return _users_context(self.verify, self.alpn)
        return _kept_context(self)

    def identity(self, server_hostname: str | None = None) -> str:
        """A short key for pools: connections under one key trust the same, show the same certificate and name the same host.

        "" for the defaults. Passwords and keys are not in it. It means something in this process only.
        """
        parts = []
        if self.verify is False:
            parts.append("insecure")
        elif isinstance(self.verify, str):
            parts.append(self.verify)
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
        if self.fingerprint is not None:
            parts.append("pin=" + self.fingerprint)
        if server_hostname is not None:
            parts.append("name=" + server_hostname)
        return ",".join(parts)

    def check_pin(self, leaf: bytes | None, where: str) -> None:
        """CertificateError where `leaf`, the server's certificate in DER, is not the pinned one."""
        if self.fingerprint is None:
            return
        import hashlib

        seen = hashlib.sha256(leaf or b"").hexdigest()
        if seen != self.fingerprint:
            raise errors.CertificateError(f"the certificate of {where} is not the pinned one: its fingerprint is sha256:{seen}", phase="tls")

    def for_proxy(self) -> TlsSettings:
        """The same trust, for a proxy, which is asked by HTTP/1.1: certificate and pin are for the server alone."""
        return replace(self, cert=None, password=None, alpn=("http/1.1",), fingerprint=None)

    def offering_h2(self) -> TlsSettings:
        """The same, and HTTP/2 offered before HTTP/1.1 (RFC 7301, RFC 9113 section 3.2)."""
        return replace(self, alpn=("h2", "http/1.1"))

    def in_environment(self, trust: str) -> TlsSettings:
        """These settings as `environment` found the CA variables when it returned `trust`: they count only where `verify is True`."""
        if not trust or self.verify is not True:
            return self
        paths, named = environments[trust]
        return replace(self, verify=paths, named=named)


def settings(verify: Any = True, cert: Any = None, fingerprint: str | None = None) -> TlsSettings:
    """From `Transport`'s options.

    `verify`: True, False, "system", the path of a CA file or directory, or an `ssl.SSLContext`. `cert`: a PEM path, or (cert, key) or
    (cert, key, password). `fingerprint`: "sha256:" and 64 hex digits, colons between them or not. Raises TypeError, ValueError, or
    ImportError ("system" without truststore).
    """
    chosen: Verify
    if verify is True or verify is False or _is_context(verify):
        chosen = verify
    elif verify == SYSTEM and isinstance(verify, str):
        from importlib.util import find_spec

        if find_spec("truststore") is None:
            raise ImportError('verify="system" needs the package truststore: pip install "pooledhttp[system]"')
        chosen = SYSTEM
    elif isinstance(verify, (str, os.PathLike)):
        path = os.fspath(verify)
        if not isinstance(path, str) or not path:
            raise ValueError(f"verify is no path of a CA file or directory: {path!r}")
        chosen = ("", path) if os.path.isdir(path) else (path, "")
    else:
        raise TypeError(f'verify must be True, False, "system", a path or an ssl.SSLContext, not {type(verify).__name__}')
    pin = None if fingerprint is None else _pin(fingerprint)
    if cert is None:
        return TlsSettings(chosen, fingerprint=pin)
    if not isinstance(chosen, (bool, str, tuple)):
        raise ValueError("cert beside an ssl.SSLContext: load the certificate into the context")
    password: Password | None = None
    if isinstance(cert, (str, os.PathLike)):
        cert = (cert,)
    if not isinstance(cert, tuple) or not 1 <= len(cert) <= 3:
        what = f"{len(cert)} values" if isinstance(cert, tuple) else type(cert).__name__
        raise TypeError(f"cert must be a path, (cert, key) or (cert, key, password), not {what}")
    if len(cert) == 3:
        password = bytes(cert[2]) if isinstance(cert[2], bytearray) else cert[2]
        if password is not None and not isinstance(password, (str, bytes)) and not callable(password):
            raise TypeError(f"the password of cert must be a str, bytes or a callable, not {type(password).__name__}")
    paths = [os.fspath(p) if p is not None else "" for p in cert[:2]]
    return TlsSettings(chosen, (paths[0], paths[1] if len(paths) > 1 else ""), password, fingerprint=pin)


def _is_context(verify: object) -> bool:
    # Of the class below `ssl.SSLContext`, which is what truststore.inject_into_ssl() puts another one in the place of.
    base = getattr(sys.modules.get("_ssl"), "_SSLContext", None)
    return base is not None and isinstance(verify, base)


def _pin(fingerprint: Any) -> str:
    if not isinstance(fingerprint, str):
        raise TypeError(f'fingerprint must be a str, "sha256:...", not {type(fingerprint).__name__}')
    digits = re.fullmatch(r"sha256:([0-9a-f]{64}|[0-9a-f]{2}(?::[0-9a-f]{2}){31})", fingerprint.lower())
    if digits is None:
        raise ValueError(f'fingerprint must be "sha256:" and 64 hex digits, with or without colons, not {fingerprint!r}')
    return digits[1].replace(":", "")


# -- contexts, one per settings --

Stamp = tuple[tuple[object, ...], ...]


class _Kept:
    """One context, and the lock of whoever makes it (20-30 ms with certifi; others want the same and wait)."""

    __slots__ = ("lock", "stamp", "context")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.stamp: Stamp | None = None
        self.context: ssl.SSLContext | None = None


_kept: dict[tuple[object, ...], _Kept] = {}
_numbers_lock = threading.RLock()
_numbers: dict[Any, int] = {}
_context_numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_alpn_set: weakref.WeakSet[Any] = weakref.WeakSet()
_last_number = 0


def reset_after_fork() -> None:
    """In the child: a lock may have been held by a thread that is not here. The contexts stay good, but for one with a lock of its own."""
    global _numbers_lock
    _numbers_lock = threading.RLock()
    for key, kept in list(_kept.items()):
        kept.lock = threading.RLock()
        if key[0] == SYSTEM and sys.platform == "darwin":
            kept.context = None                # truststore's


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
    found: list[tuple[object, ...]] = [(os.environ.get(KEY_LOG),)]
    if wanted.verify is True:
        import certifi

        file = certifi.where()
    elif wanted.verify == SYSTEM:
        import ssl

        # Where OpenSSL looks, SSL_CERT_FILE and SSL_CERT_DIR heeded; None for what is not there.
        for path in ssl.get_default_verify_paths()[:2]:
            if path:
                found.append((path, *_seen(path)))
    option = "verify" if isinstance(wanted.verify, tuple) else ""
    named = wanted.named[0] or option
    try:
        if file:
            found.append(_seen(file))
        named = "cert"
        for path in wanted.cert or ():
            if path:
                found.append(_seen(path))
        named = wanted.named[1] or option
        # A directory's own mtime says that a name came or went, not that a file in it was written over.
        for path in _folders(folder, wanted.named[1]):
            found.append(_seen(path))
            for entry in sorted(os.listdir(path)):
                with contextlib.suppress(FileNotFoundError):      # a dangling link
                    found.append(_seen(os.path.join(path, entry)))
    except OSError as exc:
        raise errors.TLSError(f"cannot read {exc.filename!r}{_of(named)}: {exc.strerror}", phase="tls") from exc
    return tuple(found)


def _of(named: str) -> str:
    return f", which {named} names" if named else ""


def _seen(path: str) -> tuple[int, int, int]:
    stat = os.stat(path)
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _kept_context(wanted: TlsSettings) -> ssl.SSLContext:
    key = wanted.verify, wanted.named, wanted.cert, wanted.password, wanted.alpn
    kept = _kept.get(key)
    if kept is None:
        if len(_kept) >= KEPT_MAX:
            _kept.clear()
        kept = _kept.setdefault(key, _Kept())
    stamp = _stamp(wanted)
    with kept.lock:
        if kept.context is None or kept.stamp != stamp:
            kept.context = openssl.guarded(_make_context, wanted)
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

        context = _trusting(certifi.where(), None, "")
    elif wanted.verify == SYSTEM:
        context = _trusting_system()
    else:
        assert isinstance(wanted.verify, tuple)
        context = _with_authorities(*wanted.verify, *wanted.named)
    # RFC 9525 section 2: a name counts in subjectAltName alone. (And who verifies nothing looks at no name.)
    context.hostname_checks_common_name = False
    log = os.environ.get(KEY_LOG)
    if log and not sys.flags.ignore_environment:
        try:
            context.keylog_filename = log
        except OSError as exc:
            raise errors.TLSError(f"cannot write the TLS keys to {log!r}, which {KEY_LOG} names: {_reason(exc)}", phase="tls") from exc
    if wanted.cert is not None:
        _load_cert(context, *wanted.cert, wanted.password)
    context.set_alpn_protocols(list(wanted.alpn))
    return context


def _trusting(file: str | None, folder: str | None, variable: str) -> ssl.SSLContext:
    """As `ssl.create_default_context`, the key log aside, whose failure would look like one of the certificates."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if sys.version_info >= (3, 13):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    _load_authorities(context, file, folder, variable)
    return context


def _load_authorities(context: ssl.SSLContext, file: str | None, folder: str | None, variable: str) -> None:
    try:
        context.load_verify_locations(cafile=file, capath=folder)
    except (OSError, ValueError) as exc:
        raise errors.TLSError(f"cannot load CA certificates from {file or folder!r}{_of(variable)}: {_reason(exc)}", phase="tls") from exc


def _trusting_system() -> ssl.SSLContext:
    import ssl

    import truststore

    context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if sys.platform not in ("darwin", "win32"):
        # Elsewhere truststore only finds the system's files, and reads them for each connection anew. What it made of them
        # is an ordinary context: without the lock that truststore holds in each handshake, which a fork could leave locked.
        context = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost").context
        context.sslobject_class = ssl.SSLObject
    return context


def _with_authorities(file: str, folder: str, of_file: str, of_folder: str) -> ssl.SSLContext:
    context = None
    parts: list[tuple[str | None, str | None, str]] = [(file, None, of_file)] if file else []
    for path in _folders(folder, of_folder):
        parts += [(*part, of_folder) for part in _in_folder(path)]
    for part in parts:
        if context is None:
            context = _trusting(*part)
        else:
            _load_authorities(context, *part)
    if context is None:
        raise errors.TLSError(f"no CA certificates in {folder!r}{_of(of_folder)}", phase="tls")
    return context


def _folders(folder: str, variable: str) -> list[str]:
    """SSL_CERT_DIR is a list of directories, as OpenSSL reads it; all else names one, whatever characters it has."""
    return [path for path in (folder.split(os.pathsep) if variable == CA_VARIABLES[1] else [folder]) if path]


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
        raise errors.TLSError(f"cannot load the client certificate {cert!r}: {_why_no_cert(exc, key or cert)}", phase="tls") from exc


def _why_no_cert(exc: Exception, key: str) -> str:
    why = _reason(exc)
    if why not in ("PEM lib", "[SSL] PEM lib"):
        return {"key values mismatch": f"the key in {key!r} is not this certificate's"}.get(why, why)
    # All that OpenSSL says; what is in the file says more.
    with open(key, "rb") as f:
        text = f.read()
    if b"PRIVATE KEY-----" not in text:
        return f"there is no private key in {key!r}"
    if b"ENCRYPTED" in text:
        return f"the password does not open the key in {key!r}"
    return f"the certificate or the key in {key!r} is damaged"


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
_UNKNOWN = "its issuer is unknown (the server may not send an intermediate certificate)"
_VERIFY = {
    9: "it, or one above it, is not yet valid",
    10: "it, or one above it, has expired",
    18: "it is self-signed",
    19: "its chain ends in a self-signed certificate that is not trusted",
    2: _UNKNOWN, 20: _UNKNOWN, 21: _UNKNOWN,
    23: "it was revoked",
    24: "its issuer is no certificate authority", 79: "its issuer is no certificate authority",
    26: "it is not meant for servers",
    32: "its issuer may not sign certificates",
    62: "it is for another host (a name counts in subjectAltName only)", 63: "it is for another host", 64: "it is for another address",
    66: "its key is too weak", 67: "its issuer's key is too weak", 68: "it, or one above it, has a signature that is too weak",
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
        text = f"{words}: {said}" if words else said
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
