"""The command line without servers: its tree, its help, what it imports, and how it ends."""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from data_plane.cli import console, project_access
from data_plane.cli.lazy import Entry, Group
from data_plane.cli.main import COMMANDS, app
from data_plane.connector.executor import SupabaseExecutor
from data_plane.errors import ConnectorError, RunInterruptedError
from data_plane.state_dir import CHECKOUT

HEAVY = {"cryptography", "grpc", "hvac", "kubernetes", "pglast", "psycopg", "pulumi", "pulumi_kubernetes", "requests"}
IMPORTED = re.compile(r"^import time:.*\| +([\w.]+)$", re.MULTILINE)
GLOBAL = {
    "-h": "--help",
    "-v": "--verbose",
    "-p": "--project",
    "-e": "--environment",
    "-f": "--format",
    "-o": "--output",
}


def entries(tree: Mapping[str, Entry | Group], *path: str) -> Iterator[tuple[tuple[str, ...], Entry]]:
    for name, item in tree.items():
        if isinstance(item, Group):
            yield from entries(item.entries, *path, name)
        else:
            yield (*path, name), item


ENTRIES = dict(entries(COMMANDS))
every_command = pytest.mark.parametrize("path", ENTRIES, ids=" ".join)


def loaded(path: tuple[str, ...]) -> Any:
    command: Any = typer.main.get_command(app)
    for name in path:
        command = command.get_command(typer.Context(command), name)
    return command


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "data_plane", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "COLUMNS": "80", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["lease", "-h"], ["project", "-h"], ["--version"], ["leese"]])
def test_help_imports_no_library_of_the_platform(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "data_plane", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    imported = {name.partition(".")[0] for name in IMPORTED.findall(done.stderr)}
    assert "typer" in imported, "else this shows nothing"
    assert imported & HEAVY == set()


def test_a_project_file_is_checked_without_pulumi() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "data_plane", "check"], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.stdout.endswith("project files are right.\n")
    assert {name.partition(".")[0] for name in IMPORTED.findall(done.stderr)} & HEAVY == set()


@every_command
def test_a_command_s_line_in_a_list_begins_its_own_help(path: tuple[str, ...]) -> None:
    assert " ".join(loaded(path).help.split()).startswith(ENTRIES[path].help.removesuffix(".")), ENTRIES[path]


def test_a_short_option_means_one_thing() -> None:
    meanings: dict[str, set[str]] = defaultdict(set)
    for path in ENTRIES:
        for parameter in loaded(path).params:
            long = [option for option in parameter.opts if option.startswith("--")]
            for option in parameter.opts:
                if len(option) == 2:
                    meanings[option].add(long[0])
    assert {option: {GLOBAL[option]} for option in meanings} == meanings


def test_the_options_of_a_group_are_said_and_completed_as_those_of_its_default() -> None:
    assert "`dataplane lease OPTIONS` is `dataplane lease take OPTIONS`" in run("lease", "-h").stdout
    asked = {"_DATAPLANE_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    options = run(COMP_WORDS="dataplane lease --", **asked).stdout.split()
    assert {"--as", "--project", "--replace"} <= set(options)
    assert run(COMP_WORDS="dataplane lease r", **asked).stdout.split() == ["renew", "revoke", "run"]


@pytest.mark.parametrize("words", ["project drop ", "lease take -p ", "migration up --project ", "project access "])
def test_slugs_are_completed_as_arguments_and_as_options(words: str) -> None:
    count = str(len(words.split()) + 1)
    done = run(_DATAPLANE_COMPLETE="complete_bash", COMP_WORDS=f"dataplane {words}", COMP_CWORD=count)
    assert done.stdout.split() == ["demo", "guestbook"]


@every_command
def test_every_command_takes_the_options_that_all_have(path: tuple[str, ...]) -> None:
    options = {option for parameter in loaded(path).params for option in parameter.opts}
    assert {"-v", "--verbose"} <= options
    assert "--format" not in options or "-f" in options
    assert "--project" not in options or "-p" in options
    assert "--environment" not in options or "-e" in options


@every_command
def test_at_80_columns_help_cuts_no_option_and_no_variable(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command = loaded(path)
    context = typer.Context(command, info_name=" ".join(["dataplane", *path]))
    words = re.split(r"[\s,;\]()]+", command.get_help(context))
    assert [line for line in command.get_help(context).splitlines() if line.endswith(("-", "_"))] == []
    for parameter in command.params:
        expected = [
            *[option for option in parameter.opts if option.startswith("-")],
            getattr(parameter, "envvar", None),
        ]
        assert {word for word in expected if word} <= set(words), parameter.name


@pytest.mark.parametrize(
    ("arguments", "code", "usage"),
    [
        (["--no-such"], 2, "Usage: dataplane [OPTIONS] COMMAND [ARGS]..."),
        (["nothing"], 2, "No such command 'nothing'."),
        (["projet"], 2, "Did you mean 'project'?"),
        (["lease", "take", "--no-such"], 2, "Usage: dataplane lease take [OPTIONS]"),
        (["lease", "--no-such"], 2, "Usage: dataplane lease take [OPTIONS]"),
        (["migrate", "up"], 2, "No such command 'migrate'."),
        (["servers", "stop"], 2, "No such command 'servers'."),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_says_its_usage(arguments: list[str], code: int, usage: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert usage in done.stderr


def test_help_is_asked_for_by_either_option_and_tells_the_exit_codes() -> None:
    short, long = run("-h"), run("--help")
    assert short.stdout == long.stdout
    assert "Usage: dataplane [OPTIONS] COMMAND [ARGS]..." in short.stdout
    assert "127 if there is none" in short.stdout
    assert run("lease", "-h").stdout == run("lease", "--help").stdout


def test_a_shell_s_completion_is_shown_and_names_commands() -> None:
    assert "_DATAPLANE_COMPLETE" in run(
        "--show-completion", SHELL="/bin/bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    ).stdout + (run("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout)
    done = run(
        _DATAPLANE_COMPLETE="complete_bash",
        COMP_WORDS="dataplane pro",
        COMP_CWORD="1",
        _TYPER_COMPLETE_ARGS="dataplane pro",
    )
    assert done.stdout.split() == ["project"]


def test_make_install_puts_the_command_on_path_and_uninstall_takes_it_away(tmp_path: Path) -> None:
    def make(target: str) -> "subprocess.CompletedProcess[str]":
        # What is installed in this checkout is not touched: `-o` takes it for up to date.
        arguments = ["make", "-o", ".venv/.installed", target, f"PREFIX={tmp_path / 'prefix'}"]
        return subprocess.run(arguments, cwd=CHECKOUT, capture_output=True, text=True)

    command = tmp_path / "prefix" / "bin" / "dataplane"
    assert "is not on PATH" in make("install").stdout
    assert make("install").returncode == 0
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["dataplane", "check"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.endswith("project files are right.\n"), done.stderr
    assert make("uninstall").returncode == 0
    assert not command.exists()
    command.write_text("another program\n", encoding="utf-8")
    refused = make("install")
    assert (refused.returncode, "is something else" in refused.stderr) == (2, True)
    assert make("uninstall").returncode == 0
    assert command.read_text(encoding="utf-8") == "another program\n"


def test_a_home_that_is_no_folder_is_one_error_wherever_it_is_met(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments in (["local", "status"], ["local", "start"], ["local", "reset", "--yes"], ["lease", "list"], ["up"]):
        done = run(*arguments, DATA_PLANE_HOME=str(tmp_path / "file"))
        assert done.returncode == 1, arguments
        assert re.match(r"error(\[[\w-]+\])?: \S*/file", done.stderr), done.stderr
        assert "Set DATA_PLANE_HOME to a folder" in done.stderr
        assert done.stderr.count("\n") == 1
        assert "is gone" not in done.stdout


@pytest.mark.parametrize(
    "arguments", [["check"], ["project", "access", "demo", "--json"], ["local", "status", "--json"]]
)
def test_output_that_cannot_be_written_is_one_error(arguments: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "data_plane", *arguments],
            cwd=CHECKOUT,
            env={**os.environ, "DATA_PLANE_HOME": str(tmp_path)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert re.fullmatch(
        r"error(\[[\w-]+\])?: standard output cannot be written: No space left on device\n", done.stderr
    )


def test_verbose_shows_the_cause_of_an_error_and_otherwise_its_message_is_all(tmp_path: Path) -> None:
    (tmp_path / "binding.json").write_text("no JSON", encoding="utf-8")
    arguments = ["lease", "list", "-e", "nowhere"]
    plain = run(*arguments)
    assert (plain.returncode, plain.stderr.count("\n")) == (1, 1)
    for verbose in (run("-v", *arguments), run("lease", "--verbose", "list", "-e", "nowhere"), run(*arguments, "-v")):
        assert verbose.returncode == 1
        assert "Traceback (most recent call last)" in verbose.stderr
        assert verbose.stderr.endswith(plain.stderr)


def test_a_cause_that_was_left_out_of_the_message_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def failing() -> None:
        try:
            json.loads("{")
        except ValueError:
            raise ConnectorError("it is not JSON") from None

    with caplog.at_level("DEBUG", logger="data_plane"), pytest.raises(typer.Exit) as ended, console.messages():
        failing()
    assert ended.value.exit_code == 1
    assert "JSONDecodeError" in caplog.text
    assert "During handling of the above exception" in caplog.text or "direct cause" in caplog.text


def test_an_error_s_stable_code_stands_before_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    class RefusedError(ConnectorError):
        code = "DP-TEST"

    with pytest.raises(typer.Exit), console.messages():
        raise RefusedError("no [red]markup[/] here")
    assert capsys.readouterr().err == "error[DP-TEST]: no [red]markup[/] here\n"


def test_an_interrupted_command_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, console.messages():
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130
    assert "interrupted" in capsys.readouterr().err


def test_an_interrupted_run_ends_with_130_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, console.messages():
        raise RunInterruptedError
    assert ended.value.exit_code == 130
    assert "what had begun was finished" in capsys.readouterr().err


def test_a_table_s_cells_are_whole_however_narrow_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    lease = "database/creds/proj_demo_service_role/" + 24 * "x"
    console.print_table(("lease", "ends in"), [(lease, "3600 s"), ("[bold]é", "")])
    head, first, second = capsys.readouterr().out.splitlines()
    assert first == f"{lease}  3600 s"
    assert head == "lease".ljust(len(lease)) + "  ends in"
    assert second == "[bold]é"


def test_a_reset_without_a_terminal_says_how_to_go_on_and_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    done = run("local", "reset", DATA_PLANE_HOME=str(tmp_path / "home"))
    assert (done.returncode, "--yes" in done.stderr, done.stdout) == (2, True, "")
    assert (tmp_path / "home").is_dir()


class Planned:
    """An executor that answers what an action did, and does nothing."""

    def execute(self, action: str, inputs: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        lease = None if inputs.get("lifecycle") == "detached" else {"levels": ["anon", "owner"]}
        about = {"environment": "prod", "project": inputs["project"], "dry_run": options["dry_run"]}
        return {"edit": [], "summary": ["role"], "changes": ["role"], "unchanged": 2, "lease": lease, **about}


def test_attach_and_detach_name_the_next_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SupabaseExecutor, "for_environment", lambda _environment: Planned())
    attached = CliRunner().invoke(project_access.app, ["attach", "demo", "-e", "prod"]).stdout
    assert "1 resource changed, 2 unchanged\nNext: dataplane lease -p demo -e prod --as LEVEL " in attached
    detached = CliRunner().invoke(project_access.app, ["detach", "demo", "-e", "prod", "--yes"]).stdout
    assert "`dataplane project attach demo -e prod` lets it back in" in detached
    assert "`dataplane project drop demo -e prod` removes it" in detached
    planned = CliRunner().invoke(project_access.app, ["detach", "demo", "--dry-run"]).stdout
    assert planned == "  role\n1 resource would change, 2 unchanged\n"


def test_what_cannot_be_checked_by_itself_is_refused_before_anything_is_done() -> None:
    for arguments, code, message in (
        (["project", "access", "demo", "--role", "maintainer"], 2, "whose access"),
        (["project", "access", "demo", "--user", "a", "--team", "b", "--role", "maintainer"], 2, "either a team"),
        (["project", "access", "demo", "--user", "a"], 2, "either a role"),
        (["project", "access", "demo", "--user", "a", "--role", "maintainer", "--remove"], 2, "either a role"),
        (["project", "access", "nobody"], 1, "no project 'nobody' in stacks/local/projects; there are: demo"),
        (["project", "binding", "-p", "demo"], 1, "no project 'demo' that `dataplane up` has brought up here"),
        (["project", "detach", "demo"], 1, "error"),
        (["run", "-p", "demo", "--as", "anon", "python3", "-c", "1"], 2, "No such option: -c. Put `--` before"),
        (["psql", "-p", "demo", "-c", "select 1"], 2, "No such option: -c. Put `--` before"),
        (["project", "link", "-p", "demoo"], 1, "no project 'demoo' in environment 'local'; there are: demo, guest"),
    ):
        done = run(*arguments, DATA_PLANE_HOME="/nonexistent/home")
        assert done.returncode == code, arguments
        assert message in done.stderr
        assert done.stdout == ""
