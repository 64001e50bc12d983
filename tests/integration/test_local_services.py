"""Services of this machine: started with the rendered settings behind the gateway, kept going, and ended.

postgres-meta is the real one where npm is; a small program that tells its settings stands in for each of the others.
"""

import json
import os
import re
import shutil
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import psycopg
import pytest
import requests
import yaml

from data_plane.errors import ServerError
from data_plane.local.environment import LocalEnvironment
from data_plane.local.processes import LOOPBACK, free_port, wait_until
from data_plane.local.rendered import LISTENING
from data_plane.local.servers import Servers
from data_plane.local.service_commands import COMMAND_VARIABLES
from data_plane.model.catalog import Service
from tests.support.data_planes import brought_up

SHOP = "slug: shop\ndisplay_name: Shop\ncell: cell-1\nowners: [ann]\nmanaged_services: [postgres, auth, storage]\n"
STAND_IN = """\
#!{python}
import http.server, json, os, sys

class Tell(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({{"path": self.path, "settings": dict(os.environ), "folder": os.getcwd()}}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *_): pass

ports = [int(os.environ[name]) for name in sys.argv[1:]]
for port in ports[1:]:
    if not os.fork():
        http.server.HTTPServer(("127.0.0.1", port), Tell).serve_forever()
http.server.HTTPServer(("127.0.0.1", ports[0]), Tell).serve_forever()
"""
PORT_VARIABLES = {
    Service.REST: "PGRST_SERVER_PORT PGRST_ADMIN_SERVER_PORT",
    Service.AUTH: "GOTRUE_API_PORT",
    Service.STORAGE: "SERVER_PORT",
    Service.META: "PG_META_PORT",
}
FROM_THE_MACHINE = {"HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ"}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEnvironment]:
    with brought_up(tmp_path_factory.mktemp("services"), {"shop.yaml": SHOP}) as made:
        file = made.root / "stacks" / "Pulumi.local-central.yaml"
        url = f"http://{LOOPBACK}:{free_port()}"
        file.write_text(file.read_text(encoding="utf-8").replace("http://127.0.0.1:8000", url), encoding="utf-8")
        yield made


@pytest.fixture(scope="module")
def servers(plane: LocalEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    program = tmp_path_factory.mktemp("programs") / "stand-in"
    program.write_text(STAND_IN.format(python=sys.executable), encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    made = Servers(plane.servers.home, root=plane.root)
    with pytest.MonkeyPatch.context() as patch:
        for service, variable in COMMAND_VARIABLES.items():
            patch.setenv(variable, f"{program} {PORT_VARIABLES[service]}")
        if shutil.which("npm"):
            patch.delenv(COMMAND_VARIABLES[Service.META])
        made.start(services=True, install_postgres_meta=bool(shutil.which("npm")))
        yield made
        made.services.stop()


@pytest.fixture(scope="module")
def url(servers: Servers) -> str:
    assert servers.services.settings is not None
    return servers.services.settings.url


@pytest.fixture(scope="module")
def keys(servers: Servers) -> dict[str, str]:
    found = servers.openbao.client().secrets.kv.v2.read_secret_version(
        path="supabase", mount_point="connectors", raise_on_deleted_version=True
    )
    return dict(found["data"]["data"])


def noted(servers: Servers) -> dict[str, Any]:
    return {item["name"]: item for item in servers.services.services()}


def get(url: str, path: str, key: str | None = None, **headers: str) -> requests.Response:
    sent = {**({"apikey": key} if key else {}), **headers}
    return requests.get(url + path, headers=sent, timeout=60)


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended. A process that ended and is not reaped yet does not count."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_every_service_with_a_command_runs_one_postgrest_for_each_cell(servers: Servers) -> None:
    assert {name: item["state"] for name, item in noted(servers).items()} == dict.fromkeys(
        ("auth", "meta", "rest", "rest-cell-cell-1", "storage"), "running"
    )


@pytest.mark.parametrize(
    ("path", "deployment"), [("/auth/v1/settings", "auth"), ("/rest/v1/todos", "rest"), ("/storage/v1/x", "storage")]
)
def test_a_service_has_the_rendered_settings(
    path: str, deployment: str, servers: Servers, url: str, keys: dict[str, str]
) -> None:
    assert servers.services.settings is not None
    (file,) = servers.services.settings.manifests.rglob(f"*deployment-*-supabase-{deployment}.yaml")
    container = yaml.safe_load(file.read_bytes())["spec"]["template"]["spec"]["containers"][0]
    rendered = {item["name"]: item.get("value") for item in container["env"]}
    told = get(url, path, keys["SUPABASE_PUBLISHABLE_KEY"]).json()["settings"]
    further = {name: value for name, value in told.items() if name not in {*rendered, *FROM_THE_MACHINE}}
    assert further == dict.fromkeys({*LISTENING[Service(deployment)]} - {*rendered}, LOOPBACK)
    assert set(rendered) <= set(told)
    for name, value in rendered.items():
        if value is not None and not name.endswith(("_PORT", "_HOST", "_PATH")) and ".svc" not in value:
            assert told[name] == value
    assert not re.search(r"\.svc\b|\{\{", json.dumps(told)), "an address of the cluster, or a template, is left"


def test_logins_of_the_settings_work(servers: Servers, url: str, keys: dict[str, str]) -> None:
    for path, name in (("/auth/v1/x", "GOTRUE_DB_DATABASE_URL"), ("/rest/v1/x", "PGRST_DB_URI")):
        told = get(url, path, keys["SUPABASE_PUBLISHABLE_KEY"]).json()["settings"]
        with psycopg.connect(told[name]) as connection:
            assert connection.execute("select 1").fetchone() == (1,)


def test_a_token_of_a_project_gets_to_the_postgrest_of_its_cell(
    url: str, keys: dict[str, str], plane: LocalEnvironment
) -> None:
    token = plane.sign_in("ann").read("identity/oidc/token/proj_shop_authenticated")["data"]["token"]
    response = get(url, "/rest/v1/x", keys["SUPABASE_PUBLISHABLE_KEY"], authorization=f"Bearer {token}")
    assert "cell_cell_1_authenticator" in response.json()["settings"]["PGRST_DB_URI"]


def test_postgres_meta_is_for_the_secret_key_alone(url: str, keys: dict[str, str]) -> None:
    assert get(url, "/pg/health").status_code == 401
    assert get(url, "/pg/health", keys["SUPABASE_PUBLISHABLE_KEY"]).status_code == 403
    response = get(url, "/pg/schemas", keys["SUPABASE_SECRET_KEY"])
    assert response.status_code == 200, response.text
    if shutil.which("npm"):
        assert "storage" in {schema["name"] for schema in response.json()}


def test_status_shows_the_services_and_what_lacks(servers: Servers, url: str) -> None:
    shown = {item.name: item for item in servers.status()}
    assert (shown["API gateway"].running, shown["API gateway"].address) == (True, url)
    assert shown["auth"].running
    assert shown["auth"].remark.endswith("auth.log")


def test_a_service_that_ends_is_started_again(servers: Servers, url: str, keys: dict[str, str]) -> None:
    before = noted(servers)["auth"]["pid"]
    os.kill(before, signal.SIGKILL)
    assert wait_until(lambda: noted(servers)["auth"].get("pid") not in {None, before}, 60)
    assert wait_until(lambda: noted(servers)["auth"]["state"] == "running", 60)
    assert get(url, "/auth/v1/settings", keys["SUPABASE_PUBLISHABLE_KEY"]).status_code == 200


def test_services_outlive_a_killed_gateway_and_are_ended_with_it(servers: Servers) -> None:
    children = [psutil.Process(item["pid"]) for item in noted(servers).values()]
    pid = servers.services.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: servers.services.pid is None, 60)
    gateway = next(item for item in servers.status() if item.name == "API gateway")
    assert not gateway.running
    assert "nothing listens at SUPABASE_URL" in gateway.remark
    servers.services.start()
    assert not any(map(runs, children))
    assert {item["state"] for item in noted(servers).values()} == {"running"}
    after = [psutil.Process(item["pid"]) for item in noted(servers).values()]
    servers.services.stop()
    assert not any(map(runs, after))


def test_a_taken_port_is_named_with_what_to_do(servers: Servers, url: str) -> None:
    servers.services.stop()
    with socket.socket() as other:
        # As servers do: requests that have just ended keep a port from all others.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((LOOPBACK, int(url.rpartition(":")[2])))
        other.listen()
        with pytest.raises(ServerError, match=r"where SUPABASE_URL is, is taken .* change apiUrl"):
            servers.services.start()
