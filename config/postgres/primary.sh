#!/usr/bin/env bash
# Runs once, by the postgres image, when the primary's data directory is made: octo's user and database, the
# replication user and a slot for each replica. The password files are readable by the user this runs as.
set -euo pipefail

secrets=${SECRETS_DIR:-/run/octo}/postgres
app=$(<"$secrets/app_password")
replication=$(<"$secrets/replication_password")

# the passwords go in on standard input: arguments are for everyone to see
psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --username "${POSTGRES_USER:-postgres}" --dbname postgres >/dev/null <<SQL
SET log_statement = 'none';
CREATE ROLE app_user LOGIN PASSWORD '$app';
GRANT pg_monitor TO app_user; -- replication lag, activity
CREATE DATABASE supreme_octosuccotash_db OWNER app_user;
REVOKE ALL ON DATABASE supreme_octosuccotash_db FROM PUBLIC;
CREATE ROLE replicator LOGIN REPLICATION PASSWORD '$replication';
SELECT pg_create_physical_replication_slot('replica_1');
SELECT pg_create_physical_replication_slot('replica_2');
SQL

echo 'host replication replicator samenet scram-sha-256' >>"$PGDATA/pg_hba.conf"
