-- Verifying keys: what every service that checks tokens believes. The jobs that may fetch them publish them here.
--
-- PostgREST takes the keys from data_plane.pre_config(), Realtime from its own table, which is kept equal here. Nothing
-- private is ever in the database: a document with a secret in it is refused, not cleaned.

-- One key as it is published: its public members and nothing else. Raises what is wrong with it.
create or replace function data_plane.public_key(key jsonb) returns jsonb
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    kind text := key ->> 'kty';
    curve text := key ->> 'crv';
    algorithm text := key ->> 'alg';
    wanted text[];
    problem text;
    public_part jsonb;
begin
    if pg_catalog.jsonb_typeof(key) is distinct from 'object' then
        raise exception 'not a key: a key is an object' using errcode = 'invalid_parameter_value';
    end if;
    wanted := case kind
        when 'EC' then array['crv', 'x', 'y']
        when 'OKP' then array['crv', 'x']
        when 'RSA' then array['n', 'e']
    end;
    problem := case
        when wanted is null then 'its kind (kty) is none of EC, OKP, RSA'
        when key ?| array['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'] then 'it has a private part'
        when coalesce(key ->> 'kid', '') = '' then 'it has no name (kid)'
        when not key ?& wanted then 'it lacks one of ' || pg_catalog.array_to_string(wanted, ', ')
        when coalesce(key ->> 'use', 'sig') <> 'sig' then 'it is not for signatures (use)'
        when not coalesce(key -> 'key_ops', '["verify"]') <@ '["verify"]' then 'it is for more than verify (key_ops)'
        when not coalesce(
            case kind
                when 'EC' then (curve, algorithm) in (('P-256', 'ES256'), ('P-384', 'ES384'), ('P-521', 'ES512'))
                when 'OKP' then (curve, algorithm) in (('Ed25519', 'EdDSA'))
                -- base64url of 2048 bits
                else algorithm ~ '^(RS|PS)(256|384|512)$' and pg_catalog.length(key ->> 'n') >= 342
            end, false) then 'its algorithm (alg) is missing, or does not go with it'
    end;
    if problem is not null then
        raise exception 'key % cannot be published: %', coalesce(key ->> 'kid', '(without a kid)'), problem
            using errcode = 'invalid_parameter_value';
    end if;
    select pg_catalog.jsonb_object_agg(member.key, member.value) into public_part
    from pg_catalog.jsonb_each(key) as member
    where member.key = any (wanted || array['kty', 'kid', 'alg']);
    return public_part || '{"use": "sig"}';
end
$$;

-- Replaces the published keys by those of a JWKS and tells the verifiers; returns whether anything changed. A key that
-- is no longer in it is believed no longer: the publisher keeps a rotated one for as long as what it signed.
create or replace function data_plane.publish_keys(jwks jsonb) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    published jsonb;
begin
    if pg_catalog.jsonb_typeof(jwks -> 'keys') is distinct from 'array' then
        raise exception 'not a JWKS: it has no list of keys' using errcode = 'invalid_parameter_value';
    end if;
    if pg_catalog.jsonb_array_length(jwks -> 'keys') not between 1 and 100 then
        raise exception 'a JWKS of % keys is not published: between 1 and 100 are expected',
            pg_catalog.jsonb_array_length(jwks -> 'keys')
            using errcode = 'invalid_parameter_value', hint = 'With no key at all, no token would be believed.';
    end if;
    select pg_catalog.jsonb_build_object('keys', pg_catalog.jsonb_agg(k.key order by k.key ->> 'kid')) into published
    from (
        select data_plane.public_key(given.key) as key
        from pg_catalog.jsonb_array_elements(jwks -> 'keys') as given (key)
    ) as k;
    if exists (
        select from pg_catalog.jsonb_array_elements(published -> 'keys') as k (key)
        group by k.key ->> 'kid' having pg_catalog.count(*) > 1
    ) then
        raise exception 'two keys of the JWKS have the same name (kid)' using errcode = 'invalid_parameter_value';
    end if;

    insert into data_plane.verifying_keys as v (jwks) values (published)
    on conflict (only_row) do update set jwks = excluded.jwks, published_at = pg_catalog.now()
        where v.jwks <> excluded.jwks;
    if not found then
        return false;
    end if;
    perform pg_catalog.pg_notify('pgrst', 'reload config');
    if pg_catalog.to_regclass('_realtime.tenants') is not null then
        -- Its trigger (platform_realtime.sql) puts the keys in.
        execute 'update _realtime.tenants set external_id = external_id';
    end if;
    return true;
end
$$;

grant execute on function data_plane.publish_keys(jsonb) to data_plane_keys;
