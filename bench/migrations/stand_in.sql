-- What the migrations of a project meet in a Supabase of its own: the roles, and of Auth, Storage, Realtime and the
-- extensions that are not installed here the names and signatures alone. Applied as superuser to an empty database.
create role postgres superuser;
create role anon;
create role authenticated;
create role service_role bypassrls;
create role authenticator noinherit;
create role dashboard_user;
create role supabase_auth_admin;
create role supabase_storage_admin;
create role supabase_realtime_admin;
create role supabase_functions_admin;
create role supabase_read_only_user;
create role supabase_replication_admin;
create role pgbouncer;
grant anon, authenticated, service_role to authenticator, postgres;

create schema if not exists extensions;
create schema auth;
create schema storage;
create schema realtime;
create schema _realtime;
create schema vault;
create schema cron;
create schema net;
create schema pgmq;
create schema graphql;
create schema graphql_public;
create schema supabase_functions;
create schema supabase_migrations;
create schema pgsodium;
create schema pgtle;
create schema dbdev;

-- Auth
create type auth.aal_level as enum ('aal1', 'aal2', 'aal3');
create table auth.users (
    instance_id uuid, id uuid primary key, aud text, role text, email text, encrypted_password text,
    email_confirmed_at timestamptz, invited_at timestamptz, confirmation_token text default '', confirmation_sent_at timestamptz,
    recovery_token text default '', recovery_sent_at timestamptz, email_change_token_new text default '', email_change text default '',
    email_change_sent_at timestamptz, last_sign_in_at timestamptz, raw_app_meta_data jsonb, raw_user_meta_data jsonb,
    is_super_admin boolean, created_at timestamptz, updated_at timestamptz, phone text unique, phone_confirmed_at timestamptz,
    phone_change text default '', phone_change_token text default '', phone_change_sent_at timestamptz,
    confirmed_at timestamptz generated always as (least(email_confirmed_at, phone_confirmed_at)) stored,
    email_change_token_current text default '', email_change_confirm_status smallint default 0, banned_until timestamptz,
    reauthentication_token text default '', reauthentication_sent_at timestamptz, is_sso_user boolean not null default false,
    deleted_at timestamptz, is_anonymous boolean not null default false
);
alter table auth.users enable row level security;
create unique index users_email_partial_key on auth.users (email) where not is_sso_user;
create table auth.identities (
    provider_id text not null, user_id uuid not null references auth.users on delete cascade, identity_data jsonb not null, provider text not null,
    last_sign_in_at timestamptz, created_at timestamptz, updated_at timestamptz,
    email text generated always as (lower(identity_data ->> 'email')) stored, id uuid primary key default gen_random_uuid(),
    unique (provider_id, provider)
);
create table auth.sessions (
    id uuid primary key, user_id uuid not null references auth.users on delete cascade, created_at timestamptz, updated_at timestamptz,
    factor_id uuid, aal auth.aal_level, not_after timestamptz, refreshed_at timestamp, user_agent text, ip inet, tag text
);
create table auth.refresh_tokens (
    instance_id uuid, id bigserial primary key, token text unique, user_id text, revoked boolean, created_at timestamptz, updated_at timestamptz,
    parent text, session_id uuid references auth.sessions on delete cascade
);
create table auth.mfa_factors (id uuid primary key, user_id uuid not null references auth.users on delete cascade, status text, created_at timestamptz);
create table auth.audit_log_entries (instance_id uuid, id uuid primary key, payload json, created_at timestamptz, ip_address text default '');
create table auth.schema_migrations (version text primary key);
create function auth.uid() returns uuid language sql stable as $$ select nullif(current_setting('request.jwt.claim.sub', true), '')::uuid $$;
create function auth.role() returns text language sql stable as $$ select nullif(current_setting('request.jwt.claim.role', true), '') $$;
create function auth.email() returns text language sql stable as $$ select nullif(current_setting('request.jwt.claim.email', true), '') $$;
create function auth.jwt() returns jsonb language sql stable as $$ select nullif(current_setting('request.jwt.claims', true), '')::jsonb $$;

-- Storage
create type storage.buckettype as enum ('STANDARD', 'ANALYTICS', 'VECTOR');
create table storage.buckets (
    id text primary key, name text not null unique, owner uuid, created_at timestamptz default now(), updated_at timestamptz default now(),
    public boolean default false, avif_autodetection boolean default false, file_size_limit bigint, allowed_mime_types text[], owner_id text,
    type storage.buckettype not null default 'STANDARD'
);
create table storage.objects (
    id uuid primary key default gen_random_uuid(), bucket_id text references storage.buckets, name text, owner uuid, created_at timestamptz default now(),
    updated_at timestamptz default now(), last_accessed_at timestamptz default now(), metadata jsonb,
    path_tokens text[] generated always as (string_to_array(name, '/')) stored, version text, owner_id text, user_metadata jsonb, unique (bucket_id, name)
);
alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;
create table storage.migrations (id int primary key, name varchar(100) unique not null, hash varchar(40) not null, executed_at timestamp default now());
create table storage.s3_multipart_uploads (id text primary key, bucket_id text references storage.buckets, key text, owner_id text);
create table storage.s3_multipart_uploads_parts (id uuid primary key default gen_random_uuid(), upload_id text, bucket_id text, key text);
create function storage.foldername(name text) returns text[] language sql immutable as
    $$ select (string_to_array(name, '/'))[1:array_length(string_to_array(name, '/'), 1) - 1] $$;
create function storage.filename(name text) returns text language sql immutable as $$ select (string_to_array(name, '/'))[array_upper(string_to_array(name, '/'), 1)] $$;
create function storage.extension(name text) returns text language sql immutable as $$ select reverse(split_part(reverse(name), '.', 1)) $$;
create function storage.update_updated_at_column() returns trigger language plpgsql as $$ begin new.updated_at = now(); return new; end $$;

-- Realtime
create table realtime.messages (
    topic text not null, extension text not null, payload jsonb, event text, private boolean default false, updated_at timestamp default now(),
    inserted_at timestamp default now(), id uuid primary key default gen_random_uuid()
);
alter table realtime.messages enable row level security;
create function realtime.topic() returns text language sql stable as $$ select nullif(current_setting('realtime.topic', true), '')::text $$;
create function realtime.send(payload jsonb, event text, topic text, private boolean default true) returns void language sql as '';
create function realtime.broadcast_changes(
    topic_name text, event_name text, operation text, table_name text, table_schema text, new record, old record, level text default 'ROW'
) returns void language plpgsql as 'begin end';
create publication supabase_realtime;

-- Extensions of Supabase's image
create table vault.secrets (id uuid primary key default gen_random_uuid(), name text unique, description text, secret text, created_at timestamptz default now());
create view vault.decrypted_secrets as select *, secret as decrypted_secret from vault.secrets;
create function vault.create_secret(new_secret text, new_name text default null, new_description text default '', new_key_id uuid default null)
    returns uuid language sql as $$ insert into vault.secrets (secret, name, description) values ($1, $2, $3) returning id $$;
create function vault.update_secret(secret_id uuid, new_secret text default null, new_name text default null, new_description text default null)
    returns void language sql as $$ update vault.secrets set secret = coalesce($2, secret) where id = $1 $$;
create table cron.job (
    jobid bigserial primary key, schedule text, command text, nodename text default 'localhost', nodeport int default 5432, database text default 'postgres',
    username text default current_user, active boolean default true, jobname text unique
);
create table cron.job_run_details (jobid bigint, runid bigserial, status text, return_message text, start_time timestamptz, end_time timestamptz);
create function cron.schedule(job_name text, schedule text, command text) returns bigint language sql as
    $$ insert into cron.job (jobname, schedule, command) values ($1, $2, $3)
       on conflict (jobname) do update set schedule = $2, command = $3 returning jobid $$;
create function cron.schedule(schedule text, command text) returns bigint language sql as
    $$ insert into cron.job (schedule, command) values ($1, $2) returning jobid $$;
create function cron.unschedule(job_name text) returns boolean language plpgsql as
    $$ begin
        delete from cron.job where jobname = job_name;
        if not found then raise exception 'could not find valid entry for job ''%''', job_name; end if;
        return true;
    end $$;
create function cron.unschedule(job_id bigint) returns boolean language sql as $$ delete from cron.job where jobid = $1 returning true $$;
create function cron.alter_job(job_id bigint, schedule text default null, command text default null, database text default null,
    username text default null, active boolean default null) returns void language sql as '';
create table net._http_response (id bigint, status_code int, content_type text, headers jsonb, content text, timed_out boolean, error_msg text, created timestamptz);
create table net.http_request_queue (id bigserial, method text, url text, headers jsonb, body bytea, timeout_milliseconds int);
create function net.http_post(url text, body jsonb default '{}', params jsonb default '{}', headers jsonb default '{}', timeout_milliseconds int default 5000)
    returns bigint language sql as 'select 1::bigint';
create function net.http_get(url text, params jsonb default '{}', headers jsonb default '{}', timeout_milliseconds int default 5000)
    returns bigint language sql as 'select 1::bigint';
create function net.http_delete(url text, params jsonb default '{}', headers jsonb default '{}', timeout_milliseconds int default 5000)
    returns bigint language sql as 'select 1::bigint';
create function supabase_functions.http_request() returns trigger language plpgsql as 'begin return new; end';
create type pgmq.message_record as (msg_id bigint, read_ct integer, enqueued_at timestamptz, vt timestamptz, message jsonb);
create function pgmq.create(queue_name text) returns void language plpgsql as
    $$ begin
        execute format('create table pgmq.%I (msg_id bigserial primary key, read_ct int, enqueued_at timestamptz, vt timestamptz, message jsonb)', 'q_' || queue_name);
        execute format('create table pgmq.%I (msg_id bigint primary key, message jsonb)', 'a_' || queue_name);
    end $$;
create function pgmq.send(queue_name text, msg jsonb, delay integer default 0) returns setof bigint language sql as 'select 1::bigint';
create function pgmq.read(queue_name text, vt integer, qty integer) returns setof pgmq.message_record language sql as 'select null::pgmq.message_record';
create function pgmq.delete(queue_name text, msg_id bigint) returns boolean language sql as 'select true';
create function pgmq.archive(queue_name text, msg_id bigint) returns boolean language sql as 'select true';
create function graphql_public.graphql("operationName" text default null, query text default null, variables jsonb default null, extensions jsonb default null)
    returns jsonb language sql as 'select null::jsonb';
create type extensions.http_header as (field varchar, value varchar);
create type extensions.http_response as (status integer, content_type varchar, headers extensions.http_header[], content varchar);
create type extensions.http_request as (method varchar, uri varchar, headers extensions.http_header[], content_type varchar, content varchar);
create function extensions.http(request extensions.http_request) returns extensions.http_response language sql as 'select null::extensions.http_response';
create function extensions.http_header(field varchar, value varchar) returns extensions.http_header language sql as 'select row($1, $2)::extensions.http_header';
create function extensions.http_post(uri varchar, content varchar, content_type varchar) returns extensions.http_response language sql as
    'select null::extensions.http_response';
create function extensions.http_get(uri varchar) returns extensions.http_response language sql as 'select null::extensions.http_response';
create function extensions.sign(payload json, secret text, algorithm text default 'HS256') returns text language sql as 'select null::text';
create function extensions.verify(token text, secret text, algorithm text default 'HS256', out header json, out payload json, out valid boolean)
    returns record language sql as 'select null::json, null::json, true';
create function pgtle.install_extension(name text, version text, description text, ext text, requires text[] default '{}') returns boolean
    language sql as 'select true';
create function pgtle.uninstall_extension_if_exists(extname text) returns boolean language sql as 'select true';
create function dbdev.install(package_name text) returns boolean language sql as 'select true';
create function extensions.http_set_curlopt(curlopt varchar, value varchar) returns boolean language sql as 'select true';
create function extensions.http_reset_curlopt() returns boolean language sql as 'select true';
create function extensions.jsonb_matches_schema(schema json, instance jsonb) returns boolean language sql immutable as 'select true';
create function extensions.json_matches_schema(schema json, instance json) returns boolean language sql immutable as 'select true';
