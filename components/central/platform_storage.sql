-- Storage: one bucket per tenant, and walls around it.
--
-- Storage assumes the role of a request's token and lets row-level security decide. A tenant's anon and authenticated
-- inherit what Storage grants to Supabase's roles of those names, so the rules below are for those two, and tell the
-- tenant from the name of the role. A tenant's service_role inherits nothing, so it has no right on Storage's tables,
-- which it would otherwise reach past every rule: a project's back end uses a token of its authenticated role with the
-- claim storage_admin, which only OpenBao issues (data_plane.access_token_hook takes it out of what Auth issues).

-- The declared buckets; a row is written by the tenant's resources, and Storage's own table follows it.
create table if not exists data_plane.buckets (
    tenant text primary key check (tenant ~ '^proj_[a-z0-9_]+$'),
    public boolean not null default false,
    file_size_limit bigint check (file_size_limit > 0),
    allowed_mime_types text[] check (cardinality(allowed_mime_types) > 0)
);

-- Whether Storage's tables are there, as far as this needs them: it makes them over dozens of migrations.
create or replace function data_plane.storage_is_there() returns boolean
language sql stable
set search_path = ''
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

-- Makes Storage's buckets, or that of one tenant, what is declared. None is ever deleted.
create or replace function data_plane.apply_buckets(of_tenant text default null) returns void
language plpgsql
set search_path = ''
as $$
begin
    if not data_plane.storage_is_there() then
        return;
    end if;
    execute '
        insert into storage.buckets as b (id, name, public, file_size_limit, allowed_mime_types)
        select d.tenant, d.tenant, d.public, d.file_size_limit, d.allowed_mime_types from data_plane.buckets d
        where $1 is null or d.tenant = $1
        order by d.tenant
        on conflict (id) do update
            set public = excluded.public,
                file_size_limit = excluded.file_size_limit,
                allowed_mime_types = excluded.allowed_mime_types
            where (b.public, b.file_size_limit, b.allowed_mime_types)
                is distinct from (excluded.public, excluded.file_size_limit, excluded.allowed_mime_types)'
        using of_tenant;
end
$$;

-- The rules. They call no function of the platform's, which the roles that are held to them may not use.
create or replace function data_plane.secure_storage() returns void
language plpgsql
set search_path = ''
as $$
declare
    storage_login text;
    relation record;
    rule record;
    -- The bucket of the tenant whose role this is: null for any other role, and while the tenant is detached.
    bucket constant text := $rule$(
        select n.nspname::text from pg_catalog.pg_namespace n
        where n.nspname = (pg_catalog.regexp_match(current_user::text, '^(proj_[a-z0-9_]+)_(?:authenticated|anon)$'))[1]
            and pg_catalog.has_schema_privilege(n.oid, 'usage'))$rule$;
    is_tenant constant text := $rule$(select current_user::text like 'proj\_%')$rule$;
    is_user constant text := $rule$(select current_user::text like 'proj\_%\_authenticated')$rule$;
    claims constant text := $rule$nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb$rule$;
    is_admin constant text := '(select coalesce(' || claims || $rule$ ->> 'storage_admin' = 'true', false))$rule$;
    is_own constant text := 'owner_id is not distinct from (select ' || claims || $rule$ ->> 'sub')$rule$;
    in_bucket constant text := 'bucket_id = ' || bucket;
    of_user constant text := in_bucket || ' and ' || is_user;
    of_owner constant text := of_user || ' and (' || is_admin || ' or ' || is_own || ')';
    -- Storage empties a whole bucket, past these rules, for everybody who can see it and something in it.
    is_emptying constant text := $rule$(
        select coalesce(pg_catalog.current_setting('storage.operation', true) like '%bucket.empty', false))$rule$;
    -- Truncating, locking, and triggers that would run whatever they like as whoever comes by.
    unseen constant text := 'truncate, references, trigger'
        || case when pg_catalog.current_setting('server_version_num')::integer >= 170000 then ', maintain' else '' end;
    -- Claims are what whoever runs the SQL says they are: in Storage's own sessions that is Storage, in a lease's it is
    -- the lease. So files are written by way of Storage alone.
    by_storage text;
begin
    if not data_plane.storage_is_there() then
        return;
    end if;
    select pg_catalog.pg_get_userbyid(c.relowner) into storage_login
    from pg_catalog.pg_class c where c.oid = 'storage.objects'::pg_catalog.regclass;
    by_storage := pg_catalog.format('(select pg_catalog.pg_has_role(session_user, %L, ''member''))', storage_login);

    for relation in
        select c.oid, c.relname, c.relrowsecurity
        from pg_catalog.pg_class c
        where c.relnamespace = 'storage'::pg_catalog.regnamespace and c.relkind in ('r', 'p')
    loop
        if not relation.relrowsecurity then
            execute pg_catalog.format('alter table storage.%I enable row level security', relation.relname);
        end if;
        -- Row-level security sees none of these.
        if pg_catalog.has_table_privilege('anon', relation.oid, unseen)
            or pg_catalog.has_table_privilege('authenticated', relation.oid, unseen) then
            execute pg_catalog.format(
                'revoke %s on storage.%I from anon, authenticated, public', unseen, relation.relname);
        end if;
    end loop;

    for rule in
        select r.*
        from (values
            -- Whatever else is permitted to Supabase's roles, a tenant's stay with their own bucket.
            ('buckets', 'tenants stay with their bucket', 'restrictive', 'all',
                'not ' || is_tenant || ' or id = ' || bucket, null),
            ('objects', 'tenants stay with their bucket', 'restrictive', 'all',
                'not ' || is_tenant || ' or ' || in_bucket, null),
            ('objects', 'tenants write through Storage: insert', 'restrictive', 'insert',
                null, 'not ' || is_tenant || ' or ' || by_storage),
            ('objects', 'tenants write through Storage: update', 'restrictive', 'update',
                'not ' || is_tenant || ' or ' || by_storage, null),
            ('objects', 'tenants write through Storage: delete', 'restrictive', 'delete',
                'not ' || is_tenant || ' or ' || by_storage, null),

            ('buckets', 'a tenant sees its bucket', 'permissive', 'select',
                'id = ' || bucket || ' and (' || is_user || ' and ' || is_admin
                    || ' or (public or ' || is_user || ') and not ' || is_emptying || ')', null),
            ('objects', 'a tenant''s users read', 'permissive', 'select', of_user, null),
            ('objects', 'anybody reads a public bucket', 'permissive', 'select',
                in_bucket || ' and exists (select from storage.buckets b where b.id = bucket_id and b.public)', null),
            ('objects', 'a tenant''s users add files of their own', 'permissive', 'insert', null, of_owner),
            ('objects', 'a tenant''s users change their own files', 'permissive', 'update', of_owner, null),
            ('objects', 'a tenant''s users delete their own files', 'permissive', 'delete', of_owner, null),
            ('s3_multipart_uploads', 'a tenant''s users see their uploads', 'permissive', 'select', of_owner, null),
            ('s3_multipart_uploads_parts', 'a tenant''s users see their uploads', 'permissive', 'select',
                of_owner, null),
            -- Only some versions of Storage keep folders in a table.
            ('prefixes', 'a tenant''s users see folders', 'permissive', 'select', of_user, null)
        ) as r (relation, name, kind, command, using_rule, check_rule)
        where pg_catalog.to_regclass('storage.' || r.relation) is not null
    loop
        -- Made anew only when it is not what it should be: that locks out everybody who is using Storage.
        continue when exists (
            select from pg_catalog.pg_policy p
            where p.polrelid = pg_catalog.to_regclass('storage.' || rule.relation)
                and p.polname = 'data_plane: ' || rule.name
                and pg_catalog.obj_description(p.oid, 'pg_policy') = pg_catalog.md5(rule::text)
        );
        execute pg_catalog.format('drop policy if exists %I on storage.%I', 'data_plane: ' || rule.name, rule.relation);
        execute pg_catalog.format(
            'create policy %I on storage.%I as %s for %s to anon, authenticated %s %s',
            'data_plane: ' || rule.name, rule.relation, rule.kind, rule.command,
            case when rule.using_rule is not null then 'using (' || rule.using_rule || ')' end,
            case when rule.check_rule is not null then 'with check (' || rule.check_rule || ')' end);
        execute pg_catalog.format(
            'comment on policy %I on storage.%I is %L',
            'data_plane: ' || rule.name, rule.relation, pg_catalog.md5(rule::text));
    end loop;
end
$$;
