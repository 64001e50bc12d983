"""What is left of a killed run of the CLI, by the number of its process."""

import os
import subprocess
import sys

import psutil

from data_plane.engine.locks import _kill_plugins
from data_plane.local.processes import wait_until

LEADER = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); sys.stdin.read()"


def test_the_plugins_of_a_killed_run_are_ended() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEADER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as leader:
        assert leader.stdout is not None
        plugin = psutil.Process(int(leader.stdout.readline()))
        leader.kill()
    assert os.getsid(plugin.pid) == leader.pid
    _kill_plugins(leader.pid)
    assert wait_until(lambda: not plugin.is_running() or plugin.status() == psutil.STATUS_ZOMBIE, 60)


def test_a_session_that_has_the_number_of_a_run_from_before_a_restart_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as other:
        try:
            _kill_plugins(other.pid)
            assert other.poll() is None
        finally:
            other.kill()
