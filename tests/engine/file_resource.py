"""A resource for small programs: a file, which takes as long to create as another file beside it exists."""

import time
from pathlib import Path
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, Resource, ResourceProvider, UpdateResult


class _Files(ResourceProvider):
    def create(self, props: dict[str, Any]) -> CreateResult:
        file = Path(props["path"])
        file.write_text(props["text"], encoding="utf-8")
        while file.with_name(f"{file.name}-waits").exists():
            time.sleep(0.05)
        return CreateResult(str(file), props)

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        Path(news["path"]).write_text(news["text"], encoding="utf-8")
        return UpdateResult(outs=news)


class File(Resource):
    """A file."""

    def __init__(self, name: str, path: Path, text: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(_Files(), name, {"path": str(path), "text": text}, opts)
