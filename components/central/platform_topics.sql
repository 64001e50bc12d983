-- Who may use a project's Realtime topics: all of its users, or whom the project's own rules let.
--
-- A rule is what a policy on realtime.messages is elsewhere, and is kept as a function of the project's: made in its
-- owner's session, with its owner's rights, and called in the sessions that Realtime opens for this project alone. So an
-- expression may be whatever a policy's may be, and no session of the platform's or of another project's runs it. That it
-- is a function, and named as it is, is all there is to know: dumps, restores and moves take it along.

-- The functions of a rule: '<command>' or '<command>, too' (a restrictive one), and its name, cut to what fits.
create or replace function data_plane.topic_rule_function(command text, permissive boolean, rule text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select 'topic ' || command || case when permissive then ': ' else ', too: ' end
        || case when pg_catalog.octet_length(rule) <= 40 then rule else pg_catalog.md5(rule) end
$$;

-- The rules of a project: its functions of that name which take a topic and an extension.
create or replace function data_plane.topic_rules(of_tenant text)
returns table (function_name text, command text, permissive boolean)
language sql stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
    select p.proname::text, named[1], named[2] is null
    from pg_catalog.pg_proc p
    cross join lateral pg_catalog.regexp_match(p.proname, '^topic (select|insert)(, too)?: .') as named
    where p.pronamespace = pg_catalog.to_regnamespace(pg_catalog.quote_ident(of_tenant)) and named is not null
        and p.prokind = 'f' and not p.proretset and p.prorettype = 'pg_catalog.bool'::pg_catalog.regtype
        and p.proargtypes = '25 25'::pg_catalog.oidvector
$$;

-- Whether the role of this session may read a topic or write to it. It is called by policies, as the role that asks; what
-- it calls of a project's, it calls in the project's own sessions and nowhere else: a superuser's can assume the role, too.
create or replace function data_plane.may_use_topic(command text, topic text, extension text) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    who constant text[] := pg_catalog.regexp_match(current_user::text, '^(proj_[a-z0-9_]+)_(authenticated|anon)$');
    rule record;
    holds boolean;
    allowed boolean := false;
    ruled boolean := false;
begin
    if who is null or session_user::text <> who[1] || '$realtime' then
        return false;
    end if;
    -- As topic_rules, which this role may not call.
    for rule in
        select p.proname as function_name, named[1] as command, named[2] is null as permissive
        from pg_catalog.pg_proc p
        cross join lateral pg_catalog.regexp_match(p.proname, '^topic (select|insert)(, too)?: .') as named
        where p.pronamespace = pg_catalog.to_regnamespace(pg_catalog.quote_ident(who[1])) and named is not null
            and p.prokind = 'f' and not p.proretset and p.prorettype = 'pg_catalog.bool'::pg_catalog.regtype
            and p.proargtypes = '25 25'::pg_catalog.oidvector
        order by named[2] is null, p.proname
    loop
        ruled := true;
        continue when rule.command <> may_use_topic.command or allowed;
        execute pg_catalog.format('select %I.%I($1, $2)', who[1], rule.function_name)
            into holds using may_use_topic.topic, may_use_topic.extension;
        if rule.permissive then
            allowed := coalesce(holds, false);
        elsif not coalesce(holds, false) then
            return false;
        end if;
    end loop;
    if ruled or pg_catalog.current_setting('data_plane.topics', true) is distinct from 'users' then
        return allowed;
    end if;
    -- Without rules: its users read and write, and others who may join read.
    return who[2] = 'authenticated' or may_use_topic.command = 'select';
end
$$;

-- Adds a rule, or puts it in place of that of the same name. What a policy on realtime.messages says of `topic` and
-- `extension` is said here as it is there; `realtime.topic()` is the topic.
create or replace function data_plane_api.declare_topic_rule(
    name text, command text, roles text[], using_expression text, check_expression text default null,
    permissive boolean default true)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    mine constant text := (pg_catalog.regexp_match(current_user::text, '^(proj_[a-z0-9_]+)_owner$'))[1];
    kind constant text := pg_catalog.lower(declare_topic_rule.command);
    commands constant text[] := case kind when 'all' then array['select', 'insert'] else array[kind] end;
    part text;
    expression text;
    function_name text;
    for_roles text;
begin
    if mine is null or data_plane.tenant_of(current_user::text) is null then
        raise exception 'only a project''s owner declares its rules' using errcode = 'insufficient_privilege';
    end if;
    if coalesce(declare_topic_rule.name, '') = '' then
        raise exception 'a rule has a name' using errcode = 'invalid_parameter_value';
    end if;
    if kind is null or kind not in ('select', 'insert', 'all') then
        raise exception 'a rule for topics is for select, insert or all: Realtime does not ask for %', coalesce(kind, 'nothing')
            using errcode = 'feature_not_supported';
    end if;
    -- As in a policy: nobody named is everybody, and Supabase's roles are the project's of that name.
    select pg_catalog.string_agg(pg_catalog.quote_literal(mine || '_' || named.level), ', ') into for_roles
    from (
        select distinct case
            when r.role in ('public', 'PUBLIC') then any_level.level
            else pg_catalog.regexp_replace(r.role, '^' || mine || '_', '')
        end as level
        from pg_catalog.unnest(coalesce(nullif(roles, '{}'), array['public'])) as r (role)
        cross join (values ('anon'), ('authenticated')) as any_level (level)
    ) as named
    where named.level in ('anon', 'authenticated');
    for_roles := case when for_roles is null then 'false' else 'current_user::text in (' || for_roles || ')' end;

    perform data_plane_api.drop_topic_rule(declare_topic_rule.name);
    foreach part in array commands loop
        expression := case part when 'select' then using_expression
            else coalesce(check_expression, case kind when 'all' then using_expression end) end;
        if expression is null then
            raise exception 'a rule for % has an expression', part using errcode = 'invalid_parameter_value';
        end if;
        expression := pg_catalog.regexp_replace(
            expression, '"?\mrealtime\M"?\s*\.\s*"?\mtopic\M"?\s*\(\s*\)', '(messages.topic)', 'gi');
        expression := pg_catalog.regexp_replace(
            expression, '"?\mrealtime\M"?\s*\.\s*"?\mmessages\M"?\s*\.', 'messages.', 'gi');
        function_name := data_plane.topic_rule_function(part, permissive, declare_topic_rule.name);
        execute pg_catalog.format(
            'create function %I.%I(text, text) returns boolean language sql stable set search_path to %I, extensions as %L',
            mine, function_name, mine,
            pg_catalog.format(
                case when permissive then 'select %s and (%s' else 'select not (%s) or (%s' end
                    -- On lines of their own, so that a comment ends with them.
                    || E'\n) from (select $1 as topic, $2 as extension) as messages', for_roles, expression));
        execute pg_catalog.format('revoke all on function %I.%I(text, text) from public', mine, function_name);
        execute pg_catalog.format('grant execute on function %I.%I(text, text) to %I, %I',
            mine, function_name, mine || '_anon', mine || '_authenticated');
    end loop;
end
$$;

-- Takes a rule away; whether there was one.
create or replace function data_plane_api.drop_topic_rule(name text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
    mine constant text := (pg_catalog.regexp_match(current_user::text, '^(proj_[a-z0-9_]+)_owner$'))[1];
    rule record;
    found_one boolean := false;
begin
    if mine is null then
        raise exception 'only a project''s owner declares its rules' using errcode = 'insufficient_privilege';
    end if;
    for rule in
        select r.function_name from data_plane.topic_rules(mine) r
        where r.function_name = data_plane.topic_rule_function(r.command, r.permissive, drop_topic_rule.name)
    loop
        execute pg_catalog.format('drop function %I.%I(text, text)', mine, rule.function_name);
        found_one := true;
    end loop;
    return found_one;
end
$$;

revoke all on all functions in schema data_plane from public;
revoke all on function
    data_plane_api.declare_topic_rule(text, text, text[], text, text, boolean), data_plane_api.drop_topic_rule(text)
    from public;
grant execute on function
    data_plane_api.declare_topic_rule(text, text, text[], text, text, boolean), data_plane_api.drop_topic_rule(text),
    data_plane.topic_rules(text), data_plane.topic_rule_function(text, boolean, text)
    to data_plane_tenant;
-- A policy calls it without a name, so that nobody has to reach the schema.
grant execute on function data_plane.may_use_topic(text, text, text) to anon, authenticated;
