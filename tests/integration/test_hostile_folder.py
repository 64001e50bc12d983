"""Every command, called in a folder that somebody else has filled: nothing that lies there is run.

The folder has a module of every name that Python, an installed package or this repository could import, and a program of
every name that a command looks for. Each writes its name down when it is run. The caller's own variables point there too.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import typer

from data_plane.cli.main import app
from data_plane.state_dir import CHECKOUT

COMMAND = CHECKOUT / "dataplane"
HOOK = CHECKOUT / "policies" / "bundled-database-service-forbidden"

MODULES = {*sys.stdlib_module_names, *packages_distributions(), *(name.partition(".")[0] for name in sys.modules)}
MODULES |= {"sitecustomize", "usercustomize", "bench", "components", "data_plane", "policies", "tests"}
MODULES -= {"encodings"}  # without it no interpreter starts, so whoever lays a trap leaves it out
PROGRAMS = [
    "bash",
    "dirname",
    "env",
    "git",
    "go",
    "initdb",
    "pg_ctl",
    "postgres",
    "psql",
    "pulumi",
    "python",
    "python3",
]
PROGRAMS += ["bao", "kubectl", "pip", "setpriv", "sh", "true", "unshare", "uv", "vault"]

# What each command is called with, and how it ends; in this order.
CALLS: list[tuple[str, list[str], int]] = [
    ("check", [], 0),
    ("project check", [], 0),
    ("project schema", ["--check"], 0),
    ("catalog", ["--check"], 0),
    ("policy check", ["."], 0),
    ("stack affected", ["--all"], 0),
    ("up", [], 0),
    ("preview", [], 0),
    ("stack up", [], 0),
    ("stack preview", [], 0),
    ("project status", ["-p", "demo"], 0),
    ("lease take", ["-p", "demo", "--as", "anon"], 0),
    ("run", ["-p", "demo", "--as", "anon", "--", "/usr/bin/printenv", "DATABASE_URL"], 0),
    ("lease run", ["-p", "demo", "--as", "anon", "--", "/usr/bin/true"], 0),
    ("psql", ["-p", "demo", "--as", "anon", "--", "-Atc", "select 1"], 0 if shutil.which("psql") else 127),
    ("lease list", [], 0),
    ("lease renew", ["database/creds/proj_demo_anon/none"], 1),
    ("lease revoke", ["-p", "demo"], 0),
    ("secret rotate", ["SECRET_KEY_BASE"], 0),
    ("project move", ["demo", "--to", "no-such-cell"], 1),
    ("project drop", ["demo", "--confirm", "demo"], 1),
    ("secret reconcile", [], 0),
    ("backup create", [], 1),
    ("backup list", [], 1),
    ("backup restore", ["--to", "latest"], 2),
    ("backup compare", ["nothing", "nothing"], 2),
    ("images pin", ["--check", "--registry", "127.0.0.1:9"], 1),
    ("project binding", ["-p", "demo", "--as", "anon", "--form", "asset"], 0),
    ("project attach", ["demo", "--dry-run"], 0),
    ("project detach", ["demo", "--dry-run"], 0),
    ("project access", ["demo", "--team", "builders", "--role", "maintainer", "--dry-run"], 0),
    ("project action", ["upsert_database_project_access", "--dry-run"], 0),
    ("migration up", ["-p", "demo", "--dry-run"], 0),
    ("migration status", ["-p", "demo"], 0),
    ("migration baseline", ["1", "-p", "demo"], 0),
    ("migration repair", ["-p", "demo", "--reverted", "1"], 0),
    ("migration seed", ["-p", "demo"], 0),
    ("migration diff", ["-p", "demo"], 0),
    ("migration reset", ["-p", "demo", "--yes", "--no-seed"], 0),
    ("migration new", ["later"], 0),
    ("project link", ["-p", "demo"], 0),
    ("workload secret-id", ["-p", "demo", "--workload", "none"], 1),
    ("local start", [], 0),
    ("local status", [], 0),
    ("local env", [], 0),
    ("local upgrade", ["--to", "99"], 1),
    ("local stop", [], 0),
    ("local reset", ["--yes"], 0),
]


def commands(group: Any, *path: str) -> Iterator[str]:
    if not hasattr(group, "list_commands"):
        yield " ".join(path)
        return
    context = typer.Context(group)
    for name in group.list_commands(context):
        yield from commands(group.get_command(context, name), *path, name)


class Folder:
    """The folder, and what was run of it."""

    def __init__(self, path: Path, home: Path) -> None:
        self.path = path
        self._ran = path.parent / "ran"
        for name in MODULES:
            (path / name).mkdir()
            for file in ("__init__", "__main__"):
                (path / name / f"{file}.py").write_text(f"open({str(self._ran)!r}, 'a').write('module {name}\\n')\n")
        for name in PROGRAMS:
            place = path / "bin" / name
            place.parent.mkdir(exist_ok=True)
            place.write_text(f"#!/bin/sh\necho program {name} >> {self._ran}\n", encoding="utf-8")
            place.chmod(0o755)
            if not (path / name).exists():
                (path / name).symlink_to(place)
        (path / "startup.py").write_text(f"open({str(self._ran)!r}, 'a').write('startup\\n')\n")
        migrations = path / "supabase" / "migrations"
        migrations.mkdir(parents=True)
        (migrations / "1_a.sql").write_text("create table a (b int);\n", encoding="utf-8")
        (path / "supabase" / "seed.sql").write_text("select 1;\n", encoding="utf-8")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VAULT", "PG"))},
            "DATA_PLANE_HOME": str(home),
            "DATA_PLANE_ENGINE": "local",
            "CDPATH": str(path),
            "PATH": os.pathsep.join(["", ".", "bin", os.environ["PATH"], ""]),
            "PYTHONPATH": os.pathsep.join(["", ".", str(path)]),
            "PYTHONHOME": str(path),
            "PYTHONUSERBASE": str(path),
            "PYTHONSTARTUP": str(path / "startup.py"),
            "PYTHONBREAKPOINT": "data_plane.__main__",
            "PYTHONWARNINGS": "error::connector.Hostile",
        }

    def run(self, *command: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            cwd=self.path,
            env={**self.environment, **variables},
            input='{"project": "demo"}',
            capture_output=True,
            text=True,
            timeout=300,
        )

    def ran(self) -> list[str]:
        """What was run since this was last asked."""
        found = self._ran.read_text(encoding="utf-8").splitlines() if self._ran.exists() else []
        self._ran.unlink(missing_ok=True)
        return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    top = tmp_path_factory.mktemp("hostile")
    for name in ("folder", "home"):
        (top / name).mkdir()
    made = Folder(top / "folder", top / "home")
    yield made
    made.run(COMMAND, "local", "stop")


def test_the_folders_modules_would_run_without_isolation(folder: Folder) -> None:
    """Else this file would show nothing."""
    safe = {name: "" for name in folder.environment if name.startswith("PYTHON")}
    folder.run(sys.executable, "-m", "data_plane", **safe)
    assert folder.ran(), "the current folder comes first where a module is named by -m"
    folder.run(sys.executable, "-c", "import rich", **{**safe, "PYTHONPATH": str(folder.path)})
    assert folder.ran(), "so does a folder of PYTHONPATH"
    folder.run("/bin/sh", "-c", "git status; unshare true")
    assert set(folder.ran()) == {"program git", "program unshare"}


def test_every_command_is_called(folder: Folder) -> None:
    assert sorted(name for name, _, _ in CALLS) == sorted(commands(typer.main.get_command(app)))


@pytest.mark.parametrize(("name", "arguments", "code"), CALLS, ids=[name for name, _, _ in CALLS])
def test_a_command_runs_nothing_of_the_folder_that_it_is_called_in(
    folder: Folder, name: str, arguments: list[str], code: int
) -> None:
    done = folder.run(COMMAND, *name.split(), *arguments)
    assert folder.ran() == []
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("called", ["dataplane", "./dataplane", "link/dataplane"])
def test_the_command_finds_its_checkout_however_it_is_called(folder: Folder, tmp_path: Path, called: str) -> None:
    (tmp_path / "link").symlink_to(CHECKOUT)
    done = subprocess.run(
        ["/bin/sh", "-c", f"{called} check"],
        cwd=CHECKOUT if called.startswith("./") else tmp_path,
        env={**folder.environment, "PATH": f"{CHECKOUT}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip().endswith("project files are right."), done.stderr
    assert folder.ran() == []


def test_the_installed_hook_runs_nothing_of_the_folder(folder: Folder, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    programs = tmp_path / "venv" / "bin"
    (installed,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (installed / "checkout.pth").write_text("\n".join([str(CHECKOUT), *ours]) + "\n", encoding="utf-8")
    hook = programs / HOOK.name
    hook.write_bytes(HOOK.read_bytes())
    hook.chmod(0o755)
    (folder.path / "compose.yaml").write_text("services:\n  db:\n    image: postgres:17\n", encoding="utf-8")
    done = folder.run(hook, "compose.yaml")
    (folder.path / "compose.yaml").unlink()
    assert folder.ran() == []
    assert done.returncode == 1, done.stderr
    assert "compose.yaml:3" in done.stdout


def test_a_command_under_run_gets_its_callers_environment_and_the_lease_alone(folder: Folder) -> None:
    """Between an `up` and a `stop` of its own: the commands above have ended with none."""
    assert folder.run(COMMAND, "up").returncode == 0
    secrets = {
        **dict.fromkeys(("VAULT_TOKEN", "BAO_TOKEN"), "s.FAKE"),
        **{f"DATA_PLANE_{name}": "/nowhere" for name in ("ROLE_ID_FILE", "SECRET_ID_FILE", "TOKEN_FILE")},
        "PULUMI_CONFIG_PASSPHRASE": "opens the state",
        "PGPASSWORD": "the operator's",
    }
    shown = "import json, os, sys; sys.path.clear(); print(json.dumps(dict(os.environ)))"
    done = folder.run(COMMAND, "run", "-p", "demo", "--as", "anon", "--", sys.executable, "-I", "-c", shown, **secrets)
    assert folder.ran() == []
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    leased = {
        name for name in found if name.startswith(("DATABASE_", "DIRECT_", "SUPABASE_", "DATA_PLANE_", "PGSERVICE"))
    }
    assert {"DATABASE_URL", "SUPABASE_API_TOKEN", "PGSERVICEFILE", "DATA_PLANE_LEASE_FILE"} <= leased
    kept = {name: value for name, value in found.items() if name not in leased}
    expected = {name: value for name, value in folder.environment.items() if not name.startswith("DATA_PLANE_")}
    changed = {"PWD", "OLDPWD", "SHLVL", "_"}  # a shell's own
    assert {k: v for k, v in kept.items() if k not in changed} == {
        k: v for k, v in expected.items() if k not in changed
    }
    assert {name: found.get(name) for name in secrets} == dict.fromkeys(secrets)
    assert found["DATA_PLANE_HOME"] == folder.environment["DATA_PLANE_HOME"]
