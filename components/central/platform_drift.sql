-- Manual changes of the platform and of tenants' schemas. Nothing in this file changes either.

-- The platform's objects as they were when these files were applied: one line each, written by the central stack.
create table if not exists data_plane.applied_objects (
    object text primary key,
    state text not null
);

-- The same as they are now. What services and tenants add by themselves is not among them.
create or replace function data_plane.present_objects() returns table (object text, state text)
language sql stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
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
        union all
        select 'function', p.oid::pg_catalog.regprocedure::text,
            case when pg_catalog.has_function_privilege('public', p.oid, 'execute') then 'for everybody' else 'for some' end, null
        from data_plane.session_functions f
        join pg_catalog.pg_proc p on p.oid = pg_catalog.to_regprocedure(f.signature)
    )
    select kind || ' ' || name,
        body || ' ' || coalesce((
            select pg_catalog.string_agg(right_of.line, ' ' order by right_of.line)
            from (
                select case acl.grantee when 0 then 'public' else pg_catalog.pg_get_userbyid(acl.grantee)::text end
                    || '=' || acl.privilege_type || acl.is_grantable::text as line
                from pg_catalog.aclexplode(rights) as acl
            ) as right_of
            where right_of.line !~ '^(cell|proj)_[a-z0-9_]+_authenticator='
        ), 'by default')
    from objects
$$;

-- Which of them differ; an object that is there and should not be is one, too.
create or replace function data_plane.changed_objects() returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
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
    union all
    select pg_catalog.format('%s on %s is still granted to %s, by another than its owner', o.privilege, o.relation, o.grantee)
    from data_plane.open_relations() o
    order by 1
$$;

-- All objects of tenants' schemas that have an owner: those of an extension are left out, and sequences of columns are
-- marked, which have the owner of their table. `kind` is that of pg_default_acl, null where there are no grants.
create or replace function data_plane.objects_of(of_tenants text[])
returns table (
    tenant text, schema_id oid, classid oid, objid oid, owner oid, rights aclitem[], kind "char", of_column boolean)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with objects (classid, objid, schema_id, owner, rights, kind) as (
        select 'pg_catalog.pg_class'::pg_catalog.regclass::oid, oid, relnamespace, relowner, relacl,
            case relkind when 'S' then 'S' else 'r' end::"char"
        from pg_catalog.pg_class where relkind in ('r', 'p', 'v', 'm', 'S', 'f')
        union all
        select 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, pronamespace, proowner, proacl, 'f' from pg_catalog.pg_proc
        union all
        select 'pg_catalog.pg_type'::pg_catalog.regclass, oid, typnamespace, typowner, typacl, 'T' from pg_catalog.pg_type
        union all
        select 'pg_catalog.pg_collation'::pg_catalog.regclass, oid, collnamespace, collowner, null, null
        from pg_catalog.pg_collation
        union all
        select 'pg_catalog.pg_conversion'::pg_catalog.regclass, oid, connamespace, conowner, null, null
        from pg_catalog.pg_conversion
        union all
        select 'pg_catalog.pg_operator'::pg_catalog.regclass, oid, oprnamespace, oprowner, null, null
        from pg_catalog.pg_operator
        union all
        select 'pg_catalog.pg_opclass'::pg_catalog.regclass, oid, opcnamespace, opcowner, null, null
        from pg_catalog.pg_opclass
        union all
        select 'pg_catalog.pg_opfamily'::pg_catalog.regclass, oid, opfnamespace, opfowner, null, null
        from pg_catalog.pg_opfamily
        union all
        select 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, oid, dictnamespace, dictowner, null, null
        from pg_catalog.pg_ts_dict
        union all
        select 'pg_catalog.pg_ts_config'::pg_catalog.regclass, oid, cfgnamespace, cfgowner, null, null
        from pg_catalog.pg_ts_config
        union all
        select 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, oid, stxnamespace, stxowner, null, null
        from pg_catalog.pg_statistic_ext
    ),
    parts (classid, objid, of_column) as (
        select d.classid, d.objid,
            pg_catalog.bool_and(d.deptype <> 'e' and d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass)
        from pg_catalog.pg_depend d
        where d.objsubid = 0 and (d.deptype in ('e', 'i')
            or d.deptype = 'a' and d.refobjsubid > 0 and d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass)
        group by d.classid, d.objid
    )
    select pg_catalog.split_part(n.nspname, '$', 1), n.oid, o.classid, o.objid, o.owner, o.rights, o.kind,
        coalesce(p.of_column, false)
    from pg_catalog.pg_namespace n
    join objects o on o.schema_id = n.oid
    left join parts p on p.classid = o.classid and p.objid = o.objid
    where pg_catalog.split_part(n.nspname, '$', 1) = any (of_tenants) and p.of_column is not false
$$;

-- What PostgreSQL grants on an object that this owner makes in that schema, its own rights left out.
create or replace function data_plane.default_grants(owner oid, schema_id oid, kind "char")
returns table (grantee oid, privilege text, grantable boolean)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select acl.grantee, acl.privilege_type, pg_catalog.bool_or(acl.is_grantable)
    from (
        select coalesce(
            (
                select d.defaclacl from pg_catalog.pg_default_acl d
                where d.defaclrole = owner and d.defaclnamespace = 0 and d.defaclobjtype = kind
            ),
            pg_catalog.acldefault(case kind when 'S' then 's' else kind end, owner)) as rights
        union all
        select d.defaclacl from pg_catalog.pg_default_acl d
        where d.defaclrole = owner and d.defaclnamespace = schema_id and d.defaclobjtype = kind
    ) as given
    cross join lateral pg_catalog.aclexplode(given.rights) as acl
    where acl.grantee <> owner
    group by acl.grantee, acl.privilege_type
$$;

-- Makes an object what it would be if the tenant's owner had made it: owned by it, with its default grants beside those
-- that it has for the tenant's roles, and none for others.
create or replace function data_plane.give_to_owner(of_tenant text, class regclass, object oid) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    owner constant oid := pg_catalog.quote_ident(of_tenant || '_owner')::pg_catalog.regrole;
    given record;
    changed record;
begin
    for given in
        select o.*, i.identity, case i.type
                when 'function' then 'routine' when 'procedure' then 'routine' when 'aggregate' then 'routine'
                when 'statistics object' then 'statistics' else i.type
            end as type
        from data_plane.objects_of(array[of_tenant]) o
        cross join lateral pg_catalog.pg_identify_object(o.classid, o.objid, 0) i
        where o.classid = class and o.objid = object
            or o.of_column and o.classid = class and o.objid in (
                select d.objid from pg_catalog.pg_depend d
                where d.classid = class and d.refclassid = class and d.refobjid = object and d.deptype in ('a', 'i'))
        order by o.of_column
    loop
        if given.owner <> owner and not given.of_column then
            execute pg_catalog.format('alter %s %s owner to %I', given.type, given.identity, of_tenant || '_owner');
        end if;
        continue when given.kind is null;
        for changed in
            with present as (
                select case acl.grantee when given.owner then owner else acl.grantee end as grantee,
                    acl.privilege_type as privilege, acl.is_grantable as grantable
                from pg_catalog.aclexplode(coalesce(
                    given.rights, pg_catalog.acldefault(case given.kind when 'S' then 's' else given.kind end, owner))) acl
            ),
            wanted as (select * from data_plane.default_grants(owner, given.schema_id, given.kind)),
            differing as (
                select 'grant' as what, w.grantee, w.privilege, w.grantable
                from (table wanted except table present) w
                union all
                select 'revoke', p.grantee, p.privilege, false
                from (select grantee, privilege from present except select grantee, privilege from wanted) p
                where p.grantee <> owner
                    and data_plane.tenant_of(pg_catalog.pg_get_userbyid(p.grantee)) is distinct from of_tenant
            )
            select d.what, d.grantable, pg_catalog.string_agg(d.privilege, ', ' order by d.privilege) as privileges,
                case d.grantee when 0 then 'public'
                    else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(d.grantee)) end as grantee
            from differing d
            group by d.what, d.grantable, d.grantee
        loop
            execute pg_catalog.format('%s %s on %s %s %s %s', changed.what, changed.privileges,
                case given.kind when 'r' then 'table' else given.type end,
                given.identity, case changed.what when 'grant' then 'to' else 'from' end, changed.grantee)
                || case when changed.grantable then ' with grant option' when changed.what = 'revoke' then ' cascade' else '' end;
        end loop;
    end loop;
end
$$;

drop function if exists data_plane.breaches(text[]);  -- the name before

-- How tenants' schemas, their roles and their leases differ from what the platform leaves, and the statement that
-- repairs each; none where the project decides.
create or replace function data_plane.privilege_drift(of_tenants text[]) returns table (found text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with tenants as (
        select n.nspname::text as name, n.nspowner
        from pg_catalog.pg_namespace n
        where n.nspname = any (of_tenants) and pg_catalog.pg_get_userbyid(n.nspowner) = n.nspname || '_owner'
    ),
    schemas as (
        select n.oid, n.nspname::text as name, n.nspacl, n.nspowner as present_owner, t.nspowner, t.name as tenant
        from tenants t join pg_catalog.pg_namespace n on pg_catalog.split_part(n.nspname, '$', 1) = t.name
    ),
    objects as (
        select o.tenant, o.classid, o.objid, o.owner, o.owner <> t.nspowner and not o.of_column as is_foreign
        from data_plane.objects_of(of_tenants) o
        join tenants t on t.name = o.tenant
        where o.owner <> t.nspowner and not o.of_column
            -- The owner's defaults leave none without rights: others have made it, or given it.
            or o.rights is null and exists (
                select from pg_catalog.pg_default_acl d
                where d.defaclrole = t.nspowner and d.defaclnamespace in (0, o.schema_id) and d.defaclobjtype = o.kind)
    )
    select pg_catalog.format('schema %I belongs to %I', s.name, pg_catalog.pg_get_userbyid(s.present_owner)),
        pg_catalog.format('alter schema %I owner to %I', s.name, s.tenant || '_owner')
    from schemas s
    where s.present_owner <> s.nspowner
    union all
    select pg_catalog.format('%s on schema %I is granted to %s', acl.privilege_type, s.name, grantee.name),
        pg_catalog.format('revoke %s on schema %I from %s', acl.privilege_type, s.name, grantee.name)
    from schemas s
    cross join lateral pg_catalog.aclexplode(s.nspacl) as acl
    cross join lateral (
        select case acl.grantee when 0 then 'public'
            else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)) end as name
    ) as grantee
    where acl.grantee not in (s.nspowner, s.present_owner)
        and not data_plane.is_api_login(grantee.name)
        and data_plane.tenant_of(grantee.name) is distinct from s.tenant
    union all
    select pg_catalog.format('%I is a member of %I', member.rolname, owned.rolname),
        pg_catalog.format('revoke %I from %I', owned.rolname, member.rolname)
    from tenants t
    join pg_catalog.pg_roles owned on data_plane.tenant_of(owned.rolname) = t.name
    join pg_catalog.pg_auth_members m on m.roleid = owned.oid
    join pg_catalog.pg_roles member on member.oid = m.member
    -- Memberships of services' logins are those of apply_api_access.
    where member.rolname <> 'supabase_storage_admin' and not data_plane.is_api_login(member.rolname)
        -- Those of the project's Realtime are those of apply_realtime_login.
        and not (member.rolname = t.name || '$realtime' and owned.rolname in (t.name || '_authenticated', t.name || '_anon'))
        and member.rolname !~ '^(lease_[A-Za-z0-9_]+|backup_[0-9a-f]{32})$'
        -- Its own logins for jobs and for its users' events, of its owner.
        and not (owned.rolname = t.name || '_owner' and member.rolname in (t.name || '$jobs', t.name || '$relay'))
        and not member.rolsuper
    union all
    select u.found, pg_catalog.format('select data_plane.provide_users(%L)', u.tenant)
    from data_plane.users_problems(of_tenants) u
    union all
    select pg_catalog.format(
            case when o.is_foreign then '%s%s belongs to %I' else '%s%s lacks the grants of what %I makes' end,
            case when o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass then '' else i.type || ' ' end, i.identity,
            case when o.is_foreign then pg_catalog.pg_get_userbyid(o.owner)::text else o.tenant || '_owner' end),
        pg_catalog.format('select data_plane.give_to_owner(%L, %L, %s)', o.tenant, o.classid::pg_catalog.regclass, o.objid)
    from objects o
    cross join lateral pg_catalog.pg_identify_object(o.classid, o.objid, 0) i
    union all
    select pg_catalog.format('table %1$I.%2$I has row-level security off: every role that may use the schema sees all of its rows. '
            'If that is not meant: alter table %1$I.%2$I enable row level security', s.name, c.relname),
        null
    from schemas s
    join pg_catalog.pg_class c on c.relnamespace = s.oid and c.relkind in ('r', 'p') and not c.relrowsecurity
    union all
    select found, null
    from data_plane.views_past_row_security((select pg_catalog.array_agg(t.name) from tenants t)) as found
    union all
    select pg_catalog.format('view %s %s; it can hold up the API of all projects: drop it', r.relation, r.reason), null
    from data_plane.refused_views(array(
        select c.oid from schemas s join pg_catalog.pg_class c on c.relnamespace = s.oid and c.relkind in ('v', 'm'))) r
    union all
    select s.found, 'select data_plane.restore_role_settings()'
    from data_plane.changed_role_settings() s
    where s.tenant is null or s.tenant = any (of_tenants)
    union all
    -- Of any tenant: one that has ended is a member of nothing.
    select l.found, 'select data_plane.sweep_leases()'
    from data_plane.lapsed_leases() l
    union all
    select pg_catalog.format('%s, line %s of its text: %s has no place in a session that projects share; %s', refused.function,
            refused.line, refused.token, data_plane.way_out(refused.token)),
        pg_catalog.format('select data_plane.serve_or_withhold(%L)', t.name)
    from tenants t
    cross join lateral data_plane.refused_functions(t.name) as refused
    where data_plane.needs_admission(t.name)
    union all
    select j.found, j.remedy
    from data_plane.job_drift((select pg_catalog.array_agg(t.name) from tenants t)) j
    union all
    select reference, null
    from data_plane.outside_references((select pg_catalog.array_agg(t.name) from tenants t)) as reference
$$;
