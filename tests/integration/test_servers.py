"""The local servers: persistent, safe to start twice, and clear when something is in their way."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from components.central.files import platform_sql
from data_plane import state_dir as home_module
from data_plane.errors import DataPlaneError, ServerError, StateDirError
from data_plane.local.openbao import LocalOpenBao
from data_plane.local.postgres import LocalPostgres
from data_plane.local.processes import free_port, is_free, port_for, wait_until
from data_plane.local.servers import Servers
from data_plane.state_dir import StateDir


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    made = Servers(StateDir(tmp_path / "home"))
    yield made
    if made.home.path.is_dir():
        made.stop()


def test_data_and_addresses_survive_a_restart(servers: Servers) -> None:
    servers.start()
    before = [item.address for item in servers.status()]
    with servers.postgres.connect() as admin:
        admin.execute("create table public.kept as select 1 as a")
    servers.openbao.client().write_data(
        "sys/policies/acl/kept", data={"policy": 'path "x" { capabilities = ["deny"] }'}
    )
    pids = servers.home.read_json("openbao.json")["pid"]
    servers.start()
    assert servers.home.read_json("openbao.json")["pid"] == pids, "started twice"
    servers.stop()
    assert not any(item.running for item in servers.status())
    servers.stop()
    servers.start()
    assert [item.address for item in servers.status()] == before
    with servers.postgres.connect() as admin:
        assert admin.execute("select a from public.kept").fetchone() == (1,)
    assert servers.openbao.client().read("sys/policies/acl/kept") is not None
    assert not servers.openbao.sealed
    servers.reset()
    assert not servers.home.path.exists()


def test_the_usual_extensions_stand_in_the_schema_extensions(servers: Servers) -> None:
    servers.start()
    usual = servers.postgres.programs.usual_extensions
    assert usual, "this PostgreSQL has none of the extensions that projects use"
    servers.start()  # finds them there
    with servers.postgres.connect() as admin:
        found = admin.execute("select extname, extnamespace::regnamespace::text from pg_extension").fetchall()
        assert set(found) == {("plpgsql", "pg_catalog"), *((name, "extensions") for name in usual)}
        if "uuid-ossp" in usual:
            assert admin.execute("select extensions.uuid_generate_v4() is not null").fetchone() == (True,)
        if "pgcrypto" in usual:
            assert admin.execute("select length(extensions.crypt('a', extensions.gen_salt('bf', 4)))").fetchone() == (
                60,
            )


def test_servers_listen_on_loopback_only(servers: Servers) -> None:
    servers.start()
    for port in (servers.postgres.port, servers.openbao.port):
        assert port is not None
        assert not is_free(port)
        listening = Path("/proc/net/tcp").read_text(encoding="utf-8")
        wanted = f":{port:04X} "
        addresses = {line.split()[1] for line in listening.splitlines()[1:] if line.split()[1].endswith(wanted.strip())}
        assert addresses == {f"0100007F:{port:04X}"}


def test_the_relay_runs_with_the_servers_and_ends_with_them(servers: Servers) -> None:
    servers.start()
    pid = servers.relay.pid
    assert pid is not None
    assert wait_until(lambda: bool(_processes_with(f"RELAY_FOLDER={servers.home.path}")), 60)
    servers.start()
    assert servers.relay.pid == pid, "started twice"
    with servers.postgres.connect() as admin:
        admin.execute(platform_sql().encode())
    done = servers.home.path / "relay" / "done"
    assert wait_until(done.exists, 60)
    began = done.stat().st_mtime_ns
    assert wait_until(lambda: done.stat().st_mtime_ns > began, 60), "the database answers once it has the platform"
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: servers.relay.pid is None, 60)
    servers.start()
    servers.stop()
    assert servers.relay.pid is None
    log = (servers.home.path / "relay.log").read_text(encoding="utf-8")
    assert servers.postgres.admin_password not in log
    assert wait_until(lambda: not _processes_with(f"RELAY_FOLDER={servers.home.path}"), 60), "of what they began, too"


def _processes_with(variable: str) -> list[str]:
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if variable.encode() in environment.read_bytes():
                found.append(environment.parent.name)
    return found


def test_a_taken_port_is_named_with_the_way_out(servers: Servers) -> None:
    servers.home.prepare()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        servers.home.write_json("ports.json", {"postgres": port})
        with pytest.raises(ServerError, match=rf"port {port} on 127\.0\.0\.1, which postgres uses, is taken") as caught:
            servers.start()
        assert "DATA_PLANE_POSTGRES_PORT" in str(caught.value)


def test_no_connection_is_given_the_port_of_a_server_that_is_down() -> None:
    """Nor one that is about to start; the kernel chooses connections' ports from this range."""
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="utf-8")
    lowest, highest = map(int, text.split())
    assert not [port for port in (free_port() for _ in range(200)) if lowest <= port <= highest]


def test_servers_that_are_down_keep_ports_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([15000, 15000, 15001])
    monkeypatch.setattr("secrets.choice", lambda _ports: next(drawn))
    home = StateDir(tmp_path)
    monkeypatch.setattr("data_plane.local.processes.is_free", lambda _port: True)
    assert [port_for(server, home) for server in ("openbao", "openbao_cluster")] == [15000, 15001]


@pytest.mark.parametrize("value", ["0", "70000", "x", "-1"])
def test_a_port_that_is_none_is_refused(servers: Servers, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DATA_PLANE_POSTGRES_PORT", value)
    with pytest.raises(ServerError, match="expected a port from 1 to 65535"):
        servers.start()


def test_a_full_disk_is_named_before_anything_is_written(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=10 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(ServerError, match=r"has 10 MiB free and the servers need 512 MiB"):
        servers.start()
    assert not (servers.home.path / "postgres").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StateDirError, match=r"cannot be used: .*DATA_PLANE_HOME"):
        Servers(StateDir(tmp_path / "file" / "home")).start()


def test_another_version_of_postgresql_is_refused_with_both_named(tmp_path: Path) -> None:
    server = LocalPostgres(StateDir(tmp_path / "home"))
    server.home.prepare()
    server.data.mkdir()
    (server.data / "PG_VERSION").write_text("9\n", encoding="utf-8")
    with pytest.raises(ServerError, match=r"was made by PostgreSQL 9, and .* has 1"):
        server.start()


def test_an_interrupted_initialisation_is_begun_again(servers: Servers) -> None:
    servers.home.prepare()
    (servers.home.path / "postgres" / "base").mkdir(parents=True)
    servers.postgres.start()
    with servers.postgres.connect() as admin:
        assert admin.execute("select 1").fetchone() == (1,)


def test_a_killed_openbao_is_started_and_unsealed_again(servers: Servers) -> None:
    servers.start()
    pid = int(servers.home.read_json("openbao.json")["pid"])
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    servers.start()
    assert not servers.openbao.sealed


def test_lost_keys_are_said_to_be_lost(servers: Servers) -> None:
    servers.start()
    servers.stop()
    (servers.home.path / "openbao-keys.json").unlink()
    with pytest.raises(ServerError, match=r"openbao-keys\.json is missing, so OpenBao cannot be unsealed"):
        servers.start()


def test_a_damaged_file_is_named(servers: Servers) -> None:
    servers.home.prepare()
    (servers.home.path / "ports.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataPlaneError, match=r"ports\.json is damaged"):
        servers.start()


def test_openbao_that_is_not_running_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="never started: run `dataplane up`"):
        _ = LocalOpenBao(StateDir(tmp_path)).address
    (tmp_path / "openbao").mkdir()
    with pytest.raises(ServerError, match="not running: run `dataplane local start`"):
        _ = LocalOpenBao(StateDir(tmp_path)).address


def test_openbao_is_no_development_server(servers: Servers) -> None:
    servers.start()
    pid = servers.home.read_json("openbao.json")["pid"]
    command = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
    assert "-dev" not in command
    status = servers.openbao.client().read("sys/seal-status") or {}
    assert status.get("storage_type", status.get("data", {}).get("storage_type")) == "raft"


def test_a_second_process_waits_for_the_first(servers: Servers) -> None:
    """Two `start`s at once end with one pair of servers."""
    code = "from data_plane.state_dir import StateDir; from data_plane.local.servers import Servers; import sys; "
    code += f"Servers(StateDir(__import__('pathlib').Path({str(servers.home.path)!r}))).start()"
    root = Path(home_module.__file__).parents[1]
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=root) for _ in range(2)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert [item.running for item in servers.status()[:2]] == [True, True]
