#!/bin/sh
# The relay: brings what Auth has changed of users to the tables of their projects (platform_users.sql says how).
#
# It asks twice a second, with one connection that it keeps, which projects have something to be delivered. Each gets a
# session of its own, that of a login which can be the project's owner and nobody else, in a process that nobody waits for.
# How many at once, and when one has to end, the database says. (psql sees a notification only after a statement, so it
# would have to ask all the same; and who listens can fill the queue that all of the server shares.)
#
#   PGHOST PGPORT PGDATABASE PGUSER PGPASSWORD …  the database, as the relay's own login
#   RELAY_FOLDER           where it writes `alive` when it goes round, and `done` when the database has answered
#   RELAY_GIVE_UP_MINUTES  it ends when the database has not answered for so long; unset, it never does
set -u
folder=${RELAY_FOLDER:-/tmp}

# A session for one project. Of what the project's code says nothing comes back but how it ended, and psql may use little
# memory to hear it. What it has set for the next event ends with the session, which is bounded.
deliver() { # of $tenant, with $password
    event='select * from data_plane.begin_delivery() \gset
\if :begun
select data_plane.deliver();
\elif :ended
\quit
\endif'
    ulimit -d 32768
    i=0
    while [ $i -lt 500 ]; do
        printf '%s\n' "$event"
        i=$((i + 1))
    done 2>/dev/null |
        PGUSER="$tenant\$relay" PGPASSWORD=$password PGAPPNAME=data-plane-delivery PGOPTIONS="\
-c role=${tenant}_owner -c search_path=$tenant,extensions -c client_min_messages=error -c statement_timeout=5s -c lock_timeout=2s \
-c idle_in_transaction_session_timeout=5s -c idle_session_timeout=10s -c client_connection_check_interval=2s" \
            psql --no-psqlrc --quiet --no-align --tuples-only \
            'connect_timeout=5 tcp_user_timeout=30000' >/dev/null 2>&1
}

touch "$folder/alive" "$folder/done"
while [ -z "${RELAY_GIVE_UP_MINUTES:-}" ] || [ -n "$(find "$folder/done" -mmin "-$RELAY_GIVE_UP_MINUTES")" ]; do
    # Ends with this process, and not only when it writes.
    while kill -0 $$ 2>/dev/null && sleep 0.5; do
        touch "$folder/alive"
        printf '%s\n' 'select * from data_plane.open_deliveries();' '\echo done'
    done |
        psql --no-psqlrc --quiet --no-align --tuples-only --field-separator ' ' --set ON_ERROR_STOP=1 \
            'connect_timeout=5 tcp_user_timeout=30000' |
        while read -r tenant password; do
            case $tenant in
            done) touch "$folder/done" ;;
            # In a shell that ends at once, so that nobody has to wait for it.
            proj_*) (deliver &) ;;
            esac
        done
    touch "$folder/alive"
    sleep 2
done
