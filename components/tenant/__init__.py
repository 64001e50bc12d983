"""One project's scoped slice of the central Supabase."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_postgresql as postgresql
import pulumi_vault as vault

from components.naming import API_LEVELS, CONNECTORS_MOUNT, TENANTS_SECRET, AccessLevel
from components.platform import Platform
from components.postgres import DatabaseConnection
from components.projects import Lifecycle, ManagedService, Project
from components.tenant.access import TenantAccess, TenantAccessArgs
from components.tenant.api_access import TenantApiAccess
from components.tenant.leases import TenantLeases, TenantLeasesArgs
from components.tenant.revocation import LeaseRevocation
from components.tenant.schema import TenantSchema, TenantSchemaArgs
from components.tenant.sign_in import TenantSignIn
from components.tenant.storage import TenantBucket
from components.tenant.workloads import TenantWorkloads, TenantWorkloadsArgs, WorkloadLogins, login_for

__all__ = ["ProjectTenant", "ProjectTenantArgs"]


@dataclass(frozen=True)
class ProjectTenantArgs:
    """Arguments of :class:`ProjectTenant`."""

    project: Project
    platform: Platform
    database: postgresql.Provider
    database_password: pulumi.Input[str]
    """The superuser's, for what no resource of the provider can say."""
    openbao: vault.Provider
    entities: Mapping[str, pulumi.Input[str]]
    """Identity entity of each person the project names, by login name."""
    team_groups: Mapping[str, pulumi.Input[str]]
    """Identity group of each team the project names."""


class ProjectTenant(pulumi.ComponentResource):
    """A tenant: schema and roles, lease and token roles, policies and groups, its bucket, and who may sign in to it.

    A detached tenant has the same resources with nothing granted in them: the change shows in a preview, ends every
    lease, keeps the data, and is undone by setting the lifecycle back.
    """

    binding: pulumi.Output[dict[str, object]]
    """Everything a consumer binds to. Holds no secret: credentials are leased from the paths in it."""

    def __init__(self, name: str, args: ProjectTenantArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:tenant:ProjectTenant", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        project, names = args.project, args.project.names
        attached = project.lifecycle is Lifecycle.ATTACHED

        schema = TenantSchema(
            f"{name}-schema",
            TenantSchemaArgs(
                names=names,
                database_name=args.platform.database.name,
                provider=args.database,
                limits=project.limits,
                authenticator=project.authenticator,
                attached=attached,
            ),
            opts=child,
        )
        leases = TenantLeases(
            f"{name}-leases",
            TenantLeasesArgs(
                names=names,
                provider=args.openbao,
                limits=project.limits,
                storage=ManagedService.STORAGE in project.managed_services,
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
                workloads=workloads,
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[leases]),
        )
        LeaseRevocation(
            f"{name}-revocation",
            address=args.platform.openbao_address,
            tenant=names.schema,
            lease_paths=[names.lease_path(level) for level in AccessLevel],
            attached=attached,
            # Last: once nobody may take a lease, none that is revoked is replaced by another.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[access, *schema.grants]),
        )
        self._services(name, args, schema)
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
            lambda known: {
                "project": project.slug,
                "displayName": project.display_name,
                "lifecycle": project.lifecycle.value,
                "schema": known["schema"],
                "database": {key: known[key] for key in ("host", "port", "database", "sslmode")},
                "apiUrl": f"{known['api_url']}/rest/v1",
                "exposed": project.exposed,
                "requiredManagedServices": [service.value for service in project.managed_services],
                "openbaoAddress": known["openbao_address"],
                "leasePaths": {level.value: names.lease_path(level) for level in AccessLevel},
                "tokenPaths": {level.value: names.token_path(level) for level in API_LEVELS},
                "publishableKeyPath": f"{CONNECTORS_MOUNT}/data/{TENANTS_SECRET}",
                "leaseTtlSeconds": project.limits.lease_ttl,
                "pooler": known["pooler"] and known["pooler"].document(),
                "workloads": _workload_binding(project, known["workload_logins"]),
                **self._storage_binding(project, known["api_url"]),
            }
        )
        self.register_outputs({"binding": self.binding})

    def _workloads(self, name: str, args: ProjectTenantArgs) -> Mapping[AccessLevel, list[pulumi.Output[str]]]:
        if not args.project.workloads:
            return {}
        return TenantWorkloads(
            f"{name}-workloads",
            TenantWorkloadsArgs(project=args.project, provider=args.openbao, logins=args.platform.workload_logins),
            opts=pulumi.ResourceOptions(parent=self),
        ).entities

    def _services(self, name: str, args: ProjectTenantArgs, schema: TenantSchema) -> None:
        """What the project declares of PostgREST, Auth and Storage, for these to find in the database."""
        project = args.project
        database = DatabaseConnection(args.platform.database, args.database_password)
        after_schema = pulumi.ResourceOptions(parent=self, depends_on=[schema])
        TenantApiAccess(
            f"{name}-api-access",
            database=database,
            tenant=project.names.schema,
            login=project.authenticator,
            storage=ManagedService.STORAGE in project.managed_services and project.lifecycle is Lifecycle.ATTACHED,
            opts=after_schema,
        )
        if ManagedService.AUTH in project.managed_services:
            TenantSignIn(
                f"{name}-sign-in",
                database=database,
                tenant=project.names.schema,
                sign_up=project.sign_up,
                opts=after_schema,
            )
        if ManagedService.STORAGE in project.managed_services:
            TenantBucket(
                f"{name}-bucket",
                database=database,
                tenant=project.names.schema,
                settings=project.storage,
                attached=project.lifecycle is Lifecycle.ATTACHED,
                opts=after_schema,
            )

    @staticmethod
    def _storage_binding(project: Project, api_url: str) -> dict[str, object]:
        if ManagedService.STORAGE not in project.managed_services:
            return {}
        return {
            "storage": {
                "url": f"{api_url}/storage/v1",
                "bucket": project.names.schema,
                "tokenPath": project.names.storage_token_path,
            }
        }


def _workload_binding(project: Project, logins: WorkloadLogins) -> dict[str, dict[str, object]]:
    bindings: dict[str, dict[str, object]] = {}
    for name, workload in project.workloads.items():
        login = login_for(workload.method, logins, project.slug)
        bindings[name] = {
            "level": workload.level.value,
            "method": workload.method.value,
            "mount": login.path,
            "role": project.names.workload_role(name),
        }
        if workload.kubernetes is not None:
            bindings[name] |= {
                "namespace": workload.kubernetes.namespace,
                "serviceAccount": workload.kubernetes.service_account,
                **({"audience": login.audience} if login.audience else {}),
            }
        if workload.approle is not None:
            bindings[name]["secretIdTtlSeconds"] = workload.approle.secret_id_ttl
    return bindings
