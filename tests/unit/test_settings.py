from typing import Any

import pytest

from components.central.pooler import pooler_endpoint
from data_plane.model.access import FractalOpsRole, levels_of
from data_plane.model.durations import format_duration, format_go_duration, parse_duration
from data_plane.model.naming import AccessLevel
from data_plane.model.problems import ConfigurationError
from data_plane.model.settings import CellSettings, CentralSettings, load_bounds
from tests.support.settings import CENTRAL, load

CLUSTER: dict[str, Any] = {
    "auth": {"siteUrl": "https://app.example.com", "emailAutoconfirm": True},
    "storage": {"bucket": "files"},
    "database": {"tlsSecret": "postgres-tls"},
}
CELL: dict[str, Any] = {
    "kind": "cell",
    "environment": "prod",
    "cell": "cell-1",
    "centralStack": "prod-central",
    "cellSize": 50,
    "leaseTtlMaximum": "24h",
}


def test_a_central_stack_has_safe_defaults() -> None:
    settings = load(CENTRAL)
    assert isinstance(settings, CentralSettings)
    database = settings.database
    assert (database.port, database.name, database.admin_user) == (5432, "postgres", "supabase_admin")
    assert database.sslmode == "require"
    assert settings.login.managed is False
    assert settings.project_api == "shared"


def pooler(**change: Any) -> tuple[str, int, int, str, str] | None:
    settings = load({**CENTRAL, **change})
    assert isinstance(settings, CentralSettings)
    found = pooler_endpoint(settings)
    return (
        None if found is None else (found.host, found.session_port, found.transaction_port, found.tenant, found.sslmode)
    )


def test_clients_reach_the_pooler_at_its_service_unless_the_settings_say_where() -> None:
    service = ("supabase-pooler.supabase.svc", 5432, 6543, "supabase", "disable")
    assert pooler() is None
    assert pooler(kubernetes=CLUSTER) == service
    named = {**CLUSTER, "namespace": "central", "pooler": {"tenant": "main"}}
    assert pooler(kubernetes=named) == ("supabase-pooler.central.svc", 5432, 6543, "main", "disable")
    outside = {"host": "pooler.example.com", "transactionPort": 16543}
    expected = ("pooler.example.com", 5432, 16543, "supabase", "require")
    assert pooler(pooler=outside) == pooler(pooler=outside, kubernetes=CLUSTER) == expected
    assert pooler(pooler=outside, kubernetes=named) == (*expected[:3], "main", "require")


def test_a_pooler_that_runs_nowhere_has_no_address() -> None:
    assert pooler(kubernetes={**CLUSTER, "pooler": {"enabled": False}}) is None
    assert pooler(kubernetes={**CLUSTER, "renderTo": "manifests"}) is None


def test_a_cell_needs_nothing_but_its_name_and_its_central_stack() -> None:
    settings = load({**CELL, "apiUrl": ""})
    assert isinstance(settings, CellSettings)
    assert (settings.cell, settings.central_stack, settings.lease_ttl_maximum) == ("cell-1", "prod-central", 86400)


@pytest.mark.parametrize(
    ("base", "change", "expected"),
    [
        (CENTRAL, {"kind": "centre"}, "kind: found 'centre'; expected central or cell"),
        (CENTRAL, {"kind": ""}, "kind: found nothing; expected central or cell"),
        (CENTRAL, {"database": {}}, "database.host: found nothing; expected this field"),
        (CENTRAL, {"database": {"host": "h", "port": 0}}, "database.port: found 0; expected at least 1"),
        (
            CENTRAL,
            {"database": {"host": "h", "sslmode": "prefer"}},
            "database.sslmode: found 'prefer'; expected one of: disable, require",
        ),
        (
            CENTRAL,
            {"database": {"host": "h", "user": "x"}},
            "database.user: found an unknown key; expected one of: adminUser, host, name, port, sslmode",
        ),
        (
            CENTRAL,
            {"openbao": {"address": "bao:8200"}},
            "openbao.address: found 'bao:8200'; expected a URL, e.g.",
        ),
        (CENTRAL, {"openbao": "not json {"}, "openbao: found text that is no object; expected YAML"),
        (CENTRAL, {"apiUrl": ""}, "apiUrl: found nothing; expected this field"),
        (
            CENTRAL,
            {"leaseTtlMaximum": "1 day"},
            "leaseTtlMaximum: found '1 day'; expected a whole number with its unit",
        ),
        (CENTRAL, {"cellSize": 0}, "cellSize: found 0; expected at least 1"),
        (CENTRAL, {"login": {"type": "magic"}}, "login.type: found 'magic'; expected one of: oidc"),
        (
            CENTRAL,
            {"workloadLogin": {"approle": {"managed": "always"}}},
            "workloadLogin.approle.managed: found 'always'; expected true or false",
        ),
        (
            CENTRAL,
            {"workloadLogin": {"github": {}}},
            "workloadLogin.github: found an unknown key; expected one of: approle, kubernetes",
        ),
        (
            CENTRAL,
            {"workloadLogin": {"kubernetes": {"managed": True}}},
            "workloadLogin.kubernetes.kubernetesHost: found nothing; expected the URL of the cluster's API",
        ),
        (
            CENTRAL,
            {"workloadLogin": {"kubernetes": {"managed": True, "kubernetesHost": "https://k", "inCluster": False}}},
            "workloadLogin.kubernetes.kubernetesCa: found nothing; expected the API's CA certificate",
        ),
        (
            CENTRAL,
            {"workloadLogin": {"kubernetes": {"kubernetesHost": "https://k"}}},
            "workloadLogin.kubernetes.managed: found false; expected true",
        ),
        (
            {**CENTRAL, "kubernetes": CLUSTER},
            {"workloadLogin": {"kubernetes": {"managed": True, "kubernetesHost": "https://k"}}},
            "workloadLogin.kubernetes.managed: found true; expected false, because the stack makes this method",
        ),
        (CENTRAL, {"pooler": {}}, "pooler.host: found nothing; expected this field"),
        (CENTRAL, {"pooler": {"host": "p", "port": 1}}, "pooler.port: found an unknown key; expected one of: host, "),
        (CELL, {"cell": ""}, "cell: found nothing; expected this field"),
        (CELL, {"centralStack": "a/b"}, "centralStack: found 'a/b'; expected a match of"),
        (CELL, {"environment": "../etc"}, "environment: found '../etc'; expected a match of"),
    ],
)
def test_each_wrong_setting_names_its_file_and_the_remedy(
    base: dict[str, Any], change: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({**base, **change})
    assert any(str(p).startswith(f"stacks/Pulumi.prod-1.yaml: {expected}") for p in caught.value.problems), caught.value


def test_all_wrong_settings_come_at_once() -> None:
    with pytest.raises(ConfigurationError, match="3 problems in the configuration; nothing was applied") as caught:
        load({**CENTRAL, "apiUrl": "x", "database": {"port": 99999}})
    assert [problem.field for problem in caught.value.problems] == ["apiUrl", "database.host", "database.port"]


def test_bounds_are_checked_without_running_the_program_too() -> None:
    assert load_bounds({"cellSize": "7", "leaseTtlMaximum": "2h", "kind": "central"}, "f").lease_ttl_maximum == 7200
    with pytest.raises(ConfigurationError, match="2 problems") as caught:
        load_bounds({"cellSize": "x", "leaseTtlMaximum": "1 day"}, "f")
    assert [problem.field for problem in caught.value.problems] == ["cellSize", "leaseTtlMaximum"]


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("90s", 90), ("15m", 900), ("24h", 86400), ("7d", 604800)])
def test_durations_are_read_in_every_unit(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(format_duration(seconds)) == seconds
    assert "d" not in format_go_duration(seconds)
    assert parse_duration(format_go_duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "0s", "1", "1.5h", "-1m", "1w", "1h30m", "01m", 90, None, "1s\n"])
def test_anything_else_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="a whole number with its unit"):
        parse_duration(text)


def test_every_role_maps_to_its_supabase_role_and_what_is_weaker() -> None:
    strongest = {
        role: next(level for level in levels_of(role) if level is not AccessLevel.OWNER) for role in FractalOpsRole
    }
    assert {role.value: level.value for role, level in strongest.items()} == {
        "project_owner": "service_role",
        "maintainer": "service_role",
        "solution_admin": "service_role",
        "project_contributor": "authenticated",
        "team_member": "authenticated",
        "solution_user": "authenticated",
        "project_viewer": "anon",
        "solution_viewer": "anon",
    }
    migrate = {role.value for role in FractalOpsRole if AccessLevel.OWNER in levels_of(role)}
    assert migrate == {"project_owner", "maintainer"}
    assert all(AccessLevel.ANON in levels_of(role) for role in FractalOpsRole)


def test_a_central_stack_names_the_extensions_that_projects_may_use() -> None:
    settings = load({**CENTRAL, "extensions": ["pgcrypto", "uuid-ossp", "vector"]})
    assert isinstance(settings, CentralSettings)
    assert settings.extensions == ("pgcrypto", "uuid-ossp", "vector")


@pytest.mark.parametrize("extension", ["dblink", "postgres_fdw", "http", "pg_cron", "file_fdw"])
def test_an_extension_by_which_projects_reach_out_of_the_database_is_refused(extension: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"extensions\.0: .*every project could reach out of it with {extension}"
    ):
        load({**CENTRAL, "extensions": [extension]})
