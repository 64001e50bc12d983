"""The passwords of the logins by which Supabase's services reach PostgreSQL.

The official files give all of them the superuser's password. Here each login has one of its own, which only its
service can read. It is set from OpenBao, as a verifier that is computed here, so that the password is neither in
PostgreSQL's log nor in Pulumi's state.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import psycopg
import pulumi
from psycopg import sql
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult

from components import openbao
from components.central.connector_secrets import SecretsMissingError
from components.naming import TenantNames
from components.openbao import read_kv
from components.postgres import DatabaseUnavailableError, connect, explain

__all__ = [
    "SERVICE_LOGINS",
    "ServiceLogins",
    "ServiceLoginsError",
    "logins_in",
    "own_login_key",
    "service_logins",
    "set_password",
]

SERVICE_LOGINS: Mapping[str, str] = {
    "authenticator": "AUTHENTICATOR_PASSWORD",
    "supabase_auth_admin": "AUTH_ADMIN_PASSWORD",
    "supabase_storage_admin": "STORAGE_ADMIN_PASSWORD",
    "pgbouncer": "POOLER_PASSWORD",
    "data_plane_keys": "KEYS_PASSWORD",
}
"""Login → key of ``connectors/supabase``."""

_OWN_LOGIN = re.compile(r"PROJ_[A-Z0-9_]+_AUTHENTICATOR_PASSWORD")
_ADMIN_KEY = "POSTGRES_PASSWORD"
_PLACE = ("host", "port", "database", "username", "sslmode")


def own_login_key(names: TenantNames) -> str:
    """The key of ``connectors/supabase`` with the password of a PostgREST that serves one tenant alone."""
    return f"{names.authenticator.upper()}_PASSWORD"


def service_logins(served_apart: Iterable[TenantNames]) -> dict[str, str]:
    """Login → key, with those of the PostgRESTs that serve one tenant alone."""
    return {**SERVICE_LOGINS, **{names.authenticator: own_login_key(names) for names in served_apart}}


def logins_in(secret: Collection[str]) -> dict[str, str]:
    """Login → key, of those keys that ``connectors/supabase`` has."""
    own = {key.removesuffix("_PASSWORD").lower(): key for key in secret if _OWN_LOGIN.fullmatch(key)}
    return {login: key for login, key in {**SERVICE_LOGINS, **own}.items() if key in secret}


class ServiceLoginsError(RuntimeError):
    """The passwords could not be set; none of them was."""


def set_password(connection: psycopg.Connection[Any], login: str, password: str) -> None:
    """Gives a login a password, as a SCRAM verifier."""
    verifier = connection.pgconn.encrypt_password(password.encode(), login.encode(), b"scram-sha-256").decode()
    connection.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(login), sql.Literal(verifier)))


class _Provider(ResourceProvider):
    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(id_="service-logins", outs=self._apply(props))

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(outs=self._apply(news))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        inputs = ("address", "mount", "path", "version", "logins", *_PLACE)
        changed = any(olds.get(key) != news.get(key) for key in inputs)
        return DiffResult(changes=changed or not olds.get("current"), replaces=[], stables=[])

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        passwords = self._passwords(props)
        current = all(self._works(props, login, passwords[key]) for login, key in props["logins"].items())
        return ReadResult(id_=id_, outs={**_described(props), "current": current})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Nothing: the logins are the database's."""

    def _apply(self, props: dict[str, Any]) -> dict[str, Any]:
        passwords = self._passwords(props)
        try:
            with connect({**props, "password": passwords[_ADMIN_KEY]}) as connection:
                for login, key in sorted(props["logins"].items()):
                    if not self._works(props, login, passwords[key]):
                        set_password(connection, login, passwords[key])
        except psycopg.Error as error:
            place = f"{props['host']}:{int(props['port'])}"
            raise ServiceLoginsError(
                f"PostgreSQL at {place}: the services' passwords were not set: {explain(error)}"
            ) from None
        return {**_described(props), "current": True}

    @staticmethod
    def _passwords(props: dict[str, Any]) -> dict[str, str]:
        found, _ = read_kv(openbao.connect(props["address"]), props["mount"], props["path"])
        wanted = {_ADMIN_KEY: props["username"], **{key: login for login, key in props["logins"].items()}}
        missing = {key: f"the login {login}" for key, login in wanted.items() if not found.get(key)}
        if missing:
            raise SecretsMissingError(props["mount"], props["path"], missing)
        return found

    @staticmethod
    def _works(props: dict[str, Any], login: str, password: str) -> bool:
        try:
            connect({**props, "username": login, "password": password}).close()
        except DatabaseUnavailableError:
            return False
        return True


def _described(props: dict[str, Any]) -> dict[str, Any]:
    return {key: props[key] for key in ("address", "mount", "path", "version", "logins", *_PLACE)}


class ServiceLogins(Resource, module="central", name="ServiceLogins"):
    """Sets the services' passwords in PostgreSQL to those in OpenBao, again when they change on either side.

    Args:
        address: OpenBao's URL.
        mount: the KV v2 mount.
        path: the secret inside it that holds the passwords.
        version: its version, so that a change of it is followed.
        host, port, database, username, sslmode: PostgreSQL, as its superuser.
        logins: login → key of the secret.

    Raises:
        DatabaseUnavailableError: while it is applied, if PostgreSQL cannot be used.
        ServiceLoginsError: while it is applied, if PostgreSQL lacks one of the logins.
        SecretsMissingError: while it is applied, if the secret lacks one of the keys.
    """

    current: pulumi.Output[bool]
    """Whether every login takes its password; known once they are set."""

    def __init__(
        self,
        name: str,
        *,
        address: pulumi.Input[str],
        mount: pulumi.Input[str],
        path: pulumi.Input[str],
        version: pulumi.Input[int],
        host: pulumi.Input[str],
        port: pulumi.Input[int],
        database: pulumi.Input[str],
        username: pulumi.Input[str],
        sslmode: pulumi.Input[str],
        logins: Mapping[str, str] = SERVICE_LOGINS,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "address": address,
            "mount": mount,
            "path": path,
            "version": version,
            "host": host,
            "port": port,
            "database": database,
            "username": username,
            "sslmode": sslmode,
            "logins": dict(logins),
            "current": None,
        }
        super().__init__(_Provider(), name, props, opts)
