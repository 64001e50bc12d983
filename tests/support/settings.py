"""A central stack's settings, as its file says them."""

import contextvars
import json
from typing import Any

import pulumi
from pulumi.runtime.settings import _set_stack

from components.program import read_settings
from data_plane.model.settings import CellSettings, CentralSettings

CENTRAL: dict[str, Any] = {
    "kind": "central",
    "environment": "prod",
    "apiUrl": "https://api.example.com",
    "database": {"host": "db.internal"},
    "openbao": {"address": "https://bao.internal"},
    "cellSize": 50,
    "leaseTtlMaximum": "24h",
}


def load(settings: dict[str, Any]) -> CentralSettings | CellSettings:
    def run() -> CentralSettings | CellSettings:
        values = {f"p:{k}": v if isinstance(v, str) else json.dumps(v) for k, v in settings.items()}
        pulumi.runtime.set_all_config(values)
        _set_stack("prod-1")
        return read_settings(pulumi.Config("p"))

    return contextvars.copy_context().run(run)
