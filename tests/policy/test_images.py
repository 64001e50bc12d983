"""References to images, whatever stands before and behind the name."""

from hypothesis import example, given
from hypothesis import strategies as st

from policies.images import Family, Image, classify

HOSTS = st.sampled_from(["", "docker.io/", "localhost/", "registry.example.com:5000/", "10.0.0.1/", "ghcr.io/"])
PART = st.from_regex(r"\A[a-z0-9]+(-[a-z0-9]+){0,2}\Z").filter(lambda part: part not in {"supabase", "patroni"})
MIRROR = st.lists(PART, max_size=3).map(lambda parts: "".join(f"{part}/" for part in parts))
TAG = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,20}\Z").map(lambda tag: f":{tag}")
DIGEST = st.from_regex(r"\A[0-9a-f]{64}\Z").map(lambda digest: f"@sha256:{digest}")
SUFFIX = st.one_of(st.just(""), TAG, DIGEST, st.tuples(TAG, DIGEST).map("".join))
SERVER = st.sampled_from([
    "postgres", "postgresql", "postgresql-repmgr", "postgis", "pgvector", "timescaledb-ha", "spilo-16", "cockroachdb", "yugabyte", "citus",
    "crunchy-postgres-gis", "percona-distribution-postgresql", "edb-postgres-advanced", "alloydbomni", "my-postgres", "postgres17",
])  # fmt: skip
CLIENT = st.sampled_from([
    "pgbouncer", "pgadmin4", "postgres-exporter", "postgres_exporter", "adminer", "pgweb", "pghero", "postgresql-client", "postgres-backup-s3",
    "pgbackrest", "pgpool", "pgcat", "postgrest", "kong", "mysql", "redis", "node", "cloud-sql-proxy", "postgraphile", "gotrue",
])  # fmt: skip


@given(HOSTS, MIRROR, SERVER, SUFFIX)
def test_a_server_is_one_under_any_registry_mirror_tag_and_digest(host: str, mirror: str, name: str, end: str) -> None:
    assert classify(f"{host}{mirror}{name}{end}") is Family.DATABASE


@given(HOSTS, MIRROR, CLIENT, SUFFIX)
def test_what_only_talks_to_one_is_none_under_any(host: str, mirror: str, name: str, end: str) -> None:
    assert classify(f"{host}{mirror}{name}{end}") is None


@given(HOSTS, MIRROR, PART, SUFFIX)
def test_everything_of_supabases_own_is_a_part_of_it(host: str, mirror: str, name: str, end: str) -> None:
    assert classify(f"{host}{mirror}supabase/{name}{end}") is not None


@given(HOSTS, MIRROR, SERVER, SUFFIX)
def test_case_and_blanks_hide_nothing(host: str, mirror: str, name: str, end: str) -> None:
    assert classify(f"  {host}{mirror}{name.upper()}{end}\n") is Family.DATABASE


@given(st.text(max_size=200))
@example("")
@example("@")
@example("://")
@example("/:@/")
def test_any_text_is_taken_apart_without_an_error(text: str) -> None:
    Image.parse(text)
    classify(text)


@given(HOSTS, MIRROR, PART, TAG, DIGEST)
def test_the_parts_of_a_reference_are_found(host: str, mirror: str, name: str, tag: str, digest: str) -> None:
    image = Image.parse(f"{host}{mirror}{name}{tag}{digest}")
    # Without a dot or a port the first part is no registry: `team/app` is on the default one.
    assert image.registry == host.rstrip("/")
    assert "".join(f"{part}/" for part in image.path) == f"{mirror}{name}/"
    assert (image.tag, image.digest) == (tag[1:], digest[1:])


def test_an_exact_version_or_a_digest_is_pinned_and_what_moves_is_not() -> None:
    digest = "sha256:" + "0" * 64
    for reference in (
        f"a@{digest}",
        f"a:latest@{digest}",
        "a:1.2",
        "a:v2.196.0",
        "a:2026.09.07-sha-7996410",
        "a:sha-7996410",
        "a:20260901",
    ):
        assert Image.parse(reference).pinned, reference
    for reference in (
        "a",
        "a:latest",
        "a:17",
        "a:v2",
        "a:stable",
        "a:alpine",
        "localhost:5000/a",
        "a@sha256:zz",
        "a:1.2@sha256:short",
    ):
        assert not Image.parse(reference).pinned, reference
