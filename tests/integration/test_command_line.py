"""The command as a person runs it: a process of its own, looked at from outside."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from data_plane.local.servers import Servers
from data_plane.state_dir import CHECKOUT, StateDir

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def run(home: Path) -> "Run":
    """Runs `dataplane` on a home of this module's, brought up once."""
    environment = {**os.environ, "DATA_PLANE_HOME": str(home), "DATA_PLANE_ENGINE": "local", "COLUMNS": "200"}
    environment.pop("VAULT_TOKEN", None)

    def command(*arguments: str, code: int = 0, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "data_plane", *arguments],
            cwd=CHECKOUT,
            env={**environment, **variables},
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
    run("local", "stop")


def test_before_an_up_the_commands_say_what_to_do(run: Run) -> None:
    for arguments in (
        ["project", "status"],
        ["lease", "-p", "demo", "--as", "anon"],
        ["lease", "revoke", "-p", "demo"],
    ):
        assert "`dataplane up`" in run(*arguments, code=1).stderr


def leases_in(text: str) -> list[str]:
    return re.findall(r"psql '(postgresql://[^']+)'", text)


def test_up_prints_a_lease_that_works_for_every_attached_project_when_asked(up: Run) -> None:
    done = up("up", "--lease")
    strings = leases_in(done.stdout)
    assert len(strings) == 2
    for string in strings:
        with psycopg.connect(string) as session:
            row = session.execute("select current_user").fetchone()
        assert row is not None
        assert str(row[0]).endswith("_owner")
    assert re.search(r"^local-cell-1: no change, \d+ unchanged$", done.stdout, re.MULTILINE), done.stdout


def test_preview_shows_what_hands_have_changed_and_applies_nothing_and_up_sets_it_right(up: Run, home: Path) -> None:
    client = Servers(StateDir(home)).openbao.client()
    client.sys.delete_policy("proj_demo_anon")
    group = client.read("identity/group/name/proj_demo_owner")["data"]
    dave = client.read("identity/entity/name/dave")["data"]["id"]
    client.write_data(
        "identity/group/name/proj_demo_owner",
        data={"policies": group["policies"], "metadata": group["metadata"], "member_entity_ids": [dave]},
    )
    shown = up("preview", "--detailed-exitcode", code=2).stdout
    assert "  differs    Policy demo-access-policy-anon: is missing, and is made\n" in shown
    assert "  + Policy demo-access-policy-anon\n" in shown
    assert re.search(r"^local-cell-1: 1 to create, 1 to update, \d+ unchanged$", shown, re.MULTILINE), shown
    document = json.loads(up("preview", "--project", "demo", "--json").stdout)
    (project,) = document["projects"]
    assert [(item["who"], item["gains"], item["loses"]) for item in project["sentences"] if item["who"]] == [
        ("alice", ["owner"], []),
        ("dave", [], ["owner"]),
    ]
    assert {item["project"] for item in document["resources"]} == {"demo"}
    assert "proj_demo_anon" not in client.sys.list_policies()["data"]["policies"]
    up("up")
    assert "proj_demo_anon" in client.sys.list_policies()["data"]["policies"]
    again = up("preview", "--detailed-exitcode").stdout
    assert re.search(r"^local-cell-1: no change, \d+ unchanged$", again, re.MULTILINE), again


def test_preview_refuses_a_project_that_is_not_there(up: Run) -> None:
    assert "there is no project 'nosuch'; there are: demo, guestbook" in up("preview", "-p", "nosuch", code=1).stderr


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
    up("lease", "revoke", "--project", "demo")
    taken = json.loads(up("lease", "-p", "demo", "--as", "service_role", "-f", "json").stdout)
    assert "1 service_role" in up("project", "status", "-p", "demo").stdout
    assert f"revoked {taken['lease_id']}" in up("lease", "revoke", taken["lease_id"]).stdout
    assert "none" in up("project", "status", "-p", "demo").stdout
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(taken["connection_string"])
    assert "there was no live lease" in up("lease", "revoke", "-p", "demo").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["lease", "-p", "nothing", "--as", "anon"],
            1,
            "'nothing' that `dataplane up` has brought up here; there are: demo, guestbook",
        ),
        (["lease", "-p", "demo", "--as", "owner", "--user", "carol"], 1, "you may not use demo as owner"),
        (
            ["lease", "-p", "demo", "--as", "owner", "--user", "ghost"],
            1,
            "'ghost' cannot sign in to the local OpenBao; people who can: alice",
        ),
        (["lease", "revoke"], 2, "name lease IDs, or a project with --project"),
        (["lease", "revoke", "database/creds/proj_demo_anon/x", "-p", "demo"], 2, "name lease IDs, or a project"),
        (["lease", "revoke", "nonexist"], 1, "nonexist is no lease of a project here"),
        (
            ["lease", "revoke", "database/creds/proj_demo_anon/x"],
            1,
            "there is no lease database/creds/proj_demo_anon/x",
        ),
        (["lease", "revoke", "database/creds/proj_demo_anon/x", "--user", "alice"], 1, "there is no lease database"),
        (["project", "status", "-p", "nothing"], 1, "no project 'nothing'"),
        (["project", "status", "-e", "nowhere"], 1, ""),
        (["run", "-p", "demo", "--as", "anon", "--", "no-such-command"], 127, "no-such-command cannot be started"),
        (["run", "-p", "demo", "--as", "anon", "--", "/etc/passwd"], 126, "/etc/passwd cannot be started"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_each_mistake_is_one_message(up: Run, arguments: list[str], code: int, message: str) -> None:
    done = up(*arguments, code=code)
    assert message in done.stderr
    assert len(re.findall(r"^error(\[[\w-]+\])?: ", done.stderr, re.MULTILINE)) == 1
    assert done.stdout == ""


def test_a_lease_that_cannot_be_printed_is_given_back(up: Run, home: Path) -> None:
    before = json.loads(up("lease", "list", "--json").stdout)
    environment = {**os.environ, "DATA_PLANE_HOME": str(home)}
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "data_plane", "lease", "-p", "demo", "--as", "anon"],
            cwd=CHECKOUT,
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert "standard output cannot be written: No space left on device; the lease was given back\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(up("lease", "list", "--json").stdout) == before


def test_verbose_logs_requests_without_any_secret(up: Run) -> None:
    done = up("lease", "-v", "-p", "demo", "--as", "anon", "--json")
    taken = json.loads(done.stdout)
    assert "/v1/database/creds/proj_demo_anon" in done.stderr
    assert not [secret for secret in (taken["password"], taken["api_token"]) if secret in done.stderr]
    up("lease", "revoke", taken["lease_id"])


def test_a_lease_imports_no_library_but_openbao_s_client(up: Run, home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "data_plane", "lease", "-p", "demo", "--as", "anon", "--json"],
        cwd=CHECKOUT,
        env={**os.environ, "DATA_PLANE_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    imported = {
        name.partition(".")[0] for name in re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE)
    }
    assert "hvac" in imported, "else this shows nothing"
    unwanted = {"cryptography", "grpc", "kubernetes", "pglast", "psycopg", "pulumi", "pulumi_kubernetes"}
    assert imported & unwanted == set()
    up("lease", "revoke", json.loads(done.stdout)["lease_id"])


@pytest.mark.skipif(shutil.which("psql") is None, reason="needs psql")
def test_psql_has_a_lease_that_is_in_no_argument_and_gone_afterwards(up: Run) -> None:
    before = len(json.loads(up("lease", "list", "--json").stdout))
    query = "select current_user, (select count(*) > 0 from pg_stat_activity where pid = pg_backend_pid())"
    assert up("psql", "-p", "demo", "--", "-Atc", query).stdout == "proj_demo_owner|t\n"
    assert up("psql", "-p", "demo", "--as", "anon", "--", "-Atc", "select current_user").stdout == "proj_demo_anon\n"
    shown = up("psql", "-p", "demo", "--", "-Atc", r"\! tr '\0' ' ' < /proc/$PPID/cmdline").stdout
    assert "psql -Atc" in shown
    assert "lease_" not in shown
    assert up("psql", "-p", "demo", "--", "-c", "selec", code=1).stderr.startswith("ERROR:")
    assert len(json.loads(up("lease", "list", "--json").stdout)) == before


def test_a_login_that_openbao_gave_up_on_is_named_by_status_and_up_until_it_is_dropped(up: Run, home: Path) -> None:
    servers = Servers(StateDir(home))
    kept, lost, renewed = (
        json.loads(up("lease", "-p", "demo", "--as", level, "-f", "json").stdout)
        for level in ("anon", "authenticated", "anon")
    )
    login = urlsplit(lost["connection_string"]).username
    up("lease", "renew", renewed["lease_id"])
    with servers.postgres.connect() as admin:
        admin.execute("alter role openbao_lease_issuer nologin")
        admin.commit()
        admin.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename = 'openbao_lease_issuer'"
        )
    try:
        servers.openbao.client().write_data(f"sys/leases/revoke-force/{lost['lease_id']}", data={})
    finally:
        with servers.postgres.connect() as admin:
            admin.execute("alter role openbao_lease_issuer login")
    for command in (["project", "status"], ["up"]):
        remarks = up(*command).stderr
        assert f"login {login} of proj_demo works, and OpenBao has no lease for it" in remarks
        assert remarks.count("OpenBao has no lease") == 1
    demo, guestbook = json.loads(up("project", "status", "--json").stdout)
    assert [found["logins"] for found in demo["logins_without_lease"]] == [[login]]
    assert guestbook["logins_without_lease"] == []
    with servers.postgres.connect() as admin:
        admin.execute("select data_plane.revoke_lease(%s)", [login])
    assert "OpenBao has no lease" not in up("project", "status").stderr
    up("lease", "revoke", kept["lease_id"], renewed["lease_id"])


def test_status_is_a_table_or_json_and_nothing_beside_it(up: Run, tmp_path: Path) -> None:
    demo, guestbook = json.loads(up("project", "status", "--json").stdout)
    assert (demo["project"], demo["schema"], demo["exposed"]) == ("demo", "proj_demo", True)
    assert guestbook["services"] == ["postgres"]
    assert json.loads(up("project", "status", "-p", "demo", "--json").stdout) == [demo]
    assert "{" not in up("project", "status", "-p", "demo").stdout
    servers = {item["name"]: item for item in json.loads(up("local", "status", "--json").stdout)}
    assert servers["OpenBao"]["remark"] == "unsealed"
    binding = tmp_path / "binding.json"
    up("project", "binding", "-p", "demo", "--json", "-o", str(binding))
    read = up("project", "binding", "-p", "demo", "--json", "--binding", str(binding))
    assert read.stdout == binding.read_text(encoding="utf-8")
    assert json.loads(binding.read_text(encoding="utf-8"))["project"] == "demo"


def test_at_80_columns_leases_and_urls_are_whole(up: Run) -> None:
    taken = json.loads(up("lease", "-p", "demo", "--as", "service_role", "--json").stdout)
    listed = up("lease", "list", COLUMNS="80").stdout
    assert f"{taken['lease_id']}  " in listed
    shown = up("lease", "-p", "demo", "--as", "service_role", COLUMNS="80")
    lines = shown.stdout.splitlines()
    values = dict(line.split() for line in lines)
    assert max(map(len, lines)) > 80, "else nothing could be broken"
    assert values["SUPABASE_URL"] == taken["api_url"].removesuffix("/rest/v1")
    with socket.socket() as other:
        taken_port = other.connect_ex(("127.0.0.1", urlsplit(values["SUPABASE_URL"]).port or 80)) == 0
    assert taken_port is not ("nothing listens at SUPABASE_URL" in shown.stderr)
    assert "listens" not in up("lease", "-p", "demo", "--as", "service_role", "-f", "dotenv").stderr
    with psycopg.connect(values["DATABASE_URL"]) as session:
        assert session.execute("select current_user").fetchone() == ("proj_demo_service_role",)
    refused = up("lease", "renew", f"{taken['lease_id']}x", COLUMNS="80", code=1).stderr
    assert f"{taken['lease_id']}x" in refused
    up("lease", "revoke", "-p", "demo")


def test_a_detached_project_is_asked_for_its_leases_first_and_not_shown_as_exposed(up: Run) -> None:
    refused = up("project", "detach", "demo", code=2).stderr
    assert re.search(r"demo \(local\) has (no|\d+) live leases?\.", refused)
    assert "--yes" in refused
    plan = json.loads(up("project", "detach", "demo", "--dry-run", "--json").stdout)
    assert "+lifecycle: detached" in plan["edit"]
    assert json.loads(up("project", "status", "-p", "demo", "--json").stdout)[0]["lifecycle"] == "attached"


def test_a_project_of_another_name_is_named_with_those_that_there_are(up: Run, tmp_path: Path) -> None:
    folder = tmp_path / "supabase"
    (folder / "migrations").mkdir(parents=True)
    (folder / "migrations" / "1_a.sql").write_text("create table a (b int);", encoding="utf-8")
    refused = up("migration", "status", "-p", "bookclb", "--folder", str(folder), code=1).stderr
    assert (
        "error[project-not-found]: there is no project 'bookclb' that `dataplane up` has brought up here; there are: demo"
        in refused
    )


def test_who_has_access_is_listed(up: Run) -> None:
    assert up("project", "access", "demo").stdout.splitlines()[:2] == [
        "kind  name   role",
        "user  alice  project_owner",
    ]
    found = json.loads(up("project", "access", "demo", "--json").stdout)
    assert {"kind": "user", "name": "carol", "role": "project_viewer"} in found


def test_the_operators_variables_let_the_usual_clients_in(up: Run) -> None:
    script = up("local", "env").stdout + 'psql -Atc "select current_user" && bao token lookup -format=json'
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert '"root"' in done.stdout
    assert done.stdout.startswith("supabase_admin\n")


def test_servers_that_are_down_are_named_and_the_same_command_works_afterwards(up: Run) -> None:
    up("local", "stop")
    done = up("lease", "-p", "demo", "--as", "anon", code=1)
    assert "the local OpenBao is not running: run `dataplane local start`" in done.stderr
    assert "running" in up("local", "start").stdout
    up("lease", "-p", "demo", "--as", "anon")


def test_a_sealed_openbao_is_named_and_unsealed_by_the_next_up_which_takes_no_lease(up: Run) -> None:
    leases = json.loads(up("lease", "list", "--all", "--json").stdout)
    match = re.search(r"(/\S+)/postgres", up("local", "status").stdout)
    assert match
    Servers(StateDir(Path(match.group(1)))).openbao.client().sys.seal()
    done = up("lease", "-p", "demo", "--as", "anon", code=1)
    assert "sealed" in done.stderr.lower()
    done = up("up")
    assert leases_in(done.stdout) == []
    assert json.loads(up("lease", "list", "--all", "--json").stdout) == leases
    assert re.search(r"^local-cell-1: .*demo \d+, guestbook \d+", done.stderr, re.MULTILINE), done.stderr
    assert len(done.stderr.splitlines()) < 12
    up("lease", "-p", "demo", "--as", "anon")


def test_the_committed_schema_is_the_models(run: Run) -> None:
    run("project", "schema", "--check")


def test_check_counts_the_projects(run: Run) -> None:
    assert run("check").stdout == run("project", "check").stdout == "2 project files are right.\n"


def test_access_is_planned_from_the_command_line_and_nothing_is_changed(up: Run) -> None:
    files = sorted(path.name for path in (CHECKOUT / "stacks/local/projects").iterdir())
    plan = json.loads(
        up("project", "attach", "shop", "--owner", "erin", "--service", "auth", "--dry-run", "--json").stdout
    )
    assert "+managed_services: [postgres, auth]" in plan["edit"]
    assert plan["dry_run"]
    assert plan["binding"] is None
    assert sorted(path.name for path in (CHECKOUT / "stacks/local/projects").iterdir()) == files
    refused = up("project", "access", "demo", "--user", "dora", "--role", "king", code=1).stderr
    assert "role: found 'king'" in refused


def test_an_actions_inputs_are_read_from_a_pipe(up: Run) -> None:
    done = up("project", "action", "upsert_database_access", code=1, stdin='["demo"]')
    assert "expected a JSON object" in done.stderr
    inputs = json.dumps({"project": "demo", "user": "carol", "role": "project_viewer"})
    result = json.loads(up("project", "action", "upsert_database_access", stdin=inputs).stdout)
    assert (result["changes"], result["edit"]) == ([], [])
    assert result["lease"]["lease_path"] == "database/creds/proj_demo_anon"


def test_a_command_runs_with_a_lease_that_is_listed_meanwhile_and_gone_after(up: Run) -> None:
    script = "echo $PGSERVICE $SUPABASE_SCHEMA $DATA_PLANE_LEASE_ID; test -f $PGSERVICEFILE -a -f $DATA_PLANE_LEASE_FILE; exit 3"
    done = up("run", "-p", "demo", "--as", "anon", "--", "sh", "-c", script, code=3)
    service, schema, lease_id = done.stdout.split()
    assert (service, schema) == ("demo", "proj_demo")
    assert lease_id not in up("lease", "list", "-p", "demo", "--json").stdout
    kept = json.loads(up("lease", "-p", "demo", "--as", "anon", "-f", "json").stdout)
    listed = json.loads(up("lease", "list", "--json").stdout)
    assert kept["lease_id"] in {item["lease_id"] for item in listed}
    assert "lasts 1h from now" in up("lease", "renew", kept["lease_id"]).stdout
    assert "--for: found 'soon'" in up("lease", "renew", kept["lease_id"], "--for", "soon", code=2).stderr
    up("lease", "revoke", kept["lease_id"])


def test_an_asset_is_written_and_found_up_to_date_until_something_changes(up: Run, tmp_path: Path) -> None:
    options = (
        "project",
        "binding",
        "-p",
        "demo",
        "--form",
        "asset",
        "--as",
        "authenticated",
        "-o",
        str(tmp_path / "asset.json"),
    )
    up(*options)
    asset = json.loads((tmp_path / "asset.json").read_text(encoding="utf-8"))
    assert (asset["schema"], asset["lease"]["leasePath"]) == ("proj_demo", "database/creds/proj_demo_authenticated")
    assert not up(*options, "--check").stdout
    (tmp_path / "asset.json").write_text(json.dumps({**asset, "schema": "public"}, indent=2) + "\n", encoding="utf-8")
    assert '+  "schema": "proj_demo",' in up(*options, "--check", code=1).stdout
    message = "project demo has no workload with approle: add one under `workloads` to its file"
    assert message in " ".join(up("project", "binding", "-p", "demo", "--form", "dokploy", code=1).stderr.split())
