#!/bin/sh
# The archive_command of the database's container: asks the archiver beside it to upload one segment, and waits.
#
# Supabase's image has no program that speaks S3, so the upload is the archiver's (wal-archiver.sh). PostgreSQL hears what
# became of it: this ends with 0 exactly when the segment is in the object store.
#
#   queue-wal.sh PATH FOLDER
#     PATH    the segment, as PostgreSQL's %p
#     FOLDER  shared with the archiver
set -eu
name=${1##*/}
folder=$2
# Of 0.2 s. PostgreSQL tries three times while it stops, which has to fit into the time that a Pod is given for that.
attempts=${HAND_OVER_ATTEMPTS:-300}

# What an attempt that PostgreSQL gave up left behind is no answer to this one.
rm -f "$folder/$name.done" "$folder/$name.failed"
: >"$folder/$name.asked"
while [ "$attempts" -gt 0 ]; do
  if [ -f "$folder/$name.done" ]; then
    rm -f "$folder/$name.done"
    exit 0
  fi
  if [ -f "$folder/$name.failed" ]; then
    cat "$folder/$name.failed" >&2
    rm -f "$folder/$name.failed"
    exit 1
  fi
  attempts=$((attempts - 1))
  sleep 0.2
done
echo "$name was not archived: the container wal-archiver does not answer; PostgreSQL keeps it and tries again" >&2
exit 1
