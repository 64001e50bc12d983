-- Settings of roles: `alter role … set`, which PostgreSQL lets every role do to itself, and PostgREST applies to each
-- request of the role. No event trigger sees it, so what is not declared here is taken back: by the guard every few
-- seconds, and by `up`, which also names it.

-- What is declared: of a tenant, for its four roles; or of one role that all tenants share. In the form of
-- pg_db_role_setting.setconfig, for all databases; nothing is declared for a single one.
create table if not exists data_plane.role_settings (
    subject text primary key,
    settings text[] not null,
    declared_at timestamptz not null default pg_catalog.clock_timestamp()
);
alter table data_plane.role_settings
    add column if not exists declared_at timestamptz not null default pg_catalog.clock_timestamp();

create or replace function data_plane.note_declaration() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    new.declared_at := pg_catalog.clock_timestamp();
    return new;
end
$$;
create or replace trigger note_declaration before update on data_plane.role_settings
    for each row when (old.settings is distinct from new.settings) execute function data_plane.note_declaration();

-- Supabase's own, as they are when the platform is first applied, which is before there are tenants. (Before PostgreSQL
-- 16 a lease can become anon.) To change one: `alter role …` and keep_role_settings(), in one transaction.
insert into data_plane.role_settings (subject, settings)
select r.rolname, coalesce(s.setconfig, '{}')
from pg_catalog.pg_roles r
left join pg_catalog.pg_db_role_setting s on s.setrole = r.oid and s.setdatabase = 0
where r.rolname in ('anon', 'authenticated', 'service_role', 'authenticator', 'data_plane_tenant')
on conflict (subject) do nothing;

create or replace function data_plane.keep_role_settings(of_role text) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    update data_plane.role_settings r set settings = coalesce((
        select s.setconfig from pg_catalog.pg_db_role_setting s
        where s.setrole = pg_catalog.quote_ident(of_role)::pg_catalog.regrole and s.setdatabase = 0), '{}')
    where r.subject = of_role
$$;

-- Roles whose settings are not as declared, for all databases or for one; and those that have a password and no use for
-- it: a role may give itself one, and it would count once somebody let the role sign in.
create or replace function data_plane.changed_roles() returns table (
    role_name text, tenant text, database_name text, present text[], declared text[], has_password boolean)
language sql stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    with watched as (
        select r.oid, r.rolname, case when s.subject <> r.rolname then s.subject end as tenant, s.settings,
            r.rolpassword is not null and not r.rolcanlogin as has_password
        from data_plane.role_settings s
        cross join lateral (
            values (s.subject), (s.subject || '_owner'), (s.subject || '_service_role'), (s.subject || '_authenticated'),
                (s.subject || '_anon')
        ) as names (name)
        join pg_catalog.pg_authid r on r.rolname = names.name
        where s.subject like 'proj\_%' and r.rolname <> s.subject or s.subject not like 'proj\_%' and r.rolname = s.subject
        union all
        -- Where a project's SQL can become its own PostgREST's login, it can configure that; or the one that its users come by.
        select r.oid, r.rolname, case when r.rolname like '%$relay' then pg_catalog.split_part(r.rolname, '$', 1) end, '{}', false
        from pg_catalog.pg_authid r
        where (data_plane.is_api_login(r.rolname) or r.rolname ~ '^proj_[a-z0-9_]+[$]relay$')
            and not exists (select from data_plane.role_settings s where s.subject = r.rolname)
    ),
    found as (
        select w.*, s.setdatabase, s.setconfig
        from watched w join pg_catalog.pg_db_role_setting s on s.setrole = w.oid
        union all
        select w.*, 0, '{}'
        from watched w
        where not exists (
            select from pg_catalog.pg_db_role_setting s where s.setrole = w.oid and s.setdatabase = 0)
    ),
    compared as (
        select f.*, case f.setdatabase when 0 then f.settings else '{}' end as wanted from found f
    )
    select c.rolname::text, c.tenant, d.datname::text, c.setconfig, c.wanted, c.has_password and c.setdatabase = 0
    from compared c
    left join pg_catalog.pg_database d on d.oid = c.setdatabase
    where not (c.setconfig @> c.wanted and c.wanted @> c.setconfig)
        or c.has_password and c.setdatabase = 0
$$;

-- A line for each of them. Values are a tenant's, so nothing of them but what can be printed.
create or replace function data_plane.changed_role_settings() returns table (
    role_name text, tenant text, database_name text, found text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select c.role_name, c.tenant, c.database_name,
        pg_catalog.format(line.words, c.role_name, line.setting, ' in database ' || c.database_name)
    from data_plane.changed_roles() c
    cross join lateral (
        select 'role %I has the setting %s%s, which is not declared' as words,
            pg_catalog.left(pg_catalog.regexp_replace(setting, '[^[:print:]]', '?', 'g'), 120) as setting
        from pg_catalog.unnest(c.present) as setting
        where setting <> all (c.declared)
        union all
        select 'role %I lacks the setting %s%s, which is declared', setting
        from pg_catalog.unnest(c.declared) as setting
        where setting <> all (c.present)
    ) as line
    union
    select c.role_name, c.tenant, c.database_name, pg_catalog.format('role %I has a password, which is not declared', c.role_name)
    from data_plane.changed_roles() c
    where c.has_password
$$;

-- Ends sessions of tenants that keep changes of roles open: the rows that they keep locked are wanted by the platform.
create or replace function data_plane.end_role_changes(older_than interval) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_catalog.pg_stat_clear_snapshot();
    perform pg_catalog.pg_terminate_backend(a.pid, 500)
    from pg_catalog.pg_stat_activity a
    join pg_catalog.pg_roles r on r.oid = a.usesysid
    where not r.rolsuper
        -- A lease, or a login that requests come in with.
        and exists (
            select from pg_catalog.pg_auth_members m
            where m.member = r.oid and data_plane.tenant_of(pg_catalog.pg_get_userbyid(m.roleid)) is not null
        )
        and a.xact_start < pg_catalog.clock_timestamp() - older_than
        and exists (
            select from pg_catalog.pg_locks l
            where l.pid = a.pid and l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.database = 0
                and l.relation in (
                    'pg_catalog.pg_authid'::pg_catalog.regclass, 'pg_catalog.pg_db_role_setting'::pg_catalog.regclass)
        );
end
$$;

-- Makes them what is declared, and returns a line for each change. The guard runs this every few seconds, and `up`.
-- What was declared less than `leave` ago is left to the run that declared it: of two sessions that set the same role, one
-- fails with "tuple concurrently updated".
drop function if exists data_plane.restore_role_settings();  -- as it was before it left anything
create or replace function data_plane.restore_role_settings(leave interval default '0') returns setof text
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '200ms'
as $$
declare
    changed record;
    setting text;
    lines text[];
    done boolean := false;
begin
    perform data_plane.end_role_changes('2 s');
    for changed in
        select c.* from data_plane.changed_roles() c
        where not exists (
            select from data_plane.role_settings s
            where s.subject = coalesce(c.tenant, c.role_name) and s.declared_at > pg_catalog.clock_timestamp() - leave)
    loop
        lines := array(
            select s.found from data_plane.changed_role_settings() s
            where s.role_name = changed.role_name and s.database_name is not distinct from changed.database_name);
        for attempt in 1..2 loop
            begin
                if changed.has_password then
                    execute pg_catalog.format('alter role %I password null', changed.role_name);
                end if;
                if changed.database_name is not null then
                    execute pg_catalog.format(
                        'alter role %I in database %I reset all', changed.role_name, changed.database_name);
                else
                    execute pg_catalog.format('alter role %I reset all', changed.role_name);
                    foreach setting in array changed.declared loop
                        execute pg_catalog.format('alter role %I set %s', changed.role_name, data_plane.assignment(setting));
                    end loop;
                end if;
                done := true;
                return query select pg_catalog.unnest(lines) || ': set right';
                exit;
            exception when others then
                perform data_plane.end_role_changes('0');
                if attempt = 2 then
                    return query select pg_catalog.unnest(lines) || ': ' || sqlerrm;
                end if;
            end;
        end loop;
    end loop;
    if done and pg_catalog.pg_notification_queue_usage() < 0.9 then
        -- PostgREST remembers the settings of roles.
        perform pg_catalog.pg_notify('pgrst', 'reload config');
    end if;
end
$$;

-- `name=value` as it stands in the catalog → what follows `alter role … set`. The elements of a list of identifiers
-- are quoted there already.
create or replace function data_plane.assignment(setting text) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    name text := pg_catalog.split_part(setting, '=', 1);
    value text := pg_catalog.substr(setting, pg_catalog.length(name) + 2);
begin
    if name not in ('search_path', 'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries') then
        value := pg_catalog.quote_literal(value);
    elsif value !~ '^("[^"]*"|[a-z0-9_$/]+)(, *("[^"]*"|[a-z0-9_$/]+))*$' then
        raise exception 'not a list of names: %', setting using errcode = 'invalid_parameter_value';
    end if;
    return (select pg_catalog.string_agg(pg_catalog.quote_ident(part), '.') from pg_catalog.string_to_table(name, '.') as part)
        || ' to ' || value;
end
$$;

-- What tenants' resources declare: {tenant: [setting, …]}.
create or replace function data_plane.declare_role_settings(declared jsonb) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    insert into data_plane.role_settings (subject, settings)
    select d.key, array(select pg_catalog.jsonb_array_elements_text(d.value))
    from pg_catalog.jsonb_each(declared) as d
    on conflict (subject) do update set settings = excluded.settings;
$$;
