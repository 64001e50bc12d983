"""The resources of the central Supabase data plane and of the tenants attached to it."""
