"""Templates of manifests, which are no YAML yet: read line by line, whatever their expressions become."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from policies.artifacts.findings import Finding, Place, Report
from policies.charts import chart_reasons
from policies.documents import operator_reason
from policies.images import image_reason
from policies.unknown import UNKNOWN_VALUES

__all__ = ["check_template", "is_template"]

_IMAGE_LINE = re.compile(r"""\s*(?:-\s+)?["']?\w*image["']?\s*:\s*["']?(?P<image>[^\s"',#]+)""", re.IGNORECASE)
_IMAGE_VARIABLE = re.compile(r"\$\w*image\w*\s*:?=", re.IGNORECASE)
_OBJECT_LINE = re.compile(r"""(?P<indent>[\s-]*)["']?(?P<key>apiVersion|kind)["']?\s*:\s*["']?(?P<value>[^\s"',#]+)""")
# Names of templates and of values, which are no images.
_NAMES = re.compile(
    r"\b(?:include|template|tpl|index|get|hasKey|dig|required|lookup)\s+(?:[$.]\S*\s+)?[\"'][^\"']*[\"']"
)
_DEFAULT = re.compile(
    r"\bdefault\s+[\"'`](?P<image>[\w./-]+(?::[\w.-]+[\"'`]|[\"'`]\s+[\w.$]*(?:image|repo)))", re.IGNORECASE
)
_PORT = re.compile(r":\d{4,5}$")
_CHART_LINE = re.compile(r"""\s*(?:-\s+)?["']?chart["']?\s*:\s*["']?(?P<chart>[^\s"',#]+)""")
_SOME_VALUES = next(iter(UNKNOWN_VALUES))
_LITERAL = re.compile(r"\"([^\"]*)\"|'([^']*)'|`([^`]*)`")
_LINE_MAX = 4_096
"""Longer lines are data."""


def is_template(text: str) -> bool:
    """Whether a text is filled in by a template engine before it is YAML."""
    return "{{" in text or "{%" in text or "<%" in text


def check_template(text: str, file: PurePosixPath, report: Report) -> None:
    """Adds what is forbidden in a template: images, charts, and resources that an operator makes a server of."""
    objects: dict[int, dict[str, str]] = {}
    for number, whole in enumerate(text.split("\n"), start=1):
        line = whole[:_LINE_MAX]
        for column, reason in _named(line):
            report.findings.add(Finding(Place(file, number, column), file.stem, reason))
        for reason in _resources(line, objects):
            report.findings.add(Finding(Place(file, number), file.stem, reason))


def _named(line: str) -> Iterator[tuple[int, str]]:
    """Why an image or a chart that a line names is a server."""
    for column, image in _images(line):
        reason = image_reason(image)
        if reason:
            yield column, reason
            break
    chart = _CHART_LINE.match(line)
    yield from ((1, reason) for reason in (chart_reasons(chart["chart"], "", _SOME_VALUES) if chart else ()))


def _resources(line: str, objects: dict[int, dict[str, str]]) -> Iterator[str]:
    """Why the object that a line completes is a server.

    Args:
        objects: what is known of those around the line, by how far in they stand.
    """
    inner = line.lstrip(" -")
    if line.startswith("---"):
        objects.clear()
    elif inner and not inner.startswith("{{"):
        for indent in [indent for indent in objects if indent > len(line) - len(inner)]:
            del objects[indent]
    found = _OBJECT_LINE.match(line)
    if found is None:
        return
    # The two keys of an object stand in either order, and as far in as each other.
    known = objects.setdefault(len(found["indent"]), {})
    if found["key"] in known or "-" in found["indent"]:
        known = objects[len(found["indent"])] = {}
    known[found["key"]] = found["value"]
    if len(known) == 2:
        reason = operator_reason(known["apiVersion"], known["kind"], {})
        if reason:
            yield reason


def _images(line: str) -> Iterator[tuple[int, str]]:
    """The images that a line may name, each with its column."""
    plain, expressions = _plain(line)
    image = _IMAGE_LINE.match(plain)
    if image:
        yield image.start("image") + 1, image["image"]
    default = _DEFAULT.search(line)
    image_given = re.split(r"[\"'`]", default["image"])[0] if default else ""
    if default and not _PORT.search(image_given):
        yield default.start("image") + 1, image_given
    if image or _IMAGE_VARIABLE.search(line):
        for expression in expressions:
            for found in _LITERAL.finditer(_NAMES.sub("", expression)):
                # A format: "%s/postgres:%s".
                yield line.find(found.group()) + 1, re.sub(r"%[sdv]", "x", next(filter(None, found.groups()), ""))


def _plain(line: str) -> tuple[str, list[str]]:
    """A line with ``x`` for each expression, and the expressions."""
    before, *parts = line.split("{{")
    plain, expressions = [before], list[str]()
    for part in parts:
        expression, _, after = part.partition("}}")
        expressions.append(expression)
        plain += ["x", after]
    return "".join(plain), expressions
