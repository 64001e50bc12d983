"""The whole data plane on one machine: local servers, the central stack, its cells, people who can sign in."""

import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import hvac

from data_plane.engine.engine import Engine, LocalConfig
from data_plane.engine.stack_files import load_config, project_name
from data_plane.engine.steps import EngineRun, Step
from data_plane.errors import LocalUserError, ProjectStateError
from data_plane.local.servers import ADMIN_USER, LOOPBACK, Servers
from data_plane.local.stack_inputs import digest, of_cell, of_central, of_openbao
from data_plane.model.access import levels_of
from data_plane.model.naming import TENANT_TYPE, AccessLevel
from data_plane.model.projects import Project, known_cells, load_projects
from data_plane.model.settings import load_bounds
from data_plane.model.tenant_binding import TenantBinding, read_bindings
from data_plane.state_dir import CHECKOUT, ENVIRONMENT

if TYPE_CHECKING:
    import psycopg

__all__ = ["AUTH_TABLES", "CENTRAL_STACK", "LocalEnvironment"]

CENTRAL_STACK = "local-central"
AUTH_TABLES = Path(__file__).with_name("auth_tables.sql")
_PEOPLE_FILE = "people.json"
_LOGIN_PATH = "userpass"
_SIGN_IN = {
    "token_ttl": "1h",
    "token_max_ttl": "24h",
    # It renews any lease whose ID is known. What a token needs, components/tenant/access.py grants.
    "token_no_default_policy": True,
    # One that grants nothing and need not be there: userpass renews no token that came without any.
    "token_policies": ["data-plane-person"],
}
_IN_CELL = f"supabase-data-plane:cell:Cell${TENANT_TYPE}"


@dataclass(frozen=True)
class LocalEnvironment:
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
        self,
        *,
        preview: bool,
        on_stack: Callable[[str], None],
        on_step: Callable[[Step], None],
        refresh: bool = False,
        every: bool = False,
        only: Collection[str] | None = None,
    ) -> Iterator[EngineRun]:
        """Brings the stacks up, one after the other, or previews them.

        A stack is left out if what its run depends on is as it was at its last one that got through, and the schemas of
        its projects are as that left them.

        Args:
            only: the stacks to run, of all.
            refresh: look first what is really there, in every stack: manual changes are reported, and reverted by `up`.
            every: leave no stack out.

        Raises:
            pulumi.RunError, DataPlaneError: at the first stack that does not get through.
        """
        cells = {stack: cell for cell, stack in known_cells(self.root, ENVIRONMENT).items()}
        stacks = [stack for stack in self.stacks() if only is None or stack in only]
        self._refuse_lost_projects({cell: stack for stack, cell in cells.items()})
        central: dict[str, Any] | None = None
        for stack in stacks:
            if stack in cells and central is None:
                central = self.engine.outputs(CENTRAL_STACK)  # once it has been brought up
            on_stack(stack)
            # An action's edit of a project's file comes after its run, and the next run has to see it.
            with nullcontext() if preview or stack not in cells else self._cell_lock(cells[stack]):
                inputs = self._inputs(stack, cells.get(stack), central or {})
                looked_up = of_openbao(self.servers.openbao.client())
                last = [self.engine.state_mark(stack), inputs, looked_up]
                look = refresh or (stack in cells and self._has_drift(cells[stack]))
                if look or every or self._last_run(stack) != last:
                    run = self.run_stack(stack, preview=preview, on_step=on_step, refresh=look)
                    if not preview and not run.remarks:
                        self._remember(stack, inputs, looked_up)
                else:
                    run = EngineRun(stack, 0, 0, 0, affected=False)
            if stack == stacks[-1]:
                run.remarks.extend(self._left_over())
            yield run

    def _last_run(self, stack: str) -> object:
        return self.servers.home.read_json(_run_file(stack))

    def _remember(self, stack: str, inputs: str, looked_up: Mapping[str, Any] | None) -> None:
        """Notes a run that got through, unless a secret was rotated meanwhile: the run may have had the old one."""
        mark, now = self.engine.state_mark(stack), of_openbao(self.servers.openbao.client())
        if mark is not None and now is not None and looked_up in ({}, now):
            self.servers.home.write_json(_run_file(stack), [mark, inputs, now])

    def _inputs(self, stack: str, cell: str | None, central: dict[str, Any]) -> str:
        """The digest of a stack's program, settings, projects and what it reads of the central stack."""
        projects, config = self.projects(), self.config(stack)
        of_stack: list[Any] = (
            of_central(self.root, ENVIRONMENT, stack, projects) if cell is None else of_cell(cell, projects, central)
        )
        local = [dict(config.settings), dict(config.secrets)]
        return digest(self.root, stack, of_stack, local)

    def _refuse_lost_projects(self, cells: Mapping[str, str]) -> None:
        """Refuses a run of projects whose files and states do not agree, before the CLI does in words of its own."""
        for slug in (note.parent.name for note in self.servers.home.moves(ENVIRONMENT).glob("*/move.json")):
            raise ProjectStateError(
                f"moving project {slug} has begun and not ended: run `dataplane project move {slug} --to CELL` again; "
                "with its former cell, it moves back"
            )
        for note in self.servers.home.drops(ENVIRONMENT).glob("*.json"):
            raise ProjectStateError(
                f"dropping project {note.stem} has begun and not ended: run `dataplane project drop {note.stem}` again"
            )
        held = {stack: set(self.engine.outputs(stack).get("tenants") or {}) for stack in cells.values()}
        declared = {project.slug: project.cell for project in self.projects()}
        for stack, slug in ((stack, slug) for stack, slugs in held.items() for slug in sorted(slugs)):
            cell = declared.get(slug)
            urn = f"urn:pulumi:{stack}::{project_name(self.root)}::{_IN_CELL}::{slug}"
            if (cell is not None and cells[cell] == stack) or not self.engine.owns(stack, urn):
                continue
            if cell is None:
                raise ProjectStateError(
                    f"project {slug} of stack {stack} is in no file, and is protected: nothing was removed. "
                    f"Put stacks/{ENVIRONMENT}/projects/{slug}.yaml back, `lifecycle: detached` in it ends all access; "
                    f"then `dataplane project drop {slug}` removes it for good"
                )
            raise ProjectStateError(
                f"project {slug} says `cell: {cell}`, and its state is in stack {stack}. "
                f"Move that: `dataplane project move {slug} --to {cell}`"
            )

    def _cell_lock(self, cell: str) -> AbstractContextManager[None]:
        return self.servers.home.cell_lock(ENVIRONMENT, cell)

    def _left_over(self) -> list[str]:
        """What there is to say of tenants that no file declares."""
        declared = {project.names.schema for project in self.projects()}
        with self._superuser() as admin:
            found = admin.execute(
                r"select nspname from pg_namespace where nspname like 'proj\_%' and"
                " pg_get_userbyid(nspowner) = nspname || '_owner' order by 1"
            ).fetchall()
        return [
            f"{schema} is in no project's file: its data is kept, and so is the access that people and programs had. "
            "Put its file back, with `lifecycle: detached` to end all access; then `dataplane project drop` removes it"
            for (schema,) in found
            if schema not in declared
        ]

    def _has_drift(self, cell: str) -> bool:
        """Whether the schemas of a cell's projects have manual changes that `up` reverts."""
        tenants = [project.names.schema for project in self.projects() if project.cell == cell]
        with self._superuser() as admin:
            if admin.execute("select to_regprocedure('data_plane.privilege_drift(text[])')").fetchone() == (None,):
                return False  # the central stack was never brought up
            reverted = "select from data_plane.privilege_drift(%s) where remedy is not null limit 1"
            return admin.execute(reverted, [tenants]).fetchone() is not None

    @contextmanager
    def _superuser(self) -> "Iterator[psycopg.Connection[tuple[object, ...]]]":
        # A lease needs OpenBao alone, and is not to wait for this to be imported.
        import psycopg  # noqa: PLC0415

        from data_plane.clients.postgres import DatabaseUnavailableError, explain  # noqa: PLC0415

        try:
            with self.servers.postgres.connect() as admin:
                yield admin
        except psycopg.OperationalError as error:
            raise DatabaseUnavailableError(f"the local PostgreSQL cannot be used: {explain(error)}") from error

    def run_stack(
        self, stack: str, *, preview: bool, on_step: Callable[[Step], None], refresh: bool = False
    ) -> EngineRun:
        """Brings one stack up, or previews it.

        Raises:
            pulumi.RunError, DataPlaneError: if it does not get through.
        """
        with self.operator():
            run = self.engine.run(stack, self.config(stack), preview=preview, on_step=on_step, refresh=refresh)
        if stack == CENTRAL_STACK and not preview:
            self._create_auth_stub()
        return run

    def _create_auth_stub(self) -> None:
        """Makes the table of Auth's that projects refer to: there is no Auth here to do so."""
        with self._superuser() as admin:
            admin.execute("set local role supabase_auth_admin")
            admin.execute(AUTH_TABLES.read_bytes())

    def create_local_users(self, projects: Iterable[Project]) -> None:
        """Gives everybody whom a project names a password for the local OpenBao."""
        wanted = {user for project in projects for _, user in project.members("users")}
        with self.servers.home.lock("people"):
            passwords = self._passwords()
            missing = wanted - set(passwords)
            client = self.servers.openbao.client()
            for user in sorted(wanted):
                settings: dict[str, object] = dict(_SIGN_IN)
                if user in missing:
                    settings["password"] = passwords[user] = secrets.token_urlsafe(24)
                client.write_data(f"auth/{_LOGIN_PATH}/users/{user}", data=settings)
            if missing:
                self.servers.home.write_json(_PEOPLE_FILE, passwords)

    def sign_in(self, user: str) -> hvac.Client:
        """A client with a person's own token.

        Raises:
            DataPlaneError: if there is no such person here.
        """
        passwords = self._passwords()
        if user not in passwords:
            known = ", ".join(sorted(passwords)) or "nobody yet; run `dataplane up`"
            raise LocalUserError(f"{user!r} cannot sign in to the local OpenBao; people who can: {known}")
        client = hvac.Client(url=self.servers.openbao.address, timeout=30)
        client.auth.userpass.login(user, passwords[user], mount_point=_LOGIN_PATH)
        return client

    def somebody_with(self, project: Project, level: AccessLevel) -> str:
        """The first person of a project who has an access level.

        Raises:
            DataPlaneError: if nobody has.
        """
        for role, user in project.members("users"):
            if level in levels_of(role):
                return user
        raise LocalUserError(f"no person in the file of {project.slug} has a role with the level {level}")

    def bindings(self) -> dict[str, TenantBinding]:
        """What each project binds to, by slug, as the cells' last runs left it."""
        found: dict[str, TenantBinding] = {}
        for stack in self.stacks()[1:]:
            found |= read_bindings(self.engine.outputs(stack).get("tenants") or {}, f"stack {stack}")
        return found

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
            settings={
                "database": database,
                "openbao": {"address": self.servers.openbao.address},
                "stateDir": str(self.servers.home.path),
            },
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


def _run_file(stack: str) -> str:
    """The note of a stack's last run that got through, in the private folder."""
    return f"runs/{stack}.json"


class _Operators:
    """Runs of this process at the same time; the environment is one for all of them."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.count = 0
        self.before: str | None = None


_OPERATORS = _Operators()
