"""PyYAML's safe loader, written in C where PyYAML was built with that: manifests are many."""

from typing import Any

import yaml

__all__ = ["SAFE_LOADER"]

SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
