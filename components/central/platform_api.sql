-- Who may become a tenant's API roles.
--
-- PostgreSQL checks SET ROLE against the login of the connection, not against the author of the SQL. So what a login of a
-- service may become is what any SQL that runs in the service's sessions may become: a project's own functions in
-- PostgREST's. There are therefore several PostgRESTs, each with a login of its own, and a tenant's API roles are given
-- to the login that serves it, and to no other:
--
--   served by its cell's PostgREST       cell_<cell>_authenticator, a member of its cell's tenants' API roles alone
--   served by one of its own             proj_x_authenticator, a member of nothing else
--   not served                           nobody
--
-- authenticator, the login of the PostgREST for the platform's own schemas, is a member of no tenant's role: no tenant's
-- SQL ever runs in it. Storage runs no project's SQL. It assumes anon and authenticated of the tenants that have a bucket.

-- A row is written by the tenant's resources.
create table if not exists data_plane.api_access (
    tenant text primary key check (tenant ~ '^proj_[a-z0-9_]+$'),
    login text,
    storage boolean not null default false
);
-- Rows of a version before, which name authenticator, stay as they are until their cell is brought up.
alter table data_plane.api_access
    drop constraint if exists api_access_check,
    drop constraint if exists api_access_login,
    add constraint api_access_login
        check (login = tenant || '_authenticator' or login ~ '^cell_[a-z0-9_]+_authenticator$') not valid;

-- Whether a name is that of the login of a PostgREST.
create or replace function data_plane.is_api_login(name text) returns boolean
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select name = 'authenticator' or name ~ '^(cell|proj)_[a-z0-9_]+_authenticator$'
$$;

-- Whether it is that of one that serves a single tenant, whose SQL runs as this login.
create or replace function data_plane.is_own_api_login(name text) returns boolean
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select name ~ '^proj_[a-z0-9_]+_authenticator$'
$$;

-- By what name a token says which PostgREST serves its tenant, for the gateway.
create or replace function data_plane.api_server_of(login text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select pg_catalog.regexp_replace(login, '_authenticator$', '')
$$;

-- The verifiers of the passwords that the platform gave to PostgRESTs that serve one project alone. Any SQL of the project
-- runs as such a login, which may give itself another password: one that would outlast every lease.
create table if not exists data_plane.api_passwords (
    login text primary key check (data_plane.is_own_api_login(login)),
    verifier text not null
);
-- Those from before they were kept.
insert into data_plane.api_passwords
select r.rolname, r.rolpassword from pg_catalog.pg_authid r
where data_plane.is_own_api_login(r.rolname) and r.rolcanlogin and r.rolpassword is not null
on conflict do nothing;

-- Gives a service's login a password, in plain or as its verifier.
create or replace function data_plane.set_password(of_login text, password text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    is_watched constant boolean := data_plane.is_own_api_login(of_login);
begin
    if is_watched then
        -- First, so that the guard waits, and does not put the former one back.
        insert into data_plane.api_passwords values (of_login, '')
        on conflict (login) do update set verifier = excluded.verifier;
    end if;
    execute pg_catalog.format('alter role %I password %L', of_login, password);
    if is_watched then
        update data_plane.api_passwords p set verifier = r.rolpassword
        from pg_catalog.pg_authid r where r.rolname = p.login and p.login = of_login;
    end if;
end
$$;

-- Puts back what such a login has changed, and ends its sessions; a line for each. The guard runs this every few seconds.
create or replace function data_plane.restore_api_passwords() returns setof text
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '200ms'
as $$
declare
    given data_plane.api_passwords;
begin
    for given in
        select p.* from data_plane.api_passwords p join pg_catalog.pg_authid r on r.rolname = p.login
        where r.rolcanlogin and r.rolpassword is distinct from p.verifier
    loop
        begin
            perform from data_plane.api_passwords p where p.login = given.login and p.verifier = given.verifier for update;
            continue when not found;  -- it has got another meanwhile
            execute pg_catalog.format('alter role %I password %L', given.login, given.verifier);
            perform pg_catalog.pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity a where a.usename = given.login;
            return next pg_catalog.format('role %I has a password that the platform did not give it: set right', given.login);
        exception when others then
            return next pg_catalog.format('role %I has a password that the platform did not give it: %s', given.login, sqlerrm);
        end;
    end loop;
end
$$;

-- Makes the logins of those PostgRESTs that serve tenants, without a password. They have what authenticator has of the
-- platform, which is where PostgREST reads its configuration; a login inherits nothing, so it is granted to each. One
-- that is no longer declared may sign in no more, and stays: a tenant's grants may still name it.
create or replace function data_plane.apply_api_logins(declared text[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    login text;
begin
    delete from data_plane.api_passwords p where p.login <> all (declared);
    foreach login in array declared loop
        if login = 'authenticator' or not data_plane.is_api_login(login) then
            raise exception 'not the login of a PostgREST that serves tenants: %', login
                using errcode = 'invalid_parameter_value';
        end if;
        if not exists (select from pg_catalog.pg_roles where rolname = login) then
            execute pg_catalog.format('create role %I', login);
        end if;
        execute pg_catalog.format(
            'alter role %I login noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls', login);
        execute pg_catalog.format('grant usage on schema data_plane to %I', login);
        execute pg_catalog.format('grant select on data_plane.verifying_keys to %I', login);
        execute pg_catalog.format('grant execute on function data_plane.pre_config() to %I', login);
        perform data_plane.grant_session_functions(login);
        -- As other services do (platform_guard.sql), it gets in when tenants hold every other connection; not where it is
        -- one project's alone, whose SQL can sign in with it.
        if pg_catalog.current_setting('server_version_num')::integer >= 160000 then
            if not data_plane.is_own_api_login(login) then
                execute pg_catalog.format('grant pg_use_reserved_connections to %I with inherit true, set false', login);
            elsif pg_catalog.pg_has_role(login, 'pg_use_reserved_connections', 'member') then
                execute pg_catalog.format('revoke pg_use_reserved_connections from %I', login);
            end if;
        end if;
    end loop;
    for login in
        select r.rolname from pg_catalog.pg_roles r
        where data_plane.is_api_login(r.rolname) and r.rolname <> 'authenticator'
            and r.rolcanlogin and r.rolname <> all (declared)
    loop
        execute pg_catalog.format('alter role %I nologin password null', login);
        perform pg_catalog.pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity a where a.usename = login;
    end loop;
end
$$;

-- Makes the memberships of a tenant's roles, and who serves its schema, what is declared. Logins that are no service's,
-- which leases are, are left alone.
create or replace function data_plane.apply_api_access(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
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
    perform data_plane.admit_tenant(of_tenant);
    for membership in
        select role.rolname, login.rolname as member,
            login.rolname is not distinct from declared.login
                or coalesce(declared.storage, false) and login.rolname = 'supabase_storage_admin'
                    and not role.rolbypassrls as wanted,
            candidate.present
        from pg_catalog.pg_roles role
        cross join lateral (
            select c.oid, pg_catalog.bool_or(c.present) as present
            from (
                select m.member, true from pg_catalog.pg_auth_members m where m.roleid = role.oid
                union all
                select r.oid, false from pg_catalog.pg_roles r
                where r.rolname in (declared.login, 'supabase_storage_admin')
            ) as c (oid, present)
            group by c.oid
        ) as candidate
        join pg_catalog.pg_roles login on login.oid = candidate.oid
        where role.rolname in (of_tenant || '_anon', of_tenant || '_authenticated', of_tenant || '_service_role')
            and (login.rolname = 'supabase_storage_admin' or data_plane.is_api_login(login.rolname))
        order by role.rolname, login.rolname
    loop
        if membership.wanted and not membership.present then
            execute pg_catalog.format('grant %I to %I', membership.rolname, membership.member);
            changed := true;
        elsif membership.present and not membership.wanted then
            execute pg_catalog.format('revoke %I from %I', membership.rolname, membership.member);
            changed := true;
        end if;
    end loop;
    perform data_plane.apply_exposure(of_tenant);
    if changed then
        -- PostgREST reads the settings of the roles that it may assume.
        perform pg_catalog.pg_notify('pgrst', 'reload config');
    end if;
    -- What tenants have in common, they have for its privileges. A role that could become anon could change anon's settings,
    -- which PostgREST applies to everybody's requests. (Before PostgreSQL 16 a lease can.)
    if tells_apart then
        for membership in execute
            'select common.rolname, role.rolname as member
            from pg_catalog.pg_auth_members m
            join pg_catalog.pg_roles common on common.oid = m.roleid
            join pg_catalog.pg_roles role on role.oid = m.member
            where m.set_option and data_plane.tenant_of(role.rolname) = $1
            order by 1, 2' using of_tenant
        loop
            execute pg_catalog.format('grant %I to %I with set false', membership.rolname, membership.member);
        end loop;
    end if;
end
$$;

-- The login that serves a tenant, and whether Storage does: as it is, not as it is declared. To be served takes the three
-- API roles and USAGE on the first schema and on the others that are declared to be served.
create or replace function data_plane.present_api_access(of_tenant text, out login text, out storage boolean)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with part as (
        select m.member as login, role.rolname::text as what
        from pg_catalog.pg_auth_members m
        join pg_catalog.pg_roles role on role.oid = m.roleid
        where role.rolname in (of_tenant || '_anon', of_tenant || '_authenticated', of_tenant || '_service_role')
        union
        select acl.grantee, n.nspname || case acl.privilege_type when 'USAGE' then '' else ' ' || acl.privilege_type end
        from pg_catalog.pg_namespace n cross join lateral pg_catalog.aclexplode(n.nspacl) as acl
        where pg_catalog.split_part(n.nspname, '$', 1) = of_tenant
    ),
    wanted (what) as (
        values (of_tenant), (of_tenant || '_anon'), (of_tenant || '_authenticated'), (of_tenant || '_service_role')
        union
        select n.nspname::text from pg_catalog.pg_namespace n
        where pg_catalog.split_part(n.nspname, '$', 1) = of_tenant and data_plane.is_exposed(n.nspname)
    ),
    member as (
        select login.rolname, pg_catalog.count(*) as parts,
            pg_catalog.bool_and(part.what in (select w.what from wanted w))
                and pg_catalog.count(*) = (select pg_catalog.count(*) from wanted) as fitting
        from part join pg_catalog.pg_roles login on login.oid = part.login
        where login.rolname = 'supabase_storage_admin' or data_plane.is_api_login(login.rolname)
        group by 1
    )
    select
        -- More than one is one too many, and less than three roles and the schemas is too little; either shows as no
        -- declared login does.
        (select pg_catalog.string_agg(
                m.rolname || case when m.fitting then '' else ' in part' end, ' and ' order by m.rolname)
            from member m where m.rolname <> 'supabase_storage_admin'),
        -- All but service_role, or it is neither so nor so.
        case coalesce((select m.parts from member m where m.rolname = 'supabase_storage_admin'), 0)
            when 2 then true
            when 0 then false
        end
$$;

-- What a version before gave authenticator of tenants that no cell declares any more; each cell takes away the rest.
do $$
declare
    left_over record;
begin
    for left_over in
        select role.rolname
        from pg_catalog.pg_auth_members m
        join pg_catalog.pg_roles role on role.oid = m.roleid
        where m.member = 'authenticator'::pg_catalog.regrole and role.rolname like 'proj\_%'
            and not exists (
                select from data_plane.api_access a
                where a.login = 'authenticator'
                    and role.rolname in (a.tenant || '_anon', a.tenant || '_authenticated', a.tenant || '_service_role'))
    loop
        execute format('revoke %I from authenticator', left_over.rolname);
    end loop;
end
$$;
