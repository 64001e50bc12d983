"""How the services' accounts sign in to OpenBao: its Kubernetes auth method."""

from collections.abc import Mapping

import pulumi
import pulumi_kubernetes as k8s
import pulumi_vault as vault

from data_plane.model.cluster_names import Place
from data_plane.model.cluster_settings import ClusterSettings

__all__ = ["ClusterLogin"]


class ClusterLogin(pulumi.ComponentResource):
    """Creates the auth method and, where there is a cluster, tells it how to ask whom a token belongs to.

    In the cluster OpenBao asks with its own service account. From outside it has none, so it asks with the token that
    it is shown, which takes the right to have tokens reviewed: the services' accounts get it then.
    """

    path: pulumi.Output[str]
    """Where the method is mounted, known once roles can be made in it."""
    accessor: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        settings: ClusterSettings,
        namespaces: Mapping[Place, pulumi.Output[str]],
        openbao: vault.Provider,
        cluster: k8s.Provider,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("supabase-data-plane:central:ClusterLogin", name, None, opts)
        in_openbao = pulumi.ResourceOptions(parent=self, provider=openbao)
        openbao_settings = settings.openbao
        outside = not openbao_settings.in_cluster
        method = vault.AuthBackend(
            name,
            type="kubernetes",
            path=openbao_settings.auth_path,
            description="Sign-in of the central Supabase's services",
            opts=in_openbao,
        )
        self.path = method.path.apply(str)
        self.accessor = method.accessor
        if settings.render_to is None:
            config = vault.kubernetes.AuthBackendConfig(
                name,
                backend=method.path,
                kubernetes_host=openbao_settings.kubernetes_host,
                kubernetes_ca_cert=openbao_settings.kubernetes_ca,
                disable_local_ca_jwt=outside,
                opts=in_openbao,
            )
            self.path = config.backend.apply(str)
        if outside:
            k8s.rbac.v1.ClusterRoleBinding(
                name,
                # Of the whole cluster, which may hold several stacks.
                metadata={
                    "name": f"{settings.namespace}-openbao-login",
                    "labels": {"app.kubernetes.io/part-of": "supabase"},
                },
                role_ref={
                    "api_group": "rbac.authorization.k8s.io",
                    "kind": "ClusterRole",
                    "name": "system:auth-delegator",
                },
                subjects=[
                    {
                        "kind": "Group",
                        "api_group": "rbac.authorization.k8s.io",
                        "name": namespace.apply(lambda found: f"system:serviceaccounts:{found}"),
                    }
                    for namespace in namespaces.values()
                ],
                opts=pulumi.ResourceOptions(parent=self, provider=cluster),
            )
        self.register_outputs({"path": self.path})
