"""The types of the vault provider that the program uses, on a live OpenBao."""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import hvac
import requests
from hvac.exceptions import InvalidPath, VaultError

from data_plane.clients.openbao import OpenBaoUnavailableError, connect, explain
from data_plane.local.providers.base import Found, Inputs, LocalProvider, ResourceType

__all__ = ["OpenBaoProvider"]

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
    "tokenNoDefaultPolicy": "token_no_default_policy",
}
_APP_ROLE = {
    "bindSecretId": "bind_secret_id",
    "secretIdTtl": "secret_id_ttl",
    "secretIdBoundCidrs": "secret_id_bound_cidrs",
    "tokenBoundCidrs": "token_bound_cidrs",
    "tokenTtl": "token_ttl",
    "tokenMaxTtl": "token_max_ttl",
    "tokenNoDefaultPolicy": "token_no_default_policy",
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


_WITH_NAMES = ("identity/entity/name/", "identity/group/name/")


class OpenBaoProvider(LocalProvider):
    """A client with the operator's own token, as the vault provider has it."""

    def connect(self, inputs: Inputs) -> None:
        self._address: str = inputs.get("address") or os.environ.get("VAULT_ADDR", "")
        self._client_of_this: hvac.Client | None = None

    @property
    def _client(self) -> hvac.Client:
        with self._lock:
            if self._client_of_this is None:
                self._client_of_this = connect(self._address)
            return self._client_of_this

    def type(self, token: str) -> ResourceType | None:
        return self._types.get(token)

    def function(self, token: str) -> Callable[[Inputs], dict[str, Any]] | None:
        return self._functions.get(token)

    @cached_property
    def _types(self) -> Mapping[str, ResourceType]:
        return {
            "vault:index/mount:Mount": ResourceType(
                self._read_mount,
                self._write_mount,
                lambda d: self._delete(f"sys/mounts/{d['path'].strip('/')}"),
                keys=("path",),
                id="{path}",
                replaces=("type", "options"),
                computed=("accessor",),
                defaults={"description": ""},
            ),
            "vault:index/authBackend:AuthBackend": ResourceType(
                self._read_login,
                self._write_login,
                lambda d: self._delete(f"sys/auth/{d['path'].strip('/')}"),
                keys=("path",),
                id="{path}",
                replaces=("type",),
                computed=("accessor", "maxLeaseTtlSeconds", "options"),
                defaults={"description": ""},
                complete=lambda d: {"path": d["type"], **d},
            ),
            "vault:index/policy:Policy": ResourceType(
                lambda d: self._read(f"sys/policies/acl/{d['name']}"),
                lambda d, _found: self._put(f"sys/policies/acl/{d['name']}", {"policy": d["policy"]}),
                lambda d: self._delete(f"sys/policies/acl/{d['name']}"),
                keys=("name",),
                id="{name}",
            ),
            "vault:generic/endpoint:Endpoint": ResourceType(
                self._read_document,
                self._write_document,
                self._delete_document,
                keys=("path",),
                blind=True,
                write_only=("dataJson", "disableRead", "disableDelete"),
                secret=("dataJson",),
            ),
            "vault:identity/oidcKey:OidcKey": self._path_type(
                "identity/oidc/key/{name}", _OIDC_KEY, ("name",), id="{name}", unordered=("allowedClientIds",)
            ),
            "vault:identity/oidcRole:OidcRole": self._path_type(
                "identity/oidc/role/{name}",
                _OIDC_ROLE,
                ("name",),
                id="{name}",
                replaces=("key",),
                computed=("clientId",),
            ),
            "vault:identity/group:Group": replace(
                self._path_type(
                    "identity/group/name/{name}",
                    _GROUP,
                    ("name",),
                    id="{id}",
                    unordered=("policies", "memberEntityIds", "memberGroupIds"),
                    replaces=("type",),
                    defaults={"policies": [], "memberEntityIds": [], "memberGroupIds": []},
                ),
                read=self._read_group,
            ),
            "vault:kubernetes/authBackendConfig:AuthBackendConfig": self._path_type(
                "auth/{backend}/config", _CLUSTER_LOGIN, ("backend",)
            ),
            "vault:kubernetes/authBackendRole:AuthBackendRole": self._path_type(
                "auth/{backend}/role/{roleName}",
                _CLUSTER_ROLE,
                ("backend", "roleName"),
                unordered=("boundServiceAccountNames", "boundServiceAccountNamespaces", "tokenPolicies"),
            ),
            "vault:appRole/authBackendRole:AuthBackendRole": replace(
                self._path_type(
                    "auth/{backend}/role/{roleName}",
                    _APP_ROLE,
                    ("backend", "roleName"),
                    unordered=("secretIdBoundCidrs", "tokenBoundCidrs"),
                    computed=("roleId",),
                ),
                read=self._read_app_role,
            ),
            "vault:database/secretBackendRole:SecretBackendRole": self._path_type(
                "{backend}/roles/{name}", _LEASE_ROLE, ("name", "backend"), replaces=("dbName",)
            ),
            "vault:database/secretBackendConnection:SecretBackendConnection": ResourceType(
                self._read_connection,
                self._write_connection,
                lambda d: self._delete(f"{d['backend']}/config/{d['name']}"),
                keys=("backend", "name"),
                id="{backend}/config/{name}",
                unordered=("allowedRoles",),
                write_only=("verifyConnection", "postgresql.password"),
                secret=("postgresql.password",),
            ),
        }

    def _path_type(self, path: str, fields: Mapping[str, str], keys: tuple[str, ...], **more: Any) -> ResourceType:
        """A type whose API is one path that is read, written and deleted."""

        def read(d: Inputs) -> Found | None:
            return self._fields(path.format_map(d), fields, {key: d[key] for key in keys})

        def write(d: Inputs, _found: Found | None) -> None:
            self._put(path.format_map(d), {field: d[key] for key, field in fields.items() if key in d})

        def delete(d: Inputs) -> None:
            self._delete(path.format_map(d))

        return ResourceType(read, write, delete, keys, **{"id": path, **more})

    @cached_property
    def _functions(self) -> Mapping[str, Callable[[Inputs], dict[str, Any]]]:
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
        super().close()
        if self._client_of_this is not None:
            self._client_of_this.adapter.close()

    def _read(self, path: str) -> dict[str, Any] | None:
        try:
            answer = self._client.read(path)
        except InvalidPath:
            return None
        return None if answer is None else answer["data"]

    def _put(self, path: str, data: dict[str, Any]) -> None:
        self._client.write_data(path, data=data)

    def _delete(self, path: str) -> None:
        self._client.delete(path)

    def _fields(self, path: str, fields: Mapping[str, str], known: Found) -> Found | None:
        """What is at a path, under the names of inputs."""
        if (data := self._read(path)) is None:
            return None
        found = {key: _plain(data[field]) for key, field in fields.items() if data.get(field) is not None}
        return {**known, **found, **({"id": data["id"]} if data.get("id") else {})}

    # Endpoint

    def _read_document(self, desired: Inputs) -> Found | None:
        path = desired["path"]
        # What has a name can be asked for; of the rest there is only what was written.
        gone = path.startswith(_WITH_NAMES) and self._read(path) is None
        return None if gone else {"path": path, "id": path}

    def _write_document(self, desired: Inputs, _found: Found | None) -> None:
        if "dataJson" in desired:
            self._put(desired["path"], json.loads(desired["dataJson"]))

    def _delete_document(self, desired: Inputs) -> None:
        if not desired.get("disableDelete"):
            self._delete(desired["path"])

    # Mount, AuthBackend

    def _read_mount(self, desired: Inputs) -> Found | None:
        return self._mounted("sys/mounts", desired["path"])

    def _read_login(self, desired: Inputs) -> Found | None:
        return self._mounted("sys/auth", desired["path"])

    def _mounted(self, table: str, path: str) -> Found | None:
        found = (self._read(table) or {}).get(f"{path.strip('/')}/")
        if found is None:
            return None
        return {
            "path": path,
            "type": found["type"],
            "description": found["description"],
            "accessor": found["accessor"],
            "options": found["options"] or {},
            "maxLeaseTtlSeconds": found["config"]["max_lease_ttl"],
        }

    def _write_mount(self, desired: Inputs, found: Found | None) -> None:
        path = desired["path"].strip("/")
        ttl = {"max_lease_ttl": desired["maxLeaseTtlSeconds"]} if "maxLeaseTtlSeconds" in desired else {}
        if found is None:
            kind = {key: desired[key] for key in ("type", "description", "options") if key in desired}
            self._put(f"sys/mounts/{path}", {**kind, "config": ttl})
        else:
            self._put(f"sys/mounts/{path}/tune", {"description": desired["description"], **ttl})

    def _write_login(self, desired: Inputs, found: Found | None) -> None:
        path = desired["path"].strip("/")
        described = {"description": desired["description"]}
        if found is None:
            self._put(f"sys/auth/{path}", {"type": desired["type"], **described})
        else:
            self._put(f"sys/auth/{path}/tune", described)

    # Group, AppRole

    def _read_group(self, desired: Inputs) -> Found | None:
        by_name = (
            f"identity/group/name/{desired['name']}" if "name" in desired else f"identity/group/id/{desired['id']}"
        )
        return self._fields(by_name, {"name": "name", **_GROUP}, {})

    def _read_app_role(self, desired: Inputs) -> Found | None:
        path = f"auth/{desired['backend']}/role/{desired['roleName']}"
        identifier = self._read(f"{path}/role-id")
        known = {key: desired[key] for key in ("backend", "roleName")}
        return identifier and self._fields(path, _APP_ROLE, {**known, "roleId": identifier["role_id"]})

    # SecretBackendConnection

    def _read_connection(self, desired: Inputs) -> Found | None:
        data = self._read(f"{desired['backend']}/config/{desired['name']}")
        if data is None:
            return None
        details = data["connection_details"]
        return {
            "backend": desired["backend"],
            "name": desired["name"],
            "allowedRoles": data["allowed_roles"],
            "postgresql": {key: _plain(details[f]) for key, f in _CONNECTION.items() if f in details},
        }

    def _write_connection(self, desired: Inputs, _found: Found | None) -> None:
        given = desired["postgresql"]
        data = {field: given[key] for key, field in {**_CONNECTION, "password": "password"}.items() if key in given}
        self._put(
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
        found = self._mounted("sys/auth", args["path"])
        if found is None:
            raise OpenBaoUnavailableError(
                f"OpenBao at {self._address} has no auth method at {args['path']}/: enable it, or set login.managed"
            )
        return {"id": args["path"].strip("/"), **found}


_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def _plain(value: Any) -> Any:
    """A value as the inputs have it: OpenBao gives some durations in Go's form."""
    if isinstance(value, str) and value and (match := _DURATION.fullmatch(value)):
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return hours * 3600 + minutes * 60 + seconds
    return value
