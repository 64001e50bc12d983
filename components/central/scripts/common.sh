# What the backup scripts share; sourced, never run.
#
# Where backups are:
#   BACKUP_DESTINATION   s3://bucket/prefix
#   BACKUP_SERVER        the name under the prefix, as in Barman
#   BACKUP_ENDPOINT      URL of an S3-compatible server; empty for AWS
#   BACKUP_ADDRESSING    auto, path or virtual
#   BACKUP_ENCRYPTION    AES256 or aws:kms, by the object store; empty for what the bucket does by itself
#   BACKUP_ENV_FILE      a private file to read all of these from (the local data plane's way)
#   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION
#   BACKUP_FOLDER        a folder of this machine instead of all of these, for one dump
# The database: libpq's PG* variables.
# shellcheck shell=bash

say() {
  printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >&2
}

fail() {
  say "error: $*"
  exit 1
}

# Messages that are looked at, and names that are compared, are the same everywhere.
export LC_ALL=C
# A backup holds every password's verifier and every row: nothing that is written on the way is for others to read.
umask 077

if [[ -n ${BACKUP_ENV_FILE:-} ]]; then
  # shellcheck disable=SC1090
  . "$BACKUP_ENV_FILE"
fi

if [[ -z ${BACKUP_FOLDER:-} ]]; then
  for name in BACKUP_DESTINATION BACKUP_SERVER AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; do
    [[ -n ${!name:-} ]] || fail "$name is not set"
  done
fi

# An object store that does not answer should be an error while the process that asked still waits for it.
export AWS_RETRY_MODE=standard AWS_MAX_ATTEMPTS=${AWS_MAX_ATTEMPTS:-3}

# Options that every barman-cloud program takes.
store=(--cloud-provider aws-s3 --addressing-style "${BACKUP_ADDRESSING:-auto}")
if [[ -n ${BACKUP_ENDPOINT:-} ]]; then
  store+=(--endpoint-url "$BACKUP_ENDPOINT")
  # boto3 adds checksums by default that many S3-compatible servers do not know.
  export AWS_REQUEST_CHECKSUM_CALCULATION=when_required AWS_RESPONSE_CHECKSUM_VALIDATION=when_required
fi
# … and those that write.
# shellcheck disable=SC2034
writing=("${store[@]}" ${BACKUP_ENCRYPTION:+--encryption "$BACKUP_ENCRYPTION"})

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Names the store in a message.
place() {
  if [[ -n ${BACKUP_FOLDER:-} ]]; then
    printf '%s' "$BACKUP_FOLDER"
  else
    printf '%s/%s at %s' "$BACKUP_DESTINATION" "$BACKUP_SERVER" "${BACKUP_ENDPOINT:-AWS}"
  fi
}

objects() {
  if [[ -n ${BACKUP_FOLDER:-} ]]; then
    in_folder "$@"
  else
    python3 "$scripts/object_store.py" "$@"
  fi
}

# What object_store.py does, for the only dump of a folder: its files in `files`, what it is without in `missing`.
in_folder() { # ACTION [STAMP [NAME]]
  # A database may have any name, a file may not.
  local name=${3:-} files=$BACKUP_FOLDER/files
  name=${name//%/%25}
  name=${name//\//%2F}
  case $1 in
    put) mkdir -p "$files" && cat >"$files/$name" ;;
    remove) rm -f "$files/$name" ;;
    finish) cat >"$BACKUP_FOLDER/missing" ;;
    resolve) [[ -f $BACKUP_FOLDER/missing ]] && printf '%s\n' "$2" ;;
    get) cat "$files/$name" ;;
    files) find "$files" -type f -printf '%f\n' | sort | sed 's/%2F/\//g; s/%25/%/g' ;;
    missing) cat "$BACKUP_FOLDER/missing" ;;
    expire) ;;
    *) fail "a folder knows no $1" ;;
  esac
}

# A session of the platform: it finds no name but PostgreSQL's own, and waits for nobody without end.
sql() {
  PGOPTIONS="-c search_path=pg_catalog,pg_temp -c lock_timeout=60s -c statement_timeout=15min" \
    psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 "$@"
}

# Programs of another major version write dumps and read control files that the server's own do not understand.
# A dump for an upgrade is made by those of the version that it is for: BACKUP_UPGRADE_TO.
check_major_version() {
  local server client
  server=$(sql --command 'show server_version_num') || fail "PostgreSQL at ${PGHOST:-the local socket} cannot be used"
  client=$(pg_dump --version | sed -E 's/^[^0-9]*([0-9]+).*$/\1/')
  [[ $((server / 10000)) -eq $client || ($client -eq ${BACKUP_UPGRADE_TO:-0} && $((server / 10000)) -lt $client) ]] ||
    fail "the server is PostgreSQL $((server / 10000)) and the programs here are $client: use the image of that version"
}
