"""Storage: files, over its own API and the S3 protocol.

Variables: ``src/config.ts`` of supabase/storage; defaults of Supabase's compose files (``docker-compose.s3.yml``).
"""

from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components.central.cluster import Cluster
from components.central.jwks_sync import JWKS_ENTRY, JWKS_SECRET
from components.central.service_deployment import Probes, ServiceArgs, ServiceDeployment, ServiceDeploymentArgs
from components.central.service_secrets import secret_field
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import PORTS, service_name
from data_plane.model.cluster_settings import StorageBackend

__all__ = ["FILES_FOLDER", "S3_KEYS", "Storage", "files_volume"]

_USER = 1000
FILES_FOLDER = "/var/lib/storage"
S3_KEYS = ("STORAGE_S3_ACCESS_KEY_ID", "STORAGE_S3_SECRET_ACCESS_KEY")
"""Keys of ``connectors/supabase`` that the S3 backend needs and nobody can generate."""


class Storage(pulumi.ComponentResource):
    """Creates Storage, reachable through the gateway under ``/storage/v1``, and with the file backend its volume.

    It reads the keys that it believes when it starts. Stakater's Reloader restarts it, one Pod after the
    other, when they change; a key is published a day before it signs and stays a day after, so there is no gap.
    """

    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Storage", name, None, opts)
        cluster = args.cluster
        settings = cluster.settings.storage
        with_files = settings.backend is StorageBackend.FILE
        if with_files:
            self._claim(name, cluster)
        login = cluster.database_url("postgres", "supabase_storage_admin", "STORAGE_ADMIN_PASSWORD")
        s3_keys = () if with_files else S3_KEYS
        ServiceDeployment(
            name,
            Service.STORAGE,
            ServiceDeploymentArgs(
                cluster=cluster,
                access=args.access,
                replicas=settings.replicas,
                user=_USER,
                probes=Probes.http("/status", "http"),
                env=self._env(cluster),
                secret_keys=(
                    "STORAGE_ADMIN_PASSWORD",
                    "JWT_SECRET",
                    "ANON_KEY",
                    "S3_PROTOCOL_ACCESS_KEY_ID",
                    "S3_PROTOCOL_ACCESS_KEY_SECRET",
                    *s3_keys,
                ),
                secret_env={
                    "DATABASE_URL": f"{login}?sslmode={cluster.sslmode}",
                    # Signs the links to files that Storage hands out.
                    "AUTH_JWT_SECRET": secret_field("JWT_SECRET"),
                    "ANON_KEY": secret_field("ANON_KEY"),
                    "S3_PROTOCOL_ACCESS_KEY_ID": secret_field("S3_PROTOCOL_ACCESS_KEY_ID"),
                    "S3_PROTOCOL_ACCESS_KEY_SECRET": secret_field("S3_PROTOCOL_ACCESS_KEY_SECRET"),
                    **{key.replace("STORAGE_S3", "AWS"): secret_field(key) for key in s3_keys},
                },
                shared_env={"JWT_JWKS": (JWKS_SECRET, JWKS_ENTRY)},
                starts_anew_with=(JWKS_SECRET,),
                volumes=((*files_volume(), FILES_FOLDER),) if with_files else (),
                recreate=with_files and settings.access_mode == "ReadWriteOnce",
                grace_seconds=60,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})

    def _claim(self, name: str, cluster: Cluster) -> None:
        settings = cluster.settings.storage
        k8s.core.v1.PersistentVolumeClaim(
            f"{name}-files",
            metadata={
                "name": f"{service_name(Service.STORAGE)}-files",
                "namespace": cluster.namespace(Service.STORAGE),
                "labels": cluster.labels(Service.STORAGE),
                # A class that binds with the first Pod would be waited for in vain: the Pod comes after.
                "annotations": {"pulumi.com/skipAwait": "true"},
            },
            spec={
                "access_modes": [settings.access_mode],
                "resources": {"requests": {"storage": settings.size}},
                **({"storage_class_name": settings.storage_class} if settings.storage_class else {}),
            },
            opts=pulumi.ResourceOptions(
                parent=self,
                provider=cluster.provider,
                protect=cluster.settings.applied,
                retain_on_delete=cluster.settings.applied,
            ),
        )

    @staticmethod
    def _env(cluster: Cluster) -> dict[str, pulumi.Input[str]]:
        settings = cluster.settings.storage
        env: dict[str, pulumi.Input[str]] = {
            "SERVER_PORT": str(PORTS[Service.STORAGE]["http"]),
            "TENANT_ID": "supabase",
            "REGION": settings.region,
            "STORAGE_PUBLIC_URL": cluster.public_url,
            "REQUEST_ALLOW_X_FORWARDED_PATH": "true",
            "UPLOAD_FILE_SIZE_LIMIT": str(settings.file_size_limit_bytes),
            "DB_INSTALL_ROLES": "false",
            # The role of what Storage does in its own name, such as serving what it has signed: held to the rules of
            # platform_storage.sql. It signs the token for it by itself.
            "DB_SERVICE_ROLE": "data_plane_storage",
            # Storage puts its own schemas before these. The first lets it change roles within a transaction, as a
            # project's user cannot (platform_storage.sql); the second has to be named to come after it.
            "DATABASE_SEARCH_PATH": "data_plane_storage_session,pg_catalog",
            "STORAGE_BACKEND": settings.backend.value,
            "IMAGE_TRANSFORMATION_ENABLED": str(cluster.settings.imgproxy.enabled).lower(),
        }
        if cluster.settings.imgproxy.enabled:
            env["IMGPROXY_URL"] = cluster.url(Service.IMGPROXY)
        if settings.backend is StorageBackend.FILE:
            # The folder inside FILES_FOLDER; with S3 the bucket.
            return env | {"STORAGE_S3_BUCKET": "files", "STORAGE_FILE_BACKEND_PATH": FILES_FOLDER}
        return env | {
            "STORAGE_S3_BUCKET": str(settings.bucket),
            "STORAGE_S3_REGION": settings.region,
            "STORAGE_S3_FORCE_PATH_STYLE": str(settings.force_path_style).lower(),
            **({"STORAGE_S3_ENDPOINT": settings.endpoint} if settings.endpoint else {}),
        }


def files_volume() -> tuple[str, dict[str, Any]]:
    """The volume of the file backend, by name and source."""
    return "files", {"persistent_volume_claim": {"claim_name": f"{service_name(Service.STORAGE)}-files"}}
