"""YAML files that people write, read with the lines of their fields; a clear message if they cannot be read."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from data_plane.model.problems import Problem, describe

__all__ = ["line_of", "link_problem", "parse_mapping"]

_FILE_MAX_BYTES = 64 * 1024


def link_problem(path: Path, root: Path) -> Problem | None:
    """What is wrong with a path below the checkout that leads through a symbolic link; None if it does not.

    What such a link leads to can be changed without a change of any file that a reviewer, or ``dataplane stack
    affected``, takes for a stack's.
    """
    if not path.is_relative_to(root):
        return None
    for part in (path, *path.parents[: len(path.relative_to(root).parts) - 1]):
        if part.is_symlink():
            return Problem(str(part.relative_to(root)), 0, "file", "a symbolic link", "the file or folder itself")
    return None


def parse_mapping(path: Path, file: str, problems: list[Problem], *, first_key: str) -> CommentedMap | None:
    """The mapping in a file; None, and one more problem, if there is none.

    Args:
        file: how the file is called in problems.
        first_key: what such a file starts with, for the message.
    """
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True  # for a file that is written back
    try:
        size = path.stat().st_size
        if size > _FILE_MAX_BYTES:
            problems.append(Problem(file, 0, "file", f"{size} bytes", f"at most {_FILE_MAX_BYTES} bytes"))
            return None
        document = yaml.load(path.read_text(encoding="utf-8"))
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        key = (error.problem or "").partition('"')[2].partition('"')[0]
        problems.append(Problem(file, line, key or "key", "it a second time", "each key once"))
        return None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problems.append(Problem(file, line, "YAML", error.problem or "a syntax error", "well-formed YAML"))
        return None
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:
        problems.append(Problem(file, 0, "YAML", " ".join(str(error).split()), "well-formed YAML in UTF-8"))
        return None
    except OSError as error:
        problems.append(Problem(file, 0, "file", error.strerror or str(error), "a readable file"))
        return None
    if not isinstance(document, CommentedMap):
        found = "an empty file" if document is None else describe(document)
        problems.append(Problem(file, 1, "document", found, f"a mapping that starts with `{first_key}:`"))
        return None
    return document


def line_of(document: Any, path: tuple[int | str, ...]) -> int:
    """The 1-based line of a field, or of the nearest thing around it that is in the file."""
    line, node = 1, document
    for part in path:
        try:
            if isinstance(node, CommentedMap) and part in node:
                line = node.lc.key(part)[0] + 1
            elif isinstance(node, CommentedSeq) and isinstance(part, int):
                line = node.lc.item(part)[0] + 1
            else:
                break
            node = node[part]
        except (KeyError, IndexError, TypeError):
            break
    return line
