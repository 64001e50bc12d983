"""``dataplane project status``: how tenants are, for the eye and as JSON."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import hvac
import typer
from rich.markup import escape

from data_plane.cli.console import messages, print_json, print_table, stderr, stdout
from data_plane.cli.options import (
    AllProjectsOption,
    EnvironmentOption,
    JsonOption,
    SomeProjectOption,
    refuse_one_of_all,
)
from data_plane.cli.superuser import local_servers, superuser_of
from data_plane.connector.bindings import data_plane_of
from data_plane.connector.guard_report import GuardAction, GuardReport, Job, read_guard_report
from data_plane.connector.leases import LeaseClient
from data_plane.connector.reconcile_credentials import connector_secret
from data_plane.connector.relay_report import RelayReport, WaitingDeliveries, read_relay_report
from data_plane.connector.unleased_logins import UnleasedLogins, unleased_logins
from data_plane.errors import ProjectNotFoundError
from data_plane.model.naming import AccessLevel, TenantNames
from data_plane.model.tenant_binding import TenantBinding
from data_plane.state_dir import ENVIRONMENT

__all__ = ["app"]

app = typer.Typer()


@dataclass(frozen=True)
class _Tenant:
    """What is known of one tenant."""

    binding: TenantBinding
    live: dict[str, int]
    storage: str | None
    jobs: list[Job]
    ended: list[GuardAction]
    waiting: list[WaitingDeliveries]
    unleased: list[UnleasedLogins]

    @property
    def exposed(self) -> bool:
        """Whether the API serves the schema now: of a detached project it serves none."""
        return self.binding.exposed and self.binding.attached

    def row(self) -> tuple[str, ...]:
        binding = self.binding
        return (
            binding.project,
            binding.schema_name,
            binding.lifecycle,
            "yes" if self.exposed else "no",
            ", ".join(binding.required_managed_services),
            ", ".join(f"{count} {level}" for level, count in self.live.items() if count) or "none",
            self.storage or "not known",
        )

    def document(self) -> dict[str, Any]:
        binding = self.binding
        return {
            "project": binding.project,
            "schema": binding.schema_name,
            "lifecycle": binding.lifecycle,
            "exposed": self.exposed,
            "services": list(binding.required_managed_services),
            "live_leases": self.live,
            "storage": self.storage,
            "jobs": [_plain(job) for job in self.jobs],
            "ended_by_guard": [_plain(action) for action in self.ended],
            "waiting_deliveries": [_plain(waiting) for waiting in self.waiting],
            "logins_without_lease": [_plain(login) for login in self.unleased],
        }


@app.command()
def status(
    project: SomeProjectOption = None,
    all_projects: AllProjectsOption = False,
    as_json: JsonOption = False,
    environment: EnvironmentOption = ENVIRONMENT,
) -> None:
    """Show tenants: leases, storage, jobs, what the guard ended, and users that wait for delivery.

    For a deployed environment PostgreSQL is where PGHOST, PGPORT, PGDATABASE, PGUSER and PGSSLMODE say.
    """
    with messages():
        refuse_one_of_all(project, all_projects=all_projects)
        plane = data_plane_of(environment)
        bindings = plane.bindings()
        chosen = [plane.binding(project)] if project else [bindings[slug] for slug in sorted(bindings)]
        if not chosen:
            raise ProjectNotFoundError("no tenant is attached yet: run `dataplane up`")
        operator = plane.operator()
        guard, relay, unleased = _reports(environment, operator, [binding.project for binding in chosen])
        tenants = [_tenant(binding, LeaseClient(operator), guard, relay, unleased) for binding in chosen]
        if as_json:
            print_json([tenant.document() for tenant in tenants])
        else:
            heads = ("project", "schema", "lifecycle", "exposed", "services", "live leases", "storage")
            print_table(heads, [tenant.row() for tenant in tenants])
            _show_jobs([job for tenant in tenants for job in tenant.jobs])
            schemas = {tenant.binding.schema_name for tenant in tenants}
            _show_guard([action for action in guard.actions if action.tenant in {*schemas, None}])
            _show_relay([waiting for tenant in tenants for waiting in tenant.waiting])
        for late in (guard.late, relay.late):
            if late:
                stderr.print(f"[yellow]{escape(late)}.[/]")
        for line in (*guard.lapsed, *map(str, unleased)):
            stderr.print(f"[yellow]{escape(line)}[/]", soft_wrap=True)


def _tenant(
    binding: TenantBinding,
    leases: LeaseClient,
    guard: GuardReport,
    relay: RelayReport,
    unleased: Sequence[UnleasedLogins],
) -> _Tenant:
    names = TenantNames(binding.project)
    return _Tenant(
        binding,
        {level.value: len(leases.live(names, level)) for level in AccessLevel},
        guard.storage.get(names.schema),
        [job for job in guard.jobs if job.tenant == names.schema],
        [action for action in guard.actions if action.tenant == names.schema],
        [waiting for waiting in relay.waiting if waiting.tenant == names.schema],
        [login for login in unleased if login.tenant == names.schema],
    )


def _reports(
    environment: str, operator: hvac.Client, projects: Sequence[str]
) -> tuple[GuardReport, RelayReport, Sequence[UnleasedLogins]]:
    local = local_servers(environment)
    if local is None and not os.environ.get("PGHOST"):
        late = "What the guard and the relay did is in PostgreSQL: say where that is with PGHOST, PGUSER, …"
        return GuardReport(late), RelayReport(None), ()
    with superuser_of(local)(connector_secret(operator)["POSTGRES_PASSWORD"]) as connection:
        guard, relay = read_guard_report(connection), read_relay_report(connection)
        return guard, relay, unleased_logins(connection, LeaseClient(operator), projects)


def _plain(found: Job | GuardAction | WaitingDeliveries | UnleasedLogins) -> dict[str, Any]:
    values = {key: value for key, value in asdict(found).items() if key != "tenant"}
    return {
        key: value.isoformat(timespec="seconds") if hasattr(value, "isoformat") else value
        for key, value in values.items()
    }


def _show_jobs(jobs: list[Job]) -> None:
    if jobs:
        stdout.print()
        print_table(
            ("job of", "name", "schedule", "state", "last run", "how", "failure"),
            [
                (
                    job.tenant,
                    job.name,
                    job.schedule,
                    job.state,
                    f"{job.last_run:%Y-%m-%d %H:%M:%S %Z}" if job.last_run else "never",
                    job.last_status or "",
                    _line(job.failure),
                )
                for job in jobs
            ],
        )


def _show_guard(actions: list[GuardAction]) -> None:
    if actions:
        stdout.print()
        print_table(
            ("ended by the guard", "why", "times", "latest", "was", "limit"),
            [
                (
                    action.tenant or "shared API",
                    action.what,
                    str(action.times),
                    f"{action.latest:%Y-%m-%d %H:%M:%S %Z}",
                    action.value or "",
                    action.bound or "",
                )
                for action in actions
            ],
        )


def _show_relay(deliveries: list[WaitingDeliveries]) -> None:
    if deliveries:
        stdout.print()
        print_table(
            ("users to be delivered", "waiting", "failing", "since", "why"),
            [
                (
                    found.tenant,
                    str(found.waiting),
                    str(found.failing),
                    f"{found.since:%Y-%m-%d %H:%M:%S %Z}",
                    _line(found.error),
                )
                for found in deliveries
            ],
        )


def _line(text: str | None) -> str:
    """A project's own words in one line of a table."""
    return " ".join((text or "").split())
