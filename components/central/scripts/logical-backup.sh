#!/usr/bin/env bash
# Dumps every database, the roles and each project, then removes dumps that are no longer needed.
#
# A dump is a folder: globals.sql (the roles), DATABASE.dump for each database (without the projects), SCHEMA.project for
# each project with all of its schemas, each as of its own moment. Nothing is written to a disk on the way. A dump counts only once its manifest
# is there, which is written last, so one that broke off half-way is never taken for whole. What could not be read
# because a project has locked it is left out and named, there and at the end, which is with code 3 then.
#
#   BACKUP_RETAIN_DAYS      how long dumps are kept
#   BACKUP_LOCK_SECONDS     how long a lock is waited for; 60 unless given
#   BACKUP_PROJECT_SECONDS  how long one project may take; 3600 unless given
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source-path=SCRIPTDIR source=projects.sh
. "$scripts/projects.sh"

check_major_version
lock_seconds=${BACKUP_LOCK_SECONDS:-60}
work=$(mktemp -d)
login=
trap 'rm -rf "$work"; [[ -z $login ]] || close_login "$login"' EXIT
sweep_logins
stamp=$(date -u +%Y%m%dT%H%M%SZ)
say "dumping to $(place) as $stamp"
databases=$(sql --command "select datname from pg_database where datallowconn order by datname")

# Roles come back without passwords: those of services are in OpenBao, and leases are not to come back at all.
pg_dumpall --globals-only --no-role-passwords | objects put "$stamp" globals.sql ||
  fail "the roles were not dumped to $(place)"

# What cannot be read of a project now: relations that somebody has locked, those that the owner may not read, and views
# of them. Names are quoted as pg_dump takes them, and end with a zero byte.
unreadable() { # SCHEMA OWNER
  sql --record-separator-zero --command "
    with recursive unreadable (oid) as (
      select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where split_part(n.nspname, '\$', 1) = '$1' and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')
        and (exists (
            select from pg_locks l
            where l.locktype = 'relation' and l.relation = c.oid and l.mode = 'AccessExclusiveLock'
              and l.database = (select oid from pg_database where datname = current_database()))
          or c.relkind in ('r', 'p', 'S') and not has_table_privilege('$2', c.oid, 'select'))
      union
      select r.ev_class from unreadable u
      join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = u.oid and d.classid = 'pg_rewrite'::regclass
      join pg_rewrite r on r.oid = d.objid
    )
    select format('%I.%I', n.nspname, c.relname)
    from unreadable join pg_class c using (oid) join pg_namespace n on n.oid = c.relnamespace
    where split_part(n.nspname, '\$', 1) = '$1' order by 1"
}

# Dumps a project, without what is locked if it has to be so; $work/missing gets a line for everything left out.
dump_project() { # SCHEMA OWNER
  local schema=$1 attempt watcher code foreign left_out=() options=() others=()
  while IFS= read -r foreign; do
    [[ -n $foreign ]] || continue
    others+=(--exclude-schema "$foreign")
    printf '%s: it does not belong to %s\n' "$foreign" "$2" | printable >>"$work/missing"
  done < <(sql --command "select quote_ident(nspname) from pg_namespace
    where split_part(nspname, '\$', 1) = '$schema' and pg_get_userbyid(nspowner) <> '$2'")
  for attempt in 1 2 3; do
    if [[ $attempt -gt 1 ]]; then
      mapfile -d '' -t left_out < <(unreadable "$schema" "$2" | sed -z 's/\n$//')
      [[ ${#left_out[@]} -le 500 ]] || break
      options=("${left_out[@]/#/--exclude-table=}")
    fi
    open_login "$2" "$PGDATABASE" bypassrls
    # pg_dump bounds the wait for its own locks only, and waits for others, such as those behind a view's text.
    while kill -0 $$ 2>/dev/null && sleep 2; do
      sql --command "select pg_terminate_backend(pid) from pg_stat_activity where usename = '$login'
        and wait_event_type = 'Lock' and query_start < now() - interval '$lock_seconds s'" || true
    done >/dev/null 2>&1 &
    watcher=$!
    code=0
    as_login timeout --kill-after 10 "${BACKUP_PROJECT_SECONDS:-3600}" \
      pg_dump --format custom --schema "$schema" --schema "$schema\$*" "${others[@]}" "${options[@]}" 2>"$work/said" |
      objects put "$stamp" "$schema.project" || code=$?
    kill "$watcher"
    wait "$watcher" 2>/dev/null || true
    close_login "$login"
    if [[ $code -eq 0 ]]; then
      printf '%s\n' "${left_out[@]/%/ (locked, or not to be read by its owner)}" | grep . | printable >>"$work/missing" || true
      return 0
    fi
    printable <"$work/said" >&2
  done
  objects remove "$stamp" "$schema.project"
  printf '%s: %s\n' "$schema" "$(head -n 1 "$work/said" | printable)" >>"$work/missing"
}

: >"$work/missing"
# The projects first, so that what they refer to is in what follows.
projects=$(sql --command "select nspname from pg_namespace where nspname ~ '^$project_schema\$' order by nspname")
for schema in $projects; do
  owner=$(sql --command "select pg_get_userbyid(nspowner) from pg_namespace where nspname = '$schema'")
  if [[ $owner == "${schema}_owner" ]]; then
    dump_project "$schema" "$owner"
  elif [[ -n $owner ]]; then
    printf '%s: it belongs to %s instead of %s\n' "$schema" "$owner" "${schema}_owner" | printable >>"$work/missing"
  fi
done

# Ends sessions of projects that lock what belongs to the platform, which TOAST tables of projects do not.
end_locks() {
  sql --command "select pg_terminate_backend(l.pid) from pg_locks l
    join pg_stat_activity a using (pid) join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace
    where l.database = (select oid from pg_database where datname = current_database())
      and l.mode = 'AccessExclusiveLock' and n.nspname !~ '^(pg_.*|$project_schemas)\$'
      and (a.usename like 'lease\\_%' or a.usename like 'proj\\_%\$%' or a.usename ~ '(^|_)authenticator\$')" >/dev/null
}

while IFS= read -r database; do
  options=()
  [[ $database != "$PGDATABASE" ]] || options=(--exclude-schema 'proj_*' --exclude-schema 'restored_*')
  for attempt in 1 2 3; do
    end_locks
    code=0
    PGDATABASE=$database pg_dump --format custom --create --lock-wait-timeout "${lock_seconds}s" "${options[@]}" |
      objects put "$stamp" "$database.dump" || code=$?
    [[ $code -ne 0 ]] || break
  done
  [[ $code -eq 0 ]] || fail "database $database was not dumped to $(place)"
done <<<"$databases"
objects finish "$stamp" <"$work/missing"
say "done; removing dumps older than $BACKUP_RETAIN_DAYS days"
objects expire "$BACKUP_RETAIN_DAYS"
if [[ -s $work/missing ]]; then
  say "error: dump $stamp is complete but for: $(head -n 20 "$work/missing" | paste -sd ';' | sed 's/;/; /g')"
  exit 3
fi
