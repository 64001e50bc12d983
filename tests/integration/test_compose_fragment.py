"""A Dokploy binding, read by the Compose Specification's own reader."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_plane.local.kubernetes.programs import why_unavailable
from tests.bound import written
from tests.integration.go_programs import COMPOSE_SPEC

PROJECT = """\
include: [supabase.compose.yaml]
services:
  edge:
    image: registry.example.com/shop/edge:1.0
    depends_on: {supabase-agent: {condition: service_healthy}}
    volumes: [supabase-bindings:/bindings:ro]
"""


@pytest.fixture(scope="module")
def reader() -> Path:
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    return COMPOSE_SPEC.build()


def read(reader: Path, folder: Path, file: str, code: int = 0) -> dict[str, Any]:
    environment = {"PATH": os.environ["PATH"], "OPENBAO_ROLE_ID": "r", "OPENBAO_SECRET_ID": "s"}
    done = subprocess.run([reader, file], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return dict(yaml.safe_load(done.stdout) or {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = written(form="dokploy", workload="edge", ca="./openbao-ca.crt")
    (tmp_path / "supabase.compose.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "compose.yaml").write_text(PROJECT, encoding="utf-8")
    return tmp_path


def test_the_fragment_is_a_whole_compose_file_whose_configuration_comes_through_unchanged(
    reader: Path, folder: Path
) -> None:
    model = read(reader, folder, "supabase.compose.yaml")
    given = yaml.safe_load((folder / "supabase.compose.yaml").read_text(encoding="utf-8"))
    content = given["configs"]["supabase-agent"]["content"].replace("$$", "$")
    assert model["configs"]["supabase-agent"]["content"] == content
    agent = model["services"]["supabase-agent"]
    assert {item["uid"] for item in agent["secrets"]} == {"100"}
    assert {int(str(item["mode"]), 8) for item in agent["secrets"]} == {0o400}


def test_a_projects_compose_file_takes_the_fragment_in(reader: Path, folder: Path) -> None:
    model = read(reader, folder, "compose.yaml")
    assert set(model["services"]) == {"edge", "supabase-agent"}
    (mount,) = model["services"]["edge"]["volumes"]
    assert (mount["source"], mount["target"], mount["read_only"]) == ("supabase-bindings", "/bindings", True)
    assert model["volumes"]["supabase-bindings"]["driver_opts"]["type"] == "tmpfs"


def test_the_reader_would_have_noticed_a_misspelt_field(reader: Path, folder: Path) -> None:
    path = folder / "supabase.compose.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("mem_limit:", "mem_limits:"), encoding="utf-8")
    read(reader, folder, "supabase.compose.yaml", code=1)
