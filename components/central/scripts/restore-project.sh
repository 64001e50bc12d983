#!/usr/bin/env bash
# Puts one project, as it is in a dump, beside the present one: into a schema restored_<project>_<time>, which the
# project's owner owns and nobody else may look into, and its further schemas into restored_<project>_<time>$<name>.
# Prints the first one's name. Nothing that is there is changed.
#
#   restore-project.sh SCHEMA STAMP
#     SCHEMA  the project's schema, e.g. proj_demo
#     STAMP   as `dataplane backups` lists it, or `latest`
#
# A dump knows no other name for a schema than its own. So the project is restored into a database of its own, with the
# objects around it that it may refer to, renamed there, and copied from there; all of it with the owner's rights. Not
# copied: grants (it would be served at once), foreign keys to tables outside of its schemas. Bodies of functions are
# text, and name what they named.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source-path=SCRIPTDIR source=projects.sh
. "$scripts/projects.sh"

schema=$1
[[ $schema =~ ^$project_schema$ ]] || fail "$schema is not the schema of a project"
check_major_version
stamp=$(objects resolve "$2")
database=$PGDATABASE
owner=${schema}_owner
[[ $(sql --command "select count(*) from pg_roles where rolname = '$owner'") == 1 ]] ||
  fail "there is no role $owner: bring the project's cell up first"
time=$(date -u +%Y%m%dt%H%M%S)
work=$(mktemp -d)
login=
scratch=
unfinished=()
cleanup() {
  local name
  rm -rf "$work"
  [[ -z $scratch ]] ||
    sql --dbname template1 --command "drop database if exists $scratch with (force)" >/dev/null 2>&1 || true
  [[ -z $login ]] || close_login "$login"
  for name in "${unfinished[@]}"; do
    sql --command "drop schema if exists \"$name\" cascade" >/dev/null 2>&1 || true
  done
}
trap cleanup EXIT
sweep_logins

say "looking for $schema in dump $stamp"
objects get "$stamp" "$database.dump" >"$work/around"
pg_restore --list "$work/around" >"$work/all"
archive=$work/around
objects files "$stamp" >"$work/files"
if grep -Fxq "$schema.project" "$work/files"; then
  archive=$work/archive
  objects get "$stamp" "$schema.project" >"$archive"
fi
pg_restore --list "$archive" >"$work/list"
grep -Eq "^[0-9]+; 2615 [0-9]+ SCHEMA - $schema " "$work/list" || fail "dump $stamp has no $schema"

# The copies' names. All of them fit PostgreSQL's 63 bytes: what is too long is cut, and numbered where it would be one.
mapfile -t schemas < <(schemas_in "$archive" "$schema")
longest=-1
for name in "${schemas[@]:1}"; do
  name=${name#"$schema"\$}
  longest=$((${#name} > longest ? ${#name} : longest))
done
room=$((45 - longest))
room=$((room < 20 ? 20 : room))
renamed=restored_${schema#proj_}
renamed=${renamed:0:room}_$time
scratch=$renamed
declare -A copies=(["$schema"]=$renamed)
for name in "${schemas[@]:1}"; do
  copy=$renamed\$${name#"$schema"\$}
  [[ ${#copy} -le 63 ]] || copy=${copy:0:60}_${#copies[@]}
  copies[$name]=$copy
done

sql --dbname template1 --command "create database $scratch template template0" >/dev/null
sql --dbname template1 --command "revoke connect, temporary on database $scratch from public" >/dev/null
# What is around the schema, without data. Some of it cannot be made twice on a server (a job scheduler, for one), which
# does not matter here; whether the project itself is whole is checked below.
grep -Ev "$in_project| (EVENT TRIGGER|PUBLICATION|SUBSCRIPTION|DEFAULT ACL) " "$work/all" |
  { grep -Ev "$of_project" || true; } >"$work/platform"
pg_restore --section pre-data --use-list "$work/platform" --dbname "$scratch" "$work/around" >/dev/null 2>&1 || true
for name in "${schemas[@]}"; do
  make_schema "$name" "$owner" "$scratch"
done
restore_project --no-privileges "$archive" "$work/around" "$schema" "$owner" "$scratch" || true
mv "$work/problems" "$work/first"

contents() { # one line for each object of the schema: kind, schema, name, owner
  grep -v '^;' | cut -d ' ' -f 4- |
    grep -Ev '^(SCHEMA|ACL|DEFAULT ACL|TABLE DATA|MATERIALIZED VIEW DATA|SEQUENCE SET|BLOB|EVENT TRIGGER|PUBLICATION|COMMENT - )' | sort
}
open_login "$owner" "$scratch" bypassrls
copy() {
  as_login timeout --kill-after 10 "${BACKUP_PROJECT_SECONDS:-3600}" pg_dump --format custom --dbname "$scratch" "$@"
}
pg_restore --list "${schemas[@]/#/--schema=}" "$archive" | contents >"$work/wanted"
copy --schema-only --schema "$schema" --schema "$schema\$*" --file "$work/made" || fail "$schema could not be restored; nothing was changed"
pg_restore --list "$work/made" | contents >"$work/found"
missing=$(comm -23 "$work/wanted" "$work/found")
if grep -qv '^FK CONSTRAINT' <<<"${missing:-FK CONSTRAINT}" || grep -Eq 'COPY failed|MATERIALIZED VIEW DATA|took too long' "$work/first"; then
  printable <"$work/first" >&2
  fail "not all of $schema could be restored, see above; missing: $(paste -sd ';' <<<"$missing" | printable); nothing was changed"
fi
[[ -z $missing ]] || say "left out, because they point outside of the project: $(paste -sd ';' <<<"$missing" | printable)"

for name in "${schemas[@]}"; do
  sql --dbname "$scratch" --command "alter schema \"$name\" rename to \"${copies[$name]}\"" >/dev/null
done
copy --schema "$renamed" --schema "$renamed\$*" --no-privileges --file "$work/renamed" || fail "$renamed could not be copied; nothing was changed"
close_login "$login" "$scratch"
pg_dump --format custom --section pre-data --exclude-schema 'restored_*' --dbname "$scratch" --file "$work/casts"
unfinished=("${copies[@]}")
for name in "${copies[@]}"; do
  make_schema "$name" "$owner" "$database"
done
if ! restore_project --no-privileges "$work/renamed" "$work/casts" "$renamed" "$owner" "$database"; then
  printable <"$work/problems" >&2
  fail "$renamed could not be put into database $database; nothing was changed"
fi
unfinished=()
say "project restored as schema $(printf '%s\n' "${copies[@]}" | sort | paste -sd ' '), for $owner alone; drop it when it is no longer needed"
printf '%s\n' "$renamed"
