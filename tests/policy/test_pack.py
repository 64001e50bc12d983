"""The pack as a whole: what it says of itself, and how it is set."""

import json
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import analyzer_pb2

from data_plane.engine.runner.policy import PolicyPack
from data_plane.errors import DataPlaneError
from data_plane.state_dir import CHECKOUT
from tests.support.analyzer import PACK, PROJECT, Declared, checked_resource, told

DOCUMENT = CHECKOUT / "docs" / "reference" / "policies.md"
POSTGRES = Declared(
    "kubernetes:apps/v1:Deployment",
    {"spec": {"template": {"spec": {"containers": [{"name": "db", "image": "postgres:16.4"}]}}}},
)


@pytest.fixture(scope="module")
def information(cell_pack: PolicyPack) -> analyzer_pb2.AnalyzerInfo:
    found: analyzer_pb2.AnalyzerInfo = cell_pack._analyzer.GetAnalyzerInfo(empty_pb2.Empty())
    return found


def test_the_pack_can_be_configured(information: analyzer_pb2.AnalyzerInfo) -> None:
    assert information.name == "supabase-data-plane"
    assert information.supportsConfig
    assert len({policy.name for policy in information.policies}) == len(information.policies) >= 20


def test_every_policy_says_what_to_do_and_where_to_read_on(information: analyzer_pb2.AnalyzerInfo) -> None:
    headings = set(re.findall(r"^#+ `?([a-z-]+)`?$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))
    for policy in information.policies:
        file, _, section = policy.url.partition("#")
        assert CHECKOUT / file == DOCUMENT, policy.name
        assert section == policy.name
        assert section in headings, f"{policy.name} has no section in {DOCUMENT.name}"
        assert policy.remediation_steps, policy.name
        assert policy.severity != analyzer_pb2.POLICY_SEVERITY_UNSPECIFIED, policy.name
        assert policy.enforcementLevel in {analyzer_pb2.MANDATORY, analyzer_pb2.ADVISORY}, policy.name


def test_every_setting_has_a_type_a_default_and_a_description(information: analyzer_pb2.AnalyzerInfo) -> None:
    for policy in information.policies:
        for name, schema in policy.configSchema.properties.items():
            assert {"type", "default", "description"} <= set(schema.keys()), f"{policy.name}: {name}"


def configured(tmp_path: Path, text: Any) -> PolicyPack:
    file = tmp_path / "policies.json"
    file.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return PolicyPack(PACK, PROJECT, "prod-cell-1", preview=True, config=file)


def refusals(pack: PolicyPack) -> dict[str, list[bool]]:
    try:
        found: dict[str, list[bool]] = {}
        for violation in checked_resource(pack, POSTGRES):
            found.setdefault(violation.policy, []).append(violation.mandatory)
        return found
    finally:
        pack.close()


def test_a_projects_postgres_is_refused_by_default(cell_pack: PolicyPack) -> None:
    found = [violation for violation in checked_resource(cell_pack, POSTGRES) if violation.mandatory]
    assert "no-postgres-workload" in told(found)


def test_a_level_can_be_set_for_one_policy_and_for_all(tmp_path: Path) -> None:
    one = refusals(configured(tmp_path, {"no-postgres-workload": {"enforcementLevel": "advisory"}}))
    assert one["no-postgres-workload"] == [False]
    assert refusals(configured(tmp_path, {"all": "disabled"})) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ([], "expected an object"),
        ({"no-such": "advisory"}, "no policy 'no-such'"),
        ({"no-postgres-workload": 3}, "expected an enforcement level or an object"),
        ({"no-postgres-workload": "sometimes"}, "expected one of advisory, mandatory"),
        ({"no-postgres-workload": {"stacks": []}}, "no setting 'stacks'"),
    ],
)
def test_a_wrong_configuration_is_refused_with_the_files_name(tmp_path: Path, text: object, message: str) -> None:
    with pytest.raises(DataPlaneError, match=message) as caught:
        configured(tmp_path, text)
    assert str(tmp_path / "policies.json") in str(caught.value)


def test_the_engines_own_calls_are_answered(cell_pack: PolicyPack) -> None:
    cell_pack._analyzer.GetPluginInfo(empty_pb2.Empty())
    cell_pack._analyzer.ConfigureStack(analyzer_pb2.AnalyzerStackConfigureRequest(stack="s", project="p"))
    cell_pack._analyzer.Remediate(analyzer_pb2.AnalyzeRequest(type="t", name="n", urn="urn:pulumi:s::p::t::n"))


def test_a_resource_that_cannot_be_read_is_an_error_not_a_pass(cell_pack: PolicyPack) -> None:
    broken = analyzer_pb2.AnalyzeRequest(type="kubernetes:core/v1:Pod", name="n", urn="urn:pulumi:s::p::t::n")
    broken.properties.update({"spec": {"4dabf18193072939515e22adb298388d": "no such signature"}})
    with pytest.raises(grpc.RpcError):
        cell_pack._analyzer.Analyze(broken)
