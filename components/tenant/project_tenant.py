"""One project's scoped slice of the central Supabase."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
import pulumi_postgresql as postgresql
import pulumi_vault as vault

from components.platform import DatabaseConnection, Platform
from components.removal_guard import RemovalGuard
from components.tenant.access import TenantAccess, TenantAccessArgs
from components.tenant.api_access import TenantApiAccess
from components.tenant.further_schemas import TenantSchemas
from components.tenant.jobs import TenantJobs
from components.tenant.leases import TenantLeases, TenantLeasesArgs
from components.tenant.limits import TenantLimits
from components.tenant.realtime import TenantRealtime
from components.tenant.revocation import LeaseRevocation
from components.tenant.schema import TenantSchema, TenantSchemaArgs
from components.tenant.sign_in import TenantSignIn
from components.tenant.storage import TenantBucket, bucket_id
from components.tenant.users import TenantUsers
from components.tenant.workloads import TenantWorkloads, TenantWorkloadsArgs, WorkloadAuthMethods, login_for
from data_plane.model.naming import API_LEVELS, CONNECTORS_MOUNT, TENANT_TYPE, TENANTS_SECRET, AccessLevel
from data_plane.model.projects import Lifecycle, ManagedService, Project
from data_plane.model.tenant_binding import (
    BoundDatabase,
    BoundRealtime,
    BoundSchema,
    BoundStorage,
    BoundWorkload,
    TenantBinding,
)

__all__ = ["ProjectTenant", "ProjectTenantArgs"]


@dataclass(frozen=True)
class ProjectTenantArgs:
    """Arguments of :class:`ProjectTenant`. ``examples/another_program`` has all of them."""

    project: Project
    """What the project's file says. Plain data, because it decides which resources there are."""
    platform: Platform
    """The central stack; :func:`components.platform.read_platform` gives it."""
    database: postgresql.Provider
    """The central PostgreSQL's, as its superuser; :func:`components.providers.database_provider` makes it."""
    database_password: pulumi.Input[str]
    """The superuser's, for what no resource of the provider can say. Has to be secret."""
    openbao: vault.Provider
    """OpenBao's, as an operator; :func:`components.providers.openbao_provider` makes it."""
    entities: Mapping[str, pulumi.Input[str]]
    """Identity entity of each person the project names, by login name; :class:`components.people.People` makes them."""
    team_groups: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    """Identity group of each team the project names, by its name; likewise."""

    def __post_init__(self) -> None:
        for kind, given in (("users", self.entities), ("teams", self.team_groups)):
            members = {name for _, name in self.project.members("users" if kind == "users" else "teams")}
            if missing := sorted(members - given.keys()):
                raise pulumi.RunError(
                    f"project {self.project.slug} names {kind} without an identity: {', '.join(missing)}. "
                    "Let components.people.People make them, and pass on its entities and team_groups"
                )


class ProjectTenant(pulumi.ComponentResource):
    """A tenant: schema, roles, lease and token roles, policies, groups, bucket, and sign-in.

    A detached tenant has the same resources with nothing granted in them: the change shows in a preview, ends every
    lease, keeps the data, and is undone by setting the lifecycle back.
    """

    binding: pulumi.Output[dict[str, object]]
    """Everything a consumer binds to. Holds no secret: credentials are leased from the paths in it."""

    def __init__(self, name: str, args: ProjectTenantArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        # What the file says, in its words: by these inputs a preview tells what changes for the project.
        declared = args.project.model_dump(mode="json", exclude_none=True)
        super().__init__(TENANT_TYPE, name, declared, opts)
        child = pulumi.ResourceOptions(parent=self)
        project, names = args.project, args.project.names
        attached = project.lifecycle is Lifecycle.ATTACHED

        limits = TenantLimits(
            f"{name}-limits",
            database=DatabaseConnection(args.platform.database, args.database_password),
            tenant=names.schema,
            limits=project.limits,
            opts=child,
        )
        schema = TenantSchema(
            f"{name}-schema",
            TenantSchemaArgs(
                names=names,
                database_name=args.platform.database.name,
                provider=args.database,
                limits=project.limits,
                attached=attached,
            ),
            # The guard takes back what a role has and its limits do not say.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[limits]),
        )
        leases = TenantLeases(
            f"{name}-leases",
            TenantLeasesArgs(
                names=names,
                provider=args.openbao,
                limits=project.limits,
                api_server=project.api_server,
                storage=ManagedService.STORAGE in project.managed_services,
                schemas=project.exposed_schemas,
            ),
            # Nothing can be leased before the roles are what a lease starts as.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[schema]),
        )
        workloads = self._workloads(name, args)
        access = TenantAccess(
            f"{name}-access",
            TenantAccessArgs(
                project=project,
                provider=args.openbao,
                attached=attached,
                entities=args.entities,
                team_groups=args.team_groups,
                workloads=workloads.entities if workloads else {},
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[leases]),
        )
        revocation = LeaseRevocation(
            f"{name}-revocation",
            address=args.platform.openbao_address,
            tenant=names.schema,
            lease_paths=[names.lease_path(level) for level in AccessLevel],
            attached=attached,
            holders=access.holders,
            # Last: once nobody may take a lease, none that is revoked is replaced by another.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[access, *schema.grants]),
        )
        services = self._services(name, args, schema)
        # Everything else is what these depend on.
        last = [revocation, *services, *([workloads] if workloads else [])]
        RemovalGuard(f"{name}-removal-guard", opts=pulumi.ResourceOptions(parent=self, depends_on=last))
        self.binding = pulumi.Output.all(
            schema=schema.schema.name,
            database=args.platform.database.name,
            host=args.platform.database.host,
            port=args.platform.database.port,
            sslmode=args.platform.database.sslmode,
            api_url=args.platform.api_url,
            openbao_address=args.platform.openbao_address,
            pooler=args.platform.pooler,
            workload_logins=args.platform.workload_logins,
        ).apply(
            lambda known: TenantBinding(
                project=project.slug,
                display_name=project.display_name,
                lifecycle=project.lifecycle,
                schema_name=known["schema"],
                schemas={
                    schema: BoundSchema(schema_name=names.further_schema(schema), exposed=settings.exposed and attached)
                    for schema, settings in project.schemas.items()
                },
                database=BoundDatabase(
                    host=known["host"], port=known["port"], database=known["database"], sslmode=known["sslmode"]
                ),
                api_url=f"{known['api_url']}/rest/v1",
                exposed=project.api_server is not None,
                required_managed_services=[service.value for service in project.managed_services],
                openbao_address=known["openbao_address"],
                lease_paths={level: names.lease_path(level) for level in AccessLevel},
                token_paths={level: names.token_path(level) for level in API_LEVELS},
                publishable_key_path=f"{CONNECTORS_MOUNT}/data/{TENANTS_SECRET}",
                lease_ttl_seconds=project.limits.lease_ttl,
                pooler=known["pooler"],
                workloads=_bound_workloads(project, known["workload_logins"]),
                storage=_bound_storage(project, known["api_url"]),
                realtime=_bound_realtime(project, known["api_url"]),
            ).document()
        )
        self.register_outputs({"binding": self.binding})

    def _workloads(self, name: str, args: ProjectTenantArgs) -> TenantWorkloads | None:
        if not args.project.workloads:
            return None
        return TenantWorkloads(
            f"{name}-workloads",
            TenantWorkloadsArgs(project=args.project, provider=args.openbao, logins=args.platform.workload_logins),
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _services(self, name: str, args: ProjectTenantArgs, schema: TenantSchema) -> list[pulumi.Resource]:
        """Declares the project's schemas, and its rows for PostgREST, Auth, Storage and Realtime.

        Returns:
            Of these resources, those that no other depends on.
        """
        project = args.project
        database = DatabaseConnection(args.platform.database, args.database_password)
        after_schema = pulumi.ResourceOptions(parent=self, depends_on=[schema])
        schemas = TenantSchemas(
            f"{name}-schemas",
            database=database,
            tenant=project.names.schema,
            declared=sorted(project.schemas),
            exposed=project.exposed_schemas,
            attached=project.lifecycle is Lifecycle.ATTACHED,
            opts=after_schema,
        )
        api_access = TenantApiAccess(
            f"{name}-api-access",
            database=database,
            tenant=project.names.schema,
            login=project.api_server.login if project.api_server else None,
            storage=ManagedService.STORAGE in project.managed_services and project.lifecycle is Lifecycle.ATTACHED,
            # Both say who has USAGE on the schemas, whose rows in the catalog one transaction at a time can write.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[schema, schemas]),
        )
        users = TenantUsers(
            f"{name}-users",
            database=database,
            tenant=project.names.schema,
            attached=ManagedService.AUTH in project.managed_services and project.lifecycle is Lifecycle.ATTACHED,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[schema, schemas]),
        )
        jobs = TenantJobs(
            f"{name}-jobs",
            database=database,
            tenant=project.names.schema,
            attached=project.lifecycle is Lifecycle.ATTACHED,
            opts=after_schema,
        )
        made: list[pulumi.Resource] = [api_access, users, jobs]
        if ManagedService.AUTH in project.managed_services:
            made.append(
                TenantSignIn(
                    f"{name}-sign-in",
                    database=database,
                    tenant=project.names.schema,
                    sign_up=project.sign_up,
                    opts=after_schema,
                )
            )
        if ManagedService.STORAGE in project.managed_services:
            for bucket, settings in {"": project.storage, **project.storage.buckets}.items():
                made.append(
                    TenantBucket(
                        f"{name}-bucket" + (f"-{bucket}" if bucket else ""),
                        database=database,
                        tenant=project.names.schema,
                        bucket=bucket,
                        settings=settings,
                        attached=project.lifecycle is Lifecycle.ATTACHED,
                        opts=after_schema,
                    )
                )
        if ManagedService.REALTIME in project.managed_services:
            made.append(
                TenantRealtime(
                    f"{name}-realtime",
                    address=args.platform.openbao_address,
                    database=database,
                    tenant=project.names.schema,
                    settings=project.realtime,
                    attached=project.lifecycle is Lifecycle.ATTACHED,
                    opts=after_schema,
                )
            )
        return made


def _bound_realtime(project: Project, api_url: str) -> BoundRealtime | None:
    if ManagedService.REALTIME not in project.managed_services:
        return None
    return BoundRealtime(url=f"{api_url}/realtime/v1", project=project.slug)


def _bound_storage(project: Project, api_url: str) -> BoundStorage | None:
    if ManagedService.STORAGE not in project.managed_services:
        return None
    return BoundStorage(
        url=f"{api_url}/storage/v1",
        bucket=bucket_id(project.names.schema),
        buckets={name: bucket_id(project.names.schema, name) for name in project.storage.buckets} or None,
        token_path=project.names.storage_token_path,
    )


def _bound_workloads(project: Project, logins: WorkloadAuthMethods) -> dict[str, BoundWorkload]:
    bound: dict[str, BoundWorkload] = {}
    for name, workload in project.workloads.items():
        login, account = login_for(workload.method, logins, project.slug), workload.kubernetes
        bound[name] = BoundWorkload(
            level=workload.level,
            method=workload.method,
            mount=login.path,
            role=project.names.workload_role(name),
            namespace=account.namespace if account else None,
            service_account=account.service_account if account else None,
            audience=login.audience if account else None,
            secret_id_ttl_seconds=workload.approle.secret_id_ttl if workload.approle else None,
        )
    return bound
