from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from components.access import FractalOpsRole
from components.naming import AccessLevel, TenantNames
from components.problems import ConfigurationError
from components.projects import load_projects, project_json_schema
from components.workloads import WorkloadMethod
from embedded.home import CHECKOUT

GOOD = """\
slug: my-app
display_name: My app
cell: cell-1
owners: [alice]
"""


def load(tmp_path: Path, files: dict[str, str], ttl: int = 24 * 3600, cell_size: int = 50) -> list[str]:
    """Slugs if the files are right; otherwise raises."""
    folder = tmp_path / "stacks" / "local" / "projects"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [p.slug for p in load_projects(tmp_path, "local", lease_ttl_maximum=ttl, cell_size=cell_size)]


def problems(tmp_path: Path, files: dict[str, str], ttl: int = 24 * 3600, cell_size: int = 50) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, files, ttl, cell_size)
    return [str(problem).replace("stacks/local/projects/", "") for problem in caught.value.problems]


def test_a_minimal_file_gets_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, {"my-app.yaml": GOOD}) == ["my-app"]
    (project,) = load_projects(tmp_path, "local")
    assert (project.limits.lease_ttl, project.limits.lease_max_ttl) == (3600, 43200)
    assert (project.exposed, project.lifecycle.value) == (True, "attached")
    assert list(project.members("users")) == [(FractalOpsRole.PROJECT_OWNER, "alice")]


@pytest.mark.parametrize(
    ("more", "login"),
    [
        ("", "authenticator"),
        ("api: shared\n", "authenticator"),
        ("api: dedicated\n", "proj_my_app_authenticator"),
        ("exposed: false\n", None),
        ("lifecycle: detached\n", None),
        ("api: dedicated\nexposed: false\n", None),
        ("api: dedicated\nlifecycle: detached\n", None),
    ],
)
def test_a_project_is_served_by_the_login_that_its_file_says(tmp_path: Path, more: str, login: str | None) -> None:
    load(tmp_path, {"my-app.yaml": GOOD + more})
    (project,) = load_projects(tmp_path, "local")
    assert project.authenticator == login


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("slug: my-app", "slug: My_App"), "my-app.yaml:1: slug: found 'My_App'; expected a match of ^[a-z]"),
        (("slug: my-app", "slug: x"), "my-app.yaml:1: slug: found 'x'; expected a match of"),
        (("slug: my-app", f"slug: {'a' * 41}"), f"my-app.yaml:1: slug: found '{'a' * 41}'; expected a match of"),
        (("slug: my-app", "slug: other"), "my-app.yaml:1: slug: found 'other'; expected the file's name, 'my-app'"),
        (("owners: [alice]", "owners: []"), "my-app.yaml:4: owners: found []; expected list should have at least 1"),
        (("owners: [alice]", "owners: [a, a]"), "my-app.yaml:4: owners: found ['a', 'a']; expected each entry once"),
        (("owners: [alice]", "owners: ['a/b']"), "my-app.yaml:4: owners.0: found 'a/b'; expected a match of"),
        (("owners: [alice]\n", ""), "my-app.yaml:1: owners: found nothing; expected this field"),
        (("cell: cell-1", "cell: cell-1\ncolour: red"), "my-app.yaml:4: colour: found an unknown key; expected one of"),
        (("cell: cell-1", "cell: cell-1\ncell: cell-2"), "my-app.yaml:4: cell: found it a second time; expected each"),
        (("cell: cell-1", "cell: [cell-1"), "my-app.yaml:4: YAML: found "),
        (
            ("cell: cell-1", "cell: cell-1\napi: own"),
            "my-app.yaml:4: api: found 'own'; expected input should be 'shared' or 'dedicated'",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nexposed: 'yes'"),
            "my-app.yaml:4: exposed: found 'yes'; expected input should",
        ),
        (("cell: cell-1", "cell: cell-1\nlifecycle: gone"), "my-app.yaml:4: lifecycle: found 'gone'; expected input"),
        (
            ("cell: cell-1", "cell: cell-1\nusers: {boss: [b]}"),
            "my-app.yaml:4: users.boss: found 'boss'; expected input should be 'project_owner'",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nteams:\n  maintainer: [t, t]"),
            "my-app.yaml:4: teams: found {'maintainer': ['t', 't']}; expected each name once in maintainer",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nmanaged_services: [auth]"),
            "my-app.yaml:4: managed_services: found ['auth']; expected `postgres` among them",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nlimits:\n  lease_ttl: 90"),
            "my-app.yaml:5: limits.lease_ttl: found 90; expected a whole number with its unit",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nlimits:\n  lease_ttl: 48h\n  lease_max_ttl: 72h"),
            "my-app.yaml:5: limits.lease_ttl: found 2d; expected at most 1d",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nlimits:\n  lease_ttl: 2h\n  lease_max_ttl: 1h"),
            "my-app.yaml:6: limits.lease_max_ttl: found 1h; expected at least limits.lease_ttl, which is 2h",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nlimits:\n  connection_limit: 0"),
            "my-app.yaml:5: limits.connection_limit: found 0; expected input should be greater than or equal to 1",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nsign_up: open"),
            "my-app.yaml:4: sign_up: found this field; expected `auth` among managed_services",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nmanaged_services: [postgres, auth]\nsign_up: maybe"),
            "my-app.yaml:5: sign_up: found 'maybe'; expected input should be 'open' or 'closed'",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nstorage: {public: true}"),
            "my-app.yaml:4: storage: found this field; expected `storage` among managed_services",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nmanaged_services: [postgres, storage]\nstorage:\n  file_size_limit: 5MB"),
            "my-app.yaml:6: storage.file_size_limit: found '5MB'; expected a whole number with its unit: KiB, MiB",
        ),
        (
            (
                "cell: cell-1",
                "cell: cell-1\nmanaged_services: [postgres, storage]\nstorage:\n  allowed_mime_types: [png]",
            ),
            "my-app.yaml:6: storage.allowed_mime_types.0: found 'png'; expected a match of",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nmanaged_services: [postgres, storage]\nstorage:\n  quota: 1"),
            "my-app.yaml:6: storage.quota: found an unknown key; expected one of: allowed_mime_types, file_size_limit",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nlimits:\n  speed: 9"),
            "my-app.yaml:5: limits.speed: found an unknown key; expected one of: connection_limit, lease_max_ttl",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nworkloads:\n  api: {level: anon}"),
            "my-app.yaml:5: workloads.api.level: found no way to sign in; expected `kubernetes: {namespace, service_acc",
        ),
        (
            (
                "cell: cell-1",
                (
                    "cell: cell-1\nworkloads:\n  api:\n    level: anon\n    approle: {}\n"
                    "    kubernetes: {namespace: a, service_account: b}"
                ),
            ),
            "my-app.yaml:7: workloads.api.approle: found it beside `kubernetes`; expected one of them",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nworkloads:\n  Api: {level: anon, approle: {}}"),
            "my-app.yaml:5: workloads.Api: found 'Api'; expected a match of ^[a-z0-9]",
        ),
        (
            ("cell: cell-1", f"cell: cell-1\nworkloads:\n  {'a' * 64}: {{level: anon, approle: {{}}}}"),
            f"my-app.yaml:5: workloads.{'a' * 64}: found '{'a' * 64}'; expected a match of",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nworkloads:\n  api: {level: admin, approle: {}}"),
            "my-app.yaml:5: workloads.api.level: found 'admin'; expected input should be 'owner', 'service_role'",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nworkloads:\n  api: {level: anon, approle: {ttl: 1h}}"),
            "my-app.yaml:5: workloads.api.approle.ttl: found an unknown key; expected one of: bound_cidrs, secret_id_ttl",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nworkloads:\n  api: {level: anon, password: x, approle: {}}"),
            "my-app.yaml:5: workloads.api.password: found an unknown key; expected one of: approle, kubernetes, level",
        ),
        (
            (
                "cell: cell-1",
                "cell: cell-1\nworkloads:\n  api: {level: anon, kubernetes: {namespace: '*', service_account: a}}",
            ),
            "my-app.yaml:5: workloads.api.kubernetes.namespace: found '*'; expected a match of",
        ),
        (
            (
                "cell: cell-1",
                "cell: cell-1\nworkloads:\n  api: {level: anon, kubernetes: {namespace: a, service_account: 'a*'}}",
            ),
            "my-app.yaml:5: workloads.api.kubernetes.service_account: found 'a*'; expected a match of",
        ),
        (
            (
                "cell: cell-1",
                (
                    "cell: cell-1\nworkloads:\n  api: {level: anon, kubernetes: {namespace: a, service_account: b}}\n"
                    "  web: {level: owner, kubernetes: {namespace: a, service_account: b}}"
                ),
            ),
            "my-app.yaml:4: workloads: found {'api': {'level': 'anon'",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nworkloads:\n  ci: {level: anon, approle: {bound_cidrs: [10.0.0.1/8]}}"),
            "my-app.yaml:5: workloads.ci.approle.bound_cidrs.0: found '10.0.0.1/8'; expected a network with its prefix",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nworkloads:\n  ci: {level: anon, approle: {secret_id_ttl: 91d}}"),
            "my-app.yaml:5: workloads.ci.approle.secret_id_ttl: found '91d'; expected input should be less than or equal",
        ),
    ],
)
def test_each_mistake_is_named_with_its_place_and_remedy(
    tmp_path: Path, change: tuple[str, str], expected: str
) -> None:
    found = problems(tmp_path, {"my-app.yaml": GOOD.replace(*change)})
    assert any(line.startswith(expected) for line in found), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a.yaml:1: document: found an empty file; expected a mapping"),
        ("- a\n", "a.yaml:1: document: found a CommentedSeq; expected a mapping"),
        ("slug: a\n\tb: c\n", "a.yaml:2: YAML: found "),
        ("a: " + "[" * 5000, "a.yaml"),
        ("x" * 70_000, "a.yaml: file: found 70000 bytes; expected at most 65536 bytes"),
        ("a: &a [x]\nb: *nowhere\n", "a.yaml:2: YAML: found "),
    ],
)
def test_a_file_that_is_no_project_is_an_error_not_a_crash(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, {"a.yaml": text})[0].startswith(expected)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "stacks" / "local" / "projects"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_bytes(b"slug: \xff\xfe")
    with pytest.raises(ConfigurationError, match=r"a\.yaml: YAML: .*UTF-8"):
        load_projects(tmp_path, "local")


def test_slugs_that_share_a_schema_collide(tmp_path: Path) -> None:
    files = {"a-b.yaml": GOOD.replace("my-app", "a-b"), "ab.yaml": GOOD.replace("my-app", "ab")}
    assert load(tmp_path, files) == ["a-b", "ab"]
    (tmp_path / "stacks" / "local" / "projects" / "a-b.yml").write_text(GOOD.replace("my-app", "a-b"), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_projects(tmp_path, "local")
    text = str(caught.value)
    assert "another slug: stacks/local/projects/a-b.yaml already has the schema proj_a_b" in text
    assert "file name: found 'a-b.yml'; expected 'a-b.yaml'" in text


def test_a_full_cell_names_every_project_too_many(tmp_path: Path) -> None:
    files = {f"app-{i}.yaml": GOOD.replace("my-app", f"app-{i}") for i in range(4)}
    found = problems(tmp_path, files, cell_size=2)
    assert [line.split(":")[0] for line in found] == ["app-2.yaml", "app-3.yaml"]
    assert "expected another cell: this one has its 2 projects" in found[0]


def test_a_cell_without_a_stack_is_named(tmp_path: Path) -> None:
    (tmp_path / "stacks").mkdir()
    config = "config:\n  supabase-data-plane:kind: cell\n  supabase-data-plane:environment: local\n"
    (tmp_path / "stacks" / "Pulumi.x.yaml").write_text(
        f"{config}  supabase-data-plane:cell: cell-7\n", encoding="utf-8"
    )
    found = problems(tmp_path, {"my-app.yaml": GOOD})
    (line,) = found
    assert line.startswith("my-app.yaml:3: cell: found 'cell-1'; expected one of cell-7, or a new stacks/Pulumi.")


def test_all_problems_of_all_files_come_at_once(tmp_path: Path) -> None:
    bad = GOOD.replace("slug: my-app", "slug: BAD").replace("owners: [alice]", "owners: []\nextra: 1")
    found = problems(tmp_path, {"one.yaml": bad, "two.yaml": bad.replace("cell-1", "[")})
    assert [line.split(";")[0].split(": found")[0] for line in found] == [
        "one.yaml:1: slug",
        "one.yaml:4: owners",
        "one.yaml:5: extra",
        "two.yaml:5: YAML",
    ]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="stacks/local/projects: environment: found no such folder"):
        load_projects(tmp_path, "local")


def test_the_committed_projects_are_right_by_model_and_by_schema() -> None:
    validator = jsonschema.Draft202012Validator(project_json_schema())
    for path in (CHECKOUT / "stacks" / "local" / "projects").glob("*.yaml"):
        validator.validate(YAML(typ="safe").load(path.read_text(encoding="utf-8")))
    assert [p.slug for p in load_projects(CHECKOUT, "local")] == ["demo", "guestbook"]


def test_the_schema_refuses_what_the_model_refuses() -> None:
    validator = jsonschema.Draft202012Validator(project_json_schema())
    document = YAML(typ="safe").load(GOOD)
    assert validator.is_valid(document)
    changes: list[dict[str, object]] = [{"slug": "A"}, {"colour": 1}, {"owners": []}, {"lifecycle": "x"}]
    changes.append({"limits": {"lease_ttl": 5}})
    for change in changes:
        assert not validator.is_valid({**document, **change}), change


def test_workloads_are_read_with_their_defaults(tmp_path: Path) -> None:
    text = (
        "workloads:\n  api: {level: service_role, kubernetes: {namespace: shop, service_account: api}}\n"
        "  ci: {level: owner, approle: {}}\n"
    )
    load(tmp_path, {"my-app.yaml": GOOD + text})
    (project,) = load_projects(tmp_path, "local")
    api, ci = project.workloads["api"], project.workloads["ci"]
    assert api.kubernetes is not None
    assert (api.method, api.kubernetes.namespace, api.approle) == (WorkloadMethod.KUBERNETES, "shop", None)
    assert ci.approle is not None
    assert (ci.method, ci.approle.secret_id_ttl, ci.approle.bound_cidrs) == (WorkloadMethod.APPROLE, 86400, [])
    assert project.names.workload_role("ci") == "proj_my_app-ci"
    validator = jsonschema.Draft202012Validator(project_json_schema())
    assert validator.is_valid(YAML(typ="safe").load(GOOD + text))
    assert not validator.is_valid(YAML(typ="safe").load(GOOD + text.replace("api: {level", "API: {level")))


def test_no_workloads_role_is_another_tenants_nor_a_levels() -> None:
    roles: dict[str, tuple[str, str]] = {}
    for slug in ("a1", "a1-api", "a1-owner"):
        for workload in ("api", "owner", "api-owner"):
            role = TenantNames(slug).workload_role(workload)
            assert roles.setdefault(role, (slug, workload)) == (slug, workload)
            assert not any(
                role == TenantNames(other).role(level) for other in ("a1", "a1-api") for level in AccessLevel
            )


def test_no_two_tenants_can_share_an_identifier() -> None:
    """Not even where one slug ends in the name of another's access level."""
    slugs = ["a1", "a1-owner", "a1-service", "a1-service-role", "a1-anon", "a1-owner-owner", "a1-authenticated"]
    seen: dict[str, str] = {}
    for slug in slugs:
        for level in AccessLevel:
            assert seen.setdefault(TenantNames(slug).role(level), slug) == slug


@pytest.mark.parametrize("slug", ["ab", "a" * 40, "a-" * 19 + "ab"])
def test_identifiers_of_the_longest_slugs_fit(slug: str) -> None:
    assert max(len(name) for name in TenantNames(slug).identifiers()) <= 63


@pytest.mark.parametrize("slug", ["", "a", "A-b", "1a", "a_b", "a-", "-a", "a" * 41, "a\n", "a b", 'a"b'])
def test_names_of_something_that_is_no_slug_are_refused(slug: str) -> None:
    with pytest.raises(ValueError, match="is not a slug"):
        TenantNames(slug)
