"""Programs of this Python that the CLI starts: plugins and policy packs."""

import os
import shlex
import sys
from pathlib import Path
from threading import get_ident

from data_plane.state_dir import CHECKOUT

__all__ = ["write_python_program"]


def write_python_program(file: Path, *arguments: str, last: str = '"$@"') -> Path:
    """Writes a script that runs this Python with the checkout's modules, only where it is another, and whole.

    Another run may be starting it: a file that is being written cannot be.

    Args:
        file: where; its folder is made.
        arguments: of Python, before those of the script.
        last: the shell's words after them.
    """
    command = shlex.join([sys.executable, "-u", *arguments])
    path = f'PYTHONPATH={shlex.quote(str(CHECKOUT))}"${{PYTHONPATH:+:$PYTHONPATH}}"'
    text = f"#!/bin/sh\nexport {path}\nexec {command} {last}\n"
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = file.with_name(f".{file.name}.{os.getpid()}.{get_ident()}")
        draft.write_text(text, encoding="utf-8")
        draft.chmod(0o700)
        draft.replace(file)
    return file
