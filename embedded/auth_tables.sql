-- The table of Auth's that projects refer to, as far as they and the platform meet it.
--
-- Auth makes it when it first starts; a workplace has no Auth, and migrations with a foreign key to auth.users should
-- run here too. Columns are those of github.com/supabase/auth's own migrations, so that an Auth that is pointed at this
-- database takes the table over. Run as supabase_auth_admin, whose table it is.
create table if not exists auth.users (
    instance_id uuid,
    id uuid primary key,
    aud varchar(255),
    role varchar(255),
    email varchar(255),
    encrypted_password varchar(255),
    email_confirmed_at timestamptz,
    invited_at timestamptz,
    last_sign_in_at timestamptz,
    raw_app_meta_data jsonb,
    raw_user_meta_data jsonb,
    is_super_admin boolean,
    created_at timestamptz,
    updated_at timestamptz,
    phone text unique default null,
    phone_confirmed_at timestamptz,
    banned_until timestamptz,
    is_sso_user boolean not null default false,
    deleted_at timestamptz,
    is_anonymous boolean not null default false
);
