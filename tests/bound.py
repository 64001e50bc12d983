"""A tenant's binding as a cell's stack exports it, numbers as floats and all, and what is written for it."""

from typing import Any

from data_plane.connector.service_binding import bind_request, binding_text
from data_plane.model.tenant_binding import TenantBinding

POOLER = {
    "host": "pooler.example.com",
    "sessionPort": 5432,
    "transactionPort": 6543,
    "tenant": "supabase",
    "sslmode": "require",
}
BINDING: dict[str, Any] = {
    "project": "my-shop",
    "displayName": "My shop",
    "lifecycle": "attached",
    "schema": "proj_my_shop",
    "database": {"host": "db.example.com", "port": 5433.0, "database": "postgres", "sslmode": "verify-full"},
    "apiUrl": "https://api.example.com/rest/v1",
    "exposed": True,
    "requiredManagedServices": ["postgres", "auth", "storage"],
    "openbaoAddress": "https://openbao.example.com:8200",
    "leasePaths": {
        level: f"database/creds/proj_my_shop_{level}" for level in ("owner", "service_role", "authenticated", "anon")
    },
    "tokenPaths": {
        level: f"identity/oidc/token/proj_my_shop_{level}" for level in ("service_role", "authenticated", "anon")
    },
    "publishableKeyPath": "connectors/data/supabase/tenants",
    "leaseTtlSeconds": 3600.0,
    "pooler": POOLER,
    "workloads": {
        "web": {
            "level": "service_role",
            "method": "kubernetes",
            "mount": "kubernetes",
            "role": "proj_my_shop-web",
            "namespace": "shop",
            "serviceAccount": "web-account",
            "audience": "openbao",
        },
        "edge": {
            "level": "service_role",
            "method": "approle",
            "mount": "approle",
            "role": "proj_my_shop-edge",
            "secretIdTtlSeconds": 7 * 86400.0,
        },
        "jobs": {
            "level": "owner",
            "method": "approle",
            "mount": "approle",
            "role": "proj_my_shop-jobs",
            "secretIdTtlSeconds": 86400.0,
        },
    },
    "storage": {
        "url": "https://api.example.com/storage/v1",
        "bucket": "proj_my_shop",
        "tokenPath": "identity/oidc/token/proj_my_shop_storage",
    },
}


def tenant_binding(**change: Any) -> TenantBinding:
    """It as programs read it, with changes."""
    return TenantBinding.read({**BINDING, **change}, "stack test-cell-1")


def written(binding: dict[str, Any] | None = None, **request: str) -> str:
    """What `bind` writes for it, or for another binding of the same project."""
    read = TenantBinding.read(BINDING if binding is None else binding, "stack test-cell-1")
    return binding_text(bind_request(project="my-shop", **request), read)
