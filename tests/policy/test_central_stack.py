"""The central stack stays sound: what is refused there, what is let through, and that the program itself passes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pulumi_policy import PolicyConfigSchema

from data_plane.engine.runner.policy import PolicyPack
from data_plane.engine.runner.properties import UNKNOWN
from policies.central_stack import POLICIES
from policies.pack import POLICIES as ALL
from tests.support.analyzer import CENTRAL, PACK, PROJECT, Declared, checked_resource, checked_stack, told
from tests.support.secret_literals import KNOWN
from tests.support.whole_program import CENTRAL_PROGRAMS, CENTRAL_STACK, central_program

GROUP = {policy.name for policy in POLICIES}
PINNED, SECRET, DATA = "images-are-pinned", "no-secret-literal", "data-is-protected"
DOOR, PODS, BACKUPS = "only-the-gateway-is-reachable", "pods-are-restricted", "backups-are-present"
WAYS_OUT = "egress-is-bounded"
CARE, BUDGET = "containers-have-resources-and-probes", "replicas-survive-disruption"

NONE = PolicyConfigSchema(properties={})
PART = "supabase-data-plane:central:"
IMAGE = "registry.example.com/app:1.2.3"
SOUND: dict[str, Any] = {
    "name": "app",
    "image": IMAGE,
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}},
    "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
}
NON_ROOT = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def central(kind: str, properties: dict[str, Any] | None = None, part: str = "Services", **more: Any) -> Declared:
    given = {"stack": CENTRAL_STACK, "parents": [CENTRAL, f"{PART}{part}"], **more}
    return Declared(f"kubernetes:{kind}", {"metadata": {"name": "it"}, **(properties or {})}, **given)


def spec(kind: str, part: str = "Services", **properties: Any) -> Declared:
    return central(kind, {"spec": properties}, part)


def pod(part: str = "Services", *, context: Any = NON_ROOT, pod: Any = None, kind: str = "apps/v1:Deployment",
        **container: Any) -> Declared:  # fmt: skip
    entry = {key: value for key, value in {**SOUND, **container}.items() if value is not None}
    template = {"containers": [entry], **({"securityContext": context} if context else {}), **(pod or {})}
    nested: dict[str, Any] = {"template": {"spec": template}}
    return central(kind, {"spec": {"jobTemplate": {"spec": nested}} if kind.endswith("CronJob") else nested}, part)


def secure(**changes: Any) -> dict[str, Any]:
    return {**SOUND["securityContext"], **changes}


def config_map(**data: str) -> Declared:
    return central("core/v1:ConfigMap", {"data": data})


def environment(name: str, value: Any) -> Declared:
    return pod(env=[{"name": "PORT", "value": "80"}, {"name": name, "value": value}])


def claim(**more: Any) -> Declared:
    return replace(spec("core/v1:PersistentVolumeClaim", resources={"requests": {"storage": "7Gi"}}), **more)


def stateful(protect: bool = True, **properties: Any) -> Declared:
    given = {"volumeClaimTemplates": [{"metadata": {"name": "data"}}], **properties}
    return replace(spec("apps/v1:StatefulSet", "Database", **given), protect=protect)


def schema(name: str, *, stack: str = CENTRAL_STACK, protect: bool = True, **more: Any) -> Declared:
    return Declared("postgresql:index/schema:Schema", {"name": name, **more}, stack=stack, protect=protect)


def service(**properties: Any) -> Declared:
    return spec("core/v1:Service", **properties)


def namespace(**labels: str) -> Declared:
    named = {f"pod-security.kubernetes.io/{key}": value for key, value in labels.items()}
    return central("core/v1:Namespace", {"metadata": {"name": "n", "labels": named}}, protect=True)


def mounted(path: str, **volume: Any) -> Declared:
    return pod("Database", pod={"volumes": [{"name": "v", **volume}]}, volumeMounts=[{"name": "v", "mountPath": path}])


GITHUB, TOKEN, URL = KNOWN["GitHub"], KNOWN["service role"], KNOWN["PostgreSQL"]


def way_out(*peers: dict[str, Any], **rule: Any) -> Declared:
    return spec("networking.k8s.io/v1:NetworkPolicy", egress=[{"to": list(peers), **rule}])


def block(cidr: str, *inside: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr, **({"except": list(inside)} if inside else {})}}


VIOLATIONS: list[tuple[str, Declared, str]] = [
    (WAYS_OUT, way_out(), "leads everywhere"),
    (WAYS_OUT, spec("networking.k8s.io/v1:NetworkPolicy", egress=[{"ports": [{"port": 443}]}]), "leads everywhere"),
    (WAYS_OUT, way_out(block("0.0.0.0/0")), "leads to 169.254.169.254"),
    (WAYS_OUT, way_out(block("0.0.0.0/0", "10.0.0.0/8")), "leads to 169.254.169.254"),
    (WAYS_OUT, way_out(block("0.0.0.0/0", "169.254.0.0/16")), "leads to 168.63.129.16"),
    (WAYS_OUT, way_out(block("169.254.169.254/32")), "leads to 169.254.169.254"),
    (WAYS_OUT, way_out(block("10.0.0.0/8"), block("::/0", "fd20::/16")), "leads to fd00:ec2::254"),
    (WAYS_OUT, way_out(block("fc00::/7", "fd00:ec2::/32")), "leads to fd20:ce::254"),
    (WAYS_OUT, way_out(block("100.64.0.0/10")), "leads to 100.100.100.200"),
    (PINNED, pod(image="registry.example.com/app"), "always the same image"),
    (PINNED, pod(image="registry.example.com/app:latest"), "latest"),
    (PINNED, pod(image="registry.example.com:5000/app"), "registry.example.com:5000/app"),
    (PINNED, pod(image="app:stable"), "stable"),
    (PINNED, pod(image="app:v2"), "v2"),
    (PINNED, pod(image="app:17"), "17"),
    (PINNED, pod(image="app:17-alpine"), "17-alpine"),
    (PINNED, pod(image="app:main"), "main"),
    (PINNED, pod(image="app@sha256:abc"), "sha256:abc"),
    (PINNED, pod(kind="batch/v1:CronJob", image="app:latest"), "jobTemplate"),
    (PINNED, pod(pod={"initContainers": [{"name": "i", "image": "busybox"}]}), "initContainers[0].image"),
    (PINNED, spec("postgresql.cnpg.io/v1:Cluster", imageName="registry.example.com/pg:17"), "spec.imageName"),
    # Secrets.
    (SECRET, environment("POSTGRES_PASSWORD", "postgres"), "env[1].value (POSTGRES_PASSWORD) holds a password"),
    (SECRET, environment("JWT_SECRET", "super-secret-jwt-token-with-at-least-32-characters-long"), "JWT_SECRET"),
    (SECRET, environment("WHATEVER", GITHUB), "a token of GitHub"),
    (SECRET, environment("DATABASE_URL", URL), "a URL with a password"),
    (SECRET, environment("SERVICE_KEY", TOKEN), "a JSON Web Token"),
    (SECRET, pod(args=["--db-password=letmein1"]), "db-password"),
    (SECRET, pod(command=["sh", "-c", "PGPASSWORD=letmein1 psql"]), "PGPASSWORD"),
    (SECRET, pod(pod={"initContainers": [{**SOUND, "env": [{"name": "TOKEN", "value": GITHUB}]}]}), "initContainers[0]"),
    (SECRET, config_map(**{"app.yaml": "host: db\npassword: letmein1\n"}), "data.app.yaml (password)"),
    (SECRET, config_map(**{".env": "A=1\nAPI_KEY=abc12345def\n"}), "API_KEY"),
    (SECRET, config_map(DB_PASSWORD="letmein1"), "data.DB_PASSWORD"),
    (SECRET, config_map(key="x\n" + KNOWN["RSA key"]), "a private key"),
    (SECRET, central("core/v1:ConfigMap", {"binaryData": {"k": "cGFzc3dvcmQ6IGxldG1laW4xCg=="}}), "data.k"),
    (SECRET, central("helm.sh/v3:Release", {"chart": "app", "values": {"auth": {"password": "letmein1"}}}),
     "values.auth.password"),
    (SECRET, central("helm.sh/v4:Chart", {"chart": "app", "values": {"env": {"API_TOKEN": GITHUB}}}), "API_TOKEN"),
    (SECRET, central("core/v1:Service", {"metadata": {"annotations": {"note": URL}}}), "metadata.annotations.note"),
    (SECRET, Declared("docker:index/container:Container", {"image": IMAGE, "envs": ["API_KEY=abc12345def"]}), "API_KEY"),
    (SECRET, Declared("command:local:Command", {"create": "run --token=" + GITHUB}), "create"),
    (SECRET, Declared("command:local:Command", {"create": "run", "environment": {"DB_PASSWORD": "letmein1"}}),
     "environment.DB_PASSWORD"),
    (SECRET, Declared("aws:lambda/function:Function", {"environment": {"variables": {"K": GITHUB}}}), "variables.K"),
    # Data.
    (DATA, claim(), "holds data"),
    (DATA, stateful(protect=False), "holds data"),
    (DATA, spec("postgresql.cnpg.io/v1:Cluster", "Database", imageName="pg:17.2"), "holds data"),
    (DATA, central("core/v1:Namespace", {"metadata": {"labels": {}}}), "holds data"),
    (DATA, schema("auth", protect=False), "holds data"),
    (DATA, schema("proj_shop", stack="prod-cell-1", protect=False), "holds data"),
    (DATA, schema("proj_shop", stack="prod-cell-1", dropCascade=True), "dropCascade"),
    (DATA, stateful(persistentVolumeClaimRetentionPolicy={"whenDeleted": "Delete", "whenScaled": "Retain"}), "deletes"),
    (DATA, replace(spec("core/v1:PersistentVolume", persistentVolumeReclaimPolicy="Delete"), protect=True), "claim"),
    (DATA, central("storage.k8s.io/v1:StorageClass", {"provisioner": "x"}), "reclaimPolicy"),
    (DATA, mounted("/var/lib/postgresql/data", emptyDir={}), "an emptyDir"),
    # Doors.
    (DOOR, service(type="NodePort"), "NodePort"),
    (DOOR, service(type="LoadBalancer"), "LoadBalancer"),
    (DOOR, service(type="ClusterIP", externalIPs=["192.0.2.1"]), "externalIPs"),
    (DOOR, central("networking.k8s.io/v1:Ingress"), "Ingress"),
    (DOOR, central("gateway.networking.k8s.io/v1:HTTPRoute"), "HTTPRoute"),
    (DOOR, central("gateway.networking.k8s.io/v1:Gateway"), "Gateway"),
    (DOOR, central("gateway.networking.k8s.io/v1alpha2:TCPRoute"), "TCPRoute"),
    (DOOR, central("traefik.io/v1alpha1:IngressRouteTCP"), "IngressRouteTCP"),
    (DOOR, central("networking.istio.io/v1:VirtualService"), "VirtualService"),
    (DOOR, pod(ports=[{"containerPort": 80, "hostPort": 8080}]), "port 8080 of the node"),
    (DOOR, pod(pod={"hostNetwork": True}), "the node's network"),
    # Pods.
    (PODS, pod(context=None), "may run as root"),
    (PODS, pod(context={"runAsNonRoot": True}), "no seccomp profile"),
    (PODS, pod(context={**NON_ROOT, "runAsUser": 0}), "runs as root"),
    (PODS, pod(context={**NON_ROOT, "seccompProfile": {"type": "Unconfined"}}), "without seccomp"),
    (PODS, pod(context={**NON_ROOT, "sysctls": [{"name": "kernel.msgmax", "value": "1"}]}), "kernel.msgmax"),
    (PODS, pod(securityContext=None), "may gain privileges"),
    (PODS, pod(securityContext=secure(allowPrivilegeEscalation=True)), "may gain privileges"),
    (PODS, pod(securityContext=secure(capabilities={})), "keeps capabilities"),
    (PODS, pod(securityContext=secure(capabilities={"drop": ["ALL"], "add": ["CHOWN"]})), "adds CHOWN"),
    (PODS, pod(securityContext=secure(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]})), "adds SYS_ADMIN"),
    (PODS, pod(securityContext=secure(privileged=True)), "is privileged"),
    (PODS, pod(securityContext=secure(runAsNonRoot=False)), "may run as root"),
    (PODS, pod(securityContext=secure(procMount="Unmasked")), "procMount"),
    (PODS, pod(pod={"hostPID": True}), "hostPID"),
    (PODS, pod(pod={"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}), "a folder of the node's"),
    (PODS, pod(pod={"volumes": [{"name": "n", "nfs": {"server": "x"}}]}), "is a nfs"),
    (PODS, pod(pod={"initContainers": [{"name": "i", "image": IMAGE}]}), "container i may gain"),
    (PODS, pod(kind="batch/v1:CronJob", securityContext=None), "may gain privileges"),
    (PODS, pod("Database", securityContext=secure(privileged=True)), "is privileged"),
    (PODS, pod("Database", securityContext={"capabilities": {"add": ["NET_ADMIN"]}}), "adds NET_ADMIN"),
    (PODS, pod("Database", pod={"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}), "a folder of the node's"),
    (PODS, namespace(), "enforces no level"),
    (PODS, namespace(warn="restricted"), "enforces no level"),
    (PODS, namespace(enforce="strict"), "enforces no level"),
    # Care.
    (CARE, pod(resources=None), "resources.requests.cpu"),
    (CARE, pod(resources={"requests": {"cpu": 1, "memory": "1Gi"}}), "resources.limits.memory"),
    (CARE, pod(readinessProbe=None), "no readinessProbe"),
]  # fmt: skip

LET_THROUGH: list[tuple[str, Declared]] = [
    ("a sound Pod", pod()),
    ("a digest", pod(image="app@sha256:" + "0" * 64)),
    ("a tag and a digest", pod(image="app:latest@sha256:" + "0" * 64)),
    ("a version with a suffix", pod(image="app:v1.14.2-alpine3.20")),
    ("a date", pod(image="supabase/studio:2026.08.31-sha-6c9b1f2")),
    ("a registry with a port", pod(image="registry.example.com:5000/app:1.2")),
    ("an image not known yet", pod(image=UNKNOWN)),
    ("an operator's image, pinned",
     replace(spec("postgresql.cnpg.io/v1:Cluster", "Database", imageName="pg:17.2"), protect=True)),
    ("the word image in a ConfigMap", config_map(image="app:latest")),
    ("a variable from a Secret", pod(env=[{"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "x"}}}])),
    ("a variable of a variable", environment("DATABASE_URL", "postgres://app:$(DB_PASSWORD)@db/app")),
    ("a file's name", environment("POSTGRES_PASSWORD_FILE", "/run/secrets/password")),
    ("a value not known yet", environment("POSTGRES_PASSWORD", UNKNOWN)),
    ("an empty password", environment("POSTGRES_PASSWORD", "")),
    ("a public key", environment("PUBLISHABLE_KEY", "sb_publishable_1234567890123456789012")),
    ("a Secret", central("core/v1:Secret", {"stringData": {"password": "made by the program"}})),
    ("an ExternalSecret", central("external-secrets.io/v1:ExternalSecret",
                                  {"spec": {"data": [{"secretKey": "POSTGRES_PASSWORD", "remoteRef": {"key": "x"}}]}})),
    ("a template of a ConfigMap", config_map(**{"kong.yml": "key: ${SUPABASE_SECRET_KEY}\npassword: {{ .x }}\n"})),
    ("values that name a Secret", central("helm.sh/v3:Release", {"chart": "app", "values": {
        "auth": {"existingSecret": "app-database-1", "passwordKey": "password"}}})),
    ("a command that reads a file", Declared("command:local:Command", {"create": "TOKEN=$(cat /token) run"})),
    ("OpenBao's own resources", Declared("vault:generic/secret:Secret", {"dataJson": GITHUB})),
    ("a claim that is protected", claim(protect=True)),
    ("a claim of a project's", replace(claim(), stack="prod-cell-1", parents=[])),
    ("a StatefulSet that keeps its volumes", stateful(
        persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain", "whenScaled": "Retain"})),
    ("a StatefulSet without volumes", spec("apps/v1:StatefulSet", replicas=1)),
    ("a volume that stays", replace(spec("core/v1:PersistentVolume", persistentVolumeReclaimPolicy="Retain"), protect=True)),
    ("a class whose volumes stay", central("storage.k8s.io/v1:StorageClass", {"reclaimPolicy": "Retain"})),
    ("a schema that is protected", schema("proj_shop", stack="prod-cell-1")),
    ("a schema of a project's own program", schema("reporting", stack="prod-cell-1", protect=False)),
    ("data on a claim", mounted("/var/lib/postgresql/data", persistentVolumeClaim={"claimName": "data"})),
    ("a socket in an emptyDir", mounted("/var/run/postgresql", emptyDir={})),
    ("a way to a network", way_out(block("10.0.0.0/8"))),
    ("a way to the world but for its own networks", way_out(block(
        "0.0.0.0/0", "169.254.0.0/16", "168.63.129.16/32", "100.64.0.0/10", "192.0.0.0/24"))),
    ("a way to Pods", way_out({"podSelector": {"matchLabels": {"app": "x"}}})),
    ("a policy that denies", spec("networking.k8s.io/v1:NetworkPolicy", policyTypes=["Egress"], egress=[])),
    ("a network that is not known yet", way_out({"ipBlock": {"cidr": UNKNOWN}})),
    ("a policy of a project's", replace(way_out(block("0.0.0.0/0")), stack="prod-cell-1")),
    ("a ClusterIP", service(type="ClusterIP")),
    ("a headless Service", service(clusterIP="None")),
    ("an Ingress of the gateway", central("networking.k8s.io/v1:Ingress", part="Gateway")),
    ("a LoadBalancer of the gateway", spec("core/v1:Service", "Gateway", type="LoadBalancer")),
    ("a route of the gateway", central("gateway.networking.k8s.io/v1:HTTPRoute", part="Gateway")),
    ("an Ingress of a project's", replace(central("networking.k8s.io/v1:Ingress"), stack="prod-cell-1")),
    ("a container's own port", pod(ports=[{"containerPort": 80}])),
    ("runAsNonRoot by the container", pod(context={"seccompProfile": {"type": "RuntimeDefault"}},
                                          securityContext=secure(runAsNonRoot=True))),
    ("a low port", pod(securityContext=secure(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}))),
    ("a safe kernel setting",
     pod(context={**NON_ROOT, "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]})),
    ("the volumes that restricted allows", pod(pod={"volumes": [
        {"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {}}, {"name": "c", "projected": {}}]})),
    ("the database's own start as root", pod("Database", context=None, securityContext={
        "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "SETUID", "SETGID"]}})),
    ("the collector of logs", pod("Logs", kind="apps/v1:DaemonSet", context=None, securityContext=None,
                                  pod={"volumes": [{"name": "h", "hostPath": {"path": "/var/log"}}]})),
    ("a Pod of a project's", replace(pod(context=None, securityContext=None), stack="prod-cell-1")),
    ("a restricted namespace", namespace(enforce="restricted")),
    ("a baseline namespace", namespace(enforce="baseline")),
    ("a job without a probe", pod(kind="batch/v1:Job", readinessProbe=None)),
]  # fmt: skip


@pytest.fixture(scope="module")
def production_pack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicyPack]:
    """The pack for a central stack that is told it is one, and whose data may not be lost."""
    file = tmp_path_factory.mktemp("pack") / "policies.json"
    names = [policy.name for policy in ALL if "centralStacks" in (policy.config_schema or NONE).properties]
    file.write_text(json.dumps({name: {"centralStacks": ["prod-central"]} for name in names}), encoding="utf-8")
    pack = PolicyPack(PACK, PROJECT, "prod-central", preview=True, config=file)
    yield pack
    pack.close()


@pytest.mark.parametrize(("name", "resource", "expected"), VIOLATIONS, ids=range(len(VIOLATIONS)))
def test_what_is_unsound_is_refused(cell_pack: PolicyPack, central_pack: PolicyPack, name: str,
                                    resource: Declared, expected: str) -> None:  # fmt: skip
    pack = central_pack if resource.stack == CENTRAL_STACK else cell_pack
    found = checked_resource(pack, resource)
    assert name in told(found), f"refused by {sorted(told(found))} only"
    assert any(expected in message for message in told(found)[name]), told(found)[name]
    assert all(violation.mandatory == (name not in {CARE, BUDGET}) for violation in found if violation.policy == name)


@pytest.mark.parametrize(("why", "resource"), LET_THROUGH, ids=[why for why, _ in LET_THROUGH])
def test_what_is_sound_is_let_through(cell_pack: PolicyPack, central_pack: PolicyPack, why: str,
                                      resource: Declared) -> None:  # fmt: skip
    pack = central_pack if resource.stack == CENTRAL_STACK else cell_pack
    assert not {name: text for name, text in told(checked_resource(pack, resource)).items() if name in GROUP}


@pytest.mark.parametrize(("inputs", "refused"), [({"renderYamlToDirectory": "/manifests"}, False), ({}, True)])
def test_only_a_manifest_in_a_folder_holds_no_data(
    central_pack: PolicyPack, inputs: dict[str, Any], refused: bool
) -> None:
    provider = Declared("pulumi:providers:kubernetes", inputs, stack=CENTRAL_STACK)
    checked_resource(central_pack, provider)
    request, urn, properties = stateful(protect=False).request()
    request.provider = f"{provider.urn}::it"
    found = told(central_pack.check_resource(request, urn, properties))
    assert (DATA in found) is refused


def test_every_policy_has_a_case_that_it_refuses() -> None:
    assert {name for name, _, _ in VIOLATIONS} | {BACKUPS, BUDGET} == GROUP


def test_a_secret_is_never_told(central_pack: PolicyPack) -> None:
    for text in KNOWN.values():
        for violation in checked_resource(central_pack, environment("PASSWORD", text)):
            assert text not in violation.message


def test_a_path_can_be_allowed(tmp_path: Path) -> None:
    file = tmp_path / "policies.json"
    file.write_text(json.dumps({SECRET: {"allowedPaths": ["data.example.*"]}}), encoding="utf-8")
    pack = PolicyPack(PACK, PROJECT, CENTRAL_STACK, preview=True, config=file)
    try:
        text = "password: letmein1\nx: y"
        assert SECRET not in told(checked_resource(pack, config_map(**{"example.yaml": text})))
        assert SECRET in told(checked_resource(pack, config_map(**{"real.yaml": text})))
    finally:
        pack.close()


# Stack policies


def moved(resources: list[Declared], stack: str) -> list[Declared]:
    return [replace(resource, stack=stack) for resource in resources]


def production(name: str) -> list[Declared]:
    return moved(central_program(name), "prod-central")


def findings(pack: PolicyPack, resources: list[Declared], policy: str) -> list[str]:
    return told(checked_stack(pack, resources)).get(policy, [])


@pytest.mark.parametrize("name", ["everything", "CloudNativePG", "external database", "nothing", "without services"])
def test_a_database_with_backups_or_elsewhere_passes(production_pack: PolicyPack, name: str) -> None:
    assert not findings(production_pack, production(name), BACKUPS)


@pytest.mark.parametrize("name", ["as it comes", "files on one node", "Gateway API"])
def test_a_database_without_backups_is_refused(production_pack: PolicyPack, name: str) -> None:
    (message,) = findings(production_pack, production(name), BACKUPS)
    assert "archives no write-ahead log" in message
    assert "has no base backups by a schedule" in message


def changed(name: str, kind: str, change: dict[str, Any]) -> list[Declared]:
    return [
        replace(item, properties={**item.properties, "spec": {**item.properties["spec"], **change}})
        if item.type.endswith(f":{kind}")
        else item
        for item in production(name)
    ]


@pytest.mark.parametrize(
    ("name", "kind", "change", "expected"),
    [
        ("everything", "CronJob", {"suspend": True}, "no base backups"),
        ("CloudNativePG", "ScheduledBackup", {"suspend": True}, "no base backups"),
        ("CloudNativePG", "ScheduledBackup", {"schedule": ""}, "no base backups"),
        ("CloudNativePG", "ObjectStore", {"retentionPolicy": None}, "keeps no backup"),
        ("CloudNativePG", "Cluster", {"plugins": []}, "archives no write-ahead log"),
        ("CloudNativePG", "Cluster", {"plugins": [{"isWALArchiver": True, "enabled": False}]}, "archives no"),
        ("everything", "StatefulSet", {"template": {"spec": {"containers": [SOUND]}}}, "archives no"),
    ],
)
def test_half_a_backup_is_refused(
    production_pack: PolicyPack, name: str, kind: str, change: dict[str, Any], expected: str
) -> None:
    (message,) = findings(production_pack, changed(name, kind, change), BACKUPS)
    assert expected in message


def test_a_local_env_needs_no_backups(central_pack: PolicyPack) -> None:
    assert not findings(central_pack, central_program("as it comes"), BACKUPS)


def test_replicas_without_a_disruption_budget_are_told(production_pack: PolicyPack) -> None:
    without = [item for item in production("everything") if not item.type.endswith(":PodDisruptionBudget")]
    messages = findings(production_pack, without, BUDGET)
    assert any("replicas and no PodDisruptionBudget" in message for message in messages)
    assert not findings(production_pack, production("everything"), BUDGET)


@pytest.mark.parametrize("name", CENTRAL_PROGRAMS)
def test_the_program_itself_passes_the_whole_pack(
    production_pack: PolicyPack, central_pack: PolicyPack, name: str
) -> None:
    for pack, resources in ((production_pack, production(name)), (central_pack, central_program(name))):
        found = [violation for item in resources for violation in checked_resource(pack, item)]
        # In this variant whoever sets it names an image of their own, by a tag that moves.
        allowed = {PINNED} if name == "CloudNativePG" else set()
        assert not [violation for violation in found if violation.policy not in allowed]
