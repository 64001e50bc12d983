"""OpenBao sealed, killed, slow, silent, cut off, or with a gateway before it that answers in its place."""

import psutil
import pytest
from hvac.exceptions import VaultError

from data_plane.clients import openbao
from data_plane.connector.bindings import LocalDataPlane
from data_plane.connector.leases import LeaseClient
from data_plane.errors import LeaseError
from data_plane.local.processes import wait_until
from data_plane.model.naming import AccessLevel
from tests.conftest import bring_up
from tests.faults.behind import Behind
from tests.state import differences, state

EARLY = "alpha-schema-owner"
"""A resource of the cell that comes before all of OpenBao's."""


def test_sealed_in_the_middle_it_is_named_and_the_next_run_finishes(behind: Behind) -> None:
    seconds = behind.change()
    message = behind.refusal(EARLY, behind.local_env.servers.openbao.client().sys.seal)
    assert "sealed: unseal it (`bao operator unseal`" in message
    assert "is sealed: unseal it (`bao operator unseal`" in behind.refusal()
    behind.local_env.servers.start()
    behind.run()
    assert behind.is_applied(seconds)


def test_killed_in_the_middle_and_started_again_nothing_is_lost(behind: Behind) -> None:
    before = state(behind.local_env)
    seconds = behind.change()
    servers = behind.local_env.servers

    def kill() -> None:
        process = psutil.Process(int(servers.home.read_json("openbao.json")["pid"]))
        process.kill()
        process.wait(60)  # starting another process may have reaped it

    message = behind.refusal(EARLY, kill)
    assert "OpenBao at http://127.0.0.1" in message
    assert "run the same command again" in message
    servers.start()
    behind.run()
    assert behind.is_applied(seconds)
    assert set(differences(before, state(behind.local_env))) == {"settings", "lease roles"}


def test_slow_answers_make_a_run_slow_and_nothing_else(behind: Behind) -> None:
    before, seconds = state(behind.local_env), behind.change()
    behind.openbao.delay_seconds = 0.03
    already = behind.openbao.delayed
    try:
        run = behind.run()
    finally:
        behind.openbao.delay_seconds = 0.0
    assert behind.openbao.delayed > already + 20, "hardly anything was slow"
    assert run.created == 0
    assert behind.is_applied(seconds)
    assert set(differences(before, state(behind.local_env))) == {"settings", "lease roles"}


def test_connections_that_are_cut_now_and_then_are_made_again(behind: Behind) -> None:
    seconds = behind.change()
    already = behind.openbao.connections
    behind.openbao.cut = lambda number: number in (already + 1, already + 4, already + 7)
    try:
        bring_up(behind.local_env)
    finally:
        behind.openbao.cut = lambda _number: False
    assert behind.openbao.connections > already + 7, "nothing was cut"
    assert behind.is_applied(seconds)


def test_a_server_that_takes_connections_and_says_nothing_is_not_waited_for_for_ever(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind.openbao.silent = True
    try:
        with monkeypatch.context() as patch:
            patch.setattr(openbao, "_TIMEOUT_SECONDS", 1)
            message = behind.refusal()
    finally:
        behind.openbao.silent = False
        behind.openbao.cut_all()
    assert "no answer within 1 s; see how it is loaded, then run the same command again" in message
    behind.run()


@pytest.mark.parametrize(
    "status", ["429 Too Many Requests", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"]
)
def test_a_gateway_that_refuses_for_a_moment_is_asked_again_and_one_that_goes_on_is_named(
    behind: Behind, status: str
) -> None:
    servers, first = behind.local_env.servers, behind.openbao.connections
    busy = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"
    behind.openbao.response = lambda number: busy.encode() if number <= first + 2 else None
    try:
        client = openbao.connect(servers.openbao.address, servers.openbao.root_token)
        assert behind.openbao.connections == first + 3, "it was not asked three times"
        behind.openbao.response = lambda _number: busy.encode()
        behind.openbao.cut_all()
        with pytest.raises(VaultError) as caught:
            client.read("sys/mounts")
    finally:
        behind.openbao.response = lambda _number: None
    assert "run the same command again" in openbao.explain(caught.value)


def test_a_quota_on_requests_slows_a_run_and_does_not_end_it(behind: Behind) -> None:
    seconds = behind.change()
    behind.local_env.servers.openbao.client().write_data(
        "sys/quotas/rate-limit/tried", data={"rate": 60, "interval": "1s"}
    )
    try:
        behind.run()
    finally:
        assert wait_until(lambda: lifted(behind), 60)
    assert behind.is_applied(seconds)


def lifted(behind: Behind) -> bool:
    adapter = behind.local_env.servers.openbao.client().adapter
    return bool(adapter.request("delete", "/v1/sys/quotas/rate-limit/tried", raise_exception=False).ok)


def test_what_is_no_openbao_is_named(behind: Behind) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>"
    behind.openbao.response = lambda _number: page
    try:
        message = behind.refusal()
    finally:
        behind.openbao.response = lambda _number: None
    assert "is not OpenBao: see what stands before it, and whether the address is right" in message


def test_a_lease_that_a_sealed_openbao_cannot_give_says_so(behind: Behind) -> None:
    leases = LeaseClient(behind.local_env.sign_in("olga"))
    binding = LocalDataPlane(behind.local_env).binding("alpha")
    behind.local_env.servers.openbao.client().sys.seal()
    try:
        with pytest.raises(
            LeaseError,
            match=r"no lease for alpha as owner: Vault is sealed: unseal it .*on this machine `dataplane local start`",
        ):
            leases.issue(binding, AccessLevel.OWNER)
    finally:
        behind.local_env.servers.start()
    assert leases.issue(binding, AccessLevel.OWNER).username.startswith("lease_proj_alpha_owner_")


def test_after_all_of_that_there_is_nothing_to_do(behind: Behind) -> None:
    assert [(run.created, run.updated) for run in bring_up(behind.local_env)] == [(0, 0), (0, 0)]
