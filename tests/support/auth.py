"""Auth's tables, and what it writes into them."""

import json
from typing import Any

import psycopg

from data_plane.local.postgres import LocalPostgres
from tests.support.platform_database import (
    api_request,
    connect,
    new_id,
    run,
)

# The columns of Auth's tables that matter here, as Auth makes them: with its own login.
AUTH_TABLES = """
    grant create, usage on schema auth to supabase_auth_admin;
    set role supabase_auth_admin;
    create table auth.users (
        id uuid primary key,
        email text,
        raw_app_meta_data jsonb,
        raw_user_meta_data jsonb,
        last_sign_in_at timestamptz
    );
    alter table auth.users add column email_confirmed_at timestamptz;
    create table auth.sessions (id uuid primary key, user_id uuid not null references auth.users (id) on delete cascade);
    alter table auth.sessions add column user_agent text;
    grant select on auth.users, auth.sessions to postgres with grant option;
"""


class User:
    """A user as Auth makes one, and what is done with that user's token."""

    def __init__(self, database: LocalPostgres, *, named: object = None, confirmed: bool = False) -> None:
        self._database = database
        self.id = new_id()
        self.email = f"{self.id[:8]}@example.org"
        with connect(database, "supabase_auth_admin") as auth:
            auth.execute(
                "insert into auth.users (id, email, raw_app_meta_data, raw_user_meta_data, email_confirmed_at)"
                " values (%s, %s, '{}', %s, case when %s then now() end)",
                [self.id, self.email, json.dumps({} if named is None else {"project": named}), confirmed],
            )
        self.session = self.sign_in()

    def sign_in(self, project: str | None = None) -> str:
        """Begins a session, as from a request that the gateway let through with this X-Data-Plane-Project."""
        self.session = new_id()
        agent = "Mozilla/5.0 (X11)" + (f" data-plane-project/{project}" if project is not None else "")
        with connect(self._database, "supabase_auth_admin") as auth:
            auth.execute("insert into auth.sessions values (%s, %s, %s)", [self.session, self.id, agent])
        return self.session

    def confirm(self) -> None:
        with connect(self._database, "supabase_auth_admin") as auth:
            auth.execute("update auth.users set email_confirmed_at = now() where id = %s", [self.id])

    def projects(self) -> list[str]:
        rows = run(self._database, "select tenant from data_plane.members where user_id = %s order by 1", self.id)
        return [row[0] for row in rows]

    def token(self, method: str = "password", **changes: object) -> dict[str, Any]:
        """The claims of a token that Auth would sign now."""
        ((app_metadata,),) = run(self._database, "select raw_app_meta_data from auth.users where id = %s", self.id)
        claims = {
            "aud": "authenticated",
            "exp": 1,
            "iat": 1,
            "sub": self.id,
            "email": self.email,
            "phone": "",
            "role": "authenticated",
            "aal": "aal1",
            "session_id": self.session,
            "is_anonymous": False,
            "app_metadata": app_metadata,
            "user_metadata": {},
            **changes,
        }
        return hook(self._database, self.id, claims, method)

    def call(self, function: str, *values: object, role: str = "authenticated", **claims: object) -> list[Any]:
        """Calls a function with this user's token, through PostgREST."""
        given = {"sub": self.id, "session_id": self.session, **claims}
        with api_request(self._database, role, given) as session:
            return rpc(session, function, *values)


def rpc(session: "psycopg.Connection[tuple[Any, ...]]", function: str, *values: object, **named: object) -> list[Any]:
    arguments = [*["%s"] * len(values), *(f"{name} => %s" for name in named)]
    query = f"select * from data_plane_api.{function}({', '.join(arguments)})"
    return session.execute(query.encode(), [*values, *named.values()]).fetchall()


def hook(database: LocalPostgres, user_id: str, claims: dict[str, Any], method: str = "password") -> dict[str, Any]:
    """What Auth does before it signs: the function in its own transaction, which waits for nobody for long."""
    event = {"metadata": {"name": "customize-access-token"}, "user_id": user_id, "authentication_method": method}
    with connect(database, "supabase_auth_admin") as auth:
        auth.execute("set local statement_timeout to '10s'")
        row = auth.execute(
            'select "data_plane"."access_token_hook"(%s)', [json.dumps({**event, "claims": claims})]
        ).fetchone()
    assert row is not None
    assert set(row[0]) == {"claims"}
    return dict(row[0]["claims"])
