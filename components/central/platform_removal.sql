-- Removing a project for good: the step after detaching it and taking its file away. Only a superuser can.

-- Drops what a detached project has in the database: its schemas with all in them, its roles, and what the platform
-- knows of it. Files in its buckets stay; nobody sees them, and a superuser's token deletes them through Storage. The
-- guard drops the login of its jobs once pg_cron has let go of them.
create or replace function data_plane.drop_project(project text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set lock_timeout = '10s'
as $$
declare
    gone constant text := 'proj_' || pg_catalog.replace(project, '-', '_');
    found record;
begin
    if data_plane.slug_of(gone) <> project or data_plane.tenant_of(gone || '_owner') is null then
        raise exception 'there is no project %', project using errcode = 'undefined_object',
            hint = 'Name it by its slug, as its file does.';
    end if;
    select r.rolname into found
    from pg_catalog.pg_roles r
    where r.rolname in (gone || '_anon', gone || '_authenticated', gone || '_service_role')
        and pg_catalog.has_schema_privilege(r.oid, gone, 'usage')
    limit 1;
    if found is not null then
        raise exception 'project % is attached: % may use it', project, found.rolname
            using errcode = 'object_in_use', hint = 'Detach it first (`lifecycle: detached` and an `up`), and take a dump.';
    end if;
    select login.rolname into found
    from pg_catalog.pg_auth_members m
    join pg_catalog.pg_roles role on role.oid = m.roleid
    join pg_catalog.pg_roles login on login.oid = m.member
    where data_plane.tenant_of(role.rolname) = gone and login.rolname like 'lease\_%'
    limit 1;
    if found is not null then
        raise exception 'project % has the lease %', project, found.rolname
            using errcode = 'object_in_use', hint = 'Detaching revokes leases; what is left, the guard drops within a minute.';
    end if;

    for found in select s as name from data_plane.schemas_of(gone) s loop
        execute pg_catalog.format('drop schema %s cascade', found.name);
    end loop;
    -- Sessions of users that were for the project stay so: they are for none other.
    for found in
        select a.attrelid::pg_catalog.regclass as name, a.attname
        from pg_catalog.pg_attribute a
        join pg_catalog.pg_class c on c.oid = a.attrelid
        where c.relnamespace = 'data_plane'::pg_catalog.regnamespace and c.relkind in ('r', 'p')
            and c.relname <> 'session_projects' and not a.attisdropped
            and (a.attname = 'tenant' or c.relname = 'role_settings' and a.attname = 'subject')
    loop
        execute pg_catalog.format('delete from %s where %I = %L', found.name, found.attname, gone);
    end loop;
    for found in
        select r.rolname as name from pg_catalog.pg_roles r
        where r.rolname in (gone || '_anon', gone || '_authenticated', gone || '_service_role', gone || '_owner')
            or pg_catalog.starts_with(r.rolname, gone || '$') and r.rolname <> gone || '$jobs'
        order by r.rolname = gone || '_owner'
    loop
        execute pg_catalog.format('drop owned by %I', found.name);
        execute pg_catalog.format('drop role %I', found.name);
    end loop;
end
$$;

-- Everybody else is refused by the rights that the statements take; nobody needs to try.
revoke all on function data_plane.drop_project(text) from public;
