"""What a migration may expect of a PostgreSQL extension that it names."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from data_plane.model.usual_extensions import USUAL_EXTENSIONS

__all__ = ["ExtensionState", "Extensions"]

# PostgreSQL's own contrib modules and what Supabase's image adds, as far as a project can use them in its own schema.
_IN_THE_IMAGE = frozenset(USUAL_EXTENSIONS) | {
    "address_standardizer",
    "autoinc",
    "bloom",
    "cube",
    "dict_int",
    "dict_xsyn",
    "earthdistance",
    "hypopg",
    "index_advisor",
    "insert_username",
    "intarray",
    "isn",
    "pg_hashids",
    "pg_jsonschema",
    "pgjwt",
    "pgroonga",
    "pgrouting",
    "pgtap",
    "plpgsql",
    "refint",
    "rum",
    "seg",
    "tablefunc",
    "tcn",
    "tsm_system_rows",
    "tsm_system_time",
}

# A standalone Supabase has them switched on from the start or by its dashboard, so dumps of it name them.
_PLATFORM = {
    "pg_cron": "jobs are scheduled with data_plane_api.schedule_job where the server has pg_cron",
    "pg_graphql": "GraphQL is not served for projects",
    "pg_stat_monitor": "it shows what all projects run",
    "pg_stat_statements": "it shows what all projects run",
    "pgaudit": "it logs what all projects run",
    "pgsodium": "its keys are the whole database's",
    "supabase_vault": "its secrets are the whole database's",
}

_REFUSED = {
    "adminpack": "it reads and writes the server's files",
    "dblink": "it opens connections from the server",
    "file_fdw": "it reads the server's files",
    "http": "it sends requests from the server",
    "lo": "large objects are the whole database's",
    "mysql_fdw": "it opens connections from the server",
    "pg_net": "it sends requests from the server",
    "pg_tle": "it makes extensions of a project's SQL, for everybody",
    "pgmq": "its queues are in a schema of the whole database",
    "plperlu": "its functions run anything on the server",
    "plpython3u": "its functions run anything on the server",
    "plv8": "its functions stay in a session that others use after them",
    "postgres_fdw": "it opens connections from the server",
    "wrappers": "it opens connections from the server",
    "xml2": "it reads files and addresses that a document names",
}


class ExtensionState(StrEnum):
    """Whether a project can use an extension on one PostgreSQL."""

    HERE = "here"
    """The database has it: `create extension if not exists` changes nothing."""
    AVAILABLE = "available"
    """The server has its files; the operator adds it to `extensions` of the central stack."""
    LACKING = "lacking"
    """This server does not have it, and Supabase's image, which a deployed data plane runs, does."""
    PLATFORM = "platform"
    """It is the platform's own business: the statement can be left out; what uses it is judged by itself."""
    REFUSED = "refused"
    """It reaches out of the project's schema, so no project gets it."""
    UNKNOWN = "unknown"
    """Neither this server nor Supabase's image has it."""


@dataclass(frozen=True)
class Extensions:
    """The extensions of one PostgreSQL."""

    installed: Mapping[str, str]
    """Schema of each that the database has (``pg_extension``)."""
    available: Collection[str] = ()
    """Each that the server has the files of (``pg_available_extensions``)."""

    def state(self, name: str) -> ExtensionState:
        """What ``create extension name`` comes to here."""
        if name in self.installed:
            return ExtensionState.HERE
        if name in _PLATFORM:
            return ExtensionState.PLATFORM
        if name in _REFUSED:
            return ExtensionState.REFUSED
        if name in self.available:
            return ExtensionState.AVAILABLE
        return ExtensionState.LACKING if name in _IN_THE_IMAGE else ExtensionState.UNKNOWN

    def message(self, name: str) -> str:
        """The state in words, and what to do about it."""
        match self.state(name):
            case ExtensionState.HERE:
                return f"the database has extension {name}, in schema {self.installed[name]}"
            case ExtensionState.PLATFORM:
                return f"extension {name} is the platform's: {_PLATFORM[name]}"
            case ExtensionState.REFUSED:
                return f"no project gets extension {name}: {_REFUSED[name]}"
            case ExtensionState.AVAILABLE:
                return (
                    f"the server has extension {name}: ask the operator to add it to `extensions` of the central stack"
                )
            case ExtensionState.LACKING:
                return (
                    f"this PostgreSQL lacks extension {name}; a deployed data plane has it, in Supabase's image. "
                    "For the local server docs/how-to/use-schemas-and-extensions.md says how to get it"
                )
            case ExtensionState.UNKNOWN:
                return f"neither this PostgreSQL nor Supabase's image has extension {name}"
