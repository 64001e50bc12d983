"""A cell: a Pulumi stack that holds a bounded number of tenants of one central Supabase."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components.people import People, PeopleArgs
from components.platform import Platform
from components.postgres import DatabaseConnection
from components.projects import Project
from components.providers import SUPABASE_SECRET, database_provider, openbao_provider, read_secret
from components.tenant import ProjectTenant, ProjectTenantArgs
from components.tenant_walls import TenantWalls

__all__ = ["Cell", "CellArgs"]


@dataclass(frozen=True)
class CellArgs:
    """Arguments of :class:`Cell`."""

    platform: Platform
    projects: Sequence[Project]


class Cell(pulumi.ComponentResource):
    """One ``ProjectTenant`` per project, and the people and teams that they name."""

    tenants: dict[str, pulumi.Output[dict[str, object]]]
    """What each project binds to, by slug."""

    def __init__(self, name: str, args: CellArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:cell:Cell", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        platform = args.platform
        openbao = openbao_provider(f"{name}-openbao", platform.openbao_address, opts=child)
        path = pulumi.Output.from_input(SUPABASE_SECRET)
        password = read_secret(openbao, path, "POSTGRES_PASSWORD", parent=self)
        database = database_provider(f"{name}-database", platform.database, password, opts=child)
        people = People(
            f"{name}-people",
            PeopleArgs(
                users=[user for project in args.projects for _, user in project.members("users")],
                teams=[team for project in args.projects for _, team in project.members("teams")],
                login_accessor=platform.login_accessor,
                provider=openbao,
            ),
            opts=child,
        )
        tenants = {
            project.slug: ProjectTenant(
                project.slug,
                ProjectTenantArgs(
                    project=project,
                    platform=platform,
                    database=database,
                    database_password=password,
                    openbao=openbao,
                    entities=people.entities,
                    team_groups=people.team_groups,
                ),
                opts=child,
            )
            for project in args.projects
        }
        TenantWalls(
            f"{name}-walls",
            database=DatabaseConnection(platform.database, password),
            tenants=[project.names.schema for project in args.projects],
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(tenants.values())),
        )
        self.tenants = {slug: tenant.binding for slug, tenant in tenants.items()}
        self.register_outputs({"tenants": list(self.tenants)})
