-- How leases end. Nothing here waits for a tenant longer than a lock_timeout: what a tenant keeps locked stays behind as
-- a login that cannot sign in and is a member of nothing, and is removed later.

-- PREPARE TRANSACTION keeps a lock without a session to end: a lease could keep the row of its own login.
do $$
begin
    if current_setting('max_prepared_transactions')::integer > 0 then
        raise exception 'max_prepared_transactions is %, so that a tenant could keep a lock for ever',
            current_setting('max_prepared_transactions')
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'Set it to 0, which is PostgreSQL''s default, and restart the server.';
    end if;
    -- For what a function's own settings cannot bound: the statement that calls it. LeaseEngine says the same.
    alter role openbao_lease_issuer set statement_timeout = 15000;
    alter role openbao_lease_issuer set idle_in_transaction_session_timeout = 15000;
    alter role openbao_lease_issuer set lock_timeout = 2000;
end
$$;

-- Leases that have ended and whose login could not be dropped yet.
create table if not exists data_plane.ended_leases (
    login text primary key,
    tenant text,
    ended_at timestamptz not null default now(),
    reason text not null
);

create or replace function data_plane.is_lease(login text) returns boolean
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select login ~ '^lease_[A-Za-z0-9_]+$'
$$;

create or replace function data_plane.milliseconds(patience interval) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select (extract(epoch from patience) * 1000)::integer || 'ms'
$$;

-- A session that got in while its login was being closed goes on as the tenant's role. The next lease that comes or
-- goes, or the next sweep, ends it.
create or replace function data_plane.end_orphaned_sessions() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_catalog.pg_terminate_backend(a.pid)
    from pg_catalog.pg_stat_activity a
    left join pg_catalog.pg_authid r on r.oid = a.usesysid
    where a.usesysid is not null
        and a.backend_type in ('client backend', 'parallel worker')
        and (r.oid is null or data_plane.is_lease(r.rolname) and not r.rolcanlogin);
end
$$;

-- Ends a login's sessions, and waits until they are gone or until the deadline.
create or replace function data_plane.end_sessions(login_id oid, deadline timestamptz) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    loop
        perform pg_catalog.pg_stat_clear_snapshot();
        perform pg_catalog.pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity a where a.usesysid = login_id;
        exit when not found or pg_catalog.clock_timestamp() > deadline;
        perform pg_catalog.pg_sleep(0.005);
    end loop;
end
$$;

-- Drops a login that has ended. What its sessions made as the tenant's role is the tenant's already; what they made for
-- the login itself (`set role none`: large objects, default privileges) goes to the tenant's owner or is dropped with it.
-- Where a lock, or the sheer number of objects, is in the way, the login stays without any membership, and false comes
-- back.
create or replace function data_plane.remove_login(login text, patience interval) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '200ms'  -- and `patience` from here to the function's end
as $$
declare
    at_once constant integer := 1000;
    login_id oid := (select r.oid from pg_catalog.pg_roles r where r.rolname = login);
    tenant_role text := (
        select pg_catalog.pg_get_userbyid(m.roleid) from pg_catalog.pg_auth_members m
        where m.member = login_id and data_plane.tenant_of(pg_catalog.pg_get_userbyid(m.roleid)) is not null
        limit 1);
    tenant text := coalesce(
        data_plane.tenant_of(tenant_role), (select e.tenant from data_plane.ended_leases e where e.login = remove_login.login));
    heir text := (select r.rolname from pg_catalog.pg_roles r where r.rolname = tenant || '_owner');
    object oid;
    cause text;
begin
    perform pg_catalog.set_config('lock_timeout', data_plane.milliseconds(patience), true);
    begin
        -- A session makes as many of these as it likes.
        for object in
            select d.objid from pg_catalog.pg_shdepend d
            where d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and d.refobjid = login_id
                and d.classid = 'pg_catalog.pg_largeobject'::pg_catalog.regclass and d.deptype = 'o'
                and d.dbid = (select b.oid from pg_catalog.pg_database b where b.datname = pg_catalog.current_database())
            limit at_once
        loop
            if heir is null then
                perform pg_catalog.lo_unlink(object);
            else
                execute pg_catalog.format('alter large object %s owner to %I', object, heir);
            end if;
        end loop;
    exception when others or query_canceled then
        cause := sqlerrm;
    end;
    begin
        if exists (
            select from pg_catalog.pg_shdepend d
            where d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and d.refobjid = login_id
            offset at_once
        ) then
            raise exception 'more than % objects name it', at_once using errcode = 'program_limit_exceeded';
        end if;
        if heir is not null then
            execute pg_catalog.format('reassign owned by %I to %I', login, heir);
        end if;
        execute pg_catalog.format('drop owned by %I', login);
        execute pg_catalog.format('drop role %I', login);
        delete from data_plane.ended_leases e where e.login = remove_login.login;
        return true;
    -- Once statement_timeout has struck it does not strike again, and what follows is short.
    exception when others or query_canceled then
        cause := sqlerrm;
    end;
    begin
        if not exists (select from pg_catalog.pg_authid r where r.oid = login_id) then
            return true;
        end if;
        insert into data_plane.ended_leases (login, tenant, reason) values (remove_login.login, tenant, cause)
        on conflict on constraint ended_leases_pkey do update set reason = excluded.reason;
        if tenant_role is not null then
            execute pg_catalog.format('revoke %I from %I', tenant_role, login);
        end if;
    exception when others or query_canceled then
        cause := sqlerrm;
    end;
    raise warning 'lease % has ended, but its login is still needed: %', login, cause;
    return false;
end
$$;

-- Sessions first: they hold what the next statements want. One that gets in meanwhile is ended in the next turn, or,
-- once nobody can sign in any more, at the end.
create or replace function data_plane.end_lease(login text, patience interval) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '200ms'  -- and `patience` from here to the function's end
as $$
declare
    deadline constant timestamptz := pg_catalog.clock_timestamp() + interval '2 s';
    login_id oid;
begin
    perform pg_catalog.set_config('lock_timeout', data_plane.milliseconds(patience), true);
    loop
        select r.oid into login_id from pg_catalog.pg_authid r where r.rolname = login;
        if not found then
            return;
        end if;
        perform data_plane.end_sessions(login_id, deadline);
        begin
            execute pg_catalog.format('alter role %I nologin password null', login);
            exit;
        -- The last two: another session is ending it, too.
        exception when lock_not_available or internal_error or undefined_object then
            if pg_catalog.clock_timestamp() > deadline then
                raise;
            end if;
        end;
    end loop;
    perform data_plane.remove_login(login, patience);
    perform data_plane.end_sessions(login_id, pg_catalog.clock_timestamp());
end
$$;

-- Removes the logins of leases that have ended: those that could not be dropped at the time, and those that are past
-- their end without anybody having revoked them (OpenBao gave up on them, or was told to forget them). Returns a line
-- for each, for operators.
create or replace function data_plane.sweep_some_leases(at_most integer, patience interval) returns setof text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    deadline constant timestamptz := pg_catalog.clock_timestamp() + interval '5 s';
    lease record;
begin
    perform data_plane.end_orphaned_sessions();
    for lease in select l.login, l.found from data_plane.lapsed_leases() l order by pg_catalog.random() limit at_most loop
        exit when pg_catalog.clock_timestamp() > deadline;
        begin
            perform data_plane.end_lease(lease.login, patience);
        exception when others or query_canceled then
            raise warning 'lease % could not be ended: %', lease.login, sqlerrm;
        end;
        return next lease.found || case
            when exists (select from pg_catalog.pg_authid r where r.rolname = lease.login) then ', and still cannot be dropped'
            else ', and was dropped'
        end;
    end loop;
    delete from data_plane.ended_leases e
    where not exists (select from pg_catalog.pg_authid r where r.rolname = e.login);
end
$$;

-- The guard runs this every few seconds, and `up`.
create or replace function data_plane.sweep_leases() returns setof text
language sql
set search_path = pg_catalog, pg_temp
as $$
    select data_plane.sweep_some_leases(100, '200 ms')
$$;

create or replace function data_plane.lapsed_leases() returns table (login text, found text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select r.rolname::text, pg_catalog.format('login %I has ended (%s)', r.rolname, e.reason)
    from data_plane.ended_leases e
    join pg_catalog.pg_authid r on r.rolname = e.login
    union all
    select r.rolname::text, pg_catalog.format('login %I outlived its lease, which ended %s', r.rolname, r.rolvaliduntil)
    from pg_catalog.pg_authid r
    -- By its own clock OpenBao may still be about to revoke it.
    where r.rolvaliduntil < pg_catalog.now() - interval '1 min'
        and data_plane.is_lease(r.rolname)
        and not exists (select from data_plane.ended_leases e where e.login = r.rolname)
        -- A count, because PostgreSQL would make a join of EXISTS, and ask tenant_of() of every membership there is.
        and (
            select pg_catalog.count(*) from pg_catalog.pg_auth_members m
            where m.member = r.oid and data_plane.tenant_of(pg_catalog.pg_get_userbyid(m.roleid)) is not null
        ) > 0
$$;

-- What OpenBao calls at a lease's end.
create or replace function data_plane.revoke_lease(login text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform data_plane.refuse_other_logins(login);
    perform data_plane.end_lease(login, '200 ms');
    perform data_plane.sweep_some_leases(3, '10 ms');
end
$$;

revoke all on all functions in schema data_plane from public;
grant execute on function data_plane.revoke_lease(text) to openbao_lease_issuer;
