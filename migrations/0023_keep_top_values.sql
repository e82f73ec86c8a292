-- Of what links say freely (sub1 to sub5, keyword, creative, placement) the values that were clicked most, by day (UTC): what a report
-- over many clicks reads, where counting them one by one takes too long. Clicks only: conversions are few.

-- The most clicked values of a day and dimension; what is left of each campaign and currency in a row of its own, `is_other`.
CREATE TABLE report_values (
    dimension     text    NOT NULL,
    day           date    NOT NULL,
    campaign_id   uuid    NOT NULL,
    value         text,               -- NULL: it is not known; or many, where is_other
    is_other      boolean NOT NULL,
    other_values  bigint  NOT NULL,   -- how many values are in it, where is_other
    currency      text,
    clicks        bigint  NOT NULL,
    valid_clicks  bigint  NOT NULL,
    bot_clicks    bigint  NOT NULL,
    unique_clicks bigint  NOT NULL,
    lander_views  bigint  NOT NULL,
    lander_clicks bigint  NOT NULL,
    offer_clicks  bigint  NOT NULL,
    costed_clicks bigint  NOT NULL,
    cost          numeric NOT NULL
);
CREATE INDEX report_values_dimension_day ON report_values (dimension, day);
CREATE INDEX report_values_day_brin ON report_values USING brin (day);

-- Days whose values are counted, or are to be. `changes` goes up with everything that changes clicks of the day: what was counted
-- meanwhile is not current.
CREATE TABLE report_value_days (
    day         date        PRIMARY KEY,
    changes     bigint      NOT NULL DEFAULT 0,
    counted_at  timestamptz,            -- NULL: not yet
    is_current  boolean     NOT NULL DEFAULT false
);

-- Counts the values of a day from its facts; the day stands in report_value_days since an earlier transaction. Called READ COMMITTED: what
-- changes meanwhile is seen at the end, or still waits in report_deltas. Says how many rows those are, -1 where somebody else is
-- about it.
CREATE FUNCTION octo_count_values(of_day date, values_max integer) RETURNS bigint
LANGUAGE plpgsql SET work_mem = '64MB' SET jit = off AS $function$
DECLARE
    lo      timestamptz := of_day::timestamp AT TIME ZONE 'UTC';
    hi      timestamptz := (of_day + 1)::timestamp AT TIME ZONE 'UTC';
    seen    bigint;
    name    text;
    counted bigint := 0;
    more    bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1868788869) THEN
        RETURN -1;
    END IF;
    SELECT changes INTO seen FROM report_value_days WHERE day = of_day;
    IF seen IS NULL OR octo_is_lost(of_day) THEN
        RETURN 0;
    END IF;
    FOREACH name IN ARRAY ARRAY['sub1', 'sub2', 'sub3', 'sub4', 'sub5', 'keyword', 'creative', 'placement'] LOOP
        DELETE FROM report_values WHERE dimension = name AND day = of_day;
        EXECUTE format($statement$
WITH figures AS MATERIALIZED (
    SELECT
        campaign_id, %I AS value, currency, sum(clicks) AS clicks, sum(valid_clicks) AS valid_clicks, sum(bot_clicks) AS bot_clicks,
        sum(unique_clicks) AS unique_clicks, sum(lander_views) AS lander_views, sum(lander_clicks) AS lander_clicks,
        sum(offer_clicks) AS offer_clicks, sum(costed_clicks) AS costed_clicks, sum(cost) AS cost
    FROM report_facts
    WHERE time_kind = 0
      AND at >= $1
      AND at < $2
    GROUP BY 1, 2, 3
), kept AS (
    SELECT value
    FROM figures
    WHERE value IS NOT NULL
    GROUP BY value
    ORDER BY sum(clicks) DESC, value
    LIMIT $3
)
INSERT INTO report_values (
    dimension, day, campaign_id, value, is_other, other_values, currency, clicks, valid_clicks, bot_clicks, unique_clicks,
    lander_views, lander_clicks, offer_clicks, costed_clicks, cost
)
SELECT
    $4, $5, f.campaign_id, k.value, f.value IS NOT NULL AND k.value IS NULL AS is_other,
    count(DISTINCT f.value) FILTER (WHERE k.value IS NULL), f.currency, sum(f.clicks), sum(f.valid_clicks), sum(f.bot_clicks),
    sum(f.unique_clicks), sum(f.lander_views), sum(f.lander_clicks), sum(f.offer_clicks), sum(f.costed_clicks), sum(f.cost)
FROM figures f
LEFT JOIN kept k ON k.value = f.value
GROUP BY f.campaign_id, k.value, is_other, f.currency
        $statement$, name) USING lo, hi, values_max, name, of_day;
        GET DIAGNOSTICS more = ROW_COUNT;
        counted := counted + more;
    END LOOP;
    UPDATE report_value_days
    SET counted_at = now(),
        is_current = changes = seen
    WHERE day = of_day;
    -- what is not current is read by nobody, and may hold what was erased meanwhile
    DELETE FROM report_values v
    USING report_value_days d
    WHERE d.day = of_day
      AND NOT d.is_current
      AND v.day = of_day;
    RETURN counted;
END $function$;

-- What is added to the sums, or counted anew, may have changed what was clicked: in the same transaction the day is not current any more.
ALTER FUNCTION octo_fold_deltas(integer) RENAME TO octo_add_deltas;
CREATE FUNCTION octo_fold_deltas(rows_max integer) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF NOT octo_lock_figures() THEN
        RETURN -1;
    END IF;
    UPDATE report_value_days
    SET changes = changes + 1,
        is_current = false
    WHERE day IN (SELECT DISTINCT (hour AT TIME ZONE 'UTC')::date FROM report_deltas WHERE time_kind = 0);
    RETURN octo_add_deltas(rows_max);
END $$;

ALTER FUNCTION octo_recount_day(date) RENAME TO octo_count_day;
CREATE FUNCTION octo_recount_day(of_day date) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF NOT octo_lock_figures() THEN
        RETURN -1;
    END IF;
    UPDATE report_value_days
    SET changes = changes + 1,
        is_current = false
    WHERE day = of_day;
    RETURN octo_count_day(of_day);
END $$;
