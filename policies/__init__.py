"""The policy pack of the central Supabase data plane, and the wall against bundled databases."""
