#!/usr/bin/env bash
# Takes a physical backup of the whole server, then removes those that are no longer needed.
#
#   PGDATA             the database's files, under the path that the server has them at; read only is enough
#   BACKUP_RETENTION   Barman's retention policy, e.g. RECOVERY WINDOW OF 14 DAYS
#   BACKUP_MINIMUM     backups that are always kept
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

check_major_version
"$scripts/check-owner.sh"
# A physical backup waits for the segments that were written meanwhile, for ever if they cannot be archived.
[[ $(sql --command 'show archive_mode') != off ]] || fail "archive_mode is off: a physical backup could not be restored"
# The restore point is there so that there is something to be archived.
sql --command "select pg_catalog.pg_create_restore_point('base backup')" >/dev/null
segment=$(sql --command 'select pg_catalog.pg_walfile_name(pg_catalog.pg_switch_wal())')
for ((second = 0; second <= ${BACKUP_ARCHIVE_SECONDS:-120}; second++)); do
  IFS='|' read -r archived failing < <(sql --command \
    "select coalesce(last_archived_wal, ''), last_failed_wal >= '$segment' from pg_catalog.pg_stat_archiver")
  # Names of segments sort by age. PostgreSQL tries three times in as many seconds before it waits for a minute.
  [[ $archived < $segment && ! ($failing == t && $second -gt 10) ]] || break
  sleep 1
done
[[ ! $archived < $segment ]] ||
  fail "the write-ahead log is not being archived (last: ${archived:-none}): see the log of PostgreSQL and of the archiver"

say "backing up to $(place)"
barman-cloud-backup "${writing[@]}" --gzip --jobs "${BACKUP_JOBS:-2}" --immediate-checkpoint \
  --user "$PGUSER" --dbname "${PGDATABASE:-postgres}" "$BACKUP_DESTINATION" "$BACKUP_SERVER" ||
  fail "the physical backup to $(place) failed; earlier ones are as they were"
say "done; applying: $BACKUP_RETENTION, at least ${BACKUP_MINIMUM:-1}"
barman-cloud-backup-delete "${store[@]}" --retention-policy "$BACKUP_RETENTION" \
  --minimum-redundancy "${BACKUP_MINIMUM:-1}" "$BACKUP_DESTINATION" "$BACKUP_SERVER" ||
  fail "the backup is made, but older ones could not be removed from $(place)"
