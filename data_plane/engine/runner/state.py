"""What the runner remembers of a stack: its outputs, and the ID and outputs of each resource that it made.

Secret values are encrypted with a key that lies in the same private folder.
"""

import json
import threading
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from data_plane.engine.runner.kept_outputs import state_file
from data_plane.engine.runner.properties import Properties
from data_plane.errors import StateDirError
from data_plane.state_dir import StateDir

__all__ = ["StackState"]

_KEY_FILE = "state-key"


class StackState:
    """The remembered part of one stack.

    Args:
        home: where it is kept.
        stack: the stack's name.

    Raises:
        DataPlaneError: if what is kept cannot be read.
    """

    def __init__(self, home: StateDir, stack: str) -> None:
        self._home = home
        self._file = state_file(stack)
        self._lock = threading.Lock()
        self.unchanged = True
        """Whether nothing has been remembered since it was read."""
        self._fernet = Fernet(_key(home))
        kept: dict[str, Any] = home.read_json(self._file) or {}
        try:
            self.outputs = self._open(kept.get("outputs"))
            self._resources: dict[str, tuple[str, Properties]] = {
                urn: (entry["id"], self._open(entry["properties"]) or Properties())
                for urn, entry in kept.get("resources", {}).items()
            }
        except (KeyError, InvalidToken) as error:
            raise StateDirError(
                f"{home.path / self._file} does not fit its key; `dataplane local reset` starts afresh"
            ) from error

    def get(self, urn: str) -> tuple[str, Properties] | None:
        """ID and properties of a remembered resource."""
        with self._lock:
            return self._resources.get(urn)

    def put(self, urn: str, resource_id: str, properties: Properties) -> None:
        """Remembers a resource."""
        with self._lock:
            self.unchanged = False
            self._resources[urn] = (resource_id, properties)

    def forget(self, urn: str) -> None:
        """Remembers a resource no longer."""
        with self._lock:
            self.unchanged = False
            self._resources.pop(urn, None)

    def urns(self) -> set[str]:
        """The URNs of all remembered resources."""
        with self._lock:
            return set(self._resources)

    def save(self) -> None:
        """Writes everything, whole or not at all."""
        with self._lock:
            kept = {
                "outputs": None if self.outputs is None else self._seal(self.outputs),
                "resources": {
                    urn: {"id": resource_id, "properties": self._seal(properties)}
                    for urn, (resource_id, properties) in self._resources.items()
                },
            }
        self._home.write_json(self._file, kept)

    def _seal(self, properties: Properties) -> dict[str, Any]:
        return {
            key: {"ciphertext": self._fernet.encrypt(json.dumps(value).encode()).decode()}
            if key in properties.secrets
            else {"value": value}
            for key, value in properties.values.items()
        }

    def _open(self, kept: dict[str, Any] | None) -> Properties | None:
        if kept is None:
            return None
        secrets = {key for key, value in kept.items() if "ciphertext" in value}
        values = {
            key: json.loads(self._fernet.decrypt(entry["ciphertext"])) if key in secrets else entry["value"]
            for key, entry in kept.items()
        }
        return Properties(values, secrets)


def _key(home: StateDir) -> bytes:
    path = home.path / _KEY_FILE
    if not path.exists():
        home.write_private(_KEY_FILE, Fernet.generate_key().decode())
    return path.read_bytes().strip()
