"""What stands for a value that is known only once something else has been applied."""

__all__ = ["UNKNOWN_VALUES", "is_unknown"]

UNKNOWN_VALUES = frozenset({
    "e48ece36-62e2-4504-bad9-02848725956a",  # archive
    "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # array
    "030794c1-ac77-496b-92df-f27374a8bd58",  # asset
    "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # boolean
    "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # number
    "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # object
    "04da6b54-80e4-46f7-96ec-b56ff0331ba9",  # string
})  # fmt: skip
"""The values of ``pulumi_policy.proxy``, written here because the check of hand-offs runs without Pulumi."""


def is_unknown(value: object) -> bool:
    """Whether a property is known only once something else has been applied."""
    return isinstance(value, str) and value in UNKNOWN_VALUES
