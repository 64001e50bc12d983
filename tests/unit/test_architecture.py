"""The layers of the code: a module imports its own layer and those below, and no circle is anywhere."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from data_plane.state_dir import CHECKOUT

LAYERS = (
    "data_plane.cli",
    "data_plane.connector",
    "data_plane.local",
    "data_plane.engine",
    "components",
    "data_plane.clients",
    "data_plane.model",
)
"""From top to bottom. What is in none of them may be imported by all: ``data_plane.errors``, ``data_plane.state_dir``."""
BELOW_ALL = ("data_plane", "data_plane.errors", "data_plane.state_dir")
FILES_OF_CENTRAL = "components.central.files"
"""All that the packages of ``data_plane`` need of the components: no resource, no Pulumi."""

Graph = Mapping[str, frozenset[str]]


def _name(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, modules: frozenset[str]) -> Iterator[str]:
    """Every module that a file imports, wherever in it, for type checkers alone too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.fixture(scope="module")
def graph() -> Graph:
    paths = {
        _name(path): path for top in ("components", "data_plane", "policies") for path in (CHECKOUT / top).rglob("*.py")
    }
    modules = frozenset(paths)
    return {name: frozenset(_imports(path, modules)) - {name} for name, path in paths.items()}


def _is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _layer(module: str) -> int | None:
    return next((index for index, layer in enumerate(LAYERS) if _is_in(module, layer)), None)


def _found(graph: Graph, place: str, unwanted: str, but: str = "-") -> list[str]:
    return sorted(
        f"{module} imports {imported}"
        for module, imports in graph.items()
        for imported in imports
        if _is_in(module, place) and _is_in(imported, unwanted) and not _is_in(imported, but)
    )


def test_every_module_of_the_data_plane_is_in_a_layer_or_below_all(graph: Graph) -> None:
    entry = {"data_plane.__main__"}
    stray = {
        module
        for module in graph
        if not _is_in(module, "policies") and _layer(module) is None and module not in BELOW_ALL
    }
    assert stray == entry


def test_no_module_imports_a_layer_above_its_own(graph: Graph) -> None:
    upwards = [
        f"{module} imports {imported}"
        for module, imports in graph.items()
        if (own := _layer(module)) is not None
        for imported in imports
        if (other := _layer(imported)) is not None and other < own
    ]
    assert sorted(upwards) == []


def test_what_is_below_all_layers_imports_none(graph: Graph) -> None:
    for module in BELOW_ALL:
        assert [imported for imported in graph[module] if _layer(imported) is not None] == []


def test_no_modules_import_each_other_in_a_circle(graph: Graph) -> None:
    try:
        TopologicalSorter({module: imports & graph.keys() for module, imports in graph.items()}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    "place", ["data_plane.model", "data_plane.clients", "data_plane.errors", "data_plane.state_dir"]
)
def test_what_stacks_say_and_the_connections_need_no_pulumi(graph: Graph, place: str) -> None:
    libraries = {imported.split(".")[0] for module in graph if _is_in(module, place) for imported in graph[module]}
    assert {library for library in libraries if library.startswith("pulumi")} == set()


def test_the_packages_of_the_data_plane_use_no_component(graph: Graph) -> None:
    assert _found(graph, "data_plane", "components", but=FILES_OF_CENTRAL) == []
    assert graph[FILES_OF_CENTRAL] <= {"pathlib"}
    assert graph["components"] | graph["components.central"] == frozenset()


LOCAL_PARTS = {
    "data_plane.connector.bindings": "the data plane of this machine, beside the deployed ones",
    "data_plane.connector.cells": "its cells, which are chosen for the environment `local`",
    "data_plane.connector.local_backups": "its backups",
    "data_plane.connector.cluster_backups": "Barman, which is installed on the machine that lists a cluster's backups",
    "data_plane.connector.project_drop": "the projects of this machine are dropped, too",
    "data_plane.connector.migrations.scratch": "a server for an hour, to compare schemas in",
}
"""The modules of the connector that need a server or a program of this machine, and what for."""


def test_the_connector_asks_for_this_machines_servers_in_few_named_places(graph: Graph) -> None:
    users = {module for module in graph if _is_in(module, "data_plane.connector")}
    users = {module for module in users if any(_is_in(imported, "data_plane.local") for imported in graph[module])}
    assert users == LOCAL_PARTS.keys()


def test_policies_import_what_stacks_say_and_nothing_else_of_ours(graph: Graph) -> None:
    assert _found(graph, "policies", "components") == []
    assert _found(graph, "policies", "data_plane", but="data_plane.model") == []


def test_the_check_of_hand_offs_imports_policies_alone(graph: Graph) -> None:
    reached, waiting = set(), {module for module in graph if _is_in(module, "policies.artifacts")}
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= (graph[module] & graph.keys()) - reached
    assert {module.split(".")[0] for module in reached} == {"policies"}
    assert not [module for module in reached if any(imported.startswith("pulumi") for imported in graph[module])]


def test_tenants_and_cells_know_nothing_of_the_central_component(graph: Graph) -> None:
    for place in ("components.tenant", "components.cell"):
        assert _found(graph, place, "components.central") == []
    for unwanted in ("components.tenant", "components.cell"):
        assert _found(graph, "components.central", unwanted) == []
