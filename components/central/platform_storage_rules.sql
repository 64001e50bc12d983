-- Storage: buckets and rules that a project declares itself, from its migrations.
--
-- A project cannot be let write policies on storage.objects: Storage's sessions, which serve every project, evaluate
-- them, and whatever function, cast, view or policy they reach would run there. A declared rule is therefore made of
-- words that are known:
--
--   1  reading: the text is cut into tokens, and each has to be in a list. What goes on is put together from those tokens
--      anew, so nothing that PostgreSQL is given was written by a project but strings and numbers
--   2  judging: PostgreSQL's own analysed tree of it, on a table that nobody uses, is held against lists of nodes,
--      functions, operators and types; the policy that was made of it on storage.objects, once more
--   3  declaring: records a bucket or a rule, and takes no lock on anything of Storage's. A policy locks out everybody
--      who uses storage.objects until the transaction that makes it ends, and a project's may take its time
--   4  applying: the guard makes the policies, in a short transaction of its own
--
-- A sub-select on a project's tables is no such word: their policies, views and functions would be evaluated with it.

-- 1 -------------------------------------------------------------------------------------------------------------------

-- What a rule may be made of. A function has its signature; what a text names is the part before the parenthesis.
create table if not exists data_plane.storage_rule_words (
    kind text check (kind in ('keyword', 'column', 'type', 'function', 'operator', 'node')),
    word text,
    primary key (kind, word)
);
delete from data_plane.storage_rule_words;
insert into data_plane.storage_rule_words
select 'keyword', w from pg_catalog.unnest(array[
    'all', 'and', 'any', 'array', 'as', 'between', 'case', 'cast', 'coalesce', 'distinct', 'else', 'end', 'false', 'from',
    'ilike', 'in', 'is', 'like', 'not', 'null', 'nullif', 'or', 'select', 'some', 'symmetric', 'then', 'true', 'unknown',
    'when']) w
union all
select 'column', w from pg_catalog.unnest(array[
    'id', 'bucket_id', 'name', 'owner', 'owner_id', 'created_at', 'updated_at', 'last_accessed_at', 'metadata',
    'user_metadata', 'path_tokens', 'version']) w
union all
-- Types whose input and output are PostgreSQL's own and look nothing up.
select 'type', w from pg_catalog.unnest(array[
    'bool', 'boolean', 'text', 'varchar', 'bpchar', 'int', 'int2', 'int4', 'int8', 'integer', 'bigint', 'smallint', 'numeric',
    'uuid', 'json', 'jsonb', 'date', 'timestamp', 'timestamptz', 'interval']) w
union all
-- None is VOLATILE. Of those that give more than they take, replace and array_to_string are bounded below; repeat and
-- format could not be.
select 'function', w from pg_catalog.unnest(array[
    'auth.uid()', 'auth.jwt()', 'auth.role()', 'auth.email()',
    'storage.foldername(text)', 'storage.filename(text)', 'storage.extension(text)', 'storage.operation()',
    'storage.allow_only_operation(text)', 'storage.allow_any_operation(text[])',
    'array_length(anyarray,integer)', 'array_position(anycompatiblearray,anycompatible)', 'array_to_string(anyarray,text)',
    'btrim(text)', 'btrim(text,text)', 'cardinality(anyarray)', 'char_length(text)', 'concat("any")', 'current_setting(text)',
    'current_setting(text,boolean)', 'jsonb_extract_path_text(jsonb,text[])', 'jsonb_typeof(jsonb)', 'left(text,integer)',
    'length(text)', 'lower(text)', 'ltrim(text)', 'ltrim(text,text)', 'now()', 'octet_length(text)', 'position(text,text)',
    'replace(text,text,text)', 'reverse(text)', 'right(text,integer)', 'rtrim(text)', 'rtrim(text,text)', 'to_jsonb(anyelement)', 'split_part(text,text,integer)',
    'starts_with(text,text)', 'string_to_array(text,text)', 'strpos(text,text)', 'substr(text,integer)',
    'substr(text,integer,integer)', 'substring(text,integer)', 'substring(text,integer,integer)', 'upper(text)']) w
union all
select 'operator', w from pg_catalog.unnest(array[
    '=', '<>', '!=', '<', '>', '<=', '>=', '||', '->', '->>', '#>', '#>>', '@>', '<@', '&&', '?', '?|', '?&', '^@',
    '~~', '!~~', '~~*', '!~~*', '~', '!~', '~*', '!~*', '+', '-', '*']) w
union all
-- As PostgreSQL 15, and as 16 and newer call them.
select 'node', w from pg_catalog.unnest(array[
    'VAR', 'CONST', 'FUNCEXPR', 'OPEXPR', 'DISTINCTEXPR', 'NULLIFEXPR', 'SCALARARRAYOPEXPR', 'BOOLEXPR', 'SUBLINK', 'QUERY',
    'FROMEXPR', 'TARGETENTRY', 'PARAM', 'RELABELTYPE', 'COERCEVIAIO', 'ARRAYCOERCEEXPR', 'CASE', 'CASEEXPR', 'WHEN', 'CASEWHEN',
    'CASETESTEXPR', 'ARRAY', 'ARRAYEXPR', 'COALESCE', 'COALESCEEXPR', 'NULLTEST', 'BOOLEANTEST', 'SUBSCRIPTINGREF',
    'ALIAS']) w;

-- What a rule says, put together anew from its tokens; raises the reason where it says something else.
create or replace function data_plane.storage_expression(said text) returns text
language plpgsql stable strict
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    scanner constant text := pg_catalog.concat_ws('|',
        '''(?:[^'']|'''')*''', '"(?:[^"]|"")*"', '[A-Za-z_][A-Za-z0-9_$]*', '[0-9]+(?:\.[0-9]+)?', '::',
        '[-+*/<>=~!@#%^&|`?]+', '[ \t\n\r\f\v]+', '.');
    tokens text[];
    made text := '';
    token text;
    schema_name text;
    known text[];
    quoted boolean;
    opened text := '';  -- brackets that are open, the last one last
    growing text := '';  -- of each: whether it has what a function makes more of
    grown integer := 0;
    place integer := 1;
    joined integer := 0;
    foreign_name boolean;
    out_of_list constant text := 'a storage rule cannot say %s';
    in_storage constant text := 'Storage evaluates rules in sessions that serve every project: functions of a project, and what the policies and '
        'views of its tables call, would run there. Say it by the path of a file, its owner, or a claim of the token.';
begin
    if pg_catalog.octet_length(said) > 6000 then
        raise exception 'a storage rule has 6,000 bytes at most' using errcode = 'program_limit_exceeded';
    end if;
    tokens := array(
        select m[1] from pg_catalog.regexp_matches(said, '(' || scanner || ')', 'g') as m where m[1] !~ '^[ \t\n\r\f\v]');
    if pg_catalog.cardinality(tokens) not between 1 and 800 then
        raise exception 'a storage rule has 1 to 800 words and signs' using errcode = 'program_limit_exceeded';
    end if;
    if exists (
        select from pg_catalog.unnest(tokens) with ordinality as t (word, at)
        where pg_catalog.lower(t.word collate "C") in ('exists', 'join', 'where')
            or pg_catalog.lower(t.word collate "C") = 'from'
                and pg_catalog.lower(tokens[t.at - 1] collate "C") is distinct from 'distinct'
    ) then
        raise exception 'a storage rule cannot say what is in a table' using errcode = 'feature_not_supported', hint = in_storage;
    end if;
    loop
        exit when place > pg_catalog.cardinality(tokens);
        token := tokens[place];
        if pg_catalog.left(token, 1) = '''' and pg_catalog.length(token) > 1 then
            made := made || ' ' || pg_catalog.quote_literal(
                pg_catalog.replace(pg_catalog.substr(token, 2, pg_catalog.length(token) - 2), '''''', ''''));
        elsif token ~ '^[0-9]' then
            if pg_catalog.length(token) > 20 then
                raise exception using message = pg_catalog.format(out_of_list, 'a number of more than 20 digits'),
                    errcode = 'feature_not_supported';
            end if;
            made := made || ' ' || token;
        elsif token in ('(', '[') then
            opened := opened || token;
            growing := growing || case when pg_catalog.lower(pg_catalog.btrim(tokens[place - 1], '"') collate "C")
                in ('replace', 'array_to_string') then 'g' else '.' end;
            if pg_catalog.length(opened) > 40 then
                raise exception 'a storage rule has 40 brackets in each other at most' using errcode = 'program_limit_exceeded';
            end if;
            made := made || ' ' || token;
        elsif token in (')', ']') then
            if pg_catalog.right(opened, 1) is distinct from (case token when ')' then '(' else '[' end) then
                raise exception 'a bracket is closed that was not opened: %', token using errcode = 'syntax_error';
            end if;
            if pg_catalog.right(growing, 1) = 'g' then
                grown := grown + 1;
                if grown > 3 or tokens[place - 2] is distinct from ',' or tokens[place - 1] !~ '^''.{0,10}''$' then
                    raise exception using errcode = 'feature_not_supported', message = pg_catalog.format(
                        out_of_list, 'replace or array_to_string four times, or with anything but a string of 10 characters at its end');
                end if;
            end if;
            opened := pg_catalog.left(opened, -1);
            growing := pg_catalog.left(growing, -1);
            made := made || ' ' || token;
        elsif token in (',', '::', ':') then
            made := made || ' ' || token;
        elsif token ~ '^[-+*/<>=~!@#%^&|`?]' then
            if not exists (select from data_plane.storage_rule_words w where w.kind = 'operator' and w.word = token) then
                raise exception using message = pg_catalog.format(out_of_list, token),
                    errcode = 'feature_not_supported';
            end if;
            -- A condition that PostgreSQL could take long to compare by, or to read.
            if token in ('~', '!~', '~*', '!~*') and coalesce(tokens[place + 1], '')
                !~ '^''([^\\{(''*+?]|\\[./_-]|\((?!\?)|[*+?](?![*+?{])|(?<![)*+?}])\{[0-9]{1,2}(,[0-9]{0,2})?\}(?![*+?{])){1,100}''$'
                or pg_catalog.length(pg_catalog.regexp_replace(tokens[place + 1], '[^{]', '', 'g')) > 8
            then
                raise exception using message = pg_catalog.format(
                    out_of_list, 'a regular expression that is not a simple one, as a string of 100 characters at most'),
                    errcode = 'feature_not_supported',
                    hint = 'Without back references, look-around and counts of groups; LIKE and starts_with do for most.';
            end if;
            joined := joined + (token = '||')::integer;
            if joined > 16 then
                raise exception 'a storage rule has || 16 times at most' using errcode = 'program_limit_exceeded';
            end if;
            made := made || ' ' || token;
        else
            -- A word, or two or three with dots.
            schema_name := null;
            quoted := token ~ '^"[a-z_]+"$';
            token := case when quoted then pg_catalog.btrim(token, '"') else pg_catalog.lower(token collate "C") end;
            if tokens[place + 1] = '.' and token in ('auth', 'storage', 'pg_catalog', 'objects') then
                place := place + 2;
                if token = 'storage' and tokens[place] = 'objects' and tokens[place + 1] = '.' then
                    token := 'objects';
                    place := place + 2;
                end if;
                known := case token when 'pg_catalog' then '{type,function}' when 'objects' then '{column}' else '{function}' end;
                schema_name := case token when 'pg_catalog' then 'pg_catalog.' when 'objects' then '' else token || '.' end;
                token := coalesce(tokens[place], '');
                token := case when token ~ '^"[a-z_]+"$' then pg_catalog.btrim(token, '"') else pg_catalog.lower(token collate "C") end;
            else
                known := case when quoted then '{column,type,function}' else '{keyword,column,type,function}' end;
            end if;
            if not exists (
                select from data_plane.storage_rule_words w
                where w.kind = any (known)
                    and pg_catalog.split_part(w.word, '(', 1)
                        = case when schema_name in ('auth.', 'storage.') then schema_name || token else token end
            ) then
                foreign_name := coalesce(tokens[place + 1], '') in ('(', '.') or schema_name is not null;
                raise exception using errcode = 'feature_not_supported',
                    message = pg_catalog.format(out_of_list, pg_catalog.left(coalesce(schema_name, '') || token || case
                        when tokens[place + 1] = '.' then '.' || coalesce(tokens[place + 2], '') else '' end, 100)),
                    hint = case when foreign_name then in_storage
                        else 'Columns of storage.objects, auth.uid(), jwt(), role(), email(), storage.foldername(), filename(), '
                            'extension(), comparisons, texts, arrays and jsonb.' end;
            end if;
            made := made || ' ' || coalesce(schema_name, '') || token;
        end if;
        place := place + 1;
    end loop;
    if opened <> '' then
        raise exception 'a bracket is not closed: %', opened using errcode = 'syntax_error';
    end if;
    return pg_catalog.btrim(made);
end
$$;

-- 2 -------------------------------------------------------------------------------------------------------------------

-- Nobody has a right on it, and it is empty: storage.objects as far as rules may name it, also where Storage is not there.
create table if not exists data_plane.judged_objects (
    id uuid,
    bucket_id text,
    name text,
    owner uuid,
    created_at timestamptz,
    updated_at timestamptz,
    last_accessed_at timestamptz,
    metadata jsonb,
    path_tokens text[],
    version text,
    owner_id text,
    user_metadata jsonb
);

-- What Storage's functions look like, for as long as it has not made them.
create or replace function data_plane.judged_foldername(name text) returns text[]
    language sql immutable set search_path = pg_catalog, pg_temp as 'select null::text[]';
create or replace function data_plane.judged_filename(name text) returns text
    language sql immutable set search_path = pg_catalog, pg_temp as 'select null::text';
create or replace function data_plane.judged_extension(name text) returns text
    language sql immutable set search_path = pg_catalog, pg_temp as 'select null::text';
create or replace function data_plane.judged_operation() returns text
    language sql immutable set search_path = pg_catalog, pg_temp as 'select null::text';
create or replace function data_plane.judged_allow_only_operation(expected_operation text) returns boolean
    language sql immutable set search_path = pg_catalog, pg_temp as 'select null::boolean';
create or replace function data_plane.judged_allow_any_operation(expected_operations text[]) returns boolean
    language sql immutable set search_path = pg_catalog, pg_temp as 'select null::boolean';

-- What of a policy's conditions is not in the lists, as PostgreSQL has understood them.
create or replace function data_plane.refused_nodes(of_policy oid) returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    with policy as materialized (
        select p.oid, p.polrelid, coalesce(p.polqual::text, '') || ' ' || coalesce(p.polwithcheck::text, '') as tree
        from pg_catalog.pg_policy p where p.oid = of_policy
    ),
    types as materialized (
        select y.oid from pg_catalog.pg_type y
        join data_plane.storage_rule_words w on w.kind = 'type'
            and y.oid in (pg_catalog.to_regtype(w.word), pg_catalog.to_regtype(w.word || '[]'))
        where y.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
        union
        select 'pg_catalog.unknown'::pg_catalog.regtype::oid
    ),
    functions as materialized (
        select pg_catalog.to_regprocedure(
            case when w.word ~ '^(auth|storage)\.' then w.word else 'pg_catalog.' || w.word end)::oid as oid
        from data_plane.storage_rule_words w where w.kind = 'function'
        union
        select p.oid from pg_catalog.pg_proc p
        where p.pronamespace = 'data_plane'::pg_catalog.regnamespace and p.proname like 'judged\_%'
            and 'storage.' || pg_catalog.substr(p.proname::text, 8) in (
                select pg_catalog.split_part(w.word, '(', 1) from data_plane.storage_rule_words w where w.kind = 'function')
        union
        select c.castfunc from pg_catalog.pg_cast c
        join pg_catalog.pg_proc p on p.oid = c.castfunc and p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
        where c.castsource in (select t.oid from types t) and c.casttarget in (select t.oid from types t)
    ),
    operators as materialized (
        select o.oid, o.oprcode::oid as function from pg_catalog.pg_operator o
        join data_plane.storage_rule_words w on w.kind = 'operator' and w.word = o.oprname
        join pg_catalog.pg_proc p on p.oid = o.oprcode and p.provolatile <> 'v'
        where o.oprnamespace = 'pg_catalog'::pg_catalog.regnamespace
            and (o.oprleft = 0 or exists (
                select from pg_catalog.pg_type y where y.oid = o.oprleft and (y.oid in (select t.oid from types t) or y.typname like 'any%')))
            and exists (
                select from pg_catalog.pg_type y where y.oid = o.oprright and (y.oid in (select t.oid from types t) or y.typname like 'any%'))
    ),
    oids as materialized (
        select m[1] as field, m[2]::oid as oid
        from policy
        cross join lateral pg_catalog.regexp_matches(policy.tree, '(?:^|\s):([A-Za-z_]+) (\d+)(?=[\s})]|$)', 'g') as m
    )
    select 'a node ' || m[1] from policy
    cross join lateral pg_catalog.regexp_matches(policy.tree, '(?:^|[^\\])\{([A-Za-z_0-9]+)', 'g') as m
    where m[1] not in (select w.word from data_plane.storage_rule_words w where w.kind = 'node')
    union
    select 'the function ' || o.oid::pg_catalog.regprocedure::text from oids o
    where o.field in ('funcid', 'opfuncid', 'aggfnoid', 'winfnoid', 'elemfuncid')
        and o.oid <> 0
        and o.oid not in (select f.oid from functions f where f.oid is not null)
        and o.oid not in (select p.function from operators p)
    union
    select 'the operator ' || o.oid::pg_catalog.regoperator::text from oids o
    where o.field = 'opno' and o.oid not in (select p.oid from operators p)
    union
    select 'the type ' || pg_catalog.format_type(o.oid, null) from oids o
    where o.field in (
            'vartype', 'consttype', 'funcresulttype', 'opresulttype', 'resulttype', 'casetype', 'typeId', 'coalescetype', 'array_typeid',
            'element_typeid', 'multidims_typeid', 'refcontainertype', 'refelemtype', 'refrestype', 'paramtype', 'minmaxtype')
        and o.oid not in (select t.oid from types t)
        and o.oid <> 0
    union
    select 'a collation' from oids o
    where o.field in ('varcollid', 'constcollid', 'funccollid', 'inputcollid', 'opcollid', 'resultcollid', 'casecollid')
        and o.oid not in (0, 100, 950)
    union
    select 'what is in a table' from policy where policy.tree ~ ':(rtable|cteList|setOperations) [^<]'
    union
    -- What a condition needs is what it names, and what is pinned is PostgreSQL's.
    select pg_catalog.pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
    from policy
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = policy.oid
    where not (d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = policy.polrelid)
        and not (d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
            and d.refobjid in (select f.oid from functions f where f.oid is not null))
$$;

-- The buckets that a rule is about, by its conditions as PostgreSQL writes them: those with which it compares bucket_id in
-- a condition that always has to hold. Null where there is none such: then it may be about any.
create or replace function data_plane.named_buckets(condition text) returns text[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    token text;
    depth integer := 0;
    part text := '';
    parts text[] := '{}';
    found text[];
begin
    if condition !~ '^\(\(' then
        parts := array[condition];
    else
        for token in
            select m[1] from pg_catalog.regexp_matches(condition, '(''(?:[^'']|'''')*''|[()]|[^()'']+)', 'g') as m
        loop
            if token = '(' then
                depth := depth + 1;
                continue when depth = 1;
            elsif token = ')' then
                depth := depth - 1;
                if depth = 1 then
                    parts := parts || (part || token);
                    part := '';
                    continue;
                end if;
            elsif depth = 1 then
                if token !~ '^( AND [a-z_]+)*( AND |$)$' then
                    return null;
                end if;
                continue;
            end if;
            part := part || token;
        end loop;
    end if;
    foreach part in array parts loop
        found := pg_catalog.regexp_match(part, '^\(bucket_id = ''([^'']*)''::text\)$');
        if found is not null then
            return found;
        end if;
        found := pg_catalog.regexp_match(part, '^\(bucket_id = ANY \(ARRAY\[((?:''[^'']*''::text(?:, )?)+)\]\)\)$');
        if found is not null then
            return array(select m[1] from pg_catalog.regexp_matches(found[1], '''([^'']*)''::text', 'g') as m);
        end if;
    end loop;
    return null;
end
$$;

-- Which buckets a condition is about; raises the reason where it is none that can be had. It is made a policy on the
-- judged table, and never stays one: nothing of this outlasts the call, no lock either.
create or replace function data_plane.judge_storage_expression(expression text) returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set lock_timeout = '5s'
as $$
declare
    judged oid;
    refused text;
    about text[];
begin
    begin
        execute pg_catalog.format('create policy judged on data_plane.judged_objects using (%s)',
            pg_catalog.regexp_replace(expression, '(^| )storage\.([a-z_]+)( \()', '\1data_plane.judged_\2\3', 'g'));
        select p.oid, data_plane.named_buckets(pg_catalog.pg_get_expr(p.polqual, p.polrelid)) into judged, about
        from pg_catalog.pg_policy p where p.polrelid = 'data_plane.judged_objects'::pg_catalog.regclass;
        select pg_catalog.string_agg(r, ', ') into refused from data_plane.refused_nodes(judged) r;
        raise exception 'judged' using errcode = 'DP001';
    exception when sqlstate 'DP001' then
        null;
    end;
    if refused is not null then
        raise exception 'a storage rule cannot use %', refused using errcode = 'feature_not_supported';
    end if;
    return about;
end
$$;

-- 3 -------------------------------------------------------------------------------------------------------------------

-- What projects have declared. `applied` is the policy's conditions and roles as PostgreSQL had them when the guard had made
-- it: null until then. A rule that was taken back is `dropped` until its policy is gone.
create table if not exists data_plane.storage_rules (
    tenant text not null check (tenant ~ '^proj_[a-z0-9_]+$'),
    name text not null check (octet_length(name) between 1 and 200),
    command text not null check (command in ('all', 'select', 'insert', 'update', 'delete')),
    roles text[] not null check (roles <@ array['anon', 'authenticated'] and cardinality(roles) > 0),
    using_expression text,
    check_expression text,
    permissive boolean not null,
    bucket_ids text[],
    dropped boolean not null default false,
    pending boolean not null default true,
    applied text,
    applied_at timestamptz,
    problem text,
    primary key (tenant, name)
);
create index if not exists storage_rules_pending on data_plane.storage_rules (tenant) where pending;

-- Who declares waits for others of the same project, so that what is counted is right. Nobody else reads it.
create table if not exists data_plane.storage_declarers (tenant text primary key);

-- The project whose owner calls, by the role that the session has assumed: no function of a project's changes that.
create or replace function data_plane.storage_declarer() returns text
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
    assumed constant text := pg_catalog.current_setting('role');
    mine text;
begin
    if pg_catalog.right(assumed, 6) = '_owner' then
        mine := data_plane.tenant_of(assumed);
    end if;
    if mine is null then
        raise exception 'only a project''s owner may declare what it has in Storage' using errcode = 'insufficient_privilege';
    end if;
    if not exists (select from data_plane.buckets b where b.tenant = mine and b.bucket = '') then
        raise exception 'this project has no Storage: `storage` is not among its managed_services'
            using errcode = 'object_not_in_prerequisite_state', hint = 'Add it to the project''s file and bring the project up.';
    end if;
    insert into data_plane.storage_declarers values (mine) on conflict do nothing;
    perform from data_plane.storage_declarers d where d.tenant = mine for update;
    return mine;
end
$$;

-- Declares a bucket and returns its ID, by which clients name it. It is there with the guard's next run.
create or replace function data_plane_api.declare_bucket(
    name text, public boolean default false, file_size_limit bigint default null, allowed_mime_types text[] default null)
returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
#variable_conflict use_column
declare
    mine constant text := data_plane.storage_declarer();
    bound constant integer := (data_plane.limits_of(mine)).buckets;
    -- By its ID, too, as migrations have it once they are adapted.
    called constant text := case
        when declare_bucket.name like pg_catalog.replace(mine, '_', '\_') || '.%' then pg_catalog.substr(declare_bucket.name, pg_catalog.length(mine) + 2)
        else declare_bucket.name end;
begin
    if called is null or called !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]*$' or pg_catalog.octet_length(mine || '.' || called) > 100
        or called like '%--table-s3'  -- Storage makes another kind of bucket of these
    then
        raise exception 'not the name of a bucket: %', pg_catalog.left(coalesce(called, 'null'), 100)
            using errcode = 'invalid_parameter_value',
                hint = pg_catalog.format('Letters, digits, and after the first one ., _ and -, %s at most: S3''s clients know no others.',
                    99 - pg_catalog.length(mine));
    end if;
    if declare_bucket.file_size_limit <= 0 or pg_catalog.cardinality(declare_bucket.allowed_mime_types) > 100 or exists (
        select from pg_catalog.unnest(declare_bucket.allowed_mime_types) as given (type)
        where given.type is null or given.type !~ '^(\*|[a-zA-Z0-9.+-]+/([a-zA-Z0-9.+-]+|\*))(; ?charset=[a-zA-Z0-9-]+)?$'
            or pg_catalog.length(given.type) > 200
    ) then
        raise exception 'a size above 0 and types like image/png or image/* are expected for bucket %', called
            using errcode = 'invalid_parameter_value';
    end if;
    if exists (select from data_plane.buckets b where b.tenant = mine and b.bucket = called and b.origin = 'file') then
        raise notice 'bucket % stays as the project''s file has it', called;
        return mine || '.' || called;
    end if;
    if not exists (select from data_plane.buckets b where b.tenant = mine and b.bucket = called) and (
        select pg_catalog.count(distinct b.bucket) from data_plane.buckets b where b.tenant = mine and b.bucket <> ''
    ) >= bound then
        raise exception '% has its % buckets', mine, bound
            using errcode = 'configuration_limit_exceeded', hint = 'Raise `limits.buckets` in the project''s file.';
    end if;
    insert into data_plane.buckets as b (tenant, bucket, origin, public, file_size_limit, allowed_mime_types)
    values (mine, called, 'migration', coalesce(declare_bucket.public, false), declare_bucket.file_size_limit,
        nullif(declare_bucket.allowed_mime_types, '{}'))
    on conflict (tenant, bucket, origin) do update set public = excluded.public,
        file_size_limit = excluded.file_size_limit, allowed_mime_types = excluded.allowed_mime_types;
    return mine || '.' || called;
end
$$;

-- Declares a rule of who may do what with which files: a policy on storage.objects, for the project's own roles and
-- buckets. One of the same name is replaced. It is in force with one of the guard's next runs.
create or replace function data_plane_api.declare_storage_rule(
    name text, command text, roles text[], using_expression text, check_expression text, permissive boolean default true)
returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
#variable_conflict use_column
declare
    mine constant text := data_plane.storage_declarer();
    wanted data_plane.storage_rules;
    given text;
    meant text[];
    strangers text;
begin
    wanted.tenant := mine;
    wanted.name := declare_storage_rule.name;
    wanted.command := pg_catalog.lower(declare_storage_rule.command collate "C");
    wanted.permissive := coalesce(declare_storage_rule.permissive, true);
    if wanted.name is null or pg_catalog.octet_length(wanted.name) not between 1 and 200 or wanted.name ~ '[[:cntrl:]]' then
        raise exception 'a storage rule has a name of 1 to 200 bytes' using errcode = 'invalid_parameter_value';
    end if;
    if wanted.command is null or wanted.command not in ('all', 'select', 'insert', 'update', 'delete') then
        raise exception 'a storage rule is for all, select, insert, update or delete' using errcode = 'invalid_parameter_value';
    end if;
    wanted.roles := '{}';
    foreach given in array coalesce(nullif(declare_storage_rule.roles, '{}'), '{public}') loop
        meant := case
            when given = 'public' then '{anon,authenticated}'::text[]
            when given in ('anon', mine || '_anon') then '{anon}'
            when given in ('authenticated', mine || '_authenticated') then '{authenticated}'
            -- A project's have no right in Storage, which they would use past every rule.
            when given in ('service_role', mine || '_service_role') then '{}'
        end;
        if meant is null then
            raise exception 'a storage rule is for the roles of its project, not for %', pg_catalog.left(coalesce(given, 'null'), 63)
                using errcode = 'invalid_parameter_value', hint = 'anon, authenticated or public';
        end if;
        wanted.roles := wanted.roles || meant;
    end loop;
    wanted.roles := array(select distinct r from pg_catalog.unnest(wanted.roles) r order by r);
    if wanted.roles = '{}' then
        raise notice 'storage rule % is not needed: the token with storage_admin takes the place of service_role', wanted.name;
        perform data_plane_api.drop_storage_rule(wanted.name);
        return;
    end if;
    if declare_storage_rule.using_expression is not null and wanted.command = 'insert'
        or declare_storage_rule.check_expression is not null and wanted.command in ('select', 'delete')
        or num_nonnulls(declare_storage_rule.using_expression, declare_storage_rule.check_expression) = 0
    then
        raise exception 'storage rule %: USING is for what is there, WITH CHECK for what is written; % has %', wanted.name, wanted.command,
            case wanted.command when 'insert' then 'WITH CHECK' when 'select' then 'USING' when 'delete' then 'USING' else 'USING, and WITH CHECK where that differs' end
            using errcode = 'invalid_parameter_value';
    end if;
    wanted.using_expression := data_plane.storage_expression(declare_storage_rule.using_expression);
    wanted.check_expression := data_plane.storage_expression(declare_storage_rule.check_expression);
    wanted.bucket_ids := '{}';
    foreach given in array pg_catalog.array_remove(array[wanted.using_expression, wanted.check_expression], null) loop
        meant := data_plane.judge_storage_expression(given);
        -- Of both conditions; if one is about any bucket, so is the rule.
        wanted.bucket_ids := case when meant is not null then wanted.bucket_ids || meant end;
    end loop;
    select pg_catalog.string_agg(b, ', ') into strangers from pg_catalog.unnest(wanted.bucket_ids) b
    where pg_catalog.split_part(b, '.', 1) <> mine;
    if strangers is not null then
        raise notice 'storage rule %: the project has no bucket %; the IDs of its buckets begin with %',
            wanted.name, strangers, mine;
    end if;
    if not exists (select from data_plane.storage_rules r where r.tenant = mine and r.name = wanted.name)
        and (select pg_catalog.count(*) from data_plane.storage_rules r where r.tenant = mine) >= 100 then
        raise exception '% has its 100 storage rules', mine using errcode = 'configuration_limit_exceeded';
    end if;
    -- Every session that uses storage.objects has all of them in its memory.
    if (
        select coalesce(pg_catalog.sum(pg_catalog.octet_length(pg_catalog.concat(r.using_expression, r.check_expression))), 0)
        from data_plane.storage_rules r where r.tenant = mine and r.name <> wanted.name
    ) + pg_catalog.octet_length(pg_catalog.concat(wanted.using_expression, wanted.check_expression)) > 32000 then
        raise exception 'the storage rules of % have 32,000 bytes at most together', mine
            using errcode = 'configuration_limit_exceeded';
    end if;
    insert into data_plane.storage_rules as r
        (tenant, name, command, roles, using_expression, check_expression, permissive, bucket_ids)
    values (mine, wanted.name, wanted.command, wanted.roles, wanted.using_expression, wanted.check_expression,
        wanted.permissive, wanted.bucket_ids)
    on conflict (tenant, name) do update set
        command = excluded.command, roles = excluded.roles, using_expression = excluded.using_expression,
        check_expression = excluded.check_expression, permissive = excluded.permissive, bucket_ids = excluded.bucket_ids,
        dropped = false, pending = true, problem = null
    where (r.command, r.roles, r.using_expression, r.check_expression, r.permissive, r.dropped, r.problem) is distinct from
        (excluded.command, excluded.roles, excluded.using_expression, excluded.check_expression, excluded.permissive, false, null);
end
$$;

-- Takes a rule back; returns whether there was one.
create or replace function data_plane_api.drop_storage_rule(name text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    mine constant text := data_plane.storage_declarer();
begin
    update data_plane.storage_rules r set dropped = true, pending = true
    where r.tenant = mine and r.name = drop_storage_rule.name and not r.dropped;
    return found;
end
$$;

-- The project's buckets, and its rules: whether they are in force, and what keeps one from it.
create or replace function data_plane_api.list_buckets()
returns table (id text, declared_by text, public boolean, file_size_limit bigint, allowed_mime_types text[], default_rules boolean)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select distinct on (b.bucket) b.id, b.origin, b.public, b.file_size_limit, b.allowed_mime_types,
        exists (select from data_plane.default_rule_buckets d where d.id = b.id)
    from data_plane.buckets b
    where b.tenant || '_owner' = pg_catalog.current_setting('role')
    order by b.bucket, b.origin
$$;

create or replace function data_plane_api.list_storage_rules()
returns table (name text, command text, roles text[], using_expression text, check_expression text, permissive boolean,
    in_force boolean, problem text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select r.name, r.command, r.roles, r.using_expression, r.check_expression, r.permissive,
        r.applied is not null and not r.pending, r.problem
    from data_plane.storage_rules r
    where r.tenant || '_owner' = pg_catalog.current_setting('role') and not r.dropped
    order by r.name
$$;

-- 4 -------------------------------------------------------------------------------------------------------------------

-- The name of a rule's policy: a long one would be cut, and two of them meet.
create or replace function data_plane.storage_policy_name(of_tenant text, rule_name text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select of_tenant || ': ' || case when pg_catalog.octet_length(of_tenant || ': ' || rule_name) <= 63 then rule_name
        else pg_catalog.left(pg_catalog.md5(rule_name), 16) end
$$;

-- A rule's policy as it is, or null.
create or replace function data_plane.present_storage_policy(of_tenant text, rule_name text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select pg_catalog.md5(pg_catalog.concat_ws(' | ', p.polcmd, p.polpermissive,
        (select pg_catalog.string_agg(role.name, ',' order by role.name)
            from (
                select case r when 0 then 'public' else pg_catalog.pg_get_userbyid(r)::text end as name
                from pg_catalog.unnest(p.polroles) r
            ) as role),
        coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), '-'),
        coalesce(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), '-')))
    from pg_catalog.pg_policy p
    where p.polrelid = pg_catalog.to_regclass('storage.objects')
        and p.polname = data_plane.storage_policy_name(of_tenant, rule_name)
$$;

-- Policies that a hand, a restore or Storage itself has changed are made again with the guard's next run; one that no
-- rule stands for goes.
create or replace function data_plane.recheck_storage_rules() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    left_over record;
begin
    -- What an open transaction of a project's has changed is pending once that ends.
    update data_plane.storage_rules r set pending = true, problem = null
    from (
        select changed.tenant, changed.name from data_plane.storage_rules changed
        where not changed.pending and data_plane.storage_is_there() and (changed.problem is not null
            or changed.applied is distinct from data_plane.present_storage_policy(changed.tenant, changed.name))
        for update skip locked
    ) as c
    where r.tenant = c.tenant and r.name = c.name;
    for left_over in
        select p.polname from pg_catalog.pg_policy p
        where p.polrelid = pg_catalog.to_regclass('storage.objects') and p.polname ~ '^proj_[a-z0-9_]+: '
            and not exists (
                select from data_plane.storage_rules r where data_plane.storage_policy_name(r.tenant, r.name) = p.polname)
    loop
        execute pg_catalog.format('drop policy %I on storage.objects', left_over.polname);
    end loop;
end
$$;

-- The platform's own rules hold for the buckets that the project's file declares, until a rule of its own that gives
-- something is in force for them: what that does not give is then not given.
create or replace function data_plane.settle_default_rules(of_tenant text default null) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    with wanted as materialized (
        select b.id from data_plane.buckets b
        where b.origin = 'file' and (of_tenant is null or b.tenant = of_tenant)
            and not exists (
                select from data_plane.storage_rules r
                where r.tenant = b.tenant and r.permissive and r.applied is not null
                    and (r.bucket_ids is null or b.id = any (r.bucket_ids)))
    ),
    gone as (
        delete from data_plane.default_rule_buckets d
        where (of_tenant is null or pg_catalog.split_part(d.id, '.', 1) = of_tenant)
            and not exists (select from wanted w where w.id = d.id)
    )
    insert into data_plane.default_rule_buckets
    select w.id from wanted w where not exists (select from data_plane.default_rule_buckets d where d.id = w.id)
    on conflict do nothing
$$;

-- Makes the policy of one rule, or takes it away.
create or replace function data_plane.apply_storage_rule(rule data_plane.storage_rules) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    called constant text := data_plane.storage_policy_name(rule.tenant, rule.name);
    -- Around what the project says, the platform says where it holds. Restrictions do not bind administrators.
    around constant text := case when rule.permissive
        then '(pg_catalog.split_part(bucket_id, ''.'', 1) = ' || pg_catalog.quote_literal(rule.tenant) || ' and (%s))'
        else '((select coalesce(nullif(pg_catalog.current_setting(''request.jwt.claims'', true), '''')::jsonb ->> ''storage_admin'' = ''true'', false))'
            || ' or (pg_catalog.split_part(bucket_id, ''.'', 1) = ' || pg_catalog.quote_literal(rule.tenant) || ' and (%s)))'
        end;
    refused text;
begin
    execute pg_catalog.format('drop policy if exists %I on storage.objects', called);
    if rule.dropped then
        delete from data_plane.storage_rules r where r.tenant = rule.tenant and r.name = rule.name;
        return;
    end if;
    execute pg_catalog.format('create policy %I on storage.objects as %s for %s to %s %s %s', called,
        case when rule.permissive then 'permissive' else 'restrictive' end, rule.command,
        (select pg_catalog.string_agg(pg_catalog.quote_ident(rule.tenant || '_' || r), ', ') from pg_catalog.unnest(rule.roles) r),
        case when rule.using_expression is not null then 'using (' || pg_catalog.format(around, rule.using_expression) || ')' end,
        case when rule.check_expression is not null then 'with check (' || pg_catalog.format(around, rule.check_expression) || ')' end);
    select pg_catalog.string_agg(r, ', ') into refused
    from pg_catalog.pg_policy p
    cross join lateral data_plane.refused_nodes(p.oid) r
    where p.polrelid = 'storage.objects'::pg_catalog.regclass and p.polname = called;
    if refused is not null then
        raise exception 'a storage rule cannot use %', refused using errcode = 'feature_not_supported';
    end if;
    update data_plane.storage_rules r set pending = false, problem = null, applied_at = pg_catalog.clock_timestamp(),
        applied = data_plane.present_storage_policy(rule.tenant, rule.name)
    where r.tenant = rule.tenant and r.name = rule.name;
end
$$;

-- A run of the guard's, in a transaction of its own: makes buckets and rules what is declared. storage.objects is locked for
-- three tenths of a second at most, and waited for two tenths; while a transaction has it for longer, nobody is made to
-- queue behind this, and a project's is ended in the end. A project has a turn every ten seconds.
create or replace function data_plane.apply_storage(patience interval) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set lock_timeout = '200ms'
as $$
declare
    begun timestamptz;
    holder record;
    next_rule data_plane.storage_rules;
begin
    begin
        perform data_plane.apply_buckets();
    exception when others then
        raise warning 'guard: buckets: %', sqlerrm;
    end;
    if not data_plane.storage_is_there() or not exists (select from data_plane.storage_rules r where r.pending) then
        return;
    end if;
    for holder in
        select distinct a.pid, pg_catalog.pg_get_userbyid(a.usesysid)::text as login,
            pg_catalog.clock_timestamp() - a.xact_start as age
        from pg_catalog.pg_lock_status() l
        join pg_catalog.pg_stat_get_activity(null) a on a.pid = l.pid
        where l.locktype = 'relation' and l.relation = 'storage.objects'::pg_catalog.regclass
            and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
            and l.pid <> pg_catalog.pg_backend_pid() and a.xact_start < pg_catalog.clock_timestamp() - interval '2 s'
    loop
        if holder.age > patience and (holder.login like 'lease\_%' or data_plane.is_api_login(holder.login)) then
            perform pg_catalog.pg_terminate_backend(holder.pid);
            insert into data_plane.guard_actions (tenant, login, pid, what, value, bound)
            values (data_plane.tenant_of_login(holder.login), holder.login, holder.pid, 'lock', 'storage.objects, while a rule waits',
                patience::text);
        end if;
        return;
    end loop;
    lock table storage.objects in access exclusive mode;
    begun := pg_catalog.clock_timestamp();
    for next_rule in
        select r.* from data_plane.storage_rules r
        where r.pending and not exists (
            select from data_plane.storage_rules other
            where other.tenant = r.tenant and other.applied_at > begun - interval '10 s')
        order by r.applied_at nulls first, r.tenant, r.name
        for update skip locked
    loop
        begin
            perform data_plane.apply_storage_rule(next_rule);
        exception when others then
            update data_plane.storage_rules r set pending = false, applied_at = pg_catalog.clock_timestamp(),
                problem = pg_catalog.left(sqlerrm, 500),
                applied = data_plane.present_storage_policy(r.tenant, r.name)
            where r.tenant = next_rule.tenant and r.name = next_rule.name;
        end;
        exit when pg_catalog.clock_timestamp() > begun + interval '300 ms';
    end loop;
    perform data_plane.settle_default_rules();
exception when lock_not_available then
    null;  -- Storage has it; the next run
when others then
    raise warning 'guard: storage rules: % (%)', sqlerrm, sqlstate;
end
$$;

-- What the guard's login may call: how patient it is is not its to say.
create or replace function data_plane.apply_storage() returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    select data_plane.apply_storage('30 s')
$$;

grant execute on function
    data_plane_api.declare_bucket(text, boolean, bigint, text[]),
    data_plane_api.declare_storage_rule(text, text, text[], text, text, boolean),
    data_plane_api.drop_storage_rule(text),
    data_plane_api.list_buckets(),
    data_plane_api.list_storage_rules()
    to data_plane_tenant;
