"""The patterns of names in people's input, and the words in which messages describe them."""

from data_plane.model.naming import SCHEMA_NAME_PATTERN, SLUG_PATTERN

__all__ = [
    "BUCKET_PATTERN",
    "HOST_PATTERN",
    "LABEL_PATTERN",
    "MIME_PATTERN",
    "PERSON_PATTERN",
    "URL_PATTERN",
    "describe_pattern",
]

PERSON_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,126}$"
"""People and teams, as the sign-in calls them."""

MIME_PATTERN = r"^[a-zA-Z0-9.+-]+/([a-zA-Z0-9.+-]+|\*)$"

BUCKET_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,53}$"
"""As data_plane_api.declare_bucket has it: what S3's clients and Storage both take, with the schema in front."""

LABEL_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""A DNS label."""

HOST_PATTERN = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
"""A DNS name; service accounts are called so, too."""

URL_PATTERN = r"^https?://[^\s/]+(/[^\s]*)?$"

_WORDS = {
    SLUG_PATTERN: "2 to 40 lower-case letters, digits and '-', a letter first, e.g. my-app",
    SCHEMA_NAME_PATTERN: "lower-case letters, digits and '_', a letter first, e.g. private",
    PERSON_PATTERN: "up to 127 letters, digits and . _ @ + -, e.g. alice",
    MIME_PATTERN: "a type such as image/png or image/*",
    BUCKET_PATTERN: "up to 54 letters, digits and _ . -, e.g. avatars",
    LABEL_PATTERN: "up to 63 lower-case letters, digits and '-', e.g. api",
    HOST_PATTERN: "up to 253 lower-case letters, digits, '-' and '.', e.g. db.example.com",
    URL_PATTERN: "a URL, e.g. https://api.example.com",
}


def describe_pattern(pattern: str) -> str:
    """What fits a pattern, in words where there are some."""
    words = _WORDS.get(pattern)
    return f"{words} ({pattern})" if words else f"a match of {pattern}"
