"""The types of the postgresql provider that the program uses, on a live PostgreSQL.

What each does is what pulumi-postgresql does for the same inputs; statements are composed with :mod:`psycopg.sql`.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from data_plane.clients.postgres import PLATFORM_SESSION, explain, when_ready
from data_plane.local.providers.base import Found, Inputs, LocalProvider, ProviderError, ResourceType

__all__ = ["PostgresqlProvider"]

Statement = sql.SQL | sql.Composed

_POOL_SIZE = 8
_WAIT_SECONDS = 30
_IDLE_SECONDS = 2
_TRIES = 5
_MET_ANOTHER = ("tuple concurrently updated", "tuple concurrently deleted", "pg_db_role_setting_databaseid_rol_index")
"""What PostgreSQL says where another session has changed, dropped or made the same row of the catalog."""

# Statements that would update the same catalog row at the same time take turns, by a lock that no tenant can take, as
# anybody can an advisory one, and that keeps no lease waiting.
_GRANTS, _MEMBERS, _DEFAULTS = "pg_namespace", "pg_auth_members", "pg_default_acl"

_ATTRIBUTES: dict[str, tuple[LiteralString, LiteralString, LiteralString, bool]] = {
    "login": ("rolcanlogin", "login", "nologin", False),
    "inherit": ("rolinherit", "inherit", "noinherit", True),
    "superuser": ("rolsuper", "superuser", "nosuperuser", False),
    "createRole": ("rolcreaterole", "createrole", "nocreaterole", False),
    "createDatabase": ("rolcreatedb", "createdb", "nocreatedb", False),
    "replication": ("rolreplication", "replication", "noreplication", False),
    "bypassRowLevelSecurity": ("rolbypassrls", "bypassrls", "nobypassrls", False),
}
_SETTINGS: dict[str, LiteralString] = {
    "searchPaths": "search_path",
    "statementTimeout": "statement_timeout",
    "idleInTransactionSessionTimeout": "idle_in_transaction_session_timeout",
}
_ROLE_DEFAULTS: Inputs = {
    **{key: default for key, (*_, default) in _ATTRIBUTES.items()},
    "connectionLimit": -1,
    "roles": [],
    "searchPaths": [],
    "statementTimeout": 0,
    "idleInTransactionSessionTimeout": 0,
}
_DEFAULT_OBJECTS: dict[str, tuple[str, LiteralString]] = {
    "table": ("r", "tables"),
    "sequence": ("S", "sequences"),
    "function": ("f", "functions"),
}


class PostgresqlProvider(LocalProvider):
    """A pool of connections as the provider's user."""

    def connect(self, inputs: Inputs) -> None:
        # As in the official provider, all of them are optional.
        host, port = inputs.get("host"), int(inputs.get("port") or 5432)
        self._place = f"{host}:{port}"
        self._arguments: dict[str, Any] = {
            "host": host,
            "port": port,
            "dbname": inputs.get("database") or "postgres",
            "user": inputs.get("username") or "postgres",
            "password": inputs.get("password"),
            "sslmode": inputs.get("sslmode") or "require",
            "connect_timeout": int(inputs.get("connectTimeout") or 15),
            "application_name": "supabase-data-plane",
            "options": PLATFORM_SESSION,
        }
        self._pool: ConnectionPool[psycopg.Connection[dict[str, Any]]] = ConnectionPool(
            # Reads need no transaction around them; `_run` begins its own.
            kwargs={**self._arguments, "row_factory": dict_row, "autocommit": True},
            min_size=0,
            max_size=_POOL_SIZE,
            timeout=_WAIT_SECONDS,
            # Soon given back: where few are left, dynamic resources need some too.
            max_idle=_IDLE_SECONDS,
            open=False,
        )

    def type(self, token: str) -> ResourceType | None:
        return self._types.get(token)

    @cached_property
    def _types(self) -> Mapping[str, ResourceType]:
        return {
            "postgresql:index/role:Role": ResourceType(
                self._read_role,
                self._write_role,
                self._delete_role,
                keys=("name",),
                id="{name}",
                unordered=("roles",),
                write_only=("password",),
                secret=("password",),
                defaults=_ROLE_DEFAULTS,
            ),
            "postgresql:index/database:Database": ResourceType(
                self._read_database,
                self._write_database,
                lambda d: self._outside_transaction(_statement("drop database {}", d["name"])),
                keys=("name",),
                id="{name}",
            ),
            "postgresql:index/schema:Schema": ResourceType(
                self._read_schema,
                self._write_schema,
                self._delete_schema,
                keys=("name", "database"),
                id="{database}.{name}",
                write_only=("ifNotExists", "dropCascade"),
                complete=self._with_database,
            ),
            "postgresql:index/grant:Grant": ResourceType(
                self._read_grant,
                self._write_grant,
                lambda d: self._write_grant({**d, "privileges": []}, None),
                keys=("role", "database", "schema", "objectType"),
                unordered=("privileges",),
            ),
            "postgresql:index/grantRole:GrantRole": ResourceType(
                self._read_membership,
                lambda d, _found: self._run(_statement("grant {} to {}", d["grantRole"], d["role"]), lock=_MEMBERS),
                lambda d: self._run(_statement("revoke {} from {}", d["grantRole"], d["role"]), lock=_MEMBERS),
                keys=("role", "grantRole"),
            ),
            "postgresql:index/defaultPrivileges:DefaultPrivileges": ResourceType(
                self._read_defaults,
                self._write_defaults,
                lambda d: self._write_defaults({**d, "privileges": []}, None),
                keys=("role", "database", "owner", "schema", "objectType"),
                unordered=("privileges",),
            ),
            "postgresql:index/extension:Extension": ResourceType(
                self._read_extension,
                self._write_extension,
                lambda d: self._run(_statement("drop extension {}", d["name"])),
                keys=("name", "database"),
                id="{database}.{name}",
                complete=self._with_database,
            ),
        }

    def explain(self, error: Exception) -> str | None:
        if isinstance(error, PoolTimeout):
            return f"PostgreSQL at {self._place} gave no connection within {_WAIT_SECONDS} s: {self._cause()}"
        if isinstance(error, psycopg.Error):
            return f"PostgreSQL at {self._place}: {explain(error)}"
        return None

    def close(self) -> None:
        super().close()
        self._pool.close()

    def _with_database(self, inputs: Inputs) -> Inputs:
        return {"database": self._arguments["dbname"], **inputs}

    def _cause(self) -> str:
        """Why the pool has none, which it keeps to itself."""
        try:
            psycopg.connect(**self._arguments).close()
        except psycopg.Error as error:
            return explain(error)
        return "all were in use. Run the same command again."

    def _rows(self, query: LiteralString, *values: object, database: str | None = None) -> list[dict[str, Any]]:
        with self._connection(database) as connection:
            return list(connection.execute(query, values).fetchall())

    def _connection(self, database: str | None = None) -> AbstractContextManager[psycopg.Connection[dict[str, Any]]]:
        if database not in (None, self._arguments["dbname"]):
            # A few schemas of the platform are in another one; that is no reason to keep a pool.
            return psycopg.connect(**{**self._arguments, "dbname": database}, row_factory=dict_row, autocommit=True)
        with self._lock:
            if self._pool.closed:
                # A pool goes on trying and keeps the cause to itself; one connection says it at once.
                when_ready(lambda: psycopg.connect(**self._arguments)).close()
                self._pool.open()
        return self._pool.connection()

    def _run(self, *statements: Statement, lock: str | None = None, database: str | None = None) -> None:
        """Runs statements in a transaction, again if another session has changed a row of the catalog meanwhile.

        The guard does: it makes the settings of roles what was just declared for them, and takes no turns.
        """
        for tries_left in reversed(range(_TRIES)):
            try:
                self._run_once(statements, lock, database)
            except (psycopg.errors.InternalError_, psycopg.errors.UniqueViolation) as error:
                if not tries_left or not any(words in str(error) for words in _MET_ANOTHER):
                    raise
            else:
                return

    def _run_once(self, statements: Iterable[Statement], lock: str | None, database: str | None) -> None:
        with self._connection(database) as connection, connection.transaction():
            if lock:
                table = sql.Identifier("pg_catalog", lock)
                connection.execute(sql.SQL("lock table {} in share update exclusive mode").format(table))
            for statement in statements:
                connection.execute(statement)

    # Role

    def _read_role(self, desired: Inputs) -> Found | None:
        name = desired["name"]
        rows = self._rows(
            """
            select r.rolconnlimit, r.rolcanlogin, r.rolinherit, r.rolsuper, r.rolcreaterole, r.rolcreatedb,
                r.rolreplication, r.rolbypassrls,
                array(select pg_get_userbyid(m.roleid) from pg_auth_members m where m.member = r.oid) as roles,
                coalesce((select s.setconfig from pg_db_role_setting s where s.setrole = r.oid and s.setdatabase = 0),
                    '{}') as settings
            from pg_roles r where r.rolname = %s
            """,
            name,
        )
        if not rows:
            return None
        row = rows[0]
        settings = dict(item.split("=", 1) for item in row["settings"])
        search_path = settings.get("search_path", "")
        return {
            "name": name,
            "connectionLimit": row["rolconnlimit"],
            "roles": row["roles"],
            "searchPaths": [part.strip().strip('"') for part in search_path.split(",") if part.strip()],
            **{key: row[column] for key, (column, *_) in _ATTRIBUTES.items()},
            **{
                key: int(settings[_SETTINGS[key]]) if settings.get(_SETTINGS[key], "").isdecimal() else 0
                for key in ("statementTimeout", "idleInTransactionSessionTimeout")
            },
        }

    def _write_role(self, desired: Inputs, found: Found | None) -> None:
        role = sql.Identifier(desired["name"])
        words: list[Statement] = [
            sql.SQL(on if desired.get(key, default) else off) for key, (_, on, off, default) in _ATTRIBUTES.items()
        ]
        words.append(sql.SQL("connection limit {}").format(int(desired.get("connectionLimit", -1))))
        if found is None:
            words.append(sql.SQL("valid until 'infinity'"))
        if "password" in desired:
            words.append(sql.SQL("password {}").format(desired["password"]))
        verb = sql.SQL("create role {} {}" if found is None else "alter role {} {}")
        statements: list[Statement] = [verb.format(role, sql.SQL(" ").join(words))]
        wanted, present = set(desired.get("roles", [])), set(found["roles"] if found else [])
        statements += [sql.SQL("grant {} to {}").format(sql.Identifier(r), role) for r in sorted(wanted - present)]
        statements += [sql.SQL("revoke {} from {}").format(sql.Identifier(r), role) for r in sorted(present - wanted)]
        for key, setting in _SETTINGS.items():
            value = desired.get(key)
            if isinstance(value, list) and value:
                new: sql.Composable = sql.SQL(", ").join(map(sql.Identifier, value))
            elif value:
                new = sql.Literal(int(value))
            elif found is not None and found[key]:
                new = sql.SQL("default")
            else:
                continue
            statements.append(sql.SQL("alter role {} set {} to {}").format(role, sql.Identifier(setting), new))
        self._run(*statements, lock=_MEMBERS)

    def _delete_role(self, desired: Inputs) -> None:
        # What it owned stays, with the provider's user; what it was granted ends.
        name = desired["name"]
        self._run(
            _statement("reassign owned by {} to current_user", name),
            _statement("drop owned by {}", name),
            _statement("drop role {}", name),
            lock=_MEMBERS,
        )

    # Database, Schema

    def _read_database(self, desired: Inputs) -> Found | None:
        rows = self._rows(
            "select datname as name, pg_get_userbyid(datdba) as owner from pg_database where datname = %s",
            desired["name"],
        )
        return rows[0] if rows else None

    def _write_database(self, desired: Inputs, found: Found | None) -> None:
        verb = "create database {} owner {}" if found is None else "alter database {} owner to {}"
        self._outside_transaction(
            sql.SQL(verb).format(sql.Identifier(desired["name"]), sql.Identifier(desired["owner"]))
        )

    def _outside_transaction(self, statement: Statement) -> None:
        with self._connection() as connection:
            connection.execute(statement)

    def _read_schema(self, desired: Inputs) -> Found | None:
        elsewhere = desired.get("database")
        if elsewhere and not self._rows("select from pg_database where datname = %s", elsewhere):
            return None  # in a preview: the database comes first
        rows = self._rows(
            "select pg_get_userbyid(nspowner) as owner, current_database() as database"
            " from pg_namespace where nspname = %s",
            desired["name"],
            database=elsewhere,
        )
        return {"name": desired["name"], **rows[0]} if rows else None

    def _write_schema(self, desired: Inputs, found: Found | None) -> None:
        verb = "create schema if not exists {} authorization {}" if found is None else "alter schema {} owner to {}"
        statement = sql.SQL(verb).format(sql.Identifier(desired["name"]), sql.Identifier(desired["owner"]))
        self._run(statement, database=desired.get("database"))

    def _delete_schema(self, desired: Inputs) -> None:
        verb: LiteralString = "drop schema {} cascade" if desired.get("dropCascade") else "drop schema {}"
        self._run(_statement(verb, desired["name"]), database=desired.get("database"))

    # Extension

    def _read_extension(self, desired: Inputs) -> Found | None:
        rows = self._rows(
            "select extname as name, extnamespace::regnamespace::text as schema, extversion as version,"
            " current_database() as database from pg_extension where extname = %s",
            desired["name"],
        )
        return rows[0] if rows else None

    def _write_extension(self, desired: Inputs, found: Found | None) -> None:
        # Never altered: schema and version are as they were found.
        if found is None:
            self._run(
                sql.SQL("create extension if not exists {} schema {}").format(
                    sql.Identifier(desired["name"]), sql.Identifier(desired["schema"])
                )
            )

    # Grant: on schemas, the only kind that the program declares

    def _read_grant(self, desired: Inputs) -> Found | None:
        _only(desired, "objectType", "schema")
        rows = self._rows(
            """
            select array(
                select acl.privilege_type from aclexplode(n.nspacl) as acl
                where acl.grantee = to_regrole(quote_ident(%s)) order by 1) as privileges
            from pg_namespace n where n.nspname = %s
            """,
            desired["role"],
            desired["schema"],
        )
        if not rows or (not rows[0]["privileges"] and desired["privileges"]):
            return None
        return {
            **desired,
            **rows[0],
            "id": "_".join(desired[key] for key in ("role", "database", "schema", "objectType")),
        }

    def _write_grant(self, desired: Inputs, found: Found | None) -> None:
        schema, role = sql.Identifier(desired["schema"]), sql.Identifier(desired["role"])
        statements: list[Statement] = [sql.SQL("revoke all on schema {} from {}").format(schema, role)]
        if desired["privileges"]:
            words = sql.SQL(", ").join(_word(privilege) for privilege in desired["privileges"])
            statements.append(sql.SQL("grant {} on schema {} to {}").format(words, schema, role))
        self._run(*statements, lock=_GRANTS)

    # GrantRole

    def _read_membership(self, desired: Inputs) -> Found | None:
        rows = self._rows(
            "select from pg_auth_members"
            " where member = to_regrole(quote_ident(%s)) and roleid = to_regrole(quote_ident(%s))",
            desired["role"],
            desired["grantRole"],
        )
        return {**desired, "id": f"{desired['role']}_{desired['grantRole']}_false"} if rows else None

    # DefaultPrivileges

    def _read_defaults(self, desired: Inputs) -> Found | None:
        code, _ = _DEFAULT_OBJECTS[desired["objectType"]]
        schema = desired.get("schema")
        rows = self._rows(
            """
            select acl.privilege_type as privilege
            from pg_default_acl d cross join lateral aclexplode(d.defaclacl) as acl
            where d.defaclrole = to_regrole(quote_ident(%s)) and d.defaclobjtype = %s
                and d.defaclnamespace = coalesce(to_regnamespace(quote_ident(%s))::oid, 0)
                and acl.grantee = case when %s = 'public' then 0::oid else to_regrole(quote_ident(%s))::oid end
            """,
            desired["owner"],
            code,
            schema,
            desired["role"],
            desired["role"],
        )
        privileges = [row["privilege"] for row in rows]
        identifier = "_".join(
            [desired["role"], desired["database"], schema or "noschema", desired["owner"], desired["objectType"]]
        )
        if privileges or (not desired["privileges"] and self._has_defaults(desired["owner"], code)):
            return {**desired, "id": identifier, "privileges": privileges}
        return None

    def _has_defaults(self, owner: str, code: str) -> bool:
        """Whether defaults for all schemas were changed at all: to have none is the same as PostgreSQL's own."""
        return bool(
            self._rows(
                "select from pg_default_acl where defaclrole = to_regrole(quote_ident(%s)) and defaclobjtype = %s"
                " and defaclnamespace = 0",
                owner,
                code,
            )
        )

    def _write_defaults(self, desired: Inputs, found: Found | None) -> None:
        _, objects = _DEFAULT_OBJECTS[desired["objectType"]]
        schema = desired.get("schema")
        head = sql.SQL("alter default privileges for role {} {}").format(
            sql.Identifier(desired["owner"]),
            sql.SQL("in schema {}").format(sql.Identifier(schema)) if schema else sql.SQL(""),
        )
        role = sql.SQL("public") if desired["role"] == "public" else sql.Identifier(desired["role"])
        statements: list[Statement] = [sql.SQL("{} revoke all on {} from {}").format(head, sql.SQL(objects), role)]
        if desired["privileges"]:
            words = sql.SQL(", ").join(_word(privilege) for privilege in desired["privileges"])
            statements.append(sql.SQL("{} grant {} on {} to {}").format(head, words, sql.SQL(objects), role))
        self._run(*statements, lock=_DEFAULTS)


_PRIVILEGES: dict[str, LiteralString] = {
    "SELECT": "select",
    "INSERT": "insert",
    "UPDATE": "update",
    "DELETE": "delete",
    "TRUNCATE": "truncate",
    "USAGE": "usage",
    "CREATE": "create",
    "EXECUTE": "execute",
}


def _statement(text: LiteralString, *names: str) -> sql.Composed:
    return sql.SQL(text).format(*map(sql.Identifier, names))


def _word(privilege: str) -> sql.SQL:
    return sql.SQL(_PRIVILEGES[privilege])


def _only(desired: Inputs, key: str, value: str) -> None:
    if desired[key] != value:
        raise ProviderError(
            f"{key} is {desired[key]!r}; only {value!r} is supported here, more by the official provider"
        )
