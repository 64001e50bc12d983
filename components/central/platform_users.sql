-- A project's own users: proj_x$auth.users, a row for each of its members, as Auth has them.
--
-- A project refers to that table, reads it and puts triggers on it, as it would with auth.users in a Supabase of its own.
-- Rows are written in a session that can be the project's owner and nobody else: what its triggers do, they do with its
-- own rights, and while Auth is long done.
--
--   Auth, join_project …     triggers write to an outbox, data_plane.user_events: one row, no code of a project's
--   the relay's own login    data_plane.open_deliveries(): who has something to be delivered, and a password for seconds
--   proj_x$relay             begin_delivery() and deliver(): an event each, applied and taken out in one transaction
--
--   1  what there is
--   2  the outbox
--   3  what the relay calls with its own login
--   4  what a delivery's session calls: its project's code runs there, and may call these as it likes
--   5  a project's table and login
--   6  what `status` shows

-- 1 -------------------------------------------------------------------------------------------------------------------

-- A row is written by the tenant's resources. Not attached: nothing is kept for it, and it is compared with its members when
-- it is attached again.
create table if not exists data_plane.user_tables (
    tenant text primary key check (tenant ~ '^proj_[a-z0-9_]+$'),
    attached boolean not null
);

do $$
begin
    if pg_catalog.to_regclass('data_plane.user_events') is null then
        create table data_plane.user_events (
            id bigint generated always as identity primary key,
            tenant text not null,
            kind text not null check (kind in ('join', 'change', 'leave', 'resync')),
            user_id uuid check (user_id is null = (kind = 'resync')),
            -- The user as he was then; null: as he is when it is delivered. Of a resync: where it goes on.
            snapshot jsonb,
            planned boolean not null default false,  -- made by a resync
            at timestamptz not null default pg_catalog.now(),
            attempts integer not null default 0,
            next_try_at timestamptz not null default pg_catalog.now(),
            error text
        );
        create index user_events_due on data_plane.user_events (tenant, (attempts > 0), next_try_at, id);
        create index user_events_of_user on data_plane.user_events (tenant, user_id, id);
    end if;
end
$$;

-- How the delivery to each tenant stands.
create table if not exists data_plane.deliveries (
    tenant text primary key,
    event bigint,  -- the one that was begun
    begun_at timestamptz,  -- when that was, or when the session began
    opened_at timestamptz,
    unstarted boolean not null default false,  -- opened, and no session has begun yet
    password_until timestamptz,
    slow_until timestamptz
);

create table if not exists data_plane.relay (
    only_row boolean primary key default true check (only_row),
    ran_at timestamptz,
    crowded boolean not null default false
);
insert into data_plane.relay default values on conflict do nothing;

do $$
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'data_plane_relay') then
        create role data_plane_relay login noinherit;
    end if;
    -- From PostgreSQL 16 on, it gets in when tenants hold every other connection.
    if pg_catalog.current_setting('server_version_num')::integer >= 160000 then
        execute 'grant pg_use_reserved_connections to data_plane_relay with inherit true, set false';
    end if;
end
$$;
alter role data_plane_relay set statement_timeout = '30s';
alter role data_plane_relay set idle_in_transaction_session_timeout = '30s';
grant usage on schema data_plane to data_plane_relay;

-- 2 -------------------------------------------------------------------------------------------------------------------

-- What a project sees of a user. Of what only an operator can write (app_metadata): how the user signs in, and what is
-- there for this project, at app_metadata.projects.<slug>. Auth adds columns over the years, so they are taken by name.
create or replace function data_plane.user_snapshot(auth_row jsonb, of_tenant text) returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select pg_catalog.jsonb_object_agg(c.key, case c.key
        when 'raw_app_meta_data' then
            case pg_catalog.jsonb_typeof(c.value) when 'object' then coalesce((
                    select pg_catalog.jsonb_object_agg(p.key, p.value) from pg_catalog.jsonb_each(c.value) as p
                    where p.key in ('provider', 'providers')), '{}')
                || case pg_catalog.jsonb_typeof(c.value #> array['projects', data_plane.slug_of(of_tenant)])
                    when 'object' then c.value #> array['projects', data_plane.slug_of(of_tenant)] else '{}' end
            else 'null' end
        else c.value end)
    from pg_catalog.jsonb_each(auth_row) as c
    where c.key in (
        'id', 'aud', 'role', 'email', 'phone', 'raw_user_meta_data', 'raw_app_meta_data', 'created_at', 'updated_at',
        'last_sign_in_at', 'email_confirmed_at', 'phone_confirmed_at', 'confirmed_at', 'is_anonymous')
$$;

-- A snapshot as it is kept. What is longer than any user's should be is not kept: it is read when it is delivered.
create or replace function data_plane.kept_snapshot(auth_row jsonb, of_tenant text) returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select case when pg_catalog.pg_column_size(s.snapshot) <= 16384 then s.snapshot end
    from (select data_plane.user_snapshot(auth_row, of_tenant) as snapshot) as s
$$;

create or replace function data_plane.auth_user(of_user uuid) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    found jsonb;
begin
    if pg_catalog.to_regclass('auth.users') is not null then
        execute 'select pg_catalog.to_jsonb(u) from auth.users u where u.id = $1' into found using of_user;
    end if;
    return found;
end
$$;

-- Joining and leaving, in the transaction that changes the user. A user who is just being changed is waited for, and the one who
-- changes him sees the new membership: one of the two writes down the change.
create or replace function data_plane.record_membership() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    changed constant data_plane.members := case tg_op when 'INSERT' then new else old end;
begin
    if not exists (select from data_plane.user_tables t where t.tenant = changed.tenant and t.attached) then
        return null;
    end if;
    if tg_op = 'DELETE' then
        insert into data_plane.user_events (tenant, kind, user_id) values (changed.tenant, 'leave', changed.user_id);
        return null;
    end if;
    if pg_catalog.to_regclass('auth.users') is not null then
        execute 'select from auth.users u where u.id = $1 for share' using changed.user_id;
    end if;
    insert into data_plane.user_events (tenant, kind, user_id, snapshot)
    values (changed.tenant, 'join', changed.user_id,
        data_plane.kept_snapshot(data_plane.auth_user(changed.user_id), changed.tenant));
    return null;
end
$$;

-- A user's change, for each project that he is a member of. In Auth's transaction: it waits for nobody and reads nothing
-- of a project's.
create or replace function data_plane.record_user_change() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    before constant jsonb := pg_catalog.to_jsonb(old);
    now_is constant jsonb := pg_catalog.to_jsonb(new);
begin
    insert into data_plane.user_events (tenant, kind, user_id, snapshot)
    select m.tenant, 'change', new.id, data_plane.kept_snapshot(now_is, m.tenant)
    from data_plane.members m
    join data_plane.user_tables t on t.tenant = m.tenant and t.attached
    where m.user_id = new.id
        and data_plane.user_snapshot(now_is, m.tenant) is distinct from data_plane.user_snapshot(before, m.tenant);
    return null;
end
$$;

do $$
begin
    if not exists (
        select from pg_catalog.pg_trigger
        where tgrelid = 'data_plane.members'::pg_catalog.regclass and tgname = 'data_plane_record_membership'
    ) then
        create trigger data_plane_record_membership after insert or delete on data_plane.members
            for each row execute function data_plane.record_membership();
    end if;
end
$$;

-- Again whenever Auth's table appears.
create or replace function data_plane.adopt_users() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    users constant regclass := pg_catalog.to_regclass('auth.users');
begin
    if users is not null and not exists (
        select from pg_catalog.pg_trigger where tgrelid = users and tgname = 'data_plane_record_user_change'
    ) then
        execute 'create trigger data_plane_record_user_change after update on auth.users'
            ' for each row execute function data_plane.record_user_change()';
    end if;
end
$$;

-- Has a project's table compared with its members: what is missing, different or too much becomes an event.
create or replace function data_plane.resync_users(of_tenant text) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    insert into data_plane.user_events (tenant, kind)
    select t.tenant, 'resync' from data_plane.user_tables t
    where t.tenant = of_tenant and t.attached
        and not exists (
            select from data_plane.user_events e
            where e.tenant = of_tenant and e.kind = 'resync' and e.snapshot is null)
$$;

-- 3 -------------------------------------------------------------------------------------------------------------------

-- The sessions of deliveries that there are.
create or replace function data_plane.delivery_sessions() returns table (
    pid integer, tenant text, session_age interval, transaction_age interval)
language sql
set search_path = pg_catalog, pg_temp
as $$
    select a.pid, pg_catalog.left(r.rolname::text, -6), pg_catalog.clock_timestamp() - a.backend_start,
        pg_catalog.clock_timestamp() - a.xact_start
    from pg_catalog.pg_stat_get_activity(null) a
    join pg_catalog.pg_authid r on r.oid = a.usesysid
    where a.backend_type = 'client backend' and r.rolname ~ '^proj_[a-z0-9_]+[$]relay$'
$$;

-- Ends deliveries that take too long, whatever they have set, without waiting for one; and passwords that are past their
-- time, which let nobody in any more. A tenant that was slow waits with others that were, for a while.
create or replace function data_plane.end_overdue_deliveries() returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '200ms'
as $$
declare
    expired record;
begin
    perform pg_catalog.pg_terminate_backend(s.pid) from data_plane.delivery_sessions() s
    where s.transaction_age > interval '10 s' or s.session_age > interval '30 s';

    with slow as (
        select d.tenant from data_plane.deliveries d
        where d.tenant in (
            select s.tenant from data_plane.delivery_sessions() s where s.transaction_age > interval '2 s')
        for update skip locked
    )
    update data_plane.deliveries d set slow_until = pg_catalog.clock_timestamp() + interval '5 min'
    from slow where d.tenant = slow.tenant
        and coalesce(d.slow_until, '-infinity') < pg_catalog.clock_timestamp() + interval '4 min';

    for expired in
        select d.tenant from data_plane.deliveries d
        where d.password_until < pg_catalog.clock_timestamp() - interval '1 min'
        limit 10 for update skip locked
    loop
        begin
            execute pg_catalog.format('alter role %I password null', expired.tenant || '$relay');
            update data_plane.deliveries d set password_until = null where d.tenant = expired.tenant;
        exception when others then
            raise warning 'relay: %: %', expired.tenant, sqlerrm;
        end;
    end loop;
end
$$;
create index if not exists deliveries_with_password on data_plane.deliveries (password_until);

-- A backlog that nobody works off does not grow without end: it becomes a comparison with the members.
create or replace function data_plane.collapse_events(of_tenant text, at_most integer) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from data_plane.user_events e where e.tenant = of_tenant and not e.planned offset at_most) then
        delete from data_plane.user_events d where d.id in (
            select e.id from data_plane.user_events e where e.tenant = of_tenant for update skip locked);
        perform data_plane.resync_users(of_tenant);
    end if;
end
$$;

-- A password for one tenant's delivery, which is good for the seconds that signing in takes.
create or replace function data_plane.open_delivery(of_tenant text) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
set password_encryption = 'scram-sha-256'
as $$
declare
    secret constant text := pg_catalog.replace(
        pg_catalog.gen_random_uuid()::text || pg_catalog.gen_random_uuid()::text, '-', '');
    until constant timestamptz := pg_catalog.clock_timestamp() + interval '10 s';
begin
    -- Iterations slow down who guesses a password; nobody guesses this one.
    if pg_catalog.current_setting('scram_iterations', true) is not null then
        perform pg_catalog.set_config('scram_iterations', '1', true);
    end if;
    execute pg_catalog.format(
        'alter role %I password %L valid until %L', of_tenant || '$relay', secret, until);
    update data_plane.deliveries d
    set opened_at = pg_catalog.clock_timestamp(), unstarted = true, password_until = until
    where d.tenant = of_tenant;
    return secret;
end
$$;

-- The relay asks this every half second. A line for each tenant that a session is to be begun for now: it has an event
-- that is due, and no session. There are places for 64, which wait a moment for more to do, and for four more of tenants that
-- were slow; where connections are scarce, for eight. The project served least recently comes first. With nothing to do
-- this reads one index and writes nothing.
create or replace function data_plane.open_deliveries() returns table (tenant text, password text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '200ms'
as $$
declare
    places constant integer := case
        when (select pg_catalog.count(*) from pg_catalog.pg_stat_get_activity(null) a where a.backend_type = 'client backend')
            + 80 + coalesce(pg_catalog.current_setting('reserved_connections', true)::integer, 0)
            + pg_catalog.current_setting('superuser_reserved_connections')::integer
            > pg_catalog.current_setting('max_connections')::integer then 8
        else 64 end;
    slow_places constant integer := 4;
    at_once constant integer := 32;
    is_crowded boolean;
    due record;
begin
    perform from data_plane.relay r for update skip locked;
    if not found then
        return;  -- another relay is at it
    end if;
    perform data_plane.end_overdue_deliveries();
    is_crowded := (select pg_catalog.count(*) from data_plane.delivery_sessions()) > places * 3 / 4;
    update data_plane.relay r set ran_at = pg_catalog.clock_timestamp(), crowded = is_crowded
    where r.ran_at is null or r.ran_at < pg_catalog.clock_timestamp() - interval '10 s' or r.crowded <> is_crowded;

    for due in
        with recursive waiting (tenant) as (
            (select e.tenant from data_plane.user_events e order by e.tenant limit 1)
            union all
            select (select e.tenant from data_plane.user_events e where e.tenant > w.tenant order by e.tenant limit 1)
            from waiting w where w.tenant is not null
        ),
        busy as materialized (
            select s.tenant, coalesce(s.transaction_age > interval '2 s', false) as is_slow
            from data_plane.delivery_sessions() s
            union
            select d.tenant, false from data_plane.deliveries d
            where d.unstarted and d.opened_at > pg_catalog.clock_timestamp() - interval '5 s'
        ),
        states as materialized (
            select d.tenant, d.opened_at, coalesce(d.slow_until > pg_catalog.clock_timestamp(), false) as was_slow,
                b.tenant is not null as is_busy, coalesce(b.is_slow, false) as is_slow
            from data_plane.deliveries d left join busy b on b.tenant = d.tenant
            where b.tenant is not null or d.tenant in (select w.tenant from waiting w)
        ),
        ranked as (
            select s.tenant, s.was_slow, s.opened_at,
                pg_catalog.row_number() over (partition by s.was_slow order by s.opened_at nulls first, s.tenant) as place
            from states s
            join data_plane.user_tables t on t.tenant = s.tenant and t.attached
            where not s.is_busy and (
                exists (
                    select from data_plane.user_events e
                    where e.tenant = s.tenant and (e.attempts > 0) = false and e.next_try_at <= pg_catalog.clock_timestamp())
                or exists (
                    select from data_plane.user_events e
                    where e.tenant = s.tenant and (e.attempts > 0) = true and e.next_try_at <= pg_catalog.clock_timestamp()))
        )
        select r.tenant from ranked r
        where r.place <= case when r.was_slow
            then slow_places - (select pg_catalog.count(*) from states s where s.is_busy and (s.was_slow or s.is_slow))
            else places - (select pg_catalog.count(*) from states s where s.is_busy and not s.was_slow and not s.is_slow)
            end
        order by r.was_slow, r.opened_at nulls first limit at_once
    loop
        -- What a session of the tenant's holds is waited for no longer than lock_timeout, and tried again the next time.
        begin
            perform data_plane.collapse_events(due.tenant, 10000);
            password := data_plane.open_delivery(due.tenant);
            tenant := due.tenant;
            return next;
        exception when others then
            raise warning 'relay: %: %', due.tenant, sqlerrm;
        end;
    end loop;
end
$$;

-- 4 -------------------------------------------------------------------------------------------------------------------
-- Whatever is called here concerns the tenant whose session it is, and none else: that is what the server let in.

create or replace function data_plane.delivery_tenant() returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    of_session constant text := (pg_catalog.regexp_match(session_user, '^(proj_[a-z0-9_]+)[$]relay$'))[1];
begin
    if not exists (select from data_plane.user_tables t where t.tenant = of_session and t.attached) then
        raise exception 'this is no session of the relay''s' using errcode = 'insufficient_privilege';
    end if;
    return of_session;
end
$$;

-- The first event of a user's of whom one is due; of those that were tried before, after the others.
create or replace function data_plane.due_event(mine text) returns data_plane.user_events
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    due data_plane.user_events;
    first data_plane.user_events;
begin
    loop
        select e.* into due from data_plane.user_events e
        where e.tenant = mine and (e.attempts > 0) = false and e.next_try_at <= pg_catalog.clock_timestamp()
        order by e.next_try_at, e.id limit 1;
        if not found then
            select e.* into due from data_plane.user_events e
            where e.tenant = mine and (e.attempts > 0) = true and e.next_try_at <= pg_catalog.clock_timestamp()
            order by e.next_try_at, e.id limit 1;
        end if;
        if due.id is null then
            return null;
        end if;
        select e.* into first from data_plane.user_events e
        where e.tenant = mine and e.user_id is not distinct from due.user_id
        order by e.id limit 1;
        if first.next_try_at <= pg_catalog.clock_timestamp() then
            return first;
        end if;
        update data_plane.user_events e set next_try_at = first.next_try_at
        where e.tenant = mine and e.user_id is not distinct from due.user_id and e.id > first.id
            and e.next_try_at < first.next_try_at;
    end loop;
end
$$;

-- Takes up the next event that is due, or waits a second for one. That it was tried is kept whatever becomes of the
-- session. A user's events come in their order: behind one that fails, his others wait. A session that has had nothing to
-- do for three seconds is over, or for none where others want its place; one of fifteen seconds makes room for the next.
create or replace function data_plane.begin_delivery(out begun boolean, out ended boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    mine constant text := data_plane.delivery_tenant();
    deadline constant timestamptz := pg_catalog.clock_timestamp() + interval '1 s';
    began constant timestamptz := (
        select a.backend_start from pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a);
    since timestamptz;
    first data_plane.user_events;
begin
    -- To lose this in a crash costs a try.
    perform pg_catalog.set_config('synchronous_commit', 'off', true);
    update data_plane.deliveries d set unstarted = false, event = null, begun_at = pg_catalog.clock_timestamp()
    where d.tenant = mine and d.unstarted;
    select d.begun_at into since from data_plane.deliveries d where d.tenant = mine;
    ended := began < pg_catalog.clock_timestamp() - interval '15 s';
    begun := false;
    while not ended loop
        first := data_plane.due_event(mine);
        begun := first.id is not null;
        exit when begun or pg_catalog.clock_timestamp() > deadline;
        ended := coalesce(since < pg_catalog.clock_timestamp() - interval '3 s', true)
            or (select r.crowded from data_plane.relay r);
        if not ended then
            perform pg_catalog.pg_sleep(0.2);
        end if;
    end loop;
    if not begun then
        return;
    end if;
    update data_plane.user_events e
    set attempts = e.attempts + 1,
        next_try_at = pg_catalog.clock_timestamp()
            + pg_catalog.make_interval(secs => least(600, 2 ^ least(e.attempts + 1, 10))),
        error = case when e.attempts = 0 then e.error
            else coalesce(e.error, 'its session was ended, or ended itself, before it was done') end
    where e.id = first.id;
    update data_plane.deliveries d set event = first.id, begun_at = pg_catalog.clock_timestamp() where d.tenant = mine;
end
$$;

-- The event that was begun, and as what it is to be applied now. Nobody becomes a user of a project again by an event that
-- came behind that of his leaving.
create or replace function data_plane.begun_delivery(
    out id bigint, out kind text, out user_id uuid, out snapshot jsonb)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    mine constant text := data_plane.delivery_tenant();
    begun data_plane.user_events;
begin
    select e.* into begun
    from data_plane.user_events e
    where e.tenant = mine and e.id = (select d.event from data_plane.deliveries d where d.tenant = mine)
    for update;
    id := begun.id;
    kind := begun.kind;
    user_id := begun.user_id;
    snapshot := begun.snapshot;
    if kind in ('join', 'change') then
        snapshot := coalesce(snapshot, data_plane.user_snapshot(data_plane.auth_user(begun.user_id), mine));
        if snapshot is null
            or not exists (select from data_plane.members m where m.user_id = begun.user_id and m.tenant = mine)
            and not exists (
                select from data_plane.user_events e
                where e.tenant = mine and e.user_id = begun.user_id and e.kind = 'leave' and e.id > begun.id)
        then
            kind := 'leave';
        end if;
    end if;
end
$$;

create or replace function data_plane.acknowledge_delivery(event bigint) returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    delete from data_plane.user_events e where e.id = event and e.tenant = data_plane.delivery_tenant()
$$;

-- What a project's code says goes to operators' terminals: some of it, and what can be printed.
create or replace function data_plane.fail_delivery(event bigint, cause text) returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    update data_plane.user_events e
    set error = pg_catalog.regexp_replace(pg_catalog.left(cause, 300), '[^[:print:]]', '?', 'g')
    where e.id = event and e.tenant = data_plane.delivery_tenant()
$$;

-- The tenant's members from one ID on, as they are now.
create or replace function data_plane.delivery_members(after uuid, at_most integer)
returns table (user_id uuid, snapshot jsonb)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select m.user_id, data_plane.user_snapshot(data_plane.auth_user(m.user_id), m.tenant)
    from data_plane.members m
    where m.tenant = data_plane.delivery_tenant() and (after is null or m.user_id > after)
    order by m.user_id limit least(at_most, 1000)
$$;
create index if not exists members_in_order on data_plane.members (tenant, user_id);

-- What a part of a comparison has found becomes events; then it goes on from `reached`, or is done.
create or replace function data_plane.plan_resync(event bigint, strays uuid[], differing uuid[], reached uuid) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    mine constant text := data_plane.delivery_tenant();
begin
    -- The IDs are what the project's table says they are.
    if exists (
        select from data_plane.user_events e where e.tenant = mine and e.planned and e.kind = 'leave' offset 10000
    ) then
        raise exception 'more than 10,000 rows of the table are of no member, and cannot be deleted'
            using errcode = 'program_limit_exceeded';
    end if;
    insert into data_plane.user_events (tenant, kind, user_id, planned)
    select mine, found.kind, found.user_id, true
    from (
        select 'leave' as kind, s.user_id from (
            select s.user_id from pg_catalog.unnest(strays) as s (user_id) limit 1000) as s
        where not exists (select from data_plane.members m where m.tenant = mine and m.user_id = s.user_id)
        union all
        select 'change', m.user_id from data_plane.members m where m.tenant = mine and m.user_id = any (differing)
    ) as found
    where not exists (
        select from data_plane.user_events e
        where e.tenant = mine and e.user_id = found.user_id and e.planned and e.kind = found.kind);
    if reached is null then
        perform data_plane.acknowledge_delivery(event);
    else
        update data_plane.user_events e
        set snapshot = pg_catalog.jsonb_build_object('after', reached), attempts = 0,
            next_try_at = pg_catalog.clock_timestamp(), error = null
        where e.id = event and e.tenant = mine and e.kind = 'resync';
    end if;
end
$$;

-- Applies the event that was begun, with the rights of the caller, who is the project's owner: so nothing here is
-- more than the project may. Its triggers see the search path of the project.
create or replace function data_plane.deliver() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    mine constant text := data_plane.delivery_tenant();
    users constant text := pg_catalog.format('%I.users', mine || '$auth');
    event record;
    present jsonb;
    wanted jsonb;
    columns text;
    cause text;
begin
    select b.* into event from data_plane.begun_delivery() b;
    if event.id is null then
        return;
    end if;
    begin
        if event.kind = 'resync' then
            perform data_plane.compare_users(event.id, users, (event.snapshot ->> 'after')::uuid);
            return;
        end if;
        execute pg_catalog.format('select pg_catalog.to_jsonb(u) from %s u where u.id = $1', users)
            into present using event.user_id;
        if event.kind <> 'leave' then
            -- As the table's own types have it, to compare.
            execute pg_catalog.format('select pg_catalog.to_jsonb(pg_catalog.jsonb_populate_record(null::%s, $1))', users)
                into wanted using event.snapshot;
            -- A project may have changed its table: those columns that are there, and of a row that is there, those that differ.
            select pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' order by a.attnum) into columns
            from pg_catalog.pg_attribute a
            where a.attrelid = users::pg_catalog.regclass and a.attnum > 0 and not a.attisdropped
                and a.attgenerated = '' and event.snapshot ? a.attname::text
                and (present is null or present -> a.attname::text is distinct from wanted -> a.attname::text);
        end if;
        execute pg_catalog.format('set local search_path to %I, extensions', mine);
        if event.kind = 'leave' then
            if present is not null then
                execute pg_catalog.format('delete from %s u where u.id = $1', users) using event.user_id;
            end if;
        elsif present is null then
            execute pg_catalog.format(
                'insert into %1$s (%2$s) select %2$s from pg_catalog.jsonb_populate_record(null::%1$s, $1)',
                users, columns) using event.snapshot;
        elsif columns is not null then
            execute pg_catalog.format(
                'update %1$s u set (%2$s) = (select %2$s from pg_catalog.jsonb_populate_record(null::%1$s, $1)) where u.id = $2',
                users, columns) using event.snapshot, event.user_id;
        end if;
        -- What the project defers to the end of a transaction fails here, where it is heard.
        set constraints all immediate;
        set local search_path to pg_catalog, pg_temp;
        perform data_plane.acknowledge_delivery(event.id);
        return;
    exception when others or query_canceled or assert_failure then
        cause := pg_catalog.left(sqlerrm, 300);
    end;
    perform data_plane.fail_delivery(event.id, cause);
end
$$;

-- Compares a part of the table with the members from there on.
create or replace function data_plane.compare_users(event bigint, users text, after uuid) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    at_most constant integer := 1000;
    strays uuid[];
    differing uuid[];
    reached uuid;
begin
    execute pg_catalog.format($query$
        with members as materialized (select m.* from data_plane.delivery_members($1, $2) m),
        reach as materialized (
            select case when pg_catalog.count(*) = $2
                then (pg_catalog.array_agg(m.user_id order by m.user_id desc))[1] end as last from members m),
        strays as materialized (
            select u.id from %1$s u cross join reach r
            where ($1 is null or u.id > $1) and (r.last is null or u.id <= r.last)
                and not exists (select from members m where m.user_id = u.id)
            order by u.id limit $2),
        -- With too many of those, it goes on behind the last of them.
        nearer as materialized (
            select case when (select pg_catalog.count(*) from strays) = $2
                then (select s.id from strays s order by s.id desc limit 1) else r.last end as last
            from reach r)
        select array(select s.id from strays s),
            array(
                select m.user_id from members m cross join nearer n
                left join %1$s u on u.id = m.user_id
                where (n.last is null or m.user_id <= n.last)
                    and (u.id is null or exists (
                        select from pg_catalog.jsonb_each(m.snapshot) as s
                        where pg_catalog.to_jsonb(u) ? s.key and pg_catalog.to_jsonb(u) -> s.key is distinct from s.value))),
            (select n.last from nearer n)
        $query$, users)
        into strays, differing, reached using after, at_most;
    perform data_plane.plan_resync(event, strays, differing, reached);
end
$$;

-- 5 -------------------------------------------------------------------------------------------------------------------

-- What of a tenant's table and login is not as provide_users makes it. Columns are the project's to change.
create or replace function data_plane.users_problems(of_tenants text[]) returns table (tenant text, found text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select t.tenant, problem.found
    from data_plane.user_tables t
    join pg_catalog.pg_roles owned on owned.rolname = t.tenant || '_owner'
    left join pg_catalog.pg_namespace n on n.nspname = t.tenant || '$auth'
    left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = 'users'
    left join pg_catalog.pg_authid login on login.rolname = t.tenant || '$relay'
    cross join lateral (
        select pg_catalog.format('schema %I is gone', t.tenant || '$auth') as found where n.oid is null
        union all
        select pg_catalog.format('schema %I belongs to %I', n.nspname, pg_catalog.pg_get_userbyid(n.nspowner))
        where n.nspowner <> owned.oid
        union all
        select pg_catalog.format('table %I.users is gone', n.nspname) where n.oid is not null and c.oid is null
        union all
        select pg_catalog.format('login %I is gone', t.tenant || '$relay') where login.oid is null
        union all
        select pg_catalog.format('login %I is not as it was made', login.rolname)
        where not login.rolcanlogin or login.rolinherit or login.rolsuper or login.rolcreaterole or login.rolcreatedb
            or login.rolreplication or login.rolbypassrls or login.rolconnlimit <> 1
            or not exists (
                select from pg_catalog.pg_auth_members m where m.member = login.oid and m.roleid = owned.oid)
        union all
        select pg_catalog.format('login %I is a member of %I', login.rolname, pg_catalog.pg_get_userbyid(m.roleid))
        from pg_catalog.pg_auth_members m
        where m.member = login.oid and m.roleid <> owned.oid
            and pg_catalog.pg_get_userbyid(m.roleid) <> 'pg_use_reserved_connections'
        union all
        select pg_catalog.format('%I is a member of login %I', pg_catalog.pg_get_userbyid(m.member), login.rolname)
        from pg_catalog.pg_auth_members m join pg_catalog.pg_roles r on r.oid = m.member
        where m.roleid = login.oid and not r.rolsuper
        union all
        -- A password is past its time when a session is begun with it, or soon after.
        select pg_catalog.format('login %I has a password that does not end', login.rolname)
        where login.rolpassword is not null
            and coalesce(login.rolvaliduntil, 'infinity') > pg_catalog.clock_timestamp() + interval '15 s'
    ) as problem
    where t.tenant = any (of_tenants)
$$;

-- Makes a tenant's table and login what is declared; `up` calls it. What is there of the table stays as it is.
create or replace function data_plane.provide_users(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    is_attached constant boolean := (select t.attached from data_plane.user_tables t where t.tenant = of_tenant);
    home constant text := of_tenant || '$auth';
    login constant text := of_tenant || '$relay';
    owned constant text := of_tenant || '_owner';
    membership record;
begin
    if is_attached is null or data_plane.tenant_of(owned) is null then
        raise exception 'not a tenant whose users are declared: %', of_tenant using errcode = 'invalid_parameter_value';
    end if;
    if pg_catalog.to_regrole(pg_catalog.quote_ident(login)) is null then
        execute pg_catalog.format('create role %I', login);
    end if;
    perform pg_catalog.pg_terminate_backend(s.pid, 2000) from data_plane.delivery_sessions() s where s.tenant = of_tenant;
    execute pg_catalog.format(
        'alter role %I login noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls connection limit 1'
        ' password null', login);
    for membership in
        select r.rolname as role, m.rolname as member
        from pg_catalog.pg_auth_members a
        join pg_catalog.pg_roles r on r.oid = a.roleid
        join pg_catalog.pg_roles m on m.oid = a.member
        where m.rolname = login and r.rolname not in (owned, 'pg_use_reserved_connections')
            or r.rolname = login and not m.rolsuper
    loop
        execute pg_catalog.format('revoke %I from %I', membership.role, membership.member);
    end loop;
    execute pg_catalog.format('grant %I to %I', owned, login);
    if pg_catalog.current_setting('server_version_num')::integer >= 160000 then
        -- It gets in when projects hold every other connection, its own project too.
        execute pg_catalog.format('grant pg_use_reserved_connections to %I with inherit true, set false', login);
    end if;

    if exists (
        select from pg_catalog.pg_namespace n where n.nspname = home and pg_catalog.pg_get_userbyid(n.nspowner) <> owned
    ) then
        execute pg_catalog.format('alter schema %I owner to %I', home, owned);
    end if;
    if pg_catalog.to_regnamespace(pg_catalog.quote_ident(home)) is null then
        perform data_plane.end_schema_changes(of_tenant, false);
    end if;
    perform data_plane.make_schema(of_tenant, 'auth');
    if not exists (
        select from pg_catalog.pg_class c
        where c.relnamespace = pg_catalog.quote_ident(home)::pg_catalog.regnamespace and c.relname = 'users'
    ) then begin
        execute pg_catalog.format(
            'create table %I.users (
                id uuid primary key,
                aud text,
                role text,
                email text,
                phone text,
                raw_user_meta_data jsonb,
                raw_app_meta_data jsonb,
                created_at timestamptz,
                updated_at timestamptz,
                last_sign_in_at timestamptz,
                email_confirmed_at timestamptz,
                phone_confirmed_at timestamptz,
                confirmed_at timestamptz,
                is_anonymous boolean not null default false
            )', home);
        execute pg_catalog.format('alter table %I.users enable row level security', home);
        execute pg_catalog.format('alter table %I.users owner to %I', home, owned);
        execute pg_catalog.format('comment on table %I.users is %L', home, 'the members of this project, as Auth has them');
    -- The project has a type of that name, or is just making something. users_problems names what is missing.
    exception when duplicate_object or duplicate_table or unique_violation or lock_not_available then
        raise warning '%: %', home, sqlerrm;
    end; end if;

    insert into data_plane.deliveries (tenant) values (of_tenant) on conflict do nothing;
    if is_attached then
        perform data_plane.resync_users(of_tenant);
    else
        delete from data_plane.user_events e where e.tenant = of_tenant;
    end if;
end
$$;

-- 6 -------------------------------------------------------------------------------------------------------------------

create or replace function data_plane.delivery_summary() returns table (
    tenant text, waiting bigint, failing bigint, since timestamptz, next_try_at timestamptz, error text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select e.tenant, pg_catalog.count(*), pg_catalog.count(e.error), pg_catalog.min(e.at), pg_catalog.min(e.next_try_at),
        (pg_catalog.array_agg(e.error order by e.id) filter (where e.error is not null))[1]
    from data_plane.user_events e
    group by e.tenant
$$;

revoke all on all functions in schema data_plane from public;
grant execute on function data_plane.open_deliveries(), data_plane.end_overdue_deliveries() to data_plane_relay;
-- They ask session_user, which only the relay's logins of tenants are.
grant execute on function
    data_plane.delivery_tenant(), data_plane.begin_delivery(), data_plane.begun_delivery(),
    data_plane.acknowledge_delivery(bigint), data_plane.fail_delivery(bigint, text), data_plane.deliver(),
    data_plane.delivery_members(uuid, integer), data_plane.compare_users(bigint, text, uuid),
    data_plane.plan_resync(bigint, uuid[], uuid[], uuid)
    to data_plane_tenant;
