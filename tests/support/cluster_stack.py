"""A central stack's settings for the tests' control plane."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from data_plane.local.environment import LocalEnvironment
from tests.conftest import Cluster


def configure(local_env: LocalEnvironment, kubernetes: dict[str, Any]) -> None:
    path = local_env.root / "stacks" / "Pulumi.local-central.yaml"
    yaml = YAML()
    document = yaml.load(path.read_text(encoding="utf-8"))
    document["config"]["supabase-data-plane:kubernetes"] = kubernetes
    document["config"]["supabase-data-plane:apiUrl"] = "https://api.example.org"
    # Workloads on the same cluster sign in where the services do.
    document["config"]["supabase-data-plane:workloadLogin"] = {"kubernetes": {}}
    yaml.dump(document, path)


def on(cluster: Cluster, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings for a cluster that OpenBao reaches from outside."""
    kubeconfig = YAML(typ="safe").load(cluster.kubeconfig.read_text(encoding="utf-8"))
    server = kubeconfig["clusters"][0]["cluster"]
    authority = cluster.api.configuration.ssl_ca_cert
    openbao = {
        **settings.get("openbao", {}),
        "inCluster": False,
        "kubernetesHost": server["server"],
        "kubernetesCa": Path(authority).read_text(encoding="utf-8"),
    }
    return {**settings, "openbao": openbao}


def give_secrets(local_env: LocalEnvironment, values: dict[str, str]) -> None:
    """What an owner puts into OpenBao by hand, as the error message says."""
    local_env.servers.openbao.client().secrets.kv.v2.patch("supabase", secret=values, mount_point="connectors")
