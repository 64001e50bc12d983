"""Takes and gives back leases: short-lived credentials for one tenant at one access level."""

import json
import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import quote, urlencode

import hvac
import requests
from hvac.exceptions import Forbidden, InvalidPath, VaultError

from data_plane.clients.openbao import explain
from data_plane.errors import LeaseDeniedError, LeaseEndedError, LeaseError, ProjectDetachedError, UsageError
from data_plane.model.naming import API_LEVELS, PUBLISHABLE_KEY, AccessLevel, TenantNames
from data_plane.model.tenant_binding import PoolerEndpoint, TenantBinding

__all__ = ["Lease", "LeaseClient", "LeaseFormat", "LiveLease", "Via", "shell_exports", "way_for"]

_LOG = logging.getLogger(__name__)


class LeaseFormat(StrEnum):
    """How a lease is written out."""

    TEXT = "text"
    ENV = "env"
    DOTENV = "dotenv"
    JSON = "json"
    SERVICE = "service"
    """A section of libpq's service file, named like the project: ``psql service=demo``."""


class Via(StrEnum):
    """Which way a lease's `DATABASE_URL` goes."""

    SESSION = "session"
    """Through the pooler, with a server connection for the client's whole session: whatever PostgreSQL can do works."""
    TRANSACTION = "transaction"
    """Through the pooler, with one for each transaction: for many short-lived clients; what a session keeps is lost."""
    DIRECT = "direct"
    """Past the pooler."""


@dataclass(frozen=True)
class Lease:
    """One lease. Its ``repr`` shows no secret."""

    project: str
    level: AccessLevel
    schema: str
    host: str
    port: int
    database: str
    sslmode: str
    username: str
    password: str
    lease_id: str
    ttl_seconds: int
    expires_at: datetime
    api_url: str
    token: str | None
    """The API token, for levels that have one."""
    token_ttl_seconds: int | None
    publishable_key: str | None = None
    """The API's key for clients, which goes with a token; for levels that have one."""
    pooler: PoolerEndpoint | None = None
    via: Via = Via.DIRECT

    def __repr__(self) -> str:
        return f"<Lease {self.lease_id}, expires {self.expires_at:%Y-%m-%d %H:%M:%S} UTC>"

    @property
    def connection_string(self) -> str:
        """A libpq URI that leads past the pooler, the password in it."""
        return self._uri(Via.DIRECT)

    @property
    def pooled_connection_string(self) -> str | None:
        """The same through the pooler, with a server connection for each session; None where there is no pooler."""
        return self._uri(Via.SESSION) if self.pooler else None

    @property
    def transaction_connection_string(self) -> str | None:
        """The same with one for each transaction."""
        return self._uri(Via.TRANSACTION) if self.pooler else None

    @property
    def database_url(self) -> str:
        """The one that was asked for."""
        return self._uri(self.via)

    def parameters(self, via: Via) -> dict[str, str | int]:
        """Libpq's connection parameters for a way, the password among them."""
        host, port, user, sslmode = self.host, self.port, self.username, self.sslmode
        if via is not Via.DIRECT and self.pooler is not None:
            host, sslmode = self.pooler.host, self.pooler.sslmode
            port = self.pooler.session_port if via is Via.SESSION else self.pooler.transaction_port
            user = f"{user}.{self.pooler.tenant}"
        known: dict[str, str | int] = {"host": host, "port": port, "dbname": self.database, "sslmode": sslmode}
        return {**known, "user": user, "password": self.password}

    def _uri(self, via: Via) -> str:
        known = {key: str(value) for key, value in self.parameters(via).items()}
        login = f"{quote(known['user'], safe='')}:{quote(known['password'], safe='')}"
        options = urlencode({"sslmode": known["sslmode"]})
        host = f"[{known['host']}]" if ":" in known["host"] else known["host"]
        return f"postgresql://{login}@{host}:{known['port']}/{quote(known['dbname'])}?{options}"

    def variables(self) -> dict[str, str]:
        """The lease as environment variables, under the names that clients of Supabase and Prisma look for."""
        return {name: value for name, value in self.every_variable().items() if value is not None}

    def every_variable(self) -> dict[str, str | None]:
        """The variables of any lease: None where this one has no value, e.g. an owner's has no API token."""
        known = {
            "DATABASE_URL": self.database_url,
            "DIRECT_URL": self.connection_string,
            "DATABASE_SESSION_URL": self.pooled_connection_string,
            "DATABASE_TRANSACTION_URL": self.transaction_connection_string,
            "SUPABASE_URL": self.api_url.removesuffix("/rest/v1"),
            "SUPABASE_PUBLISHABLE_KEY": self.publishable_key,
            # What clients called it before there were publishable keys.
            "SUPABASE_ANON_KEY": self.publishable_key,
            "SUPABASE_SCHEMA": self.schema,
            "SUPABASE_API_TOKEN": self.token,
            "SUPABASE_API_TOKEN_TTL_SECONDS": self.token_ttl_seconds,
            "DATA_PLANE_PROJECT": self.project,
            "DATA_PLANE_ACCESS_LEVEL": self.level.value,
            "DATA_PLANE_LEASE_ID": self.lease_id,
            "DATA_PLANE_LEASE_TTL_SECONDS": self.ttl_seconds,
            "DATA_PLANE_LEASE_EXPIRES_AT": self.expires_at.isoformat(timespec="seconds"),
        }
        return {key: None if value is None else str(value) for key, value in known.items()}

    def render(self, form: LeaseFormat) -> str:
        """The lease in one of the formats."""
        match form:
            case LeaseFormat.ENV:
                return shell_exports(self.variables())
            case LeaseFormat.DOTENV:
                return "\n".join(f"{key}={json.dumps(value)}" for key, value in self.variables().items())
            case LeaseFormat.JSON:
                return json.dumps(self.as_dict(), indent=2)
            case LeaseFormat.SERVICE:
                known = self.parameters(self.via)
                return "\n".join([f"[{self.project}]", *(f"{key}={value}" for key, value in known.items())])
            case LeaseFormat.TEXT:
                width = max(map(len, self.variables()))
                return "\n".join(f"{key.ljust(width)}  {value}" for key, value in self.variables().items())

    def as_dict(self) -> dict[str, Any]:
        """The lease as a JSON object."""
        return {
            "project": self.project,
            "level": self.level.value,
            "schema": self.schema,
            "via": self.via.value,
            "database_url": self.database_url,
            "connection_string": self.connection_string,
            "pooled_connection_string": self.pooled_connection_string,
            "transaction_connection_string": self.transaction_connection_string,
            "username": self.username,
            "password": self.password,
            "host": self.host,
            "port": self.port,
            "database": self.database,
            "sslmode": self.sslmode,
            "api_url": self.api_url,
            "publishable_key": self.publishable_key,
            "api_token": self.token,
            "api_token_ttl_seconds": self.token_ttl_seconds,
            "lease_id": self.lease_id,
            "ttl_seconds": self.ttl_seconds,
            "expires_at": self.expires_at.isoformat(timespec="seconds"),
        }


@dataclass(frozen=True)
class LiveLease:
    """A lease that is in force, as OpenBao knows it."""

    lease_id: str
    level: AccessLevel
    issued_at: datetime
    expires_at: datetime
    ttl_seconds: int


def shell_exports(variables: Mapping[str, str]) -> str:
    """Lines for a shell to evaluate."""
    return "\n".join(f"export {key}={shlex.quote(value)}" for key, value in variables.items())


class LeaseClient:
    """Leases as somebody's own OpenBao token allows them.

    Args:
        client: signed in as that person or workload.
    """

    def __init__(self, client: hvac.Client) -> None:
        self._client = client

    def issue(self, binding: TenantBinding, level: AccessLevel, via: Via | None = None) -> Lease:
        """Takes a lease.

        Args:
            binding: the tenant's, as the cell's stack exports it.
            via: which way `DATABASE_URL` goes; through the pooler by session unless given, or directly where there is
                no pooler: a session through the pooler can do all that a direct one can, is counted against the
                pooler's limits, and is the only way that is open from where projects' workloads run.

        Raises:
            ProjectDetachedError, LeaseError: if the token may not take one, or OpenBao or PostgreSQL cannot give it.
        """
        project = binding.project
        if not binding.attached:
            raise ProjectDetachedError(
                f"project {project} is {binding.lifecycle}: set `lifecycle: attached` in its file and bring it up"
            )
        names = TenantNames(project)
        chosen = way_for(level, via, binding.pooler)
        key = self._publishable_key(binding, level)
        # First: a token that nobody uses costs nothing, a login that nobody uses would have to be revoked.
        token, token_ttl = self._token(names, level)
        answer = self._read(names.lease_path(level), project, level)
        ttl = int(answer["lease_duration"])
        # Its ID says which one it is and lets nobody in.
        _LOG.debug("took lease %s for %d s", answer["lease_id"], ttl)
        return Lease(
            project=project,
            level=level,
            schema=binding.schema_name,
            host=binding.database.host,
            port=binding.database.port,
            database=binding.database.database,
            sslmode=binding.database.sslmode,
            username=str(answer["data"]["username"]),
            password=str(answer["data"]["password"]),
            lease_id=str(answer["lease_id"]),
            ttl_seconds=ttl,
            expires_at=datetime.now(UTC) + timedelta(seconds=ttl),
            api_url=binding.api_url,
            token=token,
            token_ttl_seconds=token_ttl,
            publishable_key=key,
            pooler=binding.pooler,
            via=chosen,
        )

    def with_new_token(self, lease: Lease, binding: TenantBinding) -> Lease:
        """The same lease with a fresh API token and the publishable key of now, where its level has them.

        Raises:
            LeaseError: if the token may not, or OpenBao cannot.
        """
        token, token_ttl = self._token(TenantNames(lease.project), lease.level)
        key = self._publishable_key(binding, lease.level)
        return replace(lease, token=token, token_ttl_seconds=token_ttl, publishable_key=key)

    def renew(self, lease_id: str, seconds: int | None = None) -> int:
        """Lets a lease last longer, up to the project's `lease_max_ttl` from when it was taken.

        Args:
            seconds: how long from now; by default the project's `lease_ttl`.

        Returns:
            The seconds that it lasts from now.

        Raises:
            LeaseError: if it has ended, the token may not, or it could not be done.
        """
        data = {} if seconds is None else {"increment": seconds}
        try:
            answer = self._client.write_data(f"sys/leases/renew/{lease_id}", data=data)
        except Forbidden as error:
            raise LeaseDeniedError(f"this OpenBao token may not renew {lease_id}") from error
        except (VaultError, requests.RequestException) as error:
            cause = explain(error)
            if "not found" in cause or "not renewable" in cause or "expired" in cause:
                raise LeaseEndedError(f"{lease_id} has ended: take another lease") from error
            raise LeaseError(f"{lease_id} was not renewed: {cause}") from error
        return int(answer["lease_duration"])

    def can_renew(self, lease_id: str) -> bool:
        """Whether a lease is in force, as far as the token may know; renews it, because looking it up takes more."""
        try:
            self._client.write_data(f"sys/leases/renew/{lease_id}", data={})
        except Forbidden:
            return True  # which revoking it then says
        except (VaultError, requests.RequestException) as error:
            return not any(words in explain(error) for words in ("not found", "expired"))
        return True

    def revoke(self, lease_id: str) -> None:
        """Gives a lease back: its sessions end and its login is dropped.

        Raises:
            LeaseError: if the token may not, or it could not be done.
        """
        try:
            # The path that names the lease: a policy can allow that for one tenant's leases, unlike the body's field.
            self._client.write_data(f"sys/leases/revoke/{lease_id}", data={})
        except Forbidden as error:
            raise LeaseDeniedError(f"this OpenBao token may not revoke {lease_id}") from error
        except (VaultError, requests.RequestException) as error:
            raise LeaseError(f"{lease_id} was not revoked: {explain(error)}; run the same command again") from error
        _LOG.debug("revoked lease %s", lease_id)

    def live(self, names: TenantNames, level: AccessLevel) -> list[str]:
        """IDs of a tenant's leases of one level; takes an operator's token.

        Raises:
            LeaseError: if the token may not list leases.
        """
        path = names.lease_path(level)
        try:
            answer = self._client.list(f"sys/leases/lookup/{path}")
        except InvalidPath:
            return []
        except Forbidden as error:
            raise LeaseDeniedError("this OpenBao token may not list leases: that takes an operator's") from error
        except (VaultError, requests.RequestException) as error:
            raise LeaseError(f"leases cannot be listed: {explain(error)}") from error
        return [f"{path}/{key}" for key in answer["data"]["keys"]] if answer else []

    def details(self, names: TenantNames, level: AccessLevel) -> list[LiveLease]:
        """A tenant's leases of one level that are in force, oldest first; takes an operator's token.

        Raises:
            LeaseError: if the token may not look at leases.
        """
        found = []
        for lease_id in self.live(names, level):
            try:
                data = self._client.write_data("sys/leases/lookup", data={"lease_id": lease_id})["data"]
            except (VaultError, requests.RequestException) as error:
                if "invalid lease" in explain(error):
                    continue  # it has ended since
                raise LeaseError(f"{lease_id} cannot be looked at: {explain(error)}") from error
            times = [datetime.fromisoformat(data[key]).astimezone(UTC) for key in ("issue_time", "expire_time")]
            found.append(LiveLease(lease_id, level, times[0], times[1], int(data["ttl"])))
        return sorted(found, key=lambda lease: lease.issued_at)

    def _token(self, names: TenantNames, level: AccessLevel) -> tuple[str | None, int | None]:
        if level not in API_LEVELS:
            return None, None
        minted = self._read(names.token_path(level), names.slug, level)["data"]
        return str(minted["token"]), int(minted["ttl"])

    def _publishable_key(self, binding: TenantBinding, level: AccessLevel) -> str | None:
        if level not in API_LEVELS:
            return None
        answer = self._read(binding.publishable_key_path, binding.project, level)["data"]
        return str((answer["data"] or {})[PUBLISHABLE_KEY])

    def _read(self, path: str, project: str, level: AccessLevel) -> dict[str, Any]:
        try:
            answer = self._client.read(path)
        except Forbidden as error:
            raise LeaseDeniedError(
                f"you may not use {project} as {level}: ask one of its owners to add you to "
                f"the project's file with a role that may"
            ) from error
        except (VaultError, requests.RequestException) as error:
            cause = explain(error)
            if "no entity associated" in cause:
                cause = "the OpenBao token has no identity: sign in as a person or a workload, not with a root token"
            raise LeaseError(f"no lease for {project} as {level}: {cause}") from error
        if answer is None:
            raise LeaseError(
                f"no lease for {project} as {level}: OpenBao has nothing at {path}; bring its cell up first"
            )
        return dict(answer)


def way_for(level: AccessLevel, wanted: Via | None, pooler: PoolerEndpoint | None) -> Via:
    """The way that is asked for, or by default the pooler's sessions where there is a pooler.

    Raises:
        UsageError: if there is no such way here.
    """
    if wanted is None:
        return Via.DIRECT if pooler is None else Via.SESSION
    if wanted is not Via.DIRECT and pooler is None:
        raise UsageError("there is no pooler here: leave --via out, or set `pooler` in the central stack")
    if wanted is Via.TRANSACTION and level is AccessLevel.OWNER:
        raise UsageError("an owner's lease is for migrations, which need a session: --via session or direct")
    return wanted
