import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.model.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"), [("1KiB", 1024), ("50MiB", 50 << 20), ("2GiB", 2 << 30), ("1TiB", 1 << 40), ("1024KiB", 1 << 20)]
)
def test_a_size_is_read_as_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0MiB", "-1MiB", "1", 1, 1.5, None, "1MB", "1 MiB", "1mib", "1.5MiB", "01MiB", "1MiB\n"]
)
def test_anything_else_is_refused_with_what_would_be_right(text: object) -> None:
    with pytest.raises(ValueError, match=r"KiB, MiB, GiB or TiB, e\.g\. 50MiB"):
        parse_size(text)


@given(st.integers(1, 999_999), st.sampled_from(["KiB", "MiB", "GiB"]))
def test_what_is_written_is_read_as_the_same(number: int, unit: str) -> None:
    size = parse_size(f"{number}{unit}")
    assert parse_size(format_size(size)) == size
