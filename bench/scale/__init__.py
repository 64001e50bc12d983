"""What tenants cost by their number: ``python -m bench.scale``."""
