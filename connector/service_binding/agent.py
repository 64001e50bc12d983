"""The configuration of an OpenBao agent that keeps a binding's files right.

The files are those of a projected binding (https://github.com/servicebinding/spec#workload-projection), one entry each,
and ``env``, which has the same as variables. The agent renews the lease; when it cannot be renewed any longer, it takes
another and writes the files anew. Whatever an application opens after that has to use the new ones: the former login
ends with its lease.

Agent configuration: https://openbao.org/docs/agent-and-proxy/agent/template. It is JSON, which OpenBao reads as HCL.
"""

import json
from collections.abc import Mapping
from typing import Any

from connector.service_binding.target import Service, SignIn

__all__ = ["AGENT_IMAGE", "AGENT_USER", "API_TOKEN_SECONDS", "agent_config", "binding_templates"]

AGENT_IMAGE = "quay.io/openbao/openbao:2.7.2"
"""The release whose templates the tests run."""

AGENT_USER = 100
"""The image's own user ``openbao``, as a number: Kubernetes cannot tell of a name that it is not root."""

API_TOKEN_SECONDS = 300
"""How often an API token is fetched anew; it lives three times as long."""

# What is rendered is read by a container with some other user, and lies in memory that only the two share.
_FILE_MODE = "0444"


def binding_templates(service: Service) -> dict[str, str]:
    """The text of each file of the binding, in the template language of OpenBao's agent."""
    username = f"{{{{ .Data.username }}}}{service.login_suffix}"
    uri = service.uri("{{ .Data.username | urlquery }}", "{{ .Data.password | urlquery }}")
    of_lease = {"username": username, "password": "{{ .Data.password }}", "uri": uri}
    files = service.entries() | {key: _of(service.lease_path, text) for key, text in of_lease.items()}
    env = _of(service.lease_path, f"DATABASE_URL={uri}\n")
    if service.api_url is not None:
        files["api-url"] = service.api_url
        files["api-token"] = _of(service.token_path, "{{ .Data.token }}")
    files["env"] = env + "".join(f"{key}={value}\n" for key, value in service.variables().items())
    return files


def agent_config(service: Service, sign_in: SignIn, method: str, config: Mapping[str, Any], folder: str) -> str:
    """The agent's configuration.

    Args:
        sign_in: where and as what it signs in.
        method: OpenBao's name of the auth method.
        config: what that method needs beside the role's name.
        folder: absolute path of the folder that gets the files.
    """
    document = {
        "vault": {"address": sign_in.address},
        "auto_auth": {
            "method": [{"type": method, "mount_path": f"auth/{sign_in.mount}", "config": dict(config)}],
        },
        "template_config": {
            "exit_on_retry_failure": True,
            "static_secret_render_interval": f"{API_TOKEN_SECONDS}s",
        },
        "template": [
            {"destination": f"{folder}/{name}", "contents": text, "perms": _FILE_MODE, "error_on_missing_key": True}
            for name, text in binding_templates(service).items()
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _of(path: str, text: str) -> str:
    """A template of what is read at a path; several with one path share one lease."""
    return f'{{{{ with secret "{path}" }}}}{text}{{{{ end }}}}'
