"""Rotating one of the platform's secrets in ``connectors/supabase``, everywhere that it is kept.

The new value is written to OpenBao, to the copies that services read, and for a login to PostgreSQL. From there
External Secrets brings it to the cluster within its refresh interval; who reads it only at start is to be started anew,
which Stakater's Reloader does by itself.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import hvac
import psycopg
from hvac.exceptions import InvalidPath

from data_plane.clients.openbao import read_kv, write_kv
from data_plane.clients.postgres import set_password
from data_plane.errors import ConnectorError
from data_plane.model.connector_secrets import (
    CLUSTER_SECRETS,
    SUPABASE_SECRETS,
    SecretKind,
    generate,
    new_signing_key,
    public_keys,
)
from data_plane.model.naming import CONNECTORS_MOUNT, PUBLISHABLE_KEY, PUBLISHABLE_KEY_BEFORE, SUPABASE_SECRET
from data_plane.model.service_logins import logins_in

__all__ = ["KeysNotPublishedError", "Rotated", "RotationError", "rotate"]

_ADMIN_KEY = "POSTGRES_PASSWORD"
_SIGNING_KEYS = "JWT_KEYS"
_FROM_SIGNING_KEYS = ("JWT_JWKS", "ANON_KEY", "SERVICE_ROLE_KEY")
_BEFORE = {PUBLISHABLE_KEY: PUBLISHABLE_KEY_BEFORE}
"""Keys whose last value is still taken, and where that is kept."""
_ENCRYPTS_WHAT_IS_STORED = {
    "VAULT_ENC_KEY": "the pooler has encrypted its own login with it; what is stored could not be read any more",
}


class RotationError(ConnectorError):
    """The secret was not rotated; nothing was changed."""

    code = "rotation-refused"


class KeysNotPublishedError(RotationError):
    """The next step of ``JWT_KEYS`` would come before the verifiers have the keys of the last one."""

    code = "keys-not-published"


@dataclass(frozen=True)
class Rotated:
    """What was done, and what comes next."""

    keys: tuple[str, ...]
    """Those of ``connectors/supabase`` that have a new value."""
    services: tuple[str, ...]
    """Who reads one of them."""
    remark: str = ""


Connect = Callable[[str], "psycopg.Connection[Any]"]
"""Opens a connection to PostgreSQL as its superuser, with the given password."""


def rotate(client: hvac.Client, key: str, connect: Connect) -> Rotated:
    """Gives a key of ``connectors/supabase`` a new value.

    ``JWT_KEYS`` takes three steps, one each time, so that no token is refused on the way: announce the next key, sign
    with it, forget the one before. Each is refused until the keys of the last one are published in the database. The
    last publishable key is taken until the next rotation, or until it is rotated itself.

    Raises:
        RotationError: if the key is not one that this program generates, or what it encrypts would be lost.
        KeysNotPublishedError: if the verifiers do not have all of ``JWT_KEYS`` yet.
        psycopg.Error, hvac.exceptions.VaultError: if one of the servers refuses; the same command can be run again.
    """
    present, version = read_kv(client, CONNECTORS_MOUNT, SUPABASE_SECRET)
    of_logins = logins_in(present)
    kinds = {**dict.fromkeys(of_logins.values(), SecretKind.PASSWORD), **SUPABASE_SECRETS, **CLUSTER_SECRETS}
    _refuse(key, kinds, present)
    if key == _SIGNING_KEYS:
        _refuse_unpublished(present, connect)
        changed, remark = _next_step(present)
    else:
        changed, remark = {key: generate(kinds[key], present)}, ""
    if key in _BEFORE:
        changed[_BEFORE[key]] = present[key]
        remark = f"The key before is still taken. When no client has it any more: secret rotate {_BEFORE[key]}"
    logins = [login for login, of in of_logins.items() if of == key]
    if key == _ADMIN_KEY or logins:
        _finish_interrupted(client, present, version, connect)
    with connect(present[_ADMIN_KEY]) if key == _ADMIN_KEY or logins else nullcontext() as connection:
        # PostgreSQL commits when OpenBao has the value: a password that nobody knows is the worst that could happen.
        if connection is not None:
            for login in _superusers(connection) if key == _ADMIN_KEY else logins:
                set_password(connection, login, changed[key])
        write_kv(client, CONNECTORS_MOUNT, SUPABASE_SECRET, {**present, **changed}, version)
    services = tuple(sorted(_copy(client, changed)))
    return Rotated(tuple(changed), services, remark)


def _finish_interrupted(client: hvac.Client, present: Mapping[str, str], version: int, connect: Connect) -> None:
    """Gives PostgreSQL the administrator's password that OpenBao has, if a rotation was killed between the two."""
    try:
        connect(present[_ADMIN_KEY]).close()
    except psycopg.OperationalError as error:
        before = _password_before(client, present[_ADMIN_KEY], version)
        if "password authentication failed" not in str(error) or before is None:
            raise
        with connect(before) as connection:
            for login in _superusers(connection):
                set_password(connection, login, present[_ADMIN_KEY])


def _password_before(client: hvac.Client, present: str, version: int) -> str | None:
    """The administrator's last password that was another one, as far back as OpenBao keeps versions."""
    for earlier in range(version - 1, 0, -1):
        try:
            answer = client.secrets.kv.v2.read_secret_version(
                path=SUPABASE_SECRET, mount_point=CONNECTORS_MOUNT, version=earlier, raise_on_deleted_version=True
            )
        except InvalidPath:
            return None
        password = dict(answer["data"]["data"]).get(_ADMIN_KEY)
        if password != present:
            return password
    return None


def _superusers(connection: "psycopg.Connection[Any]") -> list[str]:
    """The administrator, and Supabase's other login that was given its password at the first start."""
    rows = connection.execute("select rolname from pg_roles where rolname = 'postgres' and rolcanlogin").fetchall()
    return sorted({connection.info.user, *(row[0] for row in rows)})


def _refuse(key: str, kinds: Mapping[str, SecretKind], present: Mapping[str, str]) -> None:
    place = f"{CONNECTORS_MOUNT}/{SUPABASE_SECRET}"
    if key in _FROM_SIGNING_KEYS:
        raise RotationError(f"{key} follows from {_SIGNING_KEYS}: rotate that")
    if key in _ENCRYPTS_WHAT_IS_STORED:
        raise RotationError(f"{key} is not rotated: {_ENCRYPTS_WHAT_IS_STORED[key]}")
    if kinds.get(key) is SecretKind.NAME:
        raise RotationError(f"{key} is a name and no secret")
    if key not in kinds and key in present:
        raise RotationError(
            f"{key} is not generated here: put its new value there, `bao kv patch -mount={CONNECTORS_MOUNT} "
            f"{SUPABASE_SECRET} {key}=-`, and run `pulumi up --refresh`"
        )
    if key not in present:
        raise RotationError(f"{place} has no {key}; it has: {', '.join(sorted(present)) or 'nothing'}")


def _refuse_unpublished(present: Mapping[str, str], connect: Connect) -> None:
    """Refuses the next step while a verifier may lack a key that is announced, or signed with, already."""
    with connect(present[_ADMIN_KEY]) as connection:
        try:
            row = connection.execute("select jwks, published_at from data_plane.verifying_keys").fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            row = None
    jwks, published_at = row or ({"keys": []}, None)
    missing = {key["kid"] for key in json.loads(present[_SIGNING_KEYS])} - {key["kid"] for key in jwks["keys"]}
    if missing:
        last = f"last published {published_at:%Y-%m-%d %H:%M:%S %Z}" if published_at else "never published"
        names = ", ".join(sorted(missing))
        raise KeysNotPublishedError(
            f"{_SIGNING_KEYS} stays: verifiers do not know its key {names} yet ({last}). On a cluster the job "
            "supabase-jwks publishes it within 15 minutes; else bring the central stack up: `dataplane up`. Then run "
            "the same command again"
        )


def _next_step(present: Mapping[str, str]) -> tuple[dict[str, str], str]:
    keys: list[dict[str, Any]] = json.loads(present[_SIGNING_KEYS])
    signing = [key for key in keys if "sign" in key["key_ops"]]
    if len(keys) == 1:
        keys.append({**new_signing_key(), "key_ops": ["verify"]})
        remark = "The next key is announced. Sign with it in an hour, by the same command, when all services know it."
    elif keys[-1]["kid"] != signing[0]["kid"]:
        keys = [{**key, "key_ops": ["verify"]} for key in keys[:-1]] + [{**keys[-1], "key_ops": ["sign", "verify"]}]
        remark = (
            "Auth signs with the next key once it has started anew. Forget the one before, by the same command, when "
            "its last token has expired (kubernetes.auth.jwtExpiry) and every service has started anew."
        )
    else:
        keys = keys[-1:]
        remark = "The key before is forgotten: what it signed is refused from now on."
    changed = {_SIGNING_KEYS: json.dumps(keys)}
    changed["JWT_JWKS"] = public_keys(changed[_SIGNING_KEYS])
    for key in ("ANON_KEY", "SERVICE_ROLE_KEY"):
        changed[key] = generate(CLUSTER_SECRETS[key], changed)
    return changed, remark


def _copy(client: hvac.Client, changed: Mapping[str, str]) -> Iterable[str]:
    """Brings new values to the services' copies; gives the services that have one."""
    try:
        listed = client.secrets.kv.v2.list_secrets(path=SUPABASE_SECRET, mount_point=CONNECTORS_MOUNT)
    except InvalidPath:
        return
    for service in listed["data"]["keys"]:
        path = f"{SUPABASE_SECRET}/{service}"
        copy, version = read_kv(client, CONNECTORS_MOUNT, path)
        wanted = {key: changed.get(key, value) for key, value in copy.items()}
        if wanted != copy:
            write_kv(client, CONNECTORS_MOUNT, path, wanted, version)
            yield service
