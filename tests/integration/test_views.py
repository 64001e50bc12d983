"""Views that show rows past row-level security: each way to have one, on every PostgreSQL that can be had here."""

from collections.abc import Iterator

import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege, ProgramLimitExceeded

from data_plane.local.postgres import LocalPostgres
from tests.support.platform_database import TENANTS, add_tenants, api_request, apply_platform, run, running
from tests.support.postgresqls import binaries

ONE, OTHER = TENANTS
READERS = f"{ONE}_anon, {ONE}_authenticated"
SECRET = f"{ONE}.notes"


@pytest.fixture(scope="module", params=sorted(binaries()))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with running(tmp_path_factory.mktemp("views"), binaries()[request.param], apply_platform, add_tenants) as made:
        yield made


@pytest.fixture
def schema(server: LocalPostgres) -> Iterator[LocalPostgres]:
    """A schema with a table of one row, which its API roles may read and no policy lets them see."""
    as_owner(
        server,
        "create table notes (id int, body text)",
        "insert into notes values (1, 'kept')",
        f"grant select on notes to {READERS}",
    )
    # Somebody else's, with row-level security, which the schema's owner may read: it holds for that owner too.
    run(server, "create table public.theirs as select 1 as id")
    run(server, "alter table public.theirs enable row level security")
    run(server, f"grant select on public.theirs to {ONE}_owner; grant usage on schema public to {ONE}_owner")
    yield server
    with server.connect() as admin:
        for kind in ("materialized view", "view", "table"):
            relkind = {"materialized view": "m", "view": "v", "table": "r"}[kind]
            for (name,) in admin.execute(
                "select relname from pg_class where relnamespace = %s::regnamespace and relkind = %s", [ONE, relkind]
            ).fetchall():
                statement = sql.SQL(f"drop {kind} if exists {{}} cascade")
                admin.execute(statement.format(sql.Identifier(ONE, str(name))))
        admin.execute("drop table public.theirs")
        admin.execute(sql.SQL("revoke usage on schema public from {}").format(sql.Identifier(f"{ONE}_owner")))


def as_owner(server: LocalPostgres, *statements: str) -> None:
    with server.connect() as admin:
        admin.execute(sql.SQL("set local role {}").format(sql.Identifier(f"{ONE}_owner")))
        admin.execute(sql.SQL("set local search_path = {}").format(sql.Identifier(ONE)))
        for statement in statements:
            admin.execute(statement.encode())


def named(server: LocalPostgres) -> list[str]:
    return [row[0] for row in run(server, "select data_plane.views_past_row_security(%s)", list(TENANTS))]


def seen(server: LocalPostgres, relation: str, role: str = "anon") -> int:
    """Rows that a request sees."""
    with api_request(server, f"{ONE}_{role}") as session:
        row = session.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(ONE, relation))).fetchone()
    assert row is not None
    return int(row[0])


PAST = {
    "a view": ("create view v as select * from notes", "view"),
    "a view of a view": (
        "create view inner_one as select * from notes; create view v as select * from inner_one",
        "view",
    ),
    "a view in a barrier's coat": ("create view v with (security_barrier) as select id from notes", "view"),
    "a view that asks for no rights of its user": (
        "create view v with (security_invoker = off) as table notes",
        "view",
    ),
    "a materialized view": ("create materialized view v as select * from notes", "materialized view"),
    "a view of a materialized one": (
        "create materialized view inner_one as table notes; create view v as table inner_one",
        "view",
    ),
    "a materialized view of a view with its user's rights": (
        "create view inner_one with (security_invoker) as table notes; create materialized view v as table inner_one",
        "materialized view",
    ),
    "a view that joins": (
        "create table open_one (id int); alter table open_one disable row level security; create view v as select o.id from open_one o right join notes using (id)",
        "view",
    ),
    "a view in a common table expression": ("create view v as with n as (table notes) select n.id from n", "view"),
    "a view with a sub-select": (
        "create view v as select 1 as id where exists (select from notes where body = 'kept')",
        "view",
    ),
    "a recursive view": (
        "create recursive view v (id) as select id from notes union select id + 1 from v where id < 0",
        "view",
    ),
    "one column of a view": (
        f"create view v as table notes; revoke all on v from {READERS}; grant select (id) on v to {READERS}",
        "view",
    ),
}


@pytest.mark.parametrize("name", PAST)
def test_what_shows_rows_past_row_security_is_named_once(schema: LocalPostgres, name: str) -> None:
    statement, kind = PAST[name]
    as_owner(schema, statement, f"revoke all on inner_one from {READERS}" if "inner_one" in statement else "select 1")
    if "(id) on v" not in statement:
        as_owner(schema, f"grant select on v to {READERS}")
        assert seen(schema, "v") == 1
        assert seen(schema, "notes") == 0
    found = [line for line in named(schema) if f" {ONE}.v " in line]
    (line,) = found
    assert len(named(schema)) == 1
    assert line.startswith(f"{kind} {ONE}.v shows all rows of {SECRET}, past row-level security, to {READERS}. ")
    ways = line.partition("If that is not meant: ")[2].split(", or ")
    assert len(ways) == (2 if kind == "view" else 1)
    for way in ways:
        # Each way out, as it is written, by itself.
        with schema.connect() as admin:
            admin.execute(sql.SQL("set local role {}").format(sql.Identifier(f"{ONE}_owner")))
            admin.execute(way.encode())
            admin.execute("reset role")
            rows = admin.execute("select data_plane.views_past_row_security(%s)", [[ONE]]).fetchall()
            admin.rollback()
        assert rows == [], way


NOT_PAST = {
    "a view with its user's rights": "create view v with (security_invoker = on) as table notes",
    "another word for on": "create view v with (security_invoker = 1) as table notes",
    "a view of a table without row-level security": (
        "create table plain (id int); alter table plain disable row level security; create view v as table plain"
    ),
    "a view of no table": "create view v as select 1 as id",
    "a view of a table whose row-level security is forced": (
        "alter table notes force row level security; create view v as table notes"
    ),
    "a view of somebody else's table": "create view v as select id from public.theirs",
    "a view that no API role may read": f"create view v as table notes; revoke all on v from {READERS}, public",
    "a view of one with its user's rights": (
        "create view inner_one with (security_invoker) as table notes; create view v as table inner_one"
    ),
}


@pytest.mark.parametrize("name", NOT_PAST)
def test_what_shows_no_row_past_row_security_is_not_named(schema: LocalPostgres, name: str) -> None:
    as_owner(schema, NOT_PAST[name])
    if "no API role" not in name:
        as_owner(schema, f"grant select on v to {READERS}")
        if "plain" not in NOT_PAST[name] and "no table" not in name:
            assert seen(schema, "v") == 0
    assert named(schema) == []


def test_only_the_roles_that_may_read_a_view_are_named(schema: LocalPostgres) -> None:
    as_owner(schema, "create view v as table notes", f"revoke all on v from {READERS}")
    as_owner(schema, f"grant select on v to {ONE}_authenticated")
    (line,) = named(schema)
    assert f"to {ONE}_authenticated. If" in line
    assert line.endswith(f"revoke select on {ONE}.v from {ONE}_authenticated")


def test_names_in_need_of_quotes_are_quoted(schema: LocalPostgres) -> None:
    as_owner(schema, 'create view "Some View; --" as table notes', f'grant select on "Some View; --" to {READERS}')
    (line,) = named(schema)
    assert f'alter view {ONE}."Some View; --" set (security_invoker = true)' in line


def test_drift_names_them_for_the_project_to_decide(schema: LocalPostgres) -> None:
    as_owner(schema, "create view v as table notes", f"grant select on v to {READERS}")
    found = run(schema, "select found, remedy from data_plane.privilege_drift(%s)", list(TENANTS))
    assert [(line.partition(" shows")[0], remedy) for line, remedy in found if " shows " in line] == [
        (f"view {ONE}.v", None)
    ]
    assert named(schema) == [line for line, _ in found if " shows " in line]


def test_a_schema_s_owner_is_told_and_nobody_without_a_tenant(schema: LocalPostgres) -> None:
    as_owner(schema, "create view v as table notes", f"grant select on v to {READERS}")
    as_owner(schema, f"select data_plane.views_past_row_security(array['{ONE}'])")
    rights = run(
        schema,
        "select has_function_privilege(role, 'data_plane.views_past_row_security(text[])', 'execute')"
        " from unnest(%s::text[]) as role",
        [f"{ONE}_owner", f"{ONE}_anon", "anon", "authenticator"],
    )
    assert rights == [(True,), (False,), (False,), (False,)]


@pytest.mark.parametrize(
    "view",
    [
        'select id as "a (<>" from notes',
        'select id as "a :resno" from notes',
        'select "{(<>".id from notes as "{(<>"',
        "select id from notes where id in (" + ", ".join(str(number) for number in range(20_000)) + ")",
    ],
)
def test_a_view_that_postgrest_cannot_read_is_refused(schema: LocalPostgres, view: str) -> None:
    """It reads all in one statement, without which it serves nobody."""
    for kind in ("view", "materialized view"):
        with pytest.raises(InsufficientPrivilege, match=f"view {ONE}.v .*PostgREST"):
            as_owner(schema, f"create {kind} v as {view}")
    with pytest.raises(InsufficientPrivilege, match="PostgREST"):
        as_owner(
            schema,
            "create view v as table notes",
            "create rule told as on insert to v do instead notify a, 'b :resno'",
        )
    assert named(schema) == []


def test_views_are_not_piled_up_without_end(schema: LocalPostgres) -> None:
    """PostgREST goes down from each of them, whichever schemas it serves."""
    piles = [
        f"create view {pile}{number} as select * from {f'{pile}{number - 1}' if number else 'notes'}"
        for pile in "ab"
        for number in range(30)
    ]
    as_owner(schema, *piles)
    with pytest.raises(InsufficientPrivilege, match="on top of each other"):
        as_owner(schema, "create or replace view b0 as select * from a29")
    with pytest.raises(InsufficientPrivilege, match="on top of each other"):
        as_owner(
            schema,
            *(
                f"create view c{number} as select * from {'b29' if not number else f'c{number - 1}'}"
                for number in range(5)
            ),
        )


def test_an_ordinary_name_is_none_of_postgrests_trouble(schema: LocalPostgres) -> None:
    as_owner(
        schema,
        r"""create view v as select id as "Total (EUR), {net}: <1> \\", body as ":resno", coalesce(body, ' :resno <>') as c,
            json_build_object('a', null, 'b', array[]::int[]) from notes where body <> '' """,
        "create rule nothing as on delete to v do instead nothing",
    )


def test_drift_names_views_that_postgrest_cannot_read(schema: LocalPostgres) -> None:
    """From before they were refused, or out of a dump."""
    run(schema, "alter event trigger data_plane_views disable")
    as_owner(schema, 'create view v as select id as "(<>" from notes')
    run(schema, "alter event trigger data_plane_views enable")
    found = run(schema, "select found, remedy from data_plane.privilege_drift(%s)", list(TENANTS))
    assert [remedy for line, remedy in found if line.startswith(f"view {ONE}.v has a name")] == [None]


OFTEN = ", ".join(f"{column} as {column}{number}" for column in "ab" for number in range(11))


@pytest.mark.parametrize(
    "statements",
    [
        ["create table k (a int, b int, foreign key (a, b) references p)", f"create view v as select {OFTEN} from k"],
        [
            "create table k (a int, b int)",
            f"create view v as select {OFTEN} from k",
            "alter table k add foreign key (a, b) references p",
        ],
        [f"create view v as select {OFTEN} from p", "create table k (a int, b int, foreign key (a, b) references p)"],
        [
            "create table k (a int, b int, foreign key (a, b) references p)",
            "create view w as select a, b, a as c, b as d from k",
            "create view v as select a, a as a1, a as a2, c, c as c1, c as c2, b, b as b1, d, d as d1 from w",
            "create view u as select *, a as a3, c as c3, b as b3, d as d3, a as a4, c as c4, b as b4, d as d4, b as b5 from v",
            "create view t as select *, a as a6, b as b6 from u",
        ],
        [
            "create table k (a int)",
            "create view v as select a from k",
            "create rule r as on insert to v do instead select a from k",
        ],
        ["create table k (a int)", *("alter table k add foreign key (a) references q" for _ in range(101))],
    ],
)
def test_what_postgrest_would_multiply_is_refused(schema: LocalPostgres, statements: list[str]) -> None:
    given = ["create table p (a int, b int, primary key (a, b))", "create table q (a int primary key)"]
    as_owner(schema, *given)
    as_owner(schema, *statements[:-1])
    with pytest.raises((InsufficientPrivilege, ProgramLimitExceeded)) as caught:
        as_owner(schema, statements[-1])
    assert "the API of all projects" in str(caught.value.diag.message_hint)


def test_a_view_that_shows_a_key_twice_is_ordinary(schema: LocalPostgres) -> None:
    as_owner(
        schema,
        "create table p (a int, b int, primary key (a, b))",
        "create table k (id int primary key, a int, b int, foreign key (a, b) references p)",
        "create view v as select a, b, a as c, b as d, id, k as row from k",
        "create view w as select v.*, notes.body from v join notes using (id)",
        "create rule r as on insert to v do instead insert into k values (new.id) returning a, b, a, b, id, k",
        "create materialized view m as select a, b from k union all select c, d from w",
    )
