-- Signing in: which project a user's token is for.
--
-- Auth knows users, and nothing of projects. A user is a member of any number of projects; a token that Auth issues is
-- for one of them or for none. Nobody becomes a member but by an act of his own: signing up for an open project, or
-- accepting an invitation. So no project can pull a user of another's in, and change what that user's tokens are for.
--
-- A session of Auth's is for one project for as long as it lasts. What a project sees of its users (their IDs, their
-- sessions' IDs, their tokens) is therefore enough for that project alone, and what its SQL says of a user is not asked:
-- users' own calls are heard in a session of the central PostgREST, with a token that is for no project.

-- 1  What is declared and what has come of it ------------------------------------------------------------------------

-- The projects that users can be members of, as their files say; a row is written by the tenant's resources.
create table if not exists data_plane.sign_in (
    tenant text primary key check (tenant ~ '^proj_[a-z0-9_]+$'),
    sign_up text not null default 'closed' check (sign_up in ('open', 'closed'))
);

create table if not exists data_plane.members (
    user_id uuid not null,
    tenant text not null,
    added_at timestamptz not null default now(),
    primary key (user_id, tenant)
);
create index if not exists members_by_tenant on data_plane.members (tenant, added_at);

-- To an address, or to a user by ID where there is no address (a phone, a wallet, an anonymous user). Neither has to
-- exist, so that inviting does not tell who does.
create table if not exists data_plane.invitations (
    tenant text not null,
    email text check (email = lower(email)),
    user_id uuid,
    invited_at timestamptz not null default now(),
    check (num_nonnulls(email, user_id) = 1),
    unique nulls not distinct (tenant, email, user_id)
);
create index if not exists invitations_by_email on data_plane.invitations (email);
create index if not exists invitations_by_user on data_plane.invitations (user_id);

-- The project of a session, from its first token to its end. Null: the session was begun for a project that the user is
-- not a member of, or for none, and has not chosen one since.
create table if not exists data_plane.session_projects (
    session_id uuid primary key,
    tenant text
);

-- One row. Auth is told by its settings to take every address for its user's; this is told of that by the central stack.
create table if not exists data_plane.sign_in_settings (
    only_row boolean primary key default true check (only_row),
    email_autoconfirm boolean not null
);
insert into data_plane.sign_in_settings (email_autoconfirm) values (false) on conflict do nothing;

-- A slug has no underscore and a schema no hyphen, so each gives the other.
create or replace function data_plane.slug_of(tenant text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select pg_catalog.replace(pg_catalog.substr(tenant, 6), '_', '-')
$$;

-- The schema of a project that users can be members of and that is attached now: its API role is there and may use the
-- schema (which is what detaching takes away). Null for anything else.
create or replace function data_plane.attached_tenant(project text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select s.tenant
    from data_plane.sign_in s
    join pg_catalog.pg_namespace n on n.nspname = s.tenant
    join pg_catalog.pg_roles r on r.rolname = s.tenant || '_authenticated'
    where s.tenant = 'proj_' || pg_catalog.replace(project, '-', '_')
        and data_plane.slug_of(s.tenant) = project
        and data_plane.tenant_of(r.rolname) = s.tenant
        and pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage')
$$;

-- The project a user's tokens are for: the chosen one if the user is a member of it, else the only one, else none.
create or replace function data_plane.project_for(member uuid, chosen text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with mine as (
        select data_plane.slug_of(m.tenant) as project
        from data_plane.members m
        where m.user_id = member and data_plane.attached_tenant(data_plane.slug_of(m.tenant)) is not null
    )
    select coalesce(
        (select mine.project from mine where mine.project = chosen),
        (select pg_catalog.min(mine.project) from mine having pg_catalog.count(*) = 1)
    )
$$;

-- 2  What Auth calls --------------------------------------------------------------------------------------------------

-- The project that a session was begun for: the last product of its user agent. That is the one word of a
-- sign-in's request that Auth keeps with the session; the gateway writes a request's X-Data-Plane-Project there. Null
-- without a name; a name may be of no project.
create or replace function data_plane.named_project(session jsonb) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    select (pg_catalog.regexp_match(session ->> 'user_agent', '(?:^|\s)data-plane-project/(\S+)\s*$'))[1]
$$;

-- The tenant that a session of a user's is for, which its first token decides: the project that it was begun for; where
-- none was named, the user's default (the one that an operator has set in app_metadata, else the only one). The answer
-- stays with the session, so neither a later choice nor a later membership makes it another project's.
-- One that a forgotten password began is for none: with a token for a project no new one can be set (see the gateway).
-- Auth calls this in the transaction in which it makes the session.
create or replace function data_plane.tenant_of_session(of_user uuid, of_session uuid, standing text, method text)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    session jsonb;
    named text;
    bound text;
begin
    select s.tenant into bound from data_plane.session_projects s where s.session_id = of_session;
    if found then
        return bound;
    end if;
    if pg_catalog.to_regclass('auth.sessions') is not null then
        execute 'select pg_catalog.to_jsonb(s) from auth.sessions s where s.id = $1 and s.user_id = $2'
            into session using of_session, of_user;
    end if;
    if session is null then
        return null;
    end if;
    named := case when method = 'recovery' then '-' else data_plane.named_project(session) end;
    bound := data_plane.attached_tenant(data_plane.project_for(of_user, coalesce(named, standing)));
    if named is not null and data_plane.slug_of(bound) is distinct from named then
        bound := null;
    end if;
    if named is not null or bound is not null then
        insert into data_plane.session_projects (session_id, tenant) values (of_session, bound) on conflict do nothing;
    end if;
    return bound;
end
$$;

-- GOTRUE_HOOK_CUSTOM_ACCESS_TOKEN_URI. Auth gives each token it is about to sign. The role is set whatever it was, so
-- that no token of Auth's is ever more than a signed-in user's, and claims that only OpenBao may give are taken out.
-- What is read of app_metadata a user cannot write; user_metadata is the user's own and is not asked.
-- A session that was a project's stays what the project has seen, also when its tokens are for none: session_project says
-- so, to the gateway and to signed_in_user. Else a project would take its member out, and act for the user elsewhere.
create or replace function data_plane.access_token_hook(event jsonb) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    member constant uuid := (event ->> 'user_id')::uuid;
    for_tenant constant text := data_plane.tenant_of_session(
        member, (event #>> '{claims,session_id}')::uuid, event #>> '{claims,app_metadata,project}',
        event ->> 'authentication_method');
    claims constant jsonb := (event -> 'claims') - array[
        'role', 'project', 'storage_admin', 'api_server', 'schemas', 'session_project'];
begin
    -- A former member, or a member of a detached project, gets a token for no project.
    if data_plane.attached_tenant(data_plane.slug_of(for_tenant)) is null
        or not exists (select from data_plane.members m where m.user_id = member and m.tenant = for_tenant)
    then
        return pg_catalog.jsonb_build_object('claims', claims || '{"role": "authenticated"}'::jsonb
            || case when for_tenant is null then '{}'
                else pg_catalog.jsonb_build_object('session_project', data_plane.slug_of(for_tenant)) end);
    end if;
    return pg_catalog.jsonb_build_object('claims', claims
        || pg_catalog.jsonb_build_object(
            'project', data_plane.slug_of(for_tenant), 'role', for_tenant || '_authenticated')
        || coalesce((
            select pg_catalog.jsonb_build_object('api_server', data_plane.api_server_of(a.login))
            from data_plane.api_access a where a.tenant = for_tenant and a.login is not null
        ), '{}')
        || coalesce((
            select pg_catalog.jsonb_build_object('schemas', pg_catalog.array_to_string(s.exposed, ','))
            from data_plane.schemas s where s.tenant = for_tenant and s.exposed <> '{}'
        ), '{}'));
end
$$;

-- The address that a user has shown to be his own; none where Auth confirms every address by itself, which shows nothing.
-- Auth's table may not be there yet when this is created.
create or replace function data_plane.confirmed_email(of_user uuid) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    address text;
begin
    if (select s.email_autoconfirm from data_plane.sign_in_settings s) then
        return null;
    end if;
    execute 'select lower(u.email) from auth.users u where u.id = $1 and u.email_confirmed_at is not null'
        into address using of_user;
    return nullif(address, '');
end
$$;

create or replace function data_plane.is_invited(candidate uuid, to_tenant text) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from data_plane.invitations i
        where i.tenant = to_tenant
            and (i.user_id = candidate or i.email = data_plane.confirmed_email(candidate)))
$$;

-- In Auth's transaction, which waits for no project: rows that one has removed and not committed are as they were, and an
-- invitation among them stays if that is rolled back.
create or replace function data_plane.join_tenant(new_member uuid, joined text) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    insert into data_plane.members (user_id, tenant)
    select new_member, joined
    where not exists (select from data_plane.members m where m.user_id = new_member and m.tenant = joined)
    on conflict do nothing;
    delete from data_plane.invitations d where d.ctid = any (array(
        select i.ctid from data_plane.invitations i
        where i.tenant = joined and (i.user_id = new_member or i.email = data_plane.confirmed_email(new_member))
        for update skip locked));
$$;

-- A new user becomes a member of the project that the sign-up named, if that is open; if it is not, and the user was
-- invited, as soon as the address is confirmed. A trigger sees every way in which Auth makes users, in the transaction
-- that makes them. (Auth's hook before a user is created runs in another, when there is no user yet to refer to.)
-- Auth adds columns over the years, so they are read by name.
create or replace function data_plane.join_at_sign_up() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    is_new constant boolean := tg_op = 'INSERT';
    is_confirmed constant boolean := pg_catalog.to_jsonb(new) ->> 'email_confirmed_at' is not null;
    named text;
begin
    if not is_new and (not is_confirmed or pg_catalog.to_jsonb(old) ->> 'email_confirmed_at' is not null) then
        return null;
    end if;
    named := data_plane.attached_tenant(pg_catalog.to_jsonb(new) #>> '{raw_user_meta_data,project}');
    if named is null then
        return null;
    end if;
    if is_new and exists (select from data_plane.sign_in s where s.tenant = named and s.sign_up = 'open')
        or is_confirmed and data_plane.is_invited(new.id, named) then
        perform data_plane.join_tenant(new.id, named);
    end if;
    return null;
end
$$;

-- Makes the connections to Auth's tables; again whenever one of them appears.
create or replace function data_plane.adopt_auth() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    users regclass := pg_catalog.to_regclass('auth.users');
begin
    if users is null then
        return;
    end if;
    if pg_catalog.to_regclass('auth.sessions') is not null and not exists (
        select from pg_catalog.pg_constraint
        where conrelid = 'data_plane.session_projects'::pg_catalog.regclass
            and conname = 'session_projects_session_id_fkey'
    ) then
        execute 'delete from data_plane.session_projects p'
            ' where not exists (select from auth.sessions s where s.id = p.session_id)';
        execute 'alter table data_plane.session_projects add constraint session_projects_session_id_fkey'
            ' foreign key (session_id) references auth.sessions (id) on delete cascade';
    end if;
    if not exists (
        select from pg_catalog.pg_constraint
        where conrelid = 'data_plane.members'::pg_catalog.regclass and conname = 'members_user_id_fkey'
    ) then
        execute 'delete from data_plane.members m where not exists (select from auth.users u where u.id = m.user_id)';
        execute 'alter table data_plane.members add constraint members_user_id_fkey'
            ' foreign key (user_id) references auth.users (id) on delete cascade';
    end if;
    if not exists (
        select from pg_catalog.pg_trigger where tgrelid = users and tgname = 'data_plane_join_at_sign_up'
    ) then
        execute 'create trigger data_plane_join_at_sign_up after insert or update on auth.users'
            ' for each row execute function data_plane.join_at_sign_up()';
    end if;
end
$$;

-- 3  What users call --------------------------------------------------------------------------------------------------

-- The user, and the session, whose token a request carries. Claims are set by the SQL that runs, and a
-- project sees its users' IDs and sessions. So this is answered only where no project's SQL runs: in a session of the
-- central PostgREST's own login, under the role of a token for no project. (There PostgREST alone sets the claims, from
-- a token that it has checked.) A token for a project is one that the project has seen, and so is one of a session that
-- was for a project.
-- (Only a tenant's object that could never be used can depend on what is dropped here.)
drop function if exists data_plane.signed_in_user() cascade;
create or replace function data_plane.signed_in_user(out id uuid, out session_id uuid)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    claims constant jsonb := nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb;
begin
    if session_user <> 'authenticator' or pg_catalog.current_setting('role') <> 'authenticated'
        or claims ? 'session_project' then
        raise exception 'only a session that is for no project may do this' using errcode = 'insufficient_privilege',
            hint = 'Sign in anew with the header X-Data-Plane-Project: the session is for the project that it names, '
                'and for none while you are not its member, or where it names none ("-").';
    end if;
    if pg_catalog.to_regclass('auth.sessions') is not null then
        execute 'select s.user_id, s.id from auth.sessions s where s.id = $1 and s.user_id = $2'
            into id, session_id using (claims ->> 'session_id')::uuid, (claims ->> 'sub')::uuid;
    end if;
    if id is null then
        raise exception 'nobody is signed in' using errcode = 'insufficient_privilege',
            hint = 'Call this with the token that a user got from Auth.';
    end if;
end
$$;
drop function if exists data_plane.chosen_project(uuid) cascade;

-- The caller's projects, and those that invite the caller; which of them the session's next token is for.
create or replace function data_plane_api.my_projects() returns table (project text, state text, current boolean)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    with me as materialized (
        select signed_in.id, p.tenant
        from data_plane.signed_in_user() as signed_in
        left join data_plane.session_projects p on p.session_id = signed_in.session_id
    ),
    known as (
        select m.tenant, 'member' as state from data_plane.members m, me where m.user_id = me.id
        union all
        select i.tenant, 'invited' from data_plane.invitations i, me
        where (i.user_id = me.id or i.email = data_plane.confirmed_email(me.id))
            and not exists (select from data_plane.members m where m.user_id = me.id and m.tenant = i.tenant)
    )
    select distinct data_plane.slug_of(known.tenant), known.state, coalesce(known.tenant = me.tenant, false)
    from known, me
    where data_plane.attached_tenant(data_plane.slug_of(known.tenant)) is not null
    order by 1
$$;

-- Makes the session one for this project, once and for all. The token for it is had by refreshing the session.
create or replace function data_plane_api.switch_project(project text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    me record;
    wanted constant text := data_plane.attached_tenant(switch_project.project);
begin
    me := data_plane.signed_in_user();
    if not exists (select from data_plane.members m where m.user_id = me.id and m.tenant = wanted) then
        raise exception 'you are not a member of a project %', switch_project.project
            using errcode = 'insufficient_privilege';
    end if;
    insert into data_plane.session_projects as p (session_id, tenant) values (me.session_id, wanted)
    on conflict (session_id) do update set tenant = excluded.tenant where p.tenant is null or p.tenant = excluded.tenant;
    if not found then
        raise exception 'this session is for another project' using errcode = 'insufficient_privilege',
            hint = 'Sign in anew for each project.';
    end if;
end
$$;

-- Accepts an invitation, or joins an open project, and makes the session one for it.
create or replace function data_plane_api.join_project(project text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    me record;
    wanted constant text := data_plane.attached_tenant(join_project.project);
begin
    me := data_plane.signed_in_user();
    if not exists (select from data_plane.members m where m.user_id = me.id and m.tenant = wanted) then
        if not exists (select from data_plane.sign_in s where s.tenant = wanted and s.sign_up = 'open')
            and not coalesce(data_plane.is_invited(me.id, wanted), false) then
            raise exception 'you are not invited to a project %', join_project.project
                using errcode = 'insufficient_privilege';
        end if;
        perform data_plane.join_tenant(me.id, wanted);
    end if;
    perform data_plane_api.switch_project(join_project.project);
end
$$;

create or replace function data_plane_api.leave_project(project text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from data_plane.members m
    where m.user_id = (select signed_in.id from data_plane.signed_in_user() as signed_in)
        and m.tenant = 'proj_' || pg_catalog.replace(leave_project.project, '-', '_');
end
$$;

-- 4  What a project calls ---------------------------------------------------------------------------------------------

-- The tenant in whose name a call is made: that of the role which PostgREST, or a lease, has assumed. PostgreSQL checks
-- who may assume a role; nothing else that a caller says is asked. A detached tenant, and one without Auth, has none.
create or replace function data_plane.managed_tenant() returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    assumed constant text := pg_catalog.current_setting('role');
    tenant text;
begin
    if assumed ~ '_(?:owner|service_role)$' then
        tenant := data_plane.tenant_of(assumed);
    end if;
    if tenant is null then
        raise exception 'only a project''s service_role or owner may manage its members'
            using errcode = 'insufficient_privilege';
    end if;
    tenant := data_plane.attached_tenant(data_plane.slug_of(tenant));
    if tenant is null then
        raise exception 'this project has no members: it is detached, or `auth` is not among its managed_services'
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    return tenant;
end
$$;

-- Members, oldest first, and invitations that were not accepted yet, as they were made.
create or replace function data_plane_api.list_members()
returns table (user_id uuid, email text, state text, since timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    mine constant text := data_plane.managed_tenant();
begin
    if pg_catalog.to_regclass('auth.users') is not null then
        return query execute
            'select m.user_id, u.email::text, ''member'', m.added_at
            from data_plane.members m join auth.users u on u.id = m.user_id
            where m.tenant = $1 order by m.added_at, m.user_id' using mine;
    end if;
    return query
        select i.user_id, i.email, 'invited', i.invited_at from data_plane.invitations i
        where i.tenant = mine order by i.invited_at, i.email, i.user_id;
end
$$;

-- Invites an address, or a user whose ID is known. Says the same whether or not there is such a user. Nothing is sent:
-- the project tells its guest, who signs up naming the project or, having an account, calls join_project.
create or replace function data_plane_api.invite_member(email text default null, user_id uuid default null) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    mine constant text := data_plane.managed_tenant();
    address constant text := pg_catalog.lower(pg_catalog.btrim(invite_member.email));
begin
    if num_nonnulls(address, invite_member.user_id) <> 1
        or address !~ '^[^\s@]+@[^\s@]+$' or pg_catalog.length(address) > 255 then
        raise exception 'an address or a user_id is expected, one of them' using errcode = 'invalid_parameter_value';
    end if;
    if address is not null and (select s.email_autoconfirm from data_plane.sign_in_settings s) then
        raise exception 'an address cannot be invited: here nobody has to show that an address is his own'
            using errcode = 'feature_not_supported',
                hint = 'Invite a user_id, or have the operator turn emailAutoconfirm off.';
    end if;
    if exists (select from data_plane.members m where m.tenant = mine and m.user_id = invite_member.user_id) then
        return;
    end if;
    -- They are not the project's storage, which the guard bounds.
    if (select pg_catalog.count(*) from (
            select from data_plane.invitations i where i.tenant = mine limit 10000) as open) = 10000 then
        raise exception 'this project has 10,000 open invitations, which is the most'
            using errcode = 'configuration_limit_exceeded',
                hint = 'Take back those that nobody will accept (remove_member), or open sign-up.';
    end if;
    insert into data_plane.invitations (tenant, email, user_id) values (mine, address, invite_member.user_id)
    on conflict do nothing;
end
$$;

-- Takes a member out, or an invitation back; returns whether there was one. Tokens that were issued before end by
-- themselves.
create or replace function data_plane_api.remove_member(user_id uuid default null, email text default null)
returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    mine constant text := data_plane.managed_tenant();
    members_removed integer;
    invitations_removed integer;
begin
    if num_nonnulls(remove_member.email, remove_member.user_id) <> 1 then
        raise exception 'an address or a user_id is expected, one of them' using errcode = 'invalid_parameter_value';
    end if;
    delete from data_plane.members m
    where m.tenant = mine
        and (m.user_id = remove_member.user_id
            or pg_catalog.lower(pg_catalog.btrim(remove_member.email)) = data_plane.confirmed_email(m.user_id));
    get diagnostics members_removed = row_count;
    delete from data_plane.invitations i
    where i.tenant = mine
        and (i.user_id = remove_member.user_id or i.email = pg_catalog.lower(pg_catalog.btrim(remove_member.email)));
    get diagnostics invitations_removed = row_count;
    return members_removed + invitations_removed > 0;
end
$$;

grant execute on function data_plane.access_token_hook(jsonb) to supabase_auth_admin;
grant execute on function
    data_plane_api.my_projects(),
    data_plane_api.switch_project(text),
    data_plane_api.join_project(text),
    data_plane_api.leave_project(text)
    to authenticated;
grant execute on function
    data_plane_api.list_members(),
    data_plane_api.invite_member(text, uuid),
    data_plane_api.remove_member(uuid, text)
    to data_plane_tenant;
