"""The base alone: the check of hand-offs, and leases for a program that has a binding and no checkout."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.sign_in import ROLE_ID_VARIABLE, SECRET_ID_VARIABLE
from data_plane.local.environment import LocalEnvironment
from tests.conftest import bring_up
from tests.package.conftest import Installed
from tests.package.test_wheel import PROJECT

SIZE_BOUND = 60 * 10**6
COMPOSE = "services:\n  db:\n    image: postgres:17\n"
SHOP = """\
slug: shop
display_name: Shop
cell: cell-1
owners: [olga]
workloads:
  web: {level: service_role, approle: {}}
"""
HOOK = "bundled-database-service-forbidden"


def test_it_is_small(base: Installed) -> None:
    # The environment's own, which pip is installed with, count for every package.
    own = {"_distutils_hack", "distutils-precedence.pth", "pip", "pkg_resources", "setuptools"}
    files = [
        path
        for top in base.packages.iterdir()
        if top.name.partition("-")[0] not in own
        for path in ([top] if top.is_file() else top.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    ]
    assert sum(path.stat().st_size for path in files) <= SIZE_BOUND
    assert not {"pulumi", "pglast", "grpc", "kubernetes", "cryptography"} & {
        path.name for path in base.packages.iterdir()
    }


def test_it_says_its_version(base: Installed) -> None:
    done = base.run("dataplane", "--version")
    assert (done.returncode, done.stdout) == (0, f"{PROJECT['version']}\n")


def test_the_help_says_what_a_command_further_needs(base: Installed) -> None:
    done = base.run("dataplane", "--help")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    assert "up Not here: set DATA_PLANE_CHECKOUT to a checkout." in text
    assert "run Run a command with a lease" in text
    of_migrations = base.run("dataplane", "migration", "--help").stdout
    assert "seed Not here: the extra `migrations` is not installed." in " ".join(of_migrations.split())
    assert "Not here" not in base.run("dataplane", "lease", "--help").stdout
    assert "Not here" not in base.run("dataplane", "policy", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "needed"),
    [
        (["migration", "up", "--project", "shop"], 1, "pip install 'supabase-data-plane[migrations]'"),
        (["local", "start"], 1, "pip install 'supabase-data-plane[local]'"),
        (["backup", "list", "--environment", "prod"], 1, "pip install 'supabase-data-plane[local]'"),
        (["up"], 1, "set DATA_PLANE_CHECKOUT to its folder"),
        (["project", "status", "--environment", "prod"], 2, "the checkout that declares it (DATA_PLANE_CHECKOUT)"),
        (["project", "attach", "shop"], 1, "set DATA_PLANE_CHECKOUT to its folder"),
        (["lease", "--project", "shop", "--as", "anon"], 2, "a file with its binding (--binding, DATA_PLANE_BINDING)"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_missing_is_one_message(base: Installed, arguments: list[str], code: int, needed: str) -> None:
    done = base.run("dataplane", *arguments)
    assert done.returncode == code
    assert needed in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["dataplane", "policy", "check"], [HOOK]], ids=" ".join)
def test_a_hand_off_with_a_database_is_refused(base: Installed, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE, encoding="utf-8")
    done = base.run(*command, "--root", str(tmp_path), str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert "compose.yaml:3:5: db: image postgres:17" in done.stdout
    (tmp_path / "compose.yaml").write_text(COMPOSE.replace("postgres:17", "nginx:1"), encoding="utf-8")
    assert base.run(*command, "--root", str(tmp_path), str(tmp_path)).returncode == 0


def test_the_hook_imports_nothing_of_pythonpath(base: Installed, tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("print('imported')\nraise SystemExit(0)\n", encoding="utf-8")
    (tmp_path / "compose.yaml").write_text(COMPOSE, encoding="utf-8")
    hostile = {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "yaml.py")}
    assert base.run("python", "-c", "import yaml", **hostile).stdout == "imported\n", "else this shows nothing"
    done = base.run(HOOK, "--root", str(tmp_path), str(tmp_path), **hostile)
    assert done.returncode == 1
    assert "imported" not in done.stdout


@pytest.fixture(scope="module")
def pod(new_local_env: Callable[[dict[str, str]], LocalEnvironment], base: Installed) -> dict[str, str]:
    """What a Pod has of a data plane: the variables of its workload, and a file with the binding."""
    local_env = new_local_env({"shop.yaml": SHOP})
    bring_up(local_env)
    binding = LocalDataPlane(local_env).binding("shop")
    file = base.work / "binding.json"
    file.write_text(json.dumps(binding.document()), encoding="utf-8")
    operator, role = local_env.servers.openbao.client(), f"auth/approle/role/{binding.workloads['web'].role}"
    return {
        "DATA_PLANE_BINDING": str(file),
        ROLE_ID_VARIABLE: operator.read(f"{role}/role-id")["data"]["role_id"],
        SECRET_ID_VARIABLE: operator.write_data(f"{role}/secret-id", data={})["data"]["secret_id"],
    }


def test_a_workload_takes_a_lease_and_gives_it_back(base: Installed, pod: dict[str, str]) -> None:
    done = base.run("dataplane", "lease", "--project", "shop", "--auth", "approle", "--format", "json", **pod)
    assert done.returncode == 0, done.stderr
    lease = json.loads(done.stdout)
    with psycopg.connect(lease["database_url"]) as connection:
        assert connection.execute("select current_user").fetchone() == ("proj_shop_service_role",)
    done = base.run("dataplane", "lease", "revoke", "--auth", "approle", lease["lease_id"], **pod)
    assert done.returncode == 0, done.stderr
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(lease["database_url"], connect_timeout=30)


def test_a_workload_runs_its_program_with_a_lease(base: Installed, pod: dict[str, str]) -> None:
    program = "import psycopg; print(psycopg.connect('').execute('select current_user').fetchone()[0])"
    done = base.run(
        "dataplane", "run", "--project", "shop", "--auth", "approle", "--", sys.executable, "-c", program, **pod
    )
    assert (done.returncode, done.stdout) == (0, "proj_shop_service_role\n"), done.stderr


def test_a_project_is_bound_without_a_checkout(base: Installed, pod: dict[str, str]) -> None:
    done = base.run("dataplane", "project", "binding", "--form", "asset", "--as", "anon", "--project", "shop", **pod)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["project"] == "shop"
