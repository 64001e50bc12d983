"""Functions that try to change the session of a shared PostgREST by every spelling, and ordinary ones.

What admission lets in is called in a session as PostgREST has it, between two requests of another project's, and must
leave the session as it was, and read nothing of another project's.
"""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pglast.parser import ParseError, scan
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from data_plane.model.naming import API_LEVELS, AccessLevel
from tests.security.world import ATTACKER, CELL, VICTIM, Connection, World, begin_request

REFUSED = "has no place in a session that projects share"
ORDINARY = Path(__file__).with_name("ordinary_functions.sql")
ME, OTHER = ATTACKER.schema, VICTIM.schema
SECRET = "nobody sees this"
SHARED = CELL.login
"""The login of the PostgREST that the attacker and the victim share."""

# Commands -------------------------------------------------------------------------------------------------------------

COMMANDS = [
    f"set role {OTHER}_service_role",
    f"set local role {OTHER}_service_role",
    f"set session role to {OTHER}_anon",
    "set role none",
    "reset role",
    f"set session authorization {OTHER}_service_role",
    "reset session authorization",
    f"set search_path = {ME}",
    "set request.jwt.claim.sub = '6f1c8a52-6f0e-4a53-9f3a-0d3c1f7f2f10'",
    "set constraints.x = 1",
    "set statement_timeout to 0",
    "set standard_conforming_strings = off",
    "reset all",
    "discard all",
    "discard plans",
    'prepare "0" as select 1',
    "prepare mine as select 1",
    "deallocate all",
    'deallocate "0"',
    'execute "0"',
    "declare kept cursor with hold for select 1",
    "listen pgrst",
    "unlisten *",
    "load 'plpgsql'",
    "do 'begin reset all; end'",
    "do language plpgsql 'begin reset all; end'",
    "create temporary table notes as select 1 as id",
    "create table pg_temp.notes (id int)",
    f"select set_config('role', '{OTHER}_service_role', true)",
    "select pg_catalog.set_config('search_path', 'pg_temp', false)",
    "select \"set_config\"('request.jwt.claim.sub', '6f1c8a52-6f0e-4a53-9f3a-0d3c1f7f2f10', false)",
    "select setseed(0.5)",
    "select pg_advisory_lock(4711)",
    "select pg_try_advisory_lock_shared(47, 11)",
    f"select body from {OTHER}.secrets",
    "commit",
    "rollback",
    f"alter role {ME}_anon set role = {OTHER}_service_role",
    f"grant {OTHER}_service_role to {ME}_anon",
    "select 1",
]
_LET_IN = {"create", "select", "commit", "rollback", "alter", "grant"}
GAPS = [
    " ",
    "\n",
    "\t",
    "\f",
    "\r",
    "\v",
    " /**/ ",
    "/* x */",
    "/*/**/*/",
    "/* ' */",
    "/* $$ */",
    "--\n",
    "-- '\n",
    "--'\r",
    "\u00a0",
]


def _case(draw: st.DrawFn, word: str) -> str:
    how = draw(st.sampled_from([str.lower, str.upper, str.title, str.swapcase]))
    return str(how(word))


@st.composite
def commands(draw: st.DrawFn) -> str:
    """One of the commands, its keywords in any case and with anything between its tokens that PostgreSQL passes over."""
    command = draw(st.sampled_from(COMMANDS))
    if draw(st.booleans()):
        return command
    parts = re.findall(r"'[^']*'|\"[^\"]*\"|[\w.]+|\s+|.", command)
    return "".join(
        draw(st.sampled_from(GAPS)) if part.isspace() else _case(draw, part) if part.isalpha() else part
        for part in parts
    )


# What may stand before a command so that the two are read as something else, or the other way round.
COVERS = [
    "",
    "",
    "",
    "perform 'a';",
    "perform '\\'; --';",
    "perform E'\\'; --';",
    "perform E'a'\n'\\'; --';",
    "perform '\\\\';",
    "perform 'a''b';",
    "perform b'0\\' || '; --';",
    "perform $a$ ' $a$;",
    "perform $a$ $$ ' $a$;",
    'perform 1 as "a""\';";',
    "perform U&'\\0027';",
    "perform U&'d!0027' uescape '!';",
    "/* ' */",
    "-- '\n",
    "-- \\'\r",
    "/* /* */ ' */",
    "<<somewhere>> begin null; end somewhere;",
    "null;",
    f"update {ME}.notes set body = 'x';",
    f"insert into {ME}.notes (id) overriding system value values (1) on conflict (id) do update set body = 'x';",
]


def _literal(draw: st.DrawFn, text: str) -> str:
    """A string constant with this value, in any spelling."""
    doubled = text.replace("'", "''")
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    half = len(doubled) // 2
    while doubled[half - 1 : half] == "'" or doubled[half : half + 1] == "'":
        half += 1
    return str(
        draw(
            st.sampled_from(
                [
                    f"'{doubled}'",
                    f"E'{escaped}'",
                    f"$q${text}$q$",
                    f"'{doubled[:half]}' || '{doubled[half:]}'",
                    f"'{doubled[:half]}'\n'{doubled[half:]}'",
                    f"concat('{doubled[:half]}', '{doubled[half:]}')",
                    f"format('%s', $q${text}$q$)",
                    f"reverse($q${text[::-1]}$q$)",
                    f"convert_from(decode('{text.encode().hex()}', 'hex'), 'UTF8')",
                ]
            )
        )
    )


def _plpgsql(draw: st.DrawFn, command: str) -> str:
    run = "perform" + command[6:] if command[:6].lower() == "select" else command
    text = _literal(draw, command)
    query = _literal(draw, command.rstrip(";"))
    body = draw(
        st.sampled_from(
            [
                f"{run};",
                f"{run};",
                f"begin {run}; end;",
                f"begin {run}; exception when others then {run}; end;",
                f"if true then {run}; else {run}; end if;",
                f"case 1 when 1 then {run}; end case;",
                f"for i in 1..2 loop {run}; end loop;",
                f"<<a>> while true loop {run}; exit a; end loop;",
                f"execute {text};",
                f"execute {text} into got;",
                f"begin execute {text}; exception when others then null; end;",
                f"for r in execute {query} loop got := r::text; end loop;",
                f"for r in {command} loop got := r::text; end loop;",
                f"open c for execute {query}; fetch c into got; close c;",
                f"open c for {command};",
                f"got := query_to_xml({query}, true, false, '');",
                f"got := (select string_agg(word, ',') from ts_stat({query}));",
                f"perform ts_rewrite('a'::tsquery, {query});",
                f"got := {ME}.g();",
                f"call {ME}.p();",
                f"got := (select v::text from {ME}.v);",
                f"insert into {ME}.made default values;",
                f"perform {ME}.total('role', '{OTHER}_service_role');",
                f"perform 'x'::{ME}.checked;",
            ]
        )
    )
    return f"{body}"


@st.composite
def attacks(draw: st.DrawFn) -> list[str]:
    """Statements of a project's owner, of which the last makes the function that is called."""
    command = draw(commands())
    body = draw(st.sampled_from(COVERS)) + _plpgsql(draw, command)
    volatility = draw(st.sampled_from(["", "", "", "stable", "immutable"]))
    rights = draw(st.sampled_from(["", "", "security definer"]))
    clause = draw(
        st.sampled_from(
            [
                "",
                "",
                "",
                f"set role = {OTHER}_service_role",
                "set search_path = ''",
                "set standard_conforming_strings = off",
            ]
        )
    )
    options = f"{volatility} {rights} {clause}"
    selected = command if command[:6].lower() == "select" else "select 1"
    statements = [
        # Each may fail by itself; what is called is the last.
        f"create procedure {ME}.p() language plpgsql as $x${_block(body)}$x$",
        f"create procedure {ME}.p() language sql as $x${command}$x$",
        f"create function {ME}.g() returns text language sql as $x${command}; select 'x'::text$x$",
        f"create view {ME}.v as {selected} as v",
        f"grant select on {ME}.v to public",
        f"create table {ME}.made (a text default ({selected})::text, b text)",
        f"create table {ME}.made (a text default set_config('role', '{OTHER}_service_role', true))",
        f"create policy p on {ME}.made with check (set_config('role', '{OTHER}_service_role', true) is not null)",
        f"create domain {ME}.checked as text check (set_config('role', '{OTHER}_service_role', true) is not null)",
        f"create aggregate {ME}.total(text, boolean) (sfunc = set_config, stype = text)",
        f"create rule r as on insert to {ME}.made do also {selected}",
    ]
    kept = [statement for statement in statements if draw(st.booleans())]
    last = draw(
        st.sampled_from(
            [
                f"create function {ME}.f() returns text language plpgsql {options} as $body${_block(body)}$body$",
                f"create function {ME}.f() returns text language plpgsql {options} as $body${_block(body)}$body$",
                f"create function {ME}.f() returns text language plpgsql {options} as {_plain(_block(body))}",
                f"create function {ME}.f() returns text language sql {options} as $body${command}; select 'x'::text$body$",
                f"create function {ME}.f(a text default {ME}.g()) returns text language sql {options} as $body$select a$body$",
                f"create function {ME}.f() returns text language sql {options} begin atomic {selected}; select 'x'::text; end",
            ]
        )
    )
    after = draw(
        st.sampled_from(
            [
                [],
                [],
                [f"alter function {ME}.f() volatile"],
                [f"alter function {ME}.f() set role = {OTHER}_service_role"],
            ]
        )
    )
    return [*kept, last, *after]


def _block(body: str) -> str:
    return f"\ndeclare got text; r record; c refcursor;\nbegin\n{body}\nreturn coalesce(got, 'x');\nend\n"


def _plain(text: str) -> str:
    """For where backslashes in strings mean something, as for where they do not."""
    return "'" + text.replace("'", "''") + "'"


# The session -------------------------------------------------------------------------------------------------------------


class SharedSession:
    """A connection of the shared PostgREST's, with the statements that its driver has prepared."""

    def __init__(self, world: World) -> None:
        self.session = world.login(SHARED)
        self.session.prepare_threshold = None
        for name in (b"0", b"1"):
            self.session.pgconn.prepare(name, b"select 'PostgREST''s own'")
        # A setting of a request's stays as an empty one.
        self.request(VICTIM.schema, AccessLevel.ANON, "select 1")
        self.clean = self.state()

    def state(self) -> dict[str, Any]:
        """All that one transaction can leave to the next."""
        queries = {
            "who": "select current_user, session_user, current_setting('role')",
            "settings": "select name, setting from pg_settings where source = 'session' order by 1",
            "claims": "select coalesce(current_setting('request.jwt.claim.sub', true), ''), coalesce(current_setting('request.jwt.claim', true), '')",
            "statements": "select name, statement from pg_prepared_statements order by 1",
            "cursors": "select name from pg_cursors where is_holdable",
            "channels": "select pg_listening_channels()",
            "locks": "select locktype, objid from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'",
            "temporary objects": "select pg_my_temp_schema()",
        }
        return {about: self.session.execute(query.encode()).fetchall() for about, query in queries.items()}

    def request(self, schema: str, level: AccessLevel, statement: str, *, plain_strings: bool = True) -> list[Any]:
        """What a request's statement gives, and who runs the transaction after it."""
        names = ATTACKER if schema == ME else VICTIM
        with self.session.transaction():
            if not plain_strings:
                # PostgREST applies the settings of a role, which a lease of that role may have changed.
                self.session.execute("select set_config('standard_conforming_strings', 'off', true)")
            begin_request(self.session, names, level)
            rows = self.session.execute(statement.encode()).fetchall()
            return [*rows, self.session.execute("select current_user::text").fetchone()]

    def close(self) -> None:
        self.session.close()


@pytest.fixture(scope="module")
def shared(world: World) -> Iterator[SharedSession]:
    made = SharedSession(world)
    yield made
    made.close()


CLEAN_UP = f"""
    drop view if exists {ME}.v cascade;
    drop table if exists {ME}.made cascade;
    drop domain if exists {ME}.checked cascade;
    drop aggregate if exists {ME}.total (text, boolean);
    drop procedure if exists {ME}.p();
    drop function if exists {ME}.f(), {ME}.f(text) cascade;
    drop function if exists {ME}.g() cascade;
"""


@contextmanager
def made(world: World, statements: list[str], *, plain_strings: bool = True) -> Iterator[list[str]]:
    """What a project's owner can make of the statements, each by itself; gives what came of them."""
    owner = world.owner(ATTACKER)
    found = []
    try:
        owner.execute(f"set standard_conforming_strings = {'on' if plain_strings else 'off'}".encode())
        for statement in statements:
            try:
                owner.execute(statement.encode())
                found.append("made")
            except psycopg.Error as error:
                found.append("refused" if REFUSED in str(error) else f"error {error.sqlstate}")
        yield found
    finally:
        owner.execute("reset standard_conforming_strings")
        owner.execute(CLEAN_UP.encode())


COUNTS: Counter[str] = Counter()


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    statements=attacks(),
    plain_when_made=st.booleans(),
    plain_when_called=st.booleans(),
    level=st.sampled_from(sorted(API_LEVELS)),
)
def test_what_is_let_in_leaves_the_session_as_it_was(
    world: World,
    shared: SharedSession,
    statements: list[str],
    plain_when_made: bool,
    plain_when_called: bool,
    level: AccessLevel,
) -> None:
    with made(world, statements, plain_strings=plain_when_made) as found:
        COUNTS.update(found)
        COUNTS["functions"] += 1
        outcome = "not made"
        for call in (f"select {ME}.f()::text", f"select total from {ME}.notes, lateral {ME}.f() as total"):
            try:
                *rows, who = shared.request(ME, level, call, plain_strings=plain_when_called)
            except psycopg.Error as error:
                outcome = f"stopped {error.sqlstate}"
            else:
                outcome = "ran"
                assert who == (ATTACKER.role(level),), statements
                assert SECRET not in str(rows), statements
            COUNTS[outcome] += 1
            assert shared.state() == shared.clean, statements
    *rows, who = shared.request(VICTIM.schema, AccessLevel.ANON, "select body from notes where open")
    assert (rows, who) == ([("public",)], (VICTIM.role(AccessLevel.ANON),))


def test_the_attempts_are_let_in_and_refused_and_run(shared: SharedSession) -> None:
    """So that the test above cannot pass for want of functions."""
    assert shared.clean["statements"] == [("0", "select 'PostgREST''s own'"), ("1", "select 'PostgREST''s own'")]
    assert COUNTS["refused"] > 100
    assert COUNTS["made"] > 500
    assert COUNTS["ran"] > 50
    assert COUNTS["stopped 42501"] > 10


@pytest.mark.parametrize("end", ["perform '\\'';", ""])
@pytest.mark.parametrize("first", [False, True])
def test_a_text_is_not_read_with_one_setting_and_run_with_the_other(
    world: World, shared: SharedSession, first: bool, end: str
) -> None:
    """A text of plpgsql is read when it is first called, each statement in it when that first runs."""
    hidden = f"insert into {ME}.notes (body) values ('\\'); set local role {OTHER}_service_role; --');"
    body = f"begin if run then {hidden}\nend if; if false then {end or 'null;'} end if; return current_user; end"
    statements = [
        f"create function {ME}.g(run boolean) returns text language plpgsql as $f${body}$f$",
        (
            f"create function {ME}.f() returns text language sql set standard_conforming_strings = {'on' if first else 'off'}"
            f" as 'select {ME}.g(false)'"
        ),
    ]
    with made(world, statements, plain_strings=first) as found:
        for call in (f"select {ME}.f()", f"select {ME}.g(true)"):
            try:
                rows = shared.request(ME, AccessLevel.ANON, call, plain_strings=not first)
            except psycopg.Error:
                continue
            assert {who for (who,) in rows} == {ATTACKER.role(AccessLevel.ANON)}, found
        assert shared.state() == shared.clean


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.split()[0] not in _LET_IN])
@pytest.mark.parametrize("language", ["sql", "plpgsql"])
def test_each_command_is_refused_where_a_statement_begins(world: World, language: str, command: str) -> None:
    text = f"begin {command}; end" if language == "plpgsql" else command
    row = world.rows("select count(*) from data_plane.refused_tokens(%s, %s)", language, text)[0]
    expected = not (language == "plpgsql" and command.startswith("declare"))
    assert (row[0] > 0) == expected


# The scanner ---------------------------------------------------------------------------------------------------------------

WORDS = ["set", "reset", "execute", "prepare", "deallocate", "discard", "listen", "unlisten", "load", "do"]
BEGINS = {";", ">>", "begin", "then", "else", "loop", "query", "in", "for", "is"}
PIECES = [
    *WORDS, *BEGINS, "'", "''", '"', "\\", "E'", "e'", "b'", "x'", "n'", "U&'", 'u&"', "$", "$$", "$a$", "$1", "$é$", "/", "*",
    "/*", "*/", "-", "--", "\n", "\r", "\f", "\t", " ", " ", " ", "\u00a0", "a", "e", "b", "u", "&", "é", "_", "1", ".", "(", ")", "=",
    "constraints", "as", "to", ">", "conflict", "update",
]  # fmt: skip


def commands_in(text: str) -> set[str]:
    """The words that begin a statement, by PostgreSQL's own scanner."""
    before, found = ";", set()
    for token in scan(text):
        if token.name in {"SQL_COMMENT", "C_COMMENT"}:
            continue
        word = text[token.start : token.end + 1].lower()
        if token.kind != "NO_KEYWORD" and word in WORDS and before in BEGINS:
            found.add(word)
        before = word
    return found


@settings(
    max_examples=1500, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=30))
@example(pieces=["a", "*", "/*", " ", "*/", ";", "set"])
@example(pieces=["$a$", "$", "$a$", ";", "do"])
@example(pieces=["e'", "\\", "'", ";", "'", ";", "reset"])
def test_no_command_that_postgresqls_scanner_sees_is_missed(world: World, pieces: list[str]) -> None:
    text = "".join(pieces)
    try:
        expected = commands_in(text)
    except (ParseError, UnicodeDecodeError):
        return
    if "set" in expected and "constraints" in text:
        return
    found = {row[0] for row in world.rows("select token from data_plane.refused_tokens('plpgsql', %s)", text)}
    assert not expected or found, text
    COUNTS["commands seen"] += bool(expected)


def test_the_scanner_was_shown_commands() -> None:
    assert COUNTS["commands seen"] > 100


# Ordinary functions --------------------------------------------------------------------------------------------------------


def ordinary() -> list[Any]:
    parts = re.split(r"^-- name: (.+)$", ORDINARY.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return [pytest.param(text, id=name) for name, text in zip(parts[::2], parts[1::2], strict=True)]


@pytest.mark.parametrize("statement", ordinary())
def test_an_ordinary_function_is_let_in(world: World, statement: str) -> None:
    owner = world.owner(ATTACKER)
    with owner.transaction(force_rollback=True):
        owner.execute("set local check_function_bodies = off")
        owner.execute(statement.encode())


MEDIA_TYPE = f"""
    create domain {ME}."text/x" as text;
    create function {ME}.f({ME}."text/x", {{rows}}) returns {ME}."text/x" language sql immutable as $$select $1$$;
    create aggregate {ME}.f({{rows}}) (sfunc = {ME}.f, stype = {ME}."text/x");
"""


# Where it is judged --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        f"create function {ME}.f() returns void language plpgsql as $$begin reset all; end$$",
        f"create procedure {ME}.f() language sql as $$reset all$$",
        f"create function {ME}.f() returns int language sql set role = {ME}_owner as $$select 1$$",
        f"alter function {ME}.answer() set role = {ME}_anon",
        f"alter function {ME}.answer() set session_authorization = {ME}_anon",
        f"alter routine {ME}.answer() set role = {ME}_anon",
        f"alter function {ME}.answer() set seed = 0.5",
        f"create function {ME}.f() returns text language plpgsql stable as $$begin execute 'x'; end$$; alter function {ME}.f() volatile",
        f"set check_function_bodies = off; create function {ME}.f() returns int language sql as $$ select 1; reset all $$",
        # PostgREST would answer all projects' requests with it.
        MEDIA_TYPE.format(rows="anyelement"),
    ],
)
def test_it_is_judged_whenever_it_is_made_or_changed(world: World, statement: str) -> None:
    owner = world.owner(ATTACKER)
    with pytest.raises(InsufficientPrivilege, match=REFUSED) as caught, owner.transaction():
        owner.execute(statement.encode())
    assert "api: dedicated" in str(caught.value.diag.message_hint)


def test_an_aggregate_may_answer_for_a_table_of_the_project_s(world: World) -> None:
    owner = world.owner(ATTACKER)
    with owner.transaction(force_rollback=True):
        owner.execute(MEDIA_TYPE.format(rows=f"{ME}.notes").encode())


@contextmanager
def declared(world: World, login: str | None) -> Iterator[Connection]:
    """The attacker declared to be served otherwise, in a transaction that is undone."""
    with world.admin() as admin, admin.transaction(force_rollback=True):
        admin.execute("update data_plane.api_access set login = %s where tenant = %s", [login, ME])
        admin.execute("select data_plane.apply_api_access(%s)", [ME])
        yield admin


@pytest.mark.parametrize("login", [None, ATTACKER.authenticator])
def test_who_shares_no_session_is_free_and_cannot_be_given_to_a_shared_one_as_it_is(
    world: World, login: str | None
) -> None:
    if login:
        with world.admin() as admin:
            admin.execute(sql.SQL("create role {} login noinherit").format(sql.Identifier(login)))
    try:
        with declared(world, login) as admin:
            admin.execute(sql.SQL("set local role {}").format(sql.Identifier(f"{ME}_owner")))
            admin.execute("select set_config('a.b', 'x', true)")
            admin.execute(
                f"create function {ME}.f() returns void language plpgsql as $$begin\nreset all; end$$".encode()
            )
            admin.execute("reset role")
            admin.execute("update data_plane.api_access set login = %s where tenant = %s", [SHARED, ME])
            with pytest.raises(InsufficientPrivilege, match=rf"{ME}.f\(\), line 2: reset"):
                admin.execute("select data_plane.apply_api_access(%s)", [ME])
    finally:
        if login:
            with world.admin() as admin:
                admin.execute(sql.SQL("drop role {}").format(sql.Identifier(login)))


def test_a_function_that_is_not_committed_yet_holds_up_the_switch_to_a_shared_session(world: World) -> None:
    owner = world.owner(ATTACKER)
    with world.admin() as admin, owner.transaction(force_rollback=True):
        owner.execute(f"create function {ME}.f() returns int language sql as $$select 1$$".encode())
        admin.execute("set lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            admin.execute("update data_plane.api_access set login = %s where tenant = %s", [SHARED, ME])


def test_a_tenant_that_was_served_before_there_was_admission_is_withheld_and_the_others_go_on(world: World) -> None:
    present = b"select tenant, (data_plane.present_api_access(tenant)).login from data_plane.api_access"
    with world.admin() as admin, admin.transaction(force_rollback=True):
        admin.execute("alter event trigger data_plane_admission disable")
        admin.execute(f"create function {ME}.f() returns void language plpgsql as $$begin reset all; end$$".encode())
        rows = admin.execute("select found, remedy from data_plane.privilege_drift(%s)", [[ME, OTHER]]).fetchall()
        found = {str(row[0]): str(row[1]) for row in rows if row[1] and "serve_or_withhold" in str(row[1])}
        assert [line.partition(" has no place")[0] for line in found] == [f"{ME}.f(), line 1 of its text: reset"]
        admin.execute("select data_plane.serve_or_withhold(tenant) from data_plane.api_access")
        logins: dict[Any, Any] = dict(admin.execute(present).fetchall())
        assert (logins[ME], logins[OTHER]) == (None, SHARED)
        admin.execute(f"drop function {ME}.f()".encode())
        admin.execute("select data_plane.serve_or_withhold(tenant) from data_plane.api_access")
        logins = dict(admin.execute(present).fetchall())
        assert logins[ME] == SHARED


# What is built in ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", list(AccessLevel))
def test_no_role_of_a_tenant_in_a_shared_session_may_call_what_changes_it(world: World, level: AccessLevel) -> None:
    rows = world.rows(
        "select signature, has_function_privilege(%s, signature, 'execute'), has_function_privilege(%s, signature, 'execute')"
        " from data_plane.session_functions order by 1",
        ATTACKER.role(level),
        f"proj_delta_{level.value.replace('-', '_')}",
    )
    assert [row[1:] for row in rows] == [(False, True)] * 2


@pytest.mark.parametrize(
    ("extension", "function"),
    [
        ("pg_trgm", "set_limit(real)"),
        ("xml2", "xpath_table(text, text, text, text, text)"),
        ("refint", "check_primary_key()"),
        ("isn", "isn_weak(boolean)"),
    ],
)
def test_what_of_an_extension_changes_the_session_is_not_for_everybody(
    world: World, extension: str, function: str
) -> None:
    if not world.rows("select from pg_available_extensions where name = %s", extension):
        pytest.skip(f"this server has no {extension}")
    with world.admin() as admin, admin.transaction(force_rollback=True):
        admin.execute(f"create extension if not exists {extension} schema extensions".encode())
        row = admin.execute(
            "select has_function_privilege(%s, %s, 'execute')", [f"{ME}_owner", f"extensions.{function}"]
        ).fetchone()
        assert row == (False,)


# Every volatile function of PostgreSQL's own that everybody may call, and why it may be called in a shared session.
DECIDED = {
    "taken by the guard": r"pg_(try_)?advisory_(un)?lock(_all|_shared)?|pg_logical_emit_message",
    "of the transaction": r"pg_(try_)?advisory_xact_lock(_shared)?|pg_export_snapshot|pg_notify|pg_sleep(_for|_until)?",
    "runs text that can only read": r"(query|cursor)_to_xml\w*|ts_stat|ts_rewrite",
    "one's own objects, by their rights": r"lo_\w+|loread|lowrite|nextval|setval|currval|lastval|brin_\w+|gin_\w+"
    r"|pg_(clear|restore)_(attribute|relation)_stats|pg_get_sequence_data|pg_sequence_last_value|currtid2?",
    "takes a right or a mode that tenants do not have": r"binary_upgrade_\w+|pg_\w*(replication|logical)_slots?\w*"
    r"|pg_import_system_collations|pg_(cancel|terminate)_backend|pg_nextoid|pg_stop_making_pinned_objects"
    r"|pg_extension_config_dump|pg_(read_file|rotate_logfile)_old|pg_isolation_test_session_is_blocked",
    "reads": r"pg_stat_get_\w+|pg_\w+_size|pg_(current|last)_\w+|pg_control_\w+|pg_(is|get)_wal_\w+|pg_is_in_recovery"
    r"|pg_xact_\w+|pg_\w*collation_actual_version|pg_partition_\w+|pg_blocking_pids|pg_safe_snapshot_blocking_pids"
    r"|pg_get_(multixact_members|loaded_modules|wait_events)|pg_jit_available|pg_lock_status|pg_prepared_xact"
    r"|pg_notification_queue_usage|pg_(available_wal_summaries|wal_summary_contents)|txid_status|current_query|amvalidate"
    r"|clock_timestamp|timeofday|random(_normal)?|array_(sample|shuffle)|gen_random_uuid|uuidv[47]",
    "its own session's statistics": r"pg_stat_(clear_snapshot|force_next_flush)",
    "cannot be called by itself": r"plpgsql_(call_handler|validator)",
}


def test_every_function_that_everybody_may_call_was_looked_at(world: World) -> None:
    rows = world.rows(
        """
        select distinct proname::text from pg_proc
        where pronamespace = 'pg_catalog'::regnamespace and provolatile = 'v' and prokind in ('f', 'p')
            and has_function_privilege('public', oid, 'execute')
            and prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
            and not 'internal'::regtype = any (proargtypes)
        """
    )
    unknown = {row[0] for row in rows if not any(re.fullmatch(pattern, row[0]) for pattern in DECIDED.values())}
    assert unknown == set()


def test_functions_that_run_text_let_it_read_alone(shared: SharedSession) -> None:
    for text in ("set role none", f"insert into {ME}.notes (body) values ('x')", "reset all", "prepare a as select 1"):
        for call in ("query_to_xml(%s, true, false, '')", "(select count(*) from ts_stat(%s))"):
            with shared.session.transaction(force_rollback=True):
                begin_request(shared.session, ATTACKER, AccessLevel.SERVICE_ROLE)
                with pytest.raises(psycopg.Error):
                    shared.session.execute(f"select {call}".encode(), [text])
    assert shared.state() == shared.clean


# The first words of PostgreSQL's commands. What is neither refused nor looked at fails the test below.
LOOKED_AT = {
    "of the transaction, and not let into a function": "abort begin commit end release rollback savepoint start",
    "objects, by their rights": "alter comment create drop grant import reassign refresh reindex revoke security truncate",
    "rows, by their rights": "copy delete insert merge select table update values with",
    "cursors of the transaction": "close fetch move",
    "nothing that lasts": "analyze call checkpoint cluster explain lock notify show vacuum",
    "refused": "deallocate declare discard do execute listen load prepare reset set unlisten",
}


def test_every_command_of_this_postgresql_was_looked_at(world: World) -> None:
    server = world.plane.local_env.servers.postgres
    environment = {"PGPASSWORD": server.admin_password, "PATH": os.environ["PATH"]}
    response = subprocess.run(
        [
            server.binaries / "psql",
            "-X",
            "-h",
            "127.0.0.1",
            "-p",
            str(server.port),
            "-U",
            "supabase_admin",
            "-c",
            r"\h",
            "postgres",
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    commands = {word.split()[0].lower() for word in re.findall(r"\b[A-Z]{2,}(?: [A-Z]+)*", response.stdout)}
    assert {"set", "select", "listen"} < commands
    assert commands - {word for words in LOOKED_AT.values() for word in words.split()} == set()
