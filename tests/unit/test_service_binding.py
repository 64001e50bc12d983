"""What `dataplane project binding` writes, and what it refuses, without servers."""

import json
import shlex
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from data_plane.cli.project_binding import app
from data_plane.connector.service_binding import (
    SERVICE_CATALOGUE_FILE,
    service_catalog_text,
    service_entry,
)
from data_plane.errors import BindingError, ConnectorError
from data_plane.model.timings import TOKEN_TTL_SECONDS
from policies.artifacts.discovery import checked
from tests.bound import BINDING, written

FORMS: list[dict[str, str]] = [
    {"form": "asset", "level": "service_role"},
    {"form": "dokploy", "workload": "edge"},
    {"form": "kubernetes"},
    {"form": "kubernetes", "provision": "agent"},
]


def asset(binding: dict[str, Any] | None = None, **request: str) -> dict[str, Any]:
    return dict(json.loads(written(binding, form="asset", **request)))


def fragment(binding: dict[str, Any] | None = None, **request: str) -> dict[str, Any]:
    return dict(yaml.safe_load(written(binding, form="dokploy", **request)))


def objects(binding: dict[str, Any] | None = None, **request: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(written(binding, form="kubernetes", **request)))


def of_kind(kind: str, found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item for item in found if item["kind"] == kind}


def files_of(config: str) -> dict[str, str]:
    """Contents by path below the folder of all bindings."""
    return {item["destination"].removeprefix("/bindings/"): item["contents"] for item in json.loads(config)["template"]}


def agent_files(binding: dict[str, Any] | None = None, **request: str) -> dict[str, str]:
    return files_of(fragment(binding, **request)["configs"]["supabase-agent"]["content"])


# All forms


@pytest.mark.parametrize("request_", FORMS)
def test_the_same_is_written_again_and_again(request_: dict[str, str]) -> None:
    assert written(None, **request_) == written(dict(reversed(BINDING.items())), **request_)


@pytest.mark.parametrize("request_", FORMS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lifecycle": "detached"}, "project my-shop is detached: set `lifecycle: attached`"),
        ({"pooler": None, "via": "session"}, "there is no pooler here: leave --via out"),
        ({"openbaoAddress": "openbao:8200"}, "'openbao:8200' is not OpenBao's URL"),
    ],
)
def test_what_cannot_be_bound_is_refused_with_what_to_do(
    request_: dict[str, str], change: dict[str, Any], message: str
) -> None:
    given = {**request_, **({"via": change["via"]} if "via" in change else {})}
    with pytest.raises(ConnectorError, match=message):
        written({**BINDING, **change}, **given)


@pytest.mark.parametrize("request_", FORMS)
def test_a_binding_that_an_older_program_exported_is_to_be_exported_again(request_: dict[str, str]) -> None:
    older = {key: value for key, value in BINDING.items() if key != "leaseTtlSeconds"}
    with pytest.raises(BindingError, match=r"binding of my-shop: leaseTtlSeconds: found nothing; .*Bring its cell up"):
        written(older, **request_)


def test_a_secret_and_an_agent_have_the_same_entries() -> None:
    secrets = of_kind("ExternalSecret", objects())
    templates = {name: item["spec"]["target"]["template"]["data"] for name, item in secrets.items()}
    by_secret = {f"{name.removeprefix('web-')}/{entry}" for name, data in templates.items() for entry in data}
    assert by_secret == set(agent_files(workload="edge"))
    fixed = {path for path, text in agent_files(workload="edge").items() if "{{" not in text}
    for path in fixed - {"supabase/pg_service.conf"}:
        folder, _, entry = path.partition("/")
        assert templates[f"web-{folder}"][entry] == agent_files(workload="edge")[path]


@pytest.mark.parametrize(
    ("via", "host", "port", "sslmode", "suffix"),
    [
        ("", "pooler.example.com", "5432", "require", ".supabase"),
        ("session", "pooler.example.com", "5432", "require", ".supabase"),
        ("transaction", "pooler.example.com", "6543", "require", ".supabase"),
        ("direct", "db.example.com", "5433", "verify-full", ""),
    ],
)
def test_the_way_decides_the_address_and_the_logins_spelling(
    via: str, host: str, port: str, sslmode: str, suffix: str
) -> None:
    request = {"via": via} if via else {}
    data = of_kind("ExternalSecret", objects(None, **request))["web-supabase"]["spec"]["target"]["template"]["data"]
    assert (data["host"], data["port"], data["sslmode"]) == (host, port, sslmode)
    assert data["username"] == "{{ .username }}" + suffix
    login = "{{ .username | urlquery }}" + suffix + ":{{ .password | urlquery }}"
    assert data["uri"] == f"postgresql://{login}@{host}:{port}/postgres?sslmode={sslmode}"
    assert f"user={{{{ .username }}}}{suffix}\n" in data["pg_service.conf"]
    database = asset(None, level="anon", **request)["database"]
    assert database == {"host": host, "port": int(port), "database": "postgres", "sslmode": sslmode}


def test_without_a_pooler_the_way_is_direct() -> None:
    assert agent_files({**BINDING, "pooler": None}, workload="edge")["supabase/host"] == "db.example.com"


def test_an_ipv6_address_stands_in_brackets_in_the_uri_alone() -> None:
    database = {**BINDING["database"], "host": "fd00::7"}
    files = agent_files({**BINDING, "database": database}, workload="edge", via="direct")
    assert files["supabase/host"] == "fd00::7"
    assert "@[fd00::7]:5433/" in files["supabase/uri"]


@pytest.mark.parametrize("change", [{"exposed": False}, {"owner": True}])
def test_without_an_api_only_the_database_is_bound(change: dict[str, bool]) -> None:
    binding = {**BINDING, **change}
    files = agent_files(binding, workload="jobs" if "owner" in change else "edge")
    assert {path.partition("/")[0] for path in files} == {"supabase"}
    level = "owner" if "owner" in change else "service_role"
    found = asset(binding, level=level)
    assert "apiUrl" not in found
    assert "tokenPath" not in found["lease"]


# The asset


@pytest.mark.parametrize("level", ["owner", "service_role", "authenticated", "anon"])
def test_an_asset_is_what_the_catalogs_schema_says(level: str) -> None:
    found = asset(level=level)
    jsonschema.validate(found, service_entry()["asset"]["schema"], cls=jsonschema.Draft202012Validator)
    assert found["requiredManagedServices"] == ["postgres", "auth", "storage"]
    assert found["lease"]["leasePath"] == f"database/creds/proj_my_shop_{level}"
    assert ("tokenPath" in found["storage"]) == (level == "service_role")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**found, "password": "x"}, service_entry()["asset"]["schema"])


def test_the_committed_service_catalog_is_the_codes() -> None:
    assert SERVICE_CATALOGUE_FILE.read_text(encoding="utf-8") == service_catalog_text()


def test_the_catalogs_entry_replaces_a_stack_and_takes_what_bind_takes() -> None:
    entry = service_entry()
    assert {"postgres", "dokploy/postgres"} <= set(entry["replaces"])
    schema = entry["bind"]["inputs"]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"project": "my-shop", "form": "kubernetes", "provision": "agent"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"project": "my-shop", "form": "helm"}, schema)


# The compose fragment


def test_the_fragment_passes_the_wall_that_hand_offs_have_to_pass(tmp_path: Path) -> None:
    (tmp_path / "supabase.compose.yaml").write_text(written(form="dokploy", workload="edge"), encoding="utf-8")
    web = "services:\n  web:\n    image: registry.example.com/shop/web:1.0\n"
    (tmp_path / "compose.yaml").write_text(f"include: [supabase.compose.yaml]\n{web}", encoding="utf-8")
    report = checked([tmp_path], tmp_path)
    assert (report.exit_code, {str(file) for file in report.files}) == (0, {"compose.yaml", "supabase.compose.yaml"})


@pytest.mark.parametrize("provision", ["external-secret", "agent"])
def test_the_manifests_pass_the_wall(tmp_path: Path, provision: str) -> None:
    (tmp_path / "supabase.yaml").write_text(written(form="kubernetes", provision=provision), encoding="utf-8")
    report = checked([tmp_path], tmp_path)
    assert (report.exit_code, {str(file) for file in report.files}) == (0, {"supabase.yaml"})


def test_the_agent_has_no_right_that_it_does_not_need() -> None:
    agent = fragment(workload="edge")["services"]["supabase-agent"]
    assert agent["user"].partition(":")[0] not in {"0", "root"}
    assert (agent["cap_drop"], agent["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert {item["mode"] for item in agent["secrets"]} == {"0400"}
    assert "ports" not in agent


def test_the_sign_in_comes_from_the_environment_and_the_head_says_how_to_get_it_and_how_long_it_lasts() -> None:
    text = written(form="dokploy", workload="edge")
    assert set(yaml.safe_load(text)["secrets"]["supabase-secret-id"]) == {"environment"}
    assert "bao write -force -field=secret_id auth/approle/role/proj_my_shop-edge/secret-id" in text
    assert "can be signed in with for 7d" in text


def test_a_dollar_in_a_value_is_not_taken_for_a_variable_of_composes() -> None:
    database = {**BINDING["database"], "database": "a$b"}
    content = fragment({**BINDING, "database": database}, workload="edge")["configs"]["supabase-agent"]["content"]
    assert "a$$b" in content
    assert "$" not in content.replace("$$", "")


@pytest.mark.parametrize(
    ("ca", "mounted"), [("/etc/ssl/ca.crt", "/etc/ssl/ca.crt"), ("ca.crt", "./ca.crt"), ("./ca.crt", "./ca.crt")]
)
def test_an_authority_on_the_host_is_mounted_and_used(ca: str, mounted: str) -> None:
    found = fragment(workload="edge", ca=ca)
    source, target, mode = found["services"]["supabase-agent"]["volumes"][1].split(":")
    assert (source, mode) == (mounted, "ro")
    assert json.loads(found["configs"]["supabase-agent"]["content"])["vault"]["ca_cert"] == target


# The manifests


def test_a_lease_is_fetched_anew_long_before_the_one_before_ends() -> None:
    for seconds in (300, 3600, 86400, 7 * 86400, 10 * 86400):
        secrets = of_kind("ExternalSecret", objects({**BINDING, "leaseTtlSeconds": seconds}))
        intervals = {name: item["spec"]["refreshInterval"] for name, item in secrets.items()}
        units = {"s": 1, "m": 60, "h": 3600}
        refresh = {name: int(text[:-1]) * units[text[-1]] for name, text in intervals.items()}
        assert seconds - refresh["web-supabase"] >= 120
        assert refresh["web-supabase"] >= 120
        assert refresh["web-supabase-api"] <= TOKEN_TTL_SECONDS - 300


def test_leases_too_short_for_a_kubelet_are_for_an_agent() -> None:
    binding = {**BINDING, "leaseTtlSeconds": 60}
    with pytest.raises(ConnectorError, match=r"lasts 1m.*raise `limits.lease_ttl` to 5m or more, or take --provision"):
        objects(binding)
    assert of_kind("Deployment", objects(binding, provision="agent"))


def test_a_service_binding_names_the_provisioned_service_and_the_workload() -> None:
    found = of_kind("ServiceBinding", objects(deployment="frontend"))
    assert {name: item["spec"]["name"] for name, item in found.items()} == {
        "web-supabase": "supabase",
        "web-supabase-api": "supabase-api",
    }
    for name, item in found.items():
        service = {"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "name": name}
        assert item["spec"]["service"] == service
        assert item["spec"]["workload"]["name"] == "frontend"


def test_each_generator_signs_in_as_the_workloads_account_and_reads_one_path() -> None:
    generators = of_kind("VaultDynamicSecret", objects(ca="openbao-ca"))
    assert {item["spec"]["path"] for item in generators.values()} == {
        "database/creds/proj_my_shop_service_role",
        "identity/oidc/token/proj_my_shop_service_role",
        "connectors/data/supabase/tenants",
    }
    for item in generators.values():
        assert item["spec"]["provider"]["auth"]["kubernetes"] == {
            "mountPath": "kubernetes",
            "role": "proj_my_shop-web",
            "serviceAccountRef": {"name": "web-account", "audiences": ["openbao"]},
        }
        assert item["spec"]["provider"]["caProvider"] == {"type": "ConfigMap", "name": "openbao-ca", "key": "ca.crt"}


def test_the_sidecars_token_is_for_openbao_and_not_in_the_applications_container() -> None:
    (deployment,) = of_kind("Deployment", objects(provision="agent", container="app")).values()
    pod = deployment["spec"]["template"]["spec"]
    volumes = {item["name"]: item for item in pod["volumes"]}
    token = volumes["supabase-agent-token"]["projected"]["sources"][0]["serviceAccountToken"]
    assert token["audience"] == "openbao"
    (application,) = pod["containers"]
    assert application["name"] == "app"
    assert [item["name"] for item in application["volumeMounts"]] == ["supabase-bindings"]
    assert volumes["supabase-bindings"]["emptyDir"]["medium"] == "Memory"


def test_an_account_without_an_audience_of_its_own_keeps_the_clusters() -> None:
    web = {key: value for key, value in BINDING["workloads"]["web"].items() if key != "audience"}
    binding = {**BINDING, "workloads": {"web": web}}
    (deployment,) = of_kind("Deployment", objects(binding, provision="agent")).values()
    text = json.dumps([deployment, *of_kind("VaultDynamicSecret", objects(binding)).values()])
    assert "audience" not in text


# Which workload


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"form": "dokploy"}, "several workloads with approle: say which with --workload: edge, jobs"),
        ({"form": "dokploy", "workload": "web"}, "web of project my-shop signs in by kubernetes, and this takes approle"),
        ({"form": "dokploy", "workload": "nobody"}, "has no workload 'nobody'; it has: edge, jobs, web"),
        ({"form": "kubernetes", "level": "anon"}, "no workload with kubernetes and the level anon: add one under"),
        ({"form": "kubernetes", "workload": "web", "level": "owner"}, "web of project my-shop may be service_role, not owner"),
        ({"form": "asset"}, "an asset is of one access level: say which with --as"),
        ({"form": "asset", "level": "anon", "workload": "web"}, "--workload is for --form dokploy or kubernetes"),
        ({"form": "dokploy", "provision": "agent"}, "--provision is for --form kubernetes; leave it out"),
        ({"form": "helm"}, "form: found 'helm'"),
        ({"form": "dokploy", "openbao": "https://user:pass@openbao"}, "is not OpenBao's URL"),
        ({"form": "dokploy", "openbao": 'https://openbao"}'}, "is not OpenBao's URL"),
        ({"form": "dokploy", "ca": "a:b"}, "expected a name or path without blanks and colons"),
        ({"form": "kubernetes", "deployment": "Web"}, "deployment: found 'Web'"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_what_would_be_right(request_: dict[str, str], message: str) -> None:
    with pytest.raises(ConnectorError, match=message):
        written(None, **request_)


def test_a_level_chooses_among_workloads() -> None:
    assert "proj_my_shop-jobs" in written(form="dokploy", level="owner")
    assert "proj_my_shop-edge" in written(form="dokploy", level="service_role")


# The command

Bind = Callable[..., Any]


@pytest.fixture
def bind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bind:
    """The command, with the tenant's binding in a file, in an empty folder."""
    file = tmp_path_factory.mktemp("binding") / "binding.json"
    file.write_text(json.dumps(BINDING), encoding="utf-8")
    monkeypatch.setenv("DATA_PLANE_BINDING", str(file))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["--project", "my-shop", *arguments])


def test_without_a_form_the_forms_are_named_and_before_them_a_wrong_project(bind: Bind) -> None:
    done = bind()
    assert (done.exit_code, "say what to write: --form asset" in done.stderr) == (2, True)
    wrong = bind("--project", "my-shopp")
    assert (wrong.exit_code, "there are: my-shop" in wrong.stderr) == (1, True)


@pytest.mark.parametrize("request_", FORMS)
def test_a_written_file_says_with_which_command_to_write_it_again(
    bind: Bind, tmp_path: Path, request_: dict[str, str]
) -> None:
    names = {"level": "as"}
    options = [word for key, value in request_.items() for word in (f"--{names.get(key, key)}", value)]
    assert bind(*options, "--output", "binding").exit_code == 0
    text = (tmp_path / "binding").read_text(encoding="utf-8")
    assert text == written(None, **request_)
    if request_["form"] != "asset":
        again = shlex.split(next(line for line in text.splitlines() if line.startswith("# Again: ")))
        assert again[2:5] == ["dataplane", "project", "binding"]
        said = bind(*[word for word in again[5:] if word not in {"--project", "my-shop"}])
        assert said.stdout == text
    assert stat.S_IMODE((tmp_path / "binding").stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["binding"]


def test_check_is_silent_about_what_is_up_to_date_and_shows_what_is_not(bind: Bind, tmp_path: Path) -> None:
    options = ("--form", "asset", "--as", "anon", "--output", "asset.json")
    missing = bind(*options, "--check")
    assert (missing.exit_code, "asset.json cannot be read: no such file" in missing.output) == (1, True)
    bind(*options)
    fresh = bind(*options, "--check")
    assert (fresh.exit_code, fresh.output) == (0, "")
    path = tmp_path / "asset.json"
    path.write_text(path.read_text(encoding="utf-8").replace("My shop", "Old shop"), encoding="utf-8")
    before = path.read_text(encoding="utf-8")
    stale = bind(*options, "--check")
    assert stale.exit_code == 1
    assert '-  "displayName": "Old shop",\n+  "displayName": "My shop",\n' in stale.output
    assert "asset.json is out of date: run" in " ".join(stale.output.split())
    assert path.read_text(encoding="utf-8") == before
    assert bind("--form", "asset", "--as", "anon", "--check").exit_code == 2, "--check without --output"


def test_somebody_elses_file_is_left_alone_unless_it_is_said(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("services: {}\n", encoding="utf-8")
    options = ("--form", "dokploy", "--workload", "edge", "--output", "compose.yaml")
    refused = bind(*options)
    assert (refused.exit_code, path.read_text(encoding="utf-8")) == (1, "services: {}\n")
    assert "was not written by `dataplane project binding`: name another file, or add --force" in " ".join(
        refused.output.split()
    )
    assert bind(*options, "--force").exit_code == 0
    assert path.read_text(encoding="utf-8").startswith("# Written by `dataplane project binding`")
    # From now on it is this command's.
    assert bind(*options).exit_code == 0


def test_a_folder_that_is_not_there_is_named(bind: Bind) -> None:
    failed = bind("--form", "asset", "--as", "anon", "--output", "nowhere/asset.json")
    assert (failed.exit_code, "cannot be written: no such file or directory" in failed.output) == (1, True)


@pytest.mark.parametrize(("address", "warned"), [("http://localhost:8200", True), ("https://openbao:8200", False)])
def test_an_address_that_no_container_reaches_is_remarked_upon(bind: Bind, address: str, warned: bool) -> None:
    done = bind("--form", "dokploy", "--workload", "edge", "--openbao", address)
    assert done.exit_code == 0
    assert ("where no container reaches it" in done.stderr) == warned
