"""Programs and commands of a shell: which start a PostgreSQL, install one, or have one made."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from itertools import pairwise

from policies.charts import chart_reasons, with_settings
from policies.images import classify
from policies.tables import table

__all__ = ["Allowed", "Run", "commands_in", "container_run", "programs_started", "statements_made"]

Allowed = Callable[[str], bool]
"""Whether an image may run although its name says that it is a server."""

_SEPARATORS = re.compile(r"[\n;|&()`]+")
_AROUND = "\"'[],{}"
_ENGINES = frozenset({"docker", "podman", "nerdctl", "finch", "buildah", "ctr", "crictl"})
_OTHER_OBJECTS = frozenset({"volume", "network", "secret", "config", "context", "buildx"})
_RUNS = frozenset({"run", "create", "from"})
_PACKAGE = re.compile(
    r"@?(?:(?:nixpkgs|nixos|pkgs|dev-db|databases|postgresql|timescaledb-2)[.#/-])?"
    r"(?:postgresql|postgres|postgis|timescaledb|cockroachdb?|edb-as|postgresml)"
    r"(?:[-@_:.]?\d[\w.]*)?(?:[-@_:.]?(?:\$\{[^}]*\}?|\$\w+))?"
    r"(?P<server>(?:[-/]server)?)(?:-contrib|-postgis\S*|-pgvector|-timescaledb\S*|-full)?(?:[:=~<>].*)?"
)
_ADDRESS = re.compile(r"^(?:https?://|git@|oci://|git::|github\.com/)", re.IGNORECASE)
_ROLE = re.compile(r"\b(?:create|alter)\s+(?:role|user)\b", re.IGNORECASE)
_SUPERUSER = re.compile(r"\b(?:superuser|createdb)\b(?![./\w-])", re.IGNORECASE)
_OTHER_SERVER = re.compile(r"\b(?:mysql|mariadb|sqlcmd|clickhouse-client|sqlplus|disql)\b", re.IGNORECASE)
_DATABASE = re.compile(r"\bcreate\s+database\b", re.IGNORECASE)


@dataclass(frozen=True)
class _Rule:
    words: Sequence[Sequence[str]]
    with_: Sequence[str]
    unless: Sequence[str]


@cache
def _rules() -> dict[str, list[_Rule]]:
    services = "|".join(table("commands.yaml")["services"])
    found: dict[str, list[_Rule]] = {}
    for entry in table("commands.yaml")["starts"]:
        words = [word.split("|") for word in entry["command"].replace("&service", services).split()]
        rule = _Rule(words[1:], *(entry[key].split("|") if key in entry else () for key in ("with", "unless")))
        for program in words[0]:
            found.setdefault(program, []).append(rule)
    return found


@cache
def _patterns() -> tuple[str, ...]:
    return tuple(program for program in _rules() if "*" in program)


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of each simple command of a text, without their quotes."""
    joined = text.replace("\\\r\n", " ").replace("\\\n", " ")
    for part in _SEPARATORS.split(joined):
        words = [word for word in (word.strip(_AROUND) for word in part.replace('","', '" "').split()) if word]
        if words:
            yield words


def programs_started(text: str, allowed: Allowed = lambda _: False) -> Iterator[str]:
    """Why the commands of a text start a PostgreSQL server: one phrase for each."""
    for words in commands_in(text):
        # Each program counts where it stands first: what a word is repeated for is only to be slow.
        first: dict[str, int] = {}
        for index, word in enumerate(words):
            first.setdefault(word.rpartition("/")[2].lower(), index)
            if word.startswith("/etc/init.d/"):
                first.setdefault(word, index)
        for program, index in first.items():
            yield from _reasons(program, words[index + 1 :], allowed)


def _reasons(program: str, rest: Sequence[str], allowed: Allowed) -> Iterator[str]:
    rules = _rules().get(program) or [
        rule for pattern in _patterns() if fnmatchcase(program, pattern) for rule in _rules()[pattern]
    ]
    for rule in rules:
        if _fits(rule, rest):
            yield f"runs `{' '.join([program, *rest])[:60]}`, which makes a PostgreSQL server"
            break
    if program in _ENGINES:
        yield from _container(rest, allowed)
    elif program in {"kubectl", "oc", "k3s"}:
        yield from _kubectl(rest, allowed)
    elif program == "helm":
        yield from _helm(rest)
    elif program in table("commands.yaml")["packages"]:
        yield from _packages(program, rest)


def _fits(rule: _Rule, rest: Sequence[str]) -> bool:
    at = iter(word.lower() for word in rest)
    if not all(any(_matches(word, wanted) for word in at) for wanted in rule.words):
        return False
    if rule.unless and any(_matches(_value(word), rule.unless) for word in rest):
        return False
    return not rule.with_ or any(_matches(_value(word), rule.with_) for word in rest)


def _matches(word: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(word.lower(), pattern) for pattern in patterns)


def _value(word: str) -> str:
    return word.rpartition("=")[2].strip(_AROUND) if word.startswith("-") else word


@dataclass(frozen=True)
class Run:
    """A container that a command runs: its image, the options before it, and what it is told to do."""

    image: str
    options: Sequence[tuple[str, str]]
    command: Sequence[str]


def container_run(words: Sequence[str]) -> Run | None:
    """What a command of Docker or its like runs; None if it runs no container."""
    index = next((at for at, word in enumerate(words) if word.rpartition("/")[2] in _ENGINES), None)
    return None if index is None else _run(words[index + 1 :])


def _run(rest: Sequence[str]) -> Run | None:
    start = next((index for index, word in enumerate(rest[:6]) if word in _RUNS), None)
    if start is None or (start and rest[start - 1] in _OTHER_OBJECTS):
        return None
    # What an option is given is no image: `-e POSTGRES_DB=app`, `--name postgres`, `-v data:/var/lib/postgresql`.
    valued, given = frozenset(table("commands.yaml")["container_options"]), list[tuple[str, str]]()
    at = start + 1
    while at < len(rest) and rest[at].startswith("-"):
        name, _, value = rest[at].partition("=")
        if name in valued and not value:
            at += 1
            value = rest[at] if at < len(rest) else ""
        given.append((name, value))
        at += 1
    return Run(rest[at], given, rest[at + 1 :]) if at < len(rest) else None


def _container(rest: Sequence[str], allowed: Allowed) -> Iterator[str]:
    run = _run(rest)
    if run:
        yield from _image(run.image, allowed)


def _image(reference: str, allowed: Allowed) -> Iterator[str]:
    family = classify(reference)
    if family and not allowed(reference):
        yield f"runs {reference}, {family.value}"


def _kubectl(rest: Sequence[str], allowed: Allowed) -> Iterator[str]:
    verbs = {word for word in rest[:8] if not word.startswith("-")}
    if verbs & {"run", "deployment", "image", "job", "cronjob"}:
        for index, word in enumerate(rest):
            given = word.startswith("--image=") or (index and rest[index - 1] == "--image")
            if given or ("image" in verbs and "=" in word and not word.startswith("-")):
                yield from _image(word.rpartition("=")[2].strip(_AROUND), allowed)
    if verbs & {"apply", "create", "replace"}:
        yield from _addresses(rest, "applies")


def _addresses(rest: Sequence[str], does: str) -> Iterator[str]:
    wanted = frozenset(table("commands.yaml")["addresses"])
    for word in rest:
        value = _value(word)
        if _ADDRESS.match(value):
            parts = set(re.split(r"[/?#@:=]", value.lower()))
            words = {piece.rstrip("0123456789.") for part in parts for piece in (part, *re.split(r"[-_.]", part))}
            if words & wanted and not words & {"exporter", "pgadmin", "backup", "client"}:
                yield f"{does} {value[:100]}, which brings a PostgreSQL server"


def _helm(rest: Sequence[str]) -> Iterator[str]:
    if not set(rest[:8]) & {"upgrade", "install", "template"}:
        return
    values = with_settings({}, dict(_set_values(rest)))
    # A release may have the name of a chart; a chart has a repository before it.
    repository = next((after for word, after in pairwise(rest) if word == "--repo"), "")
    charts = [word for word in rest if not word.startswith("-") and ("/" in word) and "=" not in word]
    if repository:
        plain = [word for word in rest if re.fullmatch(r"[a-z][a-z0-9-]*", word)]
        charts = [repository, *plain[-1:]]
    for chart in charts:
        yield from (f"installs: {reason}" for reason in chart_reasons(chart, repository, values))
    if not charts:
        yield from (f"installs: {reason}" for reason in chart_reasons("", "", values))


def _set_values(rest: Sequence[str]) -> Iterator[tuple[str, str]]:
    for index, word in enumerate(rest):
        name, _, value = word.partition("=")
        if name in {"--set", "--set-string"}:
            given = value or (rest[index + 1] if index + 1 < len(rest) else "")
            for pair in given.split(","):
                key, _, said = pair.partition("=")
                yield key, said.strip(_AROUND)


def _packages(manager: str, rest: Sequence[str]) -> Iterator[str]:
    entry = table("commands.yaml")["packages"][manager]
    verbs = entry["verbs"]
    start = 0 if "" in verbs else next((index + 1 for index, word in enumerate(rest) if word in verbs), None)
    if start is None:
        return
    for word in rest[start:]:
        found = _PACKAGE.fullmatch(word.lower()) if len(word) < 80 else None
        if found and (found["server"] or not entry.get("server") or word.startswith("@")):
            yield f"installs the package {word}"
            return


def statements_made(text: str) -> Iterator[str]:
    """Why the SQL of a text makes a database of its own, or a role that could: one phrase for each."""
    said = ("create" in text.lower() or "alter" in text.lower()) and not _OTHER_SERVER.search(text)
    for statement in re.split(r"[;\n]", text) if said else ():
        role = _ROLE.search(statement)
        if _DATABASE.search(statement):
            yield "makes a database of its own (create database)"
        if role and _SUPERUSER.search(statement, role.end()):
            yield "makes a role with power over a server (superuser)"
    for words in commands_in(text):
        name = words[0].rpartition("/")[2]
        if name == "createdb":
            yield "makes a database of its own (createdb)"
        if name == "createuser" and {"-s", "--superuser", "-d", "--createdb"} & set(words):
            yield "makes a role with power over a server (createuser)"
