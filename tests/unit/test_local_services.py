"""Services of this machine: their settings are those that are rendered for a cluster, and their commands are found."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_plane.errors import ServerError
from data_plane.local.rendered import LISTENING, Endpoint, LocalAddresses, Manifests, fill_template
from data_plane.local.service_commands import find_commands, note_commands, working_folder
from data_plane.local.services import ApiSettings
from data_plane.model.catalog import Service
from data_plane.state_dir import StateDir

ADDRESSES = LocalAddresses(
    postgres=54320,
    ports={
        Endpoint("supabase-storage", 5000): 40001,
        Endpoint("supabase-imgproxy", 5001): 40002,
        Endpoint("supabase-meta", 8080): 40003,
    },
)


def deployment(name: str, variables: dict[str, str], ports: dict[str, int], **further: Any) -> dict[str, Any]:
    secrets = further.pop("secrets", {})
    env: list[dict[str, Any]] = [{"name": key, "value": value} for key, value in variables.items()]
    env += [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": owner, "key": entry}}}
        for key, (owner, entry) in secrets.items()
    ]
    container = {
        "name": name.split("-", maxsplit=1)[0],
        "image": f"supabase/{name}:v1.2.3",
        "env": env,
        "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
        "readinessProbe": {"httpGet": {"path": "/status", "port": "http"}},
        "volumeMounts": [
            {"name": "files", "mountPath": "/var/lib/storage"},
            {"name": "scratch", "mountPath": "/scratch"},
        ],
    }
    volumes = [{"name": "files", "persistentVolumeClaim": {}}, {"name": "scratch", "emptyDir": {}}]
    pod = {"containers": [container], "volumes": volumes}
    metadata = {"name": f"supabase-{name}", "namespace": "supabase"}
    return {"kind": "Deployment", "metadata": metadata, "spec": {"template": {"spec": pod}}}


def external_secret(name: str, path: str, entries: dict[str, str]) -> dict[str, Any]:
    spec = {"dataFrom": [{"extract": {"key": path}}], "target": {"template": {"data": entries}}}
    return {"kind": "ExternalSecret", "metadata": {"name": name, "namespace": "supabase"}, "spec": spec}


def manifests(folder: Path, *documents: dict[str, Any]) -> Manifests:
    for number, document in enumerate((deployment("gateway", {}, {"http": 8000}), *documents)):
        (folder / f"{number}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return Manifests(folder)


def environment(found: Manifests, name: str, folder: Path = Path("/state")) -> dict[str, str]:
    (service,) = [item for item in found.services() if item.name == name]
    return service.environment(lambda owner, entry: f"<{owner}/{entry}>", ADDRESSES, folder)


def test_settings_are_the_rendered_ones_but_for_addresses_ports_and_folders(tmp_path: Path) -> None:
    rendered = {
        "SERVER_PORT": "5000",
        "UPLOAD_FILE_SIZE_LIMIT": "5000",
        "REGION": "us-east-1",
        "IMGPROXY_URL": "http://supabase-imgproxy.supabase.svc:5001",
        "STORAGE_PUBLIC_URL": "http://127.0.0.1:8000",
        "STORAGE_FILE_BACKEND_PATH": "/var/lib/storage",
        "SOMEWHERE": "https://supabase.example.com:5001/svc",
    }
    found = environment(manifests(tmp_path, deployment("storage", rendered, {"http": 5000})), "storage")
    assert found == {
        **rendered,
        "SERVER_PORT": "40001",
        "IMGPROXY_URL": "http://127.0.0.1:40002",
        "STORAGE_FILE_BACKEND_PATH": "/state/var-lib-storage",
        "SERVER_HOST": "127.0.0.1",
    }


def test_host_and_port_in_two_variables_become_those_of_this_machine(tmp_path: Path) -> None:
    rendered = {
        "PG_META_PORT": "8080",
        "PG_META_DB_HOST": "supabase-database.supabase-data.svc",
        "PG_META_DB_PORT": "5432",
        "PG_META_DB_SSL_MODE": "disable",
    }
    found = environment(manifests(tmp_path, deployment("meta", rendered, {"http": 8080})), "meta")
    assert found == {
        "PG_META_PORT": "40003",
        "PG_META_DB_HOST": "127.0.0.1",
        "PG_META_DB_PORT": "54320",
        "PG_META_DB_SSL_MODE": "disable",
        "PG_META_HOST": "127.0.0.1",
    }


def test_every_service_that_can_run_here_listens_on_the_loopback_address_alone(tmp_path: Path) -> None:
    documents = [
        deployment(str(service), dict.fromkeys(LISTENING[service], "::"), {"http": 1}) for service in LISTENING
    ]
    found = manifests(tmp_path, *documents)
    for service, variables in LISTENING.items():
        settings = environment(found, str(service))
        assert {settings[name] for name in variables} == {"127.0.0.1"}


def test_secrets_are_filled_in_and_encoded_as_external_secrets_does(tmp_path: Path) -> None:
    url = (
        'postgres://x:{{ .PASSWORD | urlquery | replace "+" "%20" }}@supabase-database.supabase-data.svc:5432/postgres'
    )
    found = manifests(tmp_path, external_secret("supabase-auth", "supabase/auth", {"URL": url, "KEY": "{{ .KEY }}"}))
    values = {"supabase/auth": {"PASSWORD": "a b@/#%", "KEY": "a b"}}
    assert found.secret("supabase-auth", values.__getitem__, str) == {
        "URL": "postgres://x:a%20b%40%2F%23%25@supabase-database.supabase-data.svc:5432/postgres",
        "KEY": "a b",
    }


def test_keys_of_both_signers_are_believed(tmp_path: Path) -> None:
    found = manifests(
        tmp_path, external_secret("supabase-jwks-public", "supabase/jwks", {"jwks.json": "{{ a template }}"})
    )
    auth = json.dumps({"keys": [{"kid": "auth"}]})
    secret = found.secret("supabase-jwks-public", lambda _: {"JWT_JWKS": auth}, lambda: '{"keys": [{"kid": "bao"}]}')
    assert json.loads(secret["jwks.json"]) == {"keys": [{"kid": "auth"}, {"kid": "bao"}]}


@pytest.mark.parametrize(
    ("text", "message"),
    [("{{ .MISSING }}", "no value for MISSING"), ("{{ .KEY | b64enc }}", "cannot be filled in")],
)
def test_a_template_that_cannot_be_filled_in_is_refused(text: str, message: str) -> None:
    with pytest.raises(ServerError, match=message):
        fill_template(text, {"KEY": "x"})


def test_without_manifests_the_message_says_what_writes_them(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="run `dataplane up`"):
        Manifests(tmp_path)


def program(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_named_command_is_remembered_and_can_be_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = StateDir(tmp_path / "home")
    auth = program(tmp_path, "bin/auth")
    monkeypatch.setenv("PATH", os.defpath)
    for name in ("DATA_PLANE_POSTGREST", "DATA_PLANE_STORAGE", "DATA_PLANE_POSTGRES_META"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_PLANE_AUTH", f"{auth} 'serve it'")
    note_commands(home)
    assert find_commands(home) == {Service.AUTH: [str(auth), "serve it"]}
    monkeypatch.delenv("DATA_PLANE_AUTH")
    note_commands(home)
    assert find_commands(home) == {Service.AUTH: [str(auth), "serve it"]}
    monkeypatch.setenv("DATA_PLANE_AUTH", "")
    note_commands(home)
    assert find_commands(home) == {}


@pytest.mark.parametrize(("told", "message"), [("/nowhere/auth", "no program"), ("auth 'serve", "expected a command")])
def test_a_command_that_cannot_be_run_is_refused_by_its_variable(
    told: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_PLANE_AUTH", told)
    with pytest.raises(ServerError, match=f"DATA_PLANE_AUTH.*{message}"):
        note_commands(StateDir(tmp_path))


def test_postgres_meta_is_found_on_path_or_where_npm_has_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = StateDir(tmp_path / "home")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    server = program(home.path, "npm/node_modules/@supabase/postgres-meta/dist/server/server.js")
    assert find_commands(home) == {}
    node = program(tmp_path, "bin/node")
    assert find_commands(home) == {Service.META: [str(node), str(server)]}
    meta = program(tmp_path, "bin/postgres-meta")
    assert find_commands(home) == {Service.META: [str(meta)]}


def test_a_service_runs_in_the_folder_of_its_package_or_its_migrations(tmp_path: Path) -> None:
    script = program(tmp_path, "storage/dist/start/server.js")
    (tmp_path / "storage" / "package.json").touch()
    binary = program(tmp_path, "auth/auth")
    (tmp_path / "auth" / "migrations").mkdir()
    assert working_folder(["/usr/bin/env", str(script)], tmp_path) == tmp_path / "storage"
    assert working_folder([str(binary), "serve"], tmp_path) == tmp_path / "auth"
    assert working_folder(["/bin/sh", "-c", "exit"], tmp_path) == tmp_path


@pytest.mark.parametrize("url", ["https://127.0.0.1:8000", "http://supabase.example.com", "http://127.0.0.1:8000/api"])
def test_a_url_that_is_not_of_this_machine_is_refused(url: str) -> None:
    with pytest.raises(ServerError, match="needs one such as"):
        ApiSettings(url, Path("/rendered")).port  # noqa: B018 the property raises


def test_the_gateway_listens_on_the_port_of_the_url() -> None:
    assert ApiSettings("http://localhost:8123", Path("/rendered")).port == 8123
