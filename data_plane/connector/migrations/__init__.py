"""A project's migrations: ``supabase/migrations/*.sql`` of its repository, run in its schema of the central database.

- ``files``: which files, in which order
- ``script``: their statements
- ``scope``, ``boundaries``: the project's slice, and what they may not name
- ``adaptation``: what is rewritten in those that were written for a standalone Supabase, by the rules beside it
- ``summary``: what that was
- ``prepared``: a file as it is going to be run
- ``history``: which have run; ``notes``: where that is noted
- ``new_file``: a file for the next one
- ``runner``: running them
"""

from data_plane.connector.migrations.files import MigrationFile, SeedFile, migration_files, seed_files
from data_plane.connector.migrations.history import Entry, State
from data_plane.connector.migrations.prepared import PreparedFile, refuse
from data_plane.connector.migrations.runner import Limits, Migrator, Plan, Seeded
from data_plane.connector.migrations.scope import Rule
from data_plane.connector.migrations.summary import summed_up

__all__ = [
    "Entry",
    "Limits",
    "MigrationFile",
    "Migrator",
    "Plan",
    "PreparedFile",
    "Rule",
    "SeedFile",
    "Seeded",
    "State",
    "migration_files",
    "refuse",
    "seed_files",
    "summed_up",
]
