-- What the central database has to have before a tenant can be attached, beyond what a provider resource can say.
--
-- Run by the central stack, as a superuser, in one transaction, whenever this file changes; may be run any number of
-- times. It works on an empty PostgreSQL 15 to 18 and on the official Supabase image, where most of the roles and
-- functions of the first part are there already and are left as they are.
--
--   1  Supabase's base roles and schemas, where they are missing
--   2  the schema data_plane: nothing in it is served or granted to the public
--   3  exposure: PostgREST's pre-config function, and the notification that makes PostgREST read it again
--   4  isolation: row-level security on new tables; no foreign grantee on a tenant's schema; no dropped tenant schema
--   5  leases: the only functions by which logins come; platform_leases.sql has those by which they go
--   6  temporary objects, and the other databases of the cluster, are closed to leases
--
-- The files beside this one are applied after it, in the same transaction, in the order that platform_sql.py lists.

-- 1 -------------------------------------------------------------------------------------------------------------------

do $$
declare
    wanted record;
begin
    -- The attributes are those of supabase/postgres, without CREATEROLE; the operator of a service sets its login's
    -- password. Without one there is no way in.
    for wanted in
        select * from (values
            ('anon', 'nologin noinherit'),
            ('authenticated', 'nologin noinherit'),
            ('service_role', 'nologin noinherit bypassrls'),
            -- Migrations of Auth (20240612123726) and Storage (0046) grant to it by name; the superuser may have another.
            ('postgres', 'nologin noinherit'),
            ('authenticator', 'login noinherit'),
            ('supabase_auth_admin', 'login noinherit'),
            ('supabase_storage_admin', 'login noinherit'),
            ('pgbouncer', 'login noinherit'),
            ('data_plane_tenant', 'nologin noinherit'),
            ('data_plane_keys', 'login noinherit'),
            ('data_plane_storage', 'nologin noinherit'),
            ('openbao_lease_issuer', 'nologin noinherit')
        ) as roles (name, attributes)
    loop
        if not exists (select from pg_catalog.pg_roles where rolname = wanted.name) then
            execute format('create role %I %s', wanted.name, wanted.attributes);
        end if;
    end loop;
end
$$;

grant anon, authenticated, service_role to authenticator;
-- With DB_INSTALL_ROLES=false Storage grants nothing itself, and assumes the role of each request's token.
grant anon, authenticated, service_role to supabase_storage_admin;

create schema if not exists auth;
create schema if not exists extensions;
create schema if not exists storage authorization supabase_storage_admin;
grant usage on schema auth, extensions, storage to anon, authenticated, service_role;

-- Auth and Storage make their own tables when they start, each in its schema.
grant usage, create on schema auth to supabase_auth_admin;
do $$
declare
    service record;
begin
    execute format('grant create on database %I to supabase_auth_admin, supabase_storage_admin', current_database());
    for service in
        select * from (values ('supabase_auth_admin', 'auth'), ('supabase_storage_admin', 'storage')) as s (login, home)
    loop
        if not exists (
            select from pg_catalog.pg_db_role_setting s, unnest(s.setconfig) as setting
            where s.setrole = service.login::regrole and setting like 'search_path=%'
        ) then
            execute format('alter role %I set search_path to %I', service.login, service.home);
        end if;
    end loop;
end
$$;

-- data_plane_tenant is what the owners and service roles of all tenants may use of the platform: never a table's rows.
comment on role data_plane_tenant is 'platform objects that every tenant''s owner and service role may refer to';
grant usage on schema auth, extensions to data_plane_tenant;

do $$
declare
    helper regprocedure;
begin
    -- Supabase's helpers read what PostgREST sets for a request. On the official image Auth has made them.
    if to_regprocedure('auth.jwt()') is null then
        create function auth.jwt() returns jsonb language sql stable as $f$
            select coalesce(
                nullif(current_setting('request.jwt.claim', true), ''),
                nullif(current_setting('request.jwt.claims', true), '')
            )::jsonb
        $f$;
    end if;
    if to_regprocedure('auth.uid()') is null then
        create function auth.uid() returns uuid language sql stable as $f$
            select nullif(auth.jwt() ->> 'sub', '')::uuid
        $f$;
    end if;
    if to_regprocedure('auth.role()') is null then
        create function auth.role() returns text language sql stable as $f$
            select auth.jwt() ->> 'role'
        $f$;
    end if;
    if to_regprocedure('auth.email()') is null then
        create function auth.email() returns text language sql stable as $f$
            select auth.jwt() ->> 'email'
        $f$;
    end if;
    -- Auth replaces them when it first starts, which only their owner can.
    for helper in
        select oid::regprocedure from pg_catalog.pg_proc
        where pronamespace = 'auth'::regnamespace and proname in ('jwt', 'uid', 'role', 'email')
            and pg_catalog.pg_get_userbyid(proowner) = current_user
    loop
        execute format('alter function %s owner to supabase_auth_admin', helper);
    end loop;
end
$$;

-- 2 -------------------------------------------------------------------------------------------------------------------

create schema if not exists data_plane;
revoke all on schema data_plane from public;
grant usage on schema data_plane
    to authenticator, openbao_lease_issuer, supabase_auth_admin, pgbouncer, data_plane_keys;

-- What people and projects may call through PostgREST: the only functions of the platform that are served.
create schema if not exists data_plane_api;
revoke all on schema data_plane_api from public;
grant usage on schema data_plane_api to authenticated, data_plane_tenant;

-- A tenant is its schema: proj_<slug>, owned by proj_<slug>_owner. Returns the schema that a role belongs to, or null.
create or replace function data_plane.tenant_of(role_name text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select n.nspname
    from pg_catalog.pg_namespace n
    where n.nspname = (pg_catalog.regexp_match(
            role_name, '^(proj_[a-z0-9_]+)_(?:owner|service_role|authenticated|anon)$'))[1]
        and pg_catalog.pg_get_userbyid(n.nspowner) = n.nspname || '_owner'
$$;

-- 3 -------------------------------------------------------------------------------------------------------------------

-- The public keys by which every service checks tokens: one row, or none until publish_keys was called.
create table if not exists data_plane.verifying_keys (
    only_row boolean primary key default true check (only_row),
    jwks jsonb not null,
    published_at timestamptz not null default now()
);
grant select on data_plane.verifying_keys to authenticator;

-- PGRST_DB_PRE_CONFIG. The base schemas come first because PostgREST serves the first one when a request names none;
-- a tenant is listed exactly when PostgREST's login itself, not a role it is a member of, has USAGE on its schema.
-- Nothing is said of keys while there are none: an empty setting would take PostgREST's own secret away.
create or replace function data_plane.pre_config() returns void
language sql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    select pg_catalog.set_config('pgrst.jwt_secret', k.jwks::text, true) from data_plane.verifying_keys k;

    select pg_catalog.set_config(
        'pgrst.db_schemas', pg_catalog.string_agg(served.name, ',' order by served.rank, served.name), true)
    from (
        select n.nspname::text as name, base.rank
        from pg_catalog.unnest(array['public', 'storage', 'graphql_public', 'data_plane_api'])
            with ordinality as base (name, rank)
        join pg_catalog.pg_namespace n on n.nspname = base.name
        union all
        select n.nspname::text, 100
        from pg_catalog.pg_namespace n
        cross join lateral pg_catalog.aclexplode(n.nspacl) as acl
        where n.nspname like 'proj\_%'
            and acl.grantee = pg_catalog.quote_ident(current_user)::pg_catalog.regrole
            and acl.privilege_type = 'USAGE'
    ) as served
$$;

create or replace function data_plane.notify_postgrest() returns event_trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- PostgREST asks for a role's rights when it needs them. What it remembers is which schemas there are to serve, and
    -- that follows from grants on schemas alone; a reload looks at the tables of every tenant.
    if tg_tag in ('GRANT', 'REVOKE') and not exists (
        select from pg_catalog.pg_event_trigger_ddl_commands() as ddl where ddl.object_type = 'SCHEMA'
    ) then
        return;
    end if;
    -- What is temporary is served to nobody.
    if tg_event = 'ddl_command_end' and not exists (
            select from pg_catalog.pg_event_trigger_ddl_commands() as ddl
            where ddl.schema_name is distinct from 'pg_temp')
        or tg_event = 'sql_drop' and not exists (
            select from pg_catalog.pg_event_trigger_dropped_objects() as dropped
            -- A view's rule is not temporary itself.
            where not dropped.is_temporary and dropped.address_names[1] is distinct from 'pg_temp')
    then
        return;
    end if;
    -- In a full queue a transaction that notifies fails. The guard sends this once there is room again.
    if pg_catalog.pg_notification_queue_usage() > 0.5 then
        return;
    end if;
    -- The first makes PostgREST run the pre-config function again, the second makes it look at the schemas.
    perform pg_catalog.pg_notify('pgrst', 'reload config'), pg_catalog.pg_notify('pgrst', 'reload schema');
end
$$;

drop event trigger if exists data_plane_notify_ddl;
create event trigger data_plane_notify_ddl on ddl_command_end
    when tag in (
        'GRANT', 'REVOKE', 'COMMENT',
        'CREATE SCHEMA', 'ALTER SCHEMA',
        'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE',
        'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE',
        'CREATE VIEW', 'ALTER VIEW', 'CREATE MATERIALIZED VIEW', 'ALTER MATERIALIZED VIEW',
        'CREATE FUNCTION', 'ALTER FUNCTION', 'CREATE PROCEDURE', 'ALTER PROCEDURE',
        'CREATE TRIGGER', 'CREATE TYPE', 'ALTER TYPE', 'CREATE RULE'
    )
    execute function data_plane.notify_postgrest();

drop event trigger if exists data_plane_notify_drop;
create event trigger data_plane_notify_drop on sql_drop
    when tag in (
        'DROP SCHEMA', 'DROP TABLE', 'DROP FOREIGN TABLE', 'DROP VIEW', 'DROP MATERIALIZED VIEW', 'ALTER TABLE',
        'DROP FUNCTION', 'DROP PROCEDURE', 'DROP TRIGGER', 'DROP TYPE', 'DROP RULE'
    )
    execute function data_plane.notify_postgrest();

-- 4 -------------------------------------------------------------------------------------------------------------------

-- A table that somebody forgets to protect shows no row to anybody but its owner.
create or replace function data_plane.enable_row_level_security() returns event_trigger
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    created record;
begin
    for created in
        select ddl.objid, ddl.object_identity
        from pg_catalog.pg_event_trigger_ddl_commands() as ddl
        join pg_catalog.pg_class c on c.oid = ddl.objid
        where ddl.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            and c.relkind in ('r', 'p')
            and not c.relrowsecurity
            and ddl.schema_name like 'proj\_%'
    loop
        execute pg_catalog.format('alter table %s enable row level security', created.objid::pg_catalog.regclass);
    end loop;
end
$$;

drop event trigger if exists data_plane_row_level_security;
create event trigger data_plane_row_level_security on ddl_command_end
    when tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')
    execute function data_plane.enable_row_level_security();

-- Migrations written for a standalone Supabase say `grant … to authenticated`. On a tenant's schema that would let
-- every other tenant in, so a tenant cannot give anything of its schema to a role that is not its own.
create or replace function data_plane.refuse_foreign_grantees() returns event_trigger
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    granting constant oid := pg_catalog.quote_ident(current_user)::pg_catalog.regrole;  -- once, not for each schema there is
    of_tenant constant text := (pg_catalog.regexp_match(current_user, '^(proj_[a-z0-9_]+)_owner$'))[1];
    foreigner record;
begin
    -- Not a superuser who was given the schema by hand: that would hold up its repair.
    if of_tenant is null then
        return;
    end if;
    -- All schemas that the owner has, a copy from a dump too.
    for foreigner in
        select n.nspname, acl.privilege_type, acl.is_grantable and acl.grantee <> n.nspowner as is_grantable,
            case acl.grantee when 0 then 'PUBLIC' else pg_catalog.pg_get_userbyid(acl.grantee)::text end as grantee
        from pg_catalog.pg_namespace n
        cross join lateral pg_catalog.aclexplode(n.nspacl) as acl
        where n.nspowner = granting
    loop
        -- The login of the PostgREST that serves the tenant is let in by the platform, which makes it a member of the
        -- tenant's roles first; on a further schema only where the project's file says so.
        if foreigner.privilege_type = 'USAGE' and not foreigner.is_grantable
            and foreigner.grantee ~ '^(cell|proj)_[a-z0-9_]+_authenticator$'
            and pg_catalog.pg_has_role(foreigner.grantee, of_tenant || '_anon', 'member')
            and (foreigner.nspname = of_tenant or data_plane.is_exposed(foreigner.nspname)) then
            continue;
        end if;
        -- Nothing checks a role that has the grant option.
        if foreigner.is_grantable or data_plane.tenant_of(foreigner.grantee) is distinct from of_tenant then
            raise exception '% on schema % cannot be granted to %',
                foreigner.privilege_type, foreigner.nspname, foreigner.grantee
                using errcode = 'insufficient_privilege',
                    hint = pg_catalog.format(
                        'Grant to %1$s_anon, %1$s_authenticated or %1$s_service_role, without grant option.', of_tenant);
        end if;
    end loop;
end
$$;
-- The owner of a schema runs this in its own name; it needs to reach the function that the check calls.
grant usage on schema data_plane to data_plane_tenant;

drop event trigger if exists data_plane_tenant_grants;
create event trigger data_plane_tenant_grants on ddl_command_end
    when tag in ('GRANT')
    execute function data_plane.refuse_foreign_grantees();

-- A schema's owner may drop it, in PostgreSQL. Here a tenant's schema outlives every mistake made with a lease.
create or replace function data_plane.refuse_tenant_schema_drop() returns event_trigger
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    dropped record;
begin
    if (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
        return;
    end if;
    for dropped in
        select object_name from pg_catalog.pg_event_trigger_dropped_objects()
        where object_type = 'schema' and object_name like 'proj\_%'
    loop
        raise exception 'schema % belongs to the data plane and cannot be dropped with a lease', dropped.object_name
            using errcode = 'insufficient_privilege', hint = case
                when pg_catalog.split_part(dropped.object_name, '$', 2) in ('', 'auth') then 'Drop the objects in it instead.'
                else 'Call data_plane_api.drop_schema.' end;
    end loop;
end
$$;

drop event trigger if exists data_plane_tenant_schemas;
create event trigger data_plane_tenant_schemas on sql_drop
    when tag in ('DROP SCHEMA', 'DROP OWNED')
    execute function data_plane.refuse_tenant_schema_drop();

-- 5 -------------------------------------------------------------------------------------------------------------------
-- OpenBao's login holds EXECUTE on issue_lease, renew_lease and revoke_lease (platform_leases.sql) and nothing else. (Before PostgreSQL 16
-- CREATEROLE is close to superuser, so it is not given.) Everything below refuses a name that is not a lease's.

create or replace function data_plane.refuse_other_logins(login text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if login !~ '^lease_[A-Za-z0-9_]+$' then
        raise exception 'not the name of a lease: %', login using errcode = 'invalid_parameter_value';
    end if;
end
$$;

-- OpenBao says when a lease ends by its own clock, and VALID UNTIL is judged by this server's. Where they differ a lease
-- would be over before it began, or outlive itself. This is by how much OpenBao's is ahead; nothing, if that may be no
-- more than the way from there to here. (OpenBao adds 5 s to the lifetime by itself.)
create or replace function data_plane.clock_skew(expires timestamptz, lifetime interval) returns interval
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select case
        when greatest(found.skew, - found.skew) > interval '10 s' then found.skew
        else interval '0'
    end
    from (select expires - pg_catalog.clock_timestamp() - lifetime - interval '5 s' as skew) as found
$$;

-- The signatures without a lifetime are of versions before, and would make these ambiguous.
drop function if exists
    data_plane.create_login(text, text, timestamptz, text, integer),
    data_plane.issue_lease(text, text, timestamptz, text, integer) cascade;

-- The parts that need a superuser. The membership lets the issuer finish the login below; seal_login takes it back.
create or replace function data_plane.create_login(
    login text, verifier text, expires timestamptz, tenant_role text, statement_timeout_ms integer, lifetime interval)
returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    tenant_schema text := data_plane.tenant_of(tenant_role);
    -- Without a lifetime OpenBao's word has to do.
    skew interval := coalesce(data_plane.clock_skew(expires, lifetime), '0');
begin
    perform data_plane.refuse_other_logins(login);
    if octet_length(login) > 63 then
        raise exception 'too long for the name of a lease: %', login using errcode = 'invalid_parameter_value';
    end if;
    if tenant_schema is null then
        raise exception 'not a role of an attached tenant: %', tenant_role using errcode = 'invalid_parameter_value';
    end if;
    execute pg_catalog.format(
        'create role %I login noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls'
        ' connection limit %s password %L valid until %L in role %I role openbao_lease_issuer',
        login,
        data_plane.lease_connections(tenant_role),
        verifier, expires - skew, tenant_role);
    if skew <> interval '0' then
        raise warning 'the clocks of OpenBao and PostgreSQL differ by %', skew
            using hint = 'Keep both hosts in time (NTP): API tokens are judged by clocks, too.';
        -- For renew_lease, which is told of an end alone.
        execute pg_catalog.format('comment on role %I is %L', login, skew::text);
    end if;
    -- Not copied from the tenant's role: a lease may change that role's settings (PostgreSQL lets every
    -- role do so for itself), and the next lease should not suffer from it.
    execute pg_catalog.format('alter role %I set search_path to %I, extensions', login, tenant_schema);
    execute pg_catalog.format('alter role %I set statement_timeout to %s', login, statement_timeout_ms);
    execute pg_catalog.format('alter role %I set idle_in_transaction_session_timeout to %L', login, '1min');
    perform data_plane.end_orphaned_sessions();
end
$$;

create or replace function data_plane.seal_login(login text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    execute pg_catalog.format('revoke %I from openbao_lease_issuer', login);
end
$$;

-- A lease: a login that starts as the tenant's role (so what it makes belongs to the tenant and stays) and inherits
-- nothing, so that `set role none` leaves it with less, not more.
create or replace function data_plane.issue_lease(
    login text, verifier text, expires timestamptz, tenant_role text, statement_timeout_ms integer,
    lifetime interval default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform data_plane.create_login(login, verifier, expires, tenant_role, statement_timeout_ms, lifetime);
    -- `alter role … set role` is refused inside a security definer function, but a login may do it for itself.
    execute pg_catalog.format('set local role %I', login);
    execute pg_catalog.format('alter role %I set role to %L', login, tenant_role);
    set local role none;
    perform data_plane.seal_login(login);
end
$$;

create or replace function data_plane.renew_lease(login text, expires timestamptz) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    skew interval := coalesce(
        (select pg_catalog.shobj_description(r.oid, 'pg_authid') from pg_catalog.pg_roles r where r.rolname = login), '0');
begin
    perform data_plane.refuse_other_logins(login);
    execute pg_catalog.format('alter role %I valid until %L', login, expires - skew);
end
$$;

revoke all on all functions in schema data_plane from public;
grant execute on function data_plane.pre_config() to authenticator;
grant execute on function data_plane.tenant_of(text) to data_plane_tenant;
grant execute on function
    data_plane.create_login(text, text, timestamptz, text, integer, interval),
    data_plane.seal_login(text),
    data_plane.issue_lease(text, text, timestamptz, text, integer, interval),
    data_plane.renew_lease(text, timestamptz)
    to openbao_lease_issuer;

-- 6 -------------------------------------------------------------------------------------------------------------------

-- Nothing that runs with a tenant's rights needs temporary objects in a session that others use after it, and a role
-- that has them can put names of its own before everybody's. A lease that could connect to another database could own
-- something there, which would hold up its revocation. Supabase's services reach their other databases as
-- supabase_admin, a superuser, and owners keep their access.
do $$
declare
    other record;
begin
    execute format('revoke temporary on database %I from public', current_database());
    for other in
        select datname from pg_catalog.pg_database where datname <> current_database() and datallowconn
    loop
        execute format('revoke connect, temporary on database %I from public', other.datname);
    end loop;
end
$$;
