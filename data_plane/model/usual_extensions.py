"""The PostgreSQL extensions that Supabase projects ask for most."""

__all__ = ["USUAL_EXTENSIONS"]

USUAL_EXTENSIONS = (
    "pgcrypto",
    "uuid-ossp",
    "citext",
    "pg_trgm",
    "unaccent",
    "btree_gin",
    "btree_gist",
    "ltree",
    "hstore",
    "fuzzystrmatch",
    "moddatetime",
    "vector",
    "postgis",
)
"""As in ``pg_available_extensions``; the local server has those of them that its PostgreSQL comes with."""
