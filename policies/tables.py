"""The tables in ``policies/data`` that the detectors look things up in."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

__all__ = ["table"]


@cache
def table(name: str) -> Any:
    """What a file of ``policies/data`` holds; not to be changed."""
    return yaml.load((Path(__file__).parent / "data" / name).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
