-- Studio and postgres-meta: an operator's view of the platform's own schemas.
--
-- Reading a table can run its owner's code: a view's functions, and what the planner evaluates of an index. So
-- their login is no superuser, a member of no service's and no tenant's role, and may use no tenant's schema: a project's
-- data is looked at with a lease of that project.

do $$
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'data_plane_studio') then
        create role data_plane_studio;
    end if;
    alter role data_plane_studio login nosuperuser nocreatedb nocreaterole noreplication bypassrls;
    alter role data_plane_studio set statement_timeout = '2min';
    alter role data_plane_studio set lock_timeout = '10s';
    alter role data_plane_studio set idle_in_transaction_session_timeout = '2min';
end
$$;
grant pg_read_all_settings, pg_read_all_stats to data_plane_studio;

-- Again whenever a service makes tables.
create or replace function data_plane.open_to_studio() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    opened record;
begin
    for opened in
        select n.oid, n.nspname from pg_catalog.pg_namespace n
        where n.nspname in ('public', 'auth', 'storage', 'extensions', 'graphql_public')
            and not pg_catalog.has_schema_privilege('data_plane_studio', n.oid, 'usage')
    loop
        execute pg_catalog.format('grant usage on schema %I to data_plane_studio', opened.nspname);
    end loop;
    for opened in
        select c.oid::pg_catalog.regclass as name, c.relkind from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname in ('public', 'auth', 'storage') and c.relkind in ('r', 'p', 'v')
            and not pg_catalog.has_table_privilege('data_plane_studio', c.oid, 'delete')
    loop
        execute pg_catalog.format('grant select, insert, update, delete on %s to data_plane_studio', opened.name);
    end loop;
end
$$;
