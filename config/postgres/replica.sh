#!/usr/bin/env bash
# Starts a streaming replica; the first start copies the primary. A copy that was interrupted is begun anew, one that
# is complete is never touched: to rebuild a replica, remove its volume.
set -euo pipefail
umask 077

home=${REPLICA_HOME:-/var/lib/postgresql/data}
primary=${PRIMARY_HOST:-postgres-primary} port=${PRIMARY_PORT:-5432}
passfile=${SECRETS_DIR:-/run/octo}/postgres/pgpass

if [[ ! -e $home/base/PG_VERSION ]]; then
    rm -rf "$home/incoming"
    until pg_basebackup --pgdata="$home/incoming" --wal-method=stream --checkpoint=fast --write-recovery-conf \
        --slot="$REPLICA_SLOT" \
        --dbname="host=$primary port=$port user=replicator passfile=$passfile application_name=$REPLICA_SLOT"; do
        echo "the primary cannot be copied yet; trying again in 2 s" >&2
        rm -rf "$home/incoming"
        sleep 2
    done
    rm -rf "$home/base"
    mv "$home/incoming" "$home/base"
fi

exec postgres -D "$home/base" -c listen_addresses='*' "$@"
