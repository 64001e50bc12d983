"""``make engine``: builds the Pulumi CLI into the cache. ``python -m data_plane.engine.cli version``: says which."""

import sys

from data_plane.engine.cli import VERSION, build_cli
from data_plane.errors import BuildError


def main() -> None:
    """Entry point."""
    if sys.argv[1:] == ["version"]:
        sys.stdout.write(f"{VERSION}\n")
        return
    try:
        command = build_cli(_say)
    except BuildError as error:
        sys.exit(str(error))
    _say(f"Pulumi {VERSION}: {command}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
