"""The tables that the detectors look things up in: every entry has its source, and none is a common word by itself."""

from collections.abc import Iterator
from typing import Any

import pytest

from policies.tables import table

# What says PostgreSQL by itself in a name; anything else has to be coined, or have its organisation before it.
SAYS_SO = ("postg", "pg", "sql", "db", "vector", "vchord", "gis", "supabase")
# Names that were coined for these products and that no dictionary has. An entry belongs here only with that reason.
COINED = {
    "alloydbomni", "citus", "citusdata", "epas", "kubeblocks", "kubegres", "patroni", "spilo", "stackgres", "stackgres-operator", "tensorchord",
    "timescaledb", "yugabyte", "yugabyte-operator", "cockroach-operator", "aiven-operator", "alloydb-operator", "alloydb-omni-operator",
    "kingbase", "multigres", "opengauss", "greenplum", "pgo",
}  # fmt: skip
# Words that products of this field are called by and that others are called by as well.
ENGLISH = {
    "age", "hydra", "neon", "cluster", "cockroach", "stolon", "odyssey", "timescale", "babelfish", "materialize", "store", "database", "data", "base",
    "shard", "replica", "primary", "backup", "storage", "scale", "crystal", "crate", "tembo", "nile", "fly", "render", "railway", "harbor", "forge",
    "core", "engine", "server", "service", "vault", "atlas", "phoenix", "raven", "elephant", "trunk", "tusk", "spider", "titan", "ocean", "omni", "pod",
}  # fmt: skip


def entries(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (str(key) for key in value)


@pytest.mark.parametrize("group", ["words", "names"])
def test_no_name_of_an_image_is_a_common_word(group: str) -> None:
    found = set(entries(table("images.yaml")["databases"][group])) | set(
        entries(table("images.yaml")["operators"]["names"])
    )
    assert not found & ENGLISH
    unexplained = {entry for entry in found if not any(part in entry for part in SAYS_SO)} - COINED
    assert not unexplained, "say PostgreSQL, be coined for it, or have an organisation before it"


def test_what_is_a_common_word_has_its_organisation_before_it() -> None:
    images = table("images.yaml")
    for entry in [*images["databases"]["repositories"], *images["bundled"]]:
        assert entry.count("/") == 1, entry


@pytest.mark.parametrize("group", ["servers", "operators"])
def test_a_chart_of_a_common_name_needs_its_repository(group: str) -> None:
    charts = table("charts.yaml")
    assert set(charts[group]) & ENGLISH <= set(charts["only_with_repository"])


def sources() -> Iterator[tuple[str, str]]:
    images, charts, commands = table("images.yaml"), table("charts.yaml"), table("commands.yaml")
    databases = images["databases"]
    for group in (*(databases[name] for name in databases), images["operators"]["names"], images["clients"]["organisations"],
                  charts["servers"], charts["operators"]):  # fmt: skip
        yield from group.items()
    for group in (images["bundled"], charts["bundling"], commands["packages"]):
        yield from ((name, entry["source"]) for name, entry in group.items())
    for name, key in (("operators.yaml", "group"), ("managed_databases.yaml", "type"), ("installers.yaml", "group")):
        yield from ((entry[key], entry["source"]) for entry in table(name))
    yield from ((entry["command"], entry["source"]) for entry in commands["starts"])


def test_every_line_says_where_it_is_from() -> None:
    found = list(sources())
    assert len(found) > 300
    for name, source in found:
        assert source.startswith("https://"), name


def test_no_key_of_a_table_is_read_as_something_else() -> None:
    # YAML 1.1 reads `off`, `on`, `yes` and `no` as booleans.
    def keys(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            for key, entry in value.items():
                yield key
                yield from keys(entry)
        elif isinstance(value, list):
            for entry in value:
                yield from keys(entry)

    for name in (
        "images.yaml",
        "charts.yaml",
        "operators.yaml",
        "managed_databases.yaml",
        "installers.yaml",
        "commands.yaml",
        "type_names.yaml",
    ):
        assert all(isinstance(key, str) for key in keys(table(name))), name
