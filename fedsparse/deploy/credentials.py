"""Certificates for the server and keys for the clients, made on the spot."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from fedsparse.errors import InputError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

DAYS = 365
LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Credentials:
    """Where they lie: the authority's certificate, the server's certificate and key, and each client's key."""

    ca: Path
    certificate: Path
    key: Path
    nodes: tuple[Path, ...]


def check() -> None:
    """InputError when there is nothing to make certificates with."""
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise InputError(
            "Certificates are made with the package cryptography, which is missing here: pip install cryptography."
        ) from None


def make(folder: Path, clients: int, hosts: Sequence[str] = ()) -> Credentials:
    """Write `ca.crt`, `server.pem`, `server.key`, and `node-N` with `node-N.pub` for each client into a new folder.

    The folder and its files are readable by their owner alone. The certificate is valid for a year and names the
    loopback interface and `hosts` (names or addresses), which is where clients may look for the server: Flower's own
    processes on the server's machine use 127.0.0.1. The authority's key is thrown away. Raises InputError when the
    package cryptography is missing or a host's name is none.
    """
    check()
    from cryptography.hazmat.primitives.asymmetric import ec

    names = _names((*LOOPBACK, *hosts))
    folder.mkdir(mode=0o700)
    authority, server = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    ca = _certificate("fedsparse authority", authority, "fedsparse authority", authority)
    certificate = _certificate("fedsparse server", server, "fedsparse authority", authority, names)
    made = Credentials(
        folder / "ca.crt",
        folder / "server.pem",
        folder / "server.key",
        tuple(folder / f"node-{client}" for client in range(clients)),
    )
    _write(made.ca, _pem(ca))
    _write(made.certificate, _pem(certificate))
    _write(made.key, _private(server))
    for path in made.nodes:
        key = ec.generate_private_key(ec.SECP384R1())
        _write(path, _private(key, ssh=True))
        _write(path.with_suffix(".pub"), _public(key))
    return made


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    from cryptography import x509

    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            if not host or not host.isascii() or any(c.isspace() or c in "/:" for c in host):
                raise InputError(f'"{host}" is no name or address of a host, such as fl.example.org.') from None
            names.append(x509.DNSName(host))
    return names


def _certificate(
    subject: str, key: EllipticCurvePrivateKey, issuer: str, signer: EllipticCurvePrivateKey,
    names: Sequence[x509.GeneralName] = (),
) -> x509.Certificate:  # fmt: skip
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_called(subject))
        .issuer_name(_called(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA384())


def _called(name: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: EllipticCurvePrivateKey, ssh: bool = False) -> bytes:
    """Unencrypted; Flower reads a client's key in OpenSSH's format."""
    from cryptography.hazmat.primitives import serialization

    form = serialization.PrivateFormat.OpenSSH if ssh else serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _public(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)


def _write(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
