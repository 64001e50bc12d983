-- What inventory.py asks of a server: five columns each, of which the last three are compared.
--   the schema or role that it belongs to, its name
--   facts that every version of PostgreSQL gives alike
--   an expression, which versions print with other qualifiers and brackets
--   privileges

-- before each of a database
with space as (
    select oid, nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'
), member as (
    select classid, objid from pg_depend where refclassid = 'pg_extension'::regclass and deptype = 'e'
), relation as (
    select c.*, s.nspname, c.oid::regclass::text as name from pg_class c join space s on s.oid = c.relnamespace
    where (('pg_class'::regclass, c.oid)) not in (select classid, objid from member)
), routine as (
    select p.*, s.nspname, p.oid::regprocedure::text as name from pg_proc p join space s on s.oid = p.pronamespace
    where (('pg_proc'::regclass, p.oid)) not in (select classid, objid from member)
), own_type as (
    select t.*, s.nspname, t.oid::regtype::text as name from pg_type t join space s on s.oid = t.typnamespace
    where t.typtype in ('e', 'd', 'r', 'm') and (('pg_type'::regclass, t.oid)) not in (select classid, objid from member)
)

-- database: schemas
select s.nspname, s.nspname, pg_get_userbyid(n.nspowner), null, coalesce(n.nspacl, acldefault('n', n.nspowner))::text[]
from space s join pg_namespace n using (oid)

-- database: tables
select r.nspname, r.name, concat_ws(' ', r.relkind, pg_get_userbyid(r.relowner), r.relpersistence,
    case when r.relrowsecurity then 'rls' end, case when r.relforcerowsecurity then 'forced' end, r.relreplident,
    r.reloptions::text, case when r.relkind = 'm' then r.relispopulated end,
    (select string_agg(i.inhparent::regclass::text, ',' order by i.inhseqno) from pg_inherits i where i.inhrelid = r.oid)),
    concat_ws(' ', pg_get_expr(r.relpartbound, r.oid), pg_get_partkeydef(r.oid)), null
from relation r where r.relkind in ('r', 'p', 'v', 'm', 'f', 'c')

-- database: grants
select r.nspname, r.name, null, null, coalesce(r.relacl,
    acldefault(case r.relkind when 'S' then 's' else 'r' end::"char", r.relowner))::text[]
from relation r where r.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
union all
select r.nspname, r.name, null, null, coalesce(r.proacl, acldefault('f', r.proowner))::text[] from routine r
union all
select t.nspname, 'type ' || t.name, null, null, coalesce(t.typacl, acldefault('T', t.typowner))::text[] from own_type t
union all
select r.nspname, format('%s.%s', r.name, a.attname), null, null, a.attacl::text[]
from relation r join pg_attribute a on a.attrelid = r.oid
where a.attacl is not null and a.attnum > 0 and not a.attisdropped

-- database: taken functions
-- PostgreSQL's own, by name: versions have them with other arguments.
select '', p.proname, string_agg(distinct p.proacl::text, ' '), null, null
from pg_proc p where p.pronamespace = 'pg_catalog'::regnamespace and p.proacl is not null
  and not exists (select from pg_init_privs i where i.classoid = 'pg_proc'::regclass and i.objoid = p.oid
      and i.initprivs::text = p.proacl::text)
group by p.proname

-- database: columns
select r.nspname, format('%s.%s', r.name, a.attname), concat_ws(' ',
    row_number() over (partition by r.oid order by a.attnum), format_type(a.atttypid, a.atttypmod),
    case when a.attnotnull then 'not null' end, nullif(a.attidentity, ''), nullif(a.attgenerated, ''),
    nullif(a.attcollation, 0)::regcollation),
    pg_get_expr(d.adbin, d.adrelid), null
from relation r join pg_attribute a on a.attrelid = r.oid
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attnum > 0 and not a.attisdropped and r.relkind in ('r', 'p', 'v', 'm', 'f', 'c')

-- database: constraints
-- Since 18 each NOT NULL is one; columns have them in every version.
select s.nspname, format('%s.%s', coalesce(nullif(c.conrelid, 0)::regclass::text, c.contypid::regtype::text), c.conname),
    concat_ws(' ', c.contype, c.convalidated, c.condeferrable, c.condeferred, nullif(c.confrelid, 0)::regclass),
    pg_get_constraintdef(c.oid), null
from pg_constraint c join space s on s.oid = c.connamespace where c.contype not in ('n', 't')

-- database: indexes
select r.nspname, r.name, concat_ws(' ', i.indisvalid, i.indisunique, i.indisclustered, i.indisreplident),
    pg_get_indexdef(r.oid), null
from relation r join pg_index i on i.indexrelid = r.oid

-- database: triggers
select r.nspname, format('%s on %s', t.tgname, r.name), concat_ws(' ', t.tgenabled, t.tgfoid::regprocedure),
    pg_get_triggerdef(t.oid), null
from relation r join pg_trigger t on t.tgrelid = r.oid where not t.tgisinternal

-- database: policies
select r.nspname, format('%s on %s', p.polname, r.name), concat_ws(' ', p.polcmd, p.polpermissive,
    (select string_agg(o.role, ',' order by o.role)
        from (select case u when 0 then 'public' else pg_get_userbyid(u) end::text as role from unnest(p.polroles) u) o),
    (select string_agg(distinct (pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid)).identity, ',')
        from pg_depend d where d.classid = 'pg_policy'::regclass and d.objid = p.oid)),
    concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), '/', pg_get_expr(p.polwithcheck, p.polrelid)), null
from relation r join pg_policy p on p.polrelid = r.oid

-- database: views
-- The text of a view is printed anew by each version; its columns and what it reads, itself aside, are the same in all.
select r.nspname, format('%s of %s', w.rulename, r.name), concat_ws(' ', w.ev_type, w.ev_enabled, w.is_instead,
    (select string_agg(distinct (pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid)).identity, ',')
        from pg_depend d where d.classid = 'pg_rewrite'::regclass and d.objid = w.oid and d.deptype = 'n'
          and d.refobjid <> r.oid)), null, null
from relation r join pg_rewrite w on w.ev_class = r.oid

-- database: functions
select r.nspname, r.name, concat_ws(' ', r.prokind, pg_get_userbyid(r.proowner), l.lanname,
    case when r.prosecdef then 'definer' end, r.provolatile, r.proparallel, r.proisstrict, r.proleakproof, r.procost,
    r.prorows, md5(r.proconfig::text), pg_get_function_result(r.oid), md5(r.prosrc), r.prosqlbody is null),
    pg_get_function_arguments(r.oid), null
from routine r join pg_language l on l.oid = r.prolang

-- database: types
select t.nspname, t.name, concat_ws(' ', t.typtype, pg_get_userbyid(t.typowner),
    (select string_agg(quote_literal(e.enumlabel), ',' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid),
    nullif(t.typbasetype, 0)::regtype, t.typtypmod, t.typnotnull), t.typdefault, null
from own_type t

-- database: sequences
select r.nspname, r.name, concat_ws(' ', 'at', pg_sequence_last_value(r.oid), pg_get_userbyid(r.relowner),
    s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle,
    (select format('%s.%s', d.refobjid::regclass, a.attname) from pg_depend d
        join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
        where d.classid = 'pg_class'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
          and d.deptype in ('a', 'i'))), null, null
from relation r join pg_sequence s on s.seqrelid = r.oid

-- database: default privileges
select coalesce(n.nspname, pg_get_userbyid(d.defaclrole)),
    concat_ws(' ', pg_get_userbyid(d.defaclrole), coalesce(n.nspname, '-'), d.defaclobjtype), null, null, d.defaclacl::text[]
from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace

-- database: comments
select coalesce(i.schema, i.name, ''), concat_ws(' ', i.type, i.identity), md5(d.description), null, null
from pg_description d cross join lateral pg_identify_object(d.classoid, d.objoid, d.objsubid) i
where d.objoid >= 16384 and d.classoid <> 'pg_extension'::regclass and (i.type, i.identity) <> ('schema', 'data_plane')
  and (d.classoid, d.objoid) not in (select classid, objid from member)

-- database: other objects
select coalesce(i.schema, ''), concat_ws(' ', i.type, i.identity), null, null, null
from (
    select 'pg_operator'::regclass as classid, oid from pg_operator
    union all select 'pg_opclass'::regclass, oid from pg_opclass
    union all select 'pg_opfamily'::regclass, oid from pg_opfamily
    union all select 'pg_collation'::regclass, oid from pg_collation
    union all select 'pg_conversion'::regclass, oid from pg_conversion
    union all select 'pg_ts_config'::regclass, oid from pg_ts_config
    union all select 'pg_ts_dict'::regclass, oid from pg_ts_dict
    union all select 'pg_statistic_ext'::regclass, oid from pg_statistic_ext
    union all select 'pg_cast'::regclass, oid from pg_cast
    union all select 'pg_language'::regclass, oid from pg_language
    union all select 'pg_foreign_server'::regclass, oid from pg_foreign_server
    union all select 'pg_foreign_data_wrapper'::regclass, oid from pg_foreign_data_wrapper
) o cross join lateral pg_identify_object(o.classid, o.oid, 0) i
where o.oid >= 16384 and (o.classid, o.oid) not in (select classid, objid from member)

-- database: event triggers
select '', e.evtname, concat_ws(' ', e.evtevent, e.evtfoid::regprocedure, e.evtenabled, e.evttags::text,
    pg_get_userbyid(e.evtowner)), null, null
from pg_event_trigger e where (('pg_event_trigger'::regclass, e.oid)) not in (select classid, objid from member)

-- database: publications
select '', p.pubname, concat_ws(' ', pg_get_userbyid(p.pubowner), p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete,
    p.pubtruncate, p.pubviaroot,
    (select string_agg(r.prrelid::regclass::text, ',' order by r.prrelid::regclass::text) from pg_publication_rel r where r.prpubid = p.oid)),
    null, null
from pg_publication p

-- database: extensions
select '', e.extname, n.nspname, null, null from pg_extension e join pg_namespace n on n.oid = e.extnamespace

-- database: large objects
select pg_get_userbyid(m.lomowner), m.oid::text, concat_ws(' ', pg_get_userbyid(m.lomowner),
    (select md5(string_agg(md5(l.data), '' order by l.pageno)) from pg_largeobject l where l.loid = m.oid)), null,
    coalesce(m.lomacl, acldefault('L', m.lomowner))::text[]
from pg_largeobject_metadata m

-- server: roles
-- One of those that they are members of came with 16, and the platform's SQL grants it where it is.
select r.rolname, r.rolname, concat_ws(' ', case when r.rolsuper then 'superuser' end,
    case when r.rolinherit then 'inherit' end, case when r.rolcreaterole then 'createrole' end,
    case when r.rolcreatedb then 'createdb' end, case when r.rolcanlogin then 'login' end,
    case when r.rolreplication then 'replication' end, case when r.rolbypassrls then 'bypassrls' end,
    r.rolconnlimit, r.rolvaliduntil,
    (select string_agg(g.role, ',' order by g.role)
        from (select concat(pg_get_userbyid(m.roleid), case when bool_or(m.admin_option) then '*' end) as role
            from pg_auth_members m
            where m.member = r.oid and pg_get_userbyid(m.roleid) <> 'pg_use_reserved_connections'
            group by m.roleid) g)), null, null
from pg_authid r where r.rolname !~ '^pg_' and r.rolname !~ '^backup_[0-9a-f]{32}$'

-- server: passwords
select r.rolname, r.rolname, md5(r.rolpassword), null, null
from pg_authid r where r.rolpassword is not null and r.rolname !~ '^backup_[0-9a-f]{32}$'

-- server: settings
select coalesce(r.rolname, ''), concat_ws(' in ', coalesce(r.rolname, 'all'), d.datname),
    (select md5(string_agg(s, ' ' order by s)) from unnest(c.setconfig) s), null, null
from pg_db_role_setting c left join pg_roles r on r.oid = c.setrole left join pg_database d on d.oid = c.setdatabase
where coalesce(r.rolname, '') !~ '^backup_[0-9a-f]{32}$'

-- server: databases
select '', d.datname, concat_ws(' ', pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), d.datcollate,
    d.datctype, d.datistemplate, d.datallowconn, d.datconnlimit), null, coalesce(d.datacl, acldefault('d', d.datdba))::text[]
from pg_database d
