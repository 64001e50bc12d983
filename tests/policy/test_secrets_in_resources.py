"""Secrets in the open, wherever a resource has a place for text; and what only looks like one."""

import base64
import json
from typing import Any

import pytest

from data_plane.engine.runner.policy import PolicyPack
from tests.support.analyzer import Declared, checked_resource, told

POLICY = "no-secret-literal"
WORD = "hunter2x"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def container(**more: Any) -> Declared:
    spec = {"template": {"spec": {"containers": [{"name": "a", "image": "app:1.0", **more}]}}}
    return Declared("kubernetes:apps/v1:Deployment", {"spec": spec})


def variable(name: str, value: str) -> Declared:
    return container(env=[{"name": name, "value": value}])


def config(text: str) -> Declared:
    return Declared("kubernetes:core/v1:ConfigMap", {"data": {"file": text}})


SECRETS = {
    "a name that ends in PASS": variable("SMTP_PASS", WORD),
    "libpq's keywords": variable("DSN", f"host=db user=app password={WORD} dbname=x"),
    "JDBC": variable("JDBC", f"jdbc:postgresql://db/x?user=a&password={WORD}"),
    "ADO": variable("CS", f"Server=db;User Id=a;Password={WORD};"),
    "a driver of Go": variable("M", f"app:{WORD}@tcp(db:3306)/x"),
    "Basic": container(command=["curl", "-H", f"Authorization: Basic {encoded('app:' + WORD)}", "http://x"]),
    "Bearer": container(command=["curl", "-H", "Authorization: Bearer " + "abcdef0123456789" * 2, "http://x"]),
    "curl -u": container(command=["curl", "-u", f"app:{WORD}", "http://x"]),
    "curl -u in a shell": container(command=["sh", "-c", f"curl -u app:{WORD} http://x"]),
    "one line of JSON": config(json.dumps({"host": "db", "password": WORD})),
    "JSON with variables": config(json.dumps({"env": [{"name": "DB_PASSWORD", "value": WORD}]})),
    "an element of XML": config(f"<c><user>a</user><password>{WORD}</password></c>\n"),
    "an attribute of XML": config(f'<ds url="x" password="{WORD}"/>\n'),
    "a mapping in flow style": config(f"db: {{host: x, password: {WORD}}}\n"),
    ".netrc": config(f"machine x.example.com login a password {WORD}\n"),
    "an annotation": Declared("kubernetes:core/v1:Service", {"metadata": {"annotations": {"app/db-password": WORD}}}),
    "JSON in an annotation": Declared(
        "kubernetes:core/v1:ConfigMap", {"metadata": {"annotations": {"a": json.dumps({"password": WORD})}}}
    ),
    "a chart's values": Declared("kubernetes:helm.sh/v3:Release", {"chart": "x", "values": {"smtp": {"pass": WORD}}}),
    "a function's environment": Declared(
        "aws:lambda/function:Function", {"environment": {"variables": {"DB_PASS": WORD}}}
    ),
    "a task's environment": Declared(
        "aws:ecs/taskDefinition:TaskDefinition",
        {"containerDefinitions": json.dumps([{"name": "a", "environment": [{"name": "DB_PASS", "value": WORD}]}])},
    ),
    "an app's settings": Declared("azure:appservice/linuxWebApp:LinuxWebApp", {"appSettings": {"DB_PASS": WORD}}),
    "keys and values": Declared(
        "digitalocean:index/app:App", {"spec": {"services": [{"envs": [{"key": "DB_PASS", "value": WORD}]}]}}
    ),
    "user data": Declared("aws:ec2/instance:Instance", {"userData": f"#!/bin/sh\nexport DB_PASSWORD={WORD}\n"}),
    "user data in base64": Declared(
        "aws:ec2/instance:Instance", {"userDataBase64": encoded(f"#!/bin/sh\ncurl -u admin:{WORD} https://x\n")}
    ),
}
INNOCENT = {
    "the name of a Secret": Declared(
        "kubernetes:core/v1:Service",
        {"metadata": {"annotations": {"nginx.ingress.kubernetes.io/auth-secret": "shop/basic-auth-1234"}}},
    ),
    "a checksum": Declared("kubernetes:core/v1:Service", {"metadata": {"annotations": {"checksum/config": "0123456789abcdef" * 4}}}),
    "a DSN without a password": variable("DSN", "host=db user=app dbname=x sslmode=verify-full"),
    "a DSN with a variable": variable("DSN", "host=db password=$(PW)"),
    "names that only hold the letters": container(env=[{"name": "COMPASS", "value": "north1234"}, {"name": "PASS_THROUGH", "value": "abc1"}]),
    "a shell's variables": container(command=["sh", "-c", 'curl -u "$USER:$PASS" -H "Authorization: Bearer $TOKEN" http://x']),
    "a proxy's configuration": config("proxy_set_header Authorization $http_authorization;\n# Authorization: Bearer <token>\n"),
    "placeholders in XML": config("<password></password><token>${TOKEN}</token>"),
    "paths in JSON": config('{"passwordFile": "/run/secrets/x", "token_url": "https://x.example.com"}'),
    "prose": config("Send the header Authorization: Basic credentials with it\n"),
    "pg_hba.conf": config("host all all 10.0.0.0/8 password\nlocal all postgres peer\n"),
    "the name of a secret of AWS": Declared(
        "aws:lambda/function:Function",
        {"environment": {"variables": {"SECRET_ARN": "arn:aws:secretsmanager:eu-west-1:1:secret:a-1"}}},
    ),
    "user data that fetches it": Declared(
        "aws:ec2/instance:Instance",
        {"userData": '#!/bin/sh\nPASSWORD=$(aws secretsmanager get-secret-value --secret-id x)\nexport PGPASSWORD="$PASSWORD"\n'},
    ),
}  # fmt: skip


@pytest.mark.parametrize("resource", SECRETS.values(), ids=SECRETS)
def test_a_secret_is_found_where_it_stands_and_never_told(cell_pack: PolicyPack, resource: Declared) -> None:
    found = told(checked_resource(cell_pack, resource)).get(POLICY, [])
    assert found
    assert not any(WORD in message for message in found)


@pytest.mark.parametrize("resource", INNOCENT.values(), ids=INNOCENT)
def test_what_only_looks_like_a_secret_is_let_through(cell_pack: PolicyPack, resource: Declared) -> None:
    assert POLICY not in told(checked_resource(cell_pack, resource))
