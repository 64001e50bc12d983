-- The services bring their tables along, before or after this is applied: on the official image Auth's and Storage's
-- first ones are there from the start, and each of Auth, Storage and Realtime brings its own up to date when it starts.

create or replace function data_plane.adopt_services() returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    select data_plane.close_relations();
    select data_plane.adopt_auth();
    select data_plane.adopt_users();
    select data_plane.adopt_realtime();
    select data_plane.secure_storage();
    select data_plane.recheck_storage_rules();
    select data_plane.apply_buckets();
    select data_plane.open_to_studio();
$$;

-- A service runs this with its own login, hence the definer's rights; what it does is fixed.
create or replace function data_plane.follow_services() returns event_trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_tag = 'GRANT' then
        -- PostgreSQL does not say on what. Of all that follows, only the isolation of Storage and Realtime minds a grant.
        perform data_plane.secure_storage();
        perform data_plane.narrow_messages();
    elsif exists (
        select from pg_catalog.pg_event_trigger_ddl_commands() as ddl
        where ddl.object_type like 'table%' and (
            ddl.object_identity in (
                'auth.users', 'auth.sessions',
                '_realtime.tenants', '_realtime.extensions', 'realtime.messages', 'realtime.schema_migrations',
                'realtime.subscription')
            or ddl.schema_name = 'storage')
    ) then
        perform data_plane.adopt_services();
    end if;
end
$$;

select data_plane.adopt_services();

drop event trigger if exists data_plane_follow_services;
create event trigger data_plane_follow_services on ddl_command_end
    when tag in ('CREATE TABLE', 'ALTER TABLE', 'GRANT')
    execute function data_plane.follow_services();

-- Functions can be executed by everybody until that is taken back. Last, so that it holds for all of them.
revoke all on all functions in schema data_plane, data_plane_api from public;
