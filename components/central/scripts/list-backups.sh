#!/usr/bin/env bash
# Prints what there is to restore from, as JSON: {"physical": [Barman's backup.info, …], "logical": [manifest, …]}.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

physical=$(barman-cloud-backup-list "${store[@]}" --format json "$BACKUP_DESTINATION" "$BACKUP_SERVER") ||
  fail "$(place) cannot be listed"
logical=$(objects list) || fail "$(place) cannot be listed"
printf '{"physical": %s, "logical": %s}\n' "$physical" "$logical"
