"""pg_cron for tests: the real one where Debian's package is to be had, and a stand-in of its tables and functions."""

import functools
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from psycopg import sql

from data_plane.local.postgres import LocalPostgres
from data_plane.local.postgres_programs import Programs
from tests.support.platform_database import TENANTS

__all__ = ["let_tenants_have_jobs", "make_stand_in", "programs_with_pg_cron"]

_SYSTEM = Path("/usr/lib/postgresql")
_STAND_IN = Path(__file__).with_name("pg_cron_stand_in.sql")


@functools.cache
def programs_with_pg_cron() -> Path | None:
    """The programs of the system's PostgreSQL with pg_cron: as it is, or a copy that has Debian's package unpacked into it.

    The copy stays for the next run. None where there is no such PostgreSQL, or no package to be had.
    """
    for folder in sorted(_SYSTEM.glob("*/bin")):
        if Programs(folder).has_library("pg_cron"):
            return folder
        major = folder.parent.name
        root = Path(tempfile.gettempdir()) / f"data-plane-tests-pg-cron-{major}"
        if not root.is_dir() and not _unpack(major, root):
            continue
        return root / folder.relative_to("/")
    return None


def _unpack(major: str, root: Path) -> bool:
    with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as scratch:
        made = Path(scratch) / "root"
        package = _download(f"postgresql-{major}-cron", Path(scratch))
        if package is None:
            return False
        for part in (Path("usr/lib/postgresql") / major, Path("usr/share/postgresql") / major):
            shutil.copytree("/" / part, made / part, symlinks=True)
        subprocess.run(["dpkg-deb", "-x", package, made], check=True)
        for folder in (made, made / "usr"):
            folder.chmod(0o755)
        made.rename(root)
    return True


def _download(package: str, folder: Path) -> Path | None:
    """A package of Debian's; with lists of packages of its own if the machine has none."""
    if shutil.which("apt-get") is None:
        return None
    lists, cache = folder / "lists", folder / "cache"
    (lists / "partial").mkdir(parents=True)
    (cache / "archives" / "partial").mkdir(parents=True)
    options = ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={cache}", "-o", "APT::Sandbox::User=root"]
    for command in (
        ["apt-get", "-qq", "download", package],
        ["apt-get", "-qq", *options, "update"],
        ["apt-get", "-qq", *options, "download", package],
    ):
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
        for found in folder.glob(f"{package}_*.deb"):
            return found
    return None


def make_stand_in(server: LocalPostgres) -> None:
    """pg_cron's tables and functions, without what runs jobs."""
    with server.connect() as admin:
        admin.execute(_STAND_IN.read_bytes())


def let_tenants_have_jobs(server: LocalPostgres) -> None:
    """What the tenants' resources do."""
    with server.connect() as admin:
        for tenant in TENANTS:
            admin.execute(
                "insert into data_plane.job_access values (%s, true) on conflict (tenant) do update set attached = true",
                [tenant],
            )
            admin.execute(sql.SQL("select data_plane.provide_jobs({})").format(sql.Literal(tenant)))
