"""``python -m connector`` is the command ``dataplane``."""

from connector.cli import main

main()
