#!/usr/bin/env bash
# Refuses a place that holds another database's backups: segments of both have the same names, and the later would
# overwrite the earlier's.
#
#   check-owner.sh [--once]
#     --once       is content with what it found before: a place does not change hands while a database runs
#   PGDATA         the database's files
#   BACKUP_STATE   a folder of its own where what was found is remembered; /tmp unless given
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

checked=${BACKUP_STATE:-/tmp}/backup-owner-checked
mine=$(pg_controldata "$PGDATA" | sed -n 's/^Database system identifier: *//p') || fail "$PGDATA holds no database that can be read"
if [[ ${1:-} == --once && -f $checked && $(<"$checked") == "$mine $BACKUP_DESTINATION $BACKUP_SERVER" ]]; then
  exit 0
fi
listed=$(barman-cloud-backup-list "${store[@]}" --format json "$BACKUP_DESTINATION" "$BACKUP_SERVER") ||
  fail "$(place) cannot be listed"
theirs=$(python3 -c '
import json, sys
known = {str(item.get("systemid")) for item in json.load(sys.stdin)["backups_list"]} - {"None", sys.argv[1]}
print(" ".join(sorted(known)))
' "$mine" <<<"$listed")
[[ -z $theirs ]] ||
  fail "$(place) holds backups of another database ($theirs; this one is $mine): give this one a prefix of its own"
printf '%s' "$mine $BACKUP_DESTINATION $BACKUP_SERVER" >"$checked"
