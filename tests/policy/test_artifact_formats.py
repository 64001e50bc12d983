"""The check of hand-offs by format: what each reader finds, lets be and cannot tell, and that its work stays linear."""

import io
import json
import re
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_plane.state_dir import CHECKOUT
from policies.artifacts.discovery import checked

Write = Callable[[dict[str, str | bytes]], Path]
Files = dict[str, str | bytes]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def files(contents: Files) -> Path:
        for name, content in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return files


def archive(files: dict[str, str], *, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
        if link:
            member = tarfile.TarInfo("x/values.yaml")
            member.type, member.linkname = tarfile.SYMTYPE, link
            tar.addfile(member)
    return buffer.getvalue()


CONTAINER = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - {name: a, image: 'example/app:1'}\n"
COMPOSE = "services:\n  web:\n    image: node:22\n"
CHART = "apiVersion: v2\nname: shop\n"
DEPENDS = f"{CHART}dependencies:\n  - {{name: odoo, repository: 'oci://x/bitnamicharts', condition: odoo.enabled}}\n"

FOUND: dict[str, tuple[Files, list[str]]] = {
    # Dockerfiles
    "a package with ARG and ENV": (
        {"Dockerfile": "ARG P=postgresql\nFROM debian:12\nARG P\nENV V=16\nRUN apt-get install -y ${P}-$V\n"},
        ["Dockerfile:5"],
    ),
    "a package with a variable of the shell": (
        {"Dockerfile": 'FROM debian:12\nRUN V="16"; apt-get install -y postgresql-$V\n'}, ["Dockerfile:2"]),
    "a variable of the stage below": (
        {"Dockerfile": "FROM debian:12 AS base\nENV V=16\nFROM base\nRUN apt-get install -y postgresql-${V}\n"},
        ["Dockerfile:4"],
    ),
    "RUN in the exec form": ({"Dockerfile": 'FROM debian:12\nRUN ["apt-get", "install", "-y", "postgresql"]\n'},
                             ["Dockerfile:2"]),
    "an entry point with its command": (
        {"Dockerfile": 'FROM debian:12\nENTRYPOINT ["/usr/bin/tini", "--"]\nCMD ["postgres", "-D", "/d"]\n'},
        ["Dockerfile:2"],
    ),
    "a here-document": ({"Dockerfile": "FROM debian:12\nRUN <<-EOF\n\tapt-get update\n\tapt-get install -y postgresql\n\tEOF\n"},
                        ["Dockerfile:2"]),
    "after a here-document that is none": (
        {"Dockerfile": "FROM debian:12\nRUN echo $((1 << 2)) && echo <<X\nRUN apt-get install -y postgresql\n"},
        ["Dockerfile:3"],
    ),
    "over an empty line and a comment": (
        {"Dockerfile": "FROM debian:12\nRUN apt-get update && \\\n\n# why\n  apt-get install -y postgresql\n"},
        ["Dockerfile:2"],
    ),
    "another sign for continuation": (
        {"Dockerfile": "# escape=`\nFROM debian:12\nRUN apt-get update && `\n  apt-get install -y postgresql\n"},
        ["Dockerfile:3"],
    ),
    "the root of a stage": (
        {"Dockerfile": "FROM debian:12 AS all\nRUN apt-get install -y postgresql\nFROM scratch\nCOPY --from=all / /\n"},
        ["Dockerfile:4"],
    ),
    "the root of a stage by its number, in the exec form": (
        {"Dockerfile": 'FROM postgres:16\nFROM scratch\nCOPY --from=0 ["/", "/"]\n'}, ["Dockerfile:3"]),
    "a stage that copies from a stage": (
        {"Dockerfile": "FROM postgres:16 AS a\nFROM scratch AS b\nCOPY --from=a / /\nFROM scratch\nCOPY --from=b /usr /usr\n"},
        ["Dockerfile:5"],
    ),
    "programs of an image": ({"Dockerfile": "FROM debian:12\nCOPY --from=postgres:16 /usr/lib/postgresql/16/ /pg/\n"},
                             ["Dockerfile:2"]),
    "what a build does to its children": ({"Dockerfile": "FROM debian:12\nONBUILD RUN apt-get install -y postgresql\n"},
                                          ["Dockerfile:2"]),
    "a server's data and settings": ({"Dockerfile": "FROM x/base\nENV PGDATA=/d\nVOLUME /var/lib/postgresql/data\n"},
                                     ["Dockerfile:2", "Dockerfile:3"]),
    "another name of the file": ({"Dockerfile_db": "FROM postgres:16\n", "StoreDockerfile": "FROM postgres:16\n"},
                                 ["Dockerfile_db:1", "StoreDockerfile:1"]),
    # Compose
    "a mount and a command with variables": (
        {"compose.yml": "services:\n  a:\n    image: x/base\n    volumes: ['d:${D:-/var/lib/postgresql/data}']\n"
                        "  b:\n    image: x/base\n    command: ${P:-postgres} -D /d\n"},
        ["compose.yml:2", "compose.yml:5"],
    ),
    "any file in flow style": ({"deploy/local.YML": '"services": {db: {image: "postgres:16"}}\n'}, ["deploy/local.YML:1"]),
    "services with an anchor": ({"a.yml": "services: &all\n  db:\n    image: postgres\n"}, ["a.yml:3"]),
    "services that replace others": ({"a.yml": "services: !override\n  db:\n    image: postgres\n"}, ["a.yml:3"]),
    "a tag that has to be given": ({"compose.yml": "services:\n  db:\n    image: ${R:?which}/postgres:${T:?which}\n"},
                                   ["compose.yml:3"]),
    "a file that COMPOSE_FILE names": (
        {".env": "COMPOSE_FILE=a.txt:b.txt\nIMAGE=postgres\n", "a.txt": COMPOSE, "b.txt": "services:\n  db: {image: '${IMAGE}'}\n"},
        ["b.txt:2"],
    ),
    "the variables of an include, with variables": (
        {"compose.yml": "include:\n  - {path: '${D:-db}/db.txt', project_directory: '${D:-db}', env_file: '${D:-db}/x.env'}\n",
         "db/db.txt": "services:\n  db: {image: '${IMAGE}'}\n", "db/x.env": "IMAGE=postgres\n"},
        ["db/db.txt:2"],
    ),
    "the variables of an include's folder": (
        {"compose.yml": "include:\n  - {path: db/db.txt, project_directory: there}\n",
         "db/db.txt": "services:\n  db: {image: '${IMAGE}'}\n", "there/.env": "IMAGE=postgres\n"},
        ["db/db.txt:2"],
    ),
    "a service that extends one that extends": (
        {"compose.yml": "services:\n  a:\n    extends: {file: b.txt, service: b}\n",
         "b.txt": "services:\n  b: {extends: {file: c.txt, service: c}}\n", "c.txt": "services:\n  c: {image: postgres}\n"},
        ["c.txt:2"],
    ),
    "a build's target with a variable": (
        {"compose.yml": "services:\n  a:\n    build: {context: ., target: '${T:-db}'}\n",
         "Dockerfile": "FROM postgres AS db\nFROM node:22\n"},
        ["Dockerfile:1"],
    ),
    # Kubernetes and Helm
    "JSON in one line": ({"a.json": '{"kind": "Pod", "apiVersion": "v1", "spec": {"containers": [{"image": "postgres"}]}}'},
                         ["a.json:1"]),
    "an array of objects": ({"a.json": '[{"apiVersion": "v1", "kind": "Pod",\n "spec": {"containers": [{"image": "postgres"}]}}]'},
                            ["a.json:2"]),
    "a patch in a text": (
        {"kustomization.yaml": "resources: [app.yaml]\npatches:\n  - patch: |-\n      - op: replace\n"
                               "        path: /spec/containers/0/image\n        value: postgres:16\n", "app.yaml": CONTAINER},
        ["kustomization.yaml:3"],
    ),
    "a patch that is laid over": (
        {"kustomization.yaml": "resources: [app.yaml]\npatchesStrategicMerge:\n  - |-\n    spec:\n      containers:\n"
                               "        - {name: db, image: postgres}\n", "app.yaml": CONTAINER},
        ["kustomization.yaml:3"],
    ),
    "a patch in a file": (
        {"kustomization.yaml": "resources: [app.yaml]\npatches: [{path: p.txt}]\n", "app.yaml": CONTAINER,
         "p.txt": "- {op: add, path: /spec/containers/-, value: {name: db, image: postgres}}\n"},
        ["p.txt:1"],
    ),
    "a patch in a transformer": (
        {"kustomization.yaml": "transformers:\n  - |\n    apiVersion: builtin\n    kind: PatchTransformer\n"
                               "    patch: '[{op: add, path: /spec/containers/-, value: {image: postgres}}]'\n"},
        ["kustomization.yaml:2"],
    ),
    "a patch of Flux": (
        {"k.yaml": "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nspec:\n  patches:\n    - patch: |\n"
                   "        - {op: add, path: /spec/containers/-, value: {image: postgres}}\n"},
        ["k.yaml:5"],
    ),
    "an image that Argo CD puts in": (
        {"a.yaml": "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec:\n  source:\n    kustomize:\n"
                   "      images: ['db=x/postgres:16']\n"},
        ["a.yaml:6"],
    ),
    "the values of a kustomization's chart": (
        {"kustomization.yaml": "helmCharts:\n  - {name: shop, repo: 'https://x', valuesFile: v.txt}\n",
         "v.txt": "postgresql: {enabled: true}\n"},
        ["kustomization.yaml:2"],
    ),
    "a set of applications": (
        {"a.yaml": "apiVersion: argoproj.io/v1alpha1\nkind: ApplicationSet\nspec:\n  generators:\n    - list:\n        elements:\n"
                   "          - {chart: postgresql}\n  template:\n    spec:\n      source: {chart: '{{chart}}', repoURL: 'https://x'}\n"},
        ["a.yaml:7"],
    ),
    "a parameter of Argo CD": (
        {"a.yaml": "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec:\n  source:\n    chart: shop\n    helm:\n"
                   "      parameters: [{name: postgresql.enabled, value: 'true'}]\n"},
        ["a.yaml:4"],
    ),
    "a template with kind first": (
        {"c/Chart.yaml": CHART, "c/templates/db.yaml": "kind: Cluster\nmetadata:\n  name: {{ .x }}\napiVersion: postgresql.cnpg.io/v1\n"},
        ["c/templates/db.yaml:4"],
    ),
    "a template's default": (
        {"c/Chart.yaml": CHART, "c/templates/d.yaml": 'spec:\n  image: {{ .Values.image | default "postgres:16" }}\n'},
        ["c/templates/d.yaml:2"],
    ),
    "a template's format": (
        {"c/Chart.yaml": CHART, "c/templates/d.yaml": 'image: {{ printf "%s/postgres:%s" .Values.r .Values.t }}\n'},
        ["c/templates/d.yaml:1"],
    ),
    "a template outside of charts": ({"k/db.yaml.j2": "apiVersion: v1\nkind: Pod\nspec:\n  image: postgres:{{ tag }}\n"},
                                     ["k/db.yaml.j2:4"]),
    "a default in a helper": (
        {"c/Chart.yaml": CHART, "c/templates/_x.tpl": '{{- default "postgres:16" .Values.image -}}\n'}, ["c/templates/_x.tpl:1"]),
    "a default of a repository": (
        {"c/Chart.yaml": CHART, "c/templates/_x.tpl": '{{- printf "%s:%s" (default "postgres" .Values.image.repository) "16" -}}\n'},
        ["c/templates/_x.tpl:1"]),
    "values for an environment": (
        {"c/Chart.yaml": f"{CHART}dependencies:\n  - {{name: postgresql, alias: db, condition: db.enabled}}\n",
         "c/values.yaml": "db: {enabled: false}\n", "c/values-prod.yaml": "db: {enabled: true}\n"},
        ["c/Chart.yaml:4"],
    ),
    "values by themselves": ({"deploy/shop-values.yaml": "postgresql:\n  enabled: true\n"}, ["deploy/shop-values.yaml:2"]),
    "an archive of a chart": (
        {"c/Chart.yaml": CHART, "c/charts/postgresql-16.2.1.tgz": archive({"postgresql/Chart.yaml": "name: postgresql\n"})},
        ["c/charts/postgresql-16.2.1.tgz:1"],
    ),
    "what an archive's values switch on": (
        {"c/Chart.yaml": f"{CHART}dependencies:\n  - {{name: erp}}\n",
         "c/charts/erp-1.0.0.tgz": archive({"erp/Chart.yaml": "name: erp\n", "erp/values.yaml": "\npostgresql:\n  enabled: true\n"})},
        ["c/charts/erp-1.0.0.tgz/erp/values.yaml:3"],
    ),
    "a helmfile": (
        {"helmfile.yaml": "repositories: [{name: b, url: 'https://x'}]\nreleases:\n  - name: db\n    chart: b/postgresql\n"},
        ["helmfile.yaml:4"],
    ),
    "a template of a helmfile": ({"helmfile.yaml.gotmpl": "releases:\n  - name: {{ .x }}\n    chart: b/postgresql\n"},
                                 ["helmfile.yaml.gotmpl:3"]),
    "a release's values": (
        {"helmfile.yaml": "releases:\n  - name: shop\n    chart: x/shop\n    values: [{postgresql: {enabled: true}}]\n"},
        ["helmfile.yaml:3"],
    ),
    "images under keys of a chart's own": (
        {"c/Chart.yaml": CHART, "c/values.yaml": "db: {repository: postgres, tag: 16}\nimages:\n  store: 'postgres:16'\n"
                                                 "dbImageRepository: postgres\noff: {enabled: false, repository: postgres, tag: 16}\n"},
        ["c/values.yaml:1", "c/values.yaml:3", "c/values.yaml:4"],
    ),
    # Other platforms
    "an application that brings a server": ({"compose.yml": "services:\n  a: {image: 'baserow/baserow:1'}\n"}, ["compose.yml:2"]),
    "a quadlet": ({"db.container": "[Unit]\nDescription=x\n[Container]\nImage=docker.io/library/postgres:16\n"}, ["db.container:4"]),
    "a quadlet's data": ({"db.container": "[Container]\nImage=x/base\nVolume=d.volume:/var/lib/postgresql/data:Z\n"}, ["db.container:1"]),
    "a job of Nomad": ({"db.nomad.hcl": 'task "db" {\n  driver = "docker"\n  config {\n    image = "postgres:16"\n  }\n}\n'},
                       ["db.nomad.hcl:4"]),
    "a development container": (
        {".devcontainer/devcontainer.json": '{\n  // ours\n  "image": "node:22",\n  "features": {\n    "ghcr.io/x/features/postgresql:1": {}\n  },\n}\n'},
        [".devcontainer/devcontainer.json:5"],
    ),
    "a development container's compose file": (
        {".devcontainer/devcontainer.json": '{"dockerComposeFile": "../local.txt"}', "local.txt": "services:\n  db: {image: postgres}\n"},
        ["local.txt:2"],
    ),
    "a database of Render": ({"render.yaml": "databases:\n  - name: db\n    plan: free\nservices: []\n"}, ["render.yaml:2"]),
    "an add-on of Heroku": ({"app.json": '{"name": "shop",\n "addons": [{"plan": "heroku-postgresql:mini"}]}'}, ["app.json:2"]),
    "a Procfile": ({"Procfile": "web: npm start\ndb: postgres -D data\n"}, ["Procfile:2"]),
    "a template of CloudFormation": (
        {"t.yml": "AWSTemplateFormatVersion: '2010-09-09'\nResources:\n  Name:\n    Type: AWS::SSM::Parameter\n  Store:\n"
                  "    Type: AWS::RDS::DBInstance\n    Properties: {Engine: postgres, DBName: !Ref Name}\n"},
        ["t.yml:5"],
    ),
    "what a machine of CloudFormation starts with": (
        {"t.json": json.dumps({"Resources": {"M": {"Type": "AWS::EC2::Instance", "Properties": {
            "UserData": {"Fn::Base64": "#!/bin/sh\napt-get install -y postgresql"}}}}})},
        ["t.json:1"],
    ),
    "a task of ECS": (
        {"t.json": json.dumps({"Resources": {"T": {"Type": "AWS::ECS::TaskDefinition", "Properties": {
            "ContainerDefinitions": [{"Name": "db", "Image": "postgres:16"}]}}}})},
        ["t.json:1"],
    ),
    "a template of Azure": (
        {"azuredeploy.json": '{"$schema": "https://x/2019-04-01/deploymentTemplate.json#",\n "resources": [\n'
                             '  {"type": "Microsoft.DBforPostgreSQL/flexibleServers", "name": "db"}]}'},
        ["azuredeploy.json:3"],
    ),
    "a playbook": (
        {"site.yml": "- hosts: all\n  tasks:\n    - name: db\n      ansible.builtin.apt:\n        name: [curl, postgresql-16]\n"
                     "    - block:\n        - community.docker.docker_container: {name: db, image: 'postgres:16'}\n"},
        ["site.yml:4", "site.yml:7"],
    ),
    "tasks of a role": ({"roles/db/tasks/main.yml": "- shell: docker run -d postgres:16\n- yum: name=postgresql-server state=present\n"},
                        ["roles/db/tasks/main.yml:1", "roles/db/tasks/main.yml:2"]),
    "an application of Fly": ({"fly.toml": 'app = "db"\n[build]\nimage = "postgres:16"\n'}, ["fly.toml:1"]),
}  # fmt: skip


@pytest.mark.parametrize(("files", "found"), FOUND.values(), ids=FOUND)
def test_a_database_is_found_in_each_format(write: Write, files: Files, found: list[str]) -> None:
    report = checked([write(files)], write({}))
    assert [f"{entry.place.file}:{entry.place.line}" for entry in sorted(report.findings)] == found
    assert not report.problems


LET_BE: dict[str, Files] = {
    "a tag that has to be given": {"compose.yml": "services:\n  a:\n    image: ${R:?which}/shop:${T:?which}\n"},
    "a value of .env that cannot be told, of something else": {
        ".env": "PASSWORD=a${b\n", "compose.yml": "services:\n  a:\n    image: x/shop\n    environment: ['P=${PASSWORD}']\n"},
    "the other services of a file that is extended": {
        "compose.yml": "services:\n  a:\n    extends: {file: common.yml, service: base}\n",
        "common.yml": "services:\n  base: {image: 'x/shop'}\n  db: {image: postgres}\n"},
    "a client's programs": {"Dockerfile": "FROM debian:12\nCOPY --from=postgres:16 /usr/bin/psql /usr/lib/postgresql/16/bin/pg_dump /usr/bin/\n"},
    "a result of a stage": {"Dockerfile": "FROM postgres:16 AS t\nRUN true\nFROM node:22\nCOPY --from=t /app/schema.sql /app/\n"},
    "the root of a stage without one": {"Dockerfile": "FROM debian:12 AS all\nFROM scratch\nCOPY --from=all / /\n"},
    "a command that is replaced": {"Dockerfile": 'FROM x/a AS a\nCMD ["postgres"]\nFROM a\nCMD ["node"]\n'},
    "a base whose tag is not known": {"Dockerfile": "ARG V\nFROM node:${V}\n"},
    "a base whose registry is not known": {"Dockerfile": "ARG R\nFROM ${R}/node:22\n"},
    "a base that a compose file gives": {
        "compose.yml": "services:\n  a:\n    build: {context: ., args: {BASE: node}}\n", "Dockerfile": "ARG BASE\nFROM ${BASE}:22\n"},
    "an address as a template's default": {
        "c/Chart.yaml": CHART, "c/templates/d.yaml": 'value: {{ default "postgres:5432" .Values.host }}\n'},
    "a picture among images": {"values.yaml": "images: {hero: /img/postgres.png, store: postgres.svg}\n"},
    "a broken file with a number of services": {"mkdocs.yml": "a: !!python/name:a.b\nservices: 1\nimage: x\n"},
    "a base for each machine": {"Dockerfile": "FROM node:22 AS base-amd64\nFROM node:20 AS base-arm64\nFROM base-${TARGETARCH}\n"},
    "a template's names": {"c/Chart.yaml": CHART, "c/templates/d.yaml": 'image: {{ include "postgresql.image" . }}\n'},
    "values of a chart's tests": {"c/Chart.yaml": CHART, "c/ci/test-values.yaml": "postgresql: {enabled: true}\n"},
    "a chart that is left out with its archive": {
        "c/Chart.yaml": f"{CHART}dependencies:\n  - {{name: postgresql, condition: postgresql.enabled}}\n",
        "c/values.yaml": "postgresql: {enabled: false}\n",
        "c/charts/postgresql-16.2.1.tgz": archive({"postgresql/Chart.yaml": "name: postgresql\n",
                                                   "postgresql/values.yaml": "image: {repository: bitnami/postgresql}\n"})},
    "a chart that is left out with its folder": {
        "c/Chart.yaml": f"{CHART}dependencies:\n  - {{name: postgresql, condition: postgresql.enabled}}\n",
        "c/values.yaml": "postgresql: {enabled: false}\n",
        "c/charts/postgresql/Chart.yaml": "name: postgresql\n",
        "c/charts/postgresql/values.yaml": "image: {repository: bitnami/postgresql}\n"},
    "an archive whose server is switched off from outside": {
        "c/Chart.yaml": f"{CHART}dependencies:\n  - {{name: erp}}\n", "c/values.yaml": "erp: {postgresql: {enabled: false}}\n",
        "c/charts/erp-1.0.0.tgz": archive({"erp/Chart.yaml": "name: erp\n", "erp/values.yaml": "postgresql: {enabled: true}\n"})},
    "a release that is not installed": {"helmfile.yaml": "releases:\n  - {name: db, chart: b/postgresql, installed: false}\n"},
    "a kustomization of what is here": {"kustomization.yaml": "resources: [app.yaml, base]\n", "app.yaml": CONTAINER,
                                        "base/kustomization.yaml": "resources: [../app.yaml]\n"},
    "a service of a test": {".woodpecker.yml": "services:\n  db:\n    image: postgres:16\n",
                            ".github/workflows/a.yml": "jobs:\n  t:\n    services: {db: {image: postgres}}\n"},
    "an add-on for tests": {"app.json": '{"environments": {"test": {"addons": ["heroku-postgresql:in-dyno"]}}}'},
    "a template without one": {"t.yml": "Resources:\n  B: {Type: 'AWS::S3::Bucket', Properties: {BucketName: !Sub 'x-${A}'}}\n"},
    "a playbook of a client": {"site.yml": "- hosts: all\n  tasks:\n    - apt: {name: [postgresql-client, libpq-dev]}\n"
                                           "    - apt: {name: postgresql, state: absent}\n    - shell: psql -h central -c 'select 1'\n"},
    "a job's statement for another database": {"Dockerfile": "FROM x/mysql\nRUN mysql -e 'create database shop'\n"},
    "an application that is given another server": {
        "compose.yml": "services:\n  a:\n    image: baserow/baserow:1\n    environment: {DATABASE_HOST: central}\n"},
    "values that name another server": {"deploy/values.yaml": "postgresql: {host: central, auth: {username: a}}\n"},
    "an application of Expo": {"app.json": '{"expo": {"name": "shop"}}'},
    "a quadlet of an application": {"a.container": "[Container]\nImage=x/shop\nEnvironment=PGHOST=central\n[Service]\nExec=postgres\n"},
    "a client in a Procfile": {"Procfile": "release: psql -h central -f x.sql\n"},
}  # fmt: skip


@pytest.mark.parametrize("files", LET_BE.values(), ids=LET_BE)
def test_what_is_no_database_passes_in_each_format(write: Write, files: Files) -> None:
    report = checked([write(files)], write({}))
    assert (sorted(map(str, report.findings)), sorted(problem.message for problem in report.problems)) == ([], [])


UNCHECKED: dict[str, tuple[Files, str]] = {
    "a base that is not known": ({"Dockerfile": "ARG BASE\nFROM ${BASE}\n"}, "${BASE} has no value here"),
    "a base with only its tag known": ({"Dockerfile": "ARG BASE\nFROM x/${BASE}:16\n"}, "built on is not known"),
    "a stage's base that is copied whole": (
        {"Dockerfile": "ARG BASE\nFROM ${BASE} AS all\nFROM scratch\nCOPY --from=all / /\n"}, "built on is not known"),
    "a value of .env that cannot be told": (
        {".env": "IMAGE=${X\n", "compose.yml": "services:\n  db: {image: '${IMAGE}'}\n"}, "is not known"),
    "a file to extend that is not known": (
        {"compose.yml": "services:\n  a:\n    extends: {file: '${F:?which}', service: b}\n"}, "which file is meant"),
    "a service to extend that is not there": (
        {"compose.yml": "services:\n  a:\n    extends: {file: b.yml, service: b}\n", "b.yml": COMPOSE}, "has no service b"),
    "a kustomization from elsewhere": (
        {"kustomization.yaml": "resources: ['https://git.example.com/a//b?ref=v1']\n"}, "is not here to be checked"),
    "a component from elsewhere": (
        {"kustomization.yaml": "components: ['github.com/example/components/db']\n"}, "is not here to be checked"),
    "a resource that is not there": ({"kustomization.yaml": "resources: [db.yaml]\n"}, "db.yaml cannot be read"),
    "a file that COMPOSE_FILE names and is not there": ({".env": "COMPOSE_FILE=none.yml\n"}, "none.yml cannot be read"),
    "an archive that is none": ({"c/Chart.yaml": CHART, "c/charts/x-1.0.0.tgz": b"\x1f\x8bno"}, "no archive that can be read"),
    "an archive that leads out": ({"c/Chart.yaml": CHART, "c/charts/x-1.0.0.tgz": archive({"../x.yaml": "a: 1"})}, "leads out of it"),
    "an archive of an absolute path": ({"c/Chart.yaml": CHART, "c/charts/x-1.0.0.tgz": archive({"/x.yaml": "a: 1"})}, "leads out of it"),
    "an archive without end": (
        {"c/Chart.yaml": CHART, "c/charts/x-1.0.0.tgz": archive({f"x/{n}.md": " " * 4_000_000 for n in range(9)})}, "unpacks to more than"),
    "an archive of too many": (
        {"c/Chart.yaml": CHART, "c/charts/x-1.0.0.tgz": archive({f"x/{n}": "" for n in range(5_001)})}, "more than 5000 files"),
    "values that set one up without a switch": (
        {"deploy/values.yaml": "postgresql: {auth: {username: a}}\n"}, "whether `postgresql` runs is not known"),
    "a number of images": ({"kustomization.yaml": "images: 5\n"}, "`images` is a list"),
    "a number of dependencies": ({"c/Chart.yaml": f"{CHART}dependencies: 5\n"}, "`dependencies` is a list"),
    "a number of sources": ({"a.yaml": "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec: {sources: 5}\n"}, "`sources` is a list"),
    "a broken development container": ({"devcontainer.json": "{"}, "it is no YAML"),
    "a broken fly.toml": ({"fly.toml": "["}, "it is no TOML"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "message"), UNCHECKED.values(), ids=UNCHECKED)
def test_what_cannot_be_told_is_no_pass_in_each_format(write: Write, files: Files, message: str) -> None:
    report = checked([write({**files, "db/compose.yaml": "services: {db: {image: postgres}}\n"})], write({}))
    (problem,) = report.problems
    assert message in problem.message
    assert report.exit_code == 2
    # The other findings are kept.
    assert [str(finding.place.file) for finding in report.findings] == ["db/compose.yaml"]


def test_a_link_in_an_archive_is_not_followed(write: Write) -> None:
    content = archive({"x/Chart.yaml": "name: x\n"}, link="/etc/passwd")
    report = checked([write({"c/Chart.yaml": CHART, "c/charts/x-1.0.0.tgz": content})], write({}))
    assert (report.findings, report.problems) == (set(), set())


def test_a_changed_env_checks_the_compose_files_that_it_is_for(write: Write) -> None:
    folder = write({"compose.yml": "services:\n  db: {image: '${IMAGE:-node}'}\n", ".env": "IMAGE=postgres\n"})
    (finding,) = checked([folder / ".env"], folder).findings
    assert str(finding.place) == "compose.yml:2:8"


def test_the_hook_is_given_all_that_is_read() -> None:
    (hook,) = yaml.safe_load((CHECKOUT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    program, *options = hook["entry"].split()
    assert (CHECKOUT / "policies" / program).is_file()
    assert options == ["--changed"]
    read = {name for files, _ in FOUND.values() for name in files if not name.endswith((".txt", ".sql"))}
    assert [name for name in sorted(read) if not re.search(hook["files"], name)] == []
    assert not re.search(hook["files"], "src/main.py")


# Whatever stands where

SHAPES: list[tuple[str, Any]] = [
    ("compose.yml", {"include": ["a.yml"], "services": {"a": {"image": "x", "command": ["a"], "volumes": ["a:/b"],
     "environment": ["A=b"], "extends": {"file": "a.yml", "service": "b"}, "build": {"context": ".", "args": ["A=b"],
     "target": "²", "additional_contexts": ["a=b"]}}}}),
    ("kustomization.yaml", {"resources": ["a.yaml"], "images": [{"newName": "x"}], "patches": [{"path": "a", "patch": "- {op: add}"}],
     "helmCharts": [{"name": "a", "repo": "b", "valuesFile": "c", "valuesInline": {"a": 1}}]}),
    ("a.yaml", {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "spec": {"sources": [{"chart": "a", "helm":
     {"values": "a: 1", "parameters": [{"name": "a", "value": "b"}]}}], "source": {"chart": "a"}}}),
    ("b.yaml", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "b",
     "command": ["a"], "env": [{"name": "a"}], "volumeMounts": [{"mountPath": "/a"}]}]}}),
    ("c/Chart.yaml", {"name": "a", "dependencies": [{"name": "a", "alias": "b", "condition": "a.b", "repository": "c"}]}),
    ("c/values.yaml", {"postgresql": {"enabled": True, "image": {"repository": "a", "tag": 1}}, "images": ["a"]}),
    ("helmfile.yaml", {"repositories": [{"name": "a", "url": "b"}], "releases": [{"chart": "a/b", "values": ["x", {"a": 1}],
     "set": [{"name": "a.b", "value": 1}]}]}),
    ("render.yaml", {"databases": [{"name": "a"}], "services": [{"image": {"url": "a"}}]}),
    ("app.json", {"addons": ["a", {"plan": "b"}], "environments": {"review": {"addons": ["a"]}}}),
    (".devcontainer/devcontainer.json", {"image": "a", "features": {"a": {}}, "dockerComposeFile": ["a"], "build":
     {"dockerfile": "a", "args": {"A": "b"}, "target": "a"}}),
]  # fmt: skip


def positions(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield from positions(value, (*path, key))


def replaced(data: Any, path: tuple[Any, ...], value: object) -> Any:
    if not path:
        return value
    copy = data.copy()
    copy[path[0]] = replaced(data[path[0]], path[1:], value)
    return copy


ODD = [5, None, "²", "", [], {}, [5], {"a": 5}, "{{ x }}", "a" * 300]


@pytest.mark.parametrize(("name", "data"), SHAPES, ids=[name for name, _ in SHAPES])
def test_whatever_stands_where_something_else_is_meant_hides_no_other_finding(
    write: Write, name: str, data: Any
) -> None:
    folder = write({"Dockerfile": "FROM postgres:16\n"})
    dump = json.dumps if name.endswith(".json") else yaml.safe_dump
    for path in positions(data):
        for value in ODD:
            write({name: dump(replaced(data, path, value))})
            report = checked([folder], folder)
            assert any(str(finding.place) == "Dockerfile:1:1" for finding in report.findings), (path, value)
            # The net under everything names no reason: none of these may need it.
            assert not [problem for problem in report.problems if "as its format wants it" in problem.message], (
                path,
                value,
            )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(
    st.sampled_from(
        [
            "Dockerfile",
            "a.container",
            "a.nomad",
            "Procfile",
            "fly.toml",
            "kustomization.yaml",
            ".env",
            "devcontainer.json",
        ]
    ),
    st.binary(max_size=300) | st.text(alphabet="FROMCPYRUN= ab:{}[]$\"'\\<\n\t/-#", max_size=200).map(str.encode),
)
def test_any_bytes_in_any_format_end_with_a_report(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    report = checked([tmp_path / name], tmp_path)
    (tmp_path / name).unlink()
    assert report.exit_code in {0, 1, 2}
    assert not [problem for problem in report.problems if "as its format wants it" in problem.message]


# Work

HOSTILE: dict[str, tuple[str, Callable[[int], str]]] = {
    "blank lines": ("notes.yaml", lambda n: "apiVersion\n" + "\n" * n),
    "spaces": ("notes.yaml", lambda n: " " * n + "\napiVersion"),
    "lines of spaces": ("a.json", lambda n: (" " * 60 + "\n") * (n // 60) + '"services'),
    "braces": ("a.yaml", lambda n: "services:\n image: " + "{" * n),
    "blank lines in a block": ("a.yaml", lambda n: f"apiVersion: v1\nkind: ConfigMap\ndata:\n  a: |\n{chr(10) * n}    x\n"),
    "blank lines in a command": ("compose.yml", lambda n: f"services:\n  a:\n    image: x\n    command: |\n      x\n{chr(10) * n}      y\n"),
    "packages": ("Dockerfile", lambda n: "FROM x\nRUN apt-get " + "apt-get " * (n // 8)),
    "installs": ("Dockerfile", lambda n: "FROM x\nRUN " + "apt-get install x " * (n // 18)),
    "runs": ("Dockerfile", lambda n: "FROM x\nRUN " + "docker run -e " * (n // 14)),
    "images": ("Dockerfile", lambda n: "FROM x\nRUN " + "image: " * (n // 7)),
    "instructions": ("Dockerfile", lambda n: "FROM x\n" + "ENV A=b\nRUN echo $A\n" * (n // 20)),
    "variables of variables": ("Dockerfile", lambda n: "FROM x\nENV A=aaaaaaaa\n" + "ENV A=$A$A\n" * (n // 11)),
    "many variables": ("Dockerfile", lambda n: "FROM x\n" + "".join(f"ENV A{k}=b\nRUN echo $A{k}\n" for k in range(n // 25))),
    "here-documents without end": ("Dockerfile", lambda n: "FROM x\n" + "RUN cat <<EOF\n" * (n // 14)),
    "stages": ("Dockerfile", lambda n: "FROM x AS a\nCOPY --from=a / /\n" * (n // 30)),
    "continuations": ("Dockerfile", lambda n: "FROM x\nRUN a \\\n" + "b \\\n" * (n // 4)),
    "spaces in .env": (".env", lambda n: "COMPOSE_FILE=a" + " " * n + "b\n"),
    "values in .env": (".env", lambda n: "A=aaaaaaaa\n" + "A=$A$A\n" * (n // 7)),
    "services": ("compose.yml", lambda n: "services:\n" + "".join(f"  a{k}: {{image: x}}\n" for k in range(n // 20))),
    "a chain of services": (
        "compose.yml", lambda n: "services:\n" + "".join(f"  a{k}: {{extends: a{k + 1}}}\n" for k in range(n // 25)) + "  z: {image: x}\n"),
    "an image of dollars": ("compose.yml", lambda n: "services: {a: {image: '" + "$$" * (n // 2) + "'}}"),
    "a long image": ("compose.yml", lambda n: "services: {a: {image: '" + "a/" * (n // 2) + "'}}"),
    "a long command": ("compose.yml", lambda n: "services: {a: {image: x, command: '" + "postgresx " * (n // 10) + "'}}"),
    "expressions": ("c/templates/a.yaml", lambda n: "image: " + "{{ " * (n // 3)),
    "a template's lines": ("c/templates/a.yaml", lambda n: "kind: {{ a }}\n  image: {{ b }}\n" * (n // 30)),
    "quotes": ("c/templates/a.yaml", lambda n: "image: {{ " + "'" * n),
    "patches": ("kustomization.yaml", lambda n: "patches:\n" + "- {patch: '- {op: add, path: /a/b, value: c}'}\n" * (n // 45)),
    "a long path in a patch": ("kustomization.yaml", lambda n: "patches: [{patch: '- {op: add, path: " + "/a" * (n // 2) + ", value: c}'}]"),
    "values": ("values.yaml", lambda n: "".join(f"image{k}: {{repository: a, tag: b}}\n" for k in range(n // 35))),
    "a quadlet's lines": ("a.container", lambda n: "[Container]\nExec=a \\\n" + "b \\\n" * (n // 4)),
    "resources of a template": (
        "t.yaml", lambda n: "Resources:\n" + "".join(f"  A{k}: {{Type: 'AWS::S3::Bucket'}}\n" for k in range(n // 35))),
    "tasks": ("p.yaml", lambda n: "- hosts: all\n  tasks:\n" + "  - shell: apt-get apt-get install x\n" * (n // 40)),
    "a job's lines": ("a.nomad", lambda n: 'image = "a"\n' * (n // 12)),
    "a Procfile's line": ("Procfile", lambda n: "a: " + "apt-get " * (n // 8)),
    "comments": ("devcontainer.json", lambda n: "/*" * (n // 2)),
    "JSON's comments": ("devcontainer.json", lambda n: "//\n" * (n // 3) + "{}"),
}  # fmt: skip
SIZE = 8_000
SLACK = 2.0


@pytest.mark.parametrize(("name", "text"), HOSTILE.values(), ids=HOSTILE)
def test_work_grows_as_the_input_does(write: Write, name: str, text: Callable[[int], str]) -> None:
    write({"c/Chart.yaml": CHART})

    def seconds(size: int) -> float:
        folder = write({name: text(size)})
        best = float("inf")
        for _ in range(2):
            start = time.process_time()
            checked([folder / name], folder)
            best = min(best, time.process_time() - start)
        return best

    # Four times the input: four times the work if it is linear, sixteen if it is quadratic.
    small, large = seconds(SIZE), seconds(4 * SIZE)
    assert large < max(4 * SLACK * small, 0.06), f"{small * 1000:.0f} ms, then {large * 1000:.0f} ms"
