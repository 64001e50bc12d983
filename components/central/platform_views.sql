-- Views by which an API role of a tenant sees rows that row-level security would keep from it.

-- A view reads its tables with its owner's rights, and so does the refresh of a materialized one. Row-level security
-- does not hold for a table's owner unless it is forced. One line a view, of all schemas of the tenants whose first schemas are
-- named; read from the catalogs alone.
create or replace function data_plane.views_past_row_security(of_schemas text[]) returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with recursive readable as (
        -- Each view that does not ask for its user's own rights, with the API roles that may read it.
        select c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) as name, c.relkind, c.relowner,
            pg_catalog.array_agg(api.rolname::text order by api.rolname) as roles
        from pg_catalog.pg_namespace n
        join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relkind in ('v', 'm')
        cross join lateral (select pg_catalog.split_part(n.nspname, '$', 1) as name) as tenant
        join pg_catalog.pg_roles api on api.rolname in (tenant.name || '_anon', tenant.name || '_authenticated')
        where tenant.name = any (of_schemas)
            -- The first schema is theirs to use, but while the project is detached.
            and (n.nspname = tenant.name or pg_catalog.has_schema_privilege(api.oid, n.oid, 'USAGE'))
            and pg_catalog.has_any_column_privilege(api.oid, c.oid, 'SELECT')
            and not exists (
                select from pg_catalog.pg_options_to_table(c.reloptions) as option
                where option.option_name = 'security_invoker' and option.option_value::pg_catalog.bool
            )
        group by c.oid, n.nspname, c.relname, c.relkind, c.relowner
    ),
    -- What is read for it, and with whose rights. Of what is stored, that is who refreshes it, whatever is below.
    -- Sixteen views deep, so that no tenant's views make this long.
    reads (view, relation, reader, stored, depth) as (
        select r.oid, r.oid, r.relowner, r.relkind = 'm', 1 from readable r
        union
        select r.view, c.oid, case when c.relkind = 'm' or c.relkind = 'v' and not own.rights then c.relowner else r.reader end,
            c.relkind = 'm' or r.stored and (c.relkind <> 'v' or own.rights), r.depth + 1
        from reads r
        join pg_catalog.pg_rewrite w on w.ev_class = r.relation and w.ev_type = '1'
        join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = w.oid
            and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid <> r.relation
        join pg_catalog.pg_class c on c.oid = d.refobjid
        cross join lateral (
            select exists (
                select from pg_catalog.pg_options_to_table(c.reloptions) as option
                where option.option_name = 'security_invoker' and option.option_value::pg_catalog.bool
            ) as rights
        ) as own
        -- A view with its user's own rights asks for those of the role, also below another view.
        where (c.relkind <> 'v' or not own.rights or r.stored) and r.depth < 16
    ),
    past as (
        select r.view, pg_catalog.string_agg(distinct c.oid::pg_catalog.regclass::text, ', ') as tables
        from reads r
        join pg_catalog.pg_class c on c.oid = r.relation and c.relkind in ('r', 'p') and c.relrowsecurity
        join pg_catalog.pg_roles reader on reader.oid = r.reader
        where reader.rolsuper or reader.rolbypassrls
            or pg_catalog.pg_has_role(reader.oid, c.relowner, 'USAGE') and not c.relforcerowsecurity
        group by r.view
    )
    select pg_catalog.format('%s %s shows all rows of %s, past row-level security, to %s. If that is not meant: ',
            case r.relkind when 'v' then 'view' else 'materialized view' end, r.name, past.tables,
            pg_catalog.array_to_string(r.roles, ', '))
        || case r.relkind when 'v' then pg_catalog.format('alter view %s set (security_invoker = true), or ', r.name) else '' end
        || pg_catalog.format('revoke select on %s from %s', r.name, (
            select pg_catalog.string_agg(pg_catalog.quote_ident(role), ', ' order by role) from pg_catalog.unnest(r.roles) as role
        ))
    from readable r
    join past on past.view = r.oid
    order by r.name
$$;

-- A migration is told of its own schema.
grant execute on function data_plane.views_past_row_security(text[]) to data_plane_tenant;

-- Whether PostgREST cannot read a rule of a view: PostgreSQL puts a backslash before what of a name could be taken for
-- the tree's.
create or replace function data_plane.is_unreadable(tree pg_node_tree) returns boolean
language sql immutable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    select pg_catalog.length(tree::text) > 1000000
        or tree::text ~ '\\.?<>|[^ (]<>|<>[^ )}]|[^\\](?:\\\\)*\\ :'
$$;

-- Views that stop PostgREST for everybody. It reads all views of the schemas that it serves with one statement, and the
-- depth of all there are with another; where one of these fails, or is cancelled, no schema is served until it works
-- again. The first makes JSON of PostgreSQL's trees, in which it takes <> and a colon after a space for a part of the
-- tree, also in a name (SchemaCache.hs, allViewsKeyDependencies at v14.9). The second goes down from each view to the
-- tables, so that what it takes grows with the square of the depth (pg_relation_is_updatable).
create or replace function data_plane.refused_views(of_relations oid[]) returns table (relation regclass, reason text)
language sql stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    with recursive views as (
        select c.oid from pg_catalog.pg_class c where c.oid = any (of_relations) and c.relkind in ('v', 'm')
    ),
    -- A fence, and a longest chain no longer than is asked for, so that no tenant's views make this long.
    edges_down (origin, oid, depth) as (
        select v.oid, v.oid, 1 from views v
        union
        select e.origin, c.oid, e.depth + 1
        from edges_down e
        join pg_catalog.pg_rewrite w on w.ev_class = e.oid
        join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = w.oid
            and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid <> e.oid
        join pg_catalog.pg_class c on c.oid = d.refobjid and c.relkind in ('v', 'm')
        where e.depth <= 32
    ),
    edges_up (origin, oid, depth) as (
        select v.oid, v.oid, 0 from views v
        union
        select e.origin, c.oid, e.depth + 1
        from edges_up e
        join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = e.oid
            and d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
        join pg_catalog.pg_rewrite w on w.oid = d.objid and w.ev_class <> e.oid
        join pg_catalog.pg_class c on c.oid = w.ev_class and c.relkind in ('v', 'm')
        where e.depth <= 32
    ),
    -- PostgREST's own reading of the trees, of those that it can read.
    trees as materialized (
        select w.ev_class as view, pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.regexp_replace(
            pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(
            w.ev_action::text,
            '<>', '()'), ',', ''), E'\\{', ''), E'\\}', ''), ' :targetList ', ',"targetList":'), ' :resno ', ',"resno":'),
            ' :resorigtbl ', ',"resorigtbl":'), ' :resorigcol ', ',"resorigcol":'), '{', '{ :'), '((', '{(('), '({', '{({'),
            ' :[^}{,]+', ',"":', 'g'), ',"":}', '}'), ',"":,', ','), '{(', '('), '{,', '{'), '(', '['), ')', ']'), ' ', ',')::json
            as tree
        from pg_catalog.pg_rewrite w
        where w.ev_type = '1' and w.ev_class in (select e.oid from edges_down e)
            and not data_plane.is_unreadable(w.ev_action)
    ),
    columns as materialized (
        select t.view, (c.entry ->> 'resno')::integer as attribute, (c.entry ->> 'resorigtbl')::oid as origin,
            (c.entry ->> 'resorigcol')::integer as origin_attribute
        from trees t cross join lateral pg_catalog.json_array_elements(t.tree -> 0 -> 'targetList') as c (entry)
    ),
    shown (origin, number, relation, attribute, depth) as (
        select v.oid, c.attribute, c.origin, c.origin_attribute, 1
        from views v join columns c on c.view = v.oid
        union all
        select s.origin, s.number, c.origin, c.origin_attribute, s.depth + 1
        from shown s join columns c on c.view = s.relation and c.attribute = s.attribute
        where s.depth <= 32
    )
    select v.oid::pg_catalog.regclass, 'is one of more than 32 views on top of each other'
    from views v
    where (select pg_catalog.max(e.depth) from edges_down e where e.origin = v.oid)
        + (select pg_catalog.max(e.depth) from edges_up e where e.origin = v.oid) > 32
    union all
    -- PostgREST takes what a rule selects for the view's columns, too, so that a pile of such has no end for it.
    select v.oid::pg_catalog.regclass, 'has a rule that selects'
    from views v
    join pg_catalog.pg_rewrite w on w.ev_class = v.oid and w.ev_type <> '1'
    where w.ev_action::text ~ '^\(\{QUERY :commandType 1 '
    union all
    -- It makes a relationship of each choice among the columns that show the same column of a foreign key.
    select r.view::pg_catalog.regclass, 'shows the columns of a foreign key so often that they can be combined in more than 100 ways'
    from (
        select k.oid, side.key, n.origin as view, pg_catalog.sum(pg_catalog.ln(n.times)) as size
        from (
            select o.origin, o.relation, o.attribute, pg_catalog.count(*) as times
            from shown o group by o.origin, o.relation, o.attribute
        ) as n
        join pg_catalog.pg_constraint k on k.contype = 'f' and (k.conrelid = n.relation or k.confrelid = n.relation)
        cross join lateral (values (k.conrelid, k.conkey), (k.confrelid, k.confkey)) as side (relation, key)
        where side.relation = n.relation and n.attribute = any (side.key)
        group by k.oid, side.key, n.origin
    ) as r
    where r.size > pg_catalog.ln(100.5)
    union all
    select v.oid::pg_catalog.regclass, case
        when pg_catalog.length(w.ev_action::text) > 1000000 then 'is more than PostgREST should read'
        else 'has a name in it, of a column or an alias, that PostgREST cannot read: without <> and without a colon after a space it can'
        end
    from views v
    join pg_catalog.pg_rewrite w on w.ev_class = v.oid
    where data_plane.is_unreadable(w.ev_action)
$$;

-- With the definer's rights: the role that makes a view may not call the function above.
create or replace function data_plane.refuse_views() returns event_trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    refused record;
begin
    for refused in
        select c.oid::pg_catalog.regclass as name
        from pg_catalog.pg_event_trigger_ddl_commands() as ddl
        join pg_catalog.pg_class c on ddl.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and c.oid = ddl.objid
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname like 'proj\_%'
        where (select pg_catalog.count(*) from pg_catalog.pg_constraint k
            where k.conrelid = c.oid and k.contype = 'f' and k.conparentid = 0) > 100
    loop
        -- PostgREST combines each two of a table's.
        raise exception 'table % has more than 100 foreign keys', refused.name
            using errcode = 'program_limit_exceeded', hint = 'It would hold up the API of all projects.';
    end loop;
    for refused in
        select r.relation, r.reason
        from data_plane.refused_views(array(
            -- A foreign key of several columns makes more of the views that there are.
            select v.oid
            from pg_catalog.pg_event_trigger_ddl_commands() as ddl
            join pg_catalog.pg_class c on ddl.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and c.oid = ddl.objid
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname like 'proj\_%'
            join pg_catalog.pg_namespace own
                on pg_catalog.split_part(own.nspname, '$', 1) = pg_catalog.split_part(n.nspname, '$', 1)
            join pg_catalog.pg_class v on v.relnamespace = own.oid and v.relkind in ('v', 'm')
            where c.relkind in ('r', 'p') and exists (
                select from pg_catalog.pg_constraint k
                where k.conrelid = c.oid and k.contype = 'f' and pg_catalog.cardinality(k.conkey) > 1)
            union
            select c.oid
            from pg_catalog.pg_event_trigger_ddl_commands() as ddl
            left join pg_catalog.pg_rewrite w
                on ddl.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and w.oid = ddl.objid
            join pg_catalog.pg_class c
                on c.oid = w.ev_class or ddl.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and c.oid = ddl.objid
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where n.nspname like 'proj\_%' and c.relkind in ('v', 'm')
        )) r
    loop
        raise exception 'view % %', refused.relation, refused.reason
            using errcode = 'insufficient_privilege', hint = 'It would hold up the API of all projects.';
    end loop;
end
$$;

revoke all on function data_plane.refuse_views() from public;

drop event trigger if exists data_plane_views;
create event trigger data_plane_views on ddl_command_end
    when tag in (
        'CREATE VIEW', 'CREATE MATERIALIZED VIEW', 'CREATE RULE', 'CREATE TABLE', 'ALTER TABLE',
        -- One that is taken into a schema from a copy of a dump.
        'ALTER VIEW', 'ALTER MATERIALIZED VIEW')
    execute function data_plane.refuse_views();
