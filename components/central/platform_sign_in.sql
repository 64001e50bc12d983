-- Signing in: which project a user's token is for.
--
-- Auth knows users, and nothing of projects. A user is a member of any number of projects; a token that Auth issues is
-- for one of them or for none. Nobody becomes a member but by an act of his own: signing up for an open project, or
-- accepting an invitation. So no project can pull a user of another's in, and change what that user's tokens are for.

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

-- A slug has no underscore and a schema no hyphen, so each gives the other.
create or replace function data_plane.slug_of(tenant text) returns text
language sql immutable
set search_path = ''
as $$
    select pg_catalog.replace(pg_catalog.substr(tenant, 6), '_', '-')
$$;

-- The schema of a project that users can be members of and that is attached now: its API role is there and may use the
-- schema (which is what detaching takes away). Null for anything else.
create or replace function data_plane.attached_tenant(project text) returns text
language sql stable
set search_path = ''
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
set search_path = ''
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

-- GOTRUE_HOOK_CUSTOM_ACCESS_TOKEN_URI. Auth gives each token it is about to sign. The role is set whatever it was, so
-- that no token of Auth's is ever more than a signed-in user's, and claims that only OpenBao may give are taken out.
-- The choice is read from app_metadata, which a user cannot write; user_metadata is the user's own and is not asked.
create or replace function data_plane.access_token_hook(event jsonb) returns jsonb
language sql stable security definer
set search_path = ''
as $$
    select pg_catalog.jsonb_build_object(
        'claims',
        (event -> 'claims') - array['role', 'project', 'storage_admin']
            || case
                when token.project is null then '{"role": "authenticated"}'::jsonb
                else pg_catalog.jsonb_build_object(
                    'project', token.project,
                    'role', 'proj_' || pg_catalog.replace(token.project, '-', '_') || '_authenticated')
            end)
    from (
        select data_plane.project_for((event ->> 'user_id')::uuid, event #>> '{claims,app_metadata,project}') as project
    ) as token
$$;

-- The address that a user has shown to be his own. Auth's table may not be there yet when this is created.
create or replace function data_plane.confirmed_email(of_user uuid) returns text
language plpgsql stable
set search_path = ''
as $$
declare
    address text;
begin
    execute 'select lower(u.email) from auth.users u where u.id = $1 and u.email_confirmed_at is not null'
        into address using of_user;
    return nullif(address, '');
end
$$;

create or replace function data_plane.is_invited(candidate uuid, to_tenant text) returns boolean
language sql stable
set search_path = ''
as $$
    select exists (
        select from data_plane.invitations i
        where i.tenant = to_tenant
            and (i.user_id = candidate or i.email = data_plane.confirmed_email(candidate)))
$$;

create or replace function data_plane.join_tenant(new_member uuid, joined text) returns void
language sql
set search_path = ''
as $$
    insert into data_plane.members (user_id, tenant) values (new_member, joined) on conflict do nothing;
    delete from data_plane.invitations i
    where i.tenant = joined and (i.user_id = new_member or i.email = data_plane.confirmed_email(new_member));
$$;

-- A new user becomes a member of the project that the sign-up named, if that is open; if it is not, and the user was
-- invited, as soon as the address is confirmed. A trigger sees every way in which Auth makes users, in the transaction
-- that makes them. (Auth's hook before a user is created runs in another, when there is no user yet to refer to.)
-- Auth adds columns over the years, so they are read by name.
create or replace function data_plane.join_at_sign_up() returns trigger
language plpgsql security definer
set search_path = ''
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
set search_path = ''
as $$
declare
    users regclass := pg_catalog.to_regclass('auth.users');
begin
    if users is null then
        return;
    end if;
    -- Projects commonly point a foreign key at a user; that takes REFERENCES on the key and nothing more.
    execute 'grant references (id) on auth.users to data_plane_tenant';
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

-- The user whose token a request carries. The subject alone does not prove that: in this database many write SQL, and a
-- function of theirs may set request.jwt.claims to what it likes. The session's ID is known to Auth and to whoever has
-- the user's token, so both together are as good as the token.
create or replace function data_plane.signed_in_user() returns uuid
language plpgsql stable
set search_path = ''
as $$
declare
    claims jsonb := nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb;
    subject uuid;
begin
    if pg_catalog.to_regclass('auth.sessions') is not null then
        execute 'select s.user_id from auth.sessions s where s.id = $1 and s.user_id = $2'
            into subject using (claims ->> 'session_id')::uuid, (claims ->> 'sub')::uuid;
    end if;
    if subject is null then
        raise exception 'nobody is signed in' using errcode = 'insufficient_privilege',
            hint = 'Call this with the token that a user got from Auth.';
    end if;
    return subject;
end
$$;

create or replace function data_plane.chosen_project(of_user uuid) returns text
language plpgsql stable
set search_path = ''
as $$
declare
    chosen text;
begin
    execute 'select u.raw_app_meta_data ->> ''project'' from auth.users u where u.id = $1' into chosen using of_user;
    return chosen;
end
$$;

-- The projects of whoever calls, and those to which he is invited.
create or replace function data_plane_api.my_projects() returns table (project text, state text, current boolean)
language sql stable security definer
set search_path = ''
as $$
    with me as materialized (
        select signed_in.id, data_plane.project_for(signed_in.id, data_plane.chosen_project(signed_in.id)) as current
        from (select data_plane.signed_in_user() as id) as signed_in
    ),
    known as (
        select m.tenant, 'member' as state from data_plane.members m, me where m.user_id = me.id
        union all
        select i.tenant, 'invited' from data_plane.invitations i, me
        where (i.user_id = me.id or i.email = data_plane.confirmed_email(me.id))
            and not exists (select from data_plane.members m where m.user_id = me.id and m.tenant = i.tenant)
    )
    select distinct data_plane.slug_of(known.tenant), known.state,
        coalesce(data_plane.slug_of(known.tenant) = me.current, false)
    from known, me
    where data_plane.attached_tenant(data_plane.slug_of(known.tenant)) is not null
    order by 1
$$;

-- From the next token on, tokens are for this project. The new token is had by refreshing the session.
create or replace function data_plane_api.switch_project(project text) returns void
language plpgsql security definer
set search_path = ''
as $$
declare
    me constant uuid := data_plane.signed_in_user();
    wanted constant text := data_plane.attached_tenant(switch_project.project);
begin
    if not exists (select from data_plane.members m where m.user_id = me and m.tenant = wanted) then
        raise exception 'you are not a member of a project %', switch_project.project
            using errcode = 'insufficient_privilege';
    end if;
    execute 'update auth.users set raw_app_meta_data = coalesce(raw_app_meta_data, ''{}'') || $2 where id = $1'
        using me, pg_catalog.jsonb_build_object('project', switch_project.project);
end
$$;

-- Accepts an invitation, or joins an open project, and switches to it.
create or replace function data_plane_api.join_project(project text) returns void
language plpgsql security definer
set search_path = ''
as $$
declare
    me constant uuid := data_plane.signed_in_user();
    wanted constant text := data_plane.attached_tenant(join_project.project);
begin
    if not exists (select from data_plane.members m where m.user_id = me and m.tenant = wanted) then
        if not exists (select from data_plane.sign_in s where s.tenant = wanted and s.sign_up = 'open')
            and not coalesce(data_plane.is_invited(me, wanted), false) then
            raise exception 'you are not invited to a project %', join_project.project
                using errcode = 'insufficient_privilege';
        end if;
        perform data_plane.join_tenant(me, wanted);
    end if;
    perform data_plane_api.switch_project(join_project.project);
end
$$;

create or replace function data_plane_api.leave_project(project text) returns void
language plpgsql security definer
set search_path = ''
as $$
begin
    delete from data_plane.members m
    where m.user_id = data_plane.signed_in_user()
        and m.tenant = 'proj_' || pg_catalog.replace(leave_project.project, '-', '_');
end
$$;

-- 4  What a project calls ---------------------------------------------------------------------------------------------

-- The tenant in whose name a call is made: that of the role which PostgREST, or a lease, has assumed. PostgreSQL checks
-- who may assume a role; nothing else that a caller says is asked. A detached tenant, and one without Auth, has none.
create or replace function data_plane.managed_tenant() returns text
language plpgsql stable
set search_path = ''
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
set search_path = ''
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
set search_path = ''
as $$
declare
    mine constant text := data_plane.managed_tenant();
    address constant text := pg_catalog.lower(pg_catalog.btrim(invite_member.email));
begin
    if num_nonnulls(address, invite_member.user_id) <> 1
        or address !~ '^[^\s@]+@[^\s@]+$' or pg_catalog.length(address) > 255 then
        raise exception 'an address or a user_id is expected, one of them' using errcode = 'invalid_parameter_value';
    end if;
    if exists (select from data_plane.members m where m.tenant = mine and m.user_id = invite_member.user_id) then
        return;
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
set search_path = ''
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
