"""The wheel: whether it has all that the packages read, and names what is there."""

import json
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from importlib import import_module, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from data_plane.cli.lazy import Entry, Group
from data_plane.cli.main import COMMANDS
from data_plane.connector.catalog import CATALOGUE_FILE
from data_plane.connector.service_binding import SERVICE_CATALOGUE_FILE
from data_plane.state_dir import CHECKOUT
from tests.package.conftest import PACKAGES

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        held = set(opened.namelist())
    files = {
        path.relative_to(CHECKOUT).as_posix()
        for package in PACKAGES
        for path in (CHECKOUT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files - held == set()
    assert {f"{package}/py.typed" for package in PACKAGES} <= held


def test_the_catalogs_name_entry_points(wheel: Path) -> None:
    (connector,) = json.loads(CATALOGUE_FILE.read_text(encoding="utf-8"))["connectors"]
    (service,) = json.loads(SERVICE_CATALOGUE_FILE.read_text(encoding="utf-8"))["services"]
    points = PROJECT["entry-points"]
    assert points["supabase_data_plane.executors"] == {connector["name"]: connector["executor"]}
    assert points["supabase_data_plane.service_bindings"] == {service["name"]: service["bind"]["function"]}
    for catalog in (connector["distribution"], service["bind"]["distribution"]):
        name, _, extra = catalog.rstrip("]").partition("[")
        assert name == PROJECT["name"]
        assert not extra or extra in PROJECT["optional-dependencies"]


@pytest.mark.parametrize(
    "point", [PROJECT["scripts"], *PROJECT["entry-points"].values()], ids=lambda point: next(iter(point))
)
def test_an_entry_point_can_be_called(point: dict[str, str]) -> None:
    for target in point.values():
        module, _, name = target.partition(":")
        assert callable(getattr(import_module(module), name))


# Commands and entry points by the extra that they are documented to need; what another extra brings is hidden.
IMPORTED = {
    "program": [
        "components.tenant",
        "components.central",
        "components.cell",
        "data_plane.connector.executor",
        *(
            f"data_plane.cli.{name}"
            for name in ("catalog", "project_access", "project_files", "project_status", "secret")
        ),
    ],
    "policies": ["policies.pack"],
    "migrations": ["data_plane.cli.migration"],
    "local": ["data_plane.cli.stack", "data_plane.cli.local", "data_plane.cli.backup", "data_plane.cli.project_move"],
    "kubernetes": ["data_plane.connector.cluster_backups"],
}
HIDING = """
import sys
from importlib import import_module

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed and name.partition(".")[0] in installed:
            raise ModuleNotFoundError(f"{name} is of no package of this extra", name=name)

allowed, installed, modules = ({*names.split()} for names in sys.argv[1:])
sys.meta_path.insert(0, Hidden())
for module in modules:
    import_module(module)
"""


def brought_by(requirements: Iterable[str], extras: Iterable[str] = ("",)) -> set[str]:
    """The distributions that pip would install for requirements."""
    found: set[str] = set()
    for requirement in map(Requirement, requirements):
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name = canonicalize_name(requirement.name)
        if name == PROJECT["name"]:
            further = [text for extra in requirement.extras for text in PROJECT["optional-dependencies"][extra]]
        else:
            further = metadata.requires(name) or []
        found |= {name} | brought_by(further, requirement.extras or ("",))
    return found


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_an_extra_brings_all_that_its_modules_import(extra: str) -> None:
    brought = brought_by([*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]])
    modules = metadata.packages_distributions()
    allowed = {name for name, owners in modules.items() if {canonicalize_name(owner) for owner in owners} & brought}
    hidden = set(modules) - set(sys.stdlib_module_names)
    arguments = [" ".join(names) for names in (allowed, hidden, IMPORTED[extra])]
    done = subprocess.run([sys.executable, "-c", HIDING, *arguments], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_commands_extra_is_one_of_the_distribution() -> None:
    def extras(entries: Mapping[str, Entry | Group]) -> set[str]:
        return {
            extra
            for entry in entries.values()
            for extra in (extras(entry.entries) if isinstance(entry, Group) else {entry.extra})
        }

    assert extras(COMMANDS) - {""} <= PROJECT["optional-dependencies"].keys()
