#!/usr/bin/env bash
# Makes the passwords of docker-compose.yml, once, into the volume `secrets`; each is readable only by the user of the
# one image that needs it: 999 postgres and redis, 10001 octo, 472 grafana.
set -euo pipefail
umask 077

root=${SECRETS_DIR:-/run/octo}
[[ -e $root/.complete ]] && exit 0

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
put() { # directory/name: the text is read from standard input
    mkdir -p "$root/${1%/*}"
    cat >"$root/$1"
}
superuser=$(random) app=$(random) replication=$(random) redis=$(random) grafana=$(random)
database=supreme_octosuccotash_db

printf '%s' "$superuser" | put postgres/superuser_password
printf '%s' "$app" | put postgres/app_password
printf '%s' "$replication" | put postgres/replication_password
printf 'postgres-primary:5432:*:replicator:%s\n' "$replication" | put postgres/pgpass
printf 'user default on >%s ~* &* +@all\n' "$redis" | put redis/users.acl
printf 'postgres://app_user:%s@postgres-primary:5432/%s' "$app" "$database" | put app/database_url
printf 'postgres://app_user:%s@postgres-replica-1:5432/%s,postgres://app_user:%s@postgres-replica-2:5432/%s' \
    "$app" "$database" "$app" "$database" | put app/replica_urls
printf 'redis://default:%s@redis:6379/0' "$redis" | put app/redis_url
printf '%s' "$grafana" | put grafana/admin_password

chown -R 999:999 "$root/postgres" "$root/redis"
chown -R 10001:10001 "$root/app"
chown -R 472:472 "$root/grafana"
chmod 0755 "$root"
touch "$root/.complete"
