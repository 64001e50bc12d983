#!/usr/bin/env bash
# The restore_command: downloads one segment.
#
#   fetch-wal.sh NAME PATH
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# PostgreSQL asks for segments that may not exist, to find the end; Barman's code 1 says so. Anything else (no network,
# wrong credentials) must not look like the end of the archive: a code above 125 makes PostgreSQL stop.
code=0
barman-cloud-wal-restore "${store[@]}" "$BACKUP_DESTINATION" "$BACKUP_SERVER" "$1" "$2" 2>/dev/null || code=$?
case $code in
  0 | 1) exit "$code" ;;
  *)
    say "error: $1 cannot be fetched from $(place) (code $code)"
    exit 200
    ;;
esac
