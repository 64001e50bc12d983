"""A restore on a cluster, step by step, against a cluster that only keeps notes."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from data_plane.connector import cluster_backups
from data_plane.connector.backups import RestoreRequest
from data_plane.connector.cluster_backups import CentralStack, ClusterApi, ClusterBackups
from data_plane.errors import BackupError
from data_plane.model.backup_list import BackupList, PhysicalBackup
from data_plane.model.cluster_settings import ClusterSettings
from data_plane.model.settings import DatabaseSettings

ENDED = datetime(2026, 1, 2, 1, tzinfo=UTC)
BACKUP = PhysicalBackup("20260102T000000", datetime(2026, 1, 2, tzinfo=UTC), ENDED, 1, 17)


class Notes(ClusterApi):
    """A cluster that does at once what it is asked."""

    def __init__(self) -> None:
        self.namespace = "supabase-data"
        self.done: list[str] = []
        self.replicas = 1
        self.job: str | None = None
        self.works = True
        self.already = False
        self.same = True

    def suspend(self, cron_job: str, *, suspend: bool) -> None:
        self.done.append(f"{'suspend' if suspend else 'resume'} {cron_job}")

    def run(self, cron_job: str, variables: Mapping[str, str]) -> str:
        assert self.replicas == 0 or cron_job != "supabase-restore", "the server runs on the files that are to be moved"
        self.done.append(" ".join([f"run {cron_job}", *(f"{key}={value}" for key, value in variables.items())]))
        return f"{cron_job}-1"

    def unfinished(self, cron_job: str) -> str | None:
        return self.job

    def succeeded(self, cron_job: str, variables: Mapping[str, str]) -> bool:
        return self.already

    def has(self, job: str, variables: Mapping[str, str]) -> bool:
        return self.same

    def outcome(self, job: str) -> bool | None:
        return self.works

    def log(self, job: str) -> str:
        return "what it said"

    def scale(self, stateful_set: str, replicas: int) -> None:
        self.done.append(f"scale {stateful_set} {replicas}")
        self.replicas = replicas

    def pods(self, stateful_set: str) -> tuple[int, int]:
        return self.replicas, self.replicas

    def back_up_cluster(self, cluster: str) -> None:
        self.done.append(f"back up {cluster}")


def backups(api: Notes, monkeypatch: pytest.MonkeyPatch, **database: Any) -> ClusterBackups:
    settings = ClusterSettings.model_validate(
        {
            "auth": {"siteUrl": "https://app.example.com", "emailAutoconfirm": True},
            "storage": {"backend": "file", "replicas": 1},
            "database": database,
            "backups": {"bucket": "backups", "prefix": "prod"},
        }
    )
    monkeypatch.setattr(ClusterBackups, "available", lambda _self: BackupList([BACKUP], []))
    monkeypatch.setattr(ClusterBackups, "reconcile_credentials", lambda _self: api.done.append("reconcile_credentials"))
    monkeypatch.setattr(cluster_backups, "_POLL_SECONDS", 0)
    stack = CentralStack("prod-central", settings, DatabaseSettings(host="db"), "https://bao")
    return ClusterBackups(stack, lambda _text: None, api)


RUN = "run supabase-restore RESTORE_BACKUP=20260102T000000 RESTORE_TO= RESTORE_TIMELINE=latest"
SUSPENDED = ["suspend supabase-backups-physical", "suspend supabase-backups-logical"]
RESUMED = ["resume supabase-backups-physical", "resume supabase-backups-logical"]


def test_a_restore_stops_the_server_first_and_starts_it_last(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Notes()
    found = backups(api, monkeypatch)
    plan = found.plan(RestoreRequest())
    assert api.done == [], "a plan did something"
    assert [step.partition(" ")[0] for step in plan] == ["suspend", "scale", "run", "the", "scale", "give"]
    found.restore(RestoreRequest())
    stop, start = "scale supabase-database 0", "scale supabase-database 1"
    assert api.done == [*SUSPENDED, stop, RUN, start, *RESUMED, "reconcile_credentials"]


def test_after_a_failed_restore_the_server_runs_on_the_former_files(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Notes()
    api.works = False
    with pytest.raises(BackupError, match="former files; the end of its log:\nwhat it said"):
        backups(api, monkeypatch).restore(RestoreRequest())
    assert api.done[-3:] == ["scale supabase-database 1", *RESUMED]
    assert "reconcile_credentials" not in api.done


def test_a_restore_that_still_runs_is_waited_for_and_not_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Notes()
    api.job, api.replicas = "supabase-restore-7", 0
    backups(api, monkeypatch).restore(RestoreRequest())
    assert not any(step.startswith("run") for step in api.done)
    assert api.done[-1] == "reconcile_credentials"


def test_a_restore_to_another_moment_that_still_runs_is_not_taken_for_the_one_that_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api = Notes()
    api.job, api.same, api.replicas = "supabase-restore-7", False, 0
    with pytest.raises(BackupError, match="job supabase-restore-7 restores something else, and nothing was done"):
        backups(api, monkeypatch).restore(RestoreRequest())
    assert api.done == []


def test_the_server_stays_down_while_the_job_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Notes()
    monkeypatch.setattr(api, "outcome", lambda _job: None)
    found = backups(api, monkeypatch)
    monkeypatch.setattr(cluster_backups, "_JOB_SECONDS", 0)
    with pytest.raises(BackupError, match="has not ended within 0 minutes; run the same command again to resume"):
        found.restore(RestoreRequest())
    assert api.replicas == 0


def test_a_restore_that_only_lacks_the_start_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Notes()
    api.already, api.replicas = True, 0
    backups(api, monkeypatch).restore(RestoreRequest())
    assert not any(step.startswith("run") for step in api.done)
    assert "scale supabase-database 1" in api.done


def test_a_backup_now_runs_what_the_schedule_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Notes()
    backups(api, monkeypatch).back_up()
    assert api.done == ["run supabase-backups-physical", "run supabase-backups-logical"]
    api = Notes()
    backups(api, monkeypatch, mode="cloudnativepg", image="example.com/supabase:17").back_up()
    assert api.done == ["back up supabase-postgres", "run supabase-backups-logical"]


def test_with_cloudnativepg_the_plan_is_a_new_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    found = backups(Notes(), monkeypatch, mode="cloudnativepg", image="example.com/supabase:17")
    text = "\n".join(found.plan(RestoreRequest(to=ENDED)))
    assert "serverName: central-2" in text
    assert "targetTime: '2026-01-02T01:00:00+00:00'" in text
    with pytest.raises(BackupError, match="nothing was done"):
        found.restore(RestoreRequest())


def test_an_external_database_is_its_owners_to_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    found = backups(Notes(), monkeypatch, mode="external", serverCidrs=["10.0.0.5/32"])
    with pytest.raises(BackupError, match="an external database is restored by its operator"):
        found.plan(RestoreRequest())
