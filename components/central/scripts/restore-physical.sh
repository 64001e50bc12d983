#!/usr/bin/env bash
# Restores the whole server from a physical backup and the write-ahead log, beside the present files, and puts the
# result in their place once it is complete. The present files are kept; nothing is deleted.
#
#   restore-physical.sh [--check]
#     --check   stops before the files change places, and removes its own again: a drill
#   PGDATA               where the files are to be in the end; their folder must not be a mount point itself
#   RESTORE_BACKUP       a backup's ID, or `auto`: the latest one before the target
#   RESTORE_TO           a time with its zone, e.g. 2026-01-31 14:05:00+00; empty for all there is
#   RESTORE_TIMELINE     latest, or a number: see docs/how-to/back-up-and-restore.md
#   RESTORE_DATABASE     the database with the platform's objects
#   RESTORE_PASSWORDS    lines `role variable`: the role gets the password that is in the variable
#
# May be run again after an interruption, with the same settings. The server must be stopped.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

check_only=false
[[ ${1:-} != --check ]] || check_only=true
backup=${RESTORE_BACKUP:-auto} target=${RESTORE_TO:-} timeline=${RESTORE_TIMELINE:-latest}
database=${RESTORE_DATABASE:-postgres}
work=$PGDATA.restoring
data=$work/data
wanted="backup=$backup to=$target timeline=$timeline"

running() {
  local pid
  [[ -f $PGDATA/postmaster.pid ]] && pid=$(head -n 1 "$PGDATA/postmaster.pid") && [[ -n $pid ]] &&
    [[ $(cat "/proc/$pid/comm" 2>/dev/null) == postgres ]]
}

control() { # what pg_controldata says of a folder, by its label
  pg_controldata "$1" 2>/dev/null | sed -n "s/^$2: *//p"
}

server= # the process that recovers
sockets=$(mktemp -d)
cleanup() {
  if [[ -n $server ]]; then
    kill -INT "$server" 2>/dev/null && wait "$server"
  fi
  rm -rf "$sockets"
}
trap cleanup EXIT

# PostgreSQL without the image's extensions, which recovery does not need: they may not be here, and none of their
# background workers should run. Nothing listens but a socket in a folder of its own, which nobody is let in by.
# What it writes is archived by the server that goes on from it, never by a drill or a run that failed.
settings=()
prepare_settings() {
  printf 'local all all reject\n' >"$work/pg_hba.conf"
  : >"$work/pg_ident.conf"
  : >"$work/postgresql.conf"
  settings=(
    -D "$data"
    -c "config_file=$work/postgresql.conf" -c "hba_file=$work/pg_hba.conf" -c "ident_file=$work/pg_ident.conf"
    -c listen_addresses= -c "unix_socket_directories=$sockets" -c port=5432
    -c shared_preload_libraries= -c session_preload_libraries= -c local_preload_libraries=
    -c logging_collector=off -c log_destination=stderr -c lc_messages=C -c log_statement=none -c log_min_duration_statement=-1
    -c log_min_error_statement=panic -c archive_mode=on -c archive_command=false -c archive_library= -c ssl=off
    # At least what the server had: less would not start, or lose what was prepared.
    -c wal_level=logical -c max_prepared_transactions=1000 -c max_replication_slots=100
    -c hot_standby=off -c "shared_buffers=${RESTORE_SHARED_BUFFERS:-128MB}" -c event_source=restore
  )
}

# The last complete backup that ended before the target.
choose() {
  local listed
  listed=$(barman-cloud-backup-list "${store[@]}" --format json "$BACKUP_DESTINATION" "$BACKUP_SERVER") || return 1
  python3 -c '
import json, sys
from datetime import datetime
target = datetime.fromisoformat(sys.argv[1]) if sys.argv[1] else None
found = [
    (datetime.fromisoformat(item["end_time_iso"]), item["backup_id"])
    for item in json.load(sys.stdin)["backups_list"]
    if item["status"] == "DONE"
]
print(max((one for one in found if target is None or one[0] <= target), default=("", ""))[1])
' "$target" <<<"$listed"
}

download() {
  local id=$backup
  if [[ $id == auto ]]; then
    id=$(choose) || fail "$(place) cannot be listed"
    [[ -n $id ]] || fail "$(place) has no complete backup${target:+ that ended before $target}"
  fi
  mkdir -p "$work"
  printf '%s' "$wanted" >"$work/started"
  say "downloading backup $id from $(place)"
  barman-cloud-restore "${store[@]}" "$BACKUP_DESTINATION" "$BACKUP_SERVER" "$id" "$data" >&2 ||
    fail "backup $id could not be downloaded from $(place); the present files are as they were"
  chmod 700 "$data"
  # Segments that the old server wrote and could not archive any more, if it is still there and is the same database.
  local old=$PGDATA/pg_wal name
  if [[ $check_only == false && -d $old && $(control "$PGDATA" 'Database system identifier') == "$(control "$data" 'Database system identifier')" ]]; then
    for name in "$old"/*; do
      name=${name##*/}
      [[ $name =~ ^[0-9A-F]{24}$ && ! -e $old/archive_status/$name.done && ! -e $data/pg_wal/$name ]] || continue
      cp -p "$old/$name" "$data/pg_wal/$name"
    done
  fi
}

recover() {
  local log=$work/recovery.log
  touch "$data/recovery.signal"
  local recovery=(
    -c "restore_command='$scripts/fetch-wal.sh' '%f' '%p'" -c "recovery_target_timeline=$timeline"
    -c recovery_target_action=promote -c recovery_end_command= -c archive_cleanup_command= -c primary_conninfo=
  )
  [[ -z $target ]] || recovery+=(-c "recovery_target_time=$target")
  say "replaying the write-ahead log"
  postgres "${settings[@]}" "${recovery[@]}" >"$log" 2>&1 &
  server=$!
  until grep -q 'database system is ready to accept connections' "$log"; do
    if ! kill -0 "$server" 2>/dev/null; then
      server=
      tail -n 20 "$log" >&2
      if grep -q 'recovery ended before configured recovery target' "$log"; then
        fail "the archive has nothing after $target: give an earlier time, or none for all there is"
      fi
      fail "recovery did not finish; its log is $log; the present files are as they were"
    fi
    sleep 0.2
  done
  kill -INT "$server"
  wait "$server" || true
  server=
  [[ ! -e $data/recovery.signal && $(control "$data" 'Database cluster state') == 'shut down' ]] ||
    fail "PostgreSQL did not stop cleanly after recovery; its log is $log"
  grep -E 'last completed transaction was|recovery stopping|archive recovery complete|selected new timeline' "$log" >&2 ||
    true
}

# Before anybody can connect: leases of the time of the backup are dropped, and service logins get today's passwords.
reconcile_credentials() {
  say "dropping the leases of that time, setting the services' passwords"
  {
    tr '\n' ' ' <"$scripts/drop-leases.sql"
    echo
    local role variable password
    while read -r role variable; do
      [[ -n $role ]] || continue
      password=${!variable:-}
      [[ -n $password ]] || fail "$variable, the password of $role, is not set"
      # shellcheck disable=SC2016
      [[ $role =~ ^[a-z_][a-z0-9_]*$ && $password != *[$'\n\r']* && $password != *'$dp$'* ]] ||
        fail "the password of $role cannot be set: it holds characters that no generated one has"
      printf "do \$dp\$ begin if exists (select from pg_catalog.pg_roles where rolname = '%s') then " "$role"
      printf "alter role %s password '%s'; end if; end \$dp\$;\n" "$role" "${password//\'/\'\'}"
    done <<<"${RESTORE_PASSWORDS:-}"
  } | postgres --single "${settings[@]}" -c exit_on_error=on "$database" >"$work/reconcile_credentials.log" 2>&1 ||
    fail "leases and passwords could not be brought in order; the log is $work/reconcile_credentials.log; the present files are as they were"
}

change_places() {
  if [[ -e $PGDATA ]]; then
    local aside
    aside=$PGDATA.before-$(date -u +%Y%m%dT%H%M%SZ)
    mv "$PGDATA" "$aside"
    say "the files that were there are now $aside"
  fi
  mv "$data" "$PGDATA"
  rm -rf "$work"
  say "restored; the server can be started"
}

$check_only || ! running || fail "PostgreSQL runs on $PGDATA: stop it first"
# A server that checks its files' owner and rights wants a folder of its own.
[[ $check_only == true ]] || ! mountpoint -q "$PGDATA" 2>/dev/null ||
  fail "$PGDATA is a mount point and cannot be put aside: mount the volume above it"
if [[ -f $work/complete && $(<"$work/complete") == "$wanted" && $check_only == false && -d $data ]]; then
  say "an earlier run had got as far as changing places; going on from there"
else
  # Only what an earlier run of this script made, and had not finished.
  [[ ! -e $work || -f $work/started || -f $work/complete ]] || fail "$work is in the way: move it away"
  rm -rf "$work"
  download
  prepare_settings
  recover
  reconcile_credentials
  printf '%s' "$wanted" >"$work/complete"
fi
if [[ $check_only == true ]]; then
  rm -rf "$work"
  say "the backup can be restored; nothing was changed"
else
  change_places
fi
