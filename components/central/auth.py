"""Auth (GoTrue): people's accounts, and the tokens that they sign in with.

Variables and defaults: Supabase's ``docker/docker-compose.yml`` and ``internal/conf/configuration.go`` of
supabase/auth.
"""

import pulumi

from components.central.service_deployment import Metrics, Probes, ServiceArgs, ServiceDeployment, ServiceDeploymentArgs
from components.central.service_secrets import secret_field
from data_plane.model.catalog import Service
from data_plane.model.cluster_names import PORTS

__all__ = ["Auth"]

_USER = 1000
_POOL_SIZE = 10
_ACCESS_TOKEN_HOOK = "pg-functions://postgres/data_plane/access_token_hook"
"""Gives a signed-in user's token the tenant role of the project that it is for; see ``platform.sql``."""
_SMTP_PASSWORD = "GOTRUE_SMTP_PASS"


class Auth(pulumi.ComponentResource):
    """Creates Auth, reachable through the gateway under ``/auth/v1``.

    It signs with an ES256 key of its own (``JWT_KEYS``), so that no other service can sign what it only has to check.
    """

    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("supabase-data-plane:central:Auth", name, None, opts)
        cluster = args.cluster
        settings = cluster.settings.auth
        further = tuple(settings.secrets)
        if settings.smtp is not None:
            further = (*further, _SMTP_PASSWORD)
        login = cluster.database_url("postgres", "supabase_auth_admin", "AUTH_ADMIN_PASSWORD")
        ServiceDeployment(
            name,
            Service.AUTH,
            ServiceDeploymentArgs(
                cluster=cluster,
                access=args.access,
                replicas=settings.replicas,
                user=_USER,
                probes=Probes.http("/health", "http"),
                env={**self._env(args), **settings.settings},
                secret_keys=("AUTH_ADMIN_PASSWORD", "JWT_SECRET", "JWT_KEYS", *further),
                secret_env={
                    "GOTRUE_DB_DATABASE_URL": f"{login}?sslmode={cluster.sslmode}",
                    # Asked for at start, and without effect beside GOTRUE_JWT_KEYS.
                    "GOTRUE_JWT_SECRET": secret_field("JWT_SECRET"),
                    "GOTRUE_JWT_KEYS": secret_field("JWT_KEYS"),
                    **{key: secret_field(key) for key in further},
                },
                metrics=Metrics("metrics"),
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})

    @staticmethod
    def _env(args: ServiceArgs) -> dict[str, pulumi.Input[str]]:
        settings = args.cluster.settings.auth
        ports = PORTS[Service.AUTH]
        env: dict[str, pulumi.Input[str]] = {
            "GOTRUE_API_HOST": "0.0.0.0",  # noqa: S104 its Service has to reach it
            "GOTRUE_API_PORT": str(ports["http"]),
            "API_EXTERNAL_URL": pulumi.Output.concat(args.cluster.public_url, "/auth/v1"),
            "GOTRUE_DB_DRIVER": "postgres",
            "GOTRUE_DB_MAX_POOL_SIZE": str(_POOL_SIZE),
            "GOTRUE_SITE_URL": settings.site_url,
            "GOTRUE_URI_ALLOW_LIST": ",".join(settings.redirect_urls),
            "GOTRUE_DISABLE_SIGNUP": _flag(settings.disable_signup),
            "GOTRUE_JWT_ADMIN_ROLES": "service_role",
            "GOTRUE_JWT_AUD": "authenticated",
            "GOTRUE_JWT_DEFAULT_GROUP_NAME": "authenticated",
            "GOTRUE_JWT_EXP": str(settings.jwt_expiry),
            "GOTRUE_JWT_ISSUER": pulumi.Output.concat(args.cluster.public_url, "/auth/v1"),
            "GOTRUE_EXTERNAL_EMAIL_ENABLED": _flag(settings.email_signup),
            "GOTRUE_EXTERNAL_PHONE_ENABLED": _flag(settings.phone_signup),
            "GOTRUE_EXTERNAL_ANONYMOUS_USERS_ENABLED": _flag(settings.anonymous_users),
            "GOTRUE_MAILER_AUTOCONFIRM": _flag(settings.email_autoconfirm),
            "GOTRUE_SMS_AUTOCONFIRM": _flag(settings.phone_autoconfirm),
            **{
                f"GOTRUE_MAILER_URLPATHS_{mail}": "/auth/v1/verify"
                for mail in ("INVITE", "CONFIRMATION", "RECOVERY", "EMAIL_CHANGE")
            },
            "GOTRUE_HOOK_CUSTOM_ACCESS_TOKEN_ENABLED": "true",
            "GOTRUE_HOOK_CUSTOM_ACCESS_TOKEN_URI": _ACCESS_TOKEN_HOOK,
            "GOTRUE_METRICS_ENABLED": "true",
            "GOTRUE_METRICS_EXPORTER": "prometheus",
            "OTEL_EXPORTER_PROMETHEUS_PORT": str(ports["metrics"]),
        }
        if settings.smtp is not None:
            env |= {
                "GOTRUE_SMTP_HOST": settings.smtp.host,
                "GOTRUE_SMTP_PORT": str(settings.smtp.port),
                "GOTRUE_SMTP_USER": settings.smtp.user,
                "GOTRUE_SMTP_ADMIN_EMAIL": settings.smtp.admin_email,
                "GOTRUE_SMTP_SENDER_NAME": settings.smtp.sender_name,
            }
        return env


def _flag(value: object) -> str:
    return str(value).lower()
