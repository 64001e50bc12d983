"""The command ``dataplane``, as the script of that name runs it: by its path, in Python's isolated mode (``-I``)."""

import sys
from pathlib import Path

# Isolated, the path has the standard library and the installed packages alone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_plane.cli.main import main

main()
