"""The types of the vault provider that the program uses, on a live OpenBao."""

import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import hvac
import requests
from hvac.exceptions import InvalidPath, VaultError

from components.openbao import OpenBaoUnavailableError, connect, explain
from embedded.runner.providers.base import Handler, Inputs, Live, ProviderClient

__all__ = ["OpenBaoClient"]

# Input name → field of the API, for types whose API is one path that is read and written.
_CLUSTER_LOGIN = {
    "kubernetesHost": "kubernetes_host",
    "kubernetesCaCert": "kubernetes_ca_cert",
    "disableLocalCaJwt": "disable_local_ca_jwt",
}
_CLUSTER_ROLE = {
    "boundServiceAccountNames": "bound_service_account_names",
    "boundServiceAccountNamespaces": "bound_service_account_namespaces",
    "audience": "audience",
    "aliasNameSource": "alias_name_source",
    "tokenPolicies": "token_policies",
    "tokenTtl": "token_ttl",
    "tokenMaxTtl": "token_max_ttl",
}
_APP_ROLE = {
    "bindSecretId": "bind_secret_id",
    "secretIdTtl": "secret_id_ttl",
    "secretIdBoundCidrs": "secret_id_bound_cidrs",
    "tokenBoundCidrs": "token_bound_cidrs",
    "tokenTtl": "token_ttl",
    "tokenMaxTtl": "token_max_ttl",
}
_OIDC_KEY = {
    "algorithm": "algorithm",
    "allowedClientIds": "allowed_client_ids",
    "rotationPeriod": "rotation_period",
    "verificationTtl": "verification_ttl",
}
_OIDC_ROLE = {"key": "key", "clientId": "client_id", "template": "template", "ttl": "ttl"}
_LEASE_ROLE = {
    "dbName": "db_name",
    "creationStatements": "creation_statements",
    "renewStatements": "renew_statements",
    "revocationStatements": "revocation_statements",
    "rollbackStatements": "rollback_statements",
    "defaultTtl": "default_ttl",
    "maxTtl": "max_ttl",
}
_GROUP = {
    "type": "type",
    "policies": "policies",
    "memberEntityIds": "member_entity_ids",
    "memberGroupIds": "member_group_ids",
    "metadata": "metadata",
}
_CONNECTION = {
    "connectionUrl": "connection_url",
    "username": "username",
    "passwordAuthentication": "password_authentication",
    "usernameTemplate": "username_template",
    "maxOpenConnections": "max_open_connections",
    "maxIdleConnections": "max_idle_connections",
    "maxConnectionLifetime": "max_connection_lifetime",
}


class OpenBaoClient(ProviderClient):
    """A client with the operator's own token, as the vault provider has it."""

    def __init__(self, inputs: Inputs) -> None:
        self._address: str = inputs.get("address") or os.environ.get("VAULT_ADDR", "")
        self._lock = threading.Lock()
        self._client_of_this: hvac.Client | None = None

    @property
    def _client(self) -> hvac.Client:
        with self._lock:
            if self._client_of_this is None:
                self._client_of_this = connect(self._address)
            return self._client_of_this

    @cached_property
    def handlers(self) -> Mapping[str, Handler]:
        def one_path(
            path: Callable[[Inputs], str],
            fields: Mapping[str, str],
            keys: tuple[str, ...],
            unordered: tuple[str, ...] = (),
        ) -> Handler:
            def read(desired: Inputs) -> Live | None:
                data = self._read(path(desired))
                if data is None:
                    return None
                given = {key: desired[key] for key in keys}
                return Live(
                    data.get("id") or path(desired).rpartition("/")[2],
                    {**given, **{key: _plain(data.get(field)) for key, field in fields.items()}},
                )

            def apply(desired: Inputs, _live: Live | None) -> None:
                self._write(path(desired), {f: desired[key] for key, f in fields.items() if key in desired})

            return Handler(read, apply, unordered=unordered)

        return {
            "vault:index/mount:Mount": Handler(self._read_mount, self._apply_mount),
            "vault:index/authBackend:AuthBackend": Handler(self._read_login, self._apply_login),
            "vault:index/policy:Policy": Handler(self._read_policy, self._apply_policy),
            "vault:identity/oidcKey:OidcKey": one_path(
                lambda d: f"identity/oidc/key/{d['name']}", _OIDC_KEY, ("name",), ("allowedClientIds",)
            ),
            "vault:identity/oidcRole:OidcRole": one_path(
                lambda d: f"identity/oidc/role/{d['name']}", _OIDC_ROLE, ("name",)
            ),
            "vault:identity/group:Group": one_path(
                lambda d: f"identity/group/name/{d['name']}",
                _GROUP,
                ("name",),
                ("policies", "memberEntityIds", "memberGroupIds"),
            ),
            "vault:kubernetes/authBackendConfig:AuthBackendConfig": one_path(
                lambda d: f"auth/{d['backend']}/config", _CLUSTER_LOGIN, ("backend",)
            ),
            "vault:kubernetes/authBackendRole:AuthBackendRole": one_path(
                lambda d: f"auth/{d['backend']}/role/{d['roleName']}",
                _CLUSTER_ROLE,
                ("backend", "roleName"),
                ("boundServiceAccountNames", "boundServiceAccountNamespaces", "tokenPolicies"),
            ),
            "vault:appRole/authBackendRole:AuthBackendRole": Handler(
                self._read_app_role, self._apply_app_role, unordered=("secretIdBoundCidrs", "tokenBoundCidrs")
            ),
            "vault:database/secretBackendRole:SecretBackendRole": one_path(
                lambda d: f"{d['backend']}/roles/{d['name']}", _LEASE_ROLE, ("name", "backend")
            ),
            "vault:database/secretBackendConnection:SecretBackendConnection": Handler(
                self._read_connection,
                self._apply_connection,
                unordered=("allowedRoles",),
                unreadable=("verifyConnection", "postgresql.password"),
            ),
        }

    @cached_property
    def functions(self) -> Mapping[str, Callable[[Inputs], dict[str, Any]]]:
        return {
            "vault:generic/getSecret:getSecret": self._get_secret,
            "vault:identity/getEntity:getEntity": lambda args: self._get("entity", args["entityName"]),
            "vault:identity/getGroup:getGroup": lambda args: self._get("group", args["groupName"]),
            "vault:index/getAuthBackend:getAuthBackend": self._get_login,
        }

    def explain(self, error: Exception) -> str | None:
        if isinstance(error, OpenBaoUnavailableError):
            return str(error)
        if isinstance(error, VaultError | requests.RequestException):
            return f"OpenBao at {self._address}: {explain(error)}"
        return None

    def close(self) -> None:
        if self._client_of_this is not None:
            self._client_of_this.adapter.close()

    def has(self, path: str) -> bool:
        """Whether there is something at a path."""
        return self._read(path) is not None

    def write(self, path: str, data_json: str) -> None:
        """Writes a document to a path: what ``vault.generic.Endpoint`` does."""
        self._write(path, json.loads(data_json))

    def _read(self, path: str) -> dict[str, Any] | None:
        try:
            answer = self._client.read(path)
        except InvalidPath:
            return None
        return None if answer is None else answer["data"]

    def _write(self, path: str, data: dict[str, Any]) -> None:
        self._client.write_data(path, data=data)

    # Mount, AuthBackend

    def _read_mount(self, desired: Inputs) -> Live | None:
        return self._mounted("sys/mounts", desired)

    def _read_login(self, desired: Inputs) -> Live | None:
        return self._mounted("sys/auth", {"path": desired["type"], **desired})

    def _mounted(self, table: str, desired: Inputs) -> Live | None:
        path = desired["path"].strip("/")
        found = (self._read(table) or {}).get(f"{path}/")
        if found is None:
            return None
        return Live(
            path,
            {
                "path": desired["path"],
                "type": found["type"],
                "description": found["description"],
                "accessor": found["accessor"],
                "options": found["options"] or {},
                "maxLeaseTtlSeconds": found["config"]["max_lease_ttl"],
            },
        )

    def _apply_mount(self, desired: Inputs, live: Live | None) -> None:
        path = desired["path"].strip("/")
        ttl = {"max_lease_ttl": desired["maxLeaseTtlSeconds"]} if "maxLeaseTtlSeconds" in desired else {}
        if live is None:
            kind = {key: desired[key] for key in ("type", "description", "options") if key in desired}
            self._write(f"sys/mounts/{path}", {**kind, "config": ttl})
        else:
            self._write(f"sys/mounts/{path}/tune", {"description": desired.get("description", ""), **ttl})

    def _apply_login(self, desired: Inputs, live: Live | None) -> None:
        path = desired.get("path", desired["type"]).strip("/")
        described = {"description": desired.get("description", "")}
        if live is None:
            self._write(f"sys/auth/{path}", {"type": desired["type"], **described})
        else:
            self._write(f"sys/auth/{path}/tune", described)

    # Policy

    def _read_policy(self, desired: Inputs) -> Live | None:
        data = self._read(f"sys/policies/acl/{desired['name']}")
        return None if data is None else Live(desired["name"], {"name": desired["name"], "policy": data["policy"]})

    def _apply_policy(self, desired: Inputs, _live: Live | None) -> None:
        self._write(f"sys/policies/acl/{desired['name']}", {"policy": desired["policy"]})

    # AppRole

    def _read_app_role(self, desired: Inputs) -> Live | None:
        path = f"auth/{desired['backend']}/role/{desired['roleName']}"
        data, identifier = self._read(path), self._read(f"{path}/role-id")
        if data is None or identifier is None:
            return None
        found = {key: _plain(data.get(field)) for key, field in _APP_ROLE.items()}
        given = {key: desired[key] for key in ("backend", "roleName")}
        return Live(path, {**given, **found, "roleId": identifier["role_id"]})

    def _apply_app_role(self, desired: Inputs, _live: Live | None) -> None:
        fields = {field: desired[key] for key, field in _APP_ROLE.items() if key in desired}
        self._write(f"auth/{desired['backend']}/role/{desired['roleName']}", fields)

    # SecretBackendConnection

    def _read_connection(self, desired: Inputs) -> Live | None:
        data = self._read(f"{desired['backend']}/config/{desired['name']}")
        if data is None:
            return None
        details = data["connection_details"]
        return Live(
            f"{desired['backend']}/config/{desired['name']}",
            {
                "backend": desired["backend"],
                "name": desired["name"],
                "allowedRoles": data["allowed_roles"],
                "postgresql": {key: _plain(details[f]) for key, f in _CONNECTION.items() if f in details},
            },
        )

    def _apply_connection(self, desired: Inputs, live: Live | None) -> None:
        given = desired["postgresql"]
        data = {f: given[key] for key, f in _CONNECTION.items() if key in given}
        if "password" in given:
            data["password"] = given["password"]
        self._write(
            f"{desired['backend']}/config/{desired['name']}",
            {
                **data,
                "plugin_name": "postgresql-database-plugin",
                "allowed_roles": desired["allowedRoles"],
                "verify_connection": desired.get("verifyConnection", True),
            },
        )

    # Functions

    def _get_secret(self, args: Inputs) -> dict[str, Any]:
        mount, _, path = args["path"].partition("/")
        data = self._read(f"{mount}/data/{path}")
        if data is None or data.get("data") is None:
            raise OpenBaoUnavailableError(f"OpenBao at {self._address} has no secret at {args['path']}")
        return {"id": args["path"], "path": args["path"], "data": data["data"]}

    def _get(self, kind: str, name: str) -> dict[str, Any]:
        data = self._read(f"identity/{kind}/name/{name}")
        if data is None:
            raise OpenBaoUnavailableError(f"OpenBao at {self._address} has no {kind} named {name!r}")
        alias = (data.get("alias") or {}).get("id", "")
        return {"id": data["id"], f"{kind}Id": data["id"], f"{kind}Name": name, "aliasId": alias}

    def _get_login(self, args: Inputs) -> dict[str, Any]:
        live = self._mounted("sys/auth", args)
        if live is None:
            raise OpenBaoUnavailableError(
                f"OpenBao at {self._address} has no auth method at {args['path']}/: enable it, or set login.managed"
            )
        return {"id": live.id, "path": args["path"], "type": live.properties["type"], **live.properties}


_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def _plain(value: Any) -> Any:
    """A value as the inputs have it: OpenBao gives null for empty lists and Go's form for some durations."""
    if value is None:
        return []
    if isinstance(value, str) and value and (match := _DURATION.fullmatch(value)):
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return hours * 3600 + minutes * 60 + seconds
    return value
