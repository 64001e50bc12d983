"""`dataplane migration` and `dataplane project link` as they are typed, on a data plane that is up."""

import json
import os
import pty
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_plane.connector.audit import LOG_VARIABLE
from data_plane.connector.project_link import LINK_FILE
from data_plane.state_dir import CHECKOUT
from tests.conftest import NewPlane, Plane

SHOP = "slug: my-shop\ndisplay_name: My shop\ncell: cell-1\nowners: [olga]\nmanaged_services: [postgres, auth]\n"
RIVAL = "slug: rival\ndisplay_name: Rival\ncell: cell-1\nowners: [rita]\n"
SCHEMA = "proj_my_shop"
WITHOUT_DIGITS = "add_shelves.sql"


@pytest.fixture(scope="module")
def plane(new_plane: NewPlane) -> Plane:
    return new_plane({"my-shop.yaml": SHOP, "rival.yaml": RIVAL})


class Repository:
    """A repository of my-shop's, and the command called in it."""

    def __init__(self, plane: Plane, folder: Path) -> None:
        self.plane = plane
        self.folder = folder
        self.migrations = folder / "supabase" / "migrations"
        self.log = folder.parent / "audit.jsonl"
        (folder / ".git").mkdir(parents=True)
        self.migrations.mkdir(parents=True)

    @property
    def environment(self) -> dict[str, str]:
        home = self.plane.local_env.servers.home.path
        kept = {name: value for name, value in os.environ.items() if name != "VAULT_TOKEN"}
        ours = {"DATA_PLANE_HOME": str(home), "DATA_PLANE_ENGINE": "local", "COLUMNS": "200"}
        return {**kept, **ours, LOG_VARIABLE: str(self.log)}

    def command(self, *arguments: str) -> list[str]:
        """The checkout has no file of the project's, so that it has to be said who asks."""
        signs_in = arguments[0] in {"migration", "lease"} and arguments[:2] not in {
            ("migration", "new"),
            ("lease", "list"),
        }
        return [str(CHECKOUT / "dataplane"), *arguments, *(["--user", "olga"] if signs_in else [])]

    def __call__(
        self, *arguments: str, code: int = 0, folder: str = ".", text: str | None = None, **how: Any
    ) -> "subprocess.CompletedProcess[str]":
        source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if text is None else {"input": text}
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder / folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            **{**source, **how},
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def write(self, name: str, text: str) -> None:
        (self.folder / "supabase" / name).write_text(text, encoding="utf-8")

    def tables(self) -> list[str]:
        found = self.plane.rows("select tablename::text from pg_tables where schemaname = %s order by 1", SCHEMA)
        return [name for (name,) in found]


@pytest.fixture
def repository(plane: Plane, tmp_path: Path) -> Iterator[Repository]:
    made = Repository(plane, tmp_path / "repository")
    yield made
    shutil.rmtree(made.migrations)
    made.migrations.mkdir()
    made("migration", "reset", "-p", "my-shop", "--yes", "--no-seed")


def test_files_without_digits_are_named_and_a_run_of_nothing_else_fails(repository: Repository) -> None:
    repository.write(f"migrations/{WITHOUT_DIGITS}", "create table shelves (a int);")
    for command in (["up"], ["up", "--dry-run"], ["status"], ["baseline", "1"]):
        done = repository("migration", *command, "-p", "my-shop", code=1)
        assert f"passed over: supabase/migrations/{WITHOUT_DIGITS}" in done.stderr
        assert (
            "error[migration-failed]: no file directly in supabase/migrations is named like a migration" in done.stderr
        )
    repository.write("migrations/1_a.sql", "create table t (a int);")
    done = repository("migration", "up", "-p", "my-shop")
    assert f"passed over: supabase/migrations/{WITHOUT_DIGITS}" in done.stderr
    assert repository.tables() == ["t"]


def test_a_file_without_a_statement_is_noted_and_named(repository: Repository) -> None:
    repository("migration", "new", "later", text="")
    (file,) = repository.migrations.iterdir()
    file.write_text("-- to be written\n", encoding="utf-8")
    done = repository("migration", "up", "-p", "my-shop")
    assert f"{file.name} holds no statement yet; what is added later is not run" in done.stderr
    assert "1 migration applied" in done.stdout


def test_a_linked_repository_needs_no_project_and_says_where_it_was_taken_from(repository: Repository) -> None:
    missing = repository("migration", "up", code=2)
    assert "dataplane project link -p SLUG" in missing.stderr
    unknown = repository("project", "link", "-p", "my-shopp", code=1)
    assert (
        "there is no project 'my-shopp' in environment 'local'; there are: demo, guestbook, my-shop" in unknown.stderr
    )
    assert not (repository.folder / LINK_FILE).exists()
    repository("project", "link", "-p", "my-shop")
    (repository.folder / "apps").mkdir()
    made = repository("migration", "new", "add shelves", folder="apps", text="create table shelves (a int);\n")
    assert made.stdout.startswith("../supabase/migrations/2")
    assert made.stdout.endswith("_add_shelves.sql\n")
    done = repository("migration", "up", folder="apps")
    assert f"project my-shop (local), from {repository.folder / LINK_FILE}" in done.stderr
    assert repository.tables() == ["shelves"]
    for command in (
        ["project", "status"],
        ["lease", "list"],
        ["lease", "--as", "owner"],
        ["project", "binding", "--form", "asset", "--as", "anon"],
    ):
        done = repository(*command)
        assert done.stderr.startswith("project my-shop (local), from ")
        assert "rival" not in done.stdout
    assert "rival" in repository("project", "status", "--all").stdout
    repository("project", "status", "--all", "-p", "my-shop", code=2)


def test_what_is_given_comes_before_what_is_remembered(repository: Repository) -> None:
    repository("project", "link", "-p", "my-shop", "-e", "local", "--folder", "nowhere")
    repository.write("migrations/1_a.sql", "create table t (a int);")
    assert "there is no folder nowhere/migrations" in repository("migration", "up", code=1).stderr
    assert "from" not in repository("migration", "status", "-p", "my-shop").stderr
    assert "1 migration applied" in repository("migration", "up", "--folder", "supabase").stdout
    elsewhere = repository("migration", "status", "-e", "prod", "--folder", "supabase", code=2)
    assert "--user is for the local data plane" in elsewhere.stderr


def test_a_file_of_a_hostile_checkout_names_a_project_and_nothing_else(repository: Repository) -> None:
    repository.write("migrations/1_a.sql", "create table t (a int);")
    for line in ('binding = "supabase/binding.json"', 'token_file = "/etc/passwd"', 'environment = "nowhere"'):
        (repository.folder / LINK_FILE).write_text(f'project = "my-shop"\n{line}\n', encoding="utf-8")
        done = repository("migration", "up", code=1)
        assert f"error[project-link]: {repository.folder / LINK_FILE}: " in done.stderr
    (repository.folder / LINK_FILE).write_text('project = "my-shop"\n', encoding="utf-8")
    done = repository("migration", "reset", "--yes", code=2)
    assert f"--yes drops what {repository.folder / LINK_FILE} names without a question" in done.stderr
    assert repository.tables() == []


def test_new_takes_what_is_piped_and_nothing_from_elsewhere(repository: Repository) -> None:
    repository("migration", "new", "empty")
    repository("migration", "new", "piped", text="select 1;\n")
    with (repository.folder / "dump.sql").open("w+") as dump:
        dump.write("select 2;\n")
        dump.flush()
        dump.seek(0)
        repository("migration", "new", "read", stdin=dump)
    found = {path.name.partition("_")[2]: path.read_text() for path in repository.migrations.iterdir()}
    assert found == {"empty.sql": "", "piped.sql": "select 1;\n", "read.sql": "select 2;\n"}
    assert "expected letters, digits" in repository("migration", "new", "../../escape", code=1).stderr
    repository.write("migrations/9_last.sql", "")
    assert "9_last.sql comes after it by name" in repository("migration", "new", "late").stderr


def test_seeds_are_run_once_however_often_they_are_asked_for(repository: Repository) -> None:
    repository.write("migrations/1_a.sql", "create table t (a int);")
    repository.write("seed.sql", "insert into t values (1);")
    assert (
        "then seed.sql would be run"
        in repository("migration", "up", "-p", "my-shop", "--include-seed", "--dry-run").stdout
    )
    for expected in ("1 seed file run in proj_my_shop; 0 were before", "0 seed files run in proj_my_shop; 1 were"):
        assert expected in repository("migration", "up", "-p", "my-shop", "--include-seed").stdout
    assert repository.plane.rows(f"select a from {SCHEMA}.t") == [(1,)]
    repository.write("seed.sql", "insert into t values (2);")
    assert (
        "seed.sql: changed since it was run, and not run again"
        in repository("migration", "seed", "-p", "my-shop").stderr
    )
    repository("migration", "seed", "-p", "my-shop", "--again")
    assert repository.plane.rows(f"select a from {SCHEMA}.t order by 1") == [(1,), (2,)]


def answering(repository: Repository, response: str, *arguments: str) -> int:
    """The exit code of a command at a terminal."""
    ours, its = pty.openpty()
    try:
        with subprocess.Popen(
            repository.command(*arguments),
            cwd=repository.folder,
            env=repository.environment,
            stdin=its,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as running:
            os.write(ours, response.encode())
            return running.wait(120)
    finally:
        os.close(ours)
        os.close(its)


def test_reset_asks_and_runs_everything_from_nothing(repository: Repository) -> None:
    repository.write("migrations/1_a.sql", "create table t (a int);")
    repository.write("seed.sql", "insert into t values (1);")
    repository("migration", "up", "-p", "my-shop", "--include-seed")
    with repository.plane.admin() as admin:
        admin.execute(
            f"set role {SCHEMA}_owner; insert into {SCHEMA}.t values (2); create table {SCHEMA}.by_hand ()".encode()
        )
    assert "--yes says so beforehand" in repository("migration", "reset", "-p", "my-shop", code=2).stderr
    assert answering(repository, "n\n", "migration", "reset", "-p", "my-shop") == 1
    repository.write("migrations/2_b.sql", "select * from pg_authid;\ncreate publication p;")
    assert "nothing was run" in repository("migration", "reset", "-p", "my-shop", "--yes", code=1).stderr
    assert repository.tables() == ["by_hand", "t"], "neither without an answer, nor with `no`, nor with files as these"

    repository.write("migrations/2_b.sql", "create table u (a int);")
    repository("project", "link", "-p", "my-shop")
    assert answering(repository, "y\n", "migration", "reset") == 0
    assert repository.tables() == ["t", "u"]
    assert repository.plane.rows(f"select a from {SCHEMA}.t") == [(1,)]
    ended = [entry for line in repository.log.read_text().splitlines() if (entry := json.loads(line))["event"] == "end"]
    assert (ended[-1]["action"], ended[-1]["outcome"], ended[-1]["applied"]) == ("migrate_reset", "done", ["1", "2"])


def test_reset_leaves_other_projects_and_users_alone(repository: Repository) -> None:
    with repository.plane.admin() as admin:
        admin.execute("create table if not exists proj_rival.kept (a int)")
        admin.execute(f'insert into "{SCHEMA}$auth".users (id) values (gen_random_uuid())'.encode())
    repository.write(
        "migrations/1_a.sql",
        "create table profiles (id uuid references auth.users on delete cascade);\n"
        "create function greet() returns trigger language plpgsql as 'begin return new; end';\n"
        "create trigger greeted after insert on auth.users for each row execute function greet();\n",
    )
    repository("migration", "up", "-p", "my-shop")
    repository.write("migrations/1_a.sql", "create table other (a int);")
    repository("migration", "reset", "-p", "my-shop", "--yes")
    assert repository.tables() == ["other"]
    users = f"'\"{SCHEMA}$auth\".users'::regclass"
    assert repository.plane.rows(f"select from pg_trigger where tgrelid = {users} and not tgisinternal") == []
    assert len(repository.plane.rows(f'select from "{SCHEMA}$auth".users')) == 1
    assert repository.plane.rows("select from pg_tables where (schemaname, tablename) = ('proj_rival', 'kept')") == [()]


def test_reset_drops_nothing_outside_of_the_project(repository: Repository) -> None:
    repository.write("migrations/1_a.sql", "create table t (a int);\ncreate type mood as enum ('a');\n")
    repository("migration", "up", "-p", "my-shop")
    for made, message, dropped in (
        (
            "create view public.report as select a from proj_my_shop.t",
            "rule _RETURN on view public.report",
            "view public.report",
        ),
        ("create table public.moods (m proj_my_shop.mood)", "table public.moods", "table public.moods"),
    ):
        with repository.plane.admin() as admin:
            admin.execute(made.encode())
        try:
            done = repository("migration", "reset", "-p", "my-shop", "--yes", code=1)
        finally:
            with repository.plane.admin() as admin:
                admin.execute(f"drop {dropped}".encode())
        assert "objects outside of the project depend on it and would be dropped, too: " in done.stderr
        assert message in done.stderr
        assert repository.tables() == ["t"]


def test_diff_says_what_was_made_by_hand_and_writes_it_as_a_migration(repository: Repository) -> None:
    repository.write(
        "migrations/1_a.sql",
        "create table public.t (a int primary key, u uuid references auth.users);\n"
        "alter table public.t enable row level security;\n"
        "create policy own on public.t to authenticated using (u = auth.uid());\n"
        "create function public.f() returns int language sql stable as 'select a from public.t';\n"
        "create schema private;\ncreate table private.p (a int);\ncreate view public.v as select a from public.t;\n",
    )
    repository.write("migrations/2_b.sql", "create table pending (a int);")
    repository("migration", "baseline", "1", "-p", "my-shop")
    repository("migration", "repair", "--reverted", "1", "-p", "my-shop")
    repository.migrations.joinpath("2_b.sql").rename(repository.folder / "2_b.sql")
    repository("migration", "up", "-p", "my-shop")
    (repository.folder / "2_b.sql").rename(repository.migrations / "2_b.sql")
    same = repository("migration", "diff", "-p", "my-shop")
    assert (same.stdout, "not applied yet, so left out: 2_b.sql" in same.stderr) == ("", True)
    assert "the schema is what its applied files make" in same.stderr

    with repository.plane.admin() as admin:
        admin.execute(f"set role {SCHEMA}_owner".encode())
        admin.execute(f"alter table {SCHEMA}.t add column by_hand text; drop policy own on {SCHEMA}.t".encode())
    shown = repository("migration", "diff", "-p", "my-shop")
    assert shown.stdout == ("drop policy own on public.t;\n\nalter table public.t add column by_hand text;\n")
    made = repository("migration", "diff", "-p", "my-shop", "--file", "by_hand")
    (path,) = repository.migrations.glob("*_by_hand.sql")
    assert made.stdout.strip() == str(path.relative_to(repository.folder))
    assert path.read_text() == shown.stdout
    version = path.name.partition("_")[0]
    assert f"dataplane migration repair --applied {version}" in made.stderr
    repository("migration", "repair", "--applied", version, "-p", "my-shop")
    assert repository("migration", "diff", "-p", "my-shop").stdout == ""
