#!/usr/bin/env bash
# Brings the roles and databases of a dump into a server that has no tenant yet. Leases do not come back.
#
#   restore-logical.sh STAMP     as `dataplane backups` lists it, or `latest`
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

check_major_version
tenants=$(sql --command "select count(*) from pg_catalog.pg_namespace where nspname like 'proj\\_%'")
[[ $tenants -eq 0 ]] || fail "the server at ${PGHOST:-the local socket} has $tenants tenants: only an empty one can be restored into"
stamp=$(objects resolve "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "restoring the roles of dump $stamp"
# Those that the server was made with are there already; their attributes and memberships follow all the same.
# shellcheck disable=SC2016
objects get "$stamp" globals.sql |
  sed -E 's/^CREATE ROLE (.*);$/do $dp$ begin create role \1; exception when duplicate_object then null; end $dp$;/' \
    >"$work/globals.sql"
sql --file "$work/globals.sql" >/dev/null || fail "the roles were not restored"

objects files "$stamp" >"$work/files"
while IFS= read -r file; do
  [[ $file == *.dump ]] || continue
  say "restoring database ${file%.dump}"
  # A database that is made anew cannot be the one that one is connected to meanwhile.
  meanwhile=template1
  [[ $file != template1.dump ]] || meanwhile=postgres
  objects get "$stamp" "$file" |
    PGDATABASE=$meanwhile pg_restore --create --clean --if-exists --exit-on-error --dbname "$meanwhile" ||
    fail "database ${file%.dump} was not restored"
done <"$work/files"
sql --file "$scripts/drop-leases.sql"
say "done"
