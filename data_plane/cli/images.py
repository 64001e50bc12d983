"""``dataplane images``: the images that the central stack runs."""

from typing import Annotated

import typer
from rich.markup import escape

from data_plane.cli.console import counted, messages, print_table, stderr, stdout
from data_plane.connector.image_pins import ImagePinError, apply_pins, find_pins
from data_plane.model.catalog import IMAGES_FILE
from data_plane.state_dir import CHECKOUT

__all__ = ["app"]

app = typer.Typer()


@app.command()
def pin(
    *,
    check_only: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if a tag's digest is not the one in the file.")
    ] = False,
    registry: Annotated[
        str | None,
        typer.Option(metavar="HOST[/FOLDER]", help="Ask a mirror instead of each image's own registry."),
    ] = None,
) -> None:
    """Write each image's digest into stacks/images.yaml, as its registry says it now.

    A digest decides which image is pulled, whatever becomes of its tag. A private registry needs a login for its host
    in ~/.netrc.
    """
    with messages():
        pins = find_pins(CHECKOUT, registry=registry, say=lambda name: stderr.print(f"[dim]{escape(name)}[/]"))
        changed = {found.service: found for found in pins if found.differs}
        if check_only and changed:
            raise ImagePinError("\n".join(["these are not the digests of their tags:", *map(str, changed.values())]))
        if changed:
            apply_pins(CHECKOUT, changed)
            print_table(
                ("SERVICE", "IMAGE", "DIGEST"), [(str(key), found.image, found.found) for key, found in changed.items()]
            )
        what = f"{counted(len(pins), 'image')} in {IMAGES_FILE}"
        stdout.print(f"{what}: {len(changed)} pinned anew." if changed else f"{what}: every digest is its tag's.")
