-- The pooler: who may come in through it, and with which verifier.
--
-- Supavisor's auth_query is `select usename, passwd from data_plane.pooler_auth($1)`. It wants two columns, the first
-- equal to what it asked for. It asks for its own login too, once, when the pool is registered.

-- Leases that are valid now, and nothing that is not a lease; verifiers, from which no password can be had.
create or replace function data_plane.pooler_auth(name text) returns table (usename text, passwd text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select a.rolname::text, a.rolpassword
    from pg_catalog.pg_authid a
    where a.rolname = pooler_auth.name
        and a.rolpassword like 'SCRAM-SHA-256$%'
        and (
            a.rolname = session_user
            or a.rolname ~ '^lease_[A-Za-z0-9_]+$'
                and a.rolcanlogin
                and a.rolvaliduntil > pg_catalog.now()
                and not (a.rolsuper or a.rolcreaterole or a.rolcreatedb or a.rolreplication or a.rolbypassrls)
                and exists (
                    select from pg_catalog.pg_auth_members m
                    where m.member = a.oid and data_plane.tenant_of(pg_catalog.pg_get_userbyid(m.roleid)) is not null
                )
        )
$$;

grant execute on function data_plane.pooler_auth(text) to pgbouncer;
