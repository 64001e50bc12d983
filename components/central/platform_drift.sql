-- What hands have changed, of the platform and in tenants' schemas. Nothing in this file changes anything of either.

-- The platform's objects as they were when these files were applied: one line each, written by the central stack.
create table if not exists data_plane.applied_objects (
    object text primary key,
    state text not null
);

-- The same as they are now. What services and tenants add by themselves is not among them.
create or replace function data_plane.present_objects() returns table (object text, state text)
language sql stable
set search_path = ''
as $$
    with schemas as (
        select oid, nspname, nspacl from pg_catalog.pg_namespace where nspname in ('data_plane', 'data_plane_api')
    ),
    objects (kind, name, body, rights) as (
        select 'schema', s.nspname::text, '', s.nspacl from schemas s
        union all
        select 'function', p.oid::pg_catalog.regprocedure::text,
            pg_catalog.md5(p.prosrc) || ' ' || p.prosecdef::text || ' ' || coalesce(p.proconfig::text, ''), p.proacl
        from pg_catalog.pg_proc p join schemas s on s.oid = p.pronamespace
        union all
        select 'table', c.oid::pg_catalog.regclass::text, c.relrowsecurity::text, c.relacl
        from pg_catalog.pg_class c join schemas s on s.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'v')
        union all
        select 'event trigger', e.evtname::text,
            e.evtevent::text || ' ' || e.evtenabled::text || ' ' || e.evtfoid::pg_catalog.regproc::text || coalesce(e.evttags::text, ''), null
        from pg_catalog.pg_event_trigger e
        where e.evtname like 'data\_plane\_%'
    )
    select kind || ' ' || name,
        body || ' ' || coalesce((
            select pg_catalog.string_agg(right_of.line, ' ' order by right_of.line)
            from (
                select case acl.grantee when 0 then 'public' else pg_catalog.pg_get_userbyid(acl.grantee)::text end
                    || '=' || acl.privilege_type || acl.is_grantable::text as line
                from pg_catalog.aclexplode(rights) as acl
            ) as right_of
            where right_of.line not like 'proj\_%'
        ), 'by default')
    from objects
$$;

-- Which of them differ; an object that is there and should not be is one, too.
create or replace function data_plane.changed_objects() returns setof text
language sql stable
set search_path = ''
as $$
    select coalesce(applied.object, present.object)
        || case
            when present.object is null then ' is gone'
            when applied.object is null then ' is not the platform''s'
            else ' is not as it was applied'
        end
    from data_plane.applied_objects applied
    full join data_plane.present_objects() present using (object)
    where applied.state is distinct from present.state
    order by 1
$$;

-- What in tenants' schemas is otherwise than the platform leaves it, and the statement that sets it right; none where
-- that is the project's own to decide.
create or replace function data_plane.breaches(of_tenants text[]) returns table (found text, remedy text)
language sql stable
set search_path = ''
as $$
    with tenants as (
        select n.oid, n.nspname::text as name, n.nspowner, n.nspacl
        from pg_catalog.pg_namespace n
        where n.nspname = any (of_tenants) and pg_catalog.pg_get_userbyid(n.nspowner) = n.nspname || '_owner'
    ),
    own (classid, objid) as (
        -- What comes with an extension, or with a table's column, is not the project's to own.
        select d.classid, d.objid from pg_catalog.pg_depend d
        where d.deptype in ('e', 'i') or d.deptype = 'a' and d.refobjsubid > 0
    )
    select pg_catalog.format('%s on schema %I is granted to %s', acl.privilege_type, t.name, grantee.name),
        pg_catalog.format('revoke %s on schema %I from %s', acl.privilege_type, t.name, grantee.name)
    from tenants t
    cross join lateral pg_catalog.aclexplode(t.nspacl) as acl
    cross join lateral (
        select case acl.grantee when 0 then 'public'
            else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)) end as name
    ) as grantee
    where acl.grantee <> t.nspowner
        and grantee.name not in ('authenticator', t.name || '_authenticator')
        and data_plane.tenant_of(grantee.name) is distinct from t.name
    union all
    select pg_catalog.format('%I is a member of %I', member.rolname, owned.rolname),
        pg_catalog.format('revoke %I from %I', owned.rolname, member.rolname)
    from tenants t
    join pg_catalog.pg_roles owned on data_plane.tenant_of(owned.rolname) = t.name
    join pg_catalog.pg_auth_members m on m.roleid = owned.oid
    join pg_catalog.pg_roles member on member.oid = m.member
    where member.rolname not in ('authenticator', t.name || '_authenticator', 'supabase_storage_admin')
        and member.rolname !~ '^lease_[A-Za-z0-9_]+$'
        and not member.rolsuper
    union all
    select pg_catalog.format('%I.%I belongs to %I', t.name, c.relname, pg_catalog.pg_get_userbyid(c.relowner)),
        pg_catalog.format('alter table %I.%I owner to %I', t.name, c.relname, t.name || '_owner')
    from tenants t
    join pg_catalog.pg_class c on c.relnamespace = t.oid and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')
    where c.relowner <> t.nspowner
        and ('pg_catalog.pg_class'::pg_catalog.regclass, c.oid) not in (select classid, objid from own)
    union all
    select pg_catalog.format('function %s belongs to %I', p.oid::pg_catalog.regprocedure, pg_catalog.pg_get_userbyid(p.proowner)),
        pg_catalog.format('alter routine %s owner to %I', p.oid::pg_catalog.regprocedure, t.name || '_owner')
    from tenants t
    join pg_catalog.pg_proc p on p.pronamespace = t.oid and p.prokind <> 'a'
    where p.proowner <> t.nspowner
        and ('pg_catalog.pg_proc'::pg_catalog.regclass, p.oid) not in (select classid, objid from own)
    union all
    select pg_catalog.format('table %1$I.%2$I has row-level security off: whoever may use the schema sees all of its rows. '
            'If that is not meant: alter table %1$I.%2$I enable row level security', t.name, c.relname),
        null
    from tenants t
    join pg_catalog.pg_class c on c.relnamespace = t.oid and c.relkind in ('r', 'p') and not c.relrowsecurity
$$;
