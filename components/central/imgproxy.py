"""imgproxy: transforms the images that Storage serves.

Variables: Supabase's ``docker/docker-compose.yml`` and imgproxy's configuration page.
"""

import pulumi

from components.central.service_deployment import Metrics, Probes, ServiceArgs, ServiceDeployment, ServiceDeploymentArgs
from components.central.storage import FILES_FOLDER, files_volume
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import PORTS
from data_plane.model.cluster_settings import StorageBackend

__all__ = ["Imgproxy"]

_USER = 999
_MEGAPIXELS_MAX = "16.8"
"""The largest image that is taken apart, as Supabase has it."""


class Imgproxy(pulumi.ComponentResource):
    """Creates imgproxy; only Storage reaches it. With the file backend it reads Storage's volume."""

    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Imgproxy", name, None, opts)
        settings = args.cluster.settings
        with_files = settings.storage.backend is StorageBackend.FILE
        ports = PORTS[Service.IMGPROXY]
        source, volume = files_volume()
        volume["persistent_volume_claim"]["read_only"] = True
        ServiceDeployment(
            name,
            Service.IMGPROXY,
            ServiceDeploymentArgs(
                cluster=args.cluster,
                access=args.access,
                replicas=settings.imgproxy.replicas,
                user=_USER,
                probes=Probes.command("imgproxy", "health", startup_seconds=60),
                env={
                    "IMGPROXY_BIND": f":{ports['http']}",
                    "IMGPROXY_PROMETHEUS_BIND": f":{ports['metrics']}",
                    "IMGPROXY_USE_ETAG": "true",
                    "IMGPROXY_AUTO_WEBP": str(settings.imgproxy.webp).lower(),
                    "IMGPROXY_MAX_SRC_RESOLUTION": _MEGAPIXELS_MAX,
                    # Storage names files by their whole path.
                    **({"IMGPROXY_LOCAL_FILESYSTEM_ROOT": "/"} if with_files else {}),
                },
                volumes=((source, volume, FILES_FOLDER),) if with_files else (),
                waits_for_database=False,
                beside=Service.STORAGE if with_files and settings.storage.access_mode == "ReadWriteOnce" else None,
                metrics=Metrics("metrics"),
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
