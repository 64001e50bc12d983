"""The auth methods by which tenants' workloads sign in to OpenBao, as the setting ``workloadLogin`` names them."""

from collections.abc import Mapping

import pulumi
import pulumi_vault as vault

from components.platform import WorkloadAuthMethod
from data_plane.model.settings import KubernetesAuthSettings, WorkloadAuthSettings
from data_plane.model.workloads import WorkloadMethod

__all__ = ["WorkloadAuthMethods"]


class WorkloadAuthMethods(pulumi.ComponentResource):
    """Creates the methods that are this program's to manage, and looks the others up.

    Args:
        shared: accessors of the methods that this stack has made for something else, by their path.
    """

    logins: pulumi.Output[dict[str, WorkloadAuthMethod]]
    """By the method's name."""

    def __init__(
        self,
        name: str,
        settings: WorkloadAuthSettings,
        openbao: vault.Provider,
        shared: Mapping[str, pulumi.Output[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        renamed = pulumi.ResourceOptions(aliases=[pulumi.Alias(type_="supabase-data-plane:central:WorkloadLogins")])
        super().__init__(
            "supabase-data-plane:central:WorkloadAuthMethods", name, None, pulumi.ResourceOptions.merge(opts, renamed)
        )
        self._name = name
        self._openbao = openbao
        self._shared = shared
        found: dict[str, pulumi.Output[WorkloadAuthMethod]] = {}
        if (kubernetes := settings.kubernetes) is not None:
            method = WorkloadMethod.KUBERNETES
            accessor = self._accessor(method, kubernetes.path, managed=kubernetes.managed)
            if kubernetes.managed:
                accessor = self._configured(kubernetes, accessor)
            found[method.value] = self._login(kubernetes.path, accessor, kubernetes.audience)
        if settings.approle is not None:
            method = WorkloadMethod.APPROLE
            accessor = self._accessor(method, settings.approle.path, managed=settings.approle.managed)
            found[method.value] = self._login(settings.approle.path, accessor, None)
        # With nothing given, `all` would make a list.
        self.logins = pulumi.Output.from_input({}) if not found else pulumi.Output.all(**found)
        self.register_outputs({})

    @staticmethod
    def _login(path: str, accessor: pulumi.Output[str], audience: str | None) -> pulumi.Output[WorkloadAuthMethod]:
        return accessor.apply(lambda known: WorkloadAuthMethod(path, known, audience))

    def _accessor(self, method: WorkloadMethod, path: str, *, managed: bool) -> pulumi.Output[str]:
        if managed:
            made = vault.AuthBackend(
                f"{self._name}-{method}",
                type=method.value,
                path=path,
                description="Sign-in of projects' workloads",
                opts=pulumi.ResourceOptions(parent=self, provider=self._openbao),
            )
            return made.accessor
        if path in self._shared:
            return self._shared[path]
        found = vault.get_auth_backend_output(
            path=path, opts=pulumi.InvokeOutputOptions(parent=self, provider=self._openbao)
        )
        return found.accessor

    def _configured(self, settings: KubernetesAuthSettings, accessor: pulumi.Output[str]) -> pulumi.Output[str]:
        """Tells the method how to ask whom a token belongs to; the accessor, known once it is told."""
        config = vault.kubernetes.AuthBackendConfig(
            f"{self._name}-{WorkloadMethod.KUBERNETES}",
            backend=accessor.apply(lambda _: settings.path),
            kubernetes_host=settings.kubernetes_host,
            kubernetes_ca_cert=settings.kubernetes_ca,
            disable_local_ca_jwt=not settings.in_cluster,
            opts=pulumi.ResourceOptions(parent=self, provider=self._openbao),
        )
        return pulumi.Output.all(config.id, accessor).apply(lambda both: str(both[1]))
