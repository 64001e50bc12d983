"""The central Supabase: the one stack that all tenants share (:mod:`components.central.central`)."""
