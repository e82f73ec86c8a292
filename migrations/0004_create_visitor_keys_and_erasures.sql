-- What visitors are hashed under on a day (UTC), so that all nodes agree; gone when the day is over.
CREATE TABLE visitor_keys (
    day         date        PRIMARY KEY,
    key         bytea       NOT NULL CHECK (length(key) = 16),
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- What was erased: the drain drops records that are older than their erasure, and each node blanks them in its
-- journal. A value is kept as its SHA-256 only. Ids are given under a lock, so they are seen in their order.
CREATE TABLE erasures (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    click_id    uuid,
    sub_hash    bytea,
    created_at  timestamptz NOT NULL,
    CHECK ((click_id IS NULL) <> (sub_hash IS NULL))
);

-- Waits for every transaction that stores records or tries dead letters again, and keeps new ones waiting until the
-- end of this one: what comes to an end before it is seen by it, and what begins after it sees what it wrote.
CREATE FUNCTION octo_lock_for_erasure() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE ingest_watermark, dead_letters IN EXCLUSIVE MODE;
    RETURN true;
END $$;

-- Retention is of dead letters too: they are clicks and events.
CREATE OR REPLACE FUNCTION octo_drop_partitions(cutoff timestamptz) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    part    record;
    dropped integer := 0;
BEGIN
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
