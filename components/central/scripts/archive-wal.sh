#!/usr/bin/env bash
# Uploads one segment of the write-ahead log. PostgreSQL keeps it, and asks again, until this ends with 0.
#
#   archive-wal.sh PATH
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

barman-cloud-wal-archive "${writing[@]}" --gzip "$BACKUP_DESTINATION" "$BACKUP_SERVER" "$1" ||
  fail "${1##*/} was not archived to $(place); PostgreSQL keeps it and tries again"
