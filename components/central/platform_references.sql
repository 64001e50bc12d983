-- What tenants may refer to: nothing that a service of the platform changes, locks or reads by itself.
--
-- A foreign key to a service's table runs the tenant's triggers in that service's session. A view, a policy, a function
-- or a column that depends on one holds up the service's next version, which alters the table. PostgreSQL asks for a
-- privilege only for the first, so an event trigger refuses the others.

-- The schemas of services, which change what is in them when they like, and the platform's own.
create or replace function data_plane.service_schemas() returns text[]
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select array['auth', 'storage', 'realtime', '_realtime', 'data_plane']
$$;

-- Relations outside of tenants' schemas on which somebody whom tenants are members of, or a tenant's own role, has what
-- row-level security does not see: to refer to them, to put triggers on them, to truncate or to lock them.
create or replace function data_plane.open_relations()
returns table (relation regclass, grantee text, privilege text, of_service boolean)
language sql stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    with outside as (
        select c.oid, c.relacl, n.nspname = any (data_plane.service_schemas()) as of_service
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'v', 'm', 'f')
            and n.nspname not like 'proj\_%' and n.nspname not in ('pg_catalog', 'information_schema')
    ),
    granted as (
        select o.oid, o.of_service, acl.grantee, acl.privilege_type
        from outside o cross join lateral pg_catalog.aclexplode(o.relacl) as acl
        union
        select o.oid, o.of_service, acl.grantee, acl.privilege_type
        from outside o
        join pg_catalog.pg_attribute a on a.attrelid = o.oid
        cross join lateral pg_catalog.aclexplode(a.attacl) as acl
    ),
    named as (
        select g.oid, case g.grantee when 0 then 'public' else pg_catalog.pg_get_userbyid(g.grantee)::text end as grantee,
            g.privilege_type, g.of_service
        from granted g
        where g.privilege_type in ('REFERENCES', 'TRIGGER', 'TRUNCATE', 'MAINTAIN')
    )
    select n.oid::pg_catalog.regclass, n.grantee, n.privilege_type, n.of_service
    from named n
    where n.grantee in ('public', 'anon', 'authenticated', 'data_plane_tenant') or n.grantee ~ '^(?:proj|lease)_'
$$;

-- Takes that back, of every relation outside of tenants' schemas; and the use of services' row types, of which a column
-- holds up a service as a view does.
create or replace function data_plane.close_relations() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    found record;
begin
    for found in
        select o.relation, pg_catalog.string_agg(distinct o.privilege, ', ') as privileges,
            pg_catalog.string_agg(distinct case o.grantee when 'public' then 'public' else pg_catalog.quote_ident(o.grantee) end, ', ') as grantees
        from data_plane.open_relations() o
        group by o.relation
    loop
        execute pg_catalog.format('revoke %s on %s from %s', found.privileges, found.relation, found.grantees);
    end loop;
    for found in
        select t.oid::pg_catalog.regtype as name
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        join pg_catalog.pg_type t on t.oid = c.reltype
        where n.nspname = any (data_plane.service_schemas())
            and exists (
                select from pg_catalog.aclexplode(coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner))) as acl
                where acl.grantee = 0
            )
    loop
        execute pg_catalog.format('revoke usage on type %s from public', found.name);
    end loop;
end
$$;

-- What a tenant makes may depend on nothing of a service's but Auth's helpers. Runs as the role that made it.
create or replace function data_plane.refuse_outside_references() returns event_trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    outside record;
begin
    if current_user !~ '^(?:proj|lease)_' then
        return;
    end if;
    for outside in
        with made as (
            select distinct ddl.classid, ddl.objid from pg_catalog.pg_event_trigger_ddl_commands() as ddl
            where ddl.classid <> 0
        ),
        relations as (
            select m.objid as oid from made m where m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            union
            select t.typrelid from made m join pg_catalog.pg_type t on t.oid = m.objid
            where m.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and t.typrelid <> 0
        ),
        parts as (
            select m.classid, m.objid from made m
            union all
            select 'pg_catalog.pg_class'::pg_catalog.regclass, r.oid from relations r
            union all
            select 'pg_catalog.pg_rewrite'::pg_catalog.regclass, w.oid
            from relations r join pg_catalog.pg_rewrite w on w.ev_class = r.oid
            union all
            select 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid
            from relations r join pg_catalog.pg_policy p on p.polrelid = r.oid
            union all
            select 'pg_catalog.pg_attrdef'::pg_catalog.regclass, a.oid
            from relations r join pg_catalog.pg_attrdef a on a.adrelid = r.oid
            union all
            select 'pg_catalog.pg_constraint'::pg_catalog.regclass, c.oid
            from relations r join pg_catalog.pg_constraint c on c.conrelid = r.oid
            -- One that was there before stays until it is dropped; a new one takes a privilege.
            where c.contype <> 'f'
            union all
            select 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid
            from relations r join pg_catalog.pg_trigger t on t.tgrelid = r.oid
            where not t.tgisinternal
        )
        select distinct pg_catalog.pg_describe_object(p.classid, p.objid, 0) as made,
            pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0) as used
        from parts p
        join pg_catalog.pg_depend d on d.classid = p.classid and d.objid = p.objid
        left join pg_catalog.pg_class c
            on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and c.oid = d.refobjid
        left join pg_catalog.pg_type t
            on d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass and t.oid = d.refobjid
        left join pg_catalog.pg_proc f
            on d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and f.oid = d.refobjid
        join pg_catalog.pg_namespace n on n.oid = coalesce(c.relnamespace, t.typnamespace, f.pronamespace)
        where n.nspname = any (array['auth', 'storage', 'realtime', '_realtime', 'data_plane'])
            and not (n.nspname = 'auth' and coalesce(f.proname, '') in ('uid', 'jwt', 'role', 'email'))
    loop
        raise exception '% may not depend on %', outside.made, outside.used
            using errcode = 'insufficient_privilege',
                hint = 'It would hold up the service whose that is. Keep a user''s ID without a constraint; '
                    'data_plane_api.list_members() tells who a project''s members are.';
    end loop;
end
$$;

drop event trigger if exists data_plane_outside_references;
create event trigger data_plane_outside_references on ddl_command_end
    when tag in (
        'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE', 'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE',
        'CREATE VIEW', 'ALTER VIEW', 'CREATE MATERIALIZED VIEW', 'ALTER MATERIALIZED VIEW', 'CREATE RULE',
        'CREATE FUNCTION', 'ALTER FUNCTION', 'CREATE PROCEDURE', 'ALTER PROCEDURE', 'CREATE AGGREGATE',
        'CREATE TYPE', 'ALTER TYPE', 'CREATE DOMAIN', 'ALTER DOMAIN', 'CREATE POLICY', 'ALTER POLICY',
        'CREATE TRIGGER', 'CREATE CAST', 'CREATE OPERATOR', 'CREATE OPERATOR CLASS', 'CREATE STATISTICS', 'CREATE INDEX'
    )
    execute function data_plane.refuse_outside_references();

-- What there is of all that in tenants' schemas, from before it was refused, and how its project gets rid of it. Only
-- the project knows what to do with the rows that a constraint kept; so nothing is dropped here.
create or replace function data_plane.outside_references(of_tenants text[]) returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    select pg_catalog.format(
        'foreign key %1$I of %2$s refers to %3$s: the project''s SQL runs in the sessions of those who change that table, and its '
        'locks hold them up. Keep the ID without a constraint: alter table %2$s drop constraint %1$I'
        || case when f.relnamespace = pg_catalog.to_regnamespace('auth')
            then ' (data_plane_api.list_members() tells who is a member)' else '' end,
        k.conname, c.oid::pg_catalog.regclass, f.oid::pg_catalog.regclass)
    from pg_catalog.pg_constraint k
    join pg_catalog.pg_class c on c.oid = k.conrelid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_class f on f.oid = k.confrelid
    join pg_catalog.pg_namespace outside on outside.oid = f.relnamespace
    where k.contype = 'f' and k.conparentid = 0 and pg_catalog.split_part(n.nspname, '$', 1) = any (of_tenants)
        and pg_catalog.split_part(outside.nspname, '$', 1) <> pg_catalog.split_part(n.nspname, '$', 1)
    union all
    select pg_catalog.format(
        'trigger %1$I on %2$s runs the project''s function %3$s in the sessions of those who write there: drop trigger %1$I on %2$s',
        t.tgname, c.oid::pg_catalog.regclass, p.oid::pg_catalog.regprocedure)
    from pg_catalog.pg_trigger t
    join pg_catalog.pg_proc p on p.oid = t.tgfoid
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    join pg_catalog.pg_class c on c.oid = t.tgrelid
    join pg_catalog.pg_namespace outside on outside.oid = c.relnamespace
    where not t.tgisinternal and pg_catalog.split_part(n.nspname, '$', 1) = any (of_tenants)
        and pg_catalog.split_part(outside.nspname, '$', 1) <> pg_catalog.split_part(n.nspname, '$', 1)
    union all
    select distinct pg_catalog.format(
        '%s depends on %s and can hold up the next version of its service: drop it',
        pg_catalog.pg_describe_object(d.classid, d.objid, 0), pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0))
    from (
        select 'pg_catalog.pg_class'::pg_catalog.regclass::oid as classid, c.oid, c.relnamespace as namespace
        from pg_catalog.pg_class c
        union all
        select 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, t.typnamespace from pg_catalog.pg_type t
        union all
        select 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, p.pronamespace from pg_catalog.pg_proc p
        where p.pronamespace <> pg_catalog.to_regnamespace('auth') or p.proname not in ('uid', 'jwt', 'role', 'email')
    ) as used
    join pg_catalog.pg_namespace n on n.oid = used.namespace and n.nspname = any (data_plane.service_schemas())
    join pg_catalog.pg_depend d on d.refclassid = used.classid and d.refobjid = used.oid
    cross join lateral pg_catalog.pg_identify_object(d.classid, d.objid, 0) as dependent
    -- Foreign keys and triggers are named above.
    where d.classid not in (
            'pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_trigger'::pg_catalog.regclass)
        -- Quoted where it has a dollar sign.
        and pg_catalog.split_part(pg_catalog.btrim(
                coalesce(dependent.schema, (pg_catalog.regexp_match(dependent.identity, ' on "?(proj_[a-z0-9_$]+)"?\.'))[1]), '"'),
            '$', 1) = any (of_tenants)
$$;
