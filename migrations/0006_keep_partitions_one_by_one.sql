-- Day partitions are made and dropped one a transaction, each with a short lock_timeout: a lock request that waits
-- keeps everybody behind it waiting. Every time comes from this server's now(): the clock of a node deletes nothing.

-- What is in the way of a day's partition is said in a word: made, exists, left (its rows are in the DEFAULT partition
-- and stay there), busy (a lock was not to be had within lock_ms), long (the scan of DEFAULT, which ATTACH does under
-- its lock, did not end within the statement_timeout).
--
-- Rows of the day that are in the DEFAULT partition move into the new one, if they are at most move_max. Of more, the
-- partition begins behind the newest of them: they stay where they are and where every query finds them.
CREATE FUNCTION octo_make_partition(parent text, day date, move_max integer, lock_ms integer) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    name      text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
    rest      text := format('%s_default', parent);
    exclusion text := format('octo_day_%s', to_char(day, 'YYYYMMDD'));
    begins    timestamptz := day::timestamp AT TIME ZONE 'UTC';
    ends      timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    count_sql text := format(
        'SELECT count(*), max(created_at)
         FROM (SELECT created_at FROM %I WHERE created_at >= $1 AND created_at < $2
               ORDER BY created_at DESC LIMIT $3) AS there', rest);
    there     bigint;
    newest    timestamptz;
    excluded  boolean;
BEGIN
    IF parent NOT IN ('clicks', 'events') THEN
        RAISE EXCEPTION 'octo keeps partitions of clicks and events, not of %', parent;
    END IF;
    PERFORM set_config('lock_timeout', lock_ms::text, true);
    PERFORM pg_advisory_xact_lock(1868788848); -- one node at a time
    IF to_regclass(name) IS NOT NULL THEN
        RETURN 'exists';
    END IF;
    EXECUTE count_sql INTO there, newest USING begins, ends, move_max + 1;
    IF there > move_max AND (ends <= now() OR newest >= ends - interval '1 minute') THEN
        RETURN 'left'; -- nothing more of that day is to come, or next to nothing: not worth a lock
    END IF;
    excluded := EXISTS (SELECT FROM pg_constraint WHERE conrelid = rest::regclass AND conname = exclusion);

    EXECUTE format('LOCK TABLE ONLY %I IN SHARE UPDATE EXCLUSIVE MODE', parent);
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', rest);
    IF excluded AND begins < now() + interval '1 day' THEN
        -- left behind, and its rows are about to come: they must find a place
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', rest, exclusion);
        excluded := false;
    END IF;
    EXECUTE count_sql INTO there, newest USING begins, ends, move_max + 1; -- now nobody adds to them
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parent);
    IF there > move_max THEN
        begins := newest + interval '1 microsecond';
    ELSIF there > 0 THEN
        EXECUTE format(
            'WITH moved AS (DELETE FROM %I WHERE created_at >= $1 AND created_at < $2 RETURNING *)
             INSERT INTO %I SELECT * FROM moved', rest, name) USING begins, ends;
    END IF;
    IF begins >= ends THEN
        EXECUTE format('DROP TABLE %I', name);
        RETURN 'left';
    END IF;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, begins, ends);
    IF excluded THEN
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', rest, exclusion); -- the partition says the same
    END IF;
    RETURN 'made';
EXCEPTION
    WHEN lock_not_available THEN RETURN 'busy';
    WHEN query_canceled THEN RETURN 'long';
    WHEN duplicate_table THEN RETURN 'exists'; -- another node was faster, and our view of the catalogue older
END $$;

-- Of a DEFAULT partition that takes too long to scan under ATTACH's lock: keeps the rows of a day to come out of it, and
-- octo_check_default then proves under a lock that stops nobody that it holds none, so that ATTACH need not look.
-- Not of a day that begins soon: while this stands and the partition is not there, rows of the day cannot be stored.
CREATE FUNCTION octo_exclude_day(parent text, day date, lock_ms integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    rest      text := format('%s_default', parent);
    exclusion text := format('octo_day_%s', to_char(day, 'YYYYMMDD'));
BEGIN
    IF parent NOT IN ('clicks', 'events') OR day::timestamp AT TIME ZONE 'UTC' < now() + interval '1 day' THEN
        RETURN 'soon';
    END IF;
    PERFORM set_config('lock_timeout', lock_ms::text, true);
    PERFORM pg_advisory_xact_lock(1868788848);
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = rest::regclass AND conname = exclusion) THEN
        EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I CHECK (created_at < %L OR created_at >= %L) NOT VALID',
            rest, exclusion, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
    END IF;
    RETURN 'done';
EXCEPTION
    WHEN lock_not_available THEN RETURN 'busy';
END $$;

CREATE FUNCTION octo_check_default(parent text, day date, lock_ms integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    rest      text := format('%s_default', parent);
    exclusion text := format('octo_day_%s', to_char(day, 'YYYYMMDD'));
BEGIN
    PERFORM set_config('lock_timeout', lock_ms::text, true);
    BEGIN
        EXECUTE format('ALTER TABLE %I VALIDATE CONSTRAINT %I', rest, exclusion);
    EXCEPTION WHEN check_violation THEN
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', rest, exclusion);
        RETURN 'left'; -- rows of that day are there
    END;
    RETURN 'done';
EXCEPTION
    WHEN lock_not_available OR undefined_object THEN RETURN 'busy';
END $$;

-- Drops a day partition whose last hour is older than keep_days: gone, kept (it is not), busy.
CREATE FUNCTION octo_drop_partition(name text, keep_days integer, lock_ms integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('lock_timeout', lock_ms::text, true);
    PERFORM pg_advisory_xact_lock(1868788848);
    IF name !~ '^(clicks|events)_[0-9]{8}$' OR keep_days < 1
        OR (to_date(right(name, 8), 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC'
            > least(now() - keep_days * interval '1 day', date_trunc('day', now(), 'UTC'))
        OR NOT EXISTS (
            SELECT FROM pg_inherits
            WHERE inhrelid = to_regclass(name) AND inhparent = split_part(name, '_', 1)::regclass
        )
    THEN
        RETURN 'kept';
    END IF;
    EXECUTE format('DROP TABLE %I', name);
    RETURN 'gone';
EXCEPTION
    WHEN lock_not_available OR query_canceled THEN RETURN 'busy'; -- it is rolled back, and tried again
    WHEN undefined_table THEN RETURN 'kept'; -- another node was faster
END $$;

-- Nodes of the release before still call this with a time of their own clock: one that is ahead of ours drops nothing.
CREATE OR REPLACE FUNCTION octo_drop_partitions(cutoff timestamptz) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    part    record;
    dropped integer := 0;
BEGIN
    IF cutoff > date_trunc('day', now(), 'UTC') THEN
        RETURN 0;
    END IF;
    FOR part IN
        SELECT c.relname AS name, p.relname AS parent
        FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid
        JOIN pg_class p ON p.oid = i.inhparent
        WHERE p.relname IN ('clicks', 'events')
          AND c.relname ~ '^(clicks|events)_[0-9]{8}$'
          AND (to_date(right(c.relname, 8), 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC' <= cutoff
        ORDER BY c.relname
    LOOP
        EXECUTE format('DROP TABLE %I', part.name);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM clicks_default WHERE created_at < cutoff;
    DELETE FROM events_default WHERE created_at < cutoff;
    DELETE FROM event_keys WHERE created_at < cutoff;
    DELETE FROM dead_letters WHERE created_at < cutoff;
    RETURN dropped;
END $$;

-- A dump that is restored into another cluster brings its transaction ids along as data. Those that this server has not
-- given out yet look like changes to come, and every poll would read their campaigns again, for ever: a node that sees
-- such rows sets them to an id of this server (octo::db::campaigns::heal), which is no new version of a campaign.
CREATE OR REPLACE FUNCTION octo_campaign_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_xid := pg_current_xact_id();
    IF OLD.changed_xid >= pg_snapshot_xmax(pg_current_snapshot())
        AND OLD.changed_xid <> NEW.changed_xid
        AND to_jsonb(NEW) - 'changed_xid' = to_jsonb(OLD) - 'changed_xid'
    THEN
        RETURN NEW;
    END IF;
    NEW.version := OLD.version + 1;
    NEW.updated_at := now();
    RETURN NEW;
END $$;
