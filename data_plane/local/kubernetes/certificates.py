"""Keys and certificates of the control plane, made here and used nowhere else."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from data_plane.state_dir import StateDir

__all__ = ["Authority", "Pair", "signing_key"]

_AUTHORITY_YEARS = 10
_CERTIFICATE_YEARS = 1
_RSA_BITS = 2048


class Pair(NamedTuple):
    """A certificate and its key, as PEM."""

    certificate: str
    key: str


class Authority:
    """A certificate authority that is kept in the private folder.

    Args:
        home: where.
        folder: the part of it.
        name: of the authority; its files are ``<name>.crt`` and ``<name>.key``.
    """

    def __init__(self, home: StateDir, folder: str, name: str) -> None:
        self.path = home.path / folder / f"{name}.crt"
        key_path = self.path.with_suffix(".key")
        if not (self.path.exists() and key_path.exists()):
            made = _make_authority(name)
            home.write_private(f"{folder}/{name}.key", made.key)
            home.write_private(f"{folder}/{name}.crt", made.certificate)
        self.pem = self.path.read_text(encoding="utf-8")
        self._certificate = x509.load_pem_x509_certificate(self.pem.encode())
        self._key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)

    def issue(self, name: str, group: str | None = None, hosts: Iterable[str] = ()) -> Pair:
        """A certificate for a year.

        Args:
            name: the common name; for a client of Kubernetes, the user's name.
            group: the organization; for a client of Kubernetes, the user's group.
            hosts: names and addresses of a server.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name, group)
        extended = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = (
            _dated(_CERTIFICATE_YEARS)
            .subject_name(subject)
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(extended), critical=False)
            .add_extension(_key_id_of(self._certificate), critical=False)
        )
        if names := [_host(host) for host in hosts]:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if not isinstance(self._key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{self.path} is not an authority made here")
        made = builder.sign(self._key, hashes.SHA256())
        return Pair(made.public_bytes(serialization.Encoding.PEM).decode(), _pem(key))


def signing_key() -> str:
    """A key for service account tokens, as PEM; RSA, as most clusters have it."""
    return _pem(rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS))


def _make_authority(name: str) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name, None)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        _dated(_AUTHORITY_YEARS)
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(made.public_bytes(serialization.Encoding.PEM).decode(), _pem(key))


def _dated(years: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=365 * years))
    )


def _key_id_of(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    found = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


def _name(common: str, group: str | None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if group is not None:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    return x509.Name(parts)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
