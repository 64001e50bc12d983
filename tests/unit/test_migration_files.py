from pathlib import Path

import pytest

from data_plane.connector.migrations import migration_files, seed_files
from data_plane.connector.migrations.files import ScriptFile
from data_plane.connector.migrations.prepared import prepared
from data_plane.connector.migrations.scope import Scope
from data_plane.connector.migrations.script import statements_of
from data_plane.errors import MigrationError
from data_plane.model.naming import TenantNames

SCOPE = Scope(TenantNames("shop"))


def folder(tmp_path: Path, **files: str | bytes) -> Path:
    migrations = tmp_path / "supabase" / "migrations"
    migrations.mkdir(parents=True)
    for name, text in files.items():
        path = migrations / f"{name}.sql"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return migrations.parent


def script(text: str) -> ScriptFile:
    return ScriptFile(Path("m.sql"), text)


def test_files_come_in_the_order_of_their_names_as_text(tmp_path: Path) -> None:
    found = migration_files(
        folder(tmp_path, **{"20240101000000_b": "", "0002_z": "", "10_a": "", "20231231235959_c": ""})
    )
    assert [file.version for file in found] == ["0002", "10", "20231231235959", "20240101000000"]
    assert [file.name for file in found] == ["z", "a", "c", "b"]


def test_sql_under_another_name_is_passed_over_and_told(tmp_path: Path) -> None:
    supabase = folder(tmp_path, **{"1_a": "", "notes": "not sql", "a_1": ""})
    (supabase / "migrations" / "2_folder.sql").mkdir()
    (supabase / "migrations" / "2_folder.sql" / "4_below.sql").touch()
    (supabase / "migrations" / "3_text.txt").write_text("no")
    told: list[Path] = []
    assert [file.path.name for file in migration_files(supabase, told.append)] == ["1_a.sql"]
    assert [path.name for path in told] == ["4_below.sql", "a_1.sql", "notes.sql"]


def test_a_folder_of_which_all_was_passed_over_is_refused(tmp_path: Path) -> None:
    supabase = folder(tmp_path, **dict.fromkeys(("add_shelves", "b", "c", "d"), ""))
    with pytest.raises(
        MigrationError,
        match=r"named like a migration, <digits>_<name>\.sql: add_shelves\.sql, b\.sql, c\.sql and 1 more",
    ):
        migration_files(supabase)


def test_a_folder_without_sql_has_no_migrations(tmp_path: Path) -> None:
    assert migration_files(folder(tmp_path)) == []


def test_two_files_of_one_version_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match=r"1_b\.sql and 1_a\.sql have one version, 1: give one of them another"):
        migration_files(folder(tmp_path, **{"1_a": "", "1_b": ""}))


def test_a_missing_folder_says_how_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="say where `supabase/` is with --folder"):
        migration_files(tmp_path)


def test_a_file_that_is_not_utf_8_names_the_byte(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match=r"1_a\.sql is not UTF-8 \(byte 8\)"):
        migration_files(folder(tmp_path, **{"1_a": b"select '\xff'"}))


def test_a_byte_order_mark_and_line_endings_change_nothing(tmp_path: Path) -> None:
    supabase = folder(tmp_path, **{"1_a": b"select 1;\nselect 2;\n", "2_a": b"\xef\xbb\xbfselect 1;\r\nselect 2;\r\n"})
    plain, marked = migration_files(supabase)
    assert plain.checksum == marked.checksum
    assert [statement.text for statement in statements_of(marked)] == ["select 1", "select 2"]


def test_seeds_are_what_the_configuration_names(tmp_path: Path) -> None:
    supabase = folder(tmp_path)
    for name in ("seed.sql", "seeds/b.sql", "seeds/a.sql", "seeds/a.txt"):
        (supabase / name).parent.mkdir(exist_ok=True)
        (supabase / name).write_text("select 1")
    assert [file.path.name for file in seed_files(supabase)] == ["seed.sql"]
    chosen = seed_files(supabase, ["./seeds/*.sql", "seed.sql", "./seeds/a.sql"])
    assert [file.path.name for file in chosen] == ["a.sql", "b.sql", "seed.sql"]
    with pytest.raises(MigrationError, match="outside of"):
        seed_files(supabase, ["../elsewhere.sql"])


def test_each_statement_knows_its_line() -> None:
    found = statements_of(
        script(
            "-- é\n\nselect 1; /* ; */ select\n 2;\ncreate function f() returns int language sql as $$\nselect 3; $$;\n"
        )
    )
    assert [(statement.line, statement.text.split()[0]) for statement in found] == [
        (3, "select"),
        (3, "select"),
        (5, "create"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("select 1;\nselekt 2;", r'm\.sql:2: syntax error at or near "selekt"'),
        ("\\connect abc\nselect 1;", r"m\.sql:1: commands of psql \(\\…\) are not SQL"),
        ("copy t from stdin;\n1\n\\.\n", r"m\.sql: rows of COPY … FROM stdin are not SQL: dump them as INSERTs"),
    ],
)
def test_what_is_not_sql_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(MigrationError, match=message):
        statements_of(script(text))


def test_a_transaction_of_the_files_own_is_the_files() -> None:
    item = prepared(script("begin;\ncreate table t ();\nsavepoint s;\nrollback to s;\ncommit;"), SCOPE)
    assert [statement.text for statement in item.to_run] == ["create table t ()", "savepoint s", "rollback to s"]
    assert item.in_transaction


def test_a_rollback_is_refused() -> None:
    with pytest.raises(MigrationError, match=r"m\.sql:2: rollback: the file is one transaction"):
        prepared(script("create table t ();\nrollback;"), SCOPE)


ADDED = "alter type mood add value 'calm'"


def test_a_file_that_adds_a_value_to_a_type_keeps_its_commits() -> None:
    item = prepared(script(f"begin;\n{ADDED};\ncommit;\nselect 1;\nbegin;\nselect 2;\ncommit;\nselect 3;"), SCOPE)
    assert (item.in_transaction, item.keeps_commits) == (False, True)
    together = [[statement.text for statement in part] for part in item.transactions]
    assert together == [[ADDED], ["select 1", "select 2"], ["select 3"]]


@pytest.mark.parametrize(
    "text",
    [
        f"begin;\n{ADDED};\nselect 1;\ncommit;",
        f"begin;\nselect 1;\ncommit;\nbegin;\n{ADDED};\ncommit;",
        "begin;\nselect 1;\ncommit;\nbegin;\nselect 2;\ncommit;",
        "begin;\nalter type mood rename value 'calm' to 'quiet';\ncommit;\nselect 2;",
        f"{ADDED};\nselect 1;",
    ],
)
def test_any_other_file_stays_one_transaction(text: str) -> None:
    item = prepared(script(text), SCOPE)
    assert (item.in_transaction, item.keeps_commits) == (True, False)
    assert list(item.transactions) == [item.to_run]


CONCURRENTLY = "create index concurrently if not exists i on t (a)"


def test_a_file_that_is_one_concurrent_index_is_no_transaction() -> None:
    assert not prepared(script(f"-- alone\n{CONCURRENTLY};"), SCOPE).in_transaction


@pytest.mark.parametrize(
    "statement", [CONCURRENTLY, "drop index concurrently i", "reindex (concurrently) table t", "vacuum t"]
)
def test_among_others_it_needs_the_line_that_says_so(statement: str) -> None:
    with pytest.raises(MigrationError, match=r"m\.sql:2: .*\n  -- dataplane: no-transaction\n"):
        prepared(script(f"create table t (a int);\n{statement};"), SCOPE)
    item = prepared(script(f"-- why\n-- dataplane: no-transaction\ncreate table t (a int);\n{statement};"), SCOPE)
    assert not item.in_transaction


def test_the_line_counts_only_before_the_first_statement() -> None:
    assert prepared(script("select 1;\n-- dataplane: no-transaction\n"), SCOPE).in_transaction


def test_the_lines_that_pg_dump_writes_for_psql_alone_are_passed_over() -> None:
    (statement,) = statements_of(script("\\restrict abcDEF\n\nselect 1;\n\\unrestrict abcDEF\n"))
    assert (statement.text, statement.line) == ("select 1", 3)
