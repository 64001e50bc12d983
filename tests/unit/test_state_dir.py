"""The local state directory, where it is no directory."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data_plane.errors import StateDirError
from data_plane.state_dir import StateDir


@pytest.mark.parametrize(
    "use",
    [
        lambda home: home.prepare(),
        lambda home: home.read_json("ports.json"),
        lambda home: home.write_json("ports.json", {}),
        lambda home: home.lock("x").__enter__(),
    ],
    ids=["prepare", "read", "write", "lock"],
)
def test_a_state_directory_that_is_a_file_is_one_message(tmp_path: Path, use: Callable[[StateDir], object]) -> None:
    file = tmp_path / "passwd"
    file.write_text("root")
    with pytest.raises(StateDirError, match=f"{file}") as caught:
        use(StateDir(file))
    assert isinstance(caught.value.__cause__, OSError)
