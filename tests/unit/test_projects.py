from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from data_plane.model.access import FractalOpsRole
from data_plane.model.naming import AccessLevel, TenantNames
from data_plane.model.problems import ConfigurationError
from data_plane.model.projects import (
    api_servers,
    connections_for_projects,
    known_cells,
    load_projects,
    overcommitment,
    project_json_schema,
)
from data_plane.model.workloads import WorkloadMethod
from data_plane.state_dir import CHECKOUT

WITH_BUCKETS = "cell: cell-1\nmanaged_services: [postgres, storage]\nstorage:\n  buckets:\n"
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
        ("", "cell_cell_1_authenticator"),
        ("api: shared\n", "cell_cell_1_authenticator"),
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
    assert (project.api_server.login if project.api_server else None) == login


def stacks(tmp_path: Path, **settings: str) -> None:
    """Stack files of the environment, by name: what their `config` has beside it."""
    for stack, text in settings.items():
        content = f"config: {{p:environment: local, {text}}}\n"
        (tmp_path / "stacks" / f"Pulumi.{stack}.yaml").write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    ("setting", "more", "login"),
    [
        ("shared", "", "cell_cell_1_authenticator"),
        ("dedicated", "", "proj_my_app_authenticator"),
        ("dedicated", "api: shared\n", "cell_cell_1_authenticator"),
        ("shared", "api: dedicated\n", "proj_my_app_authenticator"),
        ("dedicated", "exposed: false\n", None),
    ],
)
def test_a_project_that_does_not_say_has_the_api_that_its_central_stack_gives(
    tmp_path: Path, setting: str, more: str, login: str | None
) -> None:
    load(tmp_path, {"my-app.yaml": GOOD + more})
    stacks(
        tmp_path,
        first="p:kind: central, p:projectApi: shared",
        one="p:kind: cell, p:cell: cell-1, p:centralStack: organization/data/second",
        second=f"p:kind: central, p:projectApi: {setting}",
    )
    (project,) = load_projects(tmp_path, "local")
    assert (project.api_server.login if project.api_server else None) == login


def test_a_setting_of_the_central_stack_that_is_no_api_is_a_problem(tmp_path: Path) -> None:
    load(tmp_path, {"my-app.yaml": GOOD})
    stacks(tmp_path, central="p:kind: central, p:projectApi: own")
    with pytest.raises(ConfigurationError) as caught:
        load_projects(tmp_path, "local")
    (problem,) = caught.value.problems
    assert str(problem) == "stacks/Pulumi.central.yaml: projectApi: found 'own'; expected shared or dedicated"


def test_a_central_stack_has_an_api_server_for_each_of_its_cells_and_of_their_dedicated_projects(
    tmp_path: Path,
) -> None:
    """Whether or not one is served now, so that attaching a project to a cell takes no run of central."""
    other = GOOD.replace("my-app", "other").replace("cell-1", "cell-2")
    load(
        tmp_path,
        {
            "my-app.yaml": GOOD + "api: dedicated\nexposed: false\n",
            "other.yaml": other + "api: dedicated\n",
        },
    )
    stacks(
        tmp_path,
        a="p:kind: cell, p:cell: cell-1, p:centralStack: central",
        b="p:kind: cell, p:cell: cell-2, p:centralStack: central-2",
        c="p:kind: cell, p:cell: cell-3, p:centralStack: central",
    )
    cells = known_cells(tmp_path, "local", central="central")
    assert cells == {"cell-1": "a", "cell-3": "c"}
    names = [server.name for server in api_servers(load_projects(tmp_path, "local"), cells)]
    assert names == ["cell_cell_1", "cell_cell_3", "proj_my_app"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("slug: my-app", "slug: My_App"), "my-app.yaml:1: slug: found 'My_App'; expected 2 to 40 lower-case letters"),
        (("slug: my-app", "slug: x"), "my-app.yaml:1: slug: found 'x'; expected 2 to 40 lower-case"),
        (
            ("slug: my-app", f"slug: {'a' * 41}"),
            f"my-app.yaml:1: slug: found '{'a' * 41}'; expected 2 to 40 lower-case",
        ),
        (("slug: my-app", "slug: other"), "my-app.yaml:1: slug: found 'other'; expected the file's name, 'my-app'"),
        (("owners: [alice]", "owners: []"), "my-app.yaml:4: owners: found an empty list; expected at least 1"),
        (("owners: [alice]", "owners: [a, a]"), "my-app.yaml:4: owners: found [a, a]; expected each entry once"),
        (("owners: [alice]", "owners: ['a/b']"), "my-app.yaml:4: owners.0: found 'a/b'; expected up to 127 letters"),
        (("owners: [alice]\n", ""), "my-app.yaml:1: owners: found nothing; expected this field"),
        (("cell: cell-1", "cell: cell-1\ncolour: red"), "my-app.yaml:4: colour: found an unknown key; expected one of"),
        (("cell: cell-1", "cell: cell-1\ncell: cell-2"), "my-app.yaml:4: cell: found it a second time; expected each"),
        (("cell: cell-1", "cell: [cell-1"), "my-app.yaml:4: YAML: found "),
        (
            ("cell: cell-1", "cell: cell-1\napi: own"),
            "my-app.yaml:4: api: found 'own'; expected one of: shared, dedicated",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nexposed: 'yes'"),
            "my-app.yaml:4: exposed: found 'yes'; expected true or false",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nlifecycle: gone"),
            "my-app.yaml:4: lifecycle: found 'gone'; expected one of: attached, detached",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nusers: {boss: [b]}"),
            "my-app.yaml:4: users.boss: found 'boss'; expected one of: project_owner",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nteams:\n  maintainer: [t, t]"),
            "my-app.yaml:4: teams: found a mapping with maintainer; expected each name once in maintainer",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nmanaged_services: [auth]"),
            "my-app.yaml:4: managed_services: found [auth]; expected `postgres` among them",
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
            "my-app.yaml:5: limits.connection_limit: found 0; expected at least 1",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nsign_up: open"),
            "my-app.yaml:4: sign_up: found this field; expected `auth` among managed_services",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nmanaged_services: [postgres, auth]\nsign_up: maybe"),
            "my-app.yaml:5: sign_up: found 'maybe'; expected one of: open, closed",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nstorage: {public: true}"),
            "my-app.yaml:4: storage: found this field; expected `storage` among managed_services",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nrealtime:\n  public: true"),
            "my-app.yaml:4: realtime: found this field; expected `realtime` among managed_services",
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
            "my-app.yaml:6: storage.allowed_mime_types.0: found 'png'; expected a type such as image/png",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nmanaged_services: [postgres, storage]\nstorage:\n  quota: 1"),
            "my-app.yaml:6: storage.quota: found an unknown key; expected one of: allowed_mime_types, buckets, ",
        ),
        (
            ("cell: cell-1", f"{WITH_BUCKETS}    receipts: {{publik: true}}"),
            "my-app.yaml:7: storage.buckets.receipts.publik: found an unknown key; expected one of: allowed_mime_types, file",
        ),
        (
            ("cell: cell-1", f"{WITH_BUCKETS}    my receipts: {{}}"),
            "my-app.yaml:7: storage.buckets.my receipts",
        ),
        (
            ("cell: cell-1", f"{WITH_BUCKETS}    logs--table-s3: {{}}"),
            "my-app.yaml:6: storage.buckets: found logs--table-s3; expected names that",
        ),
        (
            ("cell: cell-1", f"{WITH_BUCKETS}    a: {{}}\n    b: {{}}\nlimits: {{buckets: 1}}"),
            "my-app.yaml:5: storage: found 2 buckets; expected at most 1 (limits.buckets)",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nschemas:\n  auth: {}"),
            "my-app.yaml:4: schemas: found auth; expected another name: this one is the platform's",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nschemas:\n  " + "a" * 52 + ": {}"),
            f"my-app.yaml:4: schemas: found {'a' * 52}; expected a name of at most 51 letters",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nschemas:\n  a$b: {}"),
            "my-app.yaml:5: schemas.a$b: found 'a$b'; expected lower-case letters, digits and '_'",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nexposed: false\nschemas:\n  api: {exposed: true}"),
            "my-app.yaml:5: schemas: found api exposed; expected `exposed: true` of the project, or the schema not exposed",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nschemas:\n  a: {}\n  b: {}\nlimits:\n  schemas: 1"),
            "my-app.yaml:4: schemas: found 2; expected at most limits.schemas, which is 1",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nschemas:\n  api: {open: true}"),
            "my-app.yaml:5: schemas.api.open: found an unknown key; expected one of: exposed",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nlimits:\n  speed: 9"),
            "my-app.yaml:5: limits.speed: found an unknown key; expected one of: buckets, connection_limit, connections, ",
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
            "my-app.yaml:5: workloads.Api: found 'Api'; expected up to 63 lower-case letters",
        ),
        (
            ("cell: cell-1", f"cell: cell-1\nworkloads:\n  {'a' * 64}: {{level: anon, approle: {{}}}}"),
            f"my-app.yaml:5: workloads.{'a' * 64}: found '{'a' * 64}'; expected up to 63",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nworkloads:\n  api: {level: admin, approle: {}}"),
            "my-app.yaml:5: workloads.api.level: found 'admin'; expected one of: owner, service_role",
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
            "my-app.yaml:5: workloads.api.kubernetes.namespace: found '*'; expected up to 63 lower-case",
        ),
        (
            (
                "cell: cell-1",
                "cell: cell-1\nworkloads:\n  api: {level: anon, kubernetes: {namespace: a, service_account: 'a*'}}",
            ),
            "my-app.yaml:5: workloads.api.kubernetes.service_account: found 'a*'; expected up to 253",
        ),
        (
            (
                "cell: cell-1",
                (
                    "cell: cell-1\nworkloads:\n  api: {level: anon, kubernetes: {namespace: a, service_account: b}}\n"
                    "  web: {level: owner, kubernetes: {namespace: a, service_account: b}}"
                ),
            ),
            "my-app.yaml:4: workloads: found a mapping with api, web; expected a service account of its own",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nworkloads:\n  ci: {level: anon, approle: {bound_cidrs: [10.0.0.1/8]}}"),
            "my-app.yaml:5: workloads.ci.approle.bound_cidrs.0: found '10.0.0.1/8'; expected a network with its prefix",
        ),
        (
            ("cell: cell-1", "cell: cell-1\nworkloads:\n  ci: {level: anon, approle: {secret_id_ttl: 91d}}"),
            "my-app.yaml:5: workloads.ci.approle.secret_id_ttl: found '91d'; expected at most 90d",
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
        ("- a\n", "a.yaml:1: document: found [a]; expected a mapping"),
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


# File, and what stands in it beside GOOD's own: one problem for each two spellings, with both places.
NAMES_BY_CASE: list[tuple[dict[str, str], list[str]]] = [
    (
        {"my-app": "users: {project_viewer: [Alice]}"},
        ["my-app.yaml:5: users.project_viewer.0: found 'Alice'; expected 'alice', as my-app.yaml:4 has it"],
    ),
    (
        {"my-app": "", "other": "users:\n  maintainer:\n    - bob\n    - ALICE"},
        ["other.yaml:8: users.maintainer.1: found 'ALICE'; expected 'alice', as my-app.yaml:4 has it"],
    ),
    (
        {"my-app": "teams: {maintainer: [admins]}", "other": "teams: {project_viewer: [Admins]}"},
        ["other.yaml:5: teams.project_viewer.0: found 'Admins'; expected 'admins', as my-app.yaml:5 has it"],
    ),
    (
        {"my-app": "users: {maintainer: [aLice], project_viewer: [ALICE]}"},
        [
            "my-app.yaml:5: users.maintainer.0: found 'aLice'; expected 'alice', as my-app.yaml:4 has it",
            "my-app.yaml:5: users.project_viewer.0: found 'ALICE'; expected 'alice', as my-app.yaml:4 has it",
        ],
    ),
    # In every case as it should be: one person in two projects, with two roles; a person, a team and a workload.
    ({"my-app": "users: {maintainer: [web, bob]}", "other": "users: {maintainer: [bob]}\nteams: {maintainer: [Web]}"}, []),
    ({"my-app": "workloads: {alice: {level: anon, approle: {}}}\nteams: {maintainer: [Alice]}"}, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("logins", "offered"), [("{}", "none"), ("{kubernetes: {managed: true}}", "kubernetes"), ("{approle: {}}", None)]
)
def test_a_workload_whose_sign_in_the_environment_lacks_is_a_problem(
    tmp_path: Path, logins: str, offered: str | None
) -> None:
    stacks = tmp_path / "stacks"
    stacks.mkdir()
    (stacks / "Pulumi.main.yaml").write_text(f"config: {{kind: central, environment: local, workloadLogin: {logins}}}")
    (stacks / "Pulumi.c1.yaml").write_text(
        "config: {kind: cell, environment: local, cell: cell-1, centralStack: org/x/main}"
    )
    files = {"my-app.yaml": GOOD + "workloads:\n  ci:\n    level: anon\n    approle: {}\n"}
    if offered is None:
        assert load(tmp_path, files) == ["my-app"]
        return
    (found,) = problems(tmp_path, files)
    assert found == (
        "my-app.yaml:8: workloads.ci.approle: found a sign-in that the environment does not offer "
        f"(it offers: {offered}); expected workloadLogin.approle in the central stack's settings, or no such workload"
    )


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("users: {project_viewer: [alice]}", "users.project_viewer: found 'alice', who is one of owners"),
        ("users: {maintainer: [bob], team_member: [bob]}", "users.team_member: found 'bob', who is maintainer too"),
        ("teams: {maintainer: [a], team_member: [b, a]}", "teams.team_member: found 'a', who is maintainer too"),
    ],
)
def test_a_person_or_a_team_has_one_role_in_a_project(tmp_path: Path, extra: str, expected: str) -> None:
    (found,) = problems(tmp_path, {"my-app.yaml": GOOD + f"{extra}\n"})
    assert found == f"my-app.yaml:5: {expected}; expected each name in one role"


@pytest.mark.parametrize(("extra", "expected"), NAMES_BY_CASE)
def test_names_that_differ_in_case_alone_are_one_problem_with_both_places(
    tmp_path: Path, extra: dict[str, str], expected: list[str]
) -> None:
    files = {f"{slug}.yaml": GOOD.replace("my-app", slug) + f"{text}\n" for slug, text in extra.items()}
    if not expected:
        assert load(tmp_path, files) == sorted(extra)
        return
    found = problems(tmp_path, files)
    assert [line.rpartition(", or another name")[0] for line in found] == expected


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


@pytest.mark.parametrize(
    "place", ["stacks", "stacks/local", "stacks/local/projects", "stacks/local/projects/my-app.yaml"]
)
def test_a_link_below_stacks_is_refused(tmp_path: Path, place: str) -> None:
    assert load(tmp_path, {"my-app.yaml": GOOD}) == ["my-app"]
    path = tmp_path / place
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError) as caught:
        load_projects(tmp_path, "local")
    assert f"  {place}: file: found a symbolic link; expected the file or folder itself" in str(caught.value)


def test_settings_that_are_a_link_are_refused(tmp_path: Path) -> None:
    load(tmp_path, {"my-app.yaml": GOOD})
    (tmp_path / "elsewhere.yaml").write_text("config: {}\n", encoding="utf-8")
    (tmp_path / "stacks" / "Pulumi.x.yaml").symlink_to("../elsewhere.yaml")
    with pytest.raises(ConfigurationError, match=r"stacks/Pulumi\.x\.yaml: file: found a symbolic link"):
        load_projects(tmp_path, "local")


def test_a_checkout_may_lie_behind_a_link(tmp_path: Path) -> None:
    load(tmp_path, {"my-app.yaml": GOOD})
    (tmp_path / "link").symlink_to(tmp_path)
    assert [item.slug for item in load_projects(tmp_path / "link", "local")] == ["my-app"]


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


def central_stack(tmp_path: Path, database: str = "") -> None:
    (tmp_path / "stacks").mkdir(exist_ok=True)
    text = f"config:\n  x:kind: central\n  x:environment: local\n  x:kubernetes: {{database: {{{database}}}}}\n"
    (tmp_path / "stacks" / "Pulumi.local-central.yaml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ("{connections: 501}", "connections: found 501; expected at most 500, which the server has for all projects"),
        ("{connections: 5}", "connections: found 5; expected at least limits.connection_limit, which is 10"),
        ("{storage: 1}", "storage: found 1; expected a whole number with its unit"),
        ("{leases: 0}", "leases: found 0; expected at least 1"),
    ],
)
def test_a_limit_that_cannot_hold_is_a_problem(tmp_path: Path, limits: str, expected: str) -> None:
    central_stack(tmp_path)
    (found,) = problems(tmp_path, {"my-app.yaml": f"{GOOD}limits: {limits}\n"})
    assert found.startswith(f"my-app.yaml:5: limits.{expected}")


def test_a_project_may_hold_what_one_of_its_leases_may(tmp_path: Path) -> None:
    load(tmp_path, {"my-app.yaml": GOOD + "limits: {connection_limit: 60}\n"})
    (project,) = load_projects(tmp_path, "local")
    assert project.limits.connections == 60


def test_25_projects_live_on_the_default_server_and_26_are_told(tmp_path: Path) -> None:
    central_stack(tmp_path)
    connections = connections_for_projects(tmp_path, "local")
    assert connections == 500
    files = {f"app-{number}.yaml": GOOD.replace("my-app", f"app-{number}") for number in range(26)}
    load(tmp_path, files)
    projects = load_projects(tmp_path, "local")
    assert overcommitment(projects[:25], connections) is None
    assert "may hold 520 connections, and the server has 500" in str(overcommitment(projects, connections))
    central_stack(tmp_path, "mode: external")
    assert connections_for_projects(tmp_path, "local") is None
