"""The whole data plane on one machine: local servers, the central stack, its cells, people who can sign in."""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import hvac

from components.access import levels_of
from components.naming import AccessLevel
from components.projects import Project, known_cells, load_projects
from components.settings import load_bounds
from embedded.engines import Engine, EngineRun, LocalConfig
from embedded.errors import EmbeddedError
from embedded.home import CHECKOUT
from embedded.runner.deployment import load_config
from embedded.runner.monitor import Step
from embedded.servers import ADMIN_USER, LOOPBACK, Servers

__all__ = ["CENTRAL_STACK", "ENVIRONMENT", "Workplace"]

ENVIRONMENT = "local"
CENTRAL_STACK = "local-central"
_AUTH_TABLES = Path(__file__).with_name("auth_tables.sql")
_PEOPLE_FILE = "people.json"
_LOGIN_PATH = "userpass"


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
        for stack in self.stacks():
            on_stack(stack)
            yield self.run_stack(stack, preview=preview, on_step=on_step)

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
