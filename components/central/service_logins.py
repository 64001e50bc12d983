"""The passwords of the logins by which Supabase's services reach PostgreSQL.

The official files give all of them the superuser's password. Here each login has one of its own, which only its
service can read. It is set from OpenBao, as a verifier that is computed here, so that the password is neither in
PostgreSQL's log nor in Pulumi's state.
"""

from collections.abc import Mapping
from typing import Any

import psycopg
import pulumi
from pulumi.dynamic import ReadResult, Resource

from components.dynamic import ApplyingProvider
from data_plane.clients import openbao
from data_plane.clients.openbao import read_kv
from data_plane.clients.postgres import DatabaseUnavailableError, connect, explain, set_password
from data_plane.errors import DataPlaneError
from data_plane.model.connector_secrets import SecretsMissingError
from data_plane.model.service_logins import SERVICE_LOGINS

__all__ = ["ServiceLogins", "ServiceLoginsError", "set_password"]

_ADMIN_KEY = "POSTGRES_PASSWORD"
_PLACE = ("host", "port", "database", "username", "sslmode")


class ServiceLoginsError(DataPlaneError):
    """The passwords could not be set; none of them was."""

    code = "service-logins"


class _Provider(ApplyingProvider):
    inputs = ("address", "mount", "path", "version", "logins", *_PLACE)

    def id_of(self, props: Mapping[str, Any]) -> str:
        return "service-logins"

    def is_current(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
        return bool(olds.get("current"))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        try:
            passwords = self._passwords(props)
        except SecretsMissingError:
            # A login of a new cell or project: its password is there once ConnectorSecrets is applied.
            return ReadResult(id_=id_, outs={**_described(props), "current": False})
        current = all(self._works(props, login, passwords[key]) for login, key in props["logins"].items())
        return ReadResult(id_=id_, outs={**_described(props), "current": current})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Nothing: the logins are the database's."""

    def apply(self, props: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
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
            ) from error
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
