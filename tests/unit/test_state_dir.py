"""The local state directory: where it is no directory, and the ports that it remembers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data_plane.errors import StateDirError
from data_plane.local import processes
from data_plane.local.processes import port_for
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


def test_no_two_servers_are_given_one_port_though_neither_listens_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([4001, 4001, 4002])
    monkeypatch.setattr(processes, "free_port", lambda: next(free))
    home = StateDir(tmp_path)
    home.prepare()
    assert [port_for(server, home) for server in ("openbao", "openbao_cluster")] == [4001, 4002]
