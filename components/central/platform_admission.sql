-- Which SQL of a project may run in a session that serves other projects too.
--
-- PostgreSQL checks SET ROLE against the login of the connection, and what a session has set, prepared or locked stays
-- with it. In the PostgREST that several tenants share, a tenant's SQL must therefore neither set a role nor leave
-- anything behind. What of a tenant's runs there is expressions, which call functions, and the texts of its functions:
--
--   1  built-in functions that change a session are taken from PUBLIC, and given to the logins that need them
--   2  the judgement of a text: refused_tokens, and of a function: refused_parts
--   3  admission: at CREATE and ALTER FUNCTION, and before a tenant is given to a shared login
--   4  functions of extensions that run text or change the session are taken from PUBLIC
--
-- A tenant with a PostgREST of its own, or with none, is free of all this.

-- 1 -------------------------------------------------------------------------------------------------------------------

-- query_to_xml, ts_stat and the like run text, too, but as PostgreSQL runs what a STABLE function says: reading alone.
create table if not exists data_plane.session_functions (signature text primary key);
insert into data_plane.session_functions values
    ('pg_catalog.set_config(text,text,boolean)'),
    -- The next request's random() would give what this one has chosen.
    ('pg_catalog.setseed(double precision)')
on conflict do nothing;

create or replace function data_plane.grant_session_functions(to_role text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    granted text;
begin
    for granted in select f.signature from data_plane.session_functions f order by 1 loop
        if not pg_catalog.has_function_privilege(to_role, granted, 'execute') then
            -- All grants are in one row of the catalog, which two transactions cannot write at once.
            lock table data_plane.session_functions in share row exclusive mode;
            execute pg_catalog.format('grant execute on function %s to %I', granted, to_role);
        end if;
    end loop;
end
$$;

create or replace function data_plane.revoke_session_functions(from_role text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    granted text;
begin
    for granted in select f.signature from data_plane.session_functions f order by 1 loop
        if pg_catalog.has_function_privilege(from_role, granted, 'execute') then
            lock table data_plane.session_functions in share row exclusive mode;
            execute pg_catalog.format('revoke execute on function %s from %I', granted, from_role);
        end if;
    end loop;
end
$$;

-- Logins of services that run no project's SQL before they have set the role: PostgREST sets it in the same statement,
-- in which every call is checked before the first is made.
do $$
declare
    changed record;
begin
    for changed in select f.signature from data_plane.session_functions f loop
        execute format('revoke execute on function %s from public', changed.signature);
    end loop;
    for changed in
        select rolname from pg_catalog.pg_roles
        where rolname in ('authenticator', 'supabase_storage_admin')
            or rolname ~ '^(cell|proj)_[a-z0-9_]+_authenticator$' and rolcanlogin
    loop
        perform data_plane.grant_session_functions(changed.rolname);
    end loop;
end
$$;

-- 2 -------------------------------------------------------------------------------------------------------------------

-- The words of a function's text that are, or could be taken for, a command that changes the session.
--
-- A command is one by its first word. A statement begins where the text does, after a semicolon, after THEN, ELSE, LOOP
-- or BEGIN, and what runs a query names it after IN, FOR, IS, AS, QUERY or EXPLAIN; a word that stands anywhere else is a
-- name, or part of another statement (UPDATE … SET, ON CONFLICT DO, GRANT EXECUTE). Strings, comments and quoted names
-- end where PostgreSQL's scanner has them end. That depends on standard_conforming_strings when an ordinary string has a
-- backslash before a quotation mark, and plpgsql may read a text with one setting and its statements with the other: such
-- a string is refused. What else the reading could not follow is, too.
create or replace function data_plane.refused_tokens(language text, body text) returns table (line integer, token text)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    -- An identifier begins with a letter, an underscore or anything beyond ASCII, and goes on with digits and $, too.
    first_letter constant text := '[^\u0001-\u0040\u005b-\u005e\u0060\u007b-\u007f]';
    letter constant text := '[^\u0001-\u0023\u0025-\u002f\u003a-\u0040\u005b-\u005e\u0060\u007b-\u007f]';
    tag_letter constant text := '[^\u0001-\u002f\u003a-\u0040\u005b-\u005e\u0060\u007b-\u007f]';
    dollars constant text := '\$(?:' || first_letter || tag_letter || '*)?\$';
    ordinary constant text := '''(?:[^'']|'''')*''';
    escaped constant text := '''(?:[^''\\]|\\.|'''')*''';
    commands constant text[] := array[
        'set', 'reset', 'execute', 'prepare', 'deallocate', 'discard', 'listen', 'unlisten', 'load', 'do'];
    begins constant text[] := array[';', '>>', 'begin', 'then', 'else', 'loop', 'query', 'in', 'for', 'is'];
    names_a_query constant text[] := array['as', 'explain', 'analyze', 'verbose'];
    taken constant text[] := array['set_config', 'setseed'];
    seen text[] := '{}';
    scanner text;
    rest text;
    found text;
    word text;      -- the token: a word in lower case, or a sign
    before text;    -- the one before it, and the one before that
    earlier text;
    waiting text;   -- a word of which the next token decides
    waits_at integer;
    at_line integer;
    place integer;
    ending integer;
    work bigint := 0;
begin
    if language not in ('sql', 'plpgsql') then
        return query select 1, 'language ' || language;
        return;
    end if;
    -- Most texts have none of the words at all.
    if pg_catalog.lower(body collate "C") !~ (
        '(?:^|[\u0001-\u0040\u005b-\u005e\u0060\u007b-\u007f])(?:'
        || pg_catalog.array_to_string(commands || taken || case language when 'sql' then 'declare' end, '|')
        || ')(?:$|[\u0001-\u0040\u005b-\u005e\u0060\u007b-\u007f])')
    then
        return;
    end if;
    scanner := pg_catalog.concat_ws('|',
        '[ \t\n\r\f\v]+', '--[^\n\r]*', '/\*(?:[^*/]|\*+[^*/]|/+[^*/])*\*+/', '/\*',
        ordinary, '[eE]' || escaped, '[bBxX]''[^'']*''', '[uU]&[''"]', '"(?:[^"]|"")*"',
        dollars, '\$[0-9]+', '[0-9]+', first_letter || letter || '*', '.');
    rest := body;
    at_line := 1;
    before := ';';
    earlier := ';';
    waiting := '';
    <<segments>>
    loop
        place := 0;
        -- Each quotation in dollars begins a scan of what follows it.
        work := work + pg_catalog.length(rest);
        if work > 1000000 then
            seen := seen || pg_catalog.concat(at_line, ' more text than can be judged');
            exit;
        end if;
        for found in select m[1] from pg_catalog.regexp_matches(rest, '(' || scanner || ')', 'g') as m loop
            place := place + pg_catalog.length(found);
            if pg_catalog.left(found, 1) in (' ', E'\t', E'\n', E'\r', E'\f', E'\v')
                or pg_catalog.left(found, 2) in ('--', '/*') and found <> '/*' then
                at_line := at_line + pg_catalog.length(found)
                    - pg_catalog.length(pg_catalog.replace(found, E'\n', ''));
                continue;
            end if;
            word := pg_catalog.lower(found collate "C");
            if waiting = '' and pg_catalog.length(found) > 1
                and found ~ '^[A-Za-z_]+$' and word <> all (commands || taken || array['declare']) then
                earlier := before;
                before := word;
                continue;
            end if;

            -- SET CONSTRAINTS is of the transaction, unless it is a setting that has that name.
            if waiting = 'set' and word = 'constraints' then
                waiting := 'set constraints';
            elsif waiting in ('set_config', 'setseed') then
                if word = '(' then
                    seen := seen || pg_catalog.concat(waits_at, ' ', waiting);
                end if;
                waiting := '';
            elsif waiting <> '' then
                if waiting = 'set' or word in ('.', '=', 'to') then
                    seen := seen || pg_catalog.concat(waits_at, ' ', 'set');
                end if;
                waiting := '';
            end if;

            if found = '/*' then
                seen := seen || pg_catalog.concat(at_line, ' ', 'a comment in a comment');
            elsif found in ('''', '"') then
                seen := seen || pg_catalog.concat(at_line, ' ', 'a quotation without an end');
            elsif word in ('u&''', 'u&"') then
                seen := seen || pg_catalog.concat(at_line, ' ', 'U&');
            elsif word = any (commands) or word = 'declare' and language = 'sql' then
                if before = any (begins) or word = 'execute' and before = any (names_a_query) then
                    if word = 'set' then
                        waiting := word;
                        waits_at := at_line;
                    else
                        seen := seen || pg_catalog.concat(at_line, ' ', word);
                    end if;
                end if;
            elsif pg_catalog.btrim(word, '"') = any (taken) and (before <> '.' or earlier = 'pg_catalog') then
                waiting := pg_catalog.btrim(word, '"');
                waits_at := at_line;
            elsif pg_catalog.right(found, 1) = '''' then
                -- On a new line it would be read as the one before is, which has rules of its own.
                if before = 'b''' and word = found and pg_catalog.left(found, 1) = '''' then
                    seen := seen || pg_catalog.concat(at_line, ' ', 'a string that goes on after E'''', B'''' or X''''');
                end if;
                if pg_catalog.left(found, 1) = '''' and found ~ '(?:^|[^\\])(?:\\\\)*\\''' then
                    seen := seen || pg_catalog.concat(at_line, ' ', 'a backslash before a quotation mark in a string');
                end if;
                if before = 'do' then
                    seen := seen || pg_catalog.concat(at_line, ' ', before);
                end if;
                word := case when pg_catalog.left(found, 1) = '''' then '''' else 'b''' end;
            elsif pg_catalog.right(found, 1) = '$' and pg_catalog.left(found, 1) = '$' and found <> '$' then
                if before = 'do' then
                    seen := seen || pg_catalog.concat(at_line, ' ', before);
                end if;
                ending := pg_catalog.strpos(pg_catalog.substr(rest, place + 1), found);
                if ending = 0 then
                    seen := seen || pg_catalog.concat(at_line, ' ', 'a quotation without an end');
                    exit segments;
                end if;
                ending := place + ending - 1 + pg_catalog.length(found);
                at_line := at_line + ending - place
                    - pg_catalog.length(pg_catalog.replace(pg_catalog.substr(rest, place + 1, ending - place), E'\n', ''));
                rest := pg_catalog.substr(rest, ending + 1);
                earlier := before;
                before := '$';
                continue segments;
            elsif word = '>' and before = '>' then
                word := '>>';
            end if;
            at_line := at_line + pg_catalog.length(found) - pg_catalog.length(pg_catalog.replace(found, E'\n', ''));
            earlier := before;
            before := word;
        end loop;
        exit;
    end loop;
    if waiting = 'set' then
        seen := seen || pg_catalog.concat(waits_at, ' ', waiting);
    end if;
    return query
        select pg_catalog.split_part(entry, ' ', 1)::integer, pg_catalog.substr(entry, pg_catalog.strpos(entry, ' ') + 1)
        from pg_catalog.unnest(seen) as entry;
end
$$;

-- What of a function keeps it out of a session that tenants share, each with the line of its text. A function that is
-- not VOLATILE may say what it likes: PostgreSQL lets its statements read, and nothing else.
create or replace function data_plane.refused_parts(of_function oid) returns table (line integer, token text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select 1, 'language ' || l.lanname
    from pg_catalog.pg_proc p join pg_catalog.pg_language l on l.oid = p.prolang
    where p.oid = of_function and l.lanname not in ('sql', 'plpgsql') and p.prokind <> 'a'
    union
    -- PostgREST answers with an aggregate whose result is a domain with the name of a media type: for the table whose rows
    -- it takes, and for all that it serves where that is anyelement (SchemaCache.hs, mediaHandlers). Types get new names.
    select 1, 'an aggregate over others'' rows with a domain as its result'
    from pg_catalog.pg_proc p
    join pg_catalog.pg_type result on result.oid = p.prorettype and result.typtype = 'd'
    join pg_catalog.pg_type taken on taken.oid = p.proargtypes[0]
    where p.oid = of_function and p.prokind = 'a' and taken.typnamespace <> p.pronamespace
        -- A project's own rows may be in another of its schemas.
        and (
            select pg_catalog.count(distinct pg_catalog.split_part(n.nspname, '$', 1)) from pg_catalog.pg_namespace n
            where n.oid in (p.pronamespace, taken.typnamespace)
        ) = 2
        and (taken.typtype = 'c' or taken.typname = 'anyelement')
    union
    select 1, 'set ' || setting.name
    from pg_catalog.pg_proc p
    cross join pg_catalog.unnest(p.proconfig) as entry
    cross join lateral (select pg_catalog.lower(pg_catalog.split_part(entry, '=', 1)) as name) as setting
    where p.oid = of_function and setting.name in ('role', 'session_authorization', 'seed')
    union
    -- What a function in standard SQL says was read when it was made, and can be queries alone.
    select found.line, found.token
    from pg_catalog.pg_proc p
    join pg_catalog.pg_language l on l.oid = p.prolang
    cross join lateral data_plane.refused_tokens(l.lanname, p.prosrc) as found
    where p.oid = of_function and l.lanname in ('sql', 'plpgsql') and p.provolatile = 'v' and p.prosqlbody is null
    order by 1, 2
$$;

-- How to write it instead.
create or replace function data_plane.way_out(token text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select case
        when token in ('set', 'reset', 'set_config') then
            'A setting that a function needs is a clause of it (create function … set search_path = …), but for a role.'
        when token = 'execute' then
            'Write the statement itself; a function that only reads may be STABLE, which lets EXECUTE in.'
        when token = 'declare' then 'A query can be a cursor of plpgsql''s, or the function''s result.'
        when token = 'do' then 'Make its text a function.'
        when token like 'an aggregate %' then 'Let it take the rows of one table of the project''s.'
        when token like 'language %' then 'Write it in sql or plpgsql.'
        when token like 'a backslash %' then 'Write the string as E''…'', with each backslash doubled.'
        when token = 'U&' or token like '% %' and token not like 'set %' then 'Write it otherwise.'
        else 'It would outlast the request.'
    end || ' With `api: dedicated` in its file a project is served by a PostgREST that nobody else uses, and may have it.'
$$;

-- The functions and procedures of a tenant that are not let in.
create or replace function data_plane.refused_functions(of_tenant text) returns table (function text, line integer, token text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    candidate oid;
    began constant timestamptz := pg_catalog.clock_timestamp();
begin
    for candidate in
        select p.oid from pg_catalog.pg_proc p
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where (pg_catalog.split_part(n.nspname, '$', 1) = of_tenant
                -- A copy from a dump: the project's roles may be let into it, and its functions call what stands there.
                or n.nspowner = pg_catalog.to_regrole(of_tenant || '_owner'))
            -- PostgreSQL makes the constructors of a range type itself.
            and not exists (
                select from pg_catalog.pg_depend d
                where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid and d.deptype = 'i'
                    and d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass)
        order by n.nspname, p.proname, p.oid
    loop
        return query
            select candidate::pg_catalog.regprocedure::text, part.line, part.token
            from data_plane.refused_parts(candidate) as part;
        -- A tenant must not be able to make `up` take as long as it likes.
        if pg_catalog.clock_timestamp() > began + interval '60 s' then
            return query select candidate::pg_catalog.regprocedure::text, 1, 'more text than can be judged'::text;
            return;
        end if;
    end loop;
end
$$;

-- 3 -------------------------------------------------------------------------------------------------------------------

-- Whether a tenant is served by a login that serves others, too. One of which nothing is declared is taken for such.
create or replace function data_plane.needs_admission(of_tenant text) returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        (select coalesce(a.login <> a.tenant || '_authenticator', false)
            from data_plane.api_access a where a.tenant = of_tenant),
        true)
$$;
revoke all on function data_plane.needs_admission(text) from public;
grant execute on function data_plane.needs_admission(text), data_plane.refused_tokens(text, text), data_plane.way_out(text)
    to data_plane_tenant;

create or replace function data_plane.admit_functions() returns event_trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    made record;
    refused record;
begin
    for made in
        select distinct p.oid, case when n.nspname like 'proj\_%' then pg_catalog.split_part(n.nspname, '$', 1)
            else pg_catalog.regexp_replace(pg_catalog.pg_get_userbyid(n.nspowner)::text, '_owner$', '') end as tenant
        from pg_catalog.pg_event_trigger_ddl_commands() as ddl
        join pg_catalog.pg_proc p on p.oid = ddl.objid
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where ddl.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
            -- Whatever it is named, a schema that a project's owner has is the project's: a copy from a dump.
            and (n.nspname like 'proj\_%' or pg_catalog.pg_get_userbyid(n.nspowner) ~ '^proj_[a-z0-9_]+_owner$')
    loop
        -- Who is about to give the tenant to a shared login waits for this transaction, and then sees its functions.
        perform from data_plane.api_access a where a.tenant = made.tenant for share;
        if data_plane.needs_admission(made.tenant) then
            select * into refused from data_plane.refused_parts(made.oid) as part limit 1;
            if found then
                raise exception 'function %, line % of its text: % has no place in a session that projects share',
                    made.oid::pg_catalog.regprocedure, refused.line, refused.token
                    using errcode = 'insufficient_privilege', hint = data_plane.way_out(refused.token);
            end if;
        end if;
    end loop;
end
$$;
revoke all on function data_plane.admit_functions() from public;

drop event trigger if exists data_plane_admission;
create event trigger data_plane_admission on ddl_command_end
    when tag in (
        'CREATE FUNCTION', 'CREATE PROCEDURE', 'CREATE AGGREGATE', 'ALTER FUNCTION', 'ALTER PROCEDURE', 'ALTER ROUTINE',
        'CREATE EXTENSION')
    execute function data_plane.admit_functions();

-- Fails, naming them, where a project has functions that a PostgREST shared with others does not run.
create or replace function data_plane.refuse_shared_api(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    refused text;
begin
    select pg_catalog.string_agg(pg_catalog.format('%s, line %s: %s', f.function, f.line, f.token), E'\n') into refused
    from (select * from data_plane.refused_functions(of_tenant) limit 20) as f;
    if refused is not null then
        raise exception E'% cannot be served together with other projects, because of\n%', of_tenant, refused
            using errcode = 'insufficient_privilege',
                hint = 'Write these functions otherwise (docs/reference/migration-rules.md), or have `api: dedicated` in the project''s file.';
    end if;
end
$$;

-- Called before a tenant's roles are given to a login: refuses a shared one what it would have to run. Who has a
-- PostgREST of its own, or none, may change its sessions as it likes.
create or replace function data_plane.admit_tenant(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    level text;
begin
    perform from data_plane.api_access a where a.tenant = of_tenant for update;
    if data_plane.needs_admission(of_tenant) then
        perform data_plane.refuse_shared_api(of_tenant);
    end if;
    foreach level in array array['owner', 'service_role', 'authenticated', 'anon'] loop
        if pg_catalog.to_regrole(of_tenant || '_' || level) is null then
            continue;
        elsif data_plane.needs_admission(of_tenant) then
            perform data_plane.revoke_session_functions(of_tenant || '_' || level);
        else
            perform data_plane.grant_session_functions(of_tenant || '_' || level);
        end if;
    end loop;
end
$$;

-- Makes the memberships of a tenant's roles what is declared, and takes a tenant from the shared login that has what is
-- not let in: one that was served before there was admission, or came with a dump. The others go on.
create or replace function data_plane.serve_or_withhold(of_tenant text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    login text;
    role text;
    served text;
begin
    perform data_plane.apply_api_access(of_tenant);
exception
    when undefined_object then
        raise warning '%', sqlerrm;
    when insufficient_privilege then
        raise warning '%', sqlerrm;
        select a.login into login from data_plane.api_access a where a.tenant = of_tenant;
        for role in
            select granted.rolname from pg_catalog.pg_auth_members m
            join pg_catalog.pg_roles granted on granted.oid = m.roleid
            where m.member = pg_catalog.to_regrole(login)
                and granted.rolname in (of_tenant || '_anon', of_tenant || '_authenticated', of_tenant || '_service_role')
        loop
            execute pg_catalog.format('revoke %I from %I', role, login);
        end loop;
        if pg_catalog.to_regrole(login) is not null then
            for served in
                select n.nspname from pg_catalog.pg_namespace n
                where pg_catalog.split_part(n.nspname, '$', 1) = of_tenant
            loop
                execute pg_catalog.format('revoke all on schema %I from %I', served, login);
            end loop;
        end if;
end
$$;

-- 4 -------------------------------------------------------------------------------------------------------------------

-- Whatever of an extension runs text that it is given (pgTAP's lives_ok, AddGeometryColumn of PostGIS) or leaves something
-- in the session. What is written in sql or plpgsql is judged as a tenant's is; of the rest these are known.
create or replace function data_plane.restrict_extensions() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    taken record;
begin
    for taken in
        select p.oid::pg_catalog.regprocedure as signature
        from pg_catalog.pg_depend d
        join pg_catalog.pg_extension e on e.oid = d.refobjid and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
        join pg_catalog.pg_proc p on p.oid = d.objid and d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        join pg_catalog.pg_language l on l.oid = p.prolang
        where d.deptype = 'e' and p.prokind in ('f', 'p') and p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace
            and pg_catalog.has_function_privilege('public', p.oid, 'execute')
            and case
                when l.lanname in ('c', 'internal') then
                    (e.extname, p.proname) in (
                        ('pg_trgm', 'set_limit'),                       -- sets pg_trgm.similarity_threshold
                        ('isn', 'isn_weak'),                            -- sets isn.weak, which an older one keeps by itself
                        ('xml2', 'xpath_table'),                        -- puts its arguments into a statement
                        ('refint', 'check_primary_key'), ('refint', 'check_foreign_key'),
                        ('http', 'http_set_curlopt'), ('http', 'http_reset_curlopt'))
                    -- Connections, hypothetical indexes and traces that last as long as the session.
                    or e.extname in ('dblink', 'hypopg', 'plpgsql_check', 'pg_background')
                else exists (select from data_plane.refused_parts(p.oid))
            end
    loop
        execute pg_catalog.format('revoke execute on routine %s from public', taken.signature);
    end loop;
end
$$;

-- With the definer's rights: a project may say `create extension if not exists` of one that is there.
create or replace function data_plane.restrict_new_extensions() returns event_trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform data_plane.restrict_extensions();
end
$$;

drop event trigger if exists data_plane_extensions;
create event trigger data_plane_extensions on ddl_command_end
    when tag in ('CREATE EXTENSION', 'ALTER EXTENSION')
    execute function data_plane.restrict_new_extensions();
select data_plane.restrict_extensions();

revoke all on all functions in schema data_plane from public;