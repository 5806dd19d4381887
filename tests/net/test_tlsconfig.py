"""Contexts, identity, and errors that say what was wrong."""
from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme

from pooledhttp import errors
from pooledhttp._net import tlsconfig
from pooledhttp._net.caenv import environment
from pooledhttp._net.tlsconfig import TlsSettings, hostname, settings, tls_error

from .conftest import Certificates, Peer


def test_importing_it_imports_no_ssl() -> None:
    script = ("import sys\nfrom pooledhttp._net import dial, resolver, tlsconfig, tls\nx = tlsconfig.settings(); x.identity()\n"
              "assert not {'ssl', 'certifi'} & set(sys.modules), sys.modules\n"
              "x.context()\nassert {'ssl', 'certifi'} <= set(sys.modules)")
    subprocess.run([sys.executable, "-c", script], check=True, timeout=20)


def test_one_context_for_equal_settings(certs: Certificates) -> None:
    assert settings().context() is settings().context()
    first = settings(certs.ca_file)
    assert first.context() is settings(certs.ca_file).context()
    assert first.context() is not settings().context()
    assert settings(False).context().verify_mode == ssl.CERT_NONE
    assert settings().context().verify_mode == ssl.CERT_REQUIRED and settings().context().check_hostname


def test_threads_that_come_at_once_make_one_context(certs: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = tlsconfig._make_context

    def make(wanted: TlsSettings) -> ssl.SSLContext:
        made.append(wanted)
        return real(wanted)

    monkeypatch.setattr(tlsconfig, "_make_context", make)
    tlsconfig._kept.clear()
    barrier = threading.Barrier(8)

    def get() -> ssl.SSLContext:
        barrier.wait(5)
        return settings(certs.ca_file).context()

    peers = [Peer(get) for _ in range(8)]
    assert len({id(p.join()) for p in peers}) == 1 and len(made) == 1


def test_a_directory_with_a_colon_in_its_name_is_one_directory(certs: Certificates, tmp_path: Path) -> None:
    folder = tmp_path / f"a{os.pathsep}b"
    folder.mkdir()
    certs.ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    assert len(settings(folder).context().get_ca_certs()) == 1
    named = settings().in_environment(environment({"REQUESTS_CA_BUNDLE": str(folder)}))
    assert len(named.context().get_ca_certs()) == 1
    listed = settings().in_environment(environment({"SSL_CERT_DIR": str(folder)}))
    with pytest.raises(errors.TLSError, match="which SSL_CERT_DIR names"):
        listed.context()                              # two, and neither is there


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    wanted = settings(file)
    first = wanted.context()
    assert wanted.context() is first
    trustme.CA().cert_pem.write_to_path(file)
    os.utime(file, ns=(1, 1))
    second = wanted.context()
    assert second is not first and wanted.context() is second
    assert first.get_ca_certs() != second.get_ca_certs()


@pytest.mark.parametrize("hashed", [False, True])
def test_a_folder_of_authorities(tmp_path: Path, hashed: bool) -> None:
    cas = [trustme.CA(organization_name=f"CA {i}") for i in range(2)]
    for i, ca in enumerate(cas):
        ca.cert_pem.write_to_path(tmp_path / f"{i}.pem")
    (tmp_path / "README").write_text("no certificate")
    if hashed:
        subprocess.run(["openssl", "rehash", str(tmp_path)], check=True, capture_output=True, timeout=10)
        (tmp_path / "dangling.pem").symlink_to("nowhere")
    for ca in cas:
        assert verified(settings(tmp_path), ca)
    assert not verified(settings(tmp_path), trustme.CA())


def verified(wanted: TlsSettings, ca: trustme.CA, host: str = "localhost") -> bool:
    """Whether a server with a certificate of `ca` is accepted; both ends in memory."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(server)
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [wanted.context().wrap_bio(a, b, server_hostname=host), server.wrap_bio(b, a, server_side=True)]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return True


def test_files_that_cannot_be_used(tmp_path: Path, certs: Certificates) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    (tmp_path / "empty").mkdir()
    for verify in (tmp_path / "missing.pem", tmp_path / "junk.pem", tmp_path / "empty"):
        with pytest.raises(errors.TLSError, match=verify.name) as caught:
            settings(verify).context()
        assert caught.value.phase == "tls"
    for cert in (str(tmp_path / "missing.pem"), (certs.ca_file, str(tmp_path / "junk.pem"))):
        with pytest.raises(errors.TLSError):
            settings(False, cert).context()


@pytest.fixture
def encrypted(tmp_path: Path, certs: Certificates) -> tuple[str, str]:
    chain, key, locked = tmp_path / "c.pem", tmp_path / "k.pem", tmp_path / "locked.pem"
    chain.write_bytes(b"".join(c.bytes() for c in certs.cert.cert_chain_pems))
    certs.cert.private_key_pem.write_to_path(key)
    subprocess.run(["openssl", "pkey", "-in", key, "-aes128", "-passout", "pass:secret", "-out", locked], check=True, timeout=10)
    key.unlink()
    return str(chain), str(locked)


def test_client_certificates(encrypted: tuple[str, str], certs: Certificates, tmp_path: Path) -> None:
    assert settings(False, (*encrypted, "secret")).context()
    assert settings(False, (*encrypted, lambda: "secret")).context()
    with pytest.raises(errors.TLSError, match="no password was given"):
        settings(False, encrypted).context()
    with pytest.raises(errors.TLSError, match="client certificate"):
        settings(False, (*encrypted, "wrong")).context()
    one = tmp_path / "one.pem"
    certs.cert.private_key_and_cert_chain_pem.write_to_path(one)
    assert settings(False, one).context() is settings(False, (str(one),)).context()


def test_a_users_context_is_used_as_it_is(certs: Certificates) -> None:
    calls = []

    class Context(ssl.SSLContext):
        def set_alpn_protocols(self, protocols: Any) -> None:
            calls.append(list(protocols))
            super().set_alpn_protocols(protocols)

    mine = Context(ssl.PROTOCOL_TLS_CLIENT)
    for _ in range(2):
        assert settings(mine).context() is mine
    assert calls == [["http/1.1"]]
    with pytest.raises(ValueError, match="into the context"):
        settings(mine, certs.ca_file)


@pytest.mark.parametrize("verify", [None, 1, 0, b"x", object()])
def test_verify_of_no_kind(verify: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        settings(verify)
    with pytest.raises(ValueError):
        settings("")


@pytest.mark.parametrize("cert", [1, (), ("a", "b", "c", "d"), [("a", "b")]])
def test_cert_of_no_kind(cert: Any) -> None:
    with pytest.raises(TypeError):
        settings(True, cert)


def test_the_environment(tmp_path: Path) -> None:
    env = {"SSL_CERT_FILE": "/f", "SSL_CERT_DIR": "/d", "REQUESTS_CA_BUNDLE": "/r", "CURL_CA_BUNDLE": str(tmp_path)}

    def seen(*options: Any) -> Any:
        return settings(*options).in_environment(environment(env)).verify

    assert seen(False) is False and seen("/x") == ("/x", "")
    assert seen() == seen(True, "/cert") == ("/f", "/d")
    del env["SSL_CERT_FILE"]
    assert seen() == ("", "/d")
    env["SSL_CERT_DIR"] = ""
    assert seen() == ("/r", "") and environment(env) == " (REQUESTS_CA_BUNDLE='/r')"
    del env["REQUESTS_CA_BUNDLE"]
    assert seen() == ("", str(tmp_path))
    env.clear()
    assert seen() is True and environment(env) == ""


def test_two_environments_are_never_one_key() -> None:
    one = environment({"SSL_CERT_FILE": "/a, SSL_CERT_DIR=/b"})
    assert one != environment({"SSL_CERT_FILE": "/a", "SSL_CERT_DIR": "/b"})
    assert one == environment({"SSL_CERT_FILE": "/a, SSL_CERT_DIR=/b"})


@pytest.mark.parametrize("digits", ["ab" * 32, "AB" * 32, ":".join(["ab"] * 32), ":".join(["Ab"] * 32)])
@pytest.mark.parametrize("name", ["sha256:", "SHA256:"])
def test_a_pin_is_read_in_every_form(name: str, digits: str) -> None:
    assert settings(fingerprint=name + digits).fingerprint == "ab" * 32


def test_identity(certs: Certificates) -> None:
    mine, other = ssl.create_default_context(), ssl.create_default_context()
    all_different = [
        settings(), settings(False), settings("/a"), settings("/b"), settings(mine), settings(other),
        settings(True, "/c"), settings(True, ("/c", "/k")), settings(True, ("/c", "/k", "s3cret")), settings(True, ("/c", "/k", "other")),
        TlsSettings(alpn=("h2", "http/1.1")), settings("system"), settings(fingerprint="sha256:" + "ab" * 32),
    ]
    keys = [s.identity(name) for s in all_different for name in (None, "a.test", "b.test")]
    assert len(set(keys)) == len(keys)
    assert keys[0] == "" and not any("s3cret" in k for k in keys)
    assert settings(mine).identity() == settings(mine).identity()
    assert settings(True, ("/c", "/k", "s3cret")).identity() == settings(True, ("/c", "/k", "s3cret")).identity()


@pytest.mark.parametrize(("host", "name", "expected"), [
    ("example.test", None, "example.test"), ("example.test.", None, "example.test"), ("::1", None, "::1"),
    ("fe80::1%eth0", None, "fe80::1"), ("10.0.0.1", "example.test", "example.test"),
])
def test_hostname(host: str, name: str | None, expected: str) -> None:
    assert hostname(host, name) == expected


def test_errors_of_other_kinds() -> None:
    wrong = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)")
    assert "plain HTTP" in str(tls_error(wrong, "h:1", b"HTTP/1.1 400"))
    assert "b'220 smtp'" in str(tls_error(wrong, "h:1", b"220 smtp"))
    text = str(tls_error(wrong, "h:1"))
    assert text == "TLS with h:1 failed: wrong version number"
    assert "reset by peer" in str(tls_error(ConnectionResetError(104, "Connection reset by peer"), "h:1"))
