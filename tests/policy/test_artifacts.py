"""The check of hand-offs: what it finds in a project's files and where, what it lets be, and what cannot fool it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_plane.state_dir import CHECKOUT
from policies.artifacts.discovery import checked
from policies.artifacts.findings import RULE, Report
from policies.artifacts.interpolation import VariableSyntaxError, interpolated, read_variables
from policies.artifacts.reports import as_json, as_sarif, as_text
from policies.artifacts.variables import UNKNOWN

Write = Callable[[dict[str, str]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def files(contents: dict[str, str]) -> Path:
        for name, text in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return files


def places(report: Report) -> list[str]:
    """``file:line service`` of each finding."""
    found = sorted(report.findings)
    return [f"{finding.place.file}:{finding.place.line} {finding.service}" for finding in found]


def service(image: str, more: str = "") -> str:
    return f"services:\n  web:\n    image: node:22\n  db:\n    image: {image}\n{more}"


COMPOSE_NAMES = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.prod.yml",
    "compose.dev.yaml",
    "deploy/docker-compose-local.yml",
    "docker-stack.yml",
    "infra/services.yml",
]

AT_LINE_5 = [
    "postgres",
    "postgres:16-alpine",
    '"postgres:17"',
    "docker.io/library/postgres@sha256:" + "0" * 64,
    "registry.example.com:5000/mirror/postgres:15",
    "bitnami/postgresql:16",
    "timescale/timescaledb:latest-pg16",
    "postgis/postgis:16-3.4",
    "pgvector/pgvector:pg16",
    "tensorchord/pgvecto-rs:pg14-v0.2.0",
    "supabase/postgres:17.6.1.136",
    "supabase/gotrue:v2.196.0",
    "cockroachdb/cockroach:v24.1.0",
    "${DB_IMAGE:-postgres:16}",
    "${DB_IMAGE-postgres:16}",
    "${REGISTRY:-docker.io}/postgres:${TAG}",
    "${REGISTRY}/postgres",
    "${NONE:-${ALSO_NONE:-postgis/postgis:16}}",
    "postgres:${PG:?a version is needed}${X:-}",
]

INNOCENT = [
    "mysql:8",
    "redis:7",
    "edoburu/pgbouncer:1.23",
    "dpage/pgadmin4:8",
    "adminer:4",
    "quay.io/prometheuscommunity/postgres-exporter:v0.15.0",
    "prodrigestivill/postgres-backup-local:16",
    "postgrest/postgrest:v14",
    "kong:3.9",
    "hasura/graphql-engine:v2",
    "ghcr.io/umami-software/umami:postgresql-latest",
    "docker.n8n.io/n8nio/n8n",
    "${APP_IMAGE:-ghcr.io/example/app:1.0}",
    "ghcr.io/example/app:postgres",
]


@pytest.mark.parametrize("name", COMPOSE_NAMES)
def test_a_database_is_found_in_every_file_that_compose_reads(write: Write, name: str) -> None:
    report = checked([write({name: service("postgres:16")})], write({}))
    assert places(report) == [f"{name}:5 db"]
    assert not report.problems


@pytest.mark.parametrize("image", AT_LINE_5)
def test_a_database_is_found_whatever_it_is_called(write: Write, image: str) -> None:
    report = checked([write({"compose.yaml": service(image), ".env": "PG=16\n"})], write({}))
    assert places(report) == ["compose.yaml:5 db"]


@pytest.mark.parametrize("image", INNOCENT)
def test_what_only_talks_to_a_database_is_let_be(write: Write, image: str) -> None:
    report = checked([write({"compose.yaml": service(image)})], write({}))
    assert (places(report), report.problems) == ([], set())


FOUND: dict[str, tuple[dict[str, str], list[str]]] = {
    "an anchor": (
        {"compose.yaml": "x-db: &db\n  image: postgres:16\nservices:\n  db:\n    <<: *db\n    restart: always\n"},
        ["compose.yaml:2 db"],
    ),
    "one of several merged": (
        {"compose.yaml": "x-a: &a {restart: always}\nx-b: &b\n  image: postgres\nservices:\n  db:\n    <<: [*a, *b]\n"},
        ["compose.yaml:3 db"],
    ),
    "an alias of a scalar": (
        {"compose.yaml": "x-image: &image postgres:16\nservices:\n  db:\n    image: *image\n"},
        ["compose.yaml:4 db"],
    ),
    "a profile": ({"compose.yaml": service("postgres", "    profiles: [local]\n")}, ["compose.yaml:5 db"]),
    "flow style": ({"compose.yaml": "services: {db: {image: postgres}}\n"}, ["compose.yaml:1 db"]),
    "JSON in a YAML file": ({"compose.yaml": '{"services": {"db": {"image": "postgres"}}}'}, ["compose.yaml:1 db"]),
    "an override of Compose's": (
        {"compose.yaml": "services:\n  db:\n    image: !override postgres:16\n"}, ["compose.yaml:3 db"]),
    "a variable of .env": (
        {"compose.yaml": service("${IMAGE:-mysql:8}"), ".env": "# said\nexport IMAGE='postgres:16'\n"},
        ["compose.yaml:5 db"],
    ),
    "a variable of a variable": (
        {"compose.yaml": service("${IMAGE}"), ".env": "NAME=postgres\nIMAGE=${NAME}:16 # said\n"},
        ["compose.yaml:5 db"],
    ),
    "an included file": (
        {"compose.yaml": "include:\n  - infra/db.yaml\n", "infra/db.yaml": service("postgres")},
        ["infra/db.yaml:5 db"],
    ),
    "an included file with its own variables": (
        {
            "compose.yaml": "include:\n  - path: [infra/db.yml]\n    project_directory: .\n    env_file: infra/db.env\n",
            "infra/db.yml": "services:\n  db:\n    image: ${DB}\n",
            "infra/db.env": "DB=postgis/postgis\n",
        },
        ["infra/db.yml:3 db"],
    ),
    "a file that an included file includes": (
        {"compose.yaml": "include: [a/a.txt]\n", "a/a.txt": "include: [b.txt]\n", "a/b.txt": service("postgres")},
        ["a/b.txt:5 db"],
    ),
    "an extended service elsewhere": (
        {
            "compose.yaml": "services:\n  db:\n    extends:\n      file: common/base.txt\n      service: store\n",
            "common/base.txt": "services:\n  store:\n    image: postgres:15\n",
        },
        ["common/base.txt:3 store"],
    ),
    "an extended service here": (
        {"compose.yaml": "services:\n  db:\n    extends: base\n  base:\n    image: postgres\n"}, ["compose.yaml:5 base"]),
    "a Dockerfile": (
        {"compose.yaml": "services:\n  db:\n    build: ./db\n", "db/Dockerfile": "# ours\nFROM postgres:16\nCOPY x /x\n"},
        ["db/Dockerfile:2 Dockerfile", "db/Dockerfile:2 db"],
    ),
    "a named Dockerfile and a build argument": (
        {
            "compose.yaml": "services:\n  db:\n    build:\n      context: db\n      dockerfile: db.build\n"
            "      args:\n        BASE: postgres:${PG:-16}\n",
            "db/db.build": "ARG BASE=alpine:3\nFROM ${BASE}\n",
        },
        ["db/db.build:2 db"],
    ),
    "a Dockerfile in the compose file": (
        {"compose.yaml": "services:\n  db:\n    build:\n      dockerfile_inline: |\n        FROM postgres:16\n"},
        ["compose.yaml:4 db"],
    ),
    "a stage on a stage": (
        {
            "compose.yaml": "services:\n  db:\n    build: {context: ., target: final}\n",
            "Dockerfile": "FROM postgres:16 AS base\nFROM base AS final\nRUN true\nFROM node:22\n",
        },
        ["Dockerfile:1 db"],
    ),
    "a server that is installed": (
        {"compose.yaml": "services:\n  db:\n    build: .\n",
         "Dockerfile": "FROM debian:12\nRUN apt-get update && \\\n    apt-get install -y postgresql-16\n"},
        ["Dockerfile:2 Dockerfile", "Dockerfile:2 db"],
    ),
    "a server that is started": (
        {"compose.yaml": "services:\n  db:\n    build: .\n", "Dockerfile": 'FROM debian:12\nCMD ["postgres", "-D", "/d"]\n'},
        ["Dockerfile:2 Dockerfile", "Dockerfile:2 db"],
    ),
    "a Dockerfile by itself": (
        {"images/db/db.Dockerfile": "ARG V=16\nFROM --platform=linux/amd64 postgres:${V}\n"},
        ["images/db/db.Dockerfile:2 db.Dockerfile"],
    ),
    "an innocent image that is started as one": (
        {"compose.yaml": "services:\n  db:\n    image: example/base:1\n    command: postgres -c fsync=off\n"},
        ["compose.yaml:2 db"],
    ),
    "an innocent image with a server's data": (
        {"compose.yaml": "services:\n  db:\n    image: example/base:1\n    volumes:\n      - data:/var/lib/postgresql/data\n"},
        ["compose.yaml:2 db"],
    ),
    "a volume in the long form": (
        {"compose.yaml": "services:\n  db:\n    image: example/base:1\n    volumes:\n"
                         "      - type: volume\n        source: d\n        target: /var/lib/postgresql/data\n"},
        ["compose.yaml:2 db"],
    ),
    "an innocent image with a server's settings": (
        {"compose.yaml": "services:\n  db:\n    image: example/base:1\n    environment:\n      - POSTGRES_INITDB_ARGS=-k\n"},
        ["compose.yaml:2 db"],
    ),
    "a standalone Supabase": (
        {"compose.yaml": "services:\n  auth:\n    image: example/gotrue:1\n  rest:\n    image: postgrest/postgrest:v14\n"
                         "  kong:\n    image: kong:3.9\n"},
        ["compose.yaml:3 gotrue"],
    ),
    # Kubernetes and Helm.
    "a Deployment": (
        {"k8s/db.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: db\nspec:\n  template:\n    spec:\n"
                        "      containers:\n        - name: main\n          image: postgres:16\n"},
        ["k8s/db.yaml:10 main"],
    ),
    "the second of two documents": (
        {"all.yml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Pod\n"
                    "spec:\n  initContainers:\n    - {name: i, image: 'bitnami/postgresql:16'}\n"},
        ["all.yml:9 i"],
    ),
    "JSON": (
        {"db.json": '{\n "apiVersion": "v1",\n "kind": "Pod",\n "spec": {"containers": [\n  {"name": "p", "image": "postgres"}]}}'},
        ["db.json:5 p"],
    ),
    "a List": (
        {"l.yaml": "apiVersion: v1\nkind: List\nitems:\n  - apiVersion: postgresql.cnpg.io/v1\n    kind: Cluster\n"},
        ["l.yaml:5 List"],
    ),
    "an operator's resource": (
        {"c.yaml": "apiVersion: acid.zalan.do/v1\nkind: postgresql\nmetadata:\n  name: shop\n"}, ["c.yaml:2 shop"]),
    "a kustomization": (
        {"kustomization.yaml": "images:\n  - name: db\n    newName: registry.example.com/postgres\n"},
        ["kustomization.yaml:2 registry.example.com/postgres"],
    ),
    "a chart of a kustomization": (
        {"kustomization.yaml": "helmCharts:\n  - name: postgresql\n    repo: https://charts.example.com\n"},
        ["kustomization.yaml:2 postgresql"],
    ),
    "an Argo CD application": (
        {"app.yaml": "apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {name: db}\nspec:\n  source:\n"
                     "    chart: postgresql\n    repoURL: https://charts.example.com\n"},
        ["app.yaml:5 db"],
    ),
    "a Flux release": (
        {"r.yaml": "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: db}\nspec:\n"
                   "  chart:\n    spec:\n      chart: postgresql-ha\n"},
        ["r.yaml:5 db"],
    ),
    "a chart's dependency": (
        {"chart/Chart.yaml": "apiVersion: v2\nname: shop\ndependencies:\n  - name: postgresql\n    version: 16.x.x\n"
                             "    repository: https://charts.example.com\n    condition: postgresql.enabled\n"},
        ["chart/Chart.yaml:4 chart"],
    ),
    "a chart's values": (
        {"chart/Chart.yaml": "apiVersion: v2\nname: shop\n",
         "chart/values.yaml": "image:\n  repository: example/shop\npostgresql:\n  enabled: true\n"},
        ["chart/values.yaml:4 chart"],
    ),
    "a chart's template": (
        {"chart/Chart.yaml": "apiVersion: v2\nname: shop\n",
         "chart/templates/db.yaml": "{{- if .Values.db }}\napiVersion: v1\nkind: Pod\nspec:\n  containers:\n"
                                    "    - image: postgres:{{ .Values.tag }}\n{{- end }}\n"},
        ["chart/templates/db.yaml:6 db"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "found"), FOUND.values(), ids=FOUND)
def test_a_database_is_found_where_it_stands(write: Write, files: dict[str, str], found: list[str]) -> None:
    report = checked([write(files)], write({}))
    assert places(report) == found
    assert not report.problems
    assert report.exit_code == 1


LET_BE: dict[str, dict[str, str]] = {
    "an empty file": {"compose.yaml": ""},
    "only comments": {"compose.yaml": "# nothing\n"},
    "no services": {"compose.yaml": "name: shop\nvolumes: {data: {}}\n"},
    "a service that is taken out": {"compose.yaml": "services:\n  db: !reset null\n"},
    "an image that is taken out": {"compose.yaml": "services:\n  db:\n    image: !reset postgres\n    build: .\n",
                                   "Dockerfile": "FROM node:22\n"},
    "the word elsewhere": {"compose.yaml": service("node:22", "    environment:\n      DB: postgres\n      IMAGE: postgres:16\n")},
    "the address of a database": {"compose.yaml": service("node:22", "    environment: [DATABASE_URL=postgres://db/app]\n")},
    "a dollar that is one": {"compose.yaml": service("node:22", "    command: echo $$HOME\n")},
    "a client that waits": {"compose.yaml": service("node:22", "    command: sh -c 'pg_isready -h db -U postgres && npm start'\n")},
    "a stage that only builds": {"compose.yaml": "services:\n  web:\n    build: .\n",
                                 "Dockerfile": "FROM postgres:16 AS tools\nFROM node:22\nCOPY --from=tools /usr/bin/psql /usr/bin/\n"},
    "a client that is installed": {"compose.yaml": "services:\n  web:\n    build: .\n",
                                   "Dockerfile": "FROM debian:12\nRUN apt-get install -y postgresql-client libpq-dev\n"},
    "a stage that is not the target": {"compose.yaml": "services:\n  web:\n    build: {context: ., target: web}\n",
                                       "Dockerfile": "FROM node:22 AS web\nFROM alpine:3\n"},
    "a mount beside the data": {"compose.yaml": service("node:22", "    volumes: ['./init:/docker-entrypoint-initdb.d:ro']\n")},
    "another kind of volume": {"compose.yaml": service("node:22", "    volumes:\n      - ${DATA:-./data}:/data\n")},
    "a Deployment of an application": {"k.yaml": "apiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n    spec:\n"
                                                 "      containers: [{name: a, image: 'example/app:1'}]\n"},
    "a resource of another operator": {"c.yaml": "apiVersion: cluster.x-k8s.io/v1\nkind: Cluster\n"},
    "a chart that switches it off": {
        "c/Chart.yaml": "name: c\ndependencies:\n  - {name: postgresql, condition: postgresql.enabled}\n",
        "c/values.yaml": "postgresql:\n  enabled: false\n"},
    "a workflow that tests against one": {
        ".github/workflows/test.yml": "jobs:\n  test:\n    services:\n      db:\n        image: postgres:16\n"},
    "a YAML file of something else": {"config/services.yaml": "services:\n  App\\Mailer:\n    arguments: ['%x%']\n"},
    "a broken file of something else": {"template.yml": "{{ broken: [\n"},
    "what was installed": {"node_modules/x/compose.yaml": service("postgres")},
    "a text about one": {"README.md": "docker run postgres:16\n"},
}  # fmt: skip


@pytest.mark.parametrize("files", LET_BE.values(), ids=LET_BE)
def test_what_is_no_database_is_let_be(write: Write, files: dict[str, str]) -> None:
    report = checked([write(files)], write({}))
    assert (places(report), sorted(problem.message for problem in report.problems)) == ([], [])
    assert report.exit_code == 0


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels)]
    return "\n".join(lines) + f"\nservices: {{web: {{image: node, x: *a{levels - 1}}}}}\n"


def merge_bomb(levels: int) -> str:
    lines = ["a0: &a0 {k0: x}"]
    for n in range(1, levels):
        keys = ", ".join(f"k{n}_{m}: *a{n - 1}" for m in range(8))
        lines.append(f"a{n}: &a{n} {{{keys}, <<: *a{n - 1}}}")
    return "\n".join(lines) + "\n"


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "billions of aliases": (bomb(40), "with its aliases it has more than"),
    "billions of merged keys": (merge_bomb(12), "with its aliases it has more than"),
    "an alias inside of itself": ("a: &a\n  b: *a\n", "stands inside of what it names"),
    "an alias of nothing": ("services: *none\n", "nothing before it is called &none"),
    "depth in flow style": ("[" * 100_000, "nested deeper"),
    "depth in blocks": ("\n".join(" " * n + "a:" for n in range(200)), "nested deeper"),
    "a key twice": ("services:\n  db:\n    image: node\n    image: postgres\n", "is given twice"),
    "a service twice": ("services:\n  db: {image: node}\n  db: {image: postgres}\n", "is given twice"),
    "an object of Python": ("x: !!python/object/apply:os.system [id]\n", "the tag"),
    "a tag of one's own": ("services:\n  db: !include db.yaml\n", "the tag !include"),
    "a mapping as a key": ("? {a: b}\n: c\n", "a key may not be"),
    "a tab": ("services:\n\tdb: {}\n", "it is no YAML"),
    "a quote that never ends": ("services: 'x\n", "it is no YAML"),
    "Latin-1": (b"services: {db: {image: caf\xe9}}\n", "is no UTF-8"),
    "UTF-16": ("services: {db: {image: postgres}}\n".encode("utf-16"), "is no UTF-8"),
    "a NUL": (b"services: {}\n\0", "holds a NUL"),
    "too large": (b"#" * (4 * 1024 * 1024 + 1), "more than 4194304 bytes"),
    "too many values": ("x: [" + "1," * 250_000 + "]\n", "more than 200000 values"),
    "a list of services": ("services: [db]\n", "`services` is a mapping"),
    "a service that is a text": ("services:\n  db: postgres\n", "the service db is a mapping"),
    "a list at the top": ("- services\n", "a compose file is a mapping"),
    "an image that is a list": ("services: {db: {image: [postgres]}}\n", "is a text"),
    "an image that nobody knows": ("services: {db: {image: '${IMAGE}'}}\n", "which image db has is not known"),
    "an image that has to be given": ("services: {db: {image: '${IMAGE:?give one}'}}\n", "give one"),
    "a variable that never ends": ("services: {db: {image: '${IMAGE:-x'}}\n", "never closed"),
    "variables without end": ("services: {db: {image: '" + "${A:-" * 50 + "x" + "}" * 50 + "'}}\n", "nested deeper"),
    "a remote include": ("include: ['https://example.com/compose.yaml']\n", "is not here to be checked"),
    "an include by git": ("include:\n  - path: git@example.com:a/b.git\n", "is not here to be checked"),
    "an include that is not there": ("include: [none.yaml]\n", "none.yaml cannot be read"),
    "an include of itself": ("include: [compose.yaml]\n", "includes itself"),
    "an include that leads out": ("include: [../../../../../../../etc/passwd]\n", "etc/passwd"),
    "an extends that leads out": ("services:\n  a:\n    extends: {file: /etc/hosts, service: b}\n", "leads out of"),
    "an extends of itself": ("services:\n  a: {extends: b}\n  b: {extends: a}\n", "extends itself"),
    "a remote build": ("services:\n  a:\n    build: https://example.com/x.git\n", "is not here to be checked"),
    "a build that is not there": ("services:\n  a:\n    build: ./none\n", "none/Dockerfile cannot be read"),
    "an include without a path": ("include: [{env_file: x}]\n", "an entry of `include` is a file"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_cannot_be_checked_is_an_error_and_no_pass(tmp_path: Path, content: str | bytes, message: str) -> None:
    (tmp_path / "compose.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    report = checked([tmp_path], tmp_path)
    assert any(message in problem.message for problem in report.problems), report.problems
    assert report.exit_code == 2


def test_an_error_in_one_file_hides_nothing_of_another(write: Write) -> None:
    report = checked([write({"a/compose.yaml": "x: *none\n", "b/compose.yaml": service("postgres")})], write({}))
    assert places(report) == ["b/compose.yaml:5 db"]
    assert report.exit_code == 2


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text(service("postgres"), encoding="utf-8")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "compose.yaml").symlink_to(outside)
    (problem,) = checked([tmp_path / "in"], tmp_path / "in").problems
    assert "leads out of the checked folder" in problem.message


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").symlink_to(tmp_path / "compose.yaml")
    assert checked([tmp_path], tmp_path).exit_code == 2


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "compose.yaml")
    (problem,) = checked([tmp_path], tmp_path).problems
    assert "no regular file" in problem.message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.binary(max_size=400) | st.text(alphabet="ab:{}[]&*!<>-\n \t'\"$#|?,", max_size=200).map(str.encode))
def test_any_bytes_end_with_a_report(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "compose.yaml").write_bytes(content)
    assert checked([tmp_path], tmp_path).exit_code in {0, 1, 2}


# Variables

VARIABLES = {"A": "a", "EMPTY": "", "B": "b"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("$A", "a"),
        ("${A}x", "ax"),
        ("$A$B", "ab"),
        ("$NONE.", "."),
        ("$$A", "$A"),
        ("$${A}", "${A}"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${NONE-x}", "x"),
        ("${A:+x}", "x"),
        ("${EMPTY:+x}", ""),
        ("${EMPTY+x}", "x"),
        ("${NONE+x}", ""),
        ("${A:?m}", "a"),
        ("${EMPTY?m}", ""),
        ("${NONE:?m}", UNKNOWN),
        ("a/${EMPTY:?m}:b", f"a/{UNKNOWN}:b"),
        ("${NONE?}", UNKNOWN),
        ("${NONE:-${B}}", "b"),
        ("${NONE:-a:b/c}", "a:b/c"),
    ],
)
def test_variables_are_put_in_as_compose_does(text: str, value: str) -> None:
    assert interpolated(text, VARIABLES) == value


@pytest.mark.parametrize("text", ["${A", "${}", "$ ", "${A!x}", "${A:x}", "$"])
def test_what_compose_cannot_put_in_is_refused(text: str) -> None:
    with pytest.raises(VariableSyntaxError):
        interpolated(text, VARIABLES)


@given(st.text(alphabet=st.characters(exclude_characters="$", codec="utf-8"), max_size=100))
def test_a_text_without_variables_stays_as_it_is(text: str) -> None:
    assert interpolated(text, VARIABLES) == text
    assert interpolated(f"${{NONE:-{text.replace('}', '')}}}", {}) == text.replace("}", "")


def test_a_file_of_variables_is_read_as_compose_does() -> None:
    text = "A=1\n# B=2\nexport C='$A x' # said\nD=\"$A\"\nE=x#y # said\nF=${A}${NONE:-2}\nno variable\nG: 3\nH=${A\n"
    assert read_variables(text) == {"A": "1", "C": "$A x", "D": "1", "E": "x#y", "F": "12", "G": "3", "H": UNKNOWN}


# Reports and the command

SARIF_PARTS: dict[str, Any] = {
    "type": "object",
    "required": ["$schema", "version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {"type": "array", "minItems": 1, "items": {
            "type": "object",
            "required": ["tool", "results", "invocations"],
            "properties": {"results": {"type": "array", "items": {
                "type": "object",
                "required": ["ruleId", "message", "locations", "partialFingerprints"],
                "properties": {
                    "ruleId": {"const": RULE},
                    "locations": {"items": {"properties": {"physicalLocation": {
                        "required": ["artifactLocation", "region"],
                        "properties": {
                            "artifactLocation": {"properties": {"uri": {"pattern": "^[^/]"}}},
                            "region": {"properties": {"startLine": {"minimum": 1}, "startColumn": {"minimum": 1}}},
                        },
                    }}}},
                },
            }}},
        }},
    },
}  # fmt: skip


def a_report(write: Write) -> Report:
    files = {"compose.yaml": service("postgres"), "sub/compose.yaml": "x: *none\n"}
    return checked([write(files)], write({}))


def test_the_reports_say_the_same(write: Write) -> None:
    report = a_report(write)
    text, data, sarif = as_text(report), json.loads(as_json(report)), json.loads(as_sarif(report))
    assert f"compose.yaml:5:5: db: image postgres is a PostgreSQL server [{RULE}]" in text
    assert "sub/compose.yaml:1:4: could not be checked" in text
    assert [(found["file"], found["line"], found["service"]) for found in data["findings"]] == [
        ("compose.yaml", 5, "db")
    ]
    assert [(found["file"], found["line"]) for found in data["errors"]] == [("sub/compose.yaml", 1)]
    jsonschema.validate(sarif, SARIF_PARTS)
    (run,) = sarif["runs"]
    assert run["results"][0]["locations"][0]["physicalLocation"]["region"] == {"startLine": 5, "startColumn": 5}
    assert run["invocations"][0]["executionSuccessful"] is False
    assert "nothing before it" in run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]


def test_a_finding_that_moves_keeps_its_fingerprint(write: Write) -> None:
    def fingerprint() -> object:
        return json.loads(as_sarif(checked([write({})], write({}))))["runs"][0]["results"][0]["partialFingerprints"]

    write({"compose.yaml": service("postgres")})
    before = fingerprint()
    write({"compose.yaml": "# moved\n" + service("postgres")})
    assert fingerprint() == before


def run(folder: Path, *arguments: str, code: str = "from policies.artifacts.command_line import main; main()") -> Any:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )


@pytest.mark.parametrize(
    ("text", "code"), [(service("node:22"), 0), (service("postgres"), 1), ("x: *none\n", 2), (bomb(60), 2)]
)
def test_the_exit_code_says_what_there_is(write: Write, text: str, code: int) -> None:
    response = run(write({"compose.yaml": text}))
    assert response.returncode == code
    assert "Traceback" not in response.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 0),
        ((".",), 0),
        (("docs",), 2),
        (("docs", "--root", "docs"), 2),
        (("docs/notes.txt",), 2),
        (("docs/data.yaml",), 2),
        (("docs/data.yaml", "shop/Dockerfile"), 2),
        (("shop/Dockerfile",), 0),
        (("shop",), 0),
        (("docs/data.yaml", "shop/Dockerfile", "--changed"), 0),
        (("docs", "--changed"), 0),
    ],
)
def test_a_named_path_in_which_nothing_is_read_is_no_pass(write: Write, arguments: tuple[str, ...], code: int) -> None:
    shop = {"shop/Dockerfile": "FROM node:22\n"} if any("shop" in word for word in arguments) else {}
    response = run(write({"docs/notes.txt": "", "docs/data.yaml": "a: 1\n", **shop}), *arguments)
    assert response.returncode == code
    assert ("of what is read" in response.stdout) is (code == 2)


def test_a_folder_outside_of_the_current_one_is_its_own_root(write: Write) -> None:
    folder = write(
        {"here/x": "", "shop/compose.yaml": "include: [db/db.yaml]\n", "shop/db/db.yaml": service("postgres")}
    )
    response = run(folder / "here", "../shop")
    assert response.returncode == 1
    assert response.stdout.startswith("db/db.yaml:5:5: db: image postgres")
    assert "\n../shop/db/db.yaml:5:5: " in f"\n{run(folder / 'here', '../shop', '.').stdout}"
    (folder / "shop" / "compose.yaml").write_text("include: [../other.yaml]\n", encoding="utf-8")
    write({"other.yaml": service("node:22")})
    response = run(folder / "here", "../shop")
    assert response.returncode == 2
    assert "leads out of the checked folder" in response.stdout


def test_a_report_can_be_written_to_a_file(write: Write) -> None:
    folder = write({"compose.yaml": service("postgres")})
    response = run(folder, "compose.yaml", "--format", "sarif", "--output", "hand-offs.sarif")
    assert response.returncode == 1
    assert "compose.yaml:5:5" in response.stderr
    assert json.loads((folder / "hand-offs.sarif").read_text())["runs"][0]["results"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("none.yaml",), "no such file"),
        (("--format", "xml"), "xml"),
        (("--output", "no/such/folder"), "cannot be written"),
    ],
)
def test_wrong_arguments_end_with_a_message(write: Write, arguments: tuple[str, ...], said: str) -> None:
    response = run(write({"compose.yaml": ""}), *arguments)
    assert response.returncode == 2
    assert said in response.stderr
    assert "Traceback" not in response.stderr


def test_this_repository_brings_no_database_of_its_own() -> None:
    report = checked([CHECKOUT / "docs", CHECKOUT / "stacks", CHECKOUT / ".github"], CHECKOUT)
    assert (places(report), report.problems) == ([], set())
