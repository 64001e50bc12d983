"""Storage rules that would run something: none gets past either check, each tried by itself.

The first check reads the words of a rule (``data_plane.storage_expression``), the second holds PostgreSQL's own tree
against lists (``data_plane.refused_nodes``). Here the second is given what the first would never let through: every
function, operator and type that the server has, and every kind of node; and the first is given what could break out of
the statement that it is put into.
"""

import random
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from data_plane.local.postgres import LocalPostgres
from tests.support.platform_database import Connection, add_tenants, apply_platform, connect, issue, run, running
from tests.support.postgresqls import binaries, oldest_and_newest
from tests.support.storage import ONE, STORAGE_FUNCTIONS, TWO, make_storage, storage

SPY = "code of a project has run"
HOSTILE = f"""
    create function proj_one.spy() returns boolean language plpgsql as
        $$ begin raise notice '{SPY}: %% %%', session_user, current_user; return true; end $$;
    create function proj_one.lower(text) returns text language sql as 'select proj_one.spy()::text';
    create function proj_one.foldername(text) returns text[] language sql as 'select array[proj_one.spy()::text]';
    create function proj_one.uid() returns uuid language sql as 'select null::uuid where proj_one.spy()';
    create function proj_one.split_part(text, text, integer) returns text language sql as 'select proj_one.spy()::text';
    create function proj_one.same(text, text) returns boolean language sql as 'select proj_one.spy()';
    create operator proj_one.= (leftarg = text, rightarg = text, function = proj_one.same);
    create operator proj_one.~~ (leftarg = text, rightarg = text, function = proj_one.same);
    create operator proj_one.|| (leftarg = text, rightarg = text, function = proj_one.same);
    create type proj_one.mood as enum ('fine');
    create type proj_one.pair as (a text, b text);
    create domain proj_one.text as pg_catalog.text check (proj_one.spy());
    create domain proj_one.uuid as pg_catalog.uuid check (proj_one.spy());
    create function proj_one.to_mood(text) returns proj_one.mood language sql as $$ select null::proj_one.mood where proj_one.spy() $$;
    create cast (text as proj_one.mood) with function proj_one.to_mood(text) as implicit;
    create table proj_one.name (bucket_id text, id uuid);
    create view proj_one.owner as select proj_one.spy() as id;
    create collation proj_one.mine from "C";
    create sequence proj_one.ids;
"""


@pytest.fixture(scope="module", params=oldest_and_newest())
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """A project that has put its own names before PostgreSQL's, in its path and its schema."""
    with running(tmp_path_factory.mktemp("pg"), binaries()[request.param], apply_platform, add_tenants) as server:
        make_storage(server)
        with connect(server, "supabase_storage_admin") as session:
            for statement in STORAGE_FUNCTIONS:
                session.execute(statement.encode())
        for tenant in (ONE, TWO):
            run(server, "insert into data_plane.buckets (tenant) values (%s)", tenant)
        run(server, "select data_plane.apply_storage()")
        # Not as the tenant, which has no right to some of this: what it says is hostile all the same.
        run(server, HOSTILE)
        issue(server, "lease_forger", "proj_one_owner")
        yield server


def judged(session: Connection, expression: str) -> str | None:
    """Why the second check refuses an expression, or None."""
    try:
        with session.transaction():
            session.execute("select data_plane.judge_storage_expression(%s)", [expression])
    except psycopg.Error as error:
        return str(error.diag.message_primary)
    return None


def words(session: Connection, kind: str) -> set[str]:
    return {row[0] for row in session.execute("select word from data_plane.storage_rule_words where kind = %s", [kind])}


def test_no_function_is_taken_but_those_that_are_listed(database: LocalPostgres) -> None:
    """Of every schema: PostgreSQL's, the platform's, the project's."""
    with database.connect() as admin:
        rows: list[tuple[Any, ...]] = admin.execute(
            """
            select p.oid::regprocedure::text, quote_ident(n.nspname) || '.' || quote_ident(p.proname),
                (select array_agg(format_type(case when a::regtype::text in ('anyelement', 'anycompatible', '"any"', 'anynonarray')
                    then 'text'::regtype when a::regtype::text in ('anyarray', 'anycompatiblearray') then 'text[]'::regtype
                    when a::regtype::text = 'anyenum' then 'proj_one.mood'::regtype else a::regtype end, null) order by i)
                    from unnest(p.proargtypes) with ordinality as t (a, i)),
                p.prokind
            from pg_proc p join pg_namespace n on n.oid = p.pronamespace
            where n.nspname <> 'information_schema'
            """
        ).fetchall()
        assert len(rows) > 2500
        listed = {word.replace('"', "") for word in words(admin, "function")}
        casts = {
            row[0]
            for row in admin.execute(
                "select replace(c.castfunc::regprocedure::text, chr(34), '') from pg_cast c where c.castfunc <> 0 and exists (select from"
                " data_plane.storage_rule_words w where w.kind = 'type' and to_regtype(w.word) = c.casttarget)"
                " and exists (select from data_plane.storage_rule_words w where w.kind = 'type'"
                " and to_regtype(w.word) = c.castsource)"
            )
        }
        # A function that stands behind an operator of the list is that operator.
        behind = {
            row[0]
            for row in admin.execute(
                "select replace(o.oprcode::regprocedure::text, chr(34), '') from pg_operator o join data_plane.storage_rule_words w"
                " on w.kind = 'operator' and w.word = o.oprname where o.oprnamespace = 'pg_catalog'::regnamespace"
            )
        }
        taken = set()
        for signature, name, arguments, kind in rows:
            call = f"{name}({', '.join(f'null::{given}' for given in arguments or [])})"
            refused = judged(admin, f"({call}) is null")
            if refused is None:
                taken.add(signature.replace('"', ""))
            assert kind == "f" or refused is not None, signature
        strangers = {
            found
            for found in taken
            if found not in listed | casts | behind and not found.startswith("data_plane.judged_")
        }
        assert strangers == set()
        assert {"auth.uid()", "lower(text)", "split_part(text,text,integer)"} <= taken
        for never in ("set_config(text,text,boolean)", "pg_sleep(double precision)", "repeat(text,integer)", "query_to_xml(text,boolean,boolean,text)",
                      "pg_read_file(text)", "lo_import(text)", "nextval(regclass)", "pg_terminate_backend(integer,bigint)", "random()"):  # fmt: skip
            assert never not in taken


@pytest.mark.parametrize(
    "expression",
    [
        "replace(name, 'a', name) = ''",
        "replace(metadata::text, 'a', 'aaaaaaaaaaa') = ''",
        "replace(name, 'a', ('b')) = ''",
        "replace(name, 'a', 'b' || name || 'c') = ''",
        "array_to_string(string_to_array(name, null), name) = ''",
        "\"replace\"(name, 'a', name) = ''",
        "pg_catalog.replace(name, 'a', upper(name)) = ''",
        "replace(replace(replace(replace(name, 'a', 'aa'), 'a', 'aa'), 'a', 'aa'), 'a', 'aa') = ''",
    ],
)
def test_little_is_not_made_much_of(database: LocalPostgres, expression: str) -> None:
    with database.connect() as admin, pytest.raises(psycopg.errors.FeatureNotSupported, match="cannot say replace or"):
        admin.execute("select data_plane.storage_expression(%s)", [expression])


def test_what_is_bounded_may_be_said(database: LocalPostgres) -> None:
    message = "replace ( array_to_string ( storage.foldername ( name ) , '/' ) , '-' , '' ) = 'a'"
    assert run(database, "select data_plane.storage_expression(%s)", message) == [(message,)]


def test_no_type_is_taken_but_those_that_are_listed(database: LocalPostgres) -> None:
    with database.connect() as admin:
        types = [
            row[0]
            for row in admin.execute(
                "select format_type(oid, null) from pg_type where typtype <> 'p' and typnamespace <> 'pg_toast'::regnamespace"
            )
        ]
        assert len(types) > 300
        listed = {
            row[0]
            for row in admin.execute(
                "select format_type(t, null) from data_plane.storage_rule_words w"
                " cross join lateral (values (to_regtype(w.word)), (to_regtype(w.word || '[]'))) as v (t) where w.kind = 'type'"
            )
        }
        taken = {name for name in types if judged(admin, f"(null::{name}) is null") is None}
        assert taken - listed == set()
        assert {"uuid", "text[]", "jsonb"} <= taken
        for source in ("name", "metadata"):
            for name in types:
                if judged(admin, f"({source}::{name}) is null") is None:
                    assert name in listed, (source, name)


def test_no_operator_is_taken_but_those_that_are_listed(database: LocalPostgres) -> None:
    with database.connect() as admin:
        operators = admin.execute(
            "select n.nspname, o.oprname, format_type(nullif(o.oprleft, 0), null), format_type(o.oprright, null)"
            " from pg_operator o join pg_namespace n on n.oid = o.oprnamespace"
            " where o.oprleft::regtype::text not like '%any%' and o.oprright::regtype::text not like '%any%'"
        ).fetchall()
        assert len(operators) > 700
        listed = words(admin, "operator")
        taken = set()
        for schema, name, left, right in operators:
            before = f"null::{left}" if left else ""
            if judged(admin, f"({before} operator({schema}.{name}) null::{right}) is null") is None:
                assert schema == "pg_catalog", (schema, name)
                taken.add(name)
        assert taken <= listed
        assert {"=", "->>", "||"} <= taken


NODES = (
    "row(name, owner) = row('a', null)",
    "row(name, owner) < row('b', null)",
    "judged_objects is not null",
    "judged_objects.* is null",
    "judged_objects::text = ''",
    "(judged_objects).name = ''",
    "greatest(name, owner_id) = ''",
    "xmlelement(name x) is null",
    "name is document",
    "current_user = 'x'",
    "current_date is null",
    "session_user = 'x'",
    "name collate proj_one.mine = 'x'",
    "name collate \"C\" = 'x'",
    "name < 'x' collate \"POSIX\"",
    "json_object('a': name) is null",
    "json_array(name) is null",
    "exists (select)",
    "exists (select from pg_class)",
    "exists (select from proj_one.name)",
    "exists (select from judged_objects o where o.id = id)",
    "exists (select from proj_one.owner)",
    "name in (select bucket_id from proj_one.name)",
    "(select count(*) from proj_one.name) > 0",
    "(with x as (select 1) select count(*) from x) > 0",
    "(with x as (select 1 as a) select 1) = 1",
    "(select 1 union select 1) = 1",
    "(values (true))",
    "(select a from (values (true)) v (a))",
    "(select true from unnest(path_tokens))",
    "(select true from generate_series(1, 1000000000))",
    "(select true limit 1)",
    "(select true order by 1)",
    "(select distinct true)",
    "(select true group by 1)",
    "(select true having true)",
    "(select max(1)) = 1",
    "(select count(*)) = 1",
    "(select row_number() over ()) = 1",
    "array(select 'a') = path_tokens",
    "(select array_agg(x) from unnest(path_tokens) x) = path_tokens",
    "name = any (select 'a' from pg_class)",
    "nextval('proj_one.ids') > 0",
    "'proj_one.ids'::regclass is null",
    "name::regclass is null",
    "name::proj_one.mood is null",
    "name::proj_one.text = ''",
    "row(name, name)::proj_one.pair is null",
    "name operator(proj_one.=) 'x'",
    "proj_one.lower(name) = 'x'",
    "name is normalized",
    "(name, owner_id) overlaps (name, owner_id)",
    "extract(year from created_at) = 2020",
    "name similar to 'a'",
    "metadata is json",
    "xmlexists('/a' passing name::xml)",
    "grouping(name) = 1",
    "merge_action() is null",
    "tableoid = 1",
    "ctid is null",
    "xmin is null",
    "name = $1",
    "default",
    "storage.foldername(judged_objects) is null",
)


# What one check lets through by itself: harmless, or the other check refuses it.
HARMLESS = {
    "words": {"array(select 'a') = path_tokens", "(select distinct true)", "metadata is json"},
    "tree": {
        "array(select 'a') = path_tokens",
        "exists (select)",
        "(select true limit 1)",
        "(select true having true)",
        "(judged_objects).name = ''",
        "row(name, owner) = row('a', null)",
    },
}


@pytest.mark.parametrize("check", ["words", "tree"])
def test_no_other_kind_of_node_is_taken(database: LocalPostgres, check: str) -> None:
    with database.connect() as admin:
        taken = []
        for expression in NODES:
            if check == "tree":
                refused = judged(admin, expression)
            else:
                refused = None
                try:
                    with admin.transaction():
                        admin.execute("select data_plane.storage_expression(%s)", [expression])
                except psycopg.Error as error:
                    refused = str(error)
            if refused is None:
                taken.append(expression)
        assert set(taken) - HARMLESS[check] == set()


INJECTIONS = (
    "true) with check (true",
    "true); drop table storage.objects; --",
    "true) ; select proj_one.spy(",
    "true);create policy x on storage.objects using (true",
    "true -- ",
    "true /* */",
    "true /* ",
    "/**/true",
    "true)) or ((true",
    "')) or (('",
    "'' || ')' || ''",
    "'a' 'b'",
    "'a'\n'b' = ''",
    "e'\\') or (true' = ''",
    "E'\\047) or true' = ''",
    "name = E'\\\\'",
    "name = 'a\\' or true) --'",
    "U&'\\0027' = ''",
    "u&\"name\" = ''",
    '"na""me" = \'\'',
    "\"name\" = ''",
    "$$a$$ = ''",
    "$x$a$x$ = name",
    "name = $1",
    "b'1' = b'1'",
    "x'41' = x'41'",
    "N'a' = name",
    "true;",
    ";",
    "true to proj_two_b_anon using (true",
    "name = 'a') for all to public using (true",
    "storage . objects . name = ''",
    "storage.\"objects\".name = ''",
    "data_plane.tenant_of(name) = ''",
    "data_plane.judged_foldername(name) is null",
    "pg_catalog.set_config('role', 'proj_two_b_anon', true) is null",
    "pg_catalog.current_setting('x', true) is null",
    "pg_catalog.\"current_setting\"('x', true) is null",
    "pg_temp.x(name) is null",
    "information_schema._pg_truetypid(null, null) is null",
    "auth.users is null",
    "auth.uid is null",
    "auth.uid",
    "auth.",
    "auth..uid()",
    "storage.objects",
    "storage.objects.",
    "storage.search('', '', 1) is null",
    "name ~ '(a*)*b'",
    "name ~ '(a{99}){99}'",
    "name ~ '((a{9}){9}){9}'",
    "name ~ '(.)\\1'",
    "name ~ '(?=a)'",
    "name ~ owner_id",
    "name ~ ('a' || name)",
    "name ~ 'a' || name",
    "name ~ lower('a')",
    "name ~ all (array['a'])",
    "name ~ 'a{1}{1}{1}{1}{1}{1}{1}{1}{1}'",
    "1e1000000 is null",
    "1" * 25 + " is null",
    "\x01true",
    "\u00a0true",
    "\ufeff true",
    "true\u2003or true",
    "ｔrue",
    "tru\u0435",
    "İs null",
    "name operator(pg_catalog.=) 'x'",
    "name = 'x' :: pg_catalog . text :: \"text\" :: proj_one . text",
    "cast(name as proj_one.text) = ''",
    "(storage.foldername(name) as x)",
    "current_setting(name => 'x')",
    "lower(variadic path_tokens)",
    "all",
    "",
    " ",
    "\n",
    ")",
    "(",
    "[",
    "(]",
    "name[",
    "'",
    '"',
)


def snapshot(database: LocalPostgres) -> list[tuple[object, ...]]:
    return run(
        database,
        "select 'policy', polname::text, polrelid::text, coalesce(pg_get_expr(polqual, polrelid), ''), polroles::text from pg_policy"
        " where polname not like 'proj%%' union all select 'table', oid::regclass::text, '', '', '' from pg_class where relkind = 'r'"
        " union all select 'bucket', id, '', '', '' from storage.buckets order by 1, 2, 3",
    )


def test_nothing_breaks_out_of_the_statement_that_it_is_put_into(database: LocalPostgres) -> None:
    """What is taken is one condition, between the platform's; every string stays a string."""
    before = snapshot(database)
    taken, heard = [], []
    with connect(database, "lease_forger", "pw") as session:
        session.autocommit = True
        session.add_notice_handler(lambda notice: heard.append(notice.message_primary))
        for number, expression in enumerate(INJECTIONS):
            for template in ("{}", "({})", "name = 'a' or {}", "({}) is null"):
                given = template.format(expression)
                try:
                    session.execute(
                        "select data_plane_api.declare_storage_rule(%s, 'select', '{anon,authenticated}', %s, null)",
                        [f"rule {number % 90}", given],
                    )
                except psycopg.Error:
                    continue
                taken.append(given)
    run(database, "update data_plane.storage_rules set applied_at = null")
    run(database, "select data_plane.apply_storage()")
    assert snapshot(database) == before
    assert [note for note in heard if SPY in str(note)] == []
    made = run(
        database,
        "select pg_get_expr(polqual, polrelid), polcmd::text, polwithcheck is null from pg_policy where polname like 'proj%%'",
    )
    assert made
    for condition, command, no_check in made:
        assert condition.startswith("((split_part(bucket_id, '.'::text, 1) = 'proj_one'::text) AND "), condition
        assert (command, no_check) == ("r", True)
    assert len(taken) < 40, taken
    run(database, "delete from data_plane.storage_rules")
    run(database, "select data_plane.recheck_storage_rules()")


def test_what_is_put_together_is_made_of_listed_words_alone(database: LocalPostgres) -> None:
    """Whatever tokens follow each other; and reading it again changes nothing."""
    draw = random.Random(15)  # noqa: S311 the same each time
    pieces = [
        "name", "owner", "(", ")", "[", "]", ",", "::", ".", ";", "'", "''", "'a'", "'it''s'", "'\\'", '"name"', '"', "--", "/*", "*/",
        "$$", "$a$", "e'\\''", "U&'x'", "text", "uuid", "auth", "uid", "storage", "objects", "pg_catalog", "lower", "set_config", "select",
        "from", "=", "||", "~", "->>", "and", "or", "not", "in", "is", "null", "case", "when", "end", "1", "1.5", "e5", "\n", " ", "with",
        "check", "true", "proj_one", "spy", "\\", "{", "é", ":", "@>", "?", "distinct",
    ]  # fmt: skip
    with database.connect() as admin:
        allowed = {
            word.split("(")[0]
            for kind in ("keyword", "column", "type", "function", "operator")
            for word in words(admin, kind)
        }
        allowed |= {f"pg_catalog.{word}" for word in allowed}
        taken = 0
        for _ in range(4000):
            text = draw.choice(["", " "]).join(draw.choice(pieces) for _ in range(draw.randint(1, 9)))
            try:
                with admin.transaction():
                    row = admin.execute("select data_plane.storage_expression(%s)", [text]).fetchone()
            except psycopg.Error:
                continue
            assert row is not None
            taken += 1
            made = str(row[0])
            if "\\" not in made:
                assert admin.execute("select data_plane.storage_expression(%s)", [made]).fetchone() == (made,)
            rest = made
            for literal in sorted(literals(made), key=len, reverse=True):
                rest = rest.replace(literal, "")
            assert all(
                token in allowed or token in "()[],:" or token == "::" or token.replace(".", "").isdigit()
                for token in rest.split()
            ), made
        assert taken > 100


def literals(text: str) -> list[str]:
    """The strings of what was put together."""
    found, rest = [], text
    while "'" in rest:
        begin = rest.index("'")
        escaped = rest[:begin].endswith("E")
        place = begin + 1
        while True:
            if (escaped and rest[place] == "\\") or (rest[place] == "'" and rest[place + 1 : place + 2] == "'"):
                place += 2
            elif rest[place] == "'":
                break
            else:
                place += 1
        found.append(rest[begin - escaped : place + 1])
        rest = rest[place + 1 :]
    return found


def test_a_rule_runs_nothing_of_the_projects_in_storages_session(database: LocalPostgres) -> None:
    """Whose names come first in the path of the session that declares."""
    forms = [
        "lower(name) = 'x' || 'y'",
        "(storage.foldername(name))[1] = auth.uid()::text",
        "name like 'a%' and split_part(name, '/', 1) = 'b'",
        "owner::text::uuid = owner and 'x'::text = name",
        "name in ('a', 'b') and bucket_id = 'proj_one'",
    ]
    heard: list[str] = []
    with connect(database, "lease_forger", "pw") as session:
        session.autocommit = True
        session.add_notice_handler(lambda notice: heard.append(str(notice.message_primary)))
        session.execute("set search_path = proj_one, pg_catalog")
        for number, form in enumerate(forms):
            session.execute(
                sql.SQL(
                    "select data_plane_api.declare_storage_rule({}::pg_catalog.text, 'all'::pg_catalog.text,"
                    " null::pg_catalog.text[], {}::pg_catalog.text, null::pg_catalog.text)"
                ).format(f"form {number}", form)
            )
    run(database, "update data_plane.storage_rules set applied_at = null")
    run(database, "select data_plane.apply_storage()")
    assert (
        run(database, "select name, problem from data_plane.storage_rules where pending or problem is not null") == []
    )
    run(
        database,
        "insert into storage.objects (bucket_id, name) values ('proj_one', 'a/b'), ('proj_two_b', 'a/b') on conflict do nothing",
    )
    for role in ("proj_one_authenticated", "proj_one_anon", "proj_two_b_authenticated"):
        with storage(database, role) as request:
            request.add_notice_handler(lambda notice: heard.append(str(notice.message_primary)))
            for statement in (
                "select pg_catalog.count(*) from storage.objects",
                "delete from storage.objects",
                "update storage.objects set version = null",
            ):
                request.execute(statement.encode())
            request.rollback()
    assert [line for line in heard if SPY in line] == []
