"""Connections to PostgreSQL and OpenBao with the platform's rights, for everything that has to make one."""
