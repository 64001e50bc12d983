"""Keeps a child process supplied with credentials that work, for as long as it runs.

The lease is renewed while it can be; then another is taken, before the first ends. What can be read anew is written
anew: a libpq service file, which libpq opens for each connection, and a dotenv file. The environment of a running
process cannot be changed: a program that reads it only once is told by a signal, or started again, at each new lease.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import hvac
import requests
from hvac.exceptions import VaultError

from data_plane.clients.openbao import explain
from data_plane.connector.environment import command_environment
from data_plane.connector.leases import Lease, LeaseClient, LeaseFormat, Via
from data_plane.errors import CommandNotStartedError, DataPlaneError, LeaseError
from data_plane.model.naming import AccessLevel
from data_plane.model.tenant_binding import TenantBinding

__all__ = ["NOT_FOUND", "ManagedLease", "OnNewLease", "run_with_lease"]

NOT_FOUND = 127
_NOT_EXECUTABLE = 126

_LOG = logging.getLogger(__name__)
_SHORTEST_WAIT_SECONDS = 1.0
_RETRY_SECONDS = 15.0
"""After how long it is tried again where no lease could be had; sooner for short ones."""
_TOKEN_SHARE = 3
"""An API token is replaced after this part of its life."""
_STOP_SECONDS = 20
_SERVICE_FILE = "pg_service.conf"
_DOTENV_FILE = "lease.env"


class OnNewLease(StrEnum):
    """What the child gets to know of a new lease."""

    NOTHING = "nothing"
    """It reads the files: libpq does for each connection."""
    HUP = "hup"
    RESTART = "restart"


class ManagedLease:
    """A lease, and the files that hold it.

    Args:
        sign_in: gives a client with a token that may take the lease.
        binding: the tenant's.
        folder: for the files; nobody else may look into it.
        say: told of what goes wrong meanwhile.
        via: which way the child connects; see :meth:`LeaseClient.issue`.
    """

    lease: Lease

    def __init__(
        self,
        sign_in: Callable[[], hvac.Client],
        binding: TenantBinding,
        level: AccessLevel,
        folder: Path,
        say: Callable[[str], None],
        via: Via | None = None,
    ) -> None:
        self._via = via
        self._failing = False
        self._sign_in = sign_in
        self._binding = binding
        self._level = level
        self._folder = folder
        self._say = say
        self._client = sign_in()
        self._taken: list[str] = []
        self._take()

    def variables(self) -> dict[str, str | None]:
        """The child's variables of the lease; None where this lease has none."""
        return {
            **self.lease.every_variable(),
            "PGSERVICEFILE": str(self._folder / _SERVICE_FILE),
            "PGSERVICE": self.lease.project,
            "DATA_PLANE_LEASE_FILE": str(self._folder / _DOTENV_FILE),
        }

    @property
    def wait_seconds(self) -> float:
        """How long nothing has to be done."""
        half = self.lease.ttl_seconds / 2
        if self.lease.token_ttl_seconds is not None:
            half = min(half, self.lease.token_ttl_seconds / _TOKEN_SHARE)
        if self._failing:
            # What is left of the lease is for getting another.
            half = min(half / 4, _RETRY_SECONDS)
        return max(_SHORTEST_WAIT_SECONDS, half)

    def refresh(self) -> bool:
        """Renews the lease, or takes another where it cannot be renewed for long enough.

        Returns:
            Whether there is a new lease.
        """
        whole = self.lease.ttl_seconds
        leases = LeaseClient(self._client)
        try:
            # A lease ends with the token that it was taken with.
            self._client.auth.token.renew_self()
            left = leases.renew(self.lease.lease_id, whole)
            if left * 3 >= whole * 2:
                self._write(leases.with_new_token(self.lease, self._binding))
                self._failing = False
                return False
        except (LeaseError, VaultError, OSError) as error:  # requests' errors are the latter, too
            # Revoked, or its token has ended: another is taken.
            _LOG.debug("lease %s is not renewed: %s", self.lease.lease_id, error)
        try:
            self._client = self._sign_in()
            self._take()
        except (DataPlaneError, VaultError, OSError) as error:
            cause = explain(error) if isinstance(error, VaultError | requests.RequestException) else str(error)
            self._say(f"no new lease yet, trying again: {cause}")
            self._failing = True
            return False
        if self._failing:
            self._say("there is a new lease")
        self._failing = False
        return True

    def give_back(self) -> None:
        """Revokes every lease that was taken."""
        leases = LeaseClient(self._client)
        for lease_id in self._taken:
            with contextlib.suppress(LeaseError):  # those of an ended token are revoked
                leases.revoke(lease_id)
        self._taken.clear()

    def _take(self) -> None:
        leases = LeaseClient(self._client)
        lease = leases.issue(self._binding, self._level, self._via)
        try:
            self._write(lease)
        except BaseException:  # interrupted, or no room: nobody else knows of this lease
            with contextlib.suppress(LeaseError):
                leases.revoke(lease.lease_id)
            raise
        # The one before goes on until its end, so that what is open can be finished.
        self._taken.append(lease.lease_id)

    def _write(self, lease: Lease) -> None:
        drafts = {name: self._folder / f".{name}" for name in (_SERVICE_FILE, _DOTENV_FILE)}
        for draft, form in zip(drafts.values(), (LeaseFormat.SERVICE, LeaseFormat.DOTENV), strict=True):
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(lease.render(form) + "\n")
        # Both or none: a lease that one of them could not be given is revoked.
        for name, draft in drafts.items():
            draft.replace(self._folder / name)
        self.lease = lease


@dataclass
class _Child:
    """The process, and the signals that are passed on to it."""

    command: Sequence[str]
    process: "subprocess.Popen[bytes]" = field(init=False)
    started: bool = False
    stopped_by: int | None = None

    def start(self, variables: Mapping[str, str | None]) -> None:
        try:
            self.process = subprocess.Popen(self.command, env=command_environment(variables))
        except OSError as error:
            raise CommandNotStartedError(
                f"{self.command[0]} cannot be started: {(error.strerror or str(error)).lower()}",
                NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE,
            ) from error
        self.started = True
        if self.stopped_by is not None:  # while it was being started
            self.process.send_signal(self.stopped_by)

    def wait(self, seconds: float) -> int | None:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def restart(self, variables: Mapping[str, str | None]) -> None:
        self.process.terminate()
        if self.wait(_STOP_SECONDS) is None:
            self.process.kill()
            self.process.wait()
        if self.stopped_by is None:
            self.start(variables)

    @contextmanager
    def signals(self) -> Iterator[None]:
        def pass_on(number: int, _frame: object) -> None:
            # A hang-up is what many read their settings anew for: what goes on after it is started again.
            if number != signal.SIGHUP or not self.started:
                self.stopped_by = number
            if self.started:
                self.process.send_signal(number)

        before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_with_lease(
    command: Sequence[str],
    sign_in: Callable[[], hvac.Client],
    binding: TenantBinding,
    level: AccessLevel,
    on_new_lease: OnNewLease,
    say: Callable[[str], None],
    via: Via | None = None,
) -> int:
    """Runs a command with a lease that is kept alive, and gives all leases back at its end.

    Args:
        command: program and arguments.
        sign_in: gives a client with a token that may take the lease; called again when the token has ended.
        binding: the tenant's.
        on_new_lease: what the command gets to know.
        say: told of what goes wrong meanwhile.
        via: which way the command connects; see :meth:`LeaseClient.issue`.

    Returns:
        The command's exit code; 128 and the signal's number if one ended it.

    Raises:
        ConnectorError: if there is no lease to begin with; CommandNotStartedError if the command cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="data-plane-", dir=_memory()) as folder:
        supply = ManagedLease(sign_in, binding, level, Path(folder), say, via)
        try:
            child = _Child(command)
            with child.signals():
                child.start(supply.variables())
                code = _until_it_ends(child, supply, on_new_lease)
        finally:
            supply.give_back()
    return 128 - code if code < 0 else code


def _until_it_ends(child: _Child, supply: ManagedLease, on_new_lease: OnNewLease) -> int:
    refreshed = time.monotonic()
    while True:
        code = child.wait(max(0.0, refreshed + supply.wait_seconds - time.monotonic()))
        if code is not None:
            return code
        refreshed = time.monotonic()
        if not supply.refresh():
            continue
        if on_new_lease is OnNewLease.HUP:
            child.process.send_signal(signal.SIGHUP)
        elif on_new_lease is OnNewLease.RESTART:
            child.restart(supply.variables())


def _memory() -> str | None:
    """A folder in memory, where there is one: credentials need no disk."""
    shared = "/dev/shm"  # noqa: S108 the folder in it is this user's alone
    return shared if sys.platform == "linux" and os.access(shared, os.W_OK) else None
