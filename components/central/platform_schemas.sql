-- Further schemas of a project: proj_x$name beside proj_x, owned by proj_x_owner like it.
--
-- No slug makes a dollar sign, so what stands before it is the tenant, and every rule that holds on the first schema asks
-- for that. Roles of a tenant have no CREATE on the database: these functions are the one way to such a schema.
--
--   1  what belongs to whom
--   2  making and dropping one
--   3  detaching, and serving one
--   4  what a project's owner calls

-- 1 -------------------------------------------------------------------------------------------------------------------

-- What is declared of a tenant's further schemas; a row is written by the tenant's resources.
create table if not exists data_plane.schemas (
    tenant text primary key check (tenant ~ '^proj_[a-z0-9_]+$'),
    declared text[] not null default '{}',
    exposed text[] not null default '{}' check (exposed <@ declared),
    attached boolean not null default true
);

-- What roles had on the schemas of a tenant that is detached now.
create table if not exists data_plane.withheld_usage (
    tenant text not null,
    schema_name text not null,
    grantee text not null,
    privilege text not null,
    primary key (tenant, schema_name, grantee, privilege)
);

-- Sessions that make a schema take turns, which makes their number exact. The platform waits for no project's (end_schema_changes).
create table if not exists data_plane.schema_turns (
    tenant text primary key,
    turn bigint not null default 0
);

-- The tenant whose schema that is: proj_x for proj_x and for each proj_x$…, whether or not that is there. Null else.
create or replace function data_plane.tenant_of_schema(schema_name text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select data_plane.tenant_of(pg_catalog.split_part(schema_name, '$', 1) || '_owner')
$$;

-- The schemas of a tenant, the first one first; none if there is no such tenant.
create or replace function data_plane.schemas_of(of_tenant text) returns setof regnamespace
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select n.oid::pg_catalog.regnamespace
    from pg_catalog.pg_namespace n
    where pg_catalog.split_part(n.nspname, '$', 1) = (select data_plane.tenant_of(of_tenant || '_owner'))
    order by n.nspname
$$;

-- Whether a further schema is declared to be served. With the definer's rights: who grants on one may not read the table.
create or replace function data_plane.is_exposed(schema_name text) returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from data_plane.schemas s
        where s.tenant = pg_catalog.split_part(schema_name, '$', 1)
            and pg_catalog.substr(schema_name, pg_catalog.length(s.tenant) + 2) = any (s.exposed))
$$;

-- 2 -------------------------------------------------------------------------------------------------------------------

-- Makes a schema, and says whether it was not there yet. `auth`, which is the platform's to ask for, and
-- `migrations`, in which is noted what the project has run, do not count.
create or replace function data_plane.make_schema(of_tenant text, name text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set lock_timeout = '10s'
as $$
declare
    whole constant text := of_tenant || '$' || make_schema.name;
    owner constant text := of_tenant || '_owner';
    bound constant integer := (data_plane.limits_of(of_tenant)).schemas;
    present text;
    given record;
begin
    if data_plane.tenant_of(owner) is distinct from of_tenant then
        raise exception 'there is no tenant %', of_tenant using errcode = 'invalid_parameter_value';
    end if;
    -- NULL is no name either.
    if make_schema.name ~ '^[a-z][a-z0-9_]*$' is not true then
        raise exception 'not a name for a schema: %', make_schema.name
            using errcode = 'invalid_schema_name', hint = 'Small letters, digits and underscores, a letter first.';
    elsif pg_catalog.octet_length(whole) > 63 then
        raise exception 'too long for a schema of %: %', of_tenant, make_schema.name
            using errcode = 'name_too_long',
                hint = pg_catalog.format('At most %s letters.', 62 - pg_catalog.octet_length(of_tenant));
    end if;
    for attempt in 1..2 loop
        select pg_catalog.pg_get_userbyid(n.nspowner) into present from pg_catalog.pg_namespace n where n.nspname = whole;
        if present = owner then
            return false;
        elsif present is not null then
            raise exception 'schema % belongs to %, not to %', whole, present, owner
                using errcode = 'object_not_in_prerequisite_state',
                    hint = 'An operator has made it by hand: `dataplane up` gives it back.';
        end if;
        exit when attempt = 2;
        -- A session that waited here for another that made the same schema looks again. An update, so that a transaction
        -- with an older snapshot fails instead of counting too few.
        insert into data_plane.schema_turns as t (tenant) values (of_tenant)
        on conflict (tenant) do update set turn = t.turn + 1;
    end loop;
    if make_schema.name not in ('auth', 'migrations') and bound <= (
        select pg_catalog.count(*) from data_plane.schemas_of(of_tenant) as n (oid)
        where n.oid not in (
            select r.oid from pg_catalog.pg_namespace r
            where r.nspname in (of_tenant, of_tenant || '$auth', of_tenant || '$migrations')))
    then
        raise exception '% has its % further schemas', of_tenant, bound
            using errcode = 'configuration_limit_exceeded', hint = 'Drop one, or raise `limits.schemas` in its file.';
    end if;
    execute pg_catalog.format('create schema %I authorization %I', whole, owner);
    -- An owner's default privileges hold for schemas, too, and ask nobody whom they let in.
    for given in
        select distinct case acl.grantee when 0 then 'public'
            else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)) end as grantee
        from pg_catalog.pg_namespace n cross join lateral pg_catalog.aclexplode(n.nspacl) as acl
        where n.nspname = whole and acl.grantee <> n.nspowner
    loop
        execute pg_catalog.format('revoke all on schema %I from %s cascade', whole, given.grantee);
    end loop;
    -- Policies on served tables call helpers that stand here. Nothing more: the project grants what it means to.
    execute pg_catalog.format(
        'alter default privileges for role %I in schema %I grant execute on functions to %I, %I, %I',
        owner, whole, of_tenant || '_anon', of_tenant || '_authenticated', of_tenant || '_service_role');
    if data_plane.is_exposed(whole) then
        perform data_plane.apply_exposure(of_tenant);
    end if;
    return true;
end
$$;

-- Ends sessions of the tenant's that are making a schema and have not committed, or, where it is being detached, that have
-- changed anything: the rows that they keep are wanted.
create or replace function data_plane.end_schema_changes(of_tenant text, detached boolean) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_catalog.pg_stat_clear_snapshot();
    perform pg_catalog.pg_terminate_backend(a.pid, 500)
    from pg_catalog.pg_stat_activity a
    where data_plane.tenant_of_login(a.usename) = of_tenant
        and (detached and a.backend_xid is not null or exists (
            select from pg_catalog.pg_locks l
            where l.pid = a.pid and l.locktype = 'relation' and l.mode = 'RowExclusiveLock'
                and l.relation = 'data_plane.schema_turns'::pg_catalog.regclass));
end
$$;

-- Drops one, and says whether it was there.
create or replace function data_plane.remove_schema(of_tenant text, name text, with_contents boolean) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '10s'
as $$
declare
    whole constant text := of_tenant || '$' || remove_schema.name;
begin
    if not exists (select from pg_catalog.pg_namespace n where n.nspname = whole) then
        return false;
    end if;
    execute pg_catalog.format('drop schema %I %s', whole, case when with_contents then 'cascade' else 'restrict' end);
    delete from data_plane.withheld_usage w where w.tenant = of_tenant and w.schema_name = whole;
    return true;
end
$$;

-- 3 -------------------------------------------------------------------------------------------------------------------

-- Gives the login that serves a tenant USAGE on its first schema and on those that are declared to be served, and no
-- other PostgREST anything: each serves the schemas on which its login itself has USAGE.
create or replace function data_plane.apply_exposure(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    serving constant text := (
        select r.rolname::text from data_plane.api_access a join pg_catalog.pg_roles r on r.rolname = a.login
        where a.tenant = of_tenant);
    changed record;
begin
    for changed in
        with own as (
            select n.oid, n.nspname, n.nspacl, n.nspname = of_tenant or data_plane.is_exposed(n.nspname) as wanted
            from pg_catalog.pg_namespace n
            where pg_catalog.split_part(n.nspname, '$', 1) = of_tenant
        )
        select o.nspname, login.rolname as login, acl.privilege_type as revoked
        from own o
        cross join lateral pg_catalog.aclexplode(o.nspacl) as acl
        join pg_catalog.pg_roles login on login.oid = acl.grantee
        where data_plane.is_api_login(login.rolname)
            and not (o.wanted and login.rolname is not distinct from serving and acl.privilege_type = 'USAGE')
        union all
        select o.nspname, serving, null
        from own o
        where o.wanted and serving is not null and not exists (
            select from pg_catalog.aclexplode(o.nspacl) as acl
            where acl.privilege_type = 'USAGE' and acl.grantee = pg_catalog.quote_ident(serving)::pg_catalog.regrole)
    loop
        if changed.revoked is null then
            execute pg_catalog.format('grant usage on schema %I to %I', changed.nspname, changed.login);
        else
            execute pg_catalog.format(
                'revoke %s on schema %I from %I cascade', changed.revoked, changed.nspname, changed.login);
        end if;
    end loop;
end
$$;

-- What the tenant's own roles may do with its further schemas is the project's to say, and is kept while it is detached.
create or replace function data_plane.withhold_usage(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    given record;
begin
    for given in
        select n.nspname, role.rolname, acl.privilege_type
        from pg_catalog.pg_namespace n
        cross join lateral pg_catalog.aclexplode(n.nspacl) as acl
        join pg_catalog.pg_roles role on role.oid = acl.grantee
        where pg_catalog.split_part(n.nspname, '$', 1) = of_tenant and n.nspname <> of_tenant
            and role.rolname in (of_tenant || '_anon', of_tenant || '_authenticated', of_tenant || '_service_role')
    loop
        insert into data_plane.withheld_usage values (of_tenant, given.nspname, given.rolname, given.privilege_type)
        on conflict do nothing;
        execute pg_catalog.format(
            'revoke %s on schema %I from %I cascade', given.privilege_type, given.nspname, given.rolname);
    end loop;
end
$$;

create or replace function data_plane.give_usage_back(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    withheld record;
begin
    for withheld in
        delete from data_plane.withheld_usage w where w.tenant = of_tenant returning w.*
    loop
        continue when pg_catalog.to_regnamespace(pg_catalog.quote_ident(withheld.schema_name)) is null
            or pg_catalog.to_regrole(pg_catalog.quote_ident(withheld.grantee)) is null;
        execute pg_catalog.format(
            'grant %s on schema %I to %I', withheld.privilege, withheld.schema_name, withheld.grantee);
    end loop;
end
$$;

-- Makes a tenant's further schemas what is declared. One that is declared no more stays, and is not served.
create or replace function data_plane.apply_schemas(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted data_plane.schemas;
    present record;
    name text;
begin
    select s.* into wanted from data_plane.schemas s where s.tenant = of_tenant for update;
    select p.* into present from data_plane.present_schemas(of_tenant) p;
    if present.declared <> wanted.declared or not wanted.attached and present.attached then
        perform data_plane.end_schema_changes(of_tenant, not wanted.attached);
    end if;
    foreach name in array coalesce(wanted.declared, '{}') loop
        if exists (
            select from pg_catalog.pg_namespace n
            where n.nspname = of_tenant || '$' || name and pg_catalog.pg_get_userbyid(n.nspowner) <> of_tenant || '_owner'
        ) then
            execute pg_catalog.format('alter schema %I owner to %I', of_tenant || '$' || name, of_tenant || '_owner');
        end if;
        perform data_plane.make_schema(of_tenant, name);
    end loop;
    perform data_plane.apply_exposure(of_tenant);
    if coalesce(wanted.attached, true) then
        perform data_plane.give_usage_back(of_tenant);
    else
        perform data_plane.withhold_usage(of_tenant);
    end if;
end
$$;

-- The same as it is: without those declared schemas that are not there, and attached or not by what its roles may do.
create or replace function data_plane.present_schemas(
    of_tenant text, out declared text[], out exposed text[], out attached boolean)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        array(
            select wanted.name from pg_catalog.unnest(s.declared) with ordinality as wanted (name, place)
            where exists (select from pg_catalog.pg_namespace n where n.nspname = of_tenant || '$' || wanted.name)
            order by wanted.place),
        s.exposed,
        case when s.attached then not exists (select from data_plane.withheld_usage w where w.tenant = of_tenant)
            else exists (
                select from pg_catalog.pg_namespace n
                cross join lateral pg_catalog.aclexplode(n.nspacl) as acl
                join pg_catalog.pg_roles role on role.oid = acl.grantee
                where pg_catalog.split_part(n.nspname, '$', 1) = of_tenant and n.nspname <> of_tenant
                    and role.rolname in (of_tenant || '_anon', of_tenant || '_authenticated', of_tenant || '_service_role'))
        end
    from data_plane.schemas s
    where s.tenant = of_tenant
$$;

-- 4 -------------------------------------------------------------------------------------------------------------------

-- The tenant in whose owner's name a call is made: the role that a lease has assumed, which PostgreSQL has checked.
-- Nothing else that a caller says is asked.
create or replace function data_plane.calling_owner() returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    assumed constant text := pg_catalog.current_setting('role');
begin
    if assumed like '%\_owner' and data_plane.tenant_of(assumed) is not null then
        return data_plane.tenant_of(assumed);
    end if;
    raise exception 'only a project''s owner may do this' using errcode = 'insufficient_privilege',
        hint = 'Take a lease of the level `owner`.';
end
$$;

-- Makes the schema <project's schema>$<name>, and says whether it was not there yet.
create or replace function data_plane_api.create_schema(name text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    mine constant text := data_plane.calling_owner();
begin
    if create_schema.name = 'auth' then
        raise exception 'the schema auth is kept for the project''s users' using errcode = 'reserved_name';
    end if;
    return data_plane.make_schema(mine, create_schema.name);
end
$$;

-- Drops it, with all in it or only if there is nothing, and says whether it was there.
create or replace function data_plane_api.drop_schema(name text, cascade boolean default false) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    mine constant text := data_plane.calling_owner();
begin
    if drop_schema.name = 'auth' then
        raise exception 'the schema auth is kept for the project''s users' using errcode = 'reserved_name';
    end if;
    return data_plane.remove_schema(mine, drop_schema.name, coalesce(drop_schema.cascade, false));
end
$$;

revoke all on all functions in schema data_plane from public;
revoke all on function data_plane_api.create_schema(text), data_plane_api.drop_schema(text, boolean) from public;
grant execute on function data_plane.schemas_of(text), data_plane.tenant_of_schema(text), data_plane.is_exposed(text)
    to data_plane_tenant;
grant execute on function data_plane_api.create_schema(text), data_plane_api.drop_schema(text, boolean)
    to data_plane_tenant;
