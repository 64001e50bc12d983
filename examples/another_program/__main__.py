"""A program of your own that attaches its project to the central Supabase, beside whatever else it declares.

It runs with the rights of an operator: a token for OpenBao in ``VAULT_TOKEN`` that may read ``connectors/supabase``.
"""

import pulumi

from components.people import People, PeopleArgs
from components.platform import read_platform
from components.providers import database_provider, openbao_provider, read_secret
from components.tenant.project_tenant import ProjectTenant, ProjectTenantArgs
from data_plane.model.naming import SUPABASE_SECRET
from data_plane.model.projects import Project

config = pulumi.Config()
project = Project(
    slug="shop",
    display_name="Shop",
    # A cell is only a name here: its PostgREST serves the project, so the central stack has to know it.
    cell=config.get("cell") or "cell-1",
    owners=["olga"],
)

platform = read_platform(config.require("centralStack"))
openbao = openbao_provider("shop-openbao", platform.openbao_address)
password = read_secret(openbao, SUPABASE_SECRET, "POSTGRES_PASSWORD")
people = People(
    "shop-people",
    PeopleArgs(users=project.owners, teams=[], login_accessor=platform.login_accessor, provider=openbao),
)
tenant = ProjectTenant(
    "shop",
    ProjectTenantArgs(
        project=project,
        platform=platform,
        database=database_provider("shop-database", platform.database, password),
        database_password=password,
        openbao=openbao,
        entities=people.entities,
        team_groups=people.team_groups,
    ),
)
# What `dataplane lease --binding` takes, as a file.
pulumi.export("tenants", {project.slug: tenant.binding})
