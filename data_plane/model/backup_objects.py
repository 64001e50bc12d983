"""The Kubernetes objects of backups that a restore has to name or to write."""

from typing import Any

from data_plane.model.backup_settings import BackupSettings
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import service_name
from data_plane.model.cluster_settings import DatabaseMode

__all__ = ["ARCHIVER_PLUGIN", "OBJECT_STORE", "RESTORE_JOB", "archiver_plugin", "backup_jobs", "recovery"]

ARCHIVER_PLUGIN = "barman-cloud.cloudnative-pg.io"
"""CloudNativePG's plugin for backups in an object store; has to be installed beside the operator."""
OBJECT_STORE = f"{service_name(Service.BACKUPS)}-store"
"""The plugin's ObjectStore. It may not have its Secret's name: cloudnative-pg/plugin-barman-cloud#502."""
RESTORE_JOB = "supabase-restore"
"""The suspended CronJob that holds what a restore runs; ``dataplane backup restore`` makes a Job of it."""


def recovery(settings: BackupSettings, server: str, to: str | None = None) -> dict[str, Any]:
    """The part of a new CloudNativePG Cluster's ``spec`` that fills it from backups.

    Args:
        settings: as they are for the new Cluster: ``server`` is where it will write its own backups.
        server: whose backups to start from: that of the old Cluster or of the StatefulSet.
        to: a time with its zone; all there is unless given.
    """
    target = {} if to is None else {"recoveryTarget": {"targetTime": to}}
    return {
        "bootstrap": {"recovery": {"source": server, **target}},
        "externalClusters": [{"name": server, "plugin": archiver_plugin(server)}],
        "plugins": [archiver_plugin(settings.server, is_archiver=True)],
    }


def backup_jobs(mode: DatabaseMode, settings: BackupSettings) -> dict[str, str]:
    """The names of the CronJobs that make backups, by kind."""
    physical = settings.physical is not None and mode is DatabaseMode.STATEFUL_SET
    kinds = [*(["physical"] if physical else []), *(["logical"] if settings.logical is not None else [])]
    return {kind: f"{service_name(Service.BACKUPS)}-{kind}" for kind in kinds}


def archiver_plugin(server: str, *, is_archiver: bool = False) -> dict[str, Any]:
    """The plugin's entry in a CloudNativePG Cluster: whose backups it reads or, as the archiver, writes."""
    return {
        "name": ARCHIVER_PLUGIN,
        **({"isWALArchiver": True} if is_archiver else {}),
        "parameters": {"barmanObjectName": OBJECT_STORE, "serverName": server},
    }
