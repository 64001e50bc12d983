"""How much of the migrations of public Supabase projects runs here: ``python -m bench.migrations``."""
