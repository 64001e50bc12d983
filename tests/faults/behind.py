"""A data plane whose servers are reached through proxies."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_plane.engine.engines import EngineRun
from data_plane.engine.steps import Step
from data_plane.errors import DataPlaneError
from data_plane.local.environment import LocalEnvironment
from data_plane.local.openbao import LocalOpenBao
from data_plane.local.postgres import LocalPostgres
from tests.conftest import Plane
from tests.faults.proxy import Proxy

CELL = "local-cell-1"


class _Postgres(LocalPostgres):
    way: Proxy

    @property
    def known_port(self) -> int:
        return self.way.port


class _OpenBao(LocalOpenBao):
    way: Proxy

    @property
    def address(self) -> str:
        _ = super().address
        return f"http://127.0.0.1:{self.way.port}"


@dataclass
class Behind:
    """A local environment behind proxies."""

    local_env: LocalEnvironment
    database: Proxy
    openbao: Proxy

    def __post_init__(self) -> None:
        servers = self.local_env.servers
        servers.postgres, servers.openbao = _Postgres(servers.home), _OpenBao(servers.home)
        servers.postgres.way, servers.openbao.way = self.database, self.openbao

    @property
    def plane(self) -> Plane:
        return Plane(self.local_env)

    def project(self, slug: str = "alpha") -> Path:
        return self.local_env.root / "stacks" / "local" / "projects" / f"{slug}.yaml"

    def change(self) -> int:
        """Declares another statement timeout for alpha, so that a run has something to do; gives it, in seconds."""
        text = self.project().read_text(encoding="utf-8")
        before = int(text.partition("statement_timeout: ")[2].partition("s")[0])
        after = before % 50 + 1
        self.project().write_text(
            text.replace(f"statement_timeout: {before}s", f"statement_timeout: {after}s"), encoding="utf-8"
        )
        return after

    def is_applied(self, seconds: int) -> bool:
        """Whether the roles of alpha and its leases have this statement timeout."""
        setting = f"statement_timeout={seconds * 1000}"
        roles = self.plane.rows(
            "select count(*) from pg_db_role_setting where setrole::regrole::text like 'proj\\_alpha\\_%%'"
            " and %s = any(setconfig)",
            setting,
        )
        lease = self.local_env.servers.openbao.client().read("database/roles/proj_alpha_anon")["data"]
        return roles == [(4,)] and f", {seconds * 1000}, '600 s')" in lease["creation_statements"][0]

    def run(self, at: str = "", fault: Callable[[], object] = lambda: None) -> EngineRun:
        """A run of the cell.

        Args:
            at: the resource after which something happens.
            fault: what.
        """
        happened: list[str] = []

        def on_step(step: Step) -> None:
            if step.name == at and not happened:
                happened.append(at)
                fault()

        try:
            return self.local_env.run_stack(CELL, preview=False, on_step=on_step)
        finally:
            assert not at or happened, f"the run did not get to {at}"

    def refusal(self, at: str = "", fault: Callable[[], object] = lambda: None) -> str:
        """What a run says that does not get through."""
        with pytest.raises(DataPlaneError) as caught:
            self.run(at, fault)
        return str(caught.value)
