"""Where manifests are rendered: beside this machine's other data, or in the checkout."""

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pulumi
import pytest

from components.central.central import SupabaseCentralArgs
from data_plane.local.environment import CENTRAL_STACK, LocalEnvironment
from data_plane.model.settings import CentralSettings
from data_plane.state_dir import CHECKOUT, StateDir
from tests.support.cluster_program import CLOUD_NATIVE_PG, FILES, MINIMAL, declared, merged
from tests.support.declared import declare
from tests.support.settings import CENTRAL, load

if TYPE_CHECKING:
    from data_plane.engine.engine import Engine
    from data_plane.local.servers import Servers


@pytest.mark.parametrize(("state_dir", "expected"), [("/var/data", "/var/data/manifests"), (None, "{root}/manifests")])
def test_manifests_are_rendered_into_the_folder_of_local_data_or_into_the_checkout(
    state_dir: str | None, expected: str
) -> None:
    further = {} if state_dir is None else {"stateDir": state_dir}
    settings = load({**CENTRAL, **further, "kubernetes": {**MINIMAL, "renderTo": "manifests"}})
    assert isinstance(settings, CentralSettings)
    args = declare(lambda: SupabaseCentralArgs.from_settings(settings, pulumi.Config("p"), CHECKOUT, ())).result
    assert args.cluster.settings.render_to == expected.format(root=CHECKOUT)


def test_a_local_env_tells_the_program_where_its_data_is(tmp_path: Path) -> None:
    server = SimpleNamespace(known_port=5432, admin_password="of-the-test", address="http://127.0.0.1:8200")
    servers = SimpleNamespace(postgres=server, openbao=server, home=StateDir(tmp_path))
    local_env = LocalEnvironment(cast("Servers", servers), cast("Engine", None))
    assert local_env.config(CENTRAL_STACK).settings["stateDir"] == str(tmp_path)


@pytest.mark.parametrize("mode", [{}, {"database": CLOUD_NATIVE_PG}, {"storage": {**FILES, "replicas": 1}}])
def test_a_manifest_that_is_only_rendered_is_not_kept_from_being_removed(mode: dict[str, Any]) -> None:
    for change, kept in (({}, True), ({"renderTo": "manifests"}, False)):
        program = declared(merged(mode, change))
        found = [
            item.request.protect or item.request.retainOnDelete
            for item in program.resources
            if item.type.startswith("kubernetes:")
        ]
        assert any(found) is kept
