"""The documentation: its links, its generated parts, its form, and what the code says of it."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from data_plane.model.catalog import Service
from data_plane.model.connector_secrets import CLUSTER_SECRETS, SUPABASE_SECRETS
from data_plane.state_dir import CHECKOUT
from docs import draw, generate

PAGES = sorted(
    [*(CHECKOUT / "docs").rglob("*.md"), *CHECKOUT.glob("*.md"), *(CHECKOUT / "bench").glob("*.md")],
    key=lambda page: page.relative_to(CHECKOUT).as_posix(),
)
_FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_NAMED = re.compile(r"\b((?:docs|bench)/[\w/-]+\.md)(?:#([\w-]+))?")
_WIDTH = 100


def named(page: Path) -> str:
    return page.relative_to(CHECKOUT).as_posix()


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> frozenset[str]:
    """What headings can be linked to as, by GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Every link of a page into this repository: the file, and the heading in it."""
    for target in _LINK.findall(prose(page)):
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            yield (page.parent / file).resolve() if file else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    found = list(links(page))
    missing = [str(file) for file, _ in found if not file.exists()]
    assert missing == []
    assert [f"{file.name}#{anchor}" for file, anchor in found if anchor and anchor not in anchors(file)] == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [CHECKOUT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting.extend(file for file, _ in links(page) if file.suffix == ".md")
    assert [named(page) for page in PAGES if page not in reached and "bench" not in page.parts] == []


@pytest.mark.parametrize("page", generate.pages(), ids=named)
def test_the_generated_parts_of_a_page_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == generate.filled_in(text), "run `make docs`"


def test_every_generated_part_stands_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert set(re.findall(r"<!-- generated: ([\w-]+) -->", text)) == set(generate.PARTS)


def test_the_picture_shows_every_service_that_runs() -> None:
    running = {service for service in Service if draw.everything().runs(service) and service is not Service.WAIT}
    assert {service for service in running if f"        {service}" in draw.services()} == running


@pytest.mark.parametrize("page", [page for page in PAGES if "bench" not in page.parts], ids=named)
def test_prose_is_wrapped(page: Path) -> None:
    generated = re.compile(r"<!-- generated: .*?<!-- end -->", re.DOTALL)
    lines = generated.sub("", prose(page)).splitlines()
    kept_whole = ("|", "<!--")  # tables cannot be wrapped
    assert [
        line
        for line in lines
        if len(line) > _WIDTH
        and not line.startswith(kept_whole)
        and " " in line[:_WIDTH].strip()
        and not re.fullmatch(r" *[-\d.]* *\S*`[^`]+`\S*", line)
    ] == []


def test_the_readme_and_contributing_are_short() -> None:
    assert len((CHECKOUT / "README.md").read_text(encoding="utf-8").split()) <= 700
    assert len((CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8").split()) <= 400


def calls(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Every call of the command line on a page: how it stands there, and its words up to another program's."""
    text = re.sub(r"<!-- generated: .*?<!-- end -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = text.replace("\\\n", " ")
    for call in re.findall(
        r"(?:(?<=[`(])|(?<=^)|(?<=^   )|(?<== )|(?<=# ))(?:\./)?dataplane [^`\n]*", text, re.MULTILINE
    ):
        words = re.split(r" -- | [|<>#;&]|\)\"|[;)]$", f"{call} ")[0].split()[1:]
        yield call, words


@cache
def known_commands() -> dict[str, Any]:
    return generate.all_commands()


def wrong_with(words: list[str]) -> str | None:
    """What a call of the command line has that the command line has not."""
    commands = known_commands()
    path = "dataplane"
    while words and any(name == f"{path} {words[0]}" or name.startswith(f"{path} {words[0]} ") for name in commands):
        path = f"{path} {words.pop(0)}"
    if path == "dataplane lease" and words[:1] != ["…"]:
        path += " take"  # what it does without another word
    if path not in commands:
        group = any(name.startswith(f"{path} ") for name in commands)
        return None if group and all(word.startswith("-") or word == "…" for word in words) else f"no command {words}"
    known = {name for item in commands[path].params for name in (*item.opts, *item.secondary_opts)} | {"--help", "-h"}
    unknown = [word for word in words if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]
    return f"{path} has no {unknown}" if unknown else None


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=named)
def test_a_page_calls_only_commands_and_options_that_there_are(page: Path) -> None:
    assert {call: wrong for call, words in calls(page) if (wrong := wrong_with(words))} == {}


def test_pages_that_the_code_names_are_there() -> None:
    sources = [
        *(
            path
            for folder in ("components", "data_plane", "policies", "tests", "bench", "stacks", ".github")
            for path in (CHECKOUT / folder).rglob("*")
            if path.suffix in {".py", ".sql", ".sh", ".yml", ".yaml", ".json"}
        ),
        CHECKOUT / "Pulumi.yaml",
        CHECKOUT / "Makefile",
    ]
    missing = set()
    for source in sources:
        if source.is_relative_to(CHECKOUT / "tests" / "unit"):
            continue  # they make up pages, in repositories of their own
        for name, anchor in _NAMED.findall(source.read_text(encoding="utf-8")):
            page = CHECKOUT / name
            if not page.is_file() or (anchor and anchor not in anchors(page)):
                missing.add(f"{named(source)}: {name}#{anchor}")
    assert missing == set()


def test_the_tests_that_prove_a_fault_are_there() -> None:
    page = (CHECKOUT / "docs" / "reference" / "faults.md").read_text(encoding="utf-8")
    named_tests = set(re.findall(r"`(test_\w+)`", page))
    assert len(named_tests) >= 10
    assert named_tests <= {path.stem for path in (CHECKOUT / "tests").rglob("test_*.py")}


def test_the_page_of_rotation_says_what_every_generated_key_does() -> None:
    page = (CHECKOUT / "docs" / "how-to" / "rotate-secrets.md").read_text(encoding="utf-8")
    assert {key for key in {**SUPABASE_SECRETS, **CLUSTER_SECRETS} if f"`{key}`" not in page} == set()


def spoken() -> str:
    """Every text in the code and in the platform's SQL, one after the other."""
    folders = [CHECKOUT / name for name in ("components", "data_plane")]
    nodes = (
        node
        for folder in folders
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    texts += [path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.sql")]
    return " ".join(" ".join(texts).split()).lower()


def test_messages_that_the_page_of_faults_quotes_are_said() -> None:
    page = (CHECKOUT / "docs" / "reference" / "faults.md").read_text(encoding="utf-8")
    of_the_system = {"no space left on device"}
    parts = {
        part.strip(" :;,.()").lower()
        for quoted in re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", page)
        for part in re.split(r"…|`[^`]*`|: ", quoted)
    }
    long_enough = {part for part in parts if len(part.split()) >= 3} - of_the_system
    text = spoken()
    assert len(long_enough) >= 20
    assert {part for part in long_enough if part not in text} == set()
