"""What one project has of the central Supabase (:mod:`components.tenant.project_tenant`)."""
