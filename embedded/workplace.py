"""The whole data plane on one machine: local servers, the central stack, its cells, people who can sign in."""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import hvac

from components.access import levels_of
from components.naming import AccessLevel
from components.projects import Project, known_cells, load_projects
from components.settings import load_bounds
from embedded.engines import Engine, EngineRun, LocalConfig, PulumiEngine
from embedded.errors import EmbeddedError
from embedded.home import CHECKOUT
from embedded.runner.deployment import load_config, project_name
from embedded.runner.monitor import Step
from embedded.servers import ADMIN_USER, LOOPBACK, Servers

__all__ = ["CENTRAL_STACK", "ENVIRONMENT", "Workplace"]

ENVIRONMENT = "local"
CENTRAL_STACK = "local-central"
_AUTH_TABLES = Path(__file__).with_name("auth_tables.sql")
_PEOPLE_FILE = "people.json"
_LOGIN_PATH = "userpass"
_TENANT_TYPE = "supabase-data-plane:cell:Cell$supabase-data-plane:tenant:ProjectTenant"


@dataclass(frozen=True)
class Workplace:
    """The local data plane.

    Args:
        servers: PostgreSQL and OpenBao.
        engine: what runs the program.
        root: the checkout.
    """

    servers: Servers
    engine: Engine
    root: Path = CHECKOUT

    def projects(self) -> list[Project]:
        """The projects of this environment.

        Raises:
            ConfigurationError: with every problem of every file.
        """
        config = load_config(self.root, CENTRAL_STACK, {}, {}).values
        by_name = {key.rpartition(":")[2]: value for key, value in config.items()}
        bounds = load_bounds(by_name, f"stacks/Pulumi.{CENTRAL_STACK}.yaml")
        return load_projects(
            self.root, ENVIRONMENT, lease_ttl_maximum=bounds.lease_ttl_maximum, cell_size=bounds.cell_size
        )

    def stacks(self) -> list[str]:
        """The central stack, then its cells."""
        return [CENTRAL_STACK, *known_cells(self.root, ENVIRONMENT).values()]

    def run(
        self, *, preview: bool, on_stack: Callable[[str], None], on_step: Callable[[Step], None]
    ) -> Iterator[EngineRun]:
        """Brings every stack up, one after the other, or previews it.

        Raises:
            pulumi.RunError, EmbeddedError: at the first stack that does not get through.
        """
        cells = {stack: cell for cell, stack in known_cells(self.root, ENVIRONMENT).items()}
        stacks = self.stacks()
        self._refuse_moved({cell: stack for stack, cell in cells.items()})
        for stack in stacks:
            on_stack(stack)
            # An action's edit of a project's file comes after its run, and the next run has to see it.
            with nullcontext() if preview or stack not in cells else self._cell_lock(cells[stack]):
                run = self.run_stack(stack, preview=preview, on_step=on_step)
            if stack == stacks[-1]:
                run.remarks.extend(self._left_over())
            yield run

    def _refuse_moved(self, cells: Mapping[str, str]) -> None:
        """The CLI would refuse to delete a project in one cell and to create it in the other, in words of its own."""
        if not isinstance(self.engine, PulumiEngine):
            return
        held = {stack: set(self.engine.outputs(stack).get("tenants") or {}) for stack in cells.values()}
        for project in self.projects():
            new = cells[project.cell]
            for old in (stack for stack, slugs in held.items() if stack != new and project.slug in slugs):
                urn = f"urn:pulumi:{old}::{project_name(self.root)}::{_TENANT_TYPE}::{project.slug}"
                if self.engine.owns(old, urn):
                    raise EmbeddedError(
                        f"project {project.slug} says `cell: {project.cell}`, and its state is in stack {old}. "
                        f"Move that first, then run the same command again:\n"
                        f"  pulumi state move --source {old} --dest {new} '{urn}'"
                    )

    def _cell_lock(self, cell: str) -> AbstractContextManager[None]:
        return self.servers.home.cell_lock(ENVIRONMENT, cell)

    def _left_over(self) -> list[str]:
        """What there is to say of tenants that no file declares."""
        declared = {project.names.schema for project in self.projects()}
        with self.servers.postgres.connect() as admin:
            found = admin.execute(
                r"select nspname from pg_namespace where nspname like 'proj\_%' and"
                " pg_get_userbyid(nspowner) = nspname || '_owner' order by 1"
            ).fetchall()
        return [
            f"{schema} is in no project's file: its data is kept, and whoever had access to it has it still. Put its "
            "file back, with `lifecycle: detached` to end all access; docs/operations.md says how to drop it for good"
            for (schema,) in found
            if schema not in declared
        ]

    def run_stack(self, stack: str, *, preview: bool, on_step: Callable[[Step], None]) -> EngineRun:
        """Brings one stack up, or previews it.

        Raises:
            pulumi.RunError, EmbeddedError: if it does not get through.
        """
        with self.operator():
            run = self.engine.run(stack, self.config(stack), preview=preview, on_step=on_step)
        if stack == CENTRAL_STACK and not preview:
            self._stand_in_for_auth()
        return run

    def _stand_in_for_auth(self) -> None:
        """Makes the table of Auth's that projects refer to: there is no Auth here to do so."""
        with self.servers.postgres.connect() as admin:
            admin.execute("set local role supabase_auth_admin")
            admin.execute(_AUTH_TABLES.read_bytes())

    def let_people_in(self, projects: Iterable[Project]) -> None:
        """Gives everybody whom a project names a password for the local OpenBao."""
        wanted = {user for project in projects for _, user in project.members("users")}
        with self.servers.home.lock("people"):
            passwords = self._passwords()
            missing = wanted - set(passwords)
            client = self.servers.openbao.client()
            for user in sorted(missing):
                passwords[user] = secrets.token_urlsafe(24)
                client.write_data(
                    f"auth/{_LOGIN_PATH}/users/{user}",
                    data={"password": passwords[user], "token_ttl": "1h", "token_max_ttl": "24h"},
                )
            if missing:
                self.servers.home.write_json(_PEOPLE_FILE, passwords)

    def sign_in(self, user: str) -> hvac.Client:
        """A client with a person's own token.

        Raises:
            EmbeddedError: if there is no such person here.
        """
        passwords = self._passwords()
        if user not in passwords:
            known = ", ".join(sorted(passwords)) or "nobody yet; run `dataplane up`"
            raise EmbeddedError(f"{user!r} cannot sign in here; who can: {known}")
        client = hvac.Client(url=self.servers.openbao.address, timeout=30)
        client.auth.userpass.login(user, passwords[user], mount_point=_LOGIN_PATH)
        return client

    def somebody_with(self, project: Project, level: AccessLevel) -> str:
        """The first person of a project who has an access level.

        Raises:
            EmbeddedError: if nobody has.
        """
        for role, user in project.members("users"):
            if level in levels_of(role):
                return user
        raise EmbeddedError(f"nobody in the file of {project.slug} may be {level}")

    def bindings(self) -> dict[str, dict[str, Any]]:
        """What each project binds to, by slug, as the cells' last runs left it."""
        cells = [self.engine.outputs(stack) for stack in self.stacks()[1:]]
        return {slug: binding for cell in cells for slug, binding in (cell.get("tenants") or {}).items()}

    def config(self, stack: str) -> LocalConfig:
        """What of a stack's configuration only this machine knows."""
        if stack != CENTRAL_STACK:
            return LocalConfig()
        database = {
            "host": LOOPBACK,
            "port": self.servers.postgres.known_port,
            "name": "postgres",
            "adminUser": ADMIN_USER,
            "sslmode": "disable",
        }
        return LocalConfig(
            settings={"database": database, "openbao": {"address": self.servers.openbao.address}},
            secrets={"databaseAdminPassword": self.servers.postgres.admin_password},
        )

    def _passwords(self) -> dict[str, str]:
        return dict(self.servers.home.read_json(_PEOPLE_FILE) or {})

    @contextmanager
    def operator(self) -> Iterator[None]:
        """Runs the program with the operator's token, where providers and dynamic resources look for it."""
        with _OPERATORS.lock:
            if not _OPERATORS.count:
                _OPERATORS.before = os.environ.get("VAULT_TOKEN")
            _OPERATORS.count += 1
            os.environ["VAULT_TOKEN"] = self.servers.openbao.root_token
        try:
            yield
        finally:
            with _OPERATORS.lock:
                _OPERATORS.count -= 1
                if not _OPERATORS.count:
                    del os.environ["VAULT_TOKEN"]
                    os.environ.update({} if _OPERATORS.before is None else {"VAULT_TOKEN": _OPERATORS.before})


class _Operators:
    """Runs of this process at the same time; the environment is one for all of them."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.count = 0
        self.before: str | None = None


_OPERATORS = _Operators()
