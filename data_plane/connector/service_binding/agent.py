"""The configuration of an OpenBao agent that keeps a binding's files right.

The files are those of a projected binding (https://servicebinding.io/spec/core/1.1.0/#workload-projection): a folder a
binding, a file an entry. The agent renews the lease; shortly before it cannot be renewed any longer, it takes another
and writes the files anew. Whatever an application opens after that has to use the new ones: the former login ends with
its lease.

Agent configuration: https://openbao.org/docs/agent-and-proxy/agent/template. It is JSON, which OpenBao reads as HCL.
"""

import json
from collections.abc import Mapping
from typing import Any

from data_plane.connector.service_binding.entries import DATABASE_BINDING, Field, bound_services
from data_plane.connector.service_binding.target import Service, Workload
from data_plane.model.timings import TOKEN_TTL_SECONDS

__all__ = [
    "AGENT_GROUP",
    "AGENT_IMAGE",
    "AGENT_USER",
    "AGENT_VARIABLES",
    "FILES_FOLDER",
    "READY_COMMAND",
    "agent_config",
]

AGENT_IMAGE = "quay.io/openbao/openbao:2.7.2"
"""The release whose agent the tests run."""

AGENT_USER = 100
"""The image's own user ``openbao``, as a number: Kubernetes cannot tell of a name that it is not root."""

AGENT_GROUP = 1000

FILES_FOLDER = "/bindings"
"""Where the files are, in the agent's container and in the application's: ``SERVICE_BINDING_ROOT``."""

AGENT_VARIABLES = {"HOME": "/nonexistent"}
"""It looks into a home folder for somebody's token and does not start without one; whether there is any, is up to
the image otherwise."""

READY_COMMAND = ("test", "-s", f"{FILES_FOLDER}/{DATABASE_BINDING}/uri")
"""Succeeds in the agent's container once there is a login."""

# What is rendered is read by a container with some other user, and lies in memory that only the two share.
_FILE_MODE = "0444"
_BACKOFF_SECONDS = 30
"""The longest wait between two tries to sign in, so that an outage of OpenBao is not felt long after it."""


def agent_config(
    service: Service,
    workload: Workload,
    config: Mapping[str, Any],
    *,
    ca_file: str | None = None,
    folder: str = FILES_FOLDER,
) -> str:
    """The agent's configuration.

    Args:
        config: what the auth method needs.
        ca_file: absolute path of the authority that signed OpenBao's certificate; the system's without it.
        folder: absolute path of the folder that gets the files.
    """
    address: dict[str, Any] = {"address": service.openbao_address}
    if ca_file is not None:
        address["ca_cert"] = ca_file
    document = {
        "vault": address,
        "auto_auth": {
            "method": [
                {
                    "type": workload.method.value,
                    "mount_path": f"auth/{workload.mount}",
                    "max_backoff": f"{_BACKOFF_SECONDS}s",
                    "config": dict(config),
                }
            ],
        },
        "template_config": {
            # Its supervisor starts it again, with a new sign-in.
            "exit_on_retry_failure": True,
            "static_secret_render_interval": f"{TOKEN_TTL_SECONDS // 3}s",
        },
        "template": [
            {
                "destination": f"{folder}/{bound.name}/{entry}",
                "contents": text,
                "perms": _FILE_MODE,
                "error_on_missing_key": True,
            }
            for bound in bound_services(service)
            for entry, text in bound.entries(_read).items()
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _read(field: Field) -> str:
    """A template of a field; all of one path share one lease."""
    value = f".Data.{'.'.join(field.keys)}{' | urlquery' if field.for_url else ''}"
    return f'{{{{ with secret "{field.path}" }}}}{{{{ {value} }}}}{{{{ end }}}}'
