-- Raw facts, partitioned by day (UTC) on created_at, which is the time inside the click's UUIDv7.
-- The primary key begins with created_at: it finds one click (its id says its time), lists clicks by time
-- with a keyset, and prunes partitions. No foreign keys: the drain is the only writer.

CREATE TABLE clicks (
    id                uuid        NOT NULL,
    campaign_id       uuid        NOT NULL,
    ip_address        inet,
    user_agent        text,
    referrer          text,
    is_valid          boolean     NOT NULL,
    invalid_reason    text,
    is_bot            boolean     NOT NULL,
    country           text,
    device            text,
    os                text,
    browser           text,
    sub1              text,
    sub2              text,
    sub3              text,
    sub4              text,
    sub5              text,
    click_id_param    text,
    affiliate_sub     text,
    affiliate_sub2    text,
    affiliate_sub3    text,
    affiliate_sub4    text,
    affiliate_sub5    text,
    landing_page_id   bigint,
    campaign_offer_id bigint,
    traffic_source_id text,
    cost              numeric(18, 6),
    currency          text,
    conversion_type   text,
    converted_at      timestamptz,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    PRIMARY KEY (created_at, id)
) PARTITION BY RANGE (created_at);
CREATE INDEX clicks_created_at_brin ON clicks USING brin (created_at);
CREATE TABLE clicks_default PARTITION OF clicks DEFAULT;

CREATE TABLE events (
    id          uuid        NOT NULL,
    click_id    uuid,
    campaign_id uuid,
    event_type  text        NOT NULL,
    event_name  text,
    event_data  jsonb,
    url         text,
    referrer    text,
    session_id  text,
    user_id     text,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (created_at, id)
) PARTITION BY RANGE (created_at);
CREATE INDEX events_created_at_brin ON events USING brin (created_at);
CREATE INDEX events_click_id ON events (click_id) WHERE click_id IS NOT NULL;
CREATE TABLE events_default PARTITION OF events DEFAULT;

-- Ids given by senders: the same id again is the same event, in whichever partition it would fall.
CREATE TABLE event_keys (
    id          uuid        PRIMARY KEY,
    created_at  timestamptz NOT NULL
);
CREATE INDEX event_keys_created_at_brin ON event_keys USING brin (created_at);

CREATE TABLE campaign_stats_hourly (
    campaign_id  uuid        NOT NULL,
    hour         timestamptz NOT NULL,
    clicks       bigint      NOT NULL DEFAULT 0,
    valid_clicks bigint      NOT NULL DEFAULT 0,
    bot_clicks   bigint      NOT NULL DEFAULT 0,
    events       bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (campaign_id, hour)
) WITH (fillfactor = 70); -- updates of one page stay in it (HOT)

-- How far each journal stream is in this database; moves in the transaction that stores the rows.
CREATE TABLE ingest_watermark (
    stream      uuid        PRIMARY KEY,
    seq         bigint      NOT NULL CHECK (seq >= 0),
    updated_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Records this database refused for what they hold, byte for byte.
CREATE TABLE dead_letters (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream      uuid        NOT NULL,
    seq         bigint      NOT NULL,
    record      bytea       NOT NULL,
    sqlstate    text        NOT NULL,
    message     text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (stream, seq)
);

-- Makes the partitions of clicks and events from two days ago to `ahead` days from now (UTC). A day whose
-- rows are already in the DEFAULT partition is left there. ATTACH takes a weaker lock on the parent than
-- CREATE .. PARTITION OF.
CREATE FUNCTION octo_make_partitions(ahead integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day    date;
    name   text;
    made   integer := 0;
BEGIN
    FOREACH parent IN ARRAY ARRAY['clicks', 'events'] LOOP
        FOR day IN SELECT generate_series((now() AT TIME ZONE 'UTC')::date - 2, (now() AT TIME ZONE 'UTC')::date + ahead, '1 day')::date LOOP
            name := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
            CONTINUE WHEN to_regclass(name) IS NOT NULL;
            BEGIN
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parent);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name,
                    day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
                made := made + 1;
            EXCEPTION WHEN check_violation OR duplicate_table THEN
                NULL; -- rows of that day are in the DEFAULT partition, or another node was faster
            END;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;

-- Drops the partitions of clicks and events whose last day is over before `cutoff`, and older rows elsewhere.
CREATE FUNCTION octo_drop_partitions(cutoff timestamptz) RETURNS integer LANGUAGE plpgsql AS $$
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
    RETURN dropped;
END $$;
