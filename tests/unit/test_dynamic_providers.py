"""A stack's state names the classes of its dynamic providers by their paths, so these stay importable."""

import pickle
from importlib import import_module
from typing import Any, cast

import pytest
from pulumi.dynamic import ResourceProvider
from pulumi.dynamic.dynamic import serialize_provider

from components.dynamic import ApplyingProvider
from components.tenant.table_row import TableRowProvider

PATHS = (
    "components.central.api_logins",
    "components.central.connector_secrets",
    "components.central.platform_sql",
    "components.central.service_logins",
    "components.central.service_secrets",
    "components.central.verifying_keys",
    "components.tenant.api_access",
    "components.tenant.further_schemas",
    "components.tenant.jobs",
    "components.tenant.limits",
    "components.tenant.realtime",
    "components.tenant.revocation",
    "components.tenant.sign_in",
    "components.tenant.storage",
    "components.tenant.users",
    "components.privilege_drift",
    "components.tenant_walls",
)


def provider_in(path: str) -> ApplyingProvider:
    return cast("ApplyingProvider", import_module(path)._Provider())


@pytest.mark.parametrize("path", PATHS)
def test_state_keeps_a_provider_by_the_path_of_its_class_and_nothing_else(path: str) -> None:
    provider = provider_in(path)
    assert vars(provider) == {}
    assert isinstance(pickle.loads(pickle.dumps(provider)), type(provider))  # noqa: S301 just pickled
    # Pickled by value it would hold its code, and every change of that would be a change of the resource.
    kept = serialize_provider(cast("ResourceProvider", provider))
    assert kept == serialize_provider(provider_in(path))
    assert len(kept) < 200


@pytest.mark.parametrize("path", [path for path in PATHS if isinstance(provider_in(path), TableRowProvider)])
def test_a_row_notices_a_change_of_each_of_its_inputs_and_replaces_for_its_identity(path: str) -> None:
    provider = provider_in(path)
    before: dict[str, Any] = dict.fromkeys((*provider.inputs, *provider.identity), "a")
    current = {**before, "sealed": True, "address": "x"}
    news = {**before, "address": "x"}
    assert not provider.diff("id", current, news).changes
    for name in provider.inputs:
        found = provider.diff("id", current, {**news, name: "b"})
        assert (found.changes, found.replaces) == (True, []), name
    for name in provider.identity:
        found = provider.diff("id", current, {**news, name: "b"})
        assert (found.changes, found.replaces) == (True, [name]), name


def test_a_tenant_that_nobody_serves_is_compared_without_a_login() -> None:
    # A property that is null is not there, as the engines give it.
    props: dict[str, Any] = {"tenant": "proj_a", "storage": False}
    provider = provider_in("components.tenant.api_access")
    assert not provider.diff("id", {**props, "login": None}, props).changes
    assert provider.diff("id", {**props, "login": "cell_a_authenticator"}, props).changes


def test_a_tenant_s_leases_are_ended_at_the_address_of_now() -> None:
    props: dict[str, Any] = {
        "address": "https://a", "tenant": "proj_a", "lease_paths": [], "attached": True, "holders": []
    }  # fmt: skip
    provider = provider_in("components.tenant.revocation")
    moved = {**props, "address": "https://b"}
    assert provider.diff("id", props, moved).changes
    assert provider.update("id", props, moved).outs == moved, "nothing is revoked, so OpenBao is not asked"
