"""``python -m policies.compose_wall``."""

from policies.compose_wall.command_line import main

main()
