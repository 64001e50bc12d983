"""Small programs that declare Kubernetes resources, and what the local runner makes of them."""

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from data_plane.engine.runner.deployment import Result, deploy, stack_outputs
from data_plane.engine.stack_files import load_config
from data_plane.errors import RunFailedError
from data_plane.local.providers import PROVIDERS
from data_plane.state_dir import StateDir

HEAD = """
import pulumi
import pulumi_kubernetes as k8s

config = pulumi.Config()
namespace = config.require("namespace")
given = {name: config.get(name) for name in ("kubeconfig", "render_yaml_to_directory") if config.get(name)}
cluster = k8s.Provider("cluster", **given)
also = lambda **more: pulumi.ResourceOptions(provider=cluster, **more)
on = also()
meta = lambda name, **more: {"name": name, "namespace": namespace, **more}
pods = lambda name, image="example.org/nothing:1": {
    "metadata": {"labels": {"app": name}},
    "spec": {"containers": [{"name": "main", "image": image, "ports": [{"container_port": 80}]}]},
}
selector = lambda name: {"match_labels": {"app": name}}
"""


class Program:
    """A program of its own, run by the local runner.

    Args:
        folder: for the program and all that the runner keeps.
        namespace: what ``namespace`` is in it.
        settings: what its Kubernetes provider is given.
    """

    def __init__(self, folder: Path, namespace: str, **settings: Path | str) -> None:
        (folder / "stacks").mkdir(parents=True)
        (folder / "stacks" / "Pulumi.test.yaml").write_text("config: {}\n", encoding="utf-8")
        (folder / "Pulumi.yaml").write_text(
            "name: tried\nruntime: python\nstackConfigDir: stacks\nconfig: {}\n", encoding="utf-8"
        )
        self.folder = folder
        self.home = StateDir(folder / "home")
        self.settings = {"namespace": namespace, **{key: str(value) for key, value in settings.items()}}

    def up(self, text: str, *, preview: bool = False) -> Result:
        (self.folder / "__main__.py").write_text(HEAD + dedent(text), encoding="utf-8")
        config = load_config(self.folder, "test", self.settings, {})
        return deploy(self.home, self.folder, "test", config, PROVIDERS, preview=preview)

    def changes(self, text: str, *, preview: bool = False) -> dict[str, str]:
        """What became, or would become, of each thing on the cluster: `Kind name` → change and where."""
        steps = [step for step in self.up(text, preview=preview).steps if step.custom and "providers" not in step.type]
        return {f"{step.type.rpartition(':')[2]} {step.name}": " ".join([step.change, *step.changed]) for step in steps}

    def refusal(self, text: str, *, preview: bool = False) -> str:
        with pytest.raises(RunFailedError) as caught:
            self.up(text, preview=preview)
        return str(caught.value)

    def outputs(self) -> dict[str, Any]:
        found = stack_outputs(self.home, "test")
        return found.values if found else {}
