"""How the bench of migrations counts, and whose fault it says a failure is."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.migrations.projects import projects
from bench.migrations.report import compact, fault, tables
from bench.migrations.trial import Trial, counted
from data_plane.connector.migrations import MigrationFile, Rule
from data_plane.connector.migrations.prepared import prepared
from data_plane.connector.migrations.scope import Scope
from data_plane.model.naming import TenantNames


def trial_of(*texts: str, **how: Any) -> Trial:
    trial = Trial(len(texts))
    scope = Scope(TenantNames("shop"))
    files = [MigrationFile(Path(f"{at}_x.sql"), text, str(at), "x") for at, text in enumerate(texts)]
    counted(trial, [prepared(file, scope, **how) for file in files])
    return trial


def test_a_statement_is_refused_by_a_finding_on_any_of_its_lines() -> None:
    trial = trial_of(
        "create table a (id int);\nselect\n  1,\n  vault.x()\n;\nselect 2;\n",
        "create table b (id int);\n",
    )
    assert (trial.files, trial.files_free) == (2, 1)
    assert (trial.statements, trial.statements_free) == (4, 3)
    assert trial.refused == Counter({"extensions: vault.x": 1})


def test_what_is_left_out_is_not_refused() -> None:
    trial = trial_of("select vault.x();", leave_out=frozenset({Rule.EXTENSIONS}))
    assert (trial.files_free, trial.statements_free, trial.refused) == (1, 1, Counter())


def test_a_file_as_it_is_names_public() -> None:
    text = "create table public.a (id int);"
    assert (trial_of(text, rewrite=False).files_free, trial_of(text).files_free) == (0, 1)


def entry(error: str | None, refused: dict[str, int], theirs: str | None) -> dict[str, Any]:
    trial = {"files": 2, "files_free": 1, "statements": 5, "statements_free": 4, "whole": error is None}
    return {
        "name": "owner/name",
        "sample": "first",
        "theirs": theirs,
        **dict.fromkeys(("as_is", "adapted", "left_out"), trial | {"refused": refused, "error": error}),
    }


@pytest.mark.parametrize(
    ("found", "whose"),
    [
        (entry(None, {}, None), "none"),
        (entry(None, {}, "1_x.sql:1: no such table"), "none"),
        (entry("1_x.sql:1: no such table", {}, "1_x.sql:1: no such table"), "theirs"),
        (entry("nothing was run:\n  …", {"auth: auth.users": 3}, None), "decided"),
        (entry("1_x.sql:1: no such table", {}, None), "ours"),
    ],
)
def test_a_failure_has_somebody_whose_fault_it_is(found: dict[str, Any], whose: str) -> None:
    assert fault(found) == whose
    assert fault(compact(found)) == whose


def test_what_is_kept_names_nothing_of_a_projects_files() -> None:
    kept = compact(entry("nothing was run:\n  auth: x\n    1_x.sql:1 secret_table", {"auth: secret_table": 3}, None))
    assert kept["adapted"]["refused"] == {"auth": 3}
    assert "secret_table" not in str(kept)


def test_the_tables_count_out_whose_own_files_are_wrong() -> None:
    entries = {"a": entry(None, {}, None), "b": entry("x", {}, "x"), "c": entry("y", {"auth: z": 1}, None)}
    before = {key: compact(value) for key, value in entries.items()}
    text = tables({"before": before, "after": before})
    assert "**1 of the 2 whose own files are right** run whole" in text
    assert "| adapted | before | 1 | 3 (50%) | 12 (80%) |" in text
    assert "| owner/name | 2 | auth (1) | decided |" in text


def test_every_project_is_named_once_by_a_commit() -> None:
    found = projects()
    assert len({(one.repository, one.folder) for one in found}) == len(found)
    assert all(len(one.commit) == 40 and one.folder.endswith("migrations") for one in found)
    assert Counter(one.sample for one in found) == {"first": 30, "second": 25}
