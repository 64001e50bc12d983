"""``python -m policies.artifacts``."""

from policies.artifacts.command_line import main

main()
