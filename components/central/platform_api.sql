-- Who may become a tenant's API roles.
--
-- PostgreSQL checks SET ROLE against the login of the connection, whoever's SQL asks for it. So what a login of a
-- service may become is what any SQL that runs in the service's sessions may become: a project's own functions in
-- PostgREST's. A tenant's API roles are therefore given to the login that serves it, and to no other:
--
--   served by the shared PostgREST   authenticator
--   served by one of its own         proj_x_authenticator, a member of nothing else
--   not served                       nobody
--
-- Storage runs no project's SQL. It assumes anon and authenticated of the tenants that have a bucket.

-- A row is written by the tenant's resources.
create table if not exists data_plane.api_access (
    tenant text primary key check (tenant ~ '^proj_[a-z0-9_]+$'),
    login text check (login in ('authenticator', tenant || '_authenticator')),
    storage boolean not null default false
);

-- Makes the logins of those PostgRESTs that serve one tenant each, without a password. They have what the shared one's login has of the platform,
-- which is where PostgREST reads its configuration; a login inherits nothing, so it is granted to each. One that is no
-- longer declared may sign in no more, and stays: a tenant's grants may still name it.
create or replace function data_plane.apply_api_logins(declared text[]) returns void
language plpgsql
set search_path = ''
as $$
declare
    login text;
begin
    foreach login in array declared loop
        if login !~ '^proj_[a-z0-9_]+_authenticator$' then
            raise exception 'not the login of a tenant''s own API: %', login using errcode = 'invalid_parameter_value';
        end if;
        if not exists (select from pg_catalog.pg_roles where rolname = login) then
            execute pg_catalog.format('create role %I', login);
        end if;
        execute pg_catalog.format(
            'alter role %I login noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls', login);
        execute pg_catalog.format('grant usage on schema data_plane to %I', login);
        execute pg_catalog.format('grant select on data_plane.verifying_keys to %I', login);
        execute pg_catalog.format('grant execute on function data_plane.pre_config() to %I', login);
    end loop;
    for login in
        select r.rolname from pg_catalog.pg_roles r
        where r.rolname ~ '^proj_[a-z0-9_]+_authenticator$' and r.rolcanlogin and r.rolname <> all (declared)
    loop
        execute pg_catalog.format('alter role %I nologin password null', login);
        perform pg_catalog.pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity a where a.usename = login;
    end loop;
end
$$;

-- Makes the memberships of a tenant's roles what is declared. Logins that are no service's, which leases are, are left
-- alone.
create or replace function data_plane.apply_api_access(of_tenant text) returns void
language plpgsql
set search_path = ''
as $$
declare
    declared data_plane.api_access;
    membership record;
    -- PostgreSQL 16 tells privileges that are inherited from a role that may be assumed.
    changed boolean := false;
    tells_apart constant boolean := pg_catalog.current_setting('server_version_num')::integer >= 160000;
begin
    select a.* into declared from data_plane.api_access a where a.tenant = of_tenant;
    if declared.login is not null and pg_catalog.to_regrole(declared.login) is null then
        raise exception 'there is no login % to serve %', declared.login, of_tenant
            using errcode = 'undefined_object', hint = 'Bring the central stack up first: it makes the login.';
    end if;
    for membership in
        select role.oid, role.rolname, login.rolname as member,
            login.rolname is not distinct from declared.login
                or coalesce(declared.storage, false) and login.rolname = 'supabase_storage_admin'
                    and not role.rolbypassrls as wanted,
            exists (
                select from pg_catalog.pg_auth_members m where m.roleid = role.oid and m.member = login.oid
            ) as present
        from pg_catalog.pg_roles role
        cross join pg_catalog.pg_roles login
        where role.rolname in (of_tenant || '_anon', of_tenant || '_authenticated', of_tenant || '_service_role')
            and login.rolname in ('authenticator', 'supabase_storage_admin', of_tenant || '_authenticator')
    loop
        if membership.wanted and not membership.present then
            execute pg_catalog.format('grant %I to %I', membership.rolname, membership.member);
            changed := true;
        elsif membership.present and not membership.wanted then
            execute pg_catalog.format('revoke %I from %I', membership.rolname, membership.member);
            changed := true;
        end if;
    end loop;
    if changed then
        -- PostgREST reads the settings of the roles that it may assume.
        perform pg_catalog.pg_notify('pgrst', 'reload config');
    end if;
    -- What tenants have in common, they have for its privileges. Whoever could become anon could change anon's settings,
    -- which PostgREST applies to everybody's requests. (Before PostgreSQL 16 a lease can.)
    if tells_apart then
        for membership in execute
            'select common.rolname, role.rolname as member
            from pg_catalog.pg_auth_members m
            join pg_catalog.pg_roles common on common.oid = m.roleid
            join pg_catalog.pg_roles role on role.oid = m.member
            where m.set_option and data_plane.tenant_of(role.rolname) = $1' using of_tenant
        loop
            execute pg_catalog.format('grant %I to %I with set false', membership.rolname, membership.member);
        end loop;
    end if;
end
$$;

-- The login that serves a tenant, and whether Storage does: as it is, not as it is declared.
create or replace function data_plane.present_api_access(of_tenant text, out login text, out storage boolean)
language sql stable
set search_path = ''
as $$
    with member as (
        select login.rolname, pg_catalog.count(*) as roles
        from pg_catalog.pg_auth_members m
        join pg_catalog.pg_roles role on role.oid = m.roleid
        join pg_catalog.pg_roles login on login.oid = m.member
        where role.rolname in (of_tenant || '_anon', of_tenant || '_authenticated', of_tenant || '_service_role')
            and login.rolname in ('authenticator', 'supabase_storage_admin', of_tenant || '_authenticator')
        group by 1
    )
    select
        -- More than one is one too many, and fewer roles than all are too few; either shows as no declared login does.
        (select pg_catalog.string_agg(
                m.rolname || case when m.roles < 3 then ' in part' else '' end, ' and ' order by m.rolname)
            from member m where m.rolname <> 'supabase_storage_admin'),
        -- All but service_role, or it is neither so nor so.
        case coalesce((select m.roles from member m where m.rolname = 'supabase_storage_admin'), 0)
            when 2 then true
            when 0 then false
        end
$$;
