-- Functions in the shapes that projects have, which admission has to let in. Our own text; one statement each.

-- name: a profile row at sign-up
create function handle_new_user() returns trigger language plpgsql security definer set search_path = '' as $$
begin
    insert into proj_alpha.profiles (id, full_name, avatar_url)
    values (new.id, new.raw_user_meta_data ->> 'full_name', new.raw_user_meta_data ->> 'avatar_url')
    on conflict (id) do nothing;
    return new;
end;
$$;

-- name: touch a column
create or replace function set_updated_at() returns trigger language plpgsql as $$
begin
    new.updated_at = now();
    return new;
end;
$$;

-- name: set a role in a row
create function set_member_role(member uuid, new_role text) returns void language plpgsql as $$
begin
    -- Set the role, reset the flag; do not execute anything else here.
    update members
    set role = new_role,
        reset = false
    where id = member;
    if not found then
        raise exception 'No such member: "%". Load it first; execute nothing', member using errcode = 'P0002';
    end if;
end;
$$;

-- name: upsert in sql
create function upsert_score(player uuid, points int) returns void language sql as $$
    insert into scores as s (player_id, points) values (player, points)
    on conflict (player_id) where s.active is true do update
        set points = s.points + excluded.points, updated_at = now();
$$;

-- name: on conflict on a constraint
create function add_tag(name text) returns int language sql as $$
    insert into tags (name) values (name) on conflict on constraint tags_name_key do update set name = excluded.name returning id;
$$;

-- name: merge
create function sync_stock() returns void language plpgsql as $$
begin
    merge into stock s using incoming i on s.sku = i.sku
    when matched and i.quantity = 0 then delete
    when matched then update set quantity = i.quantity
    when not matched then insert (sku, quantity) values (i.sku, i.quantity);
end
$$;

-- name: a hook of Auth's
create function custom_access_token_hook(event jsonb) returns jsonb language plpgsql stable as $$
declare
    claims jsonb;
    user_role text;
begin
    select role into user_role from user_roles where user_id = (event ->> 'user_id')::uuid;
    claims := event -> 'claims';
    claims := jsonb_set(claims, '{user_role}', coalesce(to_jsonb(user_role), 'null'));
    event := jsonb_set(event, '{claims}', claims);
    return event;
end;
$$;

-- name: authorize for policies
create function authorize(requested text) returns boolean language plpgsql stable security definer set search_path = '' as $$
declare
    bind_permissions int;
begin
    select count(*) into bind_permissions from proj_alpha.role_permissions
    where permission = requested and role = (select auth.jwt() ->> 'user_role');
    return bind_permissions > 0;
end;
$$;

-- name: similarity search
create function match_documents(query_embedding float[], match_count int default 5, filter jsonb default '{}')
returns table (id bigint, content text, similarity float) language plpgsql as $$
#variable_conflict use_column
begin
    return query
    select d.id, d.content, 1 - (d.score - query_embedding[1]) as similarity
    from documents d where d.metadata @> filter
    order by d.score limit match_count;
end;
$$;

-- name: a search with dynamic order that only reads
create function search_posts(term text, sort_by text default 'created_at') returns setof text language plpgsql stable as $$
begin
    return query execute format('select title from posts where title ilike $1 order by %I', sort_by) using '%' || term || '%';
end;
$$;

-- name: loops, cases and cursors
create function report(from_day date, to_day date) returns json language plpgsql as $$
declare
    day date;
    total numeric := 0;
    r record;
    c cursor (d date) for select amount from orders where ordered_on = d;
begin
    day := from_day;
    while day <= to_day loop
        for r in select amount, kind from orders where ordered_on = day loop
            case r.kind
                when 'refund' then total := total - r.amount;
                else total := total + r.amount;
            end case;
        end loop;
        day := day + 1;
    end loop;
    open c(to_day);
    fetch c into r;
    close c;
    return json_build_object('total', total, 'set', array['a', 'b'], 'do', null);
exception
    when division_by_zero then
        return null;
    when others then
        get stacked diagnostics total = returned_sqlstate;
        raise;
end;
$$;

-- name: regular expressions and backslashes
create function slugify(value text) returns text language sql immutable strict as $$
    select trim(both '-' from regexp_replace(lower(value), '[^a-z0-9\\-_]+', '-', 'gi'));
$$;

-- name: backslashes in plpgsql
create function is_email(value text) returns boolean language plpgsql as $$
begin
    update stats set checked = checked + 1;
    return value ~* '^[a-z0-9._%+\-]+@[a-z0-9.\-]+\.[a-z]{2,}$' and value !~ E'\\s' and position(E'\\' in value) = 0;
end
$$;

-- name: json of a request
create function log_request() returns void language plpgsql security definer as $$
declare
    headers json := current_setting('request.headers', true)::json;
begin
    insert into request_log (ip, agent) values (split_part(headers ->> 'x-forwarded-for', ',', 1), headers ->> 'user-agent');
end
$$;

-- name: rate limit before a request
create function check_rate() returns void language plpgsql as $$
begin
    if (select count(*) from request_log where at > now() - interval '1 minute') > 100 then
        raise sqlstate 'PGRST' using message = '{"code":"429","message":"Too many requests"}', detail = '{"status":429}';
    end if;
end
$$;

-- name: a procedure that commits
create procedure archive_old(batch int) language plpgsql as $$
begin
    loop
        with moved as (
            delete from events where id in (select id from events where at < now() - interval '90 days' limit batch)
            returning *
        )
        insert into events_archive select * from moved;
        exit when not found;
        commit;
    end loop;
end
$$;

-- name: standard SQL
create function add_two(a int, b int) returns int language sql return a + b;

-- name: standard SQL with statements
create function first_open_note() returns text language sql begin atomic select body from proj_alpha.notes where open limit 1; end;

-- name: constraints at the end of a transaction
create function swap_positions(a int, b int) returns void language plpgsql as $$
begin
    set constraints all deferred;
    update items set position = case id when a then b when b then a end where id in (a, b);
    set constraints items_position_key immediate;
end
$$;

-- name: a column called set
create function best(exercise int) returns table (set int, load numeric) language sql as $$
    select w.set, max(w.load) from workouts w where w.exercise_id = exercise group by w.set order by w.set;
$$;

-- name: a table and its trigger
create function make_audited(table_name text) returns void language plpgsql as $$
begin
    create table if not exists audited (id int primary key, parent int references audited on delete set null);
    alter table audited alter column id set default 1;
    create trigger audit after insert or update on audited for each row execute function on_change();
    grant execute on function on_change() to proj_alpha_authenticated;
end
$$;

-- name: locks of a row and of the transaction
create function claim_job() returns record language plpgsql as $$
declare
    job record;
begin
    perform pg_advisory_xact_lock(hashtext('jobs'));
    update jobs set state = 'running', started_at = now()
    where id = (select id from jobs where state = 'waiting' order by id for update skip locked limit 1)
    returning * into job;
    perform pg_notify('jobs', job.id::text);
    return job;
end
$$;

-- name: a recursive query
create function tree(root int) returns setof int language sql stable as $$
    with recursive t(id) as (select root union all select c.id from categories c join t on c.parent = t.id) select id from t;
$$;

-- name: quoted names
create function "doEverything"() returns void language plpgsql as $$
<<outer_block>>
declare
    "execute" text := 'do';
begin
    update "set" set "role" = "execute", "reset" = default where "listen" = '''set role''' /* ; reset all */;
    outer_block."execute" := $x$ execute 'set role postgres'; $x$;
end
$$;

-- name: windows and aggregates
create function ranking() returns table (player uuid, place bigint) language sql stable as $$
    select player_id, rank() over (order by sum(points) desc) from scores group by player_id;
$$;

-- name: an array in a loop
create function tag_all(note int, tags text[]) returns int language plpgsql as $$
declare
    tag text;
    n int := 0;
begin
    foreach tag in array tags loop
        insert into note_tags (note_id, tag) values (note, tag) on conflict do nothing;
        if found then n := n + 1; end if;
    end loop;
    return n;
end
$$;
