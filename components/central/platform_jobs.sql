-- Jobs of projects, run by pg_cron where the server has it.
--
--   1  pg_cron itself: made where it can be, and closed to everybody but the platform
--   2  a project's login for jobs, and the jobs that it wants
--   3  what a project calls
--   4  what the guard, `up` and `status` call
--
-- A job runs in a session of its own, as the login proj_x$jobs: a member of the project's owner and of nothing else, which
-- starts as the owner. It runs in a background worker of PostgreSQL, so it needs no password and no line of pg_hba.conf,
-- and with a connection limit of 0, which does not count background workers, nobody else signs in as this login: not even
-- with a password that a job has given it. What pg_cron itself does with a project's text is to read the schedule, to keep
-- the command and to hand it to that session.

-- 1 -------------------------------------------------------------------------------------------------------------------

-- Why projects cannot have jobs here; null if they can.
create or replace function data_plane.cron_obstacle() returns text
language sql stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    select case
        when not exists (select from pg_catalog.pg_extension e where e.extname = 'pg_cron')
            then 'this PostgreSQL has no pg_cron'
        when coalesce(pg_catalog.current_setting('cron.use_background_workers', true), 'off') <> 'on'
            then 'pg_cron does not run its jobs in background workers here (cron.use_background_workers)'
        -- Before 1.5 it waits for one job to end before it starts the next, so that a project could hold up all others.
        when (
            select pg_catalog.string_to_array((pg_catalog.regexp_match(e.extversion, '^\d+\.\d+'))[1], '.')::integer[]
            from pg_catalog.pg_extension e where e.extname = 'pg_cron') < '{1,5}'
            then 'pg_cron is older than 1.5, which runs one job at a time'
    end
$$;

-- pg_cron lets everybody make jobs of their own: a lease would outlive itself by one.
create or replace function data_plane.restrict_cron() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from pg_catalog.pg_extension e where e.extname = 'pg_cron') then
        revoke all on schema cron from public;
        revoke all on all tables in schema cron from public;
        revoke all on all sequences in schema cron from public;
        revoke all on all functions in schema cron from public;
    end if;
end
$$;

-- `create extension if not exists` of one that is there takes no right, and makes nothing: rows of the catalog that were
-- changed for it would stay locked for as long as the session that changes it likes.
create or replace function data_plane.restrict_new_cron() returns event_trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from pg_catalog.pg_event_trigger_ddl_commands()) then
        perform data_plane.restrict_cron();
    end if;
end
$$;

drop event trigger if exists data_plane_cron;
create event trigger data_plane_cron on ddl_command_end
    when tag in ('CREATE EXTENSION', 'ALTER EXTENSION')
    execute function data_plane.restrict_new_cron();

do $$
begin
    if current_setting('cron.database_name', true) = current_database()
        and '{pg_cron}' && string_to_array(replace(current_setting('shared_preload_libraries'), ' ', ''), ',')
        and exists (select from pg_catalog.pg_available_extensions where name = 'pg_cron')
    then
        create extension if not exists pg_cron;
    end if;
end
$$;
select data_plane.restrict_cron();

-- 2 -------------------------------------------------------------------------------------------------------------------

-- The projects whose jobs may run; a row is written by the tenant's resources.
create table if not exists data_plane.job_access (
    tenant text primary key check (tenant ~ '^proj_[a-z0-9_]+$'),
    attached boolean not null
);

-- What projects want; cron.job follows. `id` is pg_cron's, which gives another after it was made anew.
create table if not exists data_plane.jobs (
    tenant text not null,
    name text not null,
    id bigint not null,
    schedule text not null,
    command text not null,
    scheduled_at timestamptz not null default pg_catalog.now(),
    stopped text,  -- why the guard has stopped it; scheduling it again starts it
    primary key (tenant, name)
);

-- Two sessions of a project that count its jobs take turns. Nothing else waits for this row.
create table if not exists data_plane.job_turns (
    tenant text primary key,
    turn bigint not null default 0
);

-- Jobs of pg_cron's that no project wants any more, since the guard has first seen them so.
create table if not exists data_plane.forgotten_jobs (
    id bigint primary key,
    since timestamptz not null default pg_catalog.clock_timestamp()
);

-- The tenant whose login for jobs this is; null for any other role.
create or replace function data_plane.tenant_of_job_login(login text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    select data_plane.tenant_of((pg_catalog.regexp_match(login, '^(proj_[a-z0-9_]+)\$jobs$'))[1] || '_owner')
$$;

-- The settings of a project's login for jobs, as PostgreSQL keeps them.
create or replace function data_plane.job_login_settings(of_tenant text) returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select array[
            'role=' || of_tenant || '_owner',
            'search_path=' || of_tenant || ', extensions',
            'statement_timeout=' || greatest(l.statement_timeout, l.transaction_timeout) * 1000,
            'idle_in_transaction_session_timeout=' || l.idle_in_transaction_timeout * 1000,
            -- Each message is a row that pg_cron writes.
            'client_min_messages=warning']
        from data_plane.limits_of(of_tenant) l);
end
$$;

-- Makes the login, or sets right what it has become, and the jobs with it. Not with a definer's rights, in which
-- PostgreSQL refuses to set the role that a login starts as.
create or replace function data_plane.provide_jobs(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
    login constant text := of_tenant || '$jobs';
    owner constant text := of_tenant || '_owner';
    strange record;
    setting text;
begin
    if data_plane.tenant_of(owner) is null then
        return;  -- its schema is not made yet, or gone
    end if;
    if pg_catalog.to_regrole(pg_catalog.quote_ident(login)) is null then
        execute pg_catalog.format('create role %I noinherit in role %I', login, owner);
    end if;
    if exists (select from data_plane.job_login_faults(of_tenant)) then
        -- A job may have changed its own login and not committed.
        perform pg_catalog.pg_stat_clear_snapshot();
        perform pg_catalog.pg_terminate_backend(a.pid, 500)
        from pg_catalog.pg_stat_activity a
        where a.usename = login and exists (
            select from pg_catalog.pg_locks l
            where l.pid = a.pid and l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.database = 0
                and l.relation in (
                    'pg_catalog.pg_authid'::pg_catalog.regclass, 'pg_catalog.pg_db_role_setting'::pg_catalog.regclass));
        begin
            execute pg_catalog.format(
                'alter role %I login noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls'
                ' connection limit 0 password null valid until ''1970-01-01 00:00+00''', login);
            execute pg_catalog.format('grant %I to %I', owner, login);
            for strange in
                select m.roleid::pg_catalog.regrole as role, m.member::pg_catalog.regrole as member
                from pg_catalog.pg_auth_members m
                where pg_catalog.to_regrole(pg_catalog.quote_ident(login)) in (m.roleid, m.member)
                    and m.roleid <> pg_catalog.quote_ident(owner)::pg_catalog.regrole
            loop
                execute pg_catalog.format('revoke %s from %s', strange.role, strange.member);
            end loop;
            for setting in
                select d.datname from pg_catalog.pg_db_role_setting s join pg_catalog.pg_database d on d.oid = s.setdatabase
                where s.setrole = pg_catalog.quote_ident(login)::pg_catalog.regrole
            loop
                execute pg_catalog.format('alter role %I in database %I reset all', login, setting);
            end loop;
            execute pg_catalog.format('alter role %I reset all', login);
            foreach setting in array data_plane.job_login_settings(of_tenant) loop
                execute pg_catalog.format('alter role %I set %s', login, data_plane.assignment(setting));
            end loop;
        -- One that reports a long error is not to be ended; the next run sets it right.
        exception when lock_not_available or internal_error then
            raise warning 'role % is not set right yet: %', login, sqlerrm;
        end;
    end if;
    perform data_plane.apply_jobs(of_tenant);
end
$$;

-- What of the login is otherwise than provide_jobs leaves it: a job may give its own login a password and settings, and a
-- hand anything.
create or replace function data_plane.job_login_faults(of_tenant text) returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with login as (
        select r.*, pg_catalog.quote_ident(of_tenant || '_owner')::pg_catalog.regrole as owner
        from pg_catalog.pg_authid r where r.rolname = of_tenant || '$jobs'
    )
    select pg_catalog.format('role %I is not as the platform makes it', l.rolname)
    from login l
    where not l.rolcanlogin or l.rolinherit or l.rolsuper or l.rolcreatedb or l.rolcreaterole or l.rolreplication or l.rolbypassrls
        or l.rolconnlimit <> 0 or l.rolvaliduntil is distinct from timestamptz '1970-01-01 00:00+00'
    union all
    select pg_catalog.format('role %I has a password', l.rolname) from login l where l.rolpassword is not null
    union all
    select pg_catalog.format('%I is no member of %s', l.rolname, l.owner) from login l
    where not exists (select from pg_catalog.pg_auth_members m where m.roleid = l.owner and m.member = l.oid)
    union all
    select pg_catalog.format('%s is a member of %s', m.member::pg_catalog.regrole, m.roleid::pg_catalog.regrole)
    from login l join pg_catalog.pg_auth_members m on l.oid in (m.roleid, m.member) and m.roleid <> l.owner
    union all
    select pg_catalog.format('role %I has other settings than jobs start with', l.rolname) from login l
    where not exists (
            select from pg_catalog.pg_db_role_setting s
            where s.setrole = l.oid and s.setdatabase = 0
                and s.setconfig @> data_plane.job_login_settings(of_tenant)
                and s.setconfig <@ data_plane.job_login_settings(of_tenant))
        or exists (select from pg_catalog.pg_db_role_setting s where s.setrole = l.oid and s.setdatabase <> 0)
$$;

-- Ends sessions of the tenant's that have changed jobs and not committed: the rows that they keep are wanted.
create or replace function data_plane.end_job_changes(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_catalog.pg_stat_clear_snapshot();
    perform pg_catalog.pg_terminate_backend(a.pid, 500)
    from pg_catalog.pg_stat_activity a
    where data_plane.tenant_of_login(a.usename) = of_tenant
        and exists (
            select from pg_catalog.pg_locks l
            where l.pid = a.pid and l.locktype = 'relation' and l.mode = 'RowExclusiveLock'
                and l.relation in (pg_catalog.to_regclass('cron.job'), 'data_plane.jobs'::pg_catalog.regclass)
        );
end
$$;

-- A job that shall not run any more stays in pg_cron's table, on 30 February, until no run of it is under way
-- (sweep_jobs). pg_cron would end a run whose job is inactive or gone, and wait for its end without reading its messages;
-- one that is about to report a long error waits for just that. Nothing but a restart of the server ends it.
create or replace function data_plane.parked(out schedule text, out command text)
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select '0 0 30 2 *', 'select 1'
$$;

-- Makes cron.job what the tenant wants and may have, and parks what was made there by hand in the name of one of its
-- roles. Without pg_cron there is nothing to do.
create or replace function data_plane.apply_jobs(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
    login constant text := of_tenant || '$jobs';
    job record;
begin
    if data_plane.cron_obstacle() is not null then
        return;
    end if;
    perform data_plane.end_job_changes(of_tenant);
    perform cron.alter_job(s.id, p.schedule, p.command, active := true)
    from data_plane.strange_jobs(of_tenant) s cross join data_plane.parked() p;
    for job in
        select w.*, c.jobid is not null as is_there
        from data_plane.wanted_jobs(of_tenant) w
        left join cron.job c on c.jobid = w.id and c.username = login
        where (c.schedule, c.command, c.database, c.active)
            is distinct from (w.schedule, w.command, pg_catalog.current_database()::text, true)
    loop
        if job.is_there then
            perform cron.alter_job(job.id, job.schedule, job.command, pg_catalog.current_database()::text, login, true);
        else
            job.id := cron.schedule_in_database(
                job.name, job.schedule, job.command, pg_catalog.current_database()::text, login, true);
            update data_plane.jobs j set id = job.id where j.tenant = of_tenant and j.name = job.name;
        end if;
    end loop;
    if not exists (select from data_plane.job_access a where a.tenant = of_tenant and a.attached) then
        perform pg_catalog.pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity a where a.usename = login;
    end if;
end
$$;

-- What pg_cron has to have of a tenant's jobs.
create or replace function data_plane.wanted_jobs(of_tenant text) returns table (
    name text, id bigint, runs boolean, schedule text, command text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select j.name, j.id, r.runs, case when r.runs then j.schedule else p.schedule end,
        case when r.runs then j.command else p.command end
    from data_plane.jobs j
    left join data_plane.job_access a on a.tenant = j.tenant
    cross join lateral (select coalesce(a.attached, false) and j.stopped is null as runs) r
    cross join data_plane.parked() p
    where j.tenant = of_tenant
$$;

-- Jobs in pg_cron's table in the name of a role of the tenant's, a lease's too, that did not come by schedule_job.
create or replace function data_plane.strange_jobs(of_tenant text) returns table (id bigint, name text, username text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if pg_catalog.to_regclass('cron.job') is null then
        return;
    end if;
    return query
        select c.jobid, c.jobname::text, c.username
        from cron.job c
        cross join data_plane.parked() p
        where coalesce(data_plane.tenant_of(c.username), data_plane.tenant_of_login(c.username)) = of_tenant
            and (c.schedule, c.command) <> (p.schedule, p.command)
            and not exists (
                select from data_plane.jobs j
                where j.id = c.jobid and j.tenant = of_tenant and c.username = of_tenant || '$jobs' and c.jobname = j.name);
end
$$;

-- 3 -------------------------------------------------------------------------------------------------------------------

create or replace function data_plane.refuse_without_cron() returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if data_plane.cron_obstacle() is not null then
        raise exception 'there are no scheduled jobs here: %', data_plane.cron_obstacle()
            using errcode = 'feature_not_supported',
                hint = 'A data plane on Supabase''s image has them. Behind `if exists (select from pg_extension where extname = ''pg_cron'')` the statement is passed over.';
    end if;
end
$$;

-- Schedules a job of the project's, or changes the one of this name, and returns its number.
create or replace function data_plane_api.schedule_job(job_name text, schedule text, command text) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set lock_timeout = '5s'
as $$
declare
    mine constant text := data_plane.calling_owner();
    bound constant integer := (data_plane.limits_of(mine)).jobs;
    id bigint;
begin
    perform data_plane.refuse_without_cron();
    if not exists (select from data_plane.job_access a where a.tenant = mine and a.attached)
        or pg_catalog.to_regrole(pg_catalog.quote_ident(mine || '$jobs')) is null
    then
        raise exception 'this project has no jobs: it is detached, or was not brought up since there are any'
            using errcode = 'object_not_in_prerequisite_state', hint = 'Run `dataplane up`.';
    end if;
    if job_name is null or job_name !~ '^[[:print:]]+$' or pg_catalog.octet_length(job_name) > 63 then
        raise exception 'a job has a name of 1 to 63 bytes that can be printed' using errcode = 'invalid_parameter_value';
    end if;
    if schedule is null or pg_catalog.length(schedule) > 200
        or schedule !~ '^ *([0-9a-zA-Z*,/$-]+ +){4}[0-9a-zA-Z*,/$-]+ *$'
            and pg_catalog.btrim(schedule) not in (
                '@hourly', '@daily', '@midnight', '@weekly', '@monthly', '@yearly', '@annually')
    then
        raise exception 'not a schedule: %', pg_catalog.left(schedule, 200)
            using errcode = 'invalid_parameter_value',
                hint = 'Five fields, as in ''*/5 * * * *'', or @hourly, @daily, @weekly, @monthly, @yearly. Once a minute is the most often.';
    end if;
    if command is null or pg_catalog.btrim(command) = '' or pg_catalog.octet_length(command) > 8192 then
        raise exception 'a job has a command of at most 8192 bytes'
            using errcode = 'invalid_parameter_value', hint = 'Put what is longer into a function, and call that.';
    end if;
    if (select pg_catalog.count(*) >= 3 from data_plane.guard_actions a
        where a.tenant = mine and a.what = 'job stopped' and a.at > pg_catalog.clock_timestamp() - interval '1 hour')
    then
        raise exception '% schedules no job for an hour: its jobs took what others need, again and again', mine
            using errcode = 'insufficient_resources', hint = '`dataplane project status` shows what the guard has ended.';
    end if;
    -- An update, so that a transaction with an older snapshot fails here instead of counting too few.
    insert into data_plane.job_turns as t (tenant) values (mine) on conflict (tenant) do update set turn = t.turn + 1;
    if not exists (select from data_plane.jobs j where j.tenant = mine and j.name = job_name)
        and (select pg_catalog.count(*) from data_plane.jobs j where j.tenant = mine) >= bound
    then
        raise exception '% has its % jobs', mine, bound
            using errcode = 'configuration_limit_exceeded', hint = 'Unschedule one, or raise `limits.jobs` in its file.';
    end if;
    if (select pg_catalog.count(*) from cron.job c where c.username = mine || '$jobs') >= bound + 20 then
        raise exception '% has taken away many jobs, whose last runs are waited for', mine
            using errcode = 'configuration_limit_exceeded', hint = 'Try it again in a minute.';
    end if;
    id := cron.schedule_in_database(
        job_name, schedule, command, pg_catalog.current_database()::text, mine || '$jobs', true);
    perform cron.alter_job(id, active := true);  -- whatever a hand has done
    insert into data_plane.jobs as j (tenant, name, id, schedule, command)
    values (mine, job_name, id, schedule, command)
    on conflict on constraint jobs_pkey do update
    set id = excluded.id, schedule = excluded.schedule, command = excluded.command, scheduled_at = pg_catalog.now(), stopped = null;
    return id;
end
$$;

-- Takes a job of the project's away; returns whether there was one.
create or replace function data_plane_api.unschedule_job(job_name text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
    mine constant text := data_plane.calling_owner();
    taken bigint;
begin
    perform data_plane.refuse_without_cron();
    delete from data_plane.jobs j where j.tenant = mine and j.name = job_name returning j.id into taken;
    if not found then
        return false;
    end if;
    perform cron.alter_job(c.jobid, p.schedule, p.command)
    from cron.job c cross join data_plane.parked() p
    where c.jobid = taken and c.username = mine || '$jobs';
    return true;
end
$$;

create or replace function data_plane_api.unschedule_job(job_id bigint) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return data_plane_api.unschedule_job((
        select j.name from data_plane.jobs j where j.tenant = data_plane.calling_owner() and j.id = job_id));
end
$$;

-- The project's jobs, with pg_cron's names for columns: what is asked of cron.job elsewhere.
create or replace function data_plane_api.list_jobs() returns table (
    jobid bigint, jobname text, schedule text, command text, active boolean, stopped text,
    last_run timestamptz, last_status text, last_message text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    mine constant text := data_plane.calling_owner();
begin
    perform data_plane.refuse_without_cron();
    return query
        select j.id, j.name, j.schedule, j.command, w.runs, j.stopped, r.started, r.status, r.message
        from data_plane.jobs j
        join data_plane.wanted_jobs(mine) w on w.name = j.name
        left join lateral data_plane.runs_of(mine, j.id, 1) r on true
        where j.tenant = mine
        order by j.name;
end
$$;

-- The newest runs of the project's jobs, or of one. The platform keeps twenty of each.
create or replace function data_plane_api.job_runs(job_name text default null) returns table (
    jobid bigint, jobname text, runid bigint, status text, return_message text, start_time timestamptz, end_time timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    mine constant text := data_plane.calling_owner();
begin
    perform data_plane.refuse_without_cron();
    return query
        select j.id, j.name, r.id, r.status, r.message, r.started, r.ended
        from data_plane.jobs j
        cross join lateral data_plane.runs_of(mine, j.id, 20) r
        where j.tenant = mine and (job_name is null or j.name = job_name)
        order by r.id desc;
end
$$;

-- 4 -------------------------------------------------------------------------------------------------------------------

-- A message is a project's, of any length.
create or replace function data_plane.runs_of(of_tenant text, job bigint, at_most integer) returns table (
    id bigint, status text, message text, started timestamptz, ended timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
        select d.runid, d.status, pg_catalog.left(d.return_message, 1000), d.start_time, d.end_time
        from cron.job_run_details d
        where d.jobid = job and d.username = of_tenant || '$jobs'
        order by d.runid desc
        limit at_most;
end
$$;

-- For `dataplane project status`, as the superuser.
create or replace function data_plane.job_report() returns table (
    tenant text, name text, schedule text, state text, last_run timestamptz, last_status text, failure text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    obstacle constant text := data_plane.cron_obstacle();
begin
    if obstacle is not null then
        return query
            select j.tenant, j.name, j.schedule, obstacle, null::timestamptz, null::text, null::text
            from data_plane.jobs j order by 1, 2;
        return;
    end if;
    return query
        select j.tenant, j.name, j.schedule,
            case when j.stopped is not null then 'stopped: ' || j.stopped when w.runs then 'active' else 'detached' end,
            r.started, r.status,
            case when r.status = 'failed'
                then pg_catalog.left(pg_catalog.regexp_replace(r.message, '[^[:print:]]+', ' ', 'g'), 200) end
        from data_plane.jobs j
        join lateral data_plane.wanted_jobs(j.tenant) w on w.name = j.name
        left join lateral data_plane.runs_of(j.tenant, j.id, 1) r on true
        order by 1, 2;
end
$$;

drop function if exists data_plane.job_breaches(text[]);  -- the name before

-- What of tenants' jobs is otherwise than the platform leaves it, and what sets it right.
create or replace function data_plane.job_drift(of_tenants text[]) returns table (found text, remedy text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
        select f.fault, pg_catalog.format('select data_plane.provide_jobs(%L)', t.name)
        from pg_catalog.unnest(of_tenants) as t (name)
        cross join lateral data_plane.job_login_faults(t.name) as f (fault)
        where data_plane.tenant_of(t.name || '_owner') is not null
        union all
        select pg_catalog.format('job %s (%s) runs as %I and was not made by schedule_job', s.id, s.name, s.username),
            pg_catalog.format('select data_plane.apply_jobs(%L)', t.name)
        from pg_catalog.unnest(of_tenants) as t (name)
        cross join lateral data_plane.strange_jobs(t.name) s;
    if data_plane.cron_obstacle() is not null then
        return;
    end if;
    return query
        select pg_catalog.format('job %L of %I is not in pg_cron as the project has scheduled it', w.name, t.name),
            pg_catalog.format('select data_plane.apply_jobs(%L)', t.name)
        from pg_catalog.unnest(of_tenants) as t (name)
        cross join lateral data_plane.wanted_jobs(t.name) w
        left join cron.job c on c.jobid = w.id and c.username = t.name || '$jobs'
        where (c.schedule, c.command, c.active) is distinct from (w.schedule, w.command, true);
end
$$;

-- The guard has ended this session of a job's for what it did to others: the job runs no more until the project schedules
-- it again.
create or replace function data_plane.stop_job(session integer, login text, why text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
declare
    job bigint;
begin
    select d.jobid into job from cron.job_run_details d
    where d.job_pid = session and d.username = login
    order by d.runid desc limit 1;
    update data_plane.jobs j set stopped = why where j.id = job and j.tenant = data_plane.tenant_of_job_login(login);
    if found then
        perform cron.alter_job(job, p.schedule, p.command) from data_plane.parked() p;
    end if;
exception when others then
    raise warning 'guard: a job of % is not stopped: %', login, sqlerrm;
end
$$;

create or replace function data_plane.unwanted_jobs() returns table (id bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
        select c.jobid from cron.job c
        join data_plane.parked() p on (c.schedule, c.command) = (p.schedule, p.command)
        where c.username ~ '^(proj|lease)_'
            and not exists (select from data_plane.jobs j where j.id = c.jobid and c.username = j.tenant || '$jobs');
end
$$;

-- Forgets runs, jobs that were taken away, and what is left of projects that are gone.
create or replace function data_plane.sweep_jobs() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set lock_timeout = '500ms'
as $$
declare
    left_over text;
begin
    if pg_catalog.to_regclass('cron.job') is not null then
        for left_over in
            select distinct c.username from cron.job c
            where c.username ~ '^proj_[a-z0-9_]+\$jobs$' and data_plane.tenant_of_job_login(c.username) is null
        loop
            if pg_catalog.to_regrole(pg_catalog.quote_ident(left_over)) is null then
                delete from cron.job c where c.username = left_over;
            else
                perform cron.alter_job(c.jobid, p.schedule, p.command)
                from cron.job c cross join data_plane.parked() p where c.username = left_over;
            end if;
        end loop;
        -- By the second time pg_cron has read that it shall not start them.
        delete from data_plane.forgotten_jobs f where f.id not in (select p.id from data_plane.unwanted_jobs() p);
        insert into data_plane.forgotten_jobs (id) select p.id from data_plane.unwanted_jobs() p on conflict do nothing;
        -- One that its project is just scheduling again is not waited for.
        delete from cron.job g
        where g.jobid = any (array(
            select c.jobid from cron.job c
            where c.jobid in (
                    select f.id from data_plane.forgotten_jobs f
                    where f.since < pg_catalog.clock_timestamp() - interval '30 s')
                and not exists (
                    select from cron.job_run_details d
                    where d.jobid = c.jobid and d.status not in ('succeeded', 'failed'))
                and (c.schedule, c.command) = (select p.schedule, p.command from data_plane.parked() p)
            for update skip locked));
        delete from cron.job_run_details d
        using (
            select r.runid, pg_catalog.row_number() over (partition by r.jobid, r.username order by r.runid desc) as place
            from cron.job_run_details r
            where r.username ~ '^proj_[a-z0-9_]+\$jobs$' and r.status in ('succeeded', 'failed')
        ) old
        where old.runid = d.runid and (old.place > 20 or d.start_time < pg_catalog.now() - interval '30 days');
    end if;
    for left_over in
        select r.rolname from pg_catalog.pg_roles r
        where r.rolname ~ '^proj_[a-z0-9_]+\$jobs$' and data_plane.tenant_of_job_login(r.rolname) is null
    loop
        -- A job whose role is gone keeps pg_cron from loading any.
        if pg_catalog.to_regclass('cron.job') is not null then
            continue when exists (select from cron.job c where c.username = left_over);
        end if;
        begin
            execute pg_catalog.format('drop owned by %I', left_over);
            execute pg_catalog.format('drop role %I', left_over);
        exception when others then
            raise warning 'guard: role % is left over and cannot be dropped: %', left_over, sqlerrm;
        end;
    end loop;
    delete from data_plane.jobs j where pg_catalog.to_regnamespace(pg_catalog.quote_ident(j.tenant)) is null;
    delete from data_plane.job_turns t where pg_catalog.to_regnamespace(pg_catalog.quote_ident(t.tenant)) is null;
end
$$;

grant execute on function
    data_plane_api.schedule_job(text, text, text),
    data_plane_api.unschedule_job(text),
    data_plane_api.unschedule_job(bigint),
    data_plane_api.list_jobs(),
    data_plane_api.job_runs(text)
    to data_plane_tenant;
