# What dumps and restores of projects share; sourced after common.sh, never run.
#
# A session with the platform's rights runs no code of a project: no CHECK, default, trigger, cast or index expression.
# So everything in a project's schema is dumped and restored by a login that is made for that, is a member of the
# project's owner alone, and is dropped afterwards. Whatever such code does, it does with the project's own rights.
# shellcheck shell=bash

# The names of projects' schemas, as extended regular expressions: the first one of each, which the project is dumped by,
# and all that belong to projects. The others of a project are named like its first one, a dollar sign and a name.
project_schema='proj_[a-z0-9_]+'
project_schemas='(proj|restored)_[a-z0-9_]+(\$[a-z0-9_]+)?'

# What the platform's login restores of an archive: nothing in a project's schema, no cast from or to a type there, and
# nothing that a project owns elsewhere, where it can own nothing but large objects. In the name of a schema's privileges
# or comment, and of a cast, names with a dollar sign are quoted.
in_project="^[0-9]+; [0-9]+ [0-9]+ [A-Z ]+ (- SCHEMA |- )?\"?$project_schemas\"? |^[0-9]+; 2605 [0-9]+ CAST .*[ (]\"?$project_schemas\"?\."
of_project="^[0-9]+; [0-9]+ [0-9]+ [A-Z ]+ .* ${project_schema}_(owner|service_role|authenticated|anon)\$"

# What a program says of a project goes to people's terminals: no control characters, and not without end.
printable() {
  tr -c '[:print:]\n' '?' | cut -c -300
}

# Makes a login that has the rights of one role, and sets login and password. pg_dump and pg_restore call set_config, which
# owners may not where other projects use the same sessions; this session is nobody else's.
#
#   open_login OWNER DATABASE [ATTRIBUTES]
#     ATTRIBUTES  to read: `bypassrls`, which changes nothing for a table's owner but under FORCE ROW LEVEL SECURITY
open_login() {
  [[ $1 =~ ^${project_schema}_owner$ ]] || fail "$1 is not the owner of a project"
  login=backup_$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  # The server makes the password, so that no statement that it may log holds it.
  password=$(sql <<SQL
do \$dp\$
declare
    secret text := gen_random_uuid()::text || gen_random_uuid()::text;
begin
    execute format('create role %I login inherit ${3-} connection limit 5 password %L valid until %L in role %I',
        '$login', secret, now() + interval '1 day', '$1');
    execute format('grant connect on database %I to %I', '$2', '$login');
    perform set_config('data_plane.secret', secret, false);
end \$dp\$;
select current_setting('data_plane.secret');
SQL
  ) || fail "no login could be made for $1"
  sql --dbname "$2" --command "grant execute on function set_config(text, text, boolean) to $login" >/dev/null
}

# Runs a program as that login.
as_login() {
  PGUSER=$login PGPASSWORD=$password PGOPTIONS="-c client_connection_check_interval=10s" "$@"
}

# Ends the sessions of a login and drops it, with what code of the project has made for it in a database; what it made
# for the owner stays. A login that cannot be dropped can no longer be used, and is dropped by a later run.
#
#   close_login LOGIN [DATABASE]
close_login() {
  local attempt
  # Sessions first: one of them may hold a lock on its own role, and another may come before the login is closed.
  for attempt in 1 2 3 4 5; do
    if sql --dbname "${2:-$PGDATABASE}" >/dev/null <<SQL
set lock_timeout = '2s';
select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = '$1';
alter role $1 nologin password null;
select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = '$1';
drop owned by $1;
drop role $1;
SQL
    then
      break
    fi
    [[ $attempt -lt 5 ]] || say "login $1 could not be dropped; a later run tries again"
  done
  login=
}

# Drops the logins of runs that were killed.
sweep_logins() {
  local old
  for old in $(sql --command "select rolname from pg_roles where rolname ~ '^backup_[0-9a-f]{32}\$' and rolvaliduntil < now()"); do
    close_login "$old"
  done
}

# Prints the schemas of a project that an archive has, the first one first.
#
#   schemas_in ARCHIVE SCHEMA
schemas_in() {
  pg_restore --list "$1" | sed -nE 's/^[0-9]+; 2615 [0-9]+ SCHEMA - ([a-z0-9_$]+) .*$/\1/p' |
    awk -v schema="$2" '$1 == schema || index($1, schema "$") == 1' | sort
}

# Makes a schema that its owner alone may use, whatever default privileges the owner has given.
#
#   make_schema NAME OWNER DATABASE
make_schema() {
  sql --dbname "$3" >/dev/null <<SQL
create schema "$1" authorization $2;
do \$dp\$
declare
    given record;
begin
    for given in
        select distinct case acl.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(acl.grantee)) end as grantee
        from pg_namespace n cross join lateral aclexplode(n.nspacl) as acl
        where n.nspname = '$1' and acl.grantee <> n.nspowner
    loop
        execute format('revoke all on schema %I from %s cascade', '$1', given.grantee);
    end loop;
end \$dp\$;
SQL
}

# Restores what an archive has in the schemas of a project, as the project's owner, into schemas that are there and empty.
# Returns 0 if all of it came back, 1 if not; $work/problems says what did not.
#
#   restore_project [--no-privileges] ARCHIVE CASTS SCHEMA OWNER DATABASE
#     SCHEMA   the first one
#     CASTS    an archive that has the database's casts, which belong to no schema
restore_project() {
  local privileges=yes
  if [[ $1 == --no-privileges ]]; then
    privileges=no
    shift
  fi
  local archive=$1 casts=$2 schema=$3 owner=$4 database=$5 failed=0 wanted found
  # Its code may take its time, on its own account: as long as its size explains, and a while more.
  local deadline=$((SECONDS + ${RESTORE_PROJECT_SECONDS:-600} + $(stat --format %s "$archive") / 500000))
  local problems=$work/problems
  : >"$problems"
  # An entry is `ID; CATALOG OBJECT KIND SCHEMA NAME OWNER`. Casts come where pg_dump puts them: between functions and
  # relations. Privileges come last, when every policy is known to be there.
  pg_restore --list "$archive" | awk -v schema="$schema" -v folder="$work" '
    /^;/ { next }
    {
      entry = $0
      sub(/^[0-9]+; [0-9]+ [0-9]+ /, "", entry)
      if (!match(entry, /^[A-Z]+( [A-Z]+)* /)) next
      kind = substr(entry, 1, RLENGTH - 1)
      rest = substr(entry, RLENGTH + 1)
      sub(/^- SCHEMA "?/, "", rest)
      if (index(rest, schema " ") != 1 && index(rest, schema "$") != 1) next
      if (kind ~ /^PUBLICATION/) next
      if (kind ~ /ACL$/) { print > (folder "/privileges.list"); next }
      if (kind ~ /^(TABLE|FOREIGN TABLE|VIEW|MATERIALIZED VIEW|SEQUENCE)$/) relations = 1
      print > (folder (relations ? "/relations.list" : "/types.list"))
    }
    BEGIN { for (n = split("types relations privileges", lists, " "); n; n--) printf "" > (folder "/" lists[n] ".list") }'
  # No other project can have a cast of such a name: what it is from and to comes with the schema in front.
  local own="\"?$schema(\\\$[a-z0-9_]+)?\"?\\."
  pg_restore --list "$casts" | grep -E \
    "^[0-9]+; 2605 [0-9]+ CAST - CAST \(($own|([a-z0-9_]+\.)?[][a-z0-9_ (),]+ AS $own)" >"$work/casts.list" || true

  open_login "$owner" "$database"
  step() { # ARCHIVE LIST [OPTION…]
    local left=$((deadline - SECONDS))
    [[ -s $2 && $failed -lt 2 ]] || return 0
    local code=0
    # Its code may say what it likes, but not fill the disk with it.
    as_login timeout --kill-after 10 "$((left > 0 ? left : 1))" pg_restore --no-owner \
      --dbname "$database" --use-list "$2" "${@:3}" "$1" 2>&1 >/dev/null |
      { head -c 200000 >>"$problems" && cat >/dev/null; } || code=$?
    # What it has made is the owner's.
    as_login timeout 60 psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname "$database" \
      --command "reassign owned by $login to $owner" 2>>"$problems" || code=1
    case $code in
      0) ;;
      124 | 137) failed=2 && printf 'pg_restore: error: it took too long and was ended\n' >>"$problems" ;;
      *) failed=1 ;;
    esac
  }
  step "$archive" "$work/types.list"
  step "$casts" "$work/casts.list"
  step "$archive" "$work/relations.list" --section pre-data
  # New tables have row-level security on; the archive turns it on after the data, where it was on. Its owner could not
  # write under FORCE ROW LEVEL SECURITY.
  [[ $failed -eq 2 ]] || as_login timeout 60 psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname "$database" \
    2>>"$problems" <<SQL || failed=2
set search_path = pg_catalog, pg_temp;
set role $owner;
do \$dp\$
declare
    relation regclass;
begin
    for relation in
        select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where split_part(n.nspname, '\$', 1) = '$schema' and c.relkind in ('r', 'p') and c.relrowsecurity
    loop
        execute format('alter table %s disable row level security', relation);
    end loop;
end \$dp\$;
SQL
  step "$archive" "$work/relations.list" --section data
  step "$archive" "$work/relations.list" --section post-data
  # A policy that restricts and is missing would open a table: then the tables stay with their owner.
  wanted=$(grep -Ec '^[0-9]+; [0-9]+ [0-9]+ (POLICY|ROW SECURITY) ' "$work/relations.list" || true)
  found=$(sql --dbname "$database" --command "
    with own as (
      select c.oid, c.relrowsecurity from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where split_part(n.nspname, '\$', 1) = '$schema')
    select (select count(*) from pg_policy p join own on own.oid = p.polrelid)
      + (select count(*) from own where own.relrowsecurity)")
  if [[ $wanted != "$found" ]]; then
    failed=2
    printf 'pg_restore: error: row-level security is incomplete: nobody but the owner may use the tables\n' >>"$problems"
  fi
  [[ $privileges == no ]] || step "$archive" "$work/privileges.list"
  close_login "$login" "$database"
  return $((failed > 0))
}

# The first things that a project's restore met, in one line.
problems() {
  { grep -E 'error: |ERROR: ' "$work/problems" || cat "$work/problems"; } | sed -E 's/^pg_restore: (error: )?//' |
    printable | head -n 5 | paste -sd ';' | sed 's/;/; /g'
}
