"""``dataplane catalog``: the entries of the connector and service catalogs."""

from typing import Annotated

import typer

from data_plane.cli.console import messages
from data_plane.cli.generated import write_or_check
from data_plane.connector.catalog import CATALOGUE_FILE, catalog_text
from data_plane.connector.service_binding import SERVICE_CATALOGUE_FILE, service_catalog_text

__all__ = ["app"]

app = typer.Typer()


@app.command()
def catalog(
    check_only: Annotated[bool, typer.Option("--check", help="Fail if a committed file is out of date.")] = False,
) -> None:
    """Write connector-catalog.json and service-catalog.json."""
    texts = {CATALOGUE_FILE: catalog_text(), SERVICE_CATALOGUE_FILE: service_catalog_text()}
    with messages():
        write_or_check(texts, check_only=check_only, command="./dataplane catalog")
