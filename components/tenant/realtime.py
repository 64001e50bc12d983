"""A tenant's part of Realtime: a Realtime tenant and the login by which it looks at the database.

What the login may do, and who may do what with a topic, is in ``platform_realtime.sql``.
"""

import secrets
from collections.abc import Mapping
from typing import Any

import psycopg
import pulumi
from pulumi.dynamic import ReadResult

from components.database_resource import DatabaseResource
from components.platform import DatabaseConnection
from components.tenant.table_row import TableRowError, TableRowProvider
from data_plane.clients import openbao
from data_plane.clients.openbao import read_kv
from data_plane.clients.postgres import DatabaseUnavailableError, connect, explain, set_password
from data_plane.model.naming import CONNECTORS_MOUNT, SUPABASE_SECRET, realtime_login
from data_plane.model.projects import RealtimeSettings
from data_plane.model.realtime_cipher import seal, unseal

__all__ = ["TenantRealtime"]

_KEY = "REALTIME_DB_ENC_KEY_GCM"


class _Provider(TableRowProvider):
    table = "realtime"
    columns = (
        "attached",
        "public",
        "topics",
        "max_concurrent_users",
        "max_events_per_second",
        "max_bytes_per_second",
        "max_channels_per_client",
        "max_joins_per_second",
    )

    def after_write(self, connection: psycopg.Connection[Any], tenant: str) -> None:
        connection.execute("select data_plane.apply_realtime(%s)", [tenant])

    def is_current(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
        return bool(olds.get("sealed")) and olds.get("address") == news.get("address")

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        found = super().read(id_, props)
        key = _key(props)
        with connect(props) as connection:
            sealed = key is None or self._is_sealed(connection, props, key)
        return ReadResult(id_=found.id, outs={**(found.outs or {}), "address": props["address"], "sealed": sealed})

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Nobody joins the project's topics any more; nothing is kept in them."""
        self.forget(props)

    def apply(self, props: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
        written = super().apply(props, before)
        key = _key(props)
        if key is not None:
            try:
                with connect(props) as connection:
                    if not self._is_sealed(connection, props, key):
                        self._give_password(connection, props["tenant"], key)
            except psycopg.Error as error:
                raise TableRowError(f"the login of {props['tenant']}'s Realtime: {explain(error)}") from error
        return {**written, "address": props["address"], "sealed": True}

    @staticmethod
    def _give_password(connection: psycopg.Connection[Any], tenant: str, key: str) -> None:
        """A password that Realtime alone can read: it is kept nowhere else."""
        login, password = realtime_login(tenant), secrets.token_urlsafe(32)
        set_password(connection, login, password)
        connection.execute(
            "update data_plane.realtime set sealed_user = %s, sealed_password = %s where tenant = %s",
            [seal(key, login), seal(key, password), tenant],
        )
        connection.execute("select data_plane.apply_realtime_tenant(%s)", [tenant])

    @staticmethod
    def _is_sealed(connection: psycopg.Connection[Any], props: dict[str, Any], key: str) -> bool:
        """Whether Realtime can read name and password, and PostgreSQL takes them."""
        try:
            row = connection.execute(
                "select sealed_user, sealed_password, attached from data_plane.realtime where tenant = %s",
                [props["tenant"]],
            ).fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            return False
        user, password = (unseal(key, value) for value in row[:2]) if row else (None, None)
        if not row or user != realtime_login(props["tenant"]) or not password:
            return False
        if not row[2]:
            return True  # it may not sign in while its project is detached
        try:
            connect({**props, "username": user, "password": password}).close()
        except DatabaseUnavailableError:
            return False
        return True


def _key(props: dict[str, Any]) -> str | None:
    """Realtime's key; None where the platform runs no Realtime."""
    values, _ = read_kv(openbao.connect(props["address"]), CONNECTORS_MOUNT, SUPABASE_SECRET)
    return values.get(_KEY)


class TenantRealtime(DatabaseResource, module="tenant", name="TenantRealtime"):
    """The Realtime tenant of a project, by the name of its schema, and its login.

    The login's password is made here, and kept nowhere but in Realtime's table, sealed with Realtime's key; a new one
    follows when that key changes. If Realtime has no tables yet, the tenant is recorded now and created with them.

    Args:
        address: OpenBao's URL.
        database: the central database, as a superuser.
        tenant: the tenant's schema, and the name of the Realtime tenant.
        settings: what the project's file says.
        attached: whether anybody may use it.

    Raises:
        DatabaseUnavailableError, TableRowError, OpenBaoUnavailableError: while it is applied.
    """

    sealed: pulumi.Output[bool]
    """Whether Realtime can read the login's password; also where there is no Realtime."""

    def __init__(
        self,
        name: str,
        *,
        address: pulumi.Input[str],
        database: DatabaseConnection,
        tenant: str,
        settings: RealtimeSettings,
        attached: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        declared = {column: getattr(settings, column) for column in _Provider.columns if column != "attached"}
        props = {
            "address": address,
            "tenant": tenant,
            "attached": attached,
            **declared,
            "topics": settings.topics.value,
            "sealed": None,
        }
        super().__init__(_Provider(), name, database, props, opts)
