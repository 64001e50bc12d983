"""The policy pack of the central Supabase data plane, and the check of hand-offs for bundled databases."""
