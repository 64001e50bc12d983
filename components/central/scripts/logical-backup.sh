#!/usr/bin/env bash
# Dumps every database and the roles, then removes dumps that are no longer needed.
#
# Nothing is written to a disk on the way. A dump counts only once its manifest is there, which is written last, so one
# that broke off half-way is never taken for whole.
#
#   BACKUP_RETAIN_DAYS   how long dumps are kept
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

check_major_version
stamp=$(date -u +%Y%m%dT%H%M%SZ)
say "dumping to $(place) as $stamp"
databases=$(sql --command "select datname from pg_catalog.pg_database where datallowconn order by datname")

# Roles come back without passwords: those of services are in OpenBao, and leases are not to come back at all.
pg_dumpall --globals-only --no-role-passwords | objects put "$stamp" globals.sql ||
  fail "the roles were not dumped to $(place)"
while IFS= read -r database; do
  PGDATABASE=$database pg_dump --format custom --create --lock-wait-timeout 300s |
    objects put "$stamp" "$database.dump" || fail "database $database was not dumped to $(place)"
done <<<"$databases"
objects finish "$stamp"
say "done; removing dumps older than $BACKUP_RETAIN_DAYS days"
objects expire "$BACKUP_RETAIN_DAYS"
