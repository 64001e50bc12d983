"""The explicit providers of a stack: one for OpenBao, one for the central PostgreSQL.

The OpenBao token is the operator's own (``VAULT_TOKEN`` or ``bao login``), so that it is neither configuration nor
state. The database password is read from OpenBao when it is needed. A cell also has one for its dynamic resources.
"""

import pulumi
import pulumi_postgresql as postgresql
import pulumi_vault as vault

from components.platform import DatabaseEndpoint
from data_plane.model.naming import CONNECTORS_MOUNT

__all__ = ["database_provider", "dynamic_provider", "openbao_provider", "read_secret"]


def openbao_provider(
    name: str, address: pulumi.Input[str], opts: pulumi.ResourceOptions | None = None
) -> vault.Provider:
    """The provider for everything in OpenBao."""
    return vault.Provider(name, vault.ProviderArgs(address=address, token_name="supabase-data-plane"), opts=opts)


def read_secret(
    provider: vault.Provider,
    path: pulumi.Input[str],
    key: str,
    parent: pulumi.Resource | None = None,
    mount: pulumi.Input[str] = CONNECTORS_MOUNT,
) -> pulumi.Output[str]:
    """One value of a KV v2 secret, marked secret. Deferred while ``path`` is not known yet."""
    # `generic`, because the provider warns at every run that `kv.get_secret_v2` is to become an ephemeral resource.
    secret = vault.generic.get_secret_output(
        path=pulumi.Output.concat(mount, "/", path),
        opts=pulumi.InvokeOutputOptions(parent=parent, provider=provider),
    )
    return pulumi.Output.secret(secret.apply(lambda answer: answer.data.get(key, "")))


def database_provider(
    name: str,
    endpoint: DatabaseEndpoint,
    password: pulumi.Input[str],
    opts: pulumi.ResourceOptions | None = None,
) -> postgresql.Provider:
    """The provider for everything in the central PostgreSQL, as its superuser."""
    return postgresql.Provider(
        name,
        postgresql.ProviderArgs(
            host=endpoint.host,
            port=endpoint.port,
            database=endpoint.name,
            username=endpoint.admin_user,
            password=password,
            sslmode=endpoint.sslmode,
            superuser=True,
            connect_timeout=15,
        ),
        opts=opts,
    )


def dynamic_provider(name: str, opts: pulumi.ResourceOptions | None = None) -> pulumi.ProviderResource:
    """The provider of a cell's dynamic resources.

    The engine's default one holds the stack's whole configuration. Two cells never have the same, so the engine refuses
    to move a resource of it from one to the other.
    """
    return pulumi.ProviderResource("pulumi-python", name, {}, opts)
