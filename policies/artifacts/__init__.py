"""The check of hand-offs: no compose file, Dockerfile, manifest or chart may bring a PostgreSQL of its own."""
