"""The tree of errors: each class has a code of its own, and its picture in the docstring is the real one."""

import ast
from collections.abc import Iterator
from functools import cache
from textwrap import indent

import pytest

import data_plane.errors
from data_plane.connector.error_reference import error_classes, error_markdown, error_tree
from data_plane.errors import DataPlaneError
from data_plane.state_dir import CHECKOUT

_PACKAGES = ("components", "data_plane")


@pytest.fixture(scope="module")
def classes() -> list[type[DataPlaneError]]:
    return error_classes()


@cache
def _parsed() -> list[tuple[str, ast.AST]]:
    return [*_nodes()]


def _nodes() -> Iterator[tuple[str, ast.AST]]:
    for package in _PACKAGES:
        for path in (CHECKOUT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                yield str(path.relative_to(CHECKOUT)), node


def test_every_error_class_has_a_code_of_its_own(classes: list[type[DataPlaneError]]) -> None:
    assert [found.__name__ for found in classes if "code" not in vars(found)] == []
    codes = [found.code for found in classes]
    assert sorted(set(codes)) == sorted(codes)
    assert all(code == code.lower() and code.replace("-", "").isalpha() for code in codes)


def test_every_error_class_says_in_its_docstring_what_it_means(classes: list[type[DataPlaneError]]) -> None:
    assert [found.__name__ for found in classes if not vars(found).get("__doc__")] == []


def test_the_picture_of_the_tree_is_the_real_tree() -> None:
    assert indent(error_tree(), "    ") in str(data_plane.errors.__doc__)


def test_the_reference_has_a_row_for_every_code(classes: list[type[DataPlaneError]]) -> None:
    rows = [line for line in error_markdown().splitlines() if line.startswith("| `")]
    assert len(rows) == len(classes) - 1
    assert "| `lease-denied` | `LeaseDeniedError` | OpenBao's policies do not let" in error_markdown()


def test_every_exception_that_is_defined_is_in_the_tree(classes: list[type[DataPlaneError]]) -> None:
    known = {found.__name__ for found in classes}
    outside = {
        "StoreError": "a program in a Pod, which has no package of ours",
        "TerminatedError": "SIGTERM, which no `except Exception` may catch",
    }
    defined = {
        node.name
        for _, node in _parsed()
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error") and not node.name.startswith("_")
    }
    assert defined == known | outside.keys()


def test_the_base_of_all_errors_is_never_raised_itself() -> None:
    raised = [
        f"{file}:{node.lineno}"
        for file, node in _parsed()
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id == "DataPlaneError"
    ]
    assert raised == []


def test_a_cause_is_dropped_only_where_a_comment_says_why() -> None:
    silent = []
    for package in ("components", "data_plane", "policies"):
        for path in (CHECKOUT / package).rglob("*.py"):
            lines = path.read_text(encoding="utf-8").splitlines()
            for number, line in enumerate(lines):
                near = lines[max(0, number - 5) : number + 1]
                # A command's exit is no error of its own.
                if line.endswith("from None") and "typer.Exit" not in line and not any("#" in text for text in near):
                    silent.append(f"{path.relative_to(CHECKOUT)}:{number + 1}")
    assert [place for place in silent if not place.startswith("data_plane/cli/")] == []
