"""A cell: a Pulumi stack that holds a bounded number of tenants of one central Supabase."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components.people import People, PeopleArgs
from components.platform import DatabaseConnection, Platform
from components.privilege_drift import TenantPrivilegeDrift
from components.providers import database_provider, dynamic_provider, openbao_provider, read_secret
from components.tenant.project_tenant import ProjectTenant, ProjectTenantArgs
from components.tenant.schema import role_settings
from data_plane.model.naming import SUPABASE_SECRET
from data_plane.model.projects import Project

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
        dynamic = dynamic_provider(f"{name}-dynamic", opts=child)
        tenant_opts = pulumi.ResourceOptions(
            parent=self,
            providers=[dynamic],
            # Where `pulumi state move` puts a tenant that comes from another cell.
            aliases=[pulumi.Alias(parent=pulumi.ROOT_STACK_RESOURCE)],
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
                opts=tenant_opts,
            )
            for project in args.projects
        }
        TenantPrivilegeDrift(
            f"{name}-privilege-drift",
            database=DatabaseConnection(platform.database, password),
            role_settings={
                project.names.schema: role_settings(project.names, project.limits) for project in args.projects
            },
            opts=pulumi.ResourceOptions(
                parent=self,
                provider=dynamic,
                depends_on=list(tenants.values()),
                # A `destroy` asks this one first, and leaves alone what it depends on: every tenant.
                protect=bool(tenants),
                aliases=[pulumi.Alias(name=f"{name}-walls", type_="pulumi-python:dynamic/tenant:TenantWalls")],
            ),
        )
        self.tenants = {slug: tenant.binding for slug, tenant in tenants.items()}
        self.register_outputs({"tenants": list(self.tenants)})
