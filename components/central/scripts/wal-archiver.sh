#!/usr/bin/env bash
# The container beside the database's that uploads what queue-wal.sh asks for.
#
#   wal-archiver.sh FOLDER
#     FOLDER  shared with the database's container
#   PGDATA    the database's files; read only is enough
set -euo pipefail
folder=$1
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

trap 'exit 0' TERM INT
say "carrying segments to $(place)"
shopt -s nullglob
while true; do
  touch "$folder/alive" # the liveness probe looks at its age
  for asked in "$folder"/*.asked; do
    name=$(basename "$asked" .asked)
    rm -f "$asked"
    if message=$("$scripts/check-owner.sh" --once 2>&1 && "$scripts/archive-wal.sh" "$PGDATA/pg_wal/$name" 2>&1); then
      : >"$folder/$name.done"
    else
      say "$message"
      # Whole at once: the reader must not see half a message.
      printf '%s\n' "$message" >"$folder/$name.draft"
      mv "$folder/$name.draft" "$folder/$name.failed"
    fi
  done
  # In the background, so that the trap does not wait for it.
  sleep 0.2 &
  wait $!
done
