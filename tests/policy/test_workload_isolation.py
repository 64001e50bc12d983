"""Workloads sign in as exactly themselves: what is refused, and what the program does and is let through."""

import json
from dataclasses import replace
from typing import Any

import pytest

from data_plane.engine.runner.policy import PolicyPack
from data_plane.engine.runner.properties import UNKNOWN
from policies.workload_isolation import POLICIES
from tests.support.analyzer import CENTRAL, Declared, checked_resource, told
from tests.support.whole_program import CENTRAL_STACK, cell_program

GROUP = {policy.name for policy in POLICIES}
BY_GROUP, EXACTLY = "tenant-policies-come-by-groups", "workloads-are-exactly-themselves"
KUBERNETES = "vault:kubernetes/authBackendRole:AuthBackendRole"
APPROLE = "vault:appRole/authBackendRole:AuthBackendRole"
ENDPOINT = "vault:generic/endpoint:Endpoint"


def account(name: Any = "proj_shop-api", **more: Any) -> Declared:
    properties = {
        "backend": "kubernetes",
        "roleName": name,
        "boundServiceAccountNames": ["api"],
        "boundServiceAccountNamespaces": ["shop"],
        "aliasNameSource": "serviceaccount_name",
        "audience": "openbao",
        "tokenTtl": 3600,
        "tokenMaxTtl": 43200,
        "tokenNoDefaultPolicy": True,
    }
    return Declared(KUBERNETES, {**properties, **more})


def approle(name: Any = "proj_shop-ci", **more: Any) -> Declared:
    properties = {
        "backend": "approle",
        "roleName": name,
        "bindSecretId": True,
        "secretIdTtl": 86400,
        "secretIdBoundCidrs": [],
        "tokenBoundCidrs": [],
        "tokenTtl": 3600,
        "tokenMaxTtl": 43200,
        "tokenNoDefaultPolicy": True,
    }
    return Declared(APPROLE, {**properties, **more})


def written(path: str, document: Any) -> Declared:
    text = document if isinstance(document, str) else json.dumps(document)
    return Declared(ENDPOINT, {"path": path, "dataJson": text})


def in_central(resource: Declared) -> Declared:
    return replace(resource, stack=CENTRAL_STACK, parents=[CENTRAL])


VIOLATIONS: list[tuple[str, Declared, str]] = [
    # A tenant's policy past the tenant's group.
    (BY_GROUP, account(tokenPolicies=["proj_shop_owner"]), "is given proj_shop_owner past its group (tokenPolicies)"),
    (BY_GROUP, account(tokenPolicies=["default", "proj_other_anon"]), "is given proj_other_anon"),
    (BY_GROUP, approle("helper", tokenPolicies=["proj_other_service_role"]), "proj_other_service_role"),
    (BY_GROUP, in_central(account("supabase-auth", tokenPolicies=["proj_shop_owner"])), "proj_shop_owner"),
    (BY_GROUP, Declared("vault:identity/entity:Entity", {"policies": ["proj_shop_owner"]}), "past its group (policies)"),
    (BY_GROUP, Declared("vault:identity/entityPolicies:EntityPolicies", {"policies": ["proj_shop_anon"]}), "proj_shop"),
    (BY_GROUP, Declared("vault:identity/groupPolicies:GroupPolicies", {"policies": ["proj_shop_anon"]}), "proj_shop"),
    (BY_GROUP, Declared("vault:index/token:Token", {"policies": ["proj_shop_owner"]}), "proj_shop_owner"),
    (BY_GROUP, Declared("vault:jwt/authBackendRole:AuthBackendRole", {"tokenPolicies": ["proj_shop_owner"]}), "proj_shop"),
    (BY_GROUP, Declared("vault:tokenauth/backendRole:BackendRole", {"allowedPolicies": ["proj_*"]}), "any tenant's policy"),
    (BY_GROUP, written("identity/entity/name/x", {"policies": ["proj_shop_owner"]}), "proj_shop_owner"),
    (BY_GROUP, written("auth/approle/role/x", {"token_policies": "proj_shop_owner"}), "proj_shop_owner"),
    # Accounts that are not exactly one.
    (EXACTLY, account(boundServiceAccountNames=["*"]), "is for any service account like '*'"),
    (EXACTLY, account(boundServiceAccountNames=["api-*"]), "is for any service account like 'api-*'"),
    (EXACTLY, account(boundServiceAccountNamespaces=["*"]), "is for any namespace like '*'"),
    (EXACTLY, account(boundServiceAccountNamespaces=["shop-?"]), "is for any namespace like 'shop-?'"),
    (EXACTLY, account(boundServiceAccountNamespaces=["shop", "*"]), "is for any namespace like '*'"),
    (EXACTLY, account(boundServiceAccountNames=["api", "web"]), "is for 2 service accounts instead of one"),
    (EXACTLY, account(boundServiceAccountNamespaces=["shop", "staging"]), "is for 2 namespaces instead of one"),
    (EXACTLY, account(boundServiceAccountNamespaces=None), "is for 0 namespaces instead of one"),
    (EXACTLY, account(boundServiceAccountNamespaceSelector='{"matchLabels": {"team": "shop"}}'), "by their labels"),
    (EXACTLY, account("ci", boundServiceAccountNames=["*"]), "is for any service account like '*'"),
    (EXACTLY, in_central(account("supabase-auth", boundServiceAccountNamespaces=["*"])), "is for any namespace"),
    (EXACTLY, account(aliasNameSource=None), "is not the account's entity"),
    (EXACTLY, account(aliasNameSource="serviceaccount_uid"), "is not the account's entity"),
    (EXACTLY, account(audience=None), "made out to somebody else"),
    (EXACTLY, account(audience=""), "made out to somebody else"),
    (EXACTLY, account("proj_shop"), "is no workload's role"),
    (EXACTLY, account("proj_shop_owner"), "is no workload's role"),
    (EXACTLY, account("proj_shop-API"), "is no workload's role"),
    # AppRoles.
    (EXACTLY, approle(bindSecretId=False), "signs in without a secret-ID"),
    (EXACTLY, approle(roleId="proj_shop-ci"), "can be guessed and locked out"),
    (EXACTLY, approle(secretIdTtl=None), "its secret-IDs never expire"),
    (EXACTLY, approle(secretIdTtl=0), "its secret-IDs never expire"),
    # Tokens.
    (EXACTLY, approle(tokenPolicies=["ci"]), "sets tokenPolicies"),
    (EXACTLY, account(tokenPolicies=["ci"]), "sets tokenPolicies"),
    (EXACTLY, approle(tokenPeriod=600), "sets tokenPeriod"),
    (EXACTLY, account(tokenTtl=None), "tokenTtl is not set"),
    (EXACTLY, account(tokenMaxTtl=0), "tokenMaxTtl is not set"),
    (EXACTLY, approle(tokenMaxTtl=86401), "86401 s, more than 86400 s"),
    (EXACTLY, account(tokenNoDefaultPolicy=None), "has OpenBao's policy default"),
    (EXACTLY, approle(tokenNoDefaultPolicy=False), "has OpenBao's policy default"),
]  # fmt: skip

LET_THROUGH: list[tuple[str, Declared]] = [
    ("a workload's account", account()),
    ("an account whose role is not known yet", account(UNKNOWN)),
    ("an audience not known yet", account(audience=UNKNOWN)),
    ("an account not known yet", account(boundServiceAccountNames=UNKNOWN)),
    ("a workload's AppRole", approle()),
    ("an AppRole of a few networks", approle(secretIdBoundCidrs=["10.0.0.0/8"], tokenBoundCidrs=["10.0.0.0/8"])),
    ("lifetimes not known yet", approle(tokenTtl=UNKNOWN, tokenMaxTtl=UNKNOWN, secretIdTtl=UNKNOWN)),
    ("a slug with a dash, a workload with one", approle("proj_my_app-nightly-job")),
    ("a service's account, with its own policy", in_central(account("supabase-auth", tokenPolicies=["supabase-auth"],
                                                                    aliasNameSource=None, audience=None))),
    ("an AppRole of the platform's own", approle("runner", tokenPolicies=["ci"], tokenMaxTtl=None, secretIdTtl=None)),
    ("an entity without policies", written("identity/entity/name/olga", {})),
    ("a document not known yet", written("identity/entity-alias", UNKNOWN)),
    ("a document that is none", written("secret/x", "proj_shop_owner")),
    ("a tenant's group", Declared("vault:identity/group:Group", {"name": "proj_shop_anon", "policies": ["proj_shop_anon"]})),
]  # fmt: skip


@pytest.mark.parametrize(("name", "resource", "expected"), VIOLATIONS, ids=range(len(VIOLATIONS)))
def test_what_is_not_exactly_itself_is_refused(cell_pack: PolicyPack, central_pack: PolicyPack, name: str,
                                               resource: Declared, expected: str) -> None:  # fmt: skip
    pack = central_pack if resource.stack == CENTRAL_STACK else cell_pack
    found = [violation for violation in checked_resource(pack, resource) if violation.mandatory]
    assert name in told(found), f"refused by {sorted(told(found))} only"
    assert any(expected in message for message in told(found)[name]), told(found)[name]


@pytest.mark.parametrize(("why", "resource"), LET_THROUGH, ids=[why for why, _ in LET_THROUGH])
def test_what_is_itself_is_let_through(cell_pack: PolicyPack, central_pack: PolicyPack, why: str,
                                       resource: Declared) -> None:  # fmt: skip
    pack = central_pack if resource.stack == CENTRAL_STACK else cell_pack
    assert not {name: text for name, text in told(checked_resource(pack, resource)).items() if name in GROUP}


def test_every_policy_has_a_case_that_it_refuses() -> None:
    assert {name for name, _, _ in VIOLATIONS} == GROUP


def test_a_projects_workloads_pass_the_whole_pack(cell_pack: PolicyPack) -> None:
    roles = [item for item in cell_program() if item.type in {KUBERNETES, APPROLE}]
    assert {item.properties["roleName"] for item in roles} == {"proj_shop-api", "proj_shop-ci"}
    for item in cell_program():
        assert not checked_resource(cell_pack, item), item.name
