"""Certificates of any kind, good and bad, made on the fly."""
from __future__ import annotations

import ipaddress
import ssl
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
_last_serial = 1000


class Made:
    """A certificate and its key: `pem` and `key_pem` as bytes, `sha256` the fingerprint in lower-case hex."""

    def __init__(self, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
        self.cert = cert
        self.key = key

    @property
    def pem(self) -> bytes:
        return self.cert.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.encrypted(None)

    def encrypted(self, password: bytes | None) -> bytes:
        how = serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)

    @property
    def sha256(self) -> str:
        return self.cert.fingerprint(hashes.SHA256()).hex()

    def server(self, folder: Path, *chain: Made) -> ssl.SSLContext:
        """A server's context that shows this certificate and `chain`, however weak they are."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        file = folder / f"server{self.cert.serial_number}.pem"
        file.write_bytes(self.key_pem + self.pem + b"".join(one.pem for one in chain))
        context.load_cert_chain(file)
        return context


def make(*names: str, by: Made | None = None, cn: str = "", authority: bool | None = None, days: tuple[int, int] = (-2, 30), rsa_bits: int = 0,
         usage: x509.ObjectIdentifier | None = None) -> Made:
    """A certificate for `names` (an address becomes an IP entry), signed by `by` (None: by itself).

    `authority`: what basicConstraints say (None: nothing). Valid from `days[0]` to `days[1]` from now. `rsa_bits`: an RSA key of that size; 0: P-256.
    """
    global _last_serial
    _last_serial += 1
    key = rsa.generate_private_key(65537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
    subject = _name(cn or f"certificate {_last_serial}")
    now = datetime.now(timezone.utc)
    builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(by.cert.subject if by else subject).public_key(key.public_key())
               .serial_number(_last_serial).not_valid_before(now + timedelta(days=days[0])).not_valid_after(now + timedelta(days=days[1]))
               .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False))
    signer = by.key if by else key
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_entry(name) for name in names]), False)
    if authority is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), True)
    if authority:
        builder = builder.add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), True)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
    return Made(builder.sign(signer, hashes.SHA256()), key)


def signed_with(digest: str, name: str, by: Made, folder: Path) -> Made:
    """A certificate for `name` whose signature uses `digest` ("sha1", "md5"), which `cryptography` refuses to make."""
    issuer, issuer_key, request, key_file, out = (folder / f"{digest}.{what}" for what in ("issuer", "issuer-key", "csr", "key", "pem"))
    issuer.write_bytes(by.pem)
    issuer_key.write_bytes(by.key_pem)
    extensions = folder / f"{digest}.ext"
    extensions.write_text(f"subjectAltName=DNS:{name}\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
    for command in (("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout", key_file,
                     "-out", request),
                    ("x509", "-req", "-in", request, "-CA", issuer, "-CAkey", issuer_key, "-set_serial", "77", "-days", "9", f"-{digest}",
                     "-extfile", extensions, "-out", out)):
        subprocess.run(["openssl", *command], check=True, capture_output=True, timeout=30)
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Made(x509.load_pem_x509_certificate(out.read_bytes()), key)


def _name(cn: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])


def _entry(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
