"""A protected resource that stops a run from removing a tenant or a central stack."""

import pulumi

__all__ = ["RemovalGuard"]


class RemovalGuard(pulumi.ComponentResource):
    """Stops a run that would remove its dependencies, before the run has removed any of them.

    It is protected. The engine deletes what depends on others first, and after a refusal leaves alone what the refused
    one depends on; so a project's file that is gone, or a `destroy`, takes nothing away even without a preview. A part
    that leaves a project whose file stays is removed as ever.
    """

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        protected = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(protect=True))
        super().__init__("supabase-data-plane:removal:RemovalGuard", name, None, protected)
        self.register_outputs({})
