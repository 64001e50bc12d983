"""The file that remembers a project, as the repository's owner writes it and as somebody else might."""

import os
from pathlib import Path

import pytest

from data_plane.connector.project_link import LINK_FILE, find_link, write_link
from data_plane.errors import ConnectorError


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Of the program: it knows the environments `local` and `prod`."""
    for environment in ("local", "prod"):
        (tmp_path / "program" / "stacks" / environment / "projects").mkdir(parents=True)
    return tmp_path / "program"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    (tmp_path / "repository" / "apps" / "shop").mkdir(parents=True)
    return tmp_path / "repository"


def test_what_is_written_is_found_from_everywhere_in_the_repository(
    repository: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_link(repository / "apps", "my-app", "prod", root=checkout)
    assert (repository / LINK_FILE).is_file()
    monkeypatch.chdir(repository / "apps" / "shop")
    link = find_link(Path.cwd(), checkout)
    assert link is not None
    assert (link.project, link.environment, link.supabase) == ("my-app", "prod", Path("../../supabase"))


def test_a_folder_beside_the_command_comes_before_the_repositorys(repository: Path, checkout: Path) -> None:
    (repository / "apps" / "shop" / "supabase").mkdir()
    assert write_link(repository / "apps" / "shop", "a1", "local", root=checkout).folder == Path("apps/shop/supabase")
    again = write_link(repository / "apps" / "shop", "a1", "local", Path("../db"), root=checkout)
    assert again.folder == Path("apps/db")


def test_the_nearest_file_counts(repository: Path, checkout: Path) -> None:
    write_link(repository, "whole", "local", root=checkout)
    (repository / "apps" / LINK_FILE).write_text('project = "part"\n')
    for folder, project in ((repository, "whole"), (repository / "apps" / "shop", "part")):
        link = find_link(folder, checkout)
        assert link is not None
        assert link.project == project


def test_no_file_above_the_repository_counts(repository: Path, checkout: Path) -> None:
    (repository.parent / LINK_FILE).write_text('project = "other"\n')
    assert find_link(repository / "apps", checkout) is None


def test_without_a_repository_the_folder_itself_counts_alone(tmp_path: Path, checkout: Path) -> None:
    below = tmp_path / "plain" / "below"
    below.mkdir(parents=True)
    (tmp_path / "plain" / LINK_FILE).write_text('project = "my-app"\n')
    assert find_link(below, checkout) is None
    assert find_link(tmp_path / "plain", checkout) is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("project = 'a'\n", r"project: found 'a'; expected a project's slug"),
        ("project = 'my-app\\u001b[31m'\n", r"project: found"),
        ("environment = 'prod'\n", r"project: found None"),
        ("project = 'my-app'\nenvironment = 'staging'\n", r"environment: found 'staging'; expected one of local, prod"),
        ("project = 'my-app'\nenvironment = '../prod'\n", r"environment: found '\.\./prod'"),
        ("project = 'my-app'\nfolder = '../other'\n", r"folder: found '\.\./other'; expected a folder within"),
        ("project = 'my-app'\nfolder = '/etc'\n", r"folder: found '/etc'"),
        ("project = 'my-app'\nfolder = 'a\\u0000b'\n", r"folder: found"),
        ("project = 'my-app'\nfolder = 'away'\n", r"folder: found 'away'"),
        ("project = 'my-app'\nfolder = 3\n", r"folder: found 3"),
        ("project = 'my-app'\nbinding = 'b.json'\n", r"found 'binding'; expected project, environment, folder alone"),
        ("project = my-app\n", "is not TOML"),
        ("# " + "x" * 5000, "longer than 4096 bytes"),
    ],
)
def test_what_a_file_may_not_say_is_refused_by_name(repository: Path, checkout: Path, text: str, message: str) -> None:
    (repository / "away").symlink_to(repository.parent)
    # A literal string has no escapes.
    (repository / LINK_FILE).write_text(text.replace("'", '"'))
    with pytest.raises(ConnectorError, match=message) as caught:
        find_link(repository, checkout)
    assert str(repository / LINK_FILE) in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_file_is_refused_and_not_waited_for(repository: Path, checkout: Path, kind: str) -> None:
    path = repository / LINK_FILE
    if kind == "link":
        (repository.parent / "elsewhere").write_text('project = "my-app"\n')
        path.symlink_to(repository.parent / "elsewhere")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(ConnectorError, match="is not a regular file"):
        find_link(repository, checkout)
    with pytest.raises(ConnectorError, match="is not a regular file: remove it"):
        write_link(repository, "my-app", "local", root=checkout)


def test_another_users_file_is_not_gone_by(repository: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that everybody may write to, such as /tmp."""
    (repository / LINK_FILE).write_text('project = "my-app"\n')
    monkeypatch.setattr(os, "geteuid", lambda: (repository / LINK_FILE).stat().st_uid + 1)
    if (repository / LINK_FILE).stat().st_uid == 0:
        os.chown(repository / LINK_FILE, 12345, -1)
    with pytest.raises(ConnectorError, match="belongs to another user"):
        find_link(repository, checkout)


def test_what_would_not_be_read_back_is_not_written(repository: Path, checkout: Path) -> None:
    for project, environment, folder in (
        ("A", "local", None),
        ("my-app", "no", None),
        ("my-app", "local", Path("/etc")),
    ):
        with pytest.raises(ConnectorError, match="expected"):
            write_link(repository, project, environment, folder, checkout)
    assert not (repository / LINK_FILE).exists()
