"""What the holder of a lease may try to hold a lock with."""

import itertools

ME, OTHER = "proj_one", "proj_two_b"


HOLDER, VICTIM, NEIGHBOUR = "lease_holder", "lease_victim", "lease_neighbour"


ROLES = (
    HOLDER, f"{ME}_{{level}}", VICTIM, NEIGHBOUR, f"{OTHER}_{{level}}", "anon", "authenticated", "authenticator",
    "data_plane_tenant", "openbao_lease_issuer", "supabase_admin",
)  # fmt: skip


OF_A_ROLE = (
    "alter role {role} set work_mem = '1MB'",
    "alter role {role} set role = {level_role}",
    "alter role {role} in database postgres set work_mem = '1MB'",
    "alter role {role} reset all",
    "alter role {role} password 'x'",
    "alter role {role} password null",
    "alter role {role} valid until 'infinity'",
    "alter role {role} connection limit 3",
    "alter role {role} nologin",
    "alter role {role} rename to lease_renamed",
    "comment on role {role} is 'x'",
    "security label on role {role} is 'x'",
    "grant {role} to {level_role}",
    "grant {level_role} to {role}",
    "revoke {level_role} from {role}",
    "drop role {role}",
    "reassign owned by {role} to {level_role}",
    "reassign owned by {level_role} to {role}",
    "alter default privileges for role {role} grant select on tables to public",
    "create schema authorization {role}",
    "create user mapping for {role} server nothing",
)


OBJECTS = {
    "table proj_one.t": "all",
    "proj_one.t (a)": "select",
    "table proj_one.v": "all",
    "sequence proj_one.s": "all",
    "function proj_one.f()": "execute",
    "procedure proj_one.p()": "execute",
    "type proj_one.e": "usage",
    "domain proj_one.d": "usage",
    "schema proj_one": "usage",
    "all tables in schema proj_one": "all",
    "all functions in schema proj_one": "execute",
    "large object {large_object}": "all",
    "table pg_catalog.pg_class": "select",
    "language plpgsql": "usage",
    "database postgres": "connect",
    "tablespace pg_default": "create",
    "parameter work_mem": "set",
}


OF_AN_OBJECT = (
    "grant {privilege} on {object} to {role}",
    "grant {privilege} on {object} to {role} with grant option",
    "revoke {privilege} on {object} from {role} cascade",
)


OWNED = (
    "table proj_one.t", "view proj_one.v", "sequence proj_one.s", "function proj_one.f()", "type proj_one.e",
    "schema proj_one", "large object {large_object}", "policy old on proj_one.t",
)  # fmt: skip


DEFAULTS = ("tables", "sequences", "functions", "types", "schemas", "large objects")


MODES = (
    "access share", "row share", "row exclusive", "share update exclusive", "share", "share row exclusive", "exclusive",
    "access exclusive",
)  # fmt: skip


LOCKED = (
    "proj_one.t", "pg_catalog.pg_authid", "pg_catalog.pg_auth_members", "pg_catalog.pg_shdepend",
    "pg_catalog.pg_db_role_setting", "pg_catalog.pg_class", "pg_catalog.pg_namespace", "data_plane.ended_leases",
    "data_plane.role_settings", "data_plane.verifying_keys",
)  # fmt: skip


OTHERS = (
    "select lo_create(0) from generate_series(1, 20)",
    "comment on large object {large_object} is 'x'",
    "select pg_advisory_lock(7264190355)",
    "select pg_advisory_xact_lock(7264190355)",
    "select pg_advisory_lock(2, 0)",
    "listen pgrst",
    "notify pgrst, 'reload schema'",
    "create table proj_one.made (a int references proj_one.t (a))",
    "create index on proj_one.t (b)",
    "alter table proj_one.t add column c int",
    "create policy new on proj_one.t to public using (true)",
    "drop table proj_one.u cascade",
    "create publication x for table proj_one.t",
    "create event trigger x on ddl_command_end execute function proj_one.f()",
    "insert into proj_one.t values (1)",
    "select * from proj_one.t for update",
    "set session authorization default",
    "set lock_timeout = 0; set idle_in_transaction_session_timeout = 0; set statement_timeout = 0",
)


def statements(level: str, large_object: int) -> dict[str, list[str]]:
    """Every statement by its family."""
    level_role = f"{ME}_{level}"
    roles = [role.format(level=level) for role in ROLES]
    every = [*roles, "public"]
    families = {
        "a role": [text.format(role=r, level_role=level_role) for r, text in itertools.product(roles, OF_A_ROLE)],
        "a grant": [
            text.format(object=name, privilege=privilege, role=r)
            for (name, privilege), text, r in itertools.product(OBJECTS.items(), OF_AN_OBJECT, every)
        ],
        "default privileges": [
            f"alter default privileges{where} grant all on {kind} to {r}"
            for where, kind, r in itertools.product(("", " in schema proj_one"), DEFAULTS, every)
        ],
        "a policy": [
            text.format(r)
            for text, r in itertools.product(
                ("create policy made on proj_one.t to {} using (true)", "alter policy old on proj_one.t to {}"), every
            )
        ],
        "an owner": [f"alter {name} owner to {r}" for name, r in itertools.product(OWNED, roles)],
        "a table": [f"lock table {name} in {mode} mode" for name, mode in itertools.product(LOCKED, MODES)],
        "other": list(OTHERS),
    }
    return {
        family: [text.replace("{large_object}", str(large_object)) for text in texts]
        for family, texts in families.items()
    }
