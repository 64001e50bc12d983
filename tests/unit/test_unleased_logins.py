"""Which logins no lease stands for, told by their ends alone: OpenBao does not say which login a lease has."""

from datetime import UTC, datetime

import pytest

from data_plane.connector.unleased_logins import UnleasedLogins, logins_without_lease

FOREVER = float("inf")


@pytest.mark.parametrize(
    ("logins", "expiries", "left"),
    [
        pytest.param({}, [], [], id="nothing"),
        pytest.param({}, [100], [], id="a lease whose login the guard has dropped"),
        pytest.param({"a": 104}, [100], [], id="a login and its lease"),
        pytest.param({"a": 105}, [100.1], [], id="made at once"),
        pytest.param({"a": 104}, [], [(("a",), 1)], id="no lease"),
        pytest.param({"a": 104, "b": 105}, [], [(("a",), 1), (("b",), 1)], id="no lease for either"),
        pytest.param({"a": 104, "b": 104}, [99.7, 99.8], [], id="two at the same moment"),
        pytest.param({"a": 104, "b": 307, "c": 510}, [99.7, 505.7], [(("b",), 1)], id="the one between two"),
        pytest.param({"a": 104, "b": 307}, [302.6], [(("a",), 1)], id="the first"),
        pytest.param({"a": 104, "b": 307}, [99.7], [(("b",), 1)], id="the last"),
        pytest.param({"a": 104, "b": 107, "c": 110}, [99.7, 105.7], [(("a", "b", "c"), 1)], id="one of three"),
        pytest.param({"a": 104, "b": 107, "c": 110}, [99.7], [(("a", "b", "c"), 2)], id="two of three"),
        pytest.param({"a": 104}, [4000], [(("a",), 1)], id="the lease of another login"),
        pytest.param({"a": FOREVER}, [100], [(("a",), 1)], id="no end"),
        pytest.param({"a": 104, "b": 9000}, [99.7, 300, 500], [(("b",), 1)], id="fewer logins than leases"),
    ],
)
def test_logins_without_a_lease_are_told_apart_only_where_their_ends_tell_them_apart(
    logins: dict[str, float], expiries: list[float], left: list[tuple[tuple[str, ...], int]]
) -> None:
    assert logins_without_lease(logins, expiries) == left


def test_a_login_that_is_one_of_several_is_not_to_be_dropped_by_name() -> None:
    end = datetime(2026, 1, 1, tzinfo=UTC)
    assert "select data_plane.revoke_lease('a')" in str(UnleasedLogins("proj_x", ("a",), 1, end))
    several = str(UnleasedLogins("proj_x", ("a", "b"), 1, end))
    assert "no lease for 1 of the logins a, b of proj_x" in several
    assert "revoke_lease" not in several
