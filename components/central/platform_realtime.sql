-- Realtime: a Realtime tenant and a login per project, and isolation in the one table that they share.
--
-- Realtime keeps its tenants in _realtime.tenants and takes one by the first label of the host that it is called by;
-- topics of two tenants never meet. All of them look at this database, and may a token join a topic, Realtime asks here:
-- in a session of the login that the tenant's row names it inserts a message, assumes the role in the token's claims,
-- looks whether the message is to be seen (or whether that role may insert one), and rolls back.
--
-- All tenants believe the same keys, so the login is what tells projects apart: proj_x$realtime is a member of x's API
-- roles and of nobody else's. In x's tenant another project's token names a role that cannot be assumed, and is refused.
-- It has no REPLICATION, so Realtime sends nothing that is stored in realtime.messages (that stream has one slot for the
-- whole database, and who has it gets the messages of all), and reads no table's changes. Nothing of a project's is ever
-- stored there: outside of its own Realtime's sessions its roles see no row and write none.

-- The declared tenants; a row is written by the project's resources, and Realtime's own tables follow it.
create table if not exists data_plane.realtime (
    tenant text primary key check (tenant ~ '^proj_[a-z0-9_]+$'),
    attached boolean not null,
    public boolean not null default false,
    topics text not null default 'users' check (topics in ('users', 'rules')),
    max_concurrent_users integer not null check (max_concurrent_users > 0),
    max_events_per_second integer not null check (max_events_per_second > 0),
    max_bytes_per_second integer not null check (max_bytes_per_second > 0),
    max_channels_per_client integer not null check (max_channels_per_client > 0),
    max_joins_per_second integer not null check (max_joins_per_second > 0),
    -- The login's name and password, which Realtime alone can read.
    sealed_user text,
    sealed_password text
);

do $$
begin
    -- What every project's login needs of Realtime's schema. (In a table's own list there is no room for a thousand.)
    if not exists (select from pg_catalog.pg_roles where rolname = 'data_plane_realtime') then
        create role data_plane_realtime nologin noinherit;
    end if;
end
$$;

-- Whether Realtime's tables are there, as far as this needs them: the one service makes them in two schemas.
create or replace function data_plane.realtime_is_there() returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select pg_catalog.count(*) = 6
    from pg_catalog.pg_attribute a
    join (values
        ('_realtime.tenants', 'external_id'),
        ('_realtime.tenants', 'jwt_jwks'),
        ('_realtime.tenants', 'private_only'),
        ('_realtime.tenants', 'suspend'),
        ('_realtime.extensions', 'settings'),
        ('_realtime.extensions', 'tenant_external_id')
    ) as needed (relation, attribute)
        on a.attrelid = pg_catalog.to_regclass(needed.relation) and a.attname = needed.attribute
$$;

-- Makes a project's login what is declared: ends it, or lets it sign in and assume the roles of those who may join.
create or replace function data_plane.apply_realtime_login(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    declared data_plane.realtime;
    login constant text := of_tenant || '$realtime';
    role record;
    -- Before PostgreSQL 16 a role inherits from all that it is a member of, or from none.
    tells_apart constant boolean := pg_catalog.current_setting('server_version_num')::integer >= 160000;
begin
    select r.* into declared from data_plane.realtime r where r.tenant = of_tenant;
    if pg_catalog.to_regrole(pg_catalog.quote_ident(login)) is null then
        if declared.tenant is null then
            return;
        end if;
        execute pg_catalog.format('create role %I', login);
    end if;
    execute pg_catalog.format(
        'alter role %I %s %s nosuperuser nocreatedb nocreaterole noreplication nobypassrls connection limit 10', login,
        case when declared.attached then 'login' else 'nologin' end,
        case when tells_apart then 'noinherit' else 'inherit' end);
    for role in
        select wanted.name, wanted.inherit, pg_catalog.pg_has_role(login, wanted.name, 'member') as present,
            coalesce(declared.attached, false) and wanted.given as given
        from (values
            ('data_plane_realtime', true, true),
            (of_tenant || '_authenticated', false, true),
            (of_tenant || '_anon', false, coalesce(declared.public, false))
        ) as wanted (name, inherit, given)
        join pg_catalog.pg_roles r on r.rolname = wanted.name
    loop
        if role.given and not role.present then
            execute pg_catalog.format('grant %I to %I', role.name, login)
                || case when tells_apart then pg_catalog.format(' with inherit %s, set %s', role.inherit::text, (not role.inherit)::text) else '' end;
        elsif role.present and not role.given then
            execute pg_catalog.format('revoke %I from %I', role.name, login);
        end if;
    end loop;
    execute pg_catalog.format('alter role %I set search_path to pg_catalog, pg_temp', login);
    execute pg_catalog.format('alter role %I set statement_timeout to %L', login, '5s');
    execute pg_catalog.format('alter role %I set lock_timeout to %L', login, '2s');
    execute pg_catalog.format('alter role %I set idle_in_transaction_session_timeout to %L', login, '15s');
    execute pg_catalog.format('alter role %I set data_plane.topics to %L', login, coalesce(declared.topics, 'rules'));
    -- Realtime makes new sessions by itself, with the new settings.
    perform pg_catalog.pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity a where a.usename = login;
    if declared.tenant is null then
        execute pg_catalog.format('drop role %I', login);
    end if;
end
$$;

-- Makes a row of Realtime's what is wanted, as far as its table has those columns; a new one has the rest of a model.
create or replace function data_plane.put_realtime_row(relation regclass, key text, model jsonb, wanted jsonb) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    known jsonb;
    columns text;
    present jsonb;
begin
    select pg_catalog.jsonb_object_agg(w.key, w.value), pg_catalog.string_agg(pg_catalog.quote_ident(w.key), ', ')
    into known, columns
    from pg_catalog.jsonb_each(wanted) as w
    join pg_catalog.pg_attribute a on a.attrelid = relation and a.attname = w.key and not a.attisdropped;
    execute pg_catalog.format('select pg_catalog.to_jsonb(t) from %s t where %I = $1', relation, key)
        into present using wanted ->> key;
    if present is null then
        execute pg_catalog.format(
            'insert into %1$s select (pg_catalog.jsonb_populate_record(null::%1$s, $1)).*', relation)
            using model || pg_catalog.jsonb_build_object(
                'id', pg_catalog.gen_random_uuid(),
                'inserted_at', pg_catalog.now() at time zone 'utc', 'updated_at', pg_catalog.now() at time zone 'utc') || known;
    elsif present || known <> present then
        execute pg_catalog.format(
            'update %1$s t set (%2$s, updated_at) ='
            ' (select %2$s, pg_catalog.now() at time zone ''utc'' from pg_catalog.jsonb_populate_record(t, $1)) where %3$I = $2',
            relation, columns, key)
            using known, wanted ->> key;
    end if;
end
$$;

-- Makes a project's tenant in Realtime what is declared. What there is to say of the database, and what no project has a
-- say in, is as in the platform's own tenant, which Realtime writes when it starts.
create or replace function data_plane.apply_realtime_tenant(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    declared data_plane.realtime;
    model jsonb;
    extension jsonb;
begin
    if not data_plane.realtime_is_there() then
        return;
    end if;
    select r.* into declared from data_plane.realtime r where r.tenant = of_tenant;
    if declared.tenant is null then
        execute 'delete from _realtime.tenants where external_id = $1' using of_tenant;
        return;
    end if;
    execute '
        select pg_catalog.to_jsonb(t), pg_catalog.to_jsonb(e)
        from _realtime.tenants t
        join _realtime.extensions e on e.tenant_external_id = t.external_id and e.type = ''postgres_cdc_rls''
        where pg_catalog.left(t.external_id, 5) <> ''proj_''
        order by t.inserted_at desc limit 1'
        into model, extension;
    if model is null or declared.sealed_password is null then
        return;
    end if;
    perform data_plane.put_realtime_row('_realtime.tenants', 'external_id', model, pg_catalog.jsonb_build_object(
        'external_id', of_tenant,
        'name', of_tenant,
        -- For tokens with a shared secret, of which there are none; it has to be there, and to be decrypted.
        'jwt_secret', model -> 'jwt_secret',
        'gcm_migrated_at', model -> 'gcm_migrated_at',
        'private_only', true,
        'suspend', not declared.attached,
        -- Of what reads tables' changes; a client that asks for some is told this name.
        'postgres_cdc_default', 'table changes are not available here',
        'max_concurrent_users', declared.max_concurrent_users,
        'max_events_per_second', declared.max_events_per_second,
        'max_bytes_per_second', declared.max_bytes_per_second,
        'max_channels_per_client', declared.max_channels_per_client,
        'max_joins_per_second', declared.max_joins_per_second));
    perform data_plane.put_realtime_row('_realtime.extensions', 'tenant_external_id', extension, pg_catalog.jsonb_build_object(
        'tenant_external_id', of_tenant,
        'type', 'postgres_cdc_rls',
        'settings', (extension -> 'settings') || pg_catalog.jsonb_build_object(
            'db_user', declared.sealed_user, 'db_password', declared.sealed_password,
            'publication', 'data_plane_none', 'slot_name', 'data_plane_none')));
end
$$;

-- Makes all of a project's Realtime what is declared.
create or replace function data_plane.apply_realtime(of_tenant text) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    select data_plane.apply_realtime_login(of_tenant);
    select data_plane.apply_realtime_tenant(of_tenant);
$$;

-- What a tenant of Realtime's is, regardless of the writer: every topic takes a permission, and the keys are the published ones.
-- Realtime writes its first one anew whenever it starts, with the keys of its environment: those of here are newer.
create or replace function data_plane.set_realtime_keys() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    published jsonb := (select k.jwks from data_plane.verifying_keys k);
    present jsonb := pg_catalog.to_jsonb(new);
    wanted jsonb := '{}';
begin
    if published is not null and present ? 'jwt_jwks' then
        wanted := pg_catalog.jsonb_build_object('jwt_jwks', published);
    end if;
    if present ? 'private_only' then
        wanted := wanted || '{"private_only": true}';
    end if;
    return pg_catalog.jsonb_populate_record(new, wanted);
end
$$;

-- When Realtime has said anew where the database is, its projects' tenants follow.
create or replace function data_plane.follow_realtime() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform data_plane.apply_realtime_tenant(r.tenant) from data_plane.realtime r;
    return null;
end
$$;

-- Who may update may lock the whole table, and so hold up everybody's joining. Realtime updates nothing, and gives it.
create or replace function data_plane.narrow_messages() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    messages constant regclass := pg_catalog.to_regclass('realtime.messages');
begin
    if pg_catalog.has_table_privilege('anon', messages, 'update, delete')
        or pg_catalog.has_table_privilege('authenticated', messages, 'update, delete') then
        revoke update, delete on realtime.messages from anon, authenticated, public;
    end if;
end
$$;

-- Isolation, and its exceptions.
create or replace function data_plane.secure_realtime() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    rule record;
    is_tenant constant text := $rule$(select current_user::text like 'proj\_%')$rule$;
    -- Claims and settings are set by the SQL that runs, and the superuser can assume every role: only a
    -- session that Realtime opened for this very project counts, and in there the project's roles alone do. (Before
    -- PostgreSQL 16 its login can also assume what its project's roles are members of.)
    in_own_session constant text := $rule$(
        select session_user::text = (pg_catalog.regexp_match(
            current_user::text, '^(proj_[a-z0-9_]+)(?:_authenticated|_anon|\$realtime)$'))[1] || '$realtime')$rule$;
    is_outside constant text := $rule$(
        select current_user::text not like 'proj\_%' and session_user::text not like 'proj\_%$realtime')$rule$;
    is_login constant text := $rule$(select current_user::text like 'proj\_%$realtime')$rule$;
begin
    -- Realtime makes the table over dozens of migrations.
    if (
        select pg_catalog.count(*) from pg_catalog.pg_attribute a
        where a.attrelid = pg_catalog.to_regclass('realtime.messages') and a.attname in ('topic', 'extension')
            and a.atttypid = 'pg_catalog.text'::pg_catalog.regtype
    ) <> 2 then
        return;
    end if;
    if not pg_catalog.has_schema_privilege('data_plane_realtime', 'realtime', 'usage') then
        grant usage on schema realtime to data_plane_realtime;
    end if;
    if not pg_catalog.has_table_privilege('data_plane_realtime', 'realtime.messages', 'insert') then
        grant select, insert on realtime.messages to data_plane_realtime;
    end if;
    perform data_plane.narrow_messages();
    -- Realtime compares how many migrations have run. A version that keeps no count does not ask.
    if pg_catalog.to_regclass('realtime.schema_migrations') is not null
        and not pg_catalog.has_table_privilege('data_plane_realtime', 'realtime.schema_migrations', 'select') then
        grant select on realtime.schema_migrations to data_plane_realtime;
    end if;
    perform data_plane.grant_session_functions('data_plane_realtime');
    for rule in
        select c.oid::pg_catalog.regclass as relation from pg_catalog.pg_class c
        where c.oid in (pg_catalog.to_regclass('realtime.messages'), pg_catalog.to_regclass('realtime.subscription'))
            and not c.relrowsecurity
    loop
        execute pg_catalog.format('alter table %s enable row level security', rule.relation);
    end loop;

    for rule in
        select r.relation, r.name, r.kind, r.command, r.roles, r.using_rule, r.check_rule
        from (values
            ('messages', 'projects come through their own Realtime', 'restrictive', 'all', 'public',
                is_outside || ' or ' || in_own_session, null),
            -- A client may ask for what was sent before, which Realtime reads as the login.
            ('messages', 'what is stored is no project''s', 'restrictive', 'select', 'public', 'not ' || is_login, null),
            ('messages', 'a project''s Realtime asks', 'permissive', 'insert', 'public', null, is_login),
            ('messages', 'a project says who reads a topic', 'permissive', 'select', 'anon, authenticated',
                'data_plane.may_use_topic(''select'', topic, extension)', null),
            ('messages', 'a project says who writes to a topic', 'permissive', 'insert', 'anon, authenticated',
                null, 'data_plane.may_use_topic(''insert'', topic, extension)'),
            -- Who listens to tables' changes, with all claims. Realtime leaves it open to everybody.
            ('subscription', 'projects see no subscription', 'permissive', 'all', 'public', 'not ' || is_tenant, null)
        ) as r (relation, name, kind, command, roles, using_rule, check_rule)
        where pg_catalog.to_regclass('realtime.' || r.relation) is not null
    loop
        perform data_plane.keep_policy('realtime', rule);
    end loop;
end
$$;

-- The days' partitions of realtime.messages, without which nobody joins anything. Realtime makes them for tenants whose
-- login owns the table, and drops those of four days ago; a project's may do neither. The guard runs this.
create or replace function data_plane.keep_message_partitions() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set lock_timeout = '500ms'
as $$
declare
    messages constant regclass := pg_catalog.to_regclass('realtime.messages');
    today constant date := (pg_catalog.now() at time zone 'utc')::date;
    part record;
begin
    if not exists (select from data_plane.realtime)
        or not exists (select from pg_catalog.pg_class c where c.oid = messages and c.relkind = 'p') then
        return;
    end if;
    for part in
        select days.day, 'messages_' || pg_catalog.to_char(days.day, 'YYYY_MM_DD') as name
        from (select today + n as day from pg_catalog.generate_series(-1, 3) as n) as days
        where pg_catalog.to_regclass('realtime.messages_' || pg_catalog.to_char(days.day, 'YYYY_MM_DD')) is null
    loop
        execute pg_catalog.format('create table realtime.%I partition of realtime.messages for values from (%L) to (%L)',
            part.name, part.day, part.day + 1);
        execute pg_catalog.format('alter table realtime.%I owner to %I', part.name,
            (select pg_catalog.pg_get_userbyid(c.relowner) from pg_catalog.pg_class c where c.oid = messages));
    end loop;
    for part in
        select c.relname
        from pg_catalog.pg_inherits i
        join pg_catalog.pg_class c on c.oid = i.inhrelid
        where i.inhparent = messages and c.relname ~ '^messages_\d{4}_\d\d_\d\d$'
            and pg_catalog.to_date(pg_catalog.right(c.relname, 10), 'YYYY_MM_DD') < today - 3
    loop
        execute pg_catalog.format('drop table realtime.%I', part.relname);
    end loop;
end
$$;

create or replace function data_plane.adopt_realtime() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted record;
    adopted boolean := false;
begin
    for wanted in
        select t.relation, t.name, t.declaration
        from (values
            ('_realtime.tenants', 'data_plane_verifying_keys',
                'before insert or update on _realtime.tenants for each row execute function data_plane.set_realtime_keys()'),
            ('_realtime.extensions', 'data_plane_projects',
                'after insert or update on _realtime.extensions for each row'
                ' when (pg_catalog.left(new.tenant_external_id, 5) <> ''proj_'') execute function data_plane.follow_realtime()')
        ) as t (relation, name, declaration)
        where pg_catalog.to_regclass(t.relation) is not null and not exists (
            select from pg_catalog.pg_trigger g where g.tgrelid = pg_catalog.to_regclass(t.relation) and g.tgname = t.name)
    loop
        execute pg_catalog.format('create trigger %I %s', wanted.name, wanted.declaration);
        adopted := true;
    end loop;
    if adopted then
        execute 'update _realtime.tenants set external_id = external_id';
    end if;
    perform data_plane.secure_realtime();
    perform data_plane.apply_realtime_tenant(r.tenant) from data_plane.realtime r;
end
$$;
