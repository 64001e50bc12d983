"""Supavisor: the pooler through which projects connect.

Variables: Supabase's ``docker/docker-compose.yml`` and ``config/runtime.exs`` of supabase/supavisor. Clients sign in as
``<login>.<tenant>``, with the login of their lease; on 5432 they have a server connection for their session, on 6543
for a transaction.
"""

import json

import pulumi

from components.central.analytics import INTERNAL_DATABASE
from components.central.cluster import Cluster
from components.central.realtime import ERLANG_DISTRIBUTION
from components.central.service_deployment import Files, Probes, ServiceArgs, ServiceDeployment, ServiceDeploymentArgs
from components.central.service_secrets import secret_field
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import PORTS, place_of, service_name
from data_plane.model.cluster_settings import PoolerSettings
from data_plane.model.settings import CentralSettings
from data_plane.model.tenant_binding import PoolerEndpoint

__all__ = ["POOLER_SCHEMA", "Pooler", "pooler_endpoint"]

_NOBODY = 65534
POOLER_SCHEMA = "_supavisor"
_CONFIG = "/etc/pooler"
_AUTH_QUERY = "SELECT * FROM data_plane.pooler_auth($1)"

# Elixir, evaluated in Supavisor's own release before the server starts: makes its one tenant be as the JSON file
# says. The password is in the environment alone. Nothing is written if nothing differs, because an update ends
# everybody's sessions.
_SETUP = """\
{:ok, _} = Application.ensure_all_started(:supavisor)

wanted = "/etc/pooler/tenant.json" |> File.read!() |> Jason.decode!()
[manager] = wanted["users"]
manager = Map.put(manager, "db_password", System.fetch_env!("POOLER_PASSWORD"))

{:ok, version} =
  case Supavisor.Repo.query!("select version()") do
    %{rows: [[version]]} -> Supavisor.Helpers.parse_pg_version(version)
  end

params =
  Map.merge(wanted, %{"users" => [manager], "default_parameter_status" => %{"server_version" => version}})

as_wanted? = fn record, fields ->
  Enum.all?(fields, fn {key, value} ->
    present = Map.get(record, String.to_existing_atom(key))
    if is_map(value), do: present == value, else: to_string(present) == to_string(value)
  end)
end

result =
  case Supavisor.Tenants.get_tenant_by_external_id(params["external_id"]) do
    nil ->
      Supavisor.Tenants.create_tenant(params)

    %{users: [user]} = tenant ->
      if as_wanted?.(tenant, Map.delete(params, "users")) and as_wanted?.(user, manager),
        do: {:ok, tenant},
        else: Supavisor.Tenants.update_tenant(tenant, params)

    tenant ->
      Supavisor.Tenants.update_tenant(tenant, params)
  end

case result do
  {:ok, _} -> IO.puts("tenant #{params["external_id"]} is set up")
  {:error, changeset} -> raise "tenant was refused: #{inspect(changeset.errors)}"
end
"""


def pooler_endpoint(settings: CentralSettings) -> PoolerEndpoint | None:
    """The address at which clients reach the pooler: the setting ``pooler``, else its Service.

    None where there is no pooler, or none that is known to run: manifests that are only rendered run nowhere yet.
    """
    cluster, given = settings.kubernetes, settings.pooler
    if given is not None:
        tenant = given.tenant or (cluster.pooler.tenant if cluster else PoolerSettings().tenant)
        return PoolerEndpoint(**given.model_dump(exclude={"tenant"}), tenant=tenant)
    if cluster is None or not cluster.pooler.enabled or cluster.render_to is not None:
        return None
    host = f"{service_name(Service.POOLER)}.{cluster.namespace}{place_of(Service.POOLER).value}.svc"
    ports = PORTS[Service.POOLER]
    # It has no certificate; network policies guard the way.
    return PoolerEndpoint(
        host=host,
        session_port=ports["session"],
        transaction_port=ports["transaction"],
        tenant=cluster.pooler.tenant,
        sslmode="disable",
    )


class Pooler(pulumi.ComponentResource):
    """Creates Supavisor, reachable from namespaces with the label ``supabase-data-plane/client=true``.

    It asks PostgreSQL for the password verifiers of leases that are valid at that moment, and of nobody else.
    """

    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Pooler", name, None, opts)
        cluster = args.cluster
        ports = PORTS[Service.POOLER]
        own_database = cluster.database_url("ecto", cluster.admin_user, "POSTGRES_PASSWORD", INTERNAL_DATABASE)
        ServiceDeployment(
            name,
            Service.POOLER,
            ServiceDeploymentArgs(
                cluster=cluster,
                access=args.access,
                replicas=cluster.settings.pooler.replicas,
                user=_NOBODY,
                group=0,
                probes=Probes.http("/api/health", "http", startup_seconds=180),
                prepare={
                    "migrate": ["/app/bin/migrate"],
                    "set-up": ["/app/bin/supavisor", "eval", 'Code.eval_file("/etc/pooler/setup.exs")'],
                },
                command=["/usr/bin/tini", "-s", "-g", "--", "/app/bin/server"],
                field_env={"NODE_IP": "status.podIP"},
                env={
                    "PORT": str(ports["http"]),
                    "PROXY_PORT_SESSION": str(ports["session"]),
                    "PROXY_PORT_TRANSACTION": str(ports["transaction"]),
                    "CLUSTER_POSTGRES": "true",
                    "REGION": "local",
                    "ADDR_TYPE": "inet",
                    "DB_POOL_SIZE": "5",
                    "ERL_AFLAGS": ERLANG_DISTRIBUTION,
                    "RELEASE_TMP": "/tmp/release",  # noqa: S108 a folder of the container
                },
                secret_keys=(
                    "POSTGRES_PASSWORD",
                    "POOLER_PASSWORD",
                    "POOLER_JWT_SECRET",
                    "POOLER_COOKIE",
                    "SECRET_KEY_BASE",
                    "VAULT_ENC_KEY",
                ),
                secret_env={
                    "DATABASE_URL": own_database,
                    "POOLER_PASSWORD": secret_field("POOLER_PASSWORD"),
                    "API_JWT_SECRET": secret_field("POOLER_JWT_SECRET"),
                    "METRICS_JWT_SECRET": secret_field("POOLER_JWT_SECRET"),
                    "SECRET_KEY_BASE": secret_field("SECRET_KEY_BASE"),
                    "VAULT_ENC_KEY": secret_field("VAULT_ENC_KEY"),
                    "RELEASE_COOKIE": secret_field("POOLER_COOKIE"),
                },
                files=(Files(_CONFIG, {"tenant.json": self._tenant(cluster), "setup.exs": _SETUP}),),
                grace_seconds=120,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})

    @staticmethod
    def _tenant(cluster: Cluster) -> str:
        settings = cluster.settings.pooler
        tenant = {
            "external_id": settings.tenant,
            "db_host": cluster.database_host,
            "db_port": cluster.database_port,
            "db_database": cluster.database_name,
            "upstream_ssl": cluster.sslmode != "disable",
            "upstream_verify": "none",
            "enforce_ssl": False,
            "require_user": False,
            "auth_query": _AUTH_QUERY,
            "default_max_clients": settings.max_clients,
            "default_pool_size": settings.pool_size,
            "users": [
                {
                    "db_user": "pgbouncer",
                    "mode_type": "transaction",
                    "pool_size": settings.pool_size,
                    "is_manager": True,
                }
            ],
        }
        return json.dumps(tenant, indent=2, sort_keys=True) + "\n"
