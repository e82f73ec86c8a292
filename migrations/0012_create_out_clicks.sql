-- From a landing page to an offer: out-clicks, a fact of their own, and what seals the tokens of their links.

-- Partitioned by day (UTC) as clicks are, with the key that finds one and lists them by time. click_id is what an
-- owner asks for, and what an erasure deletes by; no foreign key: an out-click may come before its click.
CREATE TABLE out_clicks (
    id              uuid        NOT NULL,
    click_id        uuid,
    campaign_id     uuid,
    rule_id         bigint,
    path_id         bigint,
    landing_page_id bigint,
    offer_id        bigint,
    position        bigint,
    carrier         text        NOT NULL,
    problem         text,
    routed          text[],
    is_valid        boolean     NOT NULL,
    invalid_reason  text,
    is_bot          boolean     NOT NULL,
    country         text,
    device          text,
    os              text,
    browser         text,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (created_at, id)
) PARTITION BY RANGE (created_at);
CREATE INDEX out_clicks_created_at_brin ON out_clicks USING brin (created_at);
CREATE INDEX out_clicks_click_id ON out_clicks (click_id) WHERE click_id IS NOT NULL;
CREATE TABLE out_clicks_default PARTITION OF out_clicks DEFAULT;

-- The clicks of which an out-click that counts is stored; created_at is the click's. The unique key makes one of them
-- the first, whichever node stores it, and is_counted says that the click itself is stored too, so that it stands in
-- lander_clicks of its hour: never an out-click whose click does not stand in lander_views there.
CREATE TABLE out_click_keys (
    click_id    uuid        PRIMARY KEY,
    created_at  timestamptz NOT NULL,
    is_counted  boolean     NOT NULL
);
CREATE INDEX out_click_keys_created_at_brin ON out_click_keys USING brin (created_at);
CREATE INDEX out_click_keys_waiting ON out_click_keys (created_at) WHERE NOT is_counted;

-- Of the hour of the click: valid clicks that were sent to a landing page, and those of them with an out-click.
ALTER TABLE campaign_stats_hourly
    ADD COLUMN lander_views  bigint NOT NULL DEFAULT 0,
    ADD COLUMN lander_clicks bigint NOT NULL DEFAULT 0;

-- What tokens of out-links and test links are sealed under, for all nodes. The id is made of the key. The newest whose
-- seals_from is past seals; one without only opens: a node made it for itself while this database was away.
CREATE TABLE seal_keys (
    id          bigint      PRIMARY KEY,
    key         bytea       NOT NULL CHECK (length(key) = 32),
    seals_from  timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- The functions that name the partitioned tables, with one more (see 0006).
CREATE OR REPLACE FUNCTION octo_make_partition(parent text, day date, move_max integer, lock_ms integer) RETURNS text
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
    IF parent NOT IN ('clicks', 'events', 'out_clicks') THEN
        RAISE EXCEPTION 'octo keeps partitions of clicks, events and out_clicks, not of %', parent;
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

CREATE OR REPLACE FUNCTION octo_exclude_day(parent text, day date, lock_ms integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    rest      text := format('%s_default', parent);
    exclusion text := format('octo_day_%s', to_char(day, 'YYYYMMDD'));
BEGIN
    IF parent NOT IN ('clicks', 'events', 'out_clicks') OR day::timestamp AT TIME ZONE 'UTC' < now() + interval '1 day' THEN
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

CREATE OR REPLACE FUNCTION octo_drop_partition(name text, keep_days integer, lock_ms integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('lock_timeout', lock_ms::text, true);
    PERFORM pg_advisory_xact_lock(1868788848);
    IF name !~ '^(clicks|events|out_clicks)_[0-9]{8}$' OR keep_days < 1
        OR (to_date(right(name, 8), 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC'
            > least(now() - keep_days * interval '1 day', date_trunc('day', now(), 'UTC'))
        OR NOT EXISTS (
            SELECT FROM pg_inherits
            WHERE inhrelid = to_regclass(name) AND inhparent = left(name, -9)::regclass
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

-- For nodes of the releases before 0006.
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
        WHERE p.relname IN ('clicks', 'events', 'out_clicks')
          AND c.relname ~ '^(clicks|events|out_clicks)_[0-9]{8}$'
          AND (to_date(right(c.relname, 8), 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC' <= cutoff
        ORDER BY c.relname
    LOOP
        EXECUTE format('DROP TABLE %I', part.name);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM clicks_default WHERE created_at < cutoff;
    DELETE FROM events_default WHERE created_at < cutoff;
    DELETE FROM out_clicks_default WHERE created_at < cutoff;
    DELETE FROM event_keys WHERE created_at < cutoff;
    DELETE FROM dead_letters WHERE created_at < cutoff;
    RETURN dropped;
END $$;
