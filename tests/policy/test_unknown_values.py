"""The check of hand-offs knows Pulumi's unknown values without importing it."""

from pulumi_policy import proxy

from policies.unknown import UNKNOWN_VALUES, is_unknown


def test_the_written_values_are_those_of_the_sdk() -> None:
    sdk = {value for name, value in vars(proxy).items() if name.startswith("UNKNOWN_")}
    assert len(sdk) > 5
    assert sdk == UNKNOWN_VALUES
    assert all(is_unknown(value) for value in sdk)
