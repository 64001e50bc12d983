"""A report as text, as JSON and as SARIF 2.1.0."""

import hashlib
import json
from typing import Any

from policies.artifacts.findings import INSTEAD, RULE, Place, Report

__all__ = ["as_json", "as_sarif", "as_text"]

_HELP = "docs/how-to/check-hand-offs.md"
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT = "%SRCROOT%"


def as_text(report: Report) -> str:
    """For people: one line for each finding and problem, and what to do."""
    lines = [f"{finding.place}: {finding.service}: {finding.why} [{RULE}]" for finding in sorted(report.findings)]
    lines += [f"{problem.place}: could not be checked: {problem.message}" for problem in sorted(report.problems)]
    if report.findings:
        lines += ["", f"{INSTEAD}."]
    files = len(report.files)
    read = f"{files} file{'' if files == 1 else 's'} read"
    counts = f"{len(report.findings)} forbidden, {len(report.problems)} not checked, {read}"
    return "\n".join([*lines, counts]) + "\n"


def as_json(report: Report) -> str:
    """For programs."""
    document = {
        "rule": RULE,
        "instead": INSTEAD,
        "findings": [
            {**_place(finding.place), "service": finding.service, "why": finding.why}
            for finding in sorted(report.findings)
        ],
        "errors": [{**_place(problem.place), "message": problem.message} for problem in sorted(report.problems)],
        "files": sorted(map(str, report.files)),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def as_sarif(report: Report) -> str:
    """For code scanning: https://docs.oasis-open.org/sarif/sarif/v2.1.0."""
    rule = {
        "id": RULE,
        "shortDescription": {"text": "A project brings no database of its own."},
        "help": {"text": f"{INSTEAD}."},
        "helpUri": _HELP,
        "defaultConfiguration": {"level": "error"},
    }
    run = {
        "tool": {"driver": {"name": "supabase-data-plane policy check", "rules": [rule]}},
        "columnKind": "unicodeCodePoints",
        "results": [
            {
                "ruleId": RULE,
                "ruleIndex": 0,
                "level": "error",
                "message": {"text": f"{finding.service}: {finding.why}. {INSTEAD}."},
                "locations": [_location(finding.place)],
                # Not the line, so that a finding stays the same one when what is above it changes.
                "partialFingerprints": {
                    "service/v1": _fingerprint(str(finding.place.file), finding.service, finding.why)
                },
            }
            for finding in sorted(report.findings)
        ],
        "invocations": [
            {
                "executionSuccessful": not report.problems,
                "toolExecutionNotifications": [
                    {
                        "level": "error",
                        "message": {"text": problem.message},
                        "locations": [_location(problem.place)],
                    }
                    for problem in sorted(report.problems)
                ],
            }
        ],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _place(place: Place) -> dict[str, Any]:
    return {"file": str(place.file), "line": place.line, "column": place.column}


def _location(place: Place) -> dict[str, Any]:
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": place.file.as_posix(), "uriBaseId": _ROOT},
            "region": {"startLine": place.line, "startColumn": place.column},
        }
    }


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
