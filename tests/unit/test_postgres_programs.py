"""Which PostgreSQL the local server is made with."""

from pathlib import Path

import pytest

from data_plane.errors import ServerError
from data_plane.local import postgres_programs
from data_plane.local.postgres_programs import find_programs


def installation(folder: Path, major: int, *extensions: str, configured: bool = True) -> Path:
    """The folder of programs of a made-up PostgreSQL."""
    programs, files = folder / str(major) / "bin", folder / str(major) / "share"
    programs.mkdir(parents=True)
    (files / "extension").mkdir(parents=True)
    for name in extensions:
        (files / "extension" / f"{name}.control").touch()
    for name, response in {
        "initdb": "",
        "postgres": f"postgres (PostgreSQL) {major}.4",
        **({"pg_config": str(files)} if configured else {}),
    }.items():
        (programs / name).write_text(f"#!/bin/sh\necho '{response}'\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    return programs


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The installations that are looked at."""
    folders: list[Path] = []
    monkeypatch.delenv("DATA_PLANE_POSTGRES_BIN", raising=False)
    monkeypatch.setattr(postgres_programs, "_folders", lambda: iter(folders))
    return folders


def test_the_one_with_most_of_the_usual_extensions_is_taken(present: list[Path], tmp_path: Path) -> None:
    present += [
        installation(tmp_path, 18, "vector"),
        installation(tmp_path, 15, "pgcrypto", "uuid-ossp"),
        installation(tmp_path, 17, "adminpack", "dblink", "plpgsql"),
    ]
    found = find_programs()
    assert (found.folder, found.major) == (present[1], 15)
    assert found.usual_extensions == ("pgcrypto", "uuid-ossp")


def test_among_equals_the_newest_is_taken(present: list[Path], tmp_path: Path) -> None:
    present += [installation(tmp_path, major, "citext") for major in (16, 18, 17)]
    assert find_programs().major == 18


def test_data_keeps_to_the_version_that_made_it(present: list[Path], tmp_path: Path) -> None:
    present += [installation(tmp_path, 18), installation(tmp_path, 15, "citext")]
    assert find_programs(18).major == 18
    assert find_programs(16).major == 15, "the server says then which version the data is of"


def test_what_is_older_than_supabases_images_is_passed_over(present: list[Path], tmp_path: Path) -> None:
    present += [installation(tmp_path, 14, "citext", "hstore"), tmp_path / "no" / "bin"]
    with pytest.raises(ServerError, match="no PostgreSQL found"):
        find_programs()


def test_an_installation_that_tells_nothing_of_itself_is_taken_if_it_is_the_only_one(
    present: list[Path], tmp_path: Path
) -> None:
    present += [installation(tmp_path, 17, "citext", configured=False)]
    found = find_programs()
    assert (found.major, found.usual_extensions, found.has_library("pg_cron")) == (17, (), False)


def test_a_folder_that_is_named_is_taken_as_it_is(
    present: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    present += [installation(tmp_path, 15, "citext")]
    named = installation(tmp_path, 17)
    monkeypatch.setenv("DATA_PLANE_POSTGRES_BIN", str(named))
    assert find_programs().folder == named
    monkeypatch.setenv("DATA_PLANE_POSTGRES_BIN", str(tmp_path))
    with pytest.raises(ServerError, match="has no initdb"):
        find_programs()
