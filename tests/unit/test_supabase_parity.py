"""The page that says where each official setting is: no name of Supabase's files, and none set here, is left out."""

import re
from functools import cache

import pytest
import yaml

from data_plane.state_dir import CHECKOUT
from tests.support.cluster_program import pod_templates, variant

PAGE = (CHECKOUT / "docs" / "reference" / "supabase-parity.md").read_text(encoding="utf-8")
OFFICIAL = yaml.safe_load((CHECKOUT / "tests" / "support" / "official_settings.yaml").read_text(encoding="utf-8"))
SECTIONS = {
    "studio": "studio", "kong": "gateway", "auth": "auth", "rest": "rest", "realtime": "realtime",
    "storage": "storage", "imgproxy": "imgproxy", "meta": "meta", "functions": "functions",
    "analytics": "analytics", "db": "database", "vector": "logs", "supavisor": "pooler",
}  # fmt: skip
"""The service of each section."""
VARIANTS = ("everything", "as it comes", "files on one node")
_NAME = re.compile(r"[A-Z][A-Z0-9_]+…?")
_REST = re.compile(r"_[A-Z0-9_]+…?")


@cache
def rows(section: str) -> list[tuple[list[str], list[str]]]:
    """For each row of a section's tables: the whole names in it, and those that only say how they end."""
    text = re.split(rf"^## {section}$", PAGE, flags=re.MULTILINE)[1].partition("\n## ")[0]
    spans = [re.findall(r"`([^`]+)`", line) for line in text.splitlines() if line.startswith("|")]
    return [
        ([span for span in row if _NAME.fullmatch(span)], [span for span in row if _REST.fullmatch(span)])
        for row in spans
    ]


def is_on_the_page(section: str, name: str) -> bool:
    for names, ends in rows(section):
        for written in names:
            if name == written or (written.endswith("…") and name.startswith(written[:-1])):
                return True
            # `GOTRUE_SMTP_HOST` `_PORT`: the beginning of the one, with the end of the other.
            for end in ends:
                shared = next((i for i, (a, b) in enumerate(zip(name, written, strict=False)) if a != b), len(name))
                at = name.rfind(end.rstrip("…"))
                if 4 <= at <= shared and (end.endswith("…") or name[at:] == end):
                    return True
    return False


def set_here(service: str) -> set[str]:
    """The variables of a service's own containers."""
    return {
        entry["name"]
        for name in VARIANTS
        for template in pod_templates(variant(name))
        if template.name == f"supabase-{service}"
        for container in template.containers
        if container["name"] not in {"wait-for-database", "wal-archiver"}
        for entry in container.get("env", [])
    }


@pytest.mark.parametrize("section", SECTIONS)
def test_every_official_setting_has_its_row(section: str) -> None:
    assert [name for name in OFFICIAL["settings"][section] if not is_on_the_page(section, name)] == []


@pytest.mark.parametrize(("section", "service"), SECTIONS.items())
def test_every_variable_that_is_set_here_has_its_row(section: str, service: str) -> None:
    found = set_here(service)
    assert found
    assert sorted(name for name in found if not is_on_the_page(section, name)) == []


def test_a_setting_that_no_row_has_is_missed() -> None:
    for name in ("GOTRUE_NO_SUCH", "GOTRUE_SMTP_NO_SUCH", "GOTRUE_EXTERNAL_APPLE_ENABLED", "NO_SUCH_PORT"):
        assert not is_on_the_page("auth", name), name
    for name in ("GOTRUE_SMTP_PORT", "GOTRUE_MAILER_URLPATHS_RECOVERY", "GOTRUE_HOOK_SEND_SMS_URI"):
        assert is_on_the_page("auth", name), name
