from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data_plane.connector.backups import RestoreRequest, parse_moment, s3_credentials
from data_plane.errors import BackupError, ConnectorError
from data_plane.local.backups import load_backup_settings
from data_plane.model.backup_list import BackupList, PhysicalBackup
from data_plane.model.backup_settings import BackupSettings, store_variables
from data_plane.model.connector_secrets import SecretsMissingError
from data_plane.model.problems import ConfigurationError
from data_plane.state_dir import StateDir

LEAST = {"bucket": "backups", "prefix": "prod"}


def test_backups_have_safe_defaults() -> None:
    settings = BackupSettings.model_validate(LEAST)
    assert settings.physical is not None
    assert settings.logical is not None
    assert (settings.physical.retain_days, settings.physical.retain_minimum, settings.logical.retain_days) == (
        14,
        2,
        30,
    )
    assert settings.physical.archive_timeout == 60
    assert settings.destination == "s3://backups/prod"
    variables = store_variables(settings)
    assert (variables["BACKUP_ENDPOINT"], variables["BACKUP_ADDRESSING"], variables["BACKUP_ENCRYPTION"]) == (
        "",
        "auto",
        "",
    )


@pytest.mark.parametrize(
    "schedule", ["15 1 * * *", "*/10 * * * *", "0 0-6/2 1,15 * 1-5", "59 23 31 12 7", "  0   3 * * 0 "]
)
def test_schedules_are_those_of_cron(schedule: str) -> None:
    settings = BackupSettings.model_validate({**LEAST, "physical": {"schedule": schedule}})
    assert settings.physical is not None
    assert settings.physical.schedule == " ".join(schedule.split())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *(({"physical": {"schedule": text}}, "physical.schedule") for text in (
            "", "daily", "@daily", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *",
            "*/0 * * * *", "0 0 3 * * *", "* * * *", "1,,2 * * * *", "-1 * * * *", "* * * JAN *",
        )),
        ({"logical": {"retainDays": 0}}, "logical.retainDays"),
        ({"physical": {"retainFull": 3}}, "physical.retainFull"),
        ({"physical": {"archiveTimeout": "1"}}, "physical.archiveTimeout"),
        ({"bucket": "Backups"}, "bucket"),
        ({"prefix": "/prod"}, "prefix"),
        ({"prefix": "../prod"}, "prefix"),
        ({"prefix": "a b"}, "prefix"),
        ({"endpoint": "minio:9000"}, "endpoint"),
        ({"endpoint": "http://minio:9000/path"}, "endpoint"),
        ({"encryption": "gpg"}, "encryption"),
        ({"server": "Central"}, "server"),
        ({"databaseUser": 0}, "databaseUser"),
    ],
)  # fmt: skip
def test_each_wrong_setting_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BackupSettings.model_validate({**LEAST, **change})
    assert [".".join(map(str, error["loc"])) for error in caught.value.errors()] == [field]


def test_backups_of_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="one of them, or no `backups` at all"):
        BackupSettings.model_validate({**LEAST, "physical": None, "logical": None})


def test_the_local_settings_are_a_file_with_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATA_PLANE_BACKUPS", raising=False)
    home = StateDir(tmp_path)
    with pytest.raises(BackupError, match=r"backups\.yaml is missing: it says where backups go"):
        load_backup_settings(home)
    (tmp_path / "backups.yaml").write_text("bucket: backups\nprefix: local\nphysical:\n  retain: 3\n", encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_backup_settings(home)
    (problem,) = caught.value.problems
    assert (problem.line, problem.field) == (4, "physical.retain")
    assert problem.expected == "one of: archiveTimeout, retainDays, retainMinimum, schedule"
    other = tmp_path / "other.yaml"
    other.write_text("bucket: backups\nprefix: local\n", encoding="utf-8")
    monkeypatch.setenv("DATA_PLANE_BACKUPS", str(other))
    assert load_backup_settings(home).destination == "s3://backups/local"


def test_a_moment_has_a_zone_and_has_passed() -> None:
    assert parse_moment("2026-01-31T15:05:00+01:00") == datetime(2026, 1, 31, 14, 5, tzinfo=UTC)
    for text in ("2026-01-31T14:05:00", "yesterday", "", "2999-01-01T00:00:00Z"):
        with pytest.raises(ConnectorError, match=f"--to: found {text!r}"):
            parse_moment(text)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (RestoreRequest(to=datetime(2026, 1, 1, tzinfo=UTC), dump="latest"), "--to: dumps hold one moment only"),
        (RestoreRequest(backup="x", project="demo"), "--backup: dumps hold one moment only"),
        (RestoreRequest(timeline="first"), "--timeline: found 'first'"),
    ],
)
def test_a_contradictory_request_is_refused(request_: RestoreRequest, expected: str) -> None:
    with pytest.raises(ConnectorError, match=expected):
        request_.check()


def test_the_last_backup_before_the_moment_is_taken() -> None:
    def ended(day: int) -> PhysicalBackup:
        return PhysicalBackup(
            str(day), datetime(2026, 1, day, tzinfo=UTC), datetime(2026, 1, day, 1, tzinfo=UTC), 1, 17
        )

    found = BackupList([ended(1), ended(2), ended(3)], [])
    assert found.before(None) == ended(3)
    assert found.before(datetime(2026, 1, 2, 12, tzinfo=UTC)) == ended(2)
    # While it was being made it holds no one moment yet.
    assert found.before(datetime(2026, 1, 2, 0, 30, tzinfo=UTC)) == ended(1)
    assert found.before(datetime(2025, 1, 1, tzinfo=UTC)) is None


def test_the_access_key_comes_from_openbao() -> None:
    keys = {"BACKUP_S3_ACCESS_KEY_ID": "a", "BACKUP_S3_SECRET_ACCESS_KEY": "b", "POSTGRES_PASSWORD": "c"}
    assert s3_credentials(keys, "backups") == {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with pytest.raises(
        SecretsMissingError, match="bao kv patch -mount=connectors supabase BACKUP_S3_SECRET_ACCESS_KEY=-"
    ):
        s3_credentials({**keys, "BACKUP_S3_SECRET_ACCESS_KEY": ""}, "backups")
