"""OpenBao sealed, killed, slow, silent, cut off, or with a gateway before it that answers in its place."""

import os

import pytest
from hvac.exceptions import VaultError

from components import openbao
from components.naming import AccessLevel
from connector.bindings import LocalDataPlane
from connector.errors import LeaseError
from connector.leases import LeaseClient
from embedded.processes import wait_until
from tests.conftest import bring_up
from tests.faults.behind import Behind
from tests.state import differences, state

EARLY = "alpha-schema-owner"
"""A resource of the cell that comes before all of OpenBao's."""


def test_sealed_in_the_middle_it_is_named_and_the_next_run_finishes(behind: Behind) -> None:
    seconds = behind.change()
    said = behind.refusal(EARLY, behind.workplace.servers.openbao.client().sys.seal)
    assert "sealed: unseal it and run the same command again" in said
    assert "is sealed: unseal it and run the command again" in behind.refusal()
    behind.workplace.servers.start()
    behind.run()
    assert behind.is_applied(seconds)


def test_killed_in_the_middle_and_started_again_nothing_is_lost(behind: Behind) -> None:
    before = state(behind.workplace)
    seconds = behind.change()
    servers = behind.workplace.servers

    def kill() -> None:
        pid = int(servers.home.read_json("openbao.json")["pid"])
        os.kill(pid, 9)
        os.waitpid(pid, 0)

    said = behind.refusal(EARLY, kill)
    assert "OpenBao at http://127.0.0.1" in said
    assert "run the same command again" in said
    servers.start()
    behind.run()
    assert behind.is_applied(seconds)
    assert set(differences(before, state(behind.workplace))) == {"settings", "lease roles"}


def test_slow_answers_make_a_run_slow_and_nothing_else(behind: Behind) -> None:
    seconds = behind.change()
    behind.openbao.delay_seconds = 0.03
    try:
        behind.run()
    finally:
        behind.openbao.delay_seconds = 0.0
    assert behind.is_applied(seconds)


def test_connections_that_are_cut_now_and_then_are_made_again(behind: Behind) -> None:
    seconds = behind.change()
    already = behind.openbao.connections
    behind.openbao.cut = lambda number: number in (already + 1, already + 4, already + 7)
    try:
        bring_up(behind.workplace)
    finally:
        behind.openbao.cut = lambda _number: False
    assert behind.openbao.connections > already + 7, "nothing was cut"
    assert behind.is_applied(seconds)


def test_a_server_that_takes_connections_and_says_nothing_is_not_waited_for_for_ever(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openbao, "_TIMEOUT_SECONDS", 1)
    behind.openbao.silent = True
    try:
        said = behind.refusal()
    finally:
        behind.openbao.silent = False
        behind.openbao.cut_all()
    assert "no answer within 1 s; see how it is loaded, then run the same command again" in said
    behind.run()


@pytest.mark.parametrize(
    "status", ["429 Too Many Requests", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"]
)
def test_a_gateway_that_refuses_for_a_moment_is_asked_again_and_one_that_goes_on_is_named(
    behind: Behind, status: str
) -> None:
    servers, first = behind.workplace.servers, behind.openbao.connections
    busy = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"
    behind.openbao.answer = lambda number: busy.encode() if number <= first + 2 else None
    try:
        client = openbao.connect(servers.openbao.address, servers.openbao.root_token)
        assert behind.openbao.connections == first + 3, "it was not asked three times"
        behind.openbao.answer = lambda _number: busy.encode()
        behind.openbao.cut_all()
        with pytest.raises(VaultError) as caught:
            client.read("sys/mounts")
    finally:
        behind.openbao.answer = lambda _number: None
    assert "run the same command again" in openbao.explain(caught.value)


def test_a_quota_on_requests_slows_a_run_and_does_not_end_it(behind: Behind) -> None:
    seconds = behind.change()
    behind.workplace.servers.openbao.client().write_data(
        "sys/quotas/rate-limit/tried", data={"rate": 60, "interval": "1s"}
    )
    try:
        behind.run()
    finally:
        assert wait_until(lambda: lifted(behind), 10)
    assert behind.is_applied(seconds)


def lifted(behind: Behind) -> bool:
    adapter = behind.workplace.servers.openbao.client().adapter
    return bool(adapter.request("delete", "/v1/sys/quotas/rate-limit/tried", raise_exception=False).ok)


def test_what_is_no_openbao_is_named(behind: Behind) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>"
    behind.openbao.answer = lambda _number: page
    try:
        said = behind.refusal()
    finally:
        behind.openbao.answer = lambda _number: None
    assert "is not OpenBao: see what stands before it, and whether the address is right" in said


def test_a_lease_that_a_sealed_openbao_cannot_give_says_so(behind: Behind) -> None:
    leases = LeaseClient(behind.workplace.sign_in("olga"))
    binding = LocalDataPlane(behind.workplace).binding("alpha")
    behind.workplace.servers.openbao.client().sys.seal()
    try:
        with pytest.raises(LeaseError, match="no lease for alpha as owner: Vault is sealed: unseal it"):
            leases.issue(binding, AccessLevel.OWNER)
    finally:
        behind.workplace.servers.start()
    assert leases.issue(binding, AccessLevel.OWNER).username.startswith("lease_proj_alpha_owner_")


def test_after_all_of_that_there_is_nothing_to_do(behind: Behind) -> None:
    assert [(run.created, run.updated) for run in bring_up(behind.workplace)] == [(0, 0), (0, 0)]
