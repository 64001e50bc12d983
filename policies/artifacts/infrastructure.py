"""Templates of clouds (CloudFormation, ARM, Deployment Manager) and playbooks of Ansible."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from policies.artifacts.findings import Finding, Report, UncheckedError
from policies.artifacts.sources import Document
from policies.clouds import template_reasons
from policies.commands import started_by
from policies.machines import startup_reasons, startup_texts
from policies.references import containers_run

__all__ = ["MAY_BE_INFRASTRUCTURE", "check_playbook", "check_template", "is_playbook", "is_template"]

MAY_BE_INFRASTRUCTURE = re.compile(
    r"""AWSTemplateFormatVersion|\bResources["']?[ \t]*:|deploymentTemplate|\bhosts["']?[ \t]*:|\bansible\.builtin\."""
)
_TYPE = re.compile(r"::|/|\.v\d")
_TASK_FOLDERS = {"tasks", "handlers", "pre_tasks", "post_tasks"}
_MANAGERS = {
    "apt": "apt-get install",
    "package": "apt-get install",
    "yum": "yum install",
    "dnf": "dnf install",
    "dnf5": "dnf install",
    "apk": "apk add",
    "zypper": "zypper install",
    "pacman": "pacman -S",
    "homebrew": "brew install",
    "pkgng": "pkg install",
}
_COMMANDS = {"shell", "command", "raw", "script", "win_shell", "win_command"}
_DEPTH = 32

_Path = tuple[str | int, ...]


def is_template(data: Any) -> bool:
    """Whether a document is a template that a cloud makes resources of."""
    return isinstance(data, dict) and next(_resources(data), None) is not None


def _resources(data: dict[str, Any]) -> Iterator[tuple[_Path, Any]]:
    """The resources of a template, which has them as a mapping or as a list; Serverless has a template inside."""
    for at in (("Resources",), ("resources",), ("resources", "Resources")):
        found: Any = data
        for name in at:
            found = found.get(name) if isinstance(found, dict) else None
        entries: Iterable[tuple[str | int, Any]] = ()
        if isinstance(found, dict | list):
            entries = found.items() if isinstance(found, dict) else enumerate(found)
        for key, entry in entries:
            kind = (entry.get("Type") or entry.get("type")) if isinstance(entry, dict) else None
            if isinstance(kind, str) and _TYPE.search(kind):
                yield (*at, key), entry


def check_template(document: Document, report: Report) -> None:
    """Adds what is forbidden in a template of a cloud: databases, containers, and what machines start with."""
    for path, entry in _resources(document.data):
        reasons = [*template_reasons(entry), *_of_containers(entry)]
        for at, text in startup_texts(entry):
            try:
                reasons += [f"{at}: {reason}" for reason in startup_reasons(text, lambda _: False)]
            except UncheckedError as error:
                raise UncheckedError(document.place(*path), error.problem.message) from error
        for reason in reasons:
            report.findings.add(Finding(document.place(*path), str(path[-1]), reason))


def _of_containers(entry: object) -> Iterator[str]:
    for container in containers_run(entry):
        reason = container.forbidden()
        if reason:
            yield reason


def is_playbook(data: Any, path: Path) -> bool:
    """Whether a document is a play of Ansible, or the tasks of a role."""
    entries = [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
    return bool(entries) and (path.parent.name in _TASK_FOLDERS or any("hosts" in entry for entry in entries))


def check_playbook(document: Document, report: Report) -> None:
    """Adds what is forbidden in the tasks of a playbook: packages, commands, containers, manifests."""
    for path, task in _tasks(document.data, ()):
        for key, value in task.items():
            for reason in _of_module(str(key).rpartition(".")[2], value):
                name = task.get("name") if isinstance(task.get("name"), str) else str(key)
                report.findings.add(Finding(document.place(*path, key), str(name), reason))


def _tasks(data: Any, path: _Path) -> Iterator[tuple[_Path, dict[str, Any]]]:
    if len(path) > _DEPTH or not isinstance(data, list):
        return
    for index, entry in enumerate(data):
        if isinstance(entry, dict):
            yield (*path, index), entry
            for key in (*_TASK_FOLDERS, "block", "rescue", "always"):
                yield from _tasks(entry.get(key), (*path, index, key))


def _of_module(module: str, value: Any) -> Iterator[str]:
    given = value if isinstance(value, dict) else {}
    if module in _MANAGERS and given.get("state") not in {"absent", "removed"}:
        names = given.get("name") or given.get("pkg") or given.get("package")
        words = re.findall(r"(?:name|pkg)=(\S+)", value) if isinstance(value, str) else names
        for name in words if isinstance(words, list) else str(words or "").split(","):
            yield from started_by(f"{_MANAGERS[module]} {str(name).strip()}", lambda _: False)
    elif module in _COMMANDS:
        text = value if isinstance(value, str) else given.get("cmd") or given.get("argv") or ""
        yield from started_by(" ".join(map(str, text)) if isinstance(text, list) else str(text), lambda _: False)
    elif module in {"docker_container", "podman_container", "docker_swarm_service", "docker_compose_v2", "k8s"}:
        yield from _of_containers(given)
