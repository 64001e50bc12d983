"""The SQL and the scripts of the central stack. The connector and the local servers run the very same files."""

from pathlib import Path

__all__ = ["SCRIPTS", "platform_sql"]

SCRIPTS = Path(__file__).with_name("scripts")
"""What the jobs and loops on a cluster run."""

_FILES = (
    "platform.sql",
    "platform_schemas.sql",
    "platform_leases.sql",
    "platform_api.sql",
    "platform_role_settings.sql",
    "platform_admission.sql",
    "platform_keys.sql",
    "platform_references.sql",
    "platform_sign_in.sql",
    "platform_users.sql",
    "platform_storage.sql",
    "platform_storage_rules.sql",
    "platform_realtime.sql",
    "platform_topics.sql",
    "platform_pooler.sql",
    "platform_views.sql",
    "platform_jobs.sql",
    "platform_drift.sql",
    "platform_studio.sql",
    "platform_guard.sql",
    "platform_removal.sql",
    "platform_services.sql",
)
_AUTOCONFIRM = "\nupdate data_plane.sign_in_settings set email_autoconfirm = {};\n"


def platform_sql(*, email_autoconfirm: bool | None = None) -> str:
    """The reviewed SQL files, in the order in which they build on each other.

    Args:
        email_autoconfirm: whether Auth takes every address for its user's; None leaves that as it is.
    """
    text = "\n".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _FILES)
    return text if email_autoconfirm is None else text + _AUTOCONFIRM.format(str(email_autoconfirm).lower())
