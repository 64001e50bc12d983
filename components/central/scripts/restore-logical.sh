#!/usr/bin/env bash
# Brings the roles, databases and projects of a dump into a server that has no project yet. Leases do not come back.
#
# What belongs to the platform is restored by the platform's login; then each project by itself, with its owner's rights.
# If something of a project cannot be restored, the others are, it is named, and this ends with code 3.
#
#   restore-logical.sh STAMP     as `dataplane backups` lists it, or `latest`
#   RESTORE_UPGRADE              `yes` if the dump is of a server that stood still and this one takes its place: leases
#                                stay, and nobody has to be delivered to a project
#   RESTORE_PROJECT_SECONDS      how long one project may take, beyond what its size explains; 600 unless given
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source-path=SCRIPTDIR source=projects.sh
. "$scripts/projects.sh"

check_major_version
projects=$(sql --command "select count(*) from pg_namespace where nspname ~ '^$project_schema\$'")
[[ $projects -eq 0 ]] || fail "the server at ${PGHOST:-the local socket} has $projects tenants: only an empty one can be restored into"
stamp=$(objects resolve "$1")
work=$(mktemp -d)
login=
trap 'rm -rf "$work"; [[ -z $login ]] || close_login "$login"' EXIT
: >"$work/failed"

say "restoring the roles of dump $stamp"
# Those that the server was made with are there already; their attributes and memberships follow all the same. Settings
# that a project has given to its roles may be refused here, which is to hold up nobody.
# shellcheck disable=SC2016
objects get "$stamp" globals.sql |
  sed -E '1,/^-- User Config/s/^CREATE ROLE (.*);$/do $dp$ begin create role \1; exception when duplicate_object then null; end $dp$;/' \
    >"$work/globals.sql"
sql --set ON_ERROR_STOP=0 --file "$work/globals.sql" >/dev/null 2>"$work/problems" || fail "the roles were not restored"
refused_settings() {
  ! grep -q 'ERROR: ' "$work/problems" || printf 'roles and settings: %s\n' "$(problems)" >>"$work/failed"
}
refused_settings

# What a project owns outside of its schema, and is restored with the platform's rights: none of it runs code.
harmless='^[0-9]+; [0-9]+ [0-9]+ (BLOB|(ACL|COMMENT) - LARGE OBJECT|DEFAULT ACL )'

objects files "$stamp" >"$work/files"
while IFS= read -r file; do
  [[ $file == *.dump ]] || continue
  database=${file%.dump}
  say "restoring database $database"
  # A database that is made anew cannot be the one that one is connected to meanwhile.
  meanwhile=template1
  [[ $file != template1.dump ]] || meanwhile=postgres
  archive=$work/other.dump
  [[ $database != "$PGDATABASE" ]] || archive=$work/platform.dump
  objects get "$stamp" "$file" >"$archive" || fail "database $database was not restored"
  pg_restore --list --create "$archive" >"$work/all.list"
  grep -Ev "$in_project" "$work/all.list" >"$work/outside.list"
  grep -E "$of_project" "$work/outside.list" | grep -Ev "$harmless" >"$work/refused.list" || true
  sed -E 's/^[0-9; ]*(.*)$/not restored, because a project owns it outside of its schema: \1/' "$work/refused.list" |
    printable >>"$work/failed"
  # Default privileges would change what is made after them. Of PostgreSQL's own functions another version has others:
  # `up` takes those from projects there.
  grep -Fvxf "$work/refused.list" "$work/outside.list" |
    grep -Ev '^[0-9]+; [0-9]+ [0-9]+ (DEFAULT ACL|ACL pg_catalog) ' >"$work/platform.list"
  grep -E '^[0-9]+; [0-9]+ [0-9]+ ACL pg_catalog ' "$work/outside.list" >"$work/builtin.list" || true
  # The database and its settings, those of projects' roles among them: as above, what is refused holds up nobody.
  grep -E '^[0-9]+; [0-9]+ [0-9]+ (DATABASE|DATABASE PROPERTIES|(ACL|COMMENT) - DATABASE) ' "$work/all.list" >"$work/database.list"
  pg_restore --create --clean --if-exists --use-list "$work/database.list" --file - "$archive" |
    sql --set ON_ERROR_STOP=0 --dbname "$meanwhile" >/dev/null 2>"$work/problems" || fail "database $database was not restored"
  refused_settings
  pg_restore --exit-on-error --section pre-data --section data --use-list "$work/platform.list" --dbname "$database" \
    "$archive" || fail "database $database was not restored"
  pg_restore --section post-data --use-list "$work/platform.list" --dbname "$database" "$archive" 2>"$work/problems" ||
    printf 'database %s: %s\n' "$database" "$(problems)" >>"$work/failed"
  pg_restore --use-list "$work/builtin.list" --dbname "$database" "$archive" 2>"$work/said" || true
  if grep ' error: ' "$work/said" | grep -Ev 'function .* does not exist$|errors ignored' >"$work/problems"; then
    printf 'database %s: %s\n' "$database" "$(problems)" >>"$work/failed"
  fi
  if grep -E '^[0-9]+; [0-9]+ [0-9]+ DEFAULT ACL ' "$work/outside.list" >"$work/defaults.list"; then
    if [[ $database == "$PGDATABASE" ]]; then
      mv "$work/defaults.list" "$work/last.list"
    else
      pg_restore --exit-on-error --use-list "$work/defaults.list" --dbname "$database" "$archive"
    fi
  fi
done <"$work/files"
[[ -s $work/platform.dump ]] || fail "dump $stamp has no database $PGDATABASE"
[[ ${RESTORE_UPGRADE:-} == yes ]] || sql --file "$scripts/drop-leases.sql"

# Dumps of earlier versions have the projects in the archive of the database.
pg_restore --list "$work/platform.dump" >"$work/all.list"
{
  sed -nE "s/^($project_schema)\.project\$/\1/p" "$work/files"
  sed -nE "s/^[0-9]+; 2615 [0-9]+ SCHEMA - ($project_schema) \1_owner\$/\1/p" "$work/all.list"
} | sort -u >"$work/projects"
make_schemas() { # ARCHIVE SCHEMA
  local name
  for name in $(schemas_in "$1" "$2"); do
    make_schema "$name" "${2}_owner" "$PGDATABASE" || return 1
  done
}
while IFS= read -r schema; do
  say "restoring $schema"
  archive=$work/platform.dump
  if grep -Fxq "$schema.project" "$work/files"; then
    archive=$work/project.dump
    if ! objects get "$stamp" "$schema.project" >"$archive"; then
      printf '%s: its part of the dump cannot be read\n' "$schema" >>"$work/failed"
      continue
    fi
  fi
  if ! make_schemas "$archive" "$schema" 2>"$work/problems" ||
    ! restore_project "$archive" "$work/platform.dump" "$schema" "${schema}_owner" "$PGDATABASE"; then
    printf '%s: %s\n' "$schema" "$(problems)" >>"$work/failed"
  fi
done <"$work/projects"
[[ ! -s $work/last.list ]] ||
  pg_restore --use-list "$work/last.list" --dbname "$PGDATABASE" "$work/platform.dump" 2>"$work/problems" ||
  printf 'default privileges: %s\n' "$(problems)" >>"$work/failed"

# Each project was dumped at its own moment, so it may lack members, or have some who are none.
[[ ${RESTORE_UPGRADE:-} == yes ]] || sql --command "do \$dp\$ begin
  if to_regclass('data_plane.user_tables') is not null then
    perform data_plane.resync_users(tenant) from data_plane.user_tables;
  end if;
end \$dp\$" >/dev/null

objects missing "$stamp" | sed 's/^/the dump is without /' >>"$work/failed"
if [[ -s $work/failed ]]; then
  say "error: restored, but not all of it: $(head -n 20 "$work/failed" | paste -sd ';' | sed 's/;/; /g')"
  exit 3
fi
say "done"
