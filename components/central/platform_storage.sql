-- Storage: the buckets of each tenant, and their isolation.
--
-- A tenant's buckets are `proj_x`, its first one, and `proj_x.<bucket>`: what stands before the first dot is the tenant, and
-- no tenant's name has a dot. (S3's clients take a dot in a name, and refuse a dollar sign.)
--
-- Storage assumes the role of a request's token and lets row-level security decide. A tenant's anon and authenticated
-- inherit what Storage grants to Supabase's roles of those names, so the rules below are for those two, and tell the
-- tenant from the name of the role. A tenant's service_role inherits nothing, so it has no right on Storage's tables,
-- which it would otherwise reach past every rule: a project's back end uses a token of its authenticated role with the
-- claim storage_admin, which only OpenBao issues (data_plane.access_token_hook takes it out of what Auth issues).
--
-- For what it has signed (links to files, links for uploads), for public buckets and for most of what it does after a
-- check, Storage asks in a name of its own, that of its setting DB_SERVICE_ROLE. Anywhere else that passes row-level
-- security, so a link would outlive its project. Here it is data_plane_storage, which sees all but the buckets of
-- projects that are detached.
--
-- Rules that a project declares itself are in platform_storage_rules.sql.

-- The declared buckets; Storage's own table follows it. A row is written by the tenant's resources (origin `file`), or
-- by the project's owner (origin `migration`, data_plane_api.declare_bucket). Each has rows of its own, so that no open
-- transaction of a tenant's is in the way of the platform's; where both declare a bucket, the file is right.
create table if not exists data_plane.buckets (
    tenant text primary key check (tenant ~ '^proj_[a-z0-9_]+$'),
    public boolean not null default false,
    file_size_limit bigint check (file_size_limit > 0),
    allowed_mime_types text[] check (cardinality(allowed_mime_types) > 0)
);
-- A table of before there were several; its rows are the first buckets.
alter table data_plane.buckets
    add column if not exists bucket text not null default ''
        check (bucket ~ '^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$' and octet_length(tenant || '.' || bucket) <= 100),
    add column if not exists origin text not null default 'file' check (origin in ('file', 'migration')),
    add column if not exists id text
        generated always as (case bucket when '' then tenant else tenant || '.' || bucket end) stored;
do $$
begin
    if (
        select pg_catalog.cardinality(c.conkey) from pg_catalog.pg_constraint c
        where c.conrelid = 'data_plane.buckets'::regclass and c.contype = 'p'
    ) = 1 then
        alter table data_plane.buckets drop constraint buckets_pkey, add primary key (tenant, bucket, origin);
    end if;
end
$$;

-- The buckets for which the platform's own rules of who reads and writes hold. The roles that are held to those rules
-- read this table when the rules do; they may not name it.
create table if not exists data_plane.default_rule_buckets (id text primary key);
alter table data_plane.default_rule_buckets enable row level security;
grant select on data_plane.default_rule_buckets to anon, authenticated;

-- Whether Storage's tables are there, as far as this needs them: it makes them over dozens of migrations.
create or replace function data_plane.storage_is_there() returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select pg_catalog.count(*) = 5
    from pg_catalog.pg_attribute a
    join (values
        ('storage.buckets', 'public', 'boolean'),
        ('storage.buckets', 'file_size_limit', 'bigint'),
        ('storage.buckets', 'allowed_mime_types', 'text[]'),
        ('storage.objects', 'bucket_id', 'text'),
        ('storage.objects', 'owner_id', 'text')
    ) as needed (relation, attribute, type)
        on a.attrelid = pg_catalog.to_regclass(needed.relation)
        and a.attname = needed.attribute
        and pg_catalog.format_type(a.atttypid, null) = needed.type
$$;

-- Makes Storage's buckets, or those of one tenant, what is declared. None is ever deleted. A bucket that is as it should be
-- is not touched: this is part of every run of the guard.
create or replace function data_plane.apply_buckets(of_tenant text default null) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform data_plane.settle_default_rules(of_tenant);
    if not data_plane.storage_is_there() then
        return;
    end if;
    execute '
        insert into storage.buckets as b (id, name, public, file_size_limit, allowed_mime_types)
        select d.id, d.id, d.public, d.file_size_limit, d.allowed_mime_types
        from (
            select distinct on (declared.tenant, declared.bucket) declared.* from data_plane.buckets declared
            where $1 is null or declared.tenant = $1
            order by declared.tenant, declared.bucket, declared.origin
        ) as d
        left join storage.buckets made on made.id = d.id
        where made.id is null or (made.public, made.file_size_limit, made.allowed_mime_types)
            is distinct from (d.public, d.file_size_limit, d.allowed_mime_types)
        on conflict (id) do update
            set public = excluded.public,
                file_size_limit = excluded.file_size_limit,
                allowed_mime_types = excluded.allowed_mime_types'
        using of_tenant;
end
$$;

-- A policy of the platform's on a table of a service's. Made anew only when it is not what it should be: that locks out
-- everybody who is using the table. The rule has a relation, name, kind, command, roles, using_rule and check_rule.
create or replace function data_plane.keep_policy(of_schema text, rule record) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    called constant text := 'data_plane: ' || rule.name;
    checksum constant text := pg_catalog.md5(rule::text);
begin
    if exists (
        select from pg_catalog.pg_policy p
        where p.polrelid = pg_catalog.to_regclass(of_schema || '.' || rule.relation)
            and p.polname = called and pg_catalog.obj_description(p.oid, 'pg_policy') = checksum
    ) then
        return;
    end if;
    execute pg_catalog.format('drop policy if exists %I on %I.%I', called, of_schema, rule.relation);
    execute pg_catalog.format(
        'create policy %I on %I.%I as %s for %s to %s %s %s',
        called, of_schema, rule.relation, rule.kind, rule.command, rule.roles,
        case when rule.using_rule is not null then 'using (' || rule.using_rule || ')' end,
        case when rule.check_rule is not null then 'with check (' || rule.check_rule || ')' end);
    execute pg_catalog.format('comment on policy %I on %I.%I is %L', called, of_schema, rule.relation, checksum);
end
$$;

-- The rules. They call no function of the platform's, which the roles that are held to them may not use.
create or replace function data_plane.secure_storage() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    storage_login text;
    relation record;
    rule record;
    -- The tenant whose role this is: null for any other role, and while the tenant is detached.
    tenant constant text := $rule$(
        select n.nspname::text from pg_catalog.pg_namespace n
        where n.nspname = (pg_catalog.regexp_match(current_user::text, '^(proj_[a-z0-9_]+)_(?:authenticated|anon)$'))[1]
            and pg_catalog.has_schema_privilege(n.oid, 'usage'))$rule$;
    is_tenant constant text := $rule$(select current_user::text like 'proj\_%')$rule$;
    is_user constant text := $rule$(select current_user::text like 'proj\_%\_authenticated')$rule$;
    claims constant text := $rule$nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb$rule$;
    is_admin constant text := '(select coalesce(' || claims || $rule$ ->> 'storage_admin' = 'true', false))$rule$;
    is_own constant text := 'owner_id is not distinct from (select ' || claims || $rule$ ->> 'sub')$rule$;
    in_bucket constant text := 'pg_catalog.split_part(bucket_id, ''.'', 1) = ' || tenant;
    by_default constant text := 'bucket_id in (select d.id from data_plane.default_rule_buckets d)';
    of_user constant text := in_bucket || ' and ' || is_user;
    of_owner constant text := of_user || ' and (' || is_admin || ' or ' || is_own || ')';
    -- Administrators need no rule; all others have those of the platform where the project has none.
    user_by_default constant text := of_user || ' and (' || is_admin || ' or ' || by_default || ')';
    owner_by_default constant text := of_user || ' and (' || is_admin || ' or ' || by_default || ' and ' || is_own || ')';
    -- Storage empties a whole bucket, past these rules, for everybody who can see it and something in it.
    is_emptying constant text := $rule$(
        select coalesce(pg_catalog.current_setting('storage.operation', true) like '%bucket.empty', false))$rule$;
    -- Of a row's bucket: whether it is no tenant's, or that of one who is attached and whom Storage serves.
    is_served constant text := $rule$(
        %1$s not like 'proj\_%%' or exists (
            select from pg_catalog.pg_namespace n
            join pg_catalog.pg_roles r on r.rolname = n.nspname || '_authenticated'
            where n.nspname = pg_catalog.split_part(%1$s, '.', 1) and pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage')
                and pg_catalog.pg_has_role(session_user, r.oid, 'member')))$rule$;
    -- Truncating, locking, and triggers that would run any code as the next user of the table.
    unseen constant text := 'truncate, references, trigger'
        || case when pg_catalog.current_setting('server_version_num')::integer >= 170000 then ', maintain' else '' end;
    -- Claims are set by the SQL that runs: in Storage's own sessions that is Storage, in a lease's it is
    -- the lease. So files are written by way of Storage alone.
    by_storage text;
begin
    if not exists (
        select from pg_catalog.pg_policy p where p.polrelid = 'data_plane.default_rule_buckets'::pg_catalog.regclass
    ) then
        execute 'create policy "tenants see their own" on data_plane.default_rule_buckets for select
            to anon, authenticated using (pg_catalog.split_part(id, ''.'', 1) = ' || tenant || ')';
    end if;
    if not data_plane.storage_is_there() then
        return;
    end if;
    select pg_catalog.pg_get_userbyid(c.relowner) into storage_login
    from pg_catalog.pg_class c where c.oid = 'storage.objects'::pg_catalog.regclass;
    by_storage := pg_catalog.format('(select pg_catalog.pg_has_role(session_user, %L, ''member''))', storage_login);
    if not pg_catalog.pg_has_role(storage_login, 'data_plane_storage', 'member') then
        execute pg_catalog.format('grant data_plane_storage to %I', storage_login);
    end if;
    if not pg_catalog.has_schema_privilege('data_plane_storage', 'storage', 'usage') then
        grant usage on schema storage to data_plane_storage;
    end if;

    for relation in
        select c.oid, c.relname, c.relrowsecurity
        from pg_catalog.pg_class c
        where c.relnamespace = 'storage'::pg_catalog.regnamespace and c.relkind in ('r', 'p')
    loop
        if not relation.relrowsecurity then
            execute pg_catalog.format('alter table storage.%I enable row level security', relation.relname);
        end if;
        if exists (
            select from pg_catalog.unnest(array['select', 'insert', 'update', 'delete']) as needed
            where not pg_catalog.has_table_privilege('data_plane_storage', relation.oid, needed)
        ) then
            execute pg_catalog.format(
                'grant select, insert, update, delete on storage.%I to data_plane_storage', relation.relname);
        end if;
        -- Row-level security sees none of these.
        if pg_catalog.has_table_privilege('anon', relation.oid, unseen)
            or pg_catalog.has_table_privilege('authenticated', relation.oid, unseen) then
            execute pg_catalog.format(
                'revoke %s on storage.%I from anon, authenticated, public', unseen, relation.relname);
        end if;
    end loop;

    for rule in
        select r.relation, r.name, r.kind, r.command, r.using_rule, r.check_rule, 'anon, authenticated' as roles
        from (values
            -- Whatever else is permitted to Supabase's roles, a tenant's stay with their own buckets.
            ('buckets', 'tenants stay with their bucket', 'restrictive', 'all',
                'not ' || is_tenant || ' or pg_catalog.split_part(id, ''.'', 1) = ' || tenant, null),
            ('objects', 'tenants stay with their bucket', 'restrictive', 'all',
                'not ' || is_tenant || ' or ' || in_bucket, null),
            ('objects', 'tenants write through Storage: insert', 'restrictive', 'insert',
                null, 'not ' || is_tenant || ' or ' || by_storage),
            ('objects', 'tenants write through Storage: update', 'restrictive', 'update',
                'not ' || is_tenant || ' or ' || by_storage, null),
            ('objects', 'tenants write through Storage: delete', 'restrictive', 'delete',
                'not ' || is_tenant || ' or ' || by_storage, null),

            ('buckets', 'a tenant sees its bucket', 'permissive', 'select',
                'pg_catalog.split_part(id, ''.'', 1) = ' || tenant || ' and (' || is_user || ' and ' || is_admin
                    || ' or (public or ' || is_user || ') and not ' || is_emptying || ')', null),
            ('objects', 'a tenant''s users read', 'permissive', 'select', user_by_default, null),
            ('objects', 'anybody reads a public bucket', 'permissive', 'select',
                in_bucket || ' and ' || by_default || ' and exists (select from storage.buckets b where b.id = bucket_id and b.public)', null),
            ('objects', 'a tenant''s users add files of their own', 'permissive', 'insert', null, owner_by_default),
            ('objects', 'a tenant''s users change their own files', 'permissive', 'update', owner_by_default, null),
            ('objects', 'a tenant''s users delete their own files', 'permissive', 'delete', owner_by_default, null),
            ('s3_multipart_uploads', 'a tenant''s users see their uploads', 'permissive', 'select', of_owner, null),
            ('s3_multipart_uploads_parts', 'a tenant''s users see their uploads', 'permissive', 'select',
                of_owner, null),
            -- Only some versions of Storage keep folders in a table.
            ('prefixes', 'a tenant''s users see folders', 'permissive', 'select', user_by_default, null)
        ) as r (relation, name, kind, command, using_rule, check_rule)
        where pg_catalog.to_regclass('storage.' || r.relation) is not null
        union all
        select c.relname, 'Storage sees all', 'permissive', 'all', 'true', null, 'data_plane_storage'
        from pg_catalog.pg_class c
        where c.relnamespace = 'storage'::pg_catalog.regnamespace and c.relkind in ('r', 'p')
        union all
        select c.relname, 'but what is of a detached project', 'restrictive', 'all',
            pg_catalog.format(is_served, a.attname), null, 'data_plane_storage'
        from pg_catalog.pg_class c
        join pg_catalog.pg_attribute a on a.attrelid = c.oid and not a.attisdropped
        where c.relnamespace = 'storage'::pg_catalog.regnamespace and c.relkind in ('r', 'p')
            and a.attname = case c.relname when 'buckets' then 'id' else 'bucket_id' end
            and a.atttypid = 'pg_catalog.text'::pg_catalog.regtype
    loop
        perform data_plane.keep_policy('storage', rule);
    end loop;
end
$$;

-- Storage changes roles in the middle of a transaction: it goes on as itself after a check as the user, and as the user
-- again. It does so with set_config, which nobody else may call (platform_admission.sql), and which is then called as the
-- user. Its search path (DATABASE_SEARCH_PATH) finds this one before PostgreSQL's own. It serves in Storage's sessions
-- alone, where no SQL of a project's runs but its rules, which can call neither.
create schema if not exists data_plane_storage_session;
create or replace function data_plane_storage_session.set_config(setting text, value text, is_local boolean) returns text
language plpgsql
-- No SET clause: it would end with the function, and so would what is set here.
as $$
begin
    if session_user operator(pg_catalog.<>) 'supabase_storage_admin' or is_local is not true
        or setting operator(pg_catalog.!~) '^(role|lock_timeout|statement_timeout|(request|storage)[.][a-z_.]+)$' then
        raise exception 'permission denied to set "%"', setting using errcode = 'insufficient_privilege';
    end if;
    execute pg_catalog.format('set local %s to %L', setting, value);
    return value;
end
$$;
revoke execute on function data_plane_storage_session.set_config(text, text, boolean) from public;
grant usage on schema data_plane_storage_session
    to anon, authenticated, service_role, data_plane_storage, supabase_storage_admin;
grant execute on function data_plane_storage_session.set_config(text, text, boolean)
    to anon, authenticated, service_role, data_plane_storage, supabase_storage_admin;
