#!/usr/bin/env bash
# Puts one project, as it is in a dump, beside the present one: into a schema restored_<project>_<time>, which the
# project's owner owns and nobody else may look into. Prints the schema's name. Nothing that is there is changed.
#
#   restore-project.sh SCHEMA STAMP
#     SCHEMA  the project's schema, e.g. proj_demo
#     STAMP   as `dataplane backups` lists it, or `latest`
#
# A dump knows no other name for a schema than its own. So the schema is restored into a database of its own, with the
# objects around it that it may refer to, renamed there, and copied from there. Not copied: grants (it would be served at
# once), foreign keys to tables outside of the schema, publications, event triggers. Bodies of functions are text, and
# name what they named.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

schema=$1
[[ $schema =~ ^proj_[a-z0-9_]+$ ]] || fail "$schema is not the schema of a project"
check_major_version
stamp=$(objects resolve "$2")
database=$PGDATABASE
owner=${schema}_owner
[[ $(sql --command "select count(*) from pg_catalog.pg_roles where rolname = '$owner'") == 1 ]] ||
  fail "there is no role $owner: bring the project's cell up first"
renamed=restored_${schema#proj_}
renamed=${renamed:0:46}_$(date -u +%Y%m%dt%H%M%S)
scratch=$renamed
work=$(mktemp -d)
cleanup() {
  rm -rf "$work"
  sql --dbname template1 --command "drop database if exists \"$scratch\" with (force)" >/dev/null 2>&1 || true
}
trap cleanup EXIT

say "looking for $schema in dump $stamp"
objects get "$stamp" "$database.dump" >"$work/dump"
pg_restore --list "$work/dump" >"$work/all"
grep -Eq "^[0-9]+; [0-9]+ [0-9]+ SCHEMA - $schema " "$work/all" || fail "dump $stamp has no $schema"

sql --dbname template1 --command "create database \"$scratch\" template template0" >/dev/null
sql --dbname template1 --command "revoke connect, temporary on database \"$scratch\" from public" >/dev/null
# What is around the schema, without data. Some of it cannot be made twice on a server (a job scheduler, for one), which
# does not matter here; whether the project itself is whole is checked below.
grep -Ev ' (EVENT TRIGGER|PUBLICATION|SUBSCRIPTION|ACL|DEFAULT ACL) ' "$work/all" >"$work/around"
pg_restore --section pre-data --use-list "$work/around" --dbname "$scratch" "$work/dump" >"$work/around.log" 2>&1 || true
pg_restore --section data --schema "$schema" --exit-on-error --dbname "$scratch" "$work/dump" ||
  fail "the rows of $schema could not be restored; nothing was changed"
pg_restore --section post-data --schema "$schema" --no-privileges --dbname "$scratch" "$work/dump" \
  >"$work/after.log" 2>&1 || true

contents() { # one line for each object of the schema: kind, schema, name, owner
  grep -v '^;' | cut -d ' ' -f 4- | grep -Ev '^(ACL|DEFAULT ACL|TABLE DATA|SEQUENCE SET|BLOB|EVENT TRIGGER|PUBLICATION)' | sort
}
pg_restore --list --schema "$schema" "$work/dump" | contents >"$work/wanted"
pg_dump --format custom --schema-only --schema "$schema" "$scratch" | pg_restore --list --schema "$schema" | contents >"$work/found"
missing=$(comm -23 "$work/wanted" "$work/found")
if grep -qv '^FK CONSTRAINT' <<<"${missing:-FK CONSTRAINT}"; then
  cat "$work/around.log" "$work/after.log" >&2
  fail "not all of $schema could be restored, see above; missing: ${missing//$'\n'/; }; nothing was changed"
fi
[[ -z $missing ]] || say "left out, because they point outside of the schema: ${missing//$'\n'/; }"

sql --dbname "$scratch" --command "alter schema \"$schema\" rename to \"$renamed\"" >/dev/null
pg_dump --format custom --schema "$renamed" --no-privileges --no-publications --no-subscriptions \
  --file "$work/renamed" "$scratch"
pg_restore --no-privileges --single-transaction --exit-on-error --dbname "$database" "$work/renamed" ||
  fail "$renamed could not be put into database $database; nothing was changed"
# The owner of the dump's time may have been another.
sql --dbname "$database" --command "alter schema \"$renamed\" owner to \"$owner\"" >/dev/null
say "project restored as schema $renamed, for $owner alone; drop it when it is no longer needed"
printf '%s\n' "$renamed"
