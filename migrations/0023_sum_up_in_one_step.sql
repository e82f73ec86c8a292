-- Sums of reports in one step: what was stored is added to those of hours and of dimensions at once, as soon as it is worth it or its
-- hour is over. What waits until then (`report_deltas`) is read beside them; nothing waits a second time.

-- Whoever adds to the sums meanwhile is done, and nobody begins before this is.
SELECT pg_advisory_xact_lock(1868788868);

-- What waits for its hour to be over stands in the sums of dimensions, and not in those of hours and days: into those with it.
SELECT octo_settle_hours('infinity', 2147483647);
DROP FUNCTION octo_settle_hours;
DROP TABLE report_recent;

-- A sum of counts. That of PostgreSQL is a numeric, and keeps more by the way than a report of millions of rows has time for.
CREATE AGGREGATE octo_sum(bigint) (
    SFUNC = int8pl,
    STYPE = bigint,
    INITCOND = '0',
    COMBINEFUNC = int8pl,
    PARALLEL = SAFE
);

-- The sums of closed days (UTC) by all parts of campaigns and one thing else: a partition for each of those.
CREATE TABLE report_parts (LIKE report_dimensions INCLUDING DEFAULTS) PARTITION BY LIST (dimension);
ALTER TABLE report_parts
    ADD COLUMN rule_id         bigint,
    ADD COLUMN path_id         bigint,
    ADD COLUMN landing_page_id bigint,
    ADD COLUMN offer_id        bigint;
CREATE INDEX report_parts_campaign ON report_parts (campaign_id, day);
CREATE INDEX report_parts_day ON report_parts USING brin (day) WITH (pages_per_range = 32);
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['source', 'country', 'device', 'os', 'browser', 'reason'] LOOP
        EXECUTE format('CREATE TABLE report_parts_%s PARTITION OF report_parts FOR VALUES IN (%L)', name, name);
    END LOOP;
END $$;

-- Those of the days that are closed, one day after the other: of all at once they are not sorted in memory. Of a month of
-- 100,000,000 clicks that takes minutes.
SET LOCAL statement_timeout = 0;
DO $$
DECLARE
    of_day date;
BEGIN
    SET LOCAL work_mem = '64MB';
    FOR of_day IN SELECT DISTINCT day FROM report_days ORDER BY day LOOP
        INSERT INTO report_parts (
            dimension, value, time_kind, day, campaign_id, rule_id, path_id, landing_page_id, offer_id, currency, goal, status,
            rate_day, clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks,
            cost, conversions, amount
        )
        SELECT
            CASE
                WHEN GROUPING(source_id) = 0 THEN 'source'
                WHEN GROUPING(country) = 0 THEN 'country'
                WHEN GROUPING(device) = 0 THEN 'device'
                WHEN GROUPING(os) = 0 THEN 'os'
                WHEN GROUPING(browser) = 0 THEN 'browser'
                WHEN GROUPING(reason) = 0 THEN 'reason'
            END AS dimension,
            CASE
                WHEN GROUPING(source_id) = 0 THEN source_id::text
                WHEN GROUPING(country) = 0 THEN country
                WHEN GROUPING(device) = 0 THEN device
                WHEN GROUPING(os) = 0 THEN os
                WHEN GROUPING(browser) = 0 THEN browser
                WHEN GROUPING(reason) = 0 THEN reason
            END AS value,
            time_kind, day, campaign_id, rule_id, path_id, landing_page_id, offer_id, currency, goal, status, rate_day,
            octo_sum(clicks) AS clicks, octo_sum(valid_clicks) AS valid_clicks, octo_sum(bot_clicks) AS bot_clicks,
            octo_sum(unique_clicks) AS unique_clicks, octo_sum(lander_views) AS lander_views,
            octo_sum(lander_clicks) AS lander_clicks, octo_sum(offer_clicks) AS offer_clicks,
            octo_sum(costed_clicks) AS costed_clicks, coalesce(sum(cost) FILTER (WHERE cost <> 0), 0) AS cost,
            octo_sum(conversions) AS conversions, coalesce(sum(amount) FILTER (WHERE amount <> 0), 0) AS amount
        FROM report_days
        WHERE day = of_day
        GROUP BY
            time_kind, day, campaign_id, rule_id, path_id, landing_page_id, offer_id, currency, goal, status, rate_day,
            GROUPING SETS ((source_id), (country), (device), (os), (browser), (reason))
        ORDER BY dimension, day, campaign_id;
    END LOOP;
END $$;

-- Adds rows of figures to sums, and says how many rows those were. `sums` names some of `hours`, `days` and `dimensions`; days, and
-- dimensions of all campaigns together, are only of what was before `closed`. `source` is one of the texts that stand below, which
-- end with `figures`; what it reads or deletes, and the sums, are one statement and so one snapshot. Dimensions are added up from
-- two sums in between that have a few of them each: that is less than half of all rows for each dimension.
CREATE OR REPLACE FUNCTION octo_add_figures(
    source text, lo timestamptz, hi timestamptz, rows_max integer, sums text[], closed timestamptz
) RETURNS bigint LANGUAGE plpgsql SET work_mem = '64MB' SET jit = off AS $function$
DECLARE
    added bigint;
BEGIN
    EXECUTE format($statement$
WITH %s, hours AS MATERIALIZED (
    SELECT
        time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
        browser, reason, currency, goal, status, rate_day,
        octo_sum(clicks) AS clicks, octo_sum(valid_clicks) AS valid_clicks, octo_sum(bot_clicks) AS bot_clicks,
        octo_sum(unique_clicks) AS unique_clicks, octo_sum(lander_views) AS lander_views,
        octo_sum(lander_clicks) AS lander_clicks, octo_sum(offer_clicks) AS offer_clicks,
        octo_sum(costed_clicks) AS costed_clicks, coalesce(sum(cost) FILTER (WHERE cost <> 0), 0) AS cost,
        octo_sum(conversions) AS conversions, coalesce(sum(amount) FILTER (WHERE amount <> 0), 0) AS amount, count(*) AS rows
    FROM figures
    GROUP BY
        time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
        browser, reason, currency, goal, status, rate_day
), add_hours AS (
    INSERT INTO report_hours (
        time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
        browser, reason, currency, goal, status, rate_day,
        clicks, valid_clicks, bot_clicks, unique_clicks, lander_views,
        lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    )
    SELECT
        time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
        browser, reason, currency, goal, status, rate_day,
        clicks, valid_clicks, bot_clicks, unique_clicks, lander_views,
        lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    FROM hours
    WHERE 'hours' = ANY ($4)
    ORDER BY campaign_id, hour
), days AS MATERIALIZED (
    SELECT
        time_kind, (hour AT TIME ZONE 'UTC')::date AS day, campaign_id, source_id, rule_id, path_id, landing_page_id,
        offer_id, country, device, os, browser, reason, currency, goal, status, rate_day,
        octo_sum(clicks) AS clicks, octo_sum(valid_clicks) AS valid_clicks, octo_sum(bot_clicks) AS bot_clicks,
        octo_sum(unique_clicks) AS unique_clicks, octo_sum(lander_views) AS lander_views,
        octo_sum(lander_clicks) AS lander_clicks, octo_sum(offer_clicks) AS offer_clicks,
        octo_sum(costed_clicks) AS costed_clicks, coalesce(sum(cost) FILTER (WHERE cost <> 0), 0) AS cost,
        octo_sum(conversions) AS conversions, coalesce(sum(amount) FILTER (WHERE amount <> 0), 0) AS amount
    FROM hours
    WHERE 'days' = ANY ($4)
      AND hour < $5
    GROUP BY
        time_kind, day, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
        browser, reason, currency, goal, status, rate_day
), add_days AS (
    INSERT INTO report_days (
        time_kind, day, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
        browser, reason, currency, goal, status, rate_day,
        clicks, valid_clicks, bot_clicks, unique_clicks, lander_views,
        lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    )
    SELECT *
    FROM days
    ORDER BY day, campaign_id
), add_traffic AS (
    INSERT INTO report_traffic (
        time_kind, day, source_id, country, device, os, browser, reason, currency, goal, status, rate_day,
        clicks, valid_clicks, bot_clicks, unique_clicks, lander_views,
        lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    )
    SELECT
        time_kind, day, source_id, country, device, os, browser, reason, currency, goal, status, rate_day,
        octo_sum(clicks) AS clicks, octo_sum(valid_clicks) AS valid_clicks, octo_sum(bot_clicks) AS bot_clicks,
        octo_sum(unique_clicks) AS unique_clicks, octo_sum(lander_views) AS lander_views,
        octo_sum(lander_clicks) AS lander_clicks, octo_sum(offer_clicks) AS offer_clicks,
        octo_sum(costed_clicks) AS costed_clicks, coalesce(sum(cost) FILTER (WHERE cost <> 0), 0) AS cost,
        octo_sum(conversions) AS conversions, coalesce(sum(amount) FILTER (WHERE amount <> 0), 0) AS amount
    FROM days
    GROUP BY time_kind, day, source_id, country, device, os, browser, reason, currency, goal, status, rate_day
), add_parts AS (
    INSERT INTO report_parts (
        dimension, value, time_kind, day, campaign_id, rule_id, path_id, landing_page_id, offer_id, currency, goal, status,
        rate_day,
        clicks, valid_clicks, bot_clicks, unique_clicks, lander_views,
        lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    )
    SELECT
        CASE
            WHEN GROUPING(source_id) = 0 THEN 'source'
            WHEN GROUPING(country) = 0 THEN 'country'
            WHEN GROUPING(device) = 0 THEN 'device'
            WHEN GROUPING(os) = 0 THEN 'os'
            WHEN GROUPING(browser) = 0 THEN 'browser'
            WHEN GROUPING(reason) = 0 THEN 'reason'
        END AS dimension,
        CASE
            WHEN GROUPING(source_id) = 0 THEN source_id::text
            WHEN GROUPING(country) = 0 THEN country
            WHEN GROUPING(device) = 0 THEN device
            WHEN GROUPING(os) = 0 THEN os
            WHEN GROUPING(browser) = 0 THEN browser
            WHEN GROUPING(reason) = 0 THEN reason
        END AS value,
        time_kind, day, campaign_id, rule_id, path_id, landing_page_id, offer_id, currency, goal, status, rate_day,
        octo_sum(clicks) AS clicks, octo_sum(valid_clicks) AS valid_clicks, octo_sum(bot_clicks) AS bot_clicks,
        octo_sum(unique_clicks) AS unique_clicks, octo_sum(lander_views) AS lander_views,
        octo_sum(lander_clicks) AS lander_clicks, octo_sum(offer_clicks) AS offer_clicks,
        octo_sum(costed_clicks) AS costed_clicks, coalesce(sum(cost) FILTER (WHERE cost <> 0), 0) AS cost,
        octo_sum(conversions) AS conversions, coalesce(sum(amount) FILTER (WHERE amount <> 0), 0) AS amount
    FROM days
    GROUP BY
        time_kind, day, campaign_id, rule_id, path_id, landing_page_id, offer_id, currency, goal, status, rate_day,
        GROUPING SETS ((source_id), (country), (device), (os), (browser), (reason))
    ORDER BY dimension, day, campaign_id
), parts AS MATERIALIZED (
    SELECT
        time_kind, (hour AT TIME ZONE 'UTC')::date AS day, campaign_id, source_id, rule_id, path_id, landing_page_id,
        offer_id, currency, goal, status, rate_day,
        octo_sum(clicks) AS clicks, octo_sum(valid_clicks) AS valid_clicks, octo_sum(bot_clicks) AS bot_clicks,
        octo_sum(unique_clicks) AS unique_clicks, octo_sum(lander_views) AS lander_views,
        octo_sum(lander_clicks) AS lander_clicks, octo_sum(offer_clicks) AS offer_clicks,
        octo_sum(costed_clicks) AS costed_clicks, coalesce(sum(cost) FILTER (WHERE cost <> 0), 0) AS cost,
        octo_sum(conversions) AS conversions, coalesce(sum(amount) FILTER (WHERE amount <> 0), 0) AS amount
    FROM hours
    WHERE 'dimensions' = ANY ($4)
    GROUP BY
        time_kind, day, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, currency, goal, status, rate_day
), traffic AS MATERIALIZED (
    SELECT
        time_kind, (hour AT TIME ZONE 'UTC')::date AS day, to_char(hour AT TIME ZONE 'UTC', 'HH24') AS hour_of_day,
        campaign_id, country, device, os, browser, reason, currency, goal, status, rate_day,
        octo_sum(clicks) AS clicks, octo_sum(valid_clicks) AS valid_clicks, octo_sum(bot_clicks) AS bot_clicks,
        octo_sum(unique_clicks) AS unique_clicks, octo_sum(lander_views) AS lander_views,
        octo_sum(lander_clicks) AS lander_clicks, octo_sum(offer_clicks) AS offer_clicks,
        octo_sum(costed_clicks) AS costed_clicks, coalesce(sum(cost) FILTER (WHERE cost <> 0), 0) AS cost,
        octo_sum(conversions) AS conversions, coalesce(sum(amount) FILTER (WHERE amount <> 0), 0) AS amount
    FROM hours
    WHERE 'dimensions' = ANY ($4)
    GROUP BY
        time_kind, hour, campaign_id, country, device, os, browser, reason, currency, goal, status, rate_day
), dimensions AS MATERIALIZED (
    SELECT
        CASE
            WHEN GROUPING(source_id) = 0 THEN 'source'
            WHEN GROUPING(rule_id) = 0 THEN 'rule'
            WHEN GROUPING(path_id) = 0 THEN 'path'
            WHEN GROUPING(landing_page_id) = 0 THEN 'landing_page'
            WHEN GROUPING(offer_id) = 0 THEN 'offer'
            ELSE 'campaign'
        END AS dimension,
        day,
        campaign_id,
        CASE
            WHEN GROUPING(source_id) = 0 THEN source_id::text
            WHEN GROUPING(rule_id) = 0 THEN rule_id::text
            WHEN GROUPING(path_id) = 0 THEN path_id::text
            WHEN GROUPING(landing_page_id) = 0 THEN landing_page_id::text
            WHEN GROUPING(offer_id) = 0 THEN offer_id::text
            ELSE ''
        END AS value,
        time_kind, currency, goal, status, rate_day,
        octo_sum(clicks) AS clicks, octo_sum(valid_clicks) AS valid_clicks, octo_sum(bot_clicks) AS bot_clicks,
        octo_sum(unique_clicks) AS unique_clicks, octo_sum(lander_views) AS lander_views,
        octo_sum(lander_clicks) AS lander_clicks, octo_sum(offer_clicks) AS offer_clicks,
        octo_sum(costed_clicks) AS costed_clicks, coalesce(sum(cost) FILTER (WHERE cost <> 0), 0) AS cost,
        octo_sum(conversions) AS conversions, coalesce(sum(amount) FILTER (WHERE amount <> 0), 0) AS amount
    FROM parts
    GROUP BY
        day, campaign_id, time_kind, currency, goal, status, rate_day,
        GROUPING SETS ((), (source_id), (rule_id), (path_id), (landing_page_id), (offer_id))
    UNION ALL
    SELECT
        CASE
            WHEN GROUPING(country) = 0 THEN 'country'
            WHEN GROUPING(device) = 0 THEN 'device'
            WHEN GROUPING(os) = 0 THEN 'os'
            WHEN GROUPING(browser) = 0 THEN 'browser'
            WHEN GROUPING(reason) = 0 THEN 'reason'
            WHEN GROUPING(hour_of_day) = 0 THEN 'hour'
        END AS dimension,
        day,
        campaign_id,
        CASE
            WHEN GROUPING(country) = 0 THEN country
            WHEN GROUPING(device) = 0 THEN device
            WHEN GROUPING(os) = 0 THEN os
            WHEN GROUPING(browser) = 0 THEN browser
            WHEN GROUPING(reason) = 0 THEN reason
            WHEN GROUPING(hour_of_day) = 0 THEN hour_of_day
        END AS value,
        time_kind, currency, goal, status, rate_day,
        octo_sum(clicks) AS clicks, octo_sum(valid_clicks) AS valid_clicks, octo_sum(bot_clicks) AS bot_clicks,
        octo_sum(unique_clicks) AS unique_clicks, octo_sum(lander_views) AS lander_views,
        octo_sum(lander_clicks) AS lander_clicks, octo_sum(offer_clicks) AS offer_clicks,
        octo_sum(costed_clicks) AS costed_clicks, coalesce(sum(cost) FILTER (WHERE cost <> 0), 0) AS cost,
        octo_sum(conversions) AS conversions, coalesce(sum(amount) FILTER (WHERE amount <> 0), 0) AS amount
    FROM traffic
    GROUP BY
        day, campaign_id, time_kind, currency, goal, status, rate_day,
        GROUPING SETS ((country), (device), (os), (browser), (reason), (hour_of_day))
), add_dimensions AS (
    INSERT INTO report_dimensions AS s (
        dimension, day, campaign_id, value, time_kind, currency, goal, status, rate_day,
        clicks, valid_clicks, bot_clicks, unique_clicks, lander_views,
        lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    )
    SELECT *
    FROM dimensions
    ORDER BY dimension, day, campaign_id
    ON CONFLICT (dimension, day, campaign_id, time_kind, value, currency, goal, status, rate_day) DO UPDATE SET
        clicks = s.clicks + excluded.clicks,
        valid_clicks = s.valid_clicks + excluded.valid_clicks,
        bot_clicks = s.bot_clicks + excluded.bot_clicks,
        unique_clicks = s.unique_clicks + excluded.unique_clicks,
        lander_views = s.lander_views + excluded.lander_views,
        lander_clicks = s.lander_clicks + excluded.lander_clicks,
        offer_clicks = s.offer_clicks + excluded.offer_clicks,
        costed_clicks = s.costed_clicks + excluded.costed_clicks,
        cost = s.cost + excluded.cost,
        conversions = s.conversions + excluded.conversions,
        amount = s.amount + excluded.amount
), add_overall AS (
    INSERT INTO report_overall (
        dimension, day, value, time_kind, currency, goal, status, rate_day,
        clicks, valid_clicks, bot_clicks, unique_clicks, lander_views,
        lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    )
    SELECT
        dimension, day, value, time_kind, currency, goal, status, rate_day,
        octo_sum(clicks) AS clicks, octo_sum(valid_clicks) AS valid_clicks, octo_sum(bot_clicks) AS bot_clicks,
        octo_sum(unique_clicks) AS unique_clicks, octo_sum(lander_views) AS lander_views,
        octo_sum(lander_clicks) AS lander_clicks, octo_sum(offer_clicks) AS offer_clicks,
        octo_sum(costed_clicks) AS costed_clicks, coalesce(sum(cost) FILTER (WHERE cost <> 0), 0) AS cost,
        octo_sum(conversions) AS conversions, coalesce(sum(amount) FILTER (WHERE amount <> 0), 0) AS amount
    FROM dimensions
    WHERE day::timestamp AT TIME ZONE 'UTC' < $5
    GROUP BY dimension, day, value, time_kind, currency, goal, status, rate_day
    ORDER BY dimension, day
)
SELECT coalesce(octo_sum(rows), 0) FROM hours
    $statement$, source)
    INTO added USING lo, hi, rows_max, sums, closed;
    RETURN added;
END $function$;

-- One at a time adds deltas to the sums, closes a day, or counts one from its facts, whichever node does it. Whoever calls these has
-- begun its transaction REPEATABLE READ: what they read at first and what they do then is of one moment. If another was done between
-- that moment and the lock, the row is not what was seen, and it is tried again later (40001).
CREATE OR REPLACE FUNCTION octo_lock_figures() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(1868788868) THEN
        RETURN false;
    END IF;
    UPDATE report_closed SET until = until;
    RETURN true;
END $$;

-- Adds up to so many deltas to the sums, and deletes them; says how many that were, -1 where somebody else is about it. What was
-- clicked on the days of their clicks may have changed: in the same transaction their values are not current any more.
CREATE OR REPLACE FUNCTION octo_fold_deltas(rows_max integer) RETURNS bigint LANGUAGE plpgsql SET synchronize_seqscans = off AS $$
BEGIN
    IF NOT octo_lock_figures() THEN
        RETURN -1;
    END IF;
    UPDATE report_value_days
    SET changes = changes + 1,
        is_current = false
    WHERE day IN (
        SELECT (hour AT TIME ZONE 'UTC')::date
        FROM (SELECT DISTINCT hour FROM report_deltas WHERE time_kind = 0) hours
    );
    PERFORM octo_make_report_day(day)
    FROM (
        SELECT DISTINCT (hour AT TIME ZONE 'UTC')::date AS day
        FROM (SELECT DISTINCT hour FROM report_deltas) hours
    ) days
    ORDER BY day;
    RETURN octo_add_figures(
        $deltas$
until AS MATERIALIZED (
    SELECT max(ctid) AS ctid
    FROM (SELECT ctid FROM report_deltas LIMIT $3) first
), deleted AS (
    DELETE FROM report_deltas
    WHERE ctid <= (SELECT ctid FROM until)
), figures AS (
    SELECT *
    FROM report_deltas
    WHERE ctid <= (SELECT ctid FROM until)
)
        $deltas$,
        NULL, NULL, rows_max, '{hours,days,dimensions}', octo_closed_until()
    );
END $$;

-- Closes the next day (UTC), if it is before another: its hours are added up to sums of days. Says whether it did: 1, or 0 where
-- there is none to close; -1 where somebody else is about it.
CREATE OR REPLACE FUNCTION octo_close_day(before date) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    lo timestamptz := octo_closed_until();
    hi timestamptz := lo + interval '24 hours';
BEGIN
    IF NOT octo_lock_figures() THEN
        RETURN -1;
    END IF;
    IF lo >= before::timestamp AT TIME ZONE 'UTC' THEN
        RETURN 0;
    END IF;
    PERFORM octo_add_figures(
        $hours$
figures AS (
    SELECT
        time_kind, date_trunc('day', hour, 'UTC') AS hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id,
        country, device, os, browser, reason, currency, goal, status, rate_day, clicks, valid_clicks, bot_clicks,
        unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    FROM report_hours
    WHERE hour >= $1
      AND hour < $2
)
        $hours$,
        lo, hi, NULL, '{days}', hi
    );
    INSERT INTO report_overall (
        dimension, day, value, time_kind, currency, goal, status, rate_day, clicks, valid_clicks, bot_clicks,
        unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    )
    SELECT
        dimension, day, value, time_kind, currency, goal, status, rate_day,
        octo_sum(clicks) AS clicks, octo_sum(valid_clicks) AS valid_clicks, octo_sum(bot_clicks) AS bot_clicks,
        octo_sum(unique_clicks) AS unique_clicks, octo_sum(lander_views) AS lander_views,
        octo_sum(lander_clicks) AS lander_clicks, octo_sum(offer_clicks) AS offer_clicks,
        octo_sum(costed_clicks) AS costed_clicks, coalesce(sum(cost) FILTER (WHERE cost <> 0), 0) AS cost,
        octo_sum(conversions) AS conversions, coalesce(sum(amount) FILTER (WHERE amount <> 0), 0) AS amount
    FROM report_dimensions
    WHERE day = (lo AT TIME ZONE 'UTC')::date
    GROUP BY dimension, day, value, time_kind, currency, goal, status, rate_day
    ORDER BY dimension;
    UPDATE report_closed SET until = until + 1;
    RETURN 1;
END $$;

-- Counts the figures of a day (UTC) from its facts, in the place of what the sums say of it: the same, unless facts were
-- stored by a release that knew of no sums, or changed by hand. Says how many facts that were, -1 where somebody else is about it.
-- A day that has lost facts is left as it is: its sums know what nothing else does. Its values are not current any more.
CREATE OR REPLACE FUNCTION octo_recount_day(of_day date) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    lo      timestamptz := of_day::timestamp AT TIME ZONE 'UTC';
    hi      timestamptz := (of_day + 1)::timestamp AT TIME ZONE 'UTC';
    counted bigint;
BEGIN
    IF NOT octo_lock_figures() THEN
        RETURN -1;
    END IF;
    UPDATE report_value_days
    SET changes = changes + 1,
        is_current = false
    WHERE day = of_day;
    IF octo_is_lost(of_day) THEN
        UPDATE report_recounts SET counted_at = now() WHERE day = of_day;
        RETURN 0;
    END IF;
    PERFORM octo_make_report_day(of_day);
    DELETE FROM report_deltas WHERE hour >= lo AND hour < hi;
    DELETE FROM report_hours WHERE hour >= lo AND hour < hi;
    DELETE FROM report_days WHERE day = of_day;
    DELETE FROM report_dimensions WHERE day = of_day;
    DELETE FROM report_overall WHERE day = of_day;
    DELETE FROM report_traffic WHERE day = of_day;
    DELETE FROM report_parts WHERE day = of_day;
    counted := octo_add_figures(
        $facts$
figures AS (
    SELECT
        time_kind, date_trunc('hour', at, 'UTC') AS hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id,
        country, device, os, browser, reason, currency, goal, status, rate_day, clicks, valid_clicks, bot_clicks,
        unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    FROM report_facts
    WHERE at >= $1
      AND at < $2
)
        $facts$,
        lo, hi, NULL, '{hours,days,dimensions}', octo_closed_until()
    );
    UPDATE report_recounts SET counted_at = now() WHERE day = of_day;
    RETURN counted;
END $$;

-- Under which value of each dimension a row of figures is summed up beside the parts of its campaign.
CREATE FUNCTION octo_part_values(source_id bigint, country text, device text, os text, browser text, reason text)
RETURNS TABLE (dimension text, value text) LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    VALUES
        ('source', source_id::text),
        ('country', country),
        ('device', device),
        ('os', os),
        ('browser', browser),
        ('reason', reason)
$$;

-- Where the sums are not what the facts are, from a day (UTC) until before another: by campaign and day how many rows of `hours`,
-- `days`, `parts`, `dimensions`, `overall` or `traffic` differ, and by how much they have more than they should; campaign_id is
-- NULL of the last two. No row: everything adds up.
CREATE OR REPLACE FUNCTION octo_compare_figures(from_day date, to_day date)
RETURNS TABLE (
    kept_by text, day date, campaign_id uuid, differing bigint, clicks numeric, valid_clicks numeric, bot_clicks numeric,
    unique_clicks numeric, lander_views numeric, lander_clicks numeric, offer_clicks numeric, costed_clicks numeric,
    cost numeric, conversions numeric, amount numeric
)
LANGUAGE sql STABLE SET work_mem = '64MB' SET jit = off AS $$
    WITH bounds AS (
        SELECT from_day::timestamp AT TIME ZONE 'UTC' AS lo, to_day::timestamp AT TIME ZONE 'UTC' AS hi
    ), facts AS MATERIALIZED (
        SELECT
            time_kind, date_trunc('hour', at, 'UTC') AS hour, campaign_id, source_id, rule_id, path_id, landing_page_id,
            offer_id, country, device, os, browser, reason, currency, goal, status, rate_day,
            sum(clicks) AS clicks, sum(valid_clicks) AS valid_clicks, sum(bot_clicks) AS bot_clicks, sum(unique_clicks) AS
            unique_clicks, sum(lander_views) AS lander_views, sum(lander_clicks) AS lander_clicks, sum(offer_clicks) AS
            offer_clicks, sum(costed_clicks) AS costed_clicks, sum(cost) AS cost, sum(conversions) AS conversions,
            sum(amount) AS amount
        FROM report_facts
        WHERE at >= (SELECT lo FROM bounds)
          AND at < (SELECT hi FROM bounds)
        GROUP BY
            time_kind, date_trunc('hour', at, 'UTC'), campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id,
            country, device, os, browser, reason, currency, goal, status, rate_day
    ), deltas AS MATERIALIZED (
        SELECT *
        FROM report_deltas
        WHERE hour >= (SELECT lo FROM bounds)
          AND hour < (SELECT hi FROM bounds)
    ), facts_of_days AS MATERIALIZED (
        SELECT
            time_kind, (hour AT TIME ZONE 'UTC')::date AS day, campaign_id, source_id, rule_id, path_id, landing_page_id,
            offer_id, country, device, os, browser, reason, currency, goal, status, rate_day,
            sum(clicks) AS clicks, sum(valid_clicks) AS valid_clicks, sum(bot_clicks) AS bot_clicks,
            sum(unique_clicks) AS unique_clicks, sum(lander_views) AS lander_views, sum(lander_clicks) AS lander_clicks,
            sum(offer_clicks) AS offer_clicks, sum(costed_clicks) AS costed_clicks, sum(cost) AS cost,
            sum(conversions) AS conversions, sum(amount) AS amount
        FROM facts
        WHERE hour < octo_closed_until()
        GROUP BY
            time_kind, day, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
            browser, reason, currency, goal, status, rate_day
    ), facts_of_parts AS MATERIALIZED (
        SELECT
            d.dimension, day, campaign_id, d.value, time_kind, rule_id, path_id, landing_page_id, offer_id, currency, goal,
            status, rate_day,
            sum(clicks) AS clicks, sum(valid_clicks) AS valid_clicks, sum(bot_clicks) AS bot_clicks,
            sum(unique_clicks) AS unique_clicks, sum(lander_views) AS lander_views, sum(lander_clicks) AS lander_clicks,
            sum(offer_clicks) AS offer_clicks, sum(costed_clicks) AS costed_clicks, sum(cost) AS cost,
            sum(conversions) AS conversions, sum(amount) AS amount
        FROM facts_of_days
        CROSS JOIN LATERAL octo_part_values(source_id, country, device, os, browser, reason) d
        GROUP BY
            d.dimension, day, campaign_id, d.value, time_kind, rule_id, path_id, landing_page_id, offer_id, currency, goal,
            status, rate_day
    ), facts_of_dimensions AS MATERIALIZED (
        SELECT
            d.dimension, (hour AT TIME ZONE 'UTC')::date AS day, campaign_id, d.value, time_kind, currency, goal, status,
            rate_day,
            sum(clicks) AS clicks, sum(valid_clicks) AS valid_clicks, sum(bot_clicks) AS bot_clicks,
            sum(unique_clicks) AS unique_clicks, sum(lander_views) AS lander_views, sum(lander_clicks) AS lander_clicks,
            sum(offer_clicks) AS offer_clicks, sum(costed_clicks) AS costed_clicks, sum(cost) AS cost,
            sum(conversions) AS conversions, sum(amount) AS amount
        FROM facts
        CROSS JOIN LATERAL octo_dimension_values(
            hour, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser, reason
        ) d
        GROUP BY d.dimension, day, campaign_id, d.value, time_kind, currency, goal, status, rate_day
    ), sides AS (
        SELECT
            'hours' AS kept_by, -1 AS sign, (hour AT TIME ZONE 'UTC')::date AS day, campaign_id,
            ROW(
                time_kind, hour, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser, reason,
                currency, goal, status, rate_day
            )::text AS key,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM facts
        UNION ALL
        SELECT
            'hours', 1, (hour AT TIME ZONE 'UTC')::date, campaign_id,
            ROW(
                time_kind, hour, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser, reason,
                currency, goal, status, rate_day
            )::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM report_hours
        WHERE hour >= (SELECT lo FROM bounds)
          AND hour < (SELECT hi FROM bounds)
        UNION ALL
        SELECT
            'hours', 1, (hour AT TIME ZONE 'UTC')::date, campaign_id,
            ROW(
                time_kind, hour, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser, reason,
                currency, goal, status, rate_day
            )::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM deltas
        UNION ALL
        SELECT
            'days', -1, day, campaign_id,
            ROW(
                time_kind, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser, reason, currency,
                goal, status, rate_day
            )::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM facts_of_days
        UNION ALL
        SELECT
            'days', 1, day, campaign_id,
            ROW(
                time_kind, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser, reason, currency,
                goal, status, rate_day
            )::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM report_days
        WHERE day >= from_day
          AND day < to_day
        UNION ALL
        SELECT
            'days', 1, (hour AT TIME ZONE 'UTC')::date, campaign_id,
            ROW(
                time_kind, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser, reason, currency,
                goal, status, rate_day
            )::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM deltas
        WHERE hour < octo_closed_until()
        UNION ALL
        SELECT
            'traffic', -1, day, NULL,
            ROW(time_kind, source_id, country, device, os, browser, reason, currency, goal, status, rate_day)::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM facts_of_days
        UNION ALL
        SELECT
            'traffic', 1, day, NULL,
            ROW(time_kind, source_id, country, device, os, browser, reason, currency, goal, status, rate_day)::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM report_traffic
        WHERE day >= from_day
          AND day < to_day
        UNION ALL
        SELECT
            'traffic', 1, (hour AT TIME ZONE 'UTC')::date, NULL,
            ROW(time_kind, source_id, country, device, os, browser, reason, currency, goal, status, rate_day)::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM deltas
        WHERE hour < octo_closed_until()
        UNION ALL
        SELECT
            'parts', -1, day, campaign_id,
            ROW(
                dimension, value, time_kind, rule_id, path_id, landing_page_id, offer_id, currency, goal, status, rate_day
            )::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM facts_of_parts
        UNION ALL
        SELECT
            'parts', 1, day, campaign_id,
            ROW(
                dimension, value, time_kind, rule_id, path_id, landing_page_id, offer_id, currency, goal, status, rate_day
            )::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM report_parts
        WHERE day >= from_day
          AND day < to_day
        UNION ALL
        SELECT
            'parts', 1, (hour AT TIME ZONE 'UTC')::date, campaign_id,
            ROW(
                d.dimension, d.value, time_kind, rule_id, path_id, landing_page_id, offer_id, currency, goal, status, rate_day
            )::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM deltas
        CROSS JOIN LATERAL octo_part_values(source_id, country, device, os, browser, reason) d
        WHERE hour < octo_closed_until()
        UNION ALL
        SELECT
            'dimensions', -1, day, campaign_id,
            ROW(dimension, value, time_kind, currency, goal, status, rate_day)::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM facts_of_dimensions
        UNION ALL
        SELECT
            'dimensions', 1, day, campaign_id,
            ROW(dimension, value, time_kind, currency, goal, status, rate_day)::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM report_dimensions
        WHERE day >= from_day
          AND day < to_day
        UNION ALL
        SELECT
            'dimensions', 1, (hour AT TIME ZONE 'UTC')::date, campaign_id,
            ROW(d.dimension, d.value, time_kind, currency, goal, status, rate_day)::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM deltas
        CROSS JOIN LATERAL octo_dimension_values(
            hour, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser, reason
        ) d
        UNION ALL
        SELECT
            'overall', -1, day, NULL,
            ROW(dimension, value, time_kind, currency, goal, status, rate_day)::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM facts_of_dimensions
        WHERE day::timestamp AT TIME ZONE 'UTC' < octo_closed_until()
        UNION ALL
        SELECT
            'overall', 1, day, NULL,
            ROW(dimension, value, time_kind, currency, goal, status, rate_day)::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM report_overall
        WHERE day >= from_day
          AND day < to_day
        UNION ALL
        SELECT
            'overall', 1, (hour AT TIME ZONE 'UTC')::date, NULL,
            ROW(d.dimension, d.value, time_kind, currency, goal, status, rate_day)::text,
            clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
            conversions, amount
        FROM deltas
        CROSS JOIN LATERAL octo_dimension_values(
            hour, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser, reason
        ) d
        WHERE hour < octo_closed_until()
    ), differences AS (
        SELECT
            kept_by, day, campaign_id,
            sum(sign * clicks) AS clicks, sum(sign * valid_clicks) AS valid_clicks, sum(sign * bot_clicks) AS bot_clicks,
            sum(sign * unique_clicks) AS unique_clicks, sum(sign * lander_views) AS lander_views,
            sum(sign * lander_clicks) AS lander_clicks, sum(sign * offer_clicks) AS offer_clicks,
            sum(sign * costed_clicks) AS costed_clicks, sum(sign * cost) AS cost, sum(sign * conversions) AS conversions,
            sum(sign * amount) AS amount
        FROM sides
        GROUP BY kept_by, day, campaign_id, key
    )
    SELECT kept_by, day, campaign_id, count(*),
        sum(clicks), sum(valid_clicks), sum(bot_clicks), sum(unique_clicks), sum(lander_views), sum(lander_clicks),
        sum(offer_clicks), sum(costed_clicks), sum(cost), sum(conversions), sum(amount)
    FROM differences
    WHERE clicks <> 0
       OR valid_clicks <> 0
       OR bot_clicks <> 0
       OR unique_clicks <> 0
       OR lander_views <> 0
       OR lander_clicks <> 0
       OR offer_clicks <> 0
       OR costed_clicks <> 0
       OR cost <> 0
       OR conversions <> 0
       OR amount <> 0
    GROUP BY kept_by, day, campaign_id
    ORDER BY kept_by, day, campaign_id
$$;
