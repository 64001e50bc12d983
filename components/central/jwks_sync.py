"""Keeps the services' verifying keys (JWKS) current.

Two signers' public keys are believed: OpenBao's, which rotate daily, and Auth's. External Secrets fetches OpenBao's
JWKS from its public address and puts it together with Auth's into one Secret. From there

- a job publishes it into the database (``data_plane.publish_keys``), which PostgREST and Realtime follow without a
  restart;
- Storage and Realtime have it as a variable when they start.

OpenBao publishes a key one rotation before it signs with it and keeps it one day after, so a reader that looks at least
once a day always has the key of every token that lives.
"""

import pulumi
import pulumi_kubernetes as k8s

from components.central.service_deployment import ServiceArgs, container, pod_spec
from components.central.service_secrets import ServiceSecret, ServiceSecretArgs, secret_field
from data_plane.clients.postgres import PLATFORM_SESSION
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import JWKS_ENTRY, JWKS_SECRET, service_name
from data_plane.model.durations import format_go_duration
from data_plane.model.naming import JWKS_PATH, PLATFORM_SCHEMA

__all__ = ["JWKS_ENTRY", "JWKS_SECRET", "JwksSync"]

_NOBODY = 65534
_MINUTES = 15
_DEADLINE_SECONDS = 120
_KEYS_FOLDER = "/keys"

# Go template of External Secrets (engine v2): the keys of both documents in one.
_BOTH = (
    '{{ $openbao := .openbao | fromJson }}{{ $auth := .JWT_JWKS | fromJson }}'
    '{{ dict "keys" (concat $auth.keys $openbao.keys) | toJson }}'
)  # fmt: skip
_PUBLISH = f"""\
set -eu
export PGOPTIONS='{PLATFORM_SESSION}'
psql --no-psqlrc --quiet --tuples-only --set ON_ERROR_STOP=1 \\
    --set keys="$(cat {_KEYS_FOLDER}/{JWKS_ENTRY})" <<'SQL'
select {PLATFORM_SCHEMA}.publish_keys(:'keys'::jsonb);
SQL
"""


class JwksSync(pulumi.ComponentResource):
    """Creates the ExternalSecret of the JWKS and the CronJob that publishes it into the database.

    Creates the Secret ``supabase-jwks-public`` (by External Secrets) and the CronJob that publishes it into the
    database every quarter of an hour.
    """

    published: pulumi.Resource
    """What makes the Secret."""

    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        renamed = pulumi.ResourceOptions(aliases=[pulumi.Alias(type_="supabase-data-plane:central:KeyFollower")])
        super().__init__(
            "supabase-data-plane:central:JwksSync", name, None, pulumi.ResourceOptions.merge(opts, renamed)
        )
        cluster = args.cluster
        service = Service.JWKS
        on_cluster = pulumi.ResourceOptions(parent=self, provider=cluster.provider)
        labels = cluster.labels(service)
        namespace = cluster.namespace(service)
        metadata = {"name": service_name(service), "namespace": namespace, "labels": labels}
        public = {"name": JWKS_SECRET, "namespace": namespace, "labels": labels}

        account = k8s.core.v1.ServiceAccount(
            name, metadata=metadata, automount_service_account_token=False, opts=on_cluster
        )
        secret = ServiceSecret(
            name,
            service,
            cluster,
            args.access,
            ServiceSecretArgs(
                ("KEYS_PASSWORD", "JWT_JWKS"), {"PGPASSWORD": secret_field("KEYS_PASSWORD")}, labels, account
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        ca = cluster.settings.openbao.ca_config_map
        store = k8s.apiextensions.CustomResource(
            f"{name}-openbao",
            api_version="external-secrets.io/v1",
            kind="SecretStore",
            metadata=public,
            spec={
                "provider": {
                    "webhook": {
                        "url": pulumi.Output.concat(args.access.cluster_address, JWKS_PATH),
                        "method": "GET",
                        "timeout": "10s",
                        # Without a path the answer is taken as it is.
                        "result": {"jsonPath": ""},
                        **({"caProvider": {"type": "ConfigMap", "name": ca, "key": "ca.crt"}} if ca else {}),
                    }
                }
            },
            opts=on_cluster,
        )
        self.published = k8s.apiextensions.CustomResource(
            f"{name}-public",
            api_version="external-secrets.io/v1",
            kind="ExternalSecret",
            metadata=public,
            spec={
                "refreshInterval": format_go_duration(cluster.settings.openbao.refresh),
                "secretStoreRef": {"kind": "SecretStore", "name": service_name(service)},
                "target": {
                    "name": JWKS_SECRET,
                    "creationPolicy": "Owner",
                    "deletionPolicy": "Retain",
                    "template": {"engineVersion": "v2", "data": {JWKS_ENTRY: _BOTH}},
                },
                "dataFrom": [{"extract": {"key": f"supabase/{service}"}}],
                "data": [
                    {
                        "secretKey": "openbao",
                        "remoteRef": {"key": "keys"},
                        "sourceRef": {"storeRef": {"kind": "SecretStore", "name": JWKS_SECRET}},
                    }
                ],
            },
            opts=pulumi.ResourceOptions.merge(on_cluster, pulumi.ResourceOptions(depends_on=[secret, store])),
        )
        mounts = [{"name": "keys", "mount_path": _KEYS_FOLDER, "read_only": True}]
        pod = pod_spec(
            cluster,
            service,
            user=_NOBODY,
            group=None,
            volumes=[{"name": "keys", "secret": {"secret_name": JWKS_SECRET}}],
            containers=[
                container(
                    cluster,
                    service,
                    "publish",
                    {
                        "command": ["/bin/bash", "-c", _PUBLISH],
                        "env": [
                            {"name": "PGHOST", "value": cluster.database_host},
                            {"name": "PGPORT", "value": str(cluster.database_port)},
                            {"name": "PGDATABASE", "value": cluster.database_name},
                            {"name": "PGUSER", "value": "data_plane_keys"},
                            {"name": "PGSSLMODE", "value": cluster.sslmode},
                            {"name": "PGCONNECT_TIMEOUT", "value": "15"},
                            {
                                "name": "PGPASSWORD",
                                "value_from": {"secret_key_ref": {"name": service_name(service), "key": "PGPASSWORD"}},
                            },
                        ],
                    },
                    mounts,
                )
            ],
        )
        k8s.batch.v1.CronJob(
            name,
            metadata=metadata,
            spec={
                "schedule": f"*/{_MINUTES} * * * *",
                "time_zone": "Etc/UTC",
                "concurrency_policy": "Forbid",
                "starting_deadline_seconds": _DEADLINE_SECONDS,
                "successful_jobs_history_limit": 1,
                "failed_jobs_history_limit": 3,
                "job_template": {
                    "spec": {
                        "backoff_limit": 3,
                        "active_deadline_seconds": _DEADLINE_SECONDS,
                        "template": {
                            "metadata": {"labels": labels},
                            "spec": {**pod, "restart_policy": "Never"},
                        },
                    }
                },
            },
            opts=pulumi.ResourceOptions.merge(on_cluster, pulumi.ResourceOptions(depends_on=[self.published])),
        )
        self.register_outputs({"secretName": JWKS_SECRET})
