-- What one tenant may take of the shared server, and what ends it there.
--
--   1  functions that take without bound are taken from PUBLIC
--   2  limits that only a superuser can lift
--   3  data_plane.limits: what each project declares
--   4  data_plane.enforce_limits(): the guard, run every few seconds by a login that can do nothing else
--   5  the storage quota
--
-- Ending a session is all that stops it: a lease may set every timeout of its own to 0, and PostgreSQL has no setting
-- that says how many locks or notifications a session may take.

-- 1 -------------------------------------------------------------------------------------------------------------------

-- Advisory locks of a session outlive the request that took them, and their numbers are the same for all tenants.
-- Those of a transaction stay: real projects use them, and the guard counts them; so does giving locks back, which
-- clients' pools do with each connection. Storage's and Auth's migrations lock
-- with the former. What pg_logical_emit_message writes is write-ahead log and nothing else.
do $$
declare
    taken record;
    service text;
begin
    for taken in
        select p.oid::pg_catalog.regprocedure as signature, p.proname <> 'pg_logical_emit_message' as is_lock
        from pg_catalog.pg_proc p
        where p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace and p.proname in (
            'pg_advisory_lock', 'pg_advisory_lock_shared', 'pg_try_advisory_lock', 'pg_try_advisory_lock_shared',
            'pg_logical_emit_message')
    loop
        execute pg_catalog.format('revoke execute on function %s from public', taken.signature);
        foreach service in array array['supabase_auth_admin', 'supabase_storage_admin'] loop
            if taken.is_lock then
                execute pg_catalog.format('grant execute on function %s to %I', taken.signature, service);
            end if;
        end loop;
    end loop;
end
$$;

-- 2 -------------------------------------------------------------------------------------------------------------------

do $$
declare
    service text;
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'data_plane_guard') then
        create role data_plane_guard login noinherit;
    end if;
    -- A file that a sort or a join spills is deleted with the statement; a session cannot raise this. The superuser
    -- restores backups, indexes of any size included. (Not any superuser: a hand may have made a tenant's role one.)
    execute pg_catalog.format('alter database %I set temp_file_limit = %L', pg_catalog.current_database(), '2GB');
    execute pg_catalog.format('alter role %I set temp_file_limit = -1', current_user);
    -- From PostgreSQL 16 on, services get in when tenants hold every other connection.
    if pg_catalog.current_setting('server_version_num')::integer >= 160000 then
        foreach service in array array[
            'authenticator', 'supabase_auth_admin', 'supabase_storage_admin', 'pgbouncer', 'data_plane_keys',
            'data_plane_guard', 'data_plane_studio']
        loop
            execute pg_catalog.format('grant pg_use_reserved_connections to %I with inherit true, set false', service);
        end loop;
    end if;
end
$$;
alter role data_plane_guard set statement_timeout = '60s';
alter role data_plane_guard set idle_in_transaction_session_timeout = '60s';
grant usage on schema data_plane to data_plane_guard;

-- 3 -------------------------------------------------------------------------------------------------------------------

-- A row is written by the tenant's resources. Times are seconds.
create table if not exists data_plane.limits (
    tenant text primary key check (tenant ~ '^proj_[a-z0-9_]+$'),
    connections integer not null check (connections > 0),
    leases integer not null check (leases > 0),
    storage bigint not null check (storage > 0),
    statement_timeout integer not null check (statement_timeout > 0),
    transaction_timeout integer not null check (transaction_timeout > 0),
    idle_in_transaction_timeout integer not null check (idle_in_transaction_timeout > 0)
);
-- Counts of what a project may make; a table of before they were counted gets the columns.
alter table data_plane.limits
    add column if not exists schemas integer not null default 10 check (schemas >= 0),
    add column if not exists buckets integer not null default 20 check (buckets >= 0),
    add column if not exists jobs integer not null default 10 check (jobs >= 0),
    add column if not exists objects integer not null default 5000 check (objects > 0);

-- A tenant that has not been brought up since there are limits has the built-in ones (data_plane/model/projects.py).
create or replace function data_plane.limits_of(of_tenant text) returns data_plane.limits
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        (select l from data_plane.limits l where l.tenant = of_tenant),
        row(of_tenant, 20, 1000, 10737418240, 30, 900, 60, 10, 20, 10, 5000)::data_plane.limits)
$$;

-- Called by create_login: refuses a lease too many, and says how many sessions a lease may have.
create or replace function data_plane.lease_connections(tenant_role text) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    of_tenant constant text := data_plane.tenant_of(tenant_role);
    declared constant data_plane.limits := data_plane.limits_of(of_tenant);
    present integer;
begin
    select pg_catalog.count(*) into present
    from pg_catalog.pg_auth_members m
    join pg_catalog.pg_roles role on role.oid = m.roleid
    join pg_catalog.pg_roles login on login.oid = m.member
    where role.rolname in (
            of_tenant || '_owner', of_tenant || '_service_role', of_tenant || '_authenticated', of_tenant || '_anon')
        and login.rolname like 'lease\_%' and login.rolcanlogin
        and coalesce(login.rolvaliduntil, 'infinity') > pg_catalog.clock_timestamp();
    if present >= declared.leases then
        raise exception '% has its % leases', of_tenant, declared.leases
            using errcode = 'insufficient_resources', hint = 'Give one back, or raise `limits.leases` in its file.';
    end if;
    if data_plane.is_suspended(of_tenant) then
        raise exception '% gets no lease for a minute: its sessions took what others need, again and again', of_tenant
            using errcode = 'insufficient_resources', hint = '`dataplane project status` shows what the guard has ended.';
    end if;
    return (
        select case when r.rolconnlimit < 0 then declared.connections
            else least(r.rolconnlimit, declared.connections) end
        from pg_catalog.pg_roles r where r.rolname = tenant_role
    );
end
$$;

-- 4 -------------------------------------------------------------------------------------------------------------------

-- One row: how the guard is set, and what it remembers from one run to the next.
create table if not exists data_plane.guard (
    only_row boolean primary key default true check (only_row),
    snapshot_age integer not null default 1000000,  -- transactions
    queue_usage double precision not null default 0.01,  -- of the NOTIFY queue
    ran_at timestamptz,
    measured_at timestamptz,
    measuring interval not null default '0',
    reload_owed boolean not null default false
);
insert into data_plane.guard default values on conflict do nothing;

-- The times of a tenant's limits, in what is declared of its roles; before the roles are given them, so that the guard does
-- not take them back in between. Nothing for a tenant whose roles are not declared yet.
create or replace function data_plane.declare_limits_of_roles(of_tenant text) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    update data_plane.role_settings r set settings =
        array(
            select setting from pg_catalog.unnest(r.settings) as setting
            where pg_catalog.split_part(setting, '=', 1) not in ('statement_timeout', 'idle_in_transaction_session_timeout'))
        || array[
            'statement_timeout=' || l.statement_timeout * 1000,
            'idle_in_transaction_session_timeout=' || l.idle_in_transaction_timeout * 1000]
    from data_plane.limits l
    where l.tenant = of_tenant and r.subject = of_tenant
$$;

create table if not exists data_plane.guard_actions (
    id bigint generated always as identity primary key,
    at timestamptz not null default pg_catalog.now(),  -- the same for all of one run
    tenant text,
    login text,
    pid integer,
    what text not null,
    value text,
    bound text
);
create index if not exists guard_actions_tenant on data_plane.guard_actions (tenant, at);

-- Whether a project does it again and again: leases of it were closed in ten of the last thirty runs.
create or replace function data_plane.is_suspended(of_tenant text) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select pg_catalog.count(distinct a.at) >= 10
    from data_plane.guard_actions a
    where a.tenant = of_tenant and a.what = 'lease closed'
        and a.at > pg_catalog.clock_timestamp() - interval '1 min'
$$;

-- The role by which a login is a tenant's: a lease's is the one that it starts as. A login that the platform has for one
-- project (proj_x$relay) is its owner's. A PostgREST that serves one tenant is known by its name; one that several share
-- is nobody's, and null.
create or replace function data_plane.role_of_login(login text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    select case
        when login like 'lease\_%' then (
            select role.rolname::text
            from pg_catalog.pg_auth_members m
            join pg_catalog.pg_authid role on role.oid = m.roleid
            where m.member = pg_catalog.to_regrole(pg_catalog.quote_ident(login)) limit 1)
        when login like 'proj\_%$%' then pg_catalog.split_part(login, '$', 1) || '_owner'
        else (pg_catalog.regexp_match(login, '^(proj_[a-z0-9_]+)_authenticator$'))[1] || '_anon'
    end
$$;

create or replace function data_plane.tenant_of_login(login text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select data_plane.tenant_of(data_plane.role_of_login(login))
$$;

-- The lease signs in no more, and its sessions end. A catalog row that one of them has changed is free once they have.
create or replace function data_plane.close_lease(login text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
begin
    perform pg_catalog.pg_stat_clear_snapshot();
    perform pg_catalog.pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity a where a.usename = login;
    perform pg_catalog.pg_terminate_backend(a.pid, 500) from pg_catalog.pg_stat_activity a where a.usename = login;
    execute pg_catalog.format('alter role %I connection limit 0', login);
    return true;
exception when others then
    raise warning 'guard: lease % is not closed yet: %', login, sqlerrm;
    return false;
end
$$;

-- Ends the sessions that hold most of a tenant's locks, where those are too many. Nothing here reads a table or writes
-- a row: where the lock table is full, neither is possible.
create or replace function data_plane.end_lock_holders(bound integer) returns setof data_plane.guard_actions
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    holder record;
    done data_plane.guard_actions;
begin
    for holder in
        select held.pid, held.locks, s.login,
            pg_catalog.sum(held.locks) over (
                -- By name, which is lease_<role>_<random> or proj_x$…: whose role that is stands in a table.
                partition by case when s.login like 'proj\_%$%' then 'lease_' || pg_catalog.split_part(s.login, '$', 1)
                    else pg_catalog.regexp_replace(
                        s.login, '(_(owner|service_role|authenticated|anon))?_[^_]*$', '') end) as total
        from (
            select l.pid, pg_catalog.count(*) as locks from pg_catalog.pg_lock_status() l
            where l.pid is not null group by l.pid
        ) held
        cross join lateral (
            select pg_catalog.pg_get_userbyid(a.usesysid)::text as login
            from pg_catalog.pg_stat_get_activity(held.pid) a
        ) s
        where held.locks > bound / 20 and (s.login like 'lease\_%' or s.login like 'proj\_%$%' or s.login ~ '(^|_)authenticator$')
    loop
        if holder.total > bound then
            perform pg_catalog.pg_terminate_backend(holder.pid, 500);
            done := null;
            done.login := holder.login;
            done.pid := holder.pid;
            done.what := 'locks';
            done.value := holder.locks::text;
            done.bound := bound::text;
            return next done;
        end if;
    end loop;
end
$$;

-- The sessions that tenants' SQL runs in, each with what it is allowed.
drop function if exists data_plane.guarded_sessions();
create function data_plane.guarded_sessions() returns table (
    pid integer, login text, is_lease boolean, is_job boolean, tenant text, state text, wait_event text, begun timestamptz,
    has_written boolean, snapshot_age integer, statement_time interval, transaction_time interval, state_time interval,
    statement_bound integer, transaction_bound integer, idle_bound integer, connections integer)
language sql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    -- No call of a function of ours for each session, and no view: both cost as much as all the rest.
    with sessions as materialized (
        select a.*, pg_catalog.pg_get_userbyid(a.usesysid)::text as login
        from pg_catalog.pg_stat_get_activity(null) a
        where a.backend_type in ('client backend', 'pg_cron')
    ),
    known as materialized (
        select s.*, s.login like 'lease\_%' as is_lease, s.login like 'proj\_%$jobs' as is_job,
            case when s.login like 'lease\_%' then pg_catalog.pg_get_userbyid((
                select m.roleid from pg_catalog.pg_auth_members m where m.member = s.usesysid limit 1))::text
            when s.login like 'proj\_%$%' then pg_catalog.split_part(s.login, '$', 1) || '_owner'
            else pg_catalog.regexp_replace(s.login, '_authenticator$', '_anon') end as role
        from sessions s
        where s.login like 'lease\_%' or s.login like 'proj\_%$%' or s.login = 'authenticator' or s.login like '%\_authenticator'
    ),
    owned as materialized (
        select k.*, k.role like '%\_owner' as is_owner,
            (pg_catalog.regexp_match(k.role, '^(proj_[a-z0-9_]+)_(?:owner|service_role|authenticated|anon)$'))[1] as tenant
        from known k
    ),
    served as materialized (
        select access.login, pg_catalog.max(coalesce(l.statement_timeout, built_in.statement_timeout)) as statement_timeout
        from data_plane.limits_of(null) built_in
        cross join data_plane.api_access access
        left join data_plane.limits l on l.tenant = access.tenant
        group by 1
    )
    select s.pid, s.login, s.is_lease, s.is_job, s.tenant, s.state, s.wait_event, s.backend_start,
        s.backend_xid is not null,
        greatest(pg_catalog.age(s.backend_xmin), pg_catalog.age(s.backend_xid)),
        case when s.state = 'active' then pg_catalog.clock_timestamp() - s.query_start end,
        pg_catalog.clock_timestamp() - s.xact_start,
        pg_catalog.clock_timestamp() - s.state_change,
        -- Migrations take their time: what an owner's statement may last is what a transaction may.
        case when s.is_owner then greatest(
                coalesce(l.statement_timeout, built_in.statement_timeout),
                coalesce(l.transaction_timeout, built_in.transaction_timeout))
            else coalesce(l.statement_timeout, served.statement_timeout, built_in.statement_timeout) end,
        greatest(
            coalesce(l.statement_timeout, built_in.statement_timeout),
            coalesce(l.transaction_timeout, built_in.transaction_timeout)),
        coalesce(l.idle_in_transaction_timeout, built_in.idle_in_transaction_timeout),
        coalesce(l.connections, built_in.connections)
    from owned s
    cross join data_plane.limits_of(null) built_in
    left join data_plane.limits l on l.tenant = s.tenant
    left join served on served.login = s.login
$$;

create or replace function data_plane.enforce_limits() returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
-- Nobody else loses a deadlock to the guard: it looks for one first, and its waits end before others look (after 1 s).
set deadlock_timeout = '10ms'
set lock_timeout = '500ms'
as $$
declare
    guard data_plane.guard;
    ended data_plane.guard_actions[];
    closing text[];
    usage double precision;
    excess record;
begin
    -- First what may keep everything else from working. Its bound is a constant here, since a table cannot be read.
    ended := array(select h from data_plane.end_lock_holders(10000) h);
    closing := array(select h.login from pg_catalog.unnest(ended) h where h.login like 'lease\_%');
    -- Again where an `up` held up the first try. What a try has ended is known only here: it stays so when it fails.
    for attempt in 1..20 loop begin
        select g.* into guard from data_plane.guard g for update skip locked;
        if not found then  -- another run is at it; no tenant can lock this row
            exit when ended = '{}';
            perform pg_catalog.pg_sleep(0.1);
            continue;
        end if;

        usage := pg_catalog.pg_notification_queue_usage();
        for excess in
            with sessions as materialized (
                select s.*, pg_catalog.row_number() over (partition by s.tenant order by not s.is_lease desc, s.begun) as place,
                    pg_catalog.count(*) over (partition by s.tenant) as present,
                    pg_catalog.row_number() over (partition by s.tenant, s.is_job order by s.begun) as place_of_job,
                    pg_catalog.count(*) over (partition by s.is_job) as jobs_present
                from data_plane.guarded_sessions() s
            ),
            -- Locks, had or waited for, that keep others from what is no tenant's.
            outside as materialized (
                select l.pid, pg_catalog.min(pg_catalog.format('%I.%I: %s', n.nspname, c.relname, l.mode)) as relation
                from pg_catalog.pg_lock_status() l
                join pg_catalog.pg_class c on c.oid = l.relation
                join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                where l.locktype = 'relation'
                    and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
                    and l.mode not in ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
                    and n.nspname not like 'proj\_%' and n.nspname not in ('pg_catalog', 'pg_toast', 'information_schema')
                    -- Held for as long as a storage rule is judged, and by the platform's function alone.
                    and l.relation <> 'data_plane.judged_objects'::pg_catalog.regclass
                group by l.pid
            )
            select s.pid, s.login, s.is_lease, s.is_job, s.tenant, found.what, found.value, found.bound, found.cancel, found.close
            from sessions s
            cross join lateral (
                -- A session that listens and does not read, which an open transaction keeps it from, holds the queue up.
                select 1 as rank, 'notification queue' as what, pg_catalog.round(usage::numeric * 100, 1) || ' %' as value,
                    guard.queue_usage * 100 || ' %' as bound, false as cancel, true as close
                where usage > guard.queue_usage
                    and (s.transaction_time > interval '2 s' or s.wait_event = 'ClientWrite')
                union all
                -- Storage's tables are anon's and authenticated's to change, so to lock; row-level security does not ask.
                select 1, 'lock', o.relation, 'its own schema', false, true
                from outside o where o.pid = s.pid
                union all
                select 2, 'connections', s.present::text, s.connections::text, false, s.present > 2 * s.connections
                where s.is_lease and s.place > s.connections
                union all
                -- All projects share the workers of pg_cron; where few are left, each keeps two.
                select 2, 'jobs at once', s.place_of_job::text, '2', false, false
                where s.is_job and s.place_of_job > 2
                    and s.jobs_present >= 0.75 * pg_catalog.current_setting('cron.max_running_jobs', true)::integer
                union all
                -- pg_cron takes a message at a time, and starts no job of others' meanwhile.
                select 2, 'messages', 'more than pg_cron reads', 'a few', false, (
                    select pg_catalog.count(*) >= 2 or coalesce(pg_catalog.bool_or(a.pid = s.pid), false)
                    from data_plane.guard_actions a
                    where a.tenant = s.tenant and a.what = 'messages' and a.at > pg_catalog.clock_timestamp() - interval '10 min')
                where s.is_job and s.wait_event in ('MessageQueuePutMessage', 'MessageQueueSend')
                    -- One that reports an error cannot be ended; its job is stopped once.
                    and not exists (
                        select from data_plane.guard_actions a
                        where a.tenant = s.tenant and a.pid = s.pid and a.what = 'job stopped')
                union all
                select 3, 'snapshot', s.snapshot_age || ' transactions', guard.snapshot_age::text, false, false
                where s.snapshot_age > guard.snapshot_age and s.transaction_time > interval '10 s'
                union all
                select 4, 'transaction', pg_catalog.date_trunc('second', s.transaction_time)::text,
                    s.transaction_bound || ' s', false, false
                where s.transaction_time > pg_catalog.make_interval(secs => s.transaction_bound)
                union all
                select 5, 'idle in transaction', pg_catalog.date_trunc('second', s.state_time)::text, s.idle_bound || ' s', false, false
                where s.state like 'idle in transaction%' and s.state_time > pg_catalog.make_interval(secs => s.idle_bound)
                union all
                -- Cancelled first, by which a client learns why; a handler in its SQL can catch that, so ended then.
                select 6, 'statement', pg_catalog.date_trunc('second', s.statement_time)::text, s.statement_bound || ' s',
                    s.statement_time < pg_catalog.make_interval(secs => s.statement_bound + 5)
                        -- Whenever the guard comes to it.
                        or not exists (
                            select from data_plane.guard_actions a
                            where a.pid = s.pid and a.what = 'statement'
                                and a.at > pg_catalog.clock_timestamp() - s.statement_time),
                    false
                where s.statement_time > pg_catalog.make_interval(secs => s.statement_bound + 1)
                order by rank
                limit 1
            ) found
        loop
            if excess.cancel then
                perform pg_catalog.pg_cancel_backend(excess.pid);
            else
                perform pg_catalog.pg_terminate_backend(excess.pid);
            end if;
            ended := ended || row(null, null, excess.tenant, excess.login, excess.pid,
                excess.what, excess.value, excess.bound)::data_plane.guard_actions;
            if excess.close and excess.is_job then
                perform data_plane.stop_job(excess.pid, excess.login, excess.what);
                ended := ended || row(null, null, excess.tenant, excess.login, excess.pid,
                    'job stopped', excess.what, null)::data_plane.guard_actions;
            elsif excess.close and excess.is_lease then
                closing := closing || excess.login;
            end if;
        end loop;

        -- All are told to end before one is waited for, which takes 100 ms for each that is still there.
        perform pg_catalog.pg_stat_clear_snapshot();
        perform pg_catalog.pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity a
        where a.usename = any (closing);

        insert into data_plane.guard_actions (tenant, login, pid, what, value, bound)
        select distinct on (h.login, h.pid, h.what)
            coalesce(h.tenant, data_plane.tenant_of_login(h.login)), h.login, h.pid, h.what, h.value, h.bound
        from pg_catalog.unnest(ended) h;
        for excess in
            select distinct l.login from pg_catalog.unnest(closing) as l (login)
            join pg_catalog.pg_roles r on r.rolname = l.login where r.rolconnlimit <> 0
        loop
            if data_plane.close_lease(excess.login) then
                insert into data_plane.guard_actions (tenant, login, what)
                values (data_plane.tenant_of_login(excess.login), excess.login, 'lease closed');
            end if;
        end loop;

        -- PostgREST was not told of what changed while there was no room to say so.
        if usage > 0.5 then
            guard.reload_owed := true;
        elsif guard.reload_owed then
            perform pg_catalog.pg_notify('pgrst', 'reload config'), pg_catalog.pg_notify('pgrst', 'reload schema');
            guard.reload_owed := false;
        end if;

        -- Cheap enough to be exact: never more than a twentieth of the time.
        if guard.measured_at is null
            or guard.measured_at + greatest(interval '10 s', 20 * guard.measuring) < pg_catalog.clock_timestamp()
        then
            guard.measured_at := pg_catalog.clock_timestamp();
            -- It reads many catalogs, so it fails while the lock table is full; what was ended stays so.
            begin
                perform data_plane.enforce_storage();
            exception when others then
                raise warning 'guard: %', sqlerrm;
            end;
            begin
                perform data_plane.keep_message_partitions();
            exception when others then
                raise warning 'guard: %', sqlerrm;
            end;
            begin
                perform data_plane.sweep_jobs();
            exception when others then
                raise warning 'guard: %', sqlerrm;
            end;
            guard.measuring := pg_catalog.clock_timestamp() - guard.measured_at;
        end if;

        begin
            perform data_plane.sweep_leases();
            insert into data_plane.guard_actions (tenant, what, value, bound)
            select pg_catalog.substring(line, '^role (proj_[a-z0-9_]+)_authenticator '), 'password', line, 'as given'
            from data_plane.restore_api_passwords() as line;
            insert into data_plane.guard_actions (tenant, what, value, bound)
            select pg_catalog.substring(line, '^role "?(proj_[a-z0-9_]+)(?:_(?:owner|service_role|authenticated|anon)|[$][a-z]+)[" ]'),
                'role settings', pg_catalog.left(pg_catalog.string_agg(line, '; '), 500), 'as declared'
            from data_plane.restore_role_settings('30 s') as line
            group by 1;
        exception when others then
            raise warning 'guard: %', sqlerrm;
        end;

        delete from data_plane.guard_actions a
        where a.id <= (select pg_catalog.max(id) from data_plane.guard_actions) - 10000;
        update data_plane.guard g set ran_at = pg_catalog.clock_timestamp(), measured_at = guard.measured_at,
            measuring = guard.measuring, reload_owed = guard.reload_owed;
        exit;
    exception when others then
        -- The connection stays, whatever happens: a new one may not be had. A run that fails shows by `ran_at`.
        raise warning 'guard: % (%)', sqlerrm, sqlstate;
    end; end loop;
end
$$;

-- 5 -------------------------------------------------------------------------------------------------------------------
-- A full tenant loses INSERT and UPDATE on its tables, the owner too, and cannot grant them again, or make what grows,
-- until it is below 95 %. SELECT, DELETE, TRUNCATE, DROP and VACUUM go on. No trigger does this: an owner may drop those.

create table if not exists data_plane.storage_use (
    tenant text primary key,
    bytes bigint not null,
    measured_at timestamptz not null default pg_catalog.clock_timestamp(),
    warned boolean not null default false,
    is_full boolean not null default false
);

-- What a full tenant has to get back: names, which a restored database has, too. PUBLIC is null.
create table if not exists data_plane.withheld_grants (
    tenant text not null,
    relation text not null,
    column_name text,
    grantee text,
    privilege text not null,
    is_grantable boolean not null
);
create index if not exists withheld_grants_tenant on data_plane.withheld_grants (tenant);

-- Bytes on disk by tenant, from the files themselves: no lock that a tenant could hold. A table that a transaction is
-- still making is nobody's yet in the catalog; the lock on it says whose.
create or replace function data_plane.measured_storage() returns table (tenant text, bytes bigint)
language sql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    with folder as (
        select 'base/' || d.oid || '/' as path from pg_catalog.pg_database d
        where d.datname = pg_catalog.current_database()
    ),
    files as materialized (
        select (pg_catalog.regexp_match(f.name, '^\d+'))[1]::oid as node, pg_catalog.sum(s.size) as bytes
        from folder
        cross join lateral pg_catalog.pg_ls_dir(folder.path, true, false) as f (name)
        cross join lateral pg_catalog.pg_stat_file(folder.path || f.name, true) as s
        where f.name ~ '^\d'
        group by 1
    ),
    fresh as (
        select l.pid, a.usename, pg_catalog.sum(f.bytes) as bytes
        from pg_catalog.pg_lock_status() l
        join files f on f.node = l.relation
        join pg_catalog.pg_stat_activity a on a.pid = l.pid and (a.usename like 'lease\_%' or a.usename like 'proj\_%$%')
        where l.locktype = 'relation' and l.mode = 'AccessExclusiveLock' and l.granted
            and not exists (select from pg_catalog.pg_class c where c.relfilenode = f.node)
        group by 1, 2
    ),
    -- VACUUM FULL, by which a full tenant gets room, writes a table anew before it drops the old one, and is a transaction
    -- by itself: as much as the old one has is no growth.
    replaced as (
        select p.pid, pg_catalog.sum(f.bytes) as bytes
        from pg_catalog.pg_stat_get_progress_info('CLUSTER') p
        join pg_catalog.pg_class t on t.oid = p.relid
        join pg_catalog.pg_class c on c.oid in (t.oid, t.reltoastrelid)
        join files f on f.node = c.relfilenode
        where p.param1 = 2
        group by 1
    ),
    owned (role, bytes) as (
        select c.relowner, pg_catalog.sum(f.bytes)
        from files f join pg_catalog.pg_class c on c.relfilenode = f.node and c.reltablespace = 0
        group by 1
        union all
        select pg_catalog.to_regrole(pg_catalog.quote_ident(data_plane.role_of_login(f.usename))),
            greatest(f.bytes - coalesce(r.bytes, 0), 0)
        from fresh f left join replaced r on r.pid = f.pid
        union all
        select m.lomowner, pg_catalog.count(*) * 2048
        from pg_catalog.pg_largeobject_metadata m left join pg_catalog.pg_largeobject l on l.loid = m.oid
        group by 1
    ),
    -- Texts in the catalogs take as much as a tenant likes: comments, functions, views, defaults, conditions. Rows of them
    -- that are dead are autovacuum's.
    schemas as materialized (
        select n.oid from pg_catalog.pg_namespace n where n.nspname like 'proj\_%'
    ),
    objects (class, id, role) as materialized (
        select 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, c.relowner from pg_catalog.pg_class c
        where c.relnamespace in (select s.oid from schemas s)
        union all
        select 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, p.proowner from pg_catalog.pg_proc p
        where p.pronamespace in (select s.oid from schemas s)
        union all
        select 'pg_catalog.pg_type'::pg_catalog.regclass, y.oid, y.typowner from pg_catalog.pg_type y
        where y.typnamespace in (select s.oid from schemas s)
        union all
        select 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid, o.oprowner from pg_catalog.pg_operator o
        where o.oprnamespace in (select s.oid from schemas s)
        union all
        select 'pg_catalog.pg_opclass'::pg_catalog.regclass, o.oid, o.opcowner from pg_catalog.pg_opclass o
        where o.opcnamespace in (select s.oid from schemas s)
        union all
        select 'pg_catalog.pg_opfamily'::pg_catalog.regclass, o.oid, o.opfowner from pg_catalog.pg_opfamily o
        where o.opfnamespace in (select s.oid from schemas s)
        union all
        select 'pg_catalog.pg_collation'::pg_catalog.regclass, c.oid, c.collowner from pg_catalog.pg_collation c
        where c.collnamespace in (select s.oid from schemas s)
        union all
        select 'pg_catalog.pg_conversion'::pg_catalog.regclass, c.oid, c.conowner from pg_catalog.pg_conversion c
        where c.connamespace in (select s.oid from schemas s)
        union all
        select 'pg_catalog.pg_ts_config'::pg_catalog.regclass, c.oid, c.cfgowner from pg_catalog.pg_ts_config c
        where c.cfgnamespace in (select s.oid from schemas s)
        union all
        select 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, d.oid, d.dictowner from pg_catalog.pg_ts_dict d
        where d.dictnamespace in (select s.oid from schemas s)
        union all
        select 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, x.oid, x.stxowner from pg_catalog.pg_statistic_ext x
        where x.stxnamespace in (select s.oid from schemas s)
        union all
        select 'pg_catalog.pg_largeobject'::pg_catalog.regclass, m.oid, m.lomowner from pg_catalog.pg_largeobject_metadata m
        union all
        select 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid, n.nspowner
        from pg_catalog.pg_namespace n where n.oid in (select s.oid from schemas s)
    ),
    -- What belongs to a table or a type, and what it says.
    parts (class, id, of_class, of_id, bytes) as (
        select 'pg_catalog.pg_constraint'::pg_catalog.regclass, c.oid,
            case c.conrelid when 0 then 'pg_catalog.pg_type'::pg_catalog.regclass else 'pg_catalog.pg_class'::pg_catalog.regclass end,
            case c.conrelid when 0 then c.contypid else c.conrelid end, pg_catalog.pg_column_size(c.*)
        from pg_catalog.pg_constraint c
        union all
        select 'pg_catalog.pg_trigger'::pg_catalog.regclass, g.oid, 'pg_catalog.pg_class'::pg_catalog.regclass, g.tgrelid,
            pg_catalog.pg_column_size(g.*)
        from pg_catalog.pg_trigger g
        union all
        select 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid, 'pg_catalog.pg_class'::pg_catalog.regclass, p.polrelid,
            pg_catalog.pg_column_size(p.*)
        from pg_catalog.pg_policy p
        union all
        select 'pg_catalog.pg_rewrite'::pg_catalog.regclass, w.oid, 'pg_catalog.pg_class'::pg_catalog.regclass, w.ev_class,
            pg_catalog.pg_column_size(w.ev_action) + pg_catalog.pg_column_size(w.ev_qual)
        from pg_catalog.pg_rewrite w
        union all
        select 'pg_catalog.pg_attrdef'::pg_catalog.regclass, d.oid, 'pg_catalog.pg_class'::pg_catalog.regclass, d.adrelid,
            pg_catalog.pg_column_size(d.adbin)
        from pg_catalog.pg_attrdef d
        union all
        select 'pg_catalog.pg_index'::pg_catalog.regclass, null, 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid,
            coalesce(pg_catalog.pg_column_size(i.indexprs), 0) + coalesce(pg_catalog.pg_column_size(i.indpred), 0)
        from pg_catalog.pg_index i
        union all
        select 'pg_catalog.pg_attribute'::pg_catalog.regclass, null, 'pg_catalog.pg_class'::pg_catalog.regclass, a.attrelid,
            pg_catalog.count(*)::integer * 250
        from pg_catalog.pg_attribute a group by a.attrelid
        union all
        select 'pg_catalog.pg_enum'::pg_catalog.regclass, null, 'pg_catalog.pg_type'::pg_catalog.regclass, e.enumtypid,
            pg_catalog.count(*)::integer * 250
        from pg_catalog.pg_enum e group by e.enumtypid
    ),
    texts (role, bytes) as (
        select o.role, pg_catalog.sum(p.bytes) from parts p join objects o on o.class = p.of_class and o.id = p.of_id group by 1
        union all
        select p.proowner, pg_catalog.sum(pg_catalog.pg_column_size(p.*)) from pg_catalog.pg_proc p
        where p.pronamespace in (select s.oid from schemas s) group by 1
        union all
        select y.typowner, pg_catalog.sum(pg_catalog.pg_column_size(y.*)) from pg_catalog.pg_type y
        where y.typnamespace in (select s.oid from schemas s) group by 1
        union all
        select o.role, pg_catalog.sum(pg_catalog.pg_column_size(d.description) + 50)
        from pg_catalog.pg_description d join (
            select o.class, o.id, o.role from objects o
            union all
            select p.class, p.id, o.role from parts p join objects o on o.class = p.of_class and o.id = p.of_id
            where p.id is not null
        ) as o on o.class = d.classoid and o.id = d.objoid
        group by 1
    ),
    by_tenant as materialized (
        select (pg_catalog.regexp_match(
            -- What a login owns itself (`set role none`) are large objects.
            case when r.rolname like 'lease\_%' or r.rolname like 'proj\_%$%' then data_plane.role_of_login(r.rolname) else r.rolname end,
            -- So do those of a PostgREST's own that serves this project alone (`reset role`).
            '^(proj_[a-z0-9_]+)_(?:owner|service_role|authenticated|anon|authenticator)$'))[1] as tenant,
            pg_catalog.sum(o.bytes) as bytes
        from (select * from owned union all select * from texts) as o (role, bytes)
        join pg_catalog.pg_authid r on r.oid = o.role
        group by 1
    )
    select n.nspname::text, coalesce(o.bytes, 0)::bigint
    from pg_catalog.pg_namespace n
    left join by_tenant o on o.tenant = n.nspname
    where n.nspname like 'proj\_%' and pg_catalog.pg_get_userbyid(n.nspowner) = n.nspname || '_owner'
$$;

create or replace function data_plane.withhold_growth(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    target record;
    grantees text;
begin
    for target in
        select c.oid, c.oid::pg_catalog.regclass::text as name, c.relowner, c.relacl
        from pg_catalog.pg_class c join pg_catalog.pg_authid r on r.oid = c.relowner
        where c.relkind in ('r', 'p') and data_plane.tenant_of(r.rolname) = of_tenant
    loop
        insert into data_plane.withheld_grants
        select of_tenant, target.name, rights.column_name,
            case when acl.grantee <> 0 then pg_catalog.pg_get_userbyid(acl.grantee)::text end,
            acl.privilege_type, acl.is_grantable and acl.grantee <> target.relowner
        from (
            select null::text as column_name, coalesce(target.relacl, pg_catalog.acldefault('r', target.relowner)) as acl
            union all
            select a.attname::text, a.attacl from pg_catalog.pg_attribute a
            where a.attrelid = target.oid and a.attacl is not null and not a.attisdropped
        ) rights
        cross join lateral pg_catalog.aclexplode(rights.acl) as acl
        where acl.privilege_type in ('INSERT', 'UPDATE');
        select pg_catalog.string_agg(distinct coalesce(pg_catalog.quote_ident(w.grantee), 'public'), ', ') into grantees
        from data_plane.withheld_grants w where w.relation = target.name;
        if grantees is not null then
            -- A privilege on the table takes those on its columns with it.
            execute pg_catalog.format('revoke insert, update on table %s from %s cascade', target.name, grantees);
        end if;
    end loop;
    execute pg_catalog.format('comment on role %I is %L', of_tenant || '_owner', 'storage full');
end
$$;

create or replace function data_plane.give_growth_back(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    withheld record;
begin
    for withheld in
        select w.* from data_plane.withheld_grants w
        where w.tenant = of_tenant
            and pg_catalog.to_regclass(w.relation) is not null
            and (w.grantee is null or pg_catalog.to_regrole(pg_catalog.quote_ident(w.grantee)) is not null)
            and (w.column_name is null or exists (
                select from pg_catalog.pg_attribute a
                where a.attrelid = pg_catalog.to_regclass(w.relation) and a.attname = w.column_name
                    and not a.attisdropped))
    loop
        execute pg_catalog.format('grant %s%s on table %s to %s%s', withheld.privilege,
            ' (' || pg_catalog.quote_ident(withheld.column_name) || ')', withheld.relation,
            coalesce(pg_catalog.quote_ident(withheld.grantee), 'public'),
            case when withheld.is_grantable then ' with grant option' else '' end);
    end loop;
    delete from data_plane.withheld_grants w where w.tenant = of_tenant;
    execute pg_catalog.format('comment on role %I is null', of_tenant || '_owner');
end
$$;

create or replace function data_plane.enforce_storage() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
declare
    used record;
    changed text;
begin
    delete from data_plane.storage_use u where pg_catalog.to_regnamespace(pg_catalog.quote_ident(u.tenant)) is null;
    for used in
        select m.tenant, m.bytes, coalesce(u.bytes, 0) as bytes_before, coalesce(u.warned, false) as warned,
            coalesce(u.is_full, false) as is_full, (data_plane.limits_of(m.tenant)).storage as bound
        from data_plane.measured_storage() m
        left join data_plane.storage_use u on u.tenant = m.tenant
        where u.tenant is null or m.bytes <> u.bytes or u.is_full <> (m.bytes > (data_plane.limits_of(m.tenant)).storage)
    loop
        changed := case
            when not used.is_full and used.bytes > used.bound then 'storage full'
            when used.is_full and used.bytes < used.bound * 0.95 then 'storage has room again'
            when not used.warned and not used.is_full and used.bytes > used.bound * 0.8 then 'storage at 80 %'
        end;
        begin
            -- Again, for a table that was made before and committed since.
            if changed = 'storage full' or used.is_full and changed is null and used.bytes > used.bytes_before then
                perform data_plane.withhold_growth(used.tenant);
            elsif changed = 'storage has room again' then
                perform data_plane.give_growth_back(used.tenant);
            end if;
        exception when others then
            -- A session of the tenant's has a table's catalog row; it is ended below, and the next run gets it.
            raise warning 'guard: %: %: %', used.tenant, changed, sqlerrm;
            changed := null;
        end;
        insert into data_plane.storage_use as u (tenant, bytes, warned, is_full)
        values (used.tenant, used.bytes, used.bytes > used.bound * 0.8, coalesce(changed = 'storage full', false))
        on conflict (tenant) do update set bytes = excluded.bytes, measured_at = excluded.measured_at,
            warned = used.bytes > used.bound * 0.75 and (u.warned or excluded.warned),
            is_full = case changed when 'storage full' then true when 'storage has room again' then false else u.is_full end;
        if changed is not null then
            insert into data_plane.guard_actions (tenant, what, value, bound)
            values (used.tenant, changed, pg_catalog.pg_size_pretty(used.bytes), pg_catalog.pg_size_pretty(used.bound));
        end if;
        -- What began before, or grows by another way (large objects), ends.
        if used.bytes > used.bound and used.bytes > used.bytes_before then
            insert into data_plane.guard_actions (tenant, login, pid, what, value, bound)
            select used.tenant, s.login, s.pid, 'storage', pg_catalog.pg_size_pretty(used.bytes),
                pg_catalog.pg_size_pretty(used.bound)
            from data_plane.guarded_sessions() s
            where s.tenant = used.tenant and s.has_written and pg_catalog.pg_terminate_backend(s.pid);
        end if;
    end loop;
end
$$;

-- The caller may read nothing of the platform's but the catalog, where a comment, which no tenant can set on a
-- role, says that its tenant is full.
create or replace function data_plane.refuse_growth() returns event_trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    of_tenant constant text := (pg_catalog.regexp_match(
        current_user, '^(proj_[a-z0-9_]+)_(?:owner|service_role|authenticated|anon)$'))[1];
begin
    if pg_catalog.shobj_description(pg_catalog.to_regrole(of_tenant || '_owner'), 'pg_authid') = 'storage full' then
        raise exception 'the storage of % is full', of_tenant
            using errcode = 'disk_full',
                hint = 'Delete, truncate or drop something and VACUUM FULL, or raise `limits.storage` in its file.';
    end if;
end
$$;

drop event trigger if exists data_plane_storage;
create event trigger data_plane_storage on ddl_command_start
    when tag in (
        'GRANT', 'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE INDEX', 'ALTER TABLE',
        'CREATE MATERIALIZED VIEW', 'REFRESH MATERIALIZED VIEW', 'ALTER MATERIALIZED VIEW',
        -- Texts in the catalogs, which measured_storage counts.
        'COMMENT', 'CREATE FUNCTION', 'CREATE PROCEDURE', 'CREATE AGGREGATE', 'CREATE VIEW', 'CREATE RULE', 'CREATE TRIGGER',
        'CREATE POLICY', 'ALTER POLICY', 'CREATE TYPE', 'ALTER TYPE', 'CREATE DOMAIN', 'ALTER DOMAIN', 'CREATE SEQUENCE',
        'CREATE STATISTICS', 'CREATE OPERATOR', 'CREATE OPERATOR CLASS', 'CREATE COLLATION', 'CREATE CAST',
        'CREATE TEXT SEARCH CONFIGURATION', 'CREATE TEXT SEARCH DICTIONARY'
    )
    execute function data_plane.refuse_growth();

-- What a tenant owns costs the others catalogs and files, however empty it is. All of it is found by indexes.
create or replace function data_plane.count_objects(of_tenant text) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with owned as (
        select d.classid, d.objid from pg_catalog.pg_shdepend d
        where d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and d.deptype = 'o'
            and d.refobjid = pg_catalog.to_regrole(of_tenant || '_owner')
            and d.dbid = (select b.oid from pg_catalog.pg_database b where b.datname = pg_catalog.current_database())
    )
    select (select pg_catalog.count(*) from owned) + (
        select pg_catalog.count(*) from owned o join pg_catalog.pg_index i on i.indrelid = o.objid
        where o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass)
$$;

create or replace function data_plane.refuse_object_too_many() returns event_trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    made record;
begin
    if (select r.rolsuper from pg_catalog.pg_roles r where r.rolname = session_user) then
        return;
    end if;
    for made in
        select t.tenant, (data_plane.limits_of(t.tenant)).objects as bound
        from (
            select distinct pg_catalog.split_part(ddl.schema_name, '$', 1) as tenant
            from pg_catalog.pg_event_trigger_ddl_commands() as ddl
            where ddl.schema_name ~ '^proj_'
        ) as t
    loop
        if data_plane.count_objects(made.tenant) > made.bound then
            raise exception '% has its % objects', made.tenant, made.bound
                using errcode = 'configuration_limit_exceeded', hint = 'Drop some, or raise `limits.objects` in its file.';
        end if;
    end loop;
end
$$;

drop event trigger if exists data_plane_objects;
create event trigger data_plane_objects on ddl_command_end
    when tag in (
        'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE INDEX', 'CREATE VIEW', 'CREATE MATERIALIZED VIEW',
        'CREATE SEQUENCE', 'CREATE FOREIGN TABLE', 'CREATE FUNCTION', 'CREATE PROCEDURE', 'CREATE AGGREGATE', 'CREATE TYPE',
        'CREATE DOMAIN', 'CREATE STATISTICS', 'CREATE OPERATOR', 'CREATE OPERATOR CLASS', 'CREATE OPERATOR FAMILY',
        'CREATE COLLATION', 'CREATE CONVERSION', 'CREATE TEXT SEARCH CONFIGURATION', 'CREATE TEXT SEARCH DICTIONARY'
    )
    execute function data_plane.refuse_object_too_many();

-- The newest action of each kind of a tenant, for `dataplane project status`.
create or replace function data_plane.guard_summary() returns table (
    tenant text, what text, times bigint, latest timestamptz, value text, bound text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select a.tenant, a.what, pg_catalog.count(*), pg_catalog.max(a.at),
        (pg_catalog.array_agg(a.value order by a.id desc))[1], (pg_catalog.array_agg(a.bound order by a.id desc))[1]
    from data_plane.guard_actions a
    group by a.tenant, a.what
$$;

grant execute on function data_plane.enforce_limits(), data_plane.apply_storage() to data_plane_guard;
