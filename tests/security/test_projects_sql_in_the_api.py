"""What SQL of a project's own can do to others from inside of a request, and to the requests that follow: nothing.

In a cell's PostgREST admission refuses the function, or PostgreSQL what it calls. In a PostgREST of the project's own
(`api: dedicated`) the function runs, and has nobody else to do it to.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.errors import InsufficientPrivilege

from data_plane.model.naming import AccessLevel
from tests.security.isolation import Actor, Door
from tests.security.world import CELL, VICTIM, Connection, World, begin_request, tenant_of

DOORS = [Door.TOKEN, Door.DEDICATED]
SOMEBODY = "6f1c8a52-6f0e-4a53-9f3a-0d3c1f7f2f10"

# A function that the project's owner makes, and calls over the API as anybody.
FUNCTIONS = {
    "becomes another": """
        create function {me}.f() returns text language plpgsql as $$
        begin
            set local role {other}_service_role;
            return (select string_agg(body, ',') from {other}.secrets);
        exception when insufficient_privilege then
            return null;
        end $$""",
    "becomes another, without a command": """
        create view {me}.switch as select set_config('role', '{other}_service_role', true) as done;
        grant select on {me}.switch to {me}_anon;
        create function {me}.f() returns text language plpgsql as $$
        begin
            perform done from {me}.switch;
            return (select string_agg(body, ',') from {other}.secrets);
        exception when insufficient_privilege then
            return null;
        end $$""",
    "waits for the next request": """
        create function {me}.set_config(text, text, boolean) returns text language plpgsql as $$
        begin
            if $1 = 'request.jwt.claims' then
                set local role {me}_anon;
                insert into {me}.caught values ($2);
                set local role {other}_anon;
            end if;
            return pg_catalog.set_config($1, $2, $3);
        end $$;
        create function {me}.f() returns text language sql as $$
            select pg_catalog.set_config('search_path', '{me}, pg_catalog', false)
                || pg_catalog.set_config('role', '{me}_anon', false)
        $$""",
    "says who the next one is": """
        create function {me}.f() returns text language sql as $$
            select pg_catalog.set_config('request.jwt.claim', '{{"sub": "{somebody}"}}', false)
        $$""",
    "shadows the next one's tables": """
        create function {me}.f() returns text language plpgsql as $$
        begin
            create temporary table notes as select 0 as id, 'not the real one' as body, true as open;
            grant select on notes to public;
            return null;
        end $$""",
}
CAUGHT = """
    create table {me}.caught (claims text);
    create policy caught on {me}.caught with check (true);
"""
CLEAN_UP = """
    drop function if exists {me}.f();
    drop view if exists {me}.switch;
    drop function if exists {me}.set_config(text, text, boolean);
    drop table if exists {me}.caught;
"""


class Attack:
    """A project's function, its call, and a request of the other project's that PostgREST serves next."""

    def __init__(self, world: World, door: Door) -> None:
        self.world = world
        self.refused = False
        self.mine = tenant_of(Actor(door, AccessLevel.ANON))
        self.session = world.login(self.mine.authenticator if door is Door.DEDICATED else CELL.login)
        # Of the cell's PostgREST's connections the one that the call was on.
        self.others = world.login(CELL.login) if door is Door.DEDICATED else self.session

    def prepare(self, function: str) -> None:
        """Makes the function, unless admission refuses it."""
        try:
            self.as_owner(FUNCTIONS[function])
        except InsufficientPrivilege as refused:
            if "session that projects share" not in str(refused):
                raise
            self.refused = True

    def call(self) -> Any:
        """What the function gives; None if there is none, or PostgreSQL refuses what it does."""
        if self.refused:
            return None
        try:
            with self.session.transaction():
                begin_request(self.session, self.mine, AccessLevel.ANON)
                return self._one(self.session, f"select {self.mine.schema}.f()")
        except InsufficientPrivilege:
            return None

    def next_request(self, statement: str) -> Any:
        with self.others.transaction():
            begin_request(self.others, VICTIM, AccessLevel.ANON, {"sub": "11111111-1111-4111-8111-111111111111"})
            return self._one(self.others, statement)

    def end(self) -> None:
        self.session.close()
        self.others.close()
        self.as_owner(CLEAN_UP)

    def as_owner(self, statements: str) -> None:
        """With a lease; the schemas are filled in."""
        values = {"me": self.mine.schema, "other": VICTIM.schema, "somebody": SOMEBODY}
        self.world.owner(self.mine).execute(statements.format_map(values).encode())

    @staticmethod
    def _one(session: Connection, statement: str) -> Any:
        row = session.execute(statement.encode()).fetchone()
        return None if row is None else row[0]


@pytest.fixture
def attack(world: World, door: Door) -> Iterator[Attack]:
    made = Attack(world, door)
    yield made
    made.end()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("function", ["becomes another", "becomes another, without a command"])
def test_it_reads_nothing_of_another_project(attack: Attack, function: str) -> None:
    attack.prepare(function)
    assert attack.call() is None


@pytest.mark.parametrize("door", DOORS)
def test_it_does_not_hear_the_requests_that_follow(attack: Attack) -> None:
    attack.as_owner(CAUGHT)
    attack.prepare("waits for the next request")
    attack.call()
    attack.next_request("select 1")
    caught = attack.world.rows(f"select claims from {attack.mine.schema}.caught")
    assert caught == []


@pytest.mark.parametrize("door", DOORS)
def test_it_does_not_change_who_the_next_request_is_from(attack: Attack) -> None:
    attack.prepare("says who the next one is")
    attack.call()
    assert str(attack.next_request("select auth.uid()")) == "11111111-1111-4111-8111-111111111111"


@pytest.mark.parametrize("door", DOORS)
def test_it_does_not_change_what_the_next_request_reads(attack: Attack) -> None:
    attack.prepare("shadows the next one's tables")
    attack.call()
    assert attack.next_request("select body from notes where open limit 1") == "public"


@pytest.mark.parametrize("door", DOORS)
def test_admission_refuses_what_it_can_see_and_lets_a_dedicated_project_have_it(attack: Attack, door: Door) -> None:
    seen = {"becomes another", "waits for the next request", "says who the next one is"}
    refused = set()
    for function in FUNCTIONS:
        attack.refused = False
        attack.prepare(function)
        if attack.refused:
            refused.add(function)
        attack.as_owner(CLEAN_UP)
    assert refused == (seen if door is Door.TOKEN else set())
