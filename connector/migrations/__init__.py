"""A project's migrations: ``supabase/migrations/*.sql`` of its repository, run in its schema of the central database.

- ``files``: which files, in which order
- ``script``: their statements
- ``boundaries``: what they may not name
- ``adaptation``: what is rewritten in those that were written for a Supabase of one's own
- ``prepared``: a file as it is going to be run
- ``history``: which have run
- ``runner``: running them
"""

from connector.migrations.boundaries import Boundary
from connector.migrations.files import DEFAULT_FOLDER, MigrationFile, migration_files, seed_files
from connector.migrations.history import Entry, State
from connector.migrations.prepared import PreparedFile, refuse
from connector.migrations.runner import Limits, Migrator, Plan

__all__ = [
    "DEFAULT_FOLDER",
    "Boundary",
    "Entry",
    "Limits",
    "MigrationFile",
    "Migrator",
    "Plan",
    "PreparedFile",
    "State",
    "migration_files",
    "refuse",
    "seed_files",
]
