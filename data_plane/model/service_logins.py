"""The logins by which Supabase's services reach PostgreSQL, and where their passwords are."""

import re
from collections.abc import Collection, Iterable, Mapping

from data_plane.model.naming import ApiServer

__all__ = ["SERVICE_LOGINS", "STUDIO_LOGIN", "logins_in", "service_logins"]

STUDIO_LOGIN = "data_plane_studio"
"""The login of Studio and postgres-meta: the platform's schemas, and no project's."""

SERVICE_LOGINS: Mapping[str, str] = {
    "authenticator": "AUTHENTICATOR_PASSWORD",
    "supabase_auth_admin": "AUTH_ADMIN_PASSWORD",
    "supabase_storage_admin": "STORAGE_ADMIN_PASSWORD",
    "pgbouncer": "POOLER_PASSWORD",
    "data_plane_keys": "KEYS_PASSWORD",
    "data_plane_guard": "GUARD_PASSWORD",
    "data_plane_relay": "RELAY_PASSWORD",
    STUDIO_LOGIN: "STUDIO_PASSWORD",
}
"""Login → key of ``connectors/supabase``."""

_API_LOGIN = re.compile(r"(CELL|PROJ)_[A-Z0-9_]+_AUTHENTICATOR_PASSWORD")


def service_logins(api_servers: Iterable[ApiServer]) -> dict[str, str]:
    """Login → key, with those of the PostgRESTs that serve tenants."""
    return {**SERVICE_LOGINS, **{server.login: server.password_key for server in api_servers}}


def logins_in(secret: Collection[str]) -> dict[str, str]:
    """Login → key, of those keys that ``connectors/supabase`` has."""
    of_apis = {key.removesuffix("_PASSWORD").lower(): key for key in secret if _API_LOGIN.fullmatch(key)}
    return {login: key for login, key in {**SERVICE_LOGINS, **of_apis}.items() if key in secret}
