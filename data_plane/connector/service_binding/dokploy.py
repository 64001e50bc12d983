"""A compose fragment for Dokploy, or any other place that runs compose files: an OpenBao agent beside the application.

The agent signs in with an AppRole and writes the binding's files into a volume in memory, which the application mounts
read-only. The fragment is a whole compose file: the project's own takes it in by ``include``.

Its root file system is writable: Compose can give inline configurations and secrets from the environment only to
such containers (``cannot create config … in read-only service``). It runs as a user who may write nothing there.
"""

from pathlib import PurePosixPath
from typing import Any

from data_plane.connector.service_binding.agent import (
    AGENT_GROUP,
    AGENT_IMAGE,
    AGENT_USER,
    AGENT_VARIABLES,
    FILES_FOLDER,
    READY_COMMAND,
    agent_config,
)
from data_plane.connector.service_binding.documents import as_yaml
from data_plane.connector.service_binding.entries import DATABASE_BINDING
from data_plane.connector.service_binding.target import Service, Workload
from data_plane.model.durations import format_duration

__all__ = ["compose_fragment"]

_AGENT = "supabase-agent"
_VOLUME = "supabase-bindings"
_CONFIG_FILE = "/etc/supabase-agent.json"
_CA_FILE = "/etc/supabase-openbao-ca.crt"
_SECRETS = {"supabase-role-id": "OPENBAO_ROLE_ID", "supabase-secret-id": "OPENBAO_SECRET_ID"}
"""Compose secret, and the variable that it comes from."""
_MEMORY = "256m"


def compose_fragment(
    service: Service, workload: Workload, again: str, *, image: str = AGENT_IMAGE, ca: str | None = None
) -> str:
    """The fragment.

    Args:
        again: the command that writes it.
        image: the agent's.
        ca: path on the host of the authority that signed OpenBao's certificate; the system's without it.
    """
    role_id, secret_id = (f"/run/secrets/{name}" for name in _SECRETS)
    config = agent_config(
        service,
        workload,
        {
            "role_id_file_path": role_id,
            "secret_id_file_path": secret_id,
            # It is needed again after a restart.
            "remove_secret_id_file_after_reading": False,
        },
        ca_file=_CA_FILE if ca else None,
    )
    agent: dict[str, Any] = {
        "image": image,
        # Not the image's own, which would start as root.
        "entrypoint": ["bao"],
        "command": ["agent", f"-config={_CONFIG_FILE}"],
        "environment": dict(AGENT_VARIABLES),
        "user": f"{AGENT_USER}:{AGENT_GROUP}",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": _MEMORY,
        "restart": "unless-stopped",
        "configs": [{"source": _AGENT, "target": _CONFIG_FILE}],
        "secrets": [
            {"source": name, "uid": str(AGENT_USER), "gid": str(AGENT_GROUP), "mode": "0400"} for name in _SECRETS
        ],
        "volumes": [f"{_VOLUME}:{FILES_FOLDER}"],
        "healthcheck": {
            "test": ["CMD", *READY_COMMAND],
            "interval": "2s",
            "timeout": "5s",
            "retries": 30,
        },
    }
    if ca:
        source = ca if PurePosixPath(ca).is_absolute() else f"./{ca.removeprefix('./')}"
        agent["volumes"].append(f"{source}:{_CA_FILE}:ro")
    document = {
        "services": {_AGENT: agent},
        # `$` is Compose's own in a value.
        "configs": {_AGENT: {"content": config.replace("$", "$$")}},
        "secrets": {name: {"environment": variable} for name, variable in _SECRETS.items()},
        "volumes": {
            _VOLUME: {
                "driver_opts": {
                    "type": "tmpfs",
                    "device": "tmpfs",
                    "o": f"size=1m,mode=0755,uid={AGENT_USER},gid={AGENT_GROUP}",
                }
            }
        },
    }
    return as_yaml([document], _notes(service, workload, again))


def _notes(service: Service, workload: Workload, again: str) -> list[str]:
    role = f"auth/{workload.mount}/role/{workload.role}"
    lasting = format_duration(workload.secret_id_ttl_seconds) if workload.secret_id_ttl_seconds else "a while"
    return [
        f"Again: {again}",
        "",
        "The project's compose file takes it in, and the service that needs the database mounts the files:",
        "  include: [supabase.compose.yaml]   # this file",
        "  services:",
        f"    {workload.name}:",
        f"      depends_on: {{{_AGENT}: {{condition: service_healthy}}}}",
        f"      volumes: [{_VOLUME}:{FILES_FOLDER}:ro]",
        "      environment:",
        f"        SERVICE_BINDING_ROOT: {FILES_FOLDER}",
        "        # For what is built on libpq, which reads that file for each connection:",
        f"        PGSERVICEFILE: {FILES_FOLDER}/{DATABASE_BINDING}/pg_service.conf",
        f"        PGSERVICE: {service.names.slug}",
        "",
        "In the environment (Dokploy: Environment), never in a file of the repository:",
        f"  {_SECRETS['supabase-role-id']}    bao read -field=role_id {role}/role-id",
        f"  {_SECRETS['supabase-secret-id']}  bao write -force -field=secret_id {role}/secret-id",
        f"A secret-ID can be signed in with for {lasting} (`secret_id_ttl` in the project's file). Put a new one there",
        "before, and deploy again.",
    ]
