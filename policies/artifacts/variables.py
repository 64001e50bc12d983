"""Texts in which a variable may have no value that is known here."""

__all__ = ["UNKNOWN", "image_is_unknown", "known"]

UNKNOWN = "\ufdd0"
"""Stands in a text for a value that is not known. Unicode has it for a program's own use; no file may hold it."""


def known(text: str) -> str:
    """A text without what is not known."""
    return text.replace(UNKNOWN, "")


def image_is_unknown(reference: str) -> bool:
    """Whether nothing of an image's name is known; a registry or tag that is not known leaves its name known."""
    name = known(reference).partition("@")[0].rpartition("/")[2].partition(":")[0]
    return not any(sign.isalnum() for sign in name)
