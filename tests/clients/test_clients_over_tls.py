"""The same clients over TLS, with a certificate of a private authority: what a deployed environment has."""

import datetime as dt
import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from data_plane.local.processes import LOOPBACK, wait_until
from data_plane.model.naming import AccessLevel
from tests.clients.conftest import open_shops, opener
from tests.clients.sessions import IN_NODE, IN_PYTHON, RefusedError
from tests.conftest import NewPlane, Plane

CLIENTS = [*IN_PYTHON, *IN_NODE]
CHECKED_UNASKED = ["node-postgres", "Drizzle"]
"""They take ``require`` for ``verify-full``."""


def certificate(
    name: str, issuer: str, issuer_key: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePrivateKey, *, authority: bool
) -> bytes:
    now = dt.datetime.now(dt.UTC)
    # postgres.js compares with `localhost` where the host is an address.
    names = [x509.IPAddress(ipaddress.ip_address(LOOPBACK)), x509.DNSName("localhost")]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.fixture(scope="module")
def shops(new_plane: NewPlane) -> Iterator[Plane]:
    """On the system's PostgreSQL, and with its psql: the wheel's are built without TLS."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("no PostgreSQL that was built with TLS: install the system's to try clients over it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_PLANE_POSTGRES_BIN", str(found[-1]))
        yield open_shops(new_plane)


@pytest.fixture(scope="module")
def authority(shops: Plane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authority's certificate; PostgreSQL has one of it and offers TLS."""
    root, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    file = tmp_path_factory.mktemp("authority") / "root.pem"
    file.write_bytes(certificate("authority", "authority", root, root, authority=True))
    data = shops.local_env.servers.postgres.data
    (data / "server.crt").write_bytes(certificate(LOOPBACK, "authority", root, server, authority=False))
    (data / "server.key").touch(mode=0o600)
    (data / "server.key").write_bytes(
        server.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    for key in ("server.crt", "server.key"):
        os.chown(data / key, data.stat().st_uid, data.stat().st_gid)
    with shops.admin() as admin:
        admin.autocommit = True
        admin.execute("alter system set ssl to on")
        admin.execute("select pg_reload_conf()")
    assert wait_until(lambda: shops.rows("show ssl") == [("on",)], 60)
    return file


def url(shops: Plane, options: str) -> tuple[str, str]:
    """A lease's connection string as a deployed environment writes it, and its login."""
    lease = shops.lease("shop", AccessLevel.SERVICE_ROLE)
    assert lease.connection_string.endswith("?sslmode=disable")
    return lease.connection_string.removesuffix("sslmode=disable") + options, lease.username


def encrypted(shops: Plane, login: str) -> bool:
    rows = shops.rows("select ssl from pg_stat_ssl join pg_stat_activity using (pid) where usename = %s", login)
    return rows == [(True,)]


@pytest.mark.parametrize("name", CLIENTS)
def test_required_encryption_is_used(
    shops: Plane, authority: Path, request: pytest.FixtureRequest, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in CHECKED_UNASKED:
        monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(authority))
    address, login = url(shops, "sslmode=require")
    session = opener(name, request)(address)
    assert encrypted(shops, login)
    session.close()


@pytest.mark.parametrize("name", CHECKED_UNASKED)
def test_node_postgres_wants_to_know_the_authority_even_if_only_encryption_is_required(
    shops: Plane, authority: Path, request: pytest.FixtureRequest, name: str
) -> None:
    address, _login = url(shops, "sslmode=require")
    with pytest.raises(RefusedError, match="unable to verify the first certificate"):
        opener(name, request)(address)


@pytest.mark.parametrize("name", CLIENTS)
def test_the_servers_certificate_is_verified(
    shops: Plane, authority: Path, request: pytest.FixtureRequest, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ = opener(name, request)
    address, login = url(shops, "sslmode=verify-full")
    with pytest.raises(RefusedError, match="certificate"):
        open_(address)
    if name in IN_NODE:
        monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(authority))
    else:
        address += f"&sslrootcert={authority}"
    session = open_(address)
    assert encrypted(shops, login)
    session.close()
