-- Figures of reports: sums of facts, kept by hour, by day, and by day of one dimension.
--
-- Whoever stores or changes a fact adds what that changes of the sums to `report_deltas`, in the same transaction, by plain
-- inserts: no row that two nodes wait for. `octo_fold_deltas` adds them up. A report reads the sums and the deltas that are not
-- added yet in one snapshot, so it is exact and current at every moment. Texts and ids stand in the sums as they do in the
-- facts: an owner can read them, and there is no list of names that the nodes would have to agree on.

-- What of its click a conversion is reported by; copied when it is made, like the rest.
ALTER TABLE conversions
    ADD COLUMN invalid_reason  text,
    ADD COLUMN language        text,
    ADD COLUMN region          text,
    ADD COLUMN city            text,
    ADD COLUMN isp             text,
    ADD COLUMN connection      text,
    ADD COLUMN os_version      text,
    ADD COLUMN browser_version text,
    ADD COLUMN referrer_host   text,
    ADD COLUMN affiliate_sub   text,
    ADD COLUMN affiliate_sub2  text,
    ADD COLUMN affiliate_sub3  text,
    ADD COLUMN affiliate_sub4  text,
    ADD COLUMN affiliate_sub5  text;

-- The host of a URL, in small letters; NULL where there is none.
CREATE FUNCTION octo_referrer_host(url text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT nullif(lower(substring(url FROM '^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:]*)')), '')
$$;

UPDATE conversions v
SET invalid_reason = c.invalid_reason,
    language = c.language,
    region = c.region,
    city = c.city,
    isp = c.isp,
    connection = c.connection,
    os_version = c.os_version,
    browser_version = c.browser_version,
    referrer_host = octo_referrer_host(c.referrer),
    affiliate_sub = c.affiliate_sub,
    affiliate_sub2 = c.affiliate_sub2,
    affiliate_sub3 = c.affiliate_sub3,
    affiliate_sub4 = c.affiliate_sub4,
    affiliate_sub5 = c.affiliate_sub5
FROM clicks c
WHERE c.created_at = v.created_at
  AND c.id = v.click_id;

CREATE INDEX conversions_converted_at_brin ON conversions USING brin (converted_at);

-- The offers to which a click went from its landing page, each once: as out_click_keys, which knows the click alone.
CREATE TABLE out_click_legs (
    click_id    uuid        NOT NULL,
    offer_id    bigint      NOT NULL,
    created_at  timestamptz NOT NULL,   -- the click's
    is_counted  boolean     NOT NULL,   -- the click is stored too
    PRIMARY KEY (click_id, offer_id)
);
CREATE INDEX out_click_legs_created_at_brin ON out_click_legs USING brin (created_at);
CREATE INDEX out_click_legs_waiting ON out_click_legs (created_at) WHERE NOT is_counted;

INSERT INTO out_click_legs (click_id, offer_id, created_at, is_counted)
SELECT DISTINCT ON (o.click_id, o.offer_id)
    o.click_id,
    o.offer_id,
    k.created_at,
    k.is_counted
FROM out_clicks o
JOIN out_click_keys k ON k.click_id = o.click_id
WHERE o.is_valid
  AND o.offer_id IS NOT NULL;

-- What facts add to the sums. time_kind says which time the hour is of: 0 of a click, which is all there is of clicks, their
-- out-clicks and what their links cost; of conversions 1 that of the click, 2 when it happened, 3 when it changed. Sums of
-- conversions stand in all three. rate_day is the day (UTC) whose rate an amount is converted by.
CREATE TABLE report_deltas (
    time_kind       smallint    NOT NULL DEFAULT 0,
    hour            timestamptz NOT NULL,
    campaign_id     uuid        NOT NULL,
    source_id       bigint,
    rule_id         bigint,
    path_id         bigint,
    landing_page_id bigint,
    offer_id        bigint,
    country         text,
    device          text,
    os              text,
    browser         text,
    reason          text,               -- why the click does not count; NULL: it does
    currency        text,               -- of the cost or amount; NULL: the link said no cost; XXX: it is not known which
    goal            text,
    status          text,
    rate_day        date,
    clicks          bigint      NOT NULL DEFAULT 0,
    valid_clicks    bigint      NOT NULL DEFAULT 0,
    bot_clicks      bigint      NOT NULL DEFAULT 0,
    unique_clicks   bigint      NOT NULL DEFAULT 0,
    lander_views    bigint      NOT NULL DEFAULT 0,
    lander_clicks   bigint      NOT NULL DEFAULT 0,
    offer_clicks    bigint      NOT NULL DEFAULT 0,
    costed_clicks   bigint      NOT NULL DEFAULT 0,
    cost            numeric     NOT NULL DEFAULT 0,
    conversions     bigint      NOT NULL DEFAULT 0,
    amount          numeric     NOT NULL DEFAULT 0
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);

-- Deltas that are added to the sums of dimensions, and wait until their hour is over. Sums of hours and days are only ever
-- added to by more rows: what is looked up to be added to costs three times as much, and a report sums up rows anyway.
CREATE TABLE report_recent (LIKE report_deltas INCLUDING DEFAULTS) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000
);
CREATE INDEX report_recent_campaign ON report_recent (campaign_id, hour);

-- The sums of hours, with everything that is in a delta; a partition a day (UTC), made when the first row of a day comes.
CREATE TABLE report_hours (LIKE report_deltas INCLUDING DEFAULTS) PARTITION BY RANGE (hour);
CREATE INDEX report_hours_campaign ON report_hours (campaign_id, hour);

-- The sums of days (UTC) that are closed. Of all campaigns a range of days is found by the BRIN: rows come in the order of days.
CREATE TABLE report_days (LIKE report_deltas INCLUDING DEFAULTS);
ALTER TABLE report_days RENAME COLUMN hour TO day;
ALTER TABLE report_days ALTER COLUMN day TYPE date;
CREATE INDEX report_days_campaign ON report_days (campaign_id, day);
CREATE INDEX report_days_day ON report_days USING brin (day) WITH (pages_per_range = 32);

-- Days (UTC) before this one are closed: they have sums of days; a row. What a report asks of later ones it reads from the hours.
CREATE TABLE report_closed (until date NOT NULL);
INSERT INTO report_closed VALUES ((now() AT TIME ZONE 'UTC')::date);

-- The sums of days (UTC) by one dimension and campaign: a partition a dimension, and one of the campaigns alone. The hour of the day is
-- one of them: where a range or the days of a time zone begin within those of UTC.
CREATE TABLE report_dimensions (
    dimension       text        NOT NULL,
    day             date        NOT NULL,
    campaign_id     uuid        NOT NULL,
    value           text,               -- NULL: it is not known
    time_kind       smallint    NOT NULL,
    currency        text,
    goal            text,
    status          text,
    rate_day        date,
    clicks          bigint      NOT NULL DEFAULT 0,
    valid_clicks    bigint      NOT NULL DEFAULT 0,
    bot_clicks      bigint      NOT NULL DEFAULT 0,
    unique_clicks   bigint      NOT NULL DEFAULT 0,
    lander_views    bigint      NOT NULL DEFAULT 0,
    lander_clicks   bigint      NOT NULL DEFAULT 0,
    offer_clicks    bigint      NOT NULL DEFAULT 0,
    costed_clicks   bigint      NOT NULL DEFAULT 0,
    cost            numeric     NOT NULL DEFAULT 0,
    conversions     bigint      NOT NULL DEFAULT 0,
    amount          numeric     NOT NULL DEFAULT 0
) PARTITION BY LIST (dimension);
CREATE UNIQUE INDEX report_dimensions_key ON report_dimensions (
    dimension, campaign_id, day, time_kind, value, currency, goal, status, rate_day
) NULLS NOT DISTINCT;
CREATE INDEX report_dimensions_day ON report_dimensions USING brin (day) WITH (pages_per_range = 32);
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'campaign', 'source', 'rule', 'path', 'landing_page', 'offer', 'country', 'device', 'os', 'browser', 'reason',
        'hour'
    ] LOOP
        EXECUTE format('CREATE TABLE report_dimensions_%s PARTITION OF report_dimensions FOR VALUES IN (%L) WITH (fillfactor = 80)',
            name, name);
    END LOOP;
END $$;

-- Likewise of all campaigns together, of days that are closed: two hundred campaigns are two hundred rows less to read.
CREATE TABLE report_overall (LIKE report_dimensions INCLUDING DEFAULTS);
ALTER TABLE report_overall DROP COLUMN campaign_id;
CREATE INDEX report_overall_day ON report_overall (dimension, day);

-- The sums of closed days (UTC) of all campaigns together, by everything that is no part of a campaign.
CREATE TABLE report_traffic (LIKE report_days INCLUDING DEFAULTS);
ALTER TABLE report_traffic
    DROP COLUMN campaign_id,
    DROP COLUMN rule_id,
    DROP COLUMN path_id,
    DROP COLUMN landing_page_id,
    DROP COLUMN offer_id;
CREATE INDEX report_traffic_day ON report_traffic (day);

-- What is in the sums and not in the facts any more, because it was erased: of nobody, as every sum is.
CREATE TABLE report_gone (LIKE report_deltas INCLUDING DEFAULTS);
CREATE INDEX report_gone_hour ON report_gone (hour);

-- Up to which time of clicks retention has deleted facts; a row. The sums of the days before are all that is left of them. Of
-- conversions of such clicks that stand on later days, what is deleted is noted in report_gone.
CREATE TABLE report_retention (kept_from timestamptz NOT NULL);
INSERT INTO report_retention VALUES ('-infinity');

-- Whether facts of a day (UTC) are deleted by retention, or may be.
CREATE FUNCTION octo_is_lost(of_day date) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT
        FROM report_retention
        WHERE kept_from > of_day::timestamp AT TIME ZONE 'UTC'
    )
$$;

-- Days that are to be counted from their facts: at first those from before this table was.
CREATE TABLE report_recounts (
    day         date        PRIMARY KEY,
    asked_at    timestamptz NOT NULL DEFAULT now(),
    counted_at  timestamptz             -- NULL: not yet
);
INSERT INTO report_recounts (day)
SELECT DISTINCT (hour AT TIME ZONE 'UTC')::date
FROM campaign_stats_hourly;

-- Of what links say freely (sub1 to sub5, keyword, creative, placement) the most clicked values of a day (UTC): what a report over
-- many clicks reads, where counting them one by one takes too long. What is left of each campaign and currency stands in a row of
-- its own, `is_other`. Clicks only: conversions are few.
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

-- What an amount of a conversion counts for: what it pays, or paid before it was taken back.
CREATE FUNCTION octo_conversion_amount(status text, payout numeric, original_payout numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN status IN ('pending', 'approved') THEN payout
        WHEN status IN ('rejected', 'refunded') THEN coalesce(original_payout, 0)
        ELSE 0
    END
$$;

-- What a row of the book adds to the sums of states: it leaves one and comes into another, with its money; what is taken back
-- stands with the state that took it.
CREATE FUNCTION octo_book_flows(from_status text, to_status text, payout numeric, revenue numeric)
RETURNS TABLE (status text, conversions bigint, amount numeric)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT f.status, sum(f.conversions)::bigint, sum(f.amount)
    FROM (
        VALUES
            (from_status, -1, 0::numeric),
            (to_status, 1, 0),
            ('approved', 0, revenue),
            ('pending', 0, payout - revenue),
            (
                CASE
                    WHEN to_status IN ('rejected', 'refunded') THEN to_status
                    WHEN from_status IN ('rejected', 'refunded') THEN from_status
                END,
                0,
                -payout
            )
    ) AS f (status, conversions, amount)
    WHERE f.status IS NOT NULL
    GROUP BY f.status
    HAVING sum(f.conversions) <> 0 OR sum(f.amount) <> 0
$$;

-- Every fact as rows of figures, whose sums the reports are: what `report_deltas` adds up. `at` is the time that time_kind
-- says; click_id is NULL of what was erased.
CREATE VIEW report_facts AS
SELECT
    0::smallint AS time_kind,
    c.created_at AS at,
    c.id AS click_id,
    c.created_at AS click_at,
    NULL::uuid AS conversion_id,
    c.campaign_id,
    c.source_id,
    c.rule_id,
    c.path_id,
    c.landing_page_id,
    c.campaign_offer_id AS offer_id,
    c.country,
    c.device,
    c.os,
    c.browser,
    c.invalid_reason AS reason,
    CASE WHEN c.cost IS NOT NULL THEN coalesce(c.currency, 'XXX') END AS currency,
    NULL::text AS goal,
    NULL::text AS status,
    NULL::date AS rate_day,
    c.language,
    c.region,
    c.city,
    c.isp,
    c.connection,
    c.os_version,
    c.browser_version,
    octo_referrer_host(c.referrer) AS referrer_host,
    c.sub1,
    c.sub2,
    c.sub3,
    c.sub4,
    c.sub5,
    c.affiliate_sub,
    c.affiliate_sub2,
    c.affiliate_sub3,
    c.affiliate_sub4,
    c.affiliate_sub5,
    c.keyword,
    c.creative,
    c.placement,
    1::bigint AS clicks,
    c.is_valid::integer::bigint AS valid_clicks,
    c.is_bot::integer::bigint AS bot_clicks,
    coalesce(c.is_unique, false)::integer::bigint AS unique_clicks,
    (c.is_valid AND c.landing_page_id IS NOT NULL)::integer::bigint AS lander_views,
    0::bigint AS lander_clicks,
    (c.is_valid AND c.landing_page_id IS NULL AND c.campaign_offer_id IS NOT NULL)::integer::bigint AS offer_clicks,
    (c.cost IS NOT NULL)::integer::bigint AS costed_clicks,
    coalesce(c.cost, 0)::numeric AS cost,
    0::bigint AS conversions,
    0::numeric AS amount
FROM clicks c
UNION ALL
SELECT
    0, c.created_at, c.id, c.created_at, NULL, c.campaign_id, c.source_id, c.rule_id, c.path_id, c.landing_page_id,
    coalesce(o.offer_id, c.campaign_offer_id), c.country, c.device, c.os, c.browser, c.invalid_reason,
    CASE WHEN c.cost IS NOT NULL THEN coalesce(c.currency, 'XXX') END, NULL, NULL, NULL, c.language, c.region, c.city, c.isp,
    c.connection, c.os_version, c.browser_version, octo_referrer_host(c.referrer), c.sub1, c.sub2, c.sub3, c.sub4, c.sub5,
    c.affiliate_sub, c.affiliate_sub2, c.affiliate_sub3, c.affiliate_sub4, c.affiliate_sub5, c.keyword, c.creative,
    c.placement, 0, 0, 0, 0, 0, o.lander_clicks, o.offer_clicks, 0, 0, 0, 0
FROM (
    SELECT click_id, created_at, NULL::bigint AS offer_id, 1::bigint AS lander_clicks, 0::bigint AS offer_clicks
    FROM out_click_keys
    WHERE is_counted
    UNION ALL
    SELECT click_id, created_at, offer_id, 0, 1
    FROM out_click_legs
    WHERE is_counted
) o
JOIN clicks c ON c.created_at = o.created_at AND c.id = o.click_id
WHERE c.is_valid
  AND (o.offer_clicks = 1 OR c.landing_page_id IS NOT NULL)
UNION ALL
SELECT
    1, v.created_at, v.click_id, v.created_at, v.id, v.campaign_id, v.source_id, v.rule_id, v.path_id, v.landing_page_id,
    v.offer_id, v.country, v.device, v.os, v.browser, v.invalid_reason, v.currency, v.goal, v.status,
    (v.converted_at AT TIME ZONE 'UTC')::date, v.language, v.region, v.city, v.isp, v.connection, v.os_version,
    v.browser_version, v.referrer_host, v.sub1, v.sub2, v.sub3, v.sub4, v.sub5, v.affiliate_sub, v.affiliate_sub2,
    v.affiliate_sub3, v.affiliate_sub4, v.affiliate_sub5, v.keyword, v.creative, v.placement, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    (v.kind = 'conversion')::integer, octo_conversion_amount(v.status, v.payout, v.original_payout)
FROM conversions v
UNION ALL
SELECT
    2, v.converted_at, v.click_id, v.created_at, v.id, v.campaign_id, v.source_id, v.rule_id, v.path_id, v.landing_page_id,
    v.offer_id, v.country, v.device, v.os, v.browser, v.invalid_reason, v.currency, v.goal, v.status,
    (v.converted_at AT TIME ZONE 'UTC')::date, v.language, v.region, v.city, v.isp, v.connection, v.os_version,
    v.browser_version, v.referrer_host, v.sub1, v.sub2, v.sub3, v.sub4, v.sub5, v.affiliate_sub, v.affiliate_sub2,
    v.affiliate_sub3, v.affiliate_sub4, v.affiliate_sub5, v.keyword, v.creative, v.placement, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    (v.kind = 'conversion')::integer, octo_conversion_amount(v.status, v.payout, v.original_payout)
FROM conversions v
UNION ALL
SELECT
    3, b.changed_at, b.click_id, b.created_at, v.id, v.campaign_id, v.source_id, v.rule_id, v.path_id, v.landing_page_id,
    v.offer_id, v.country, v.device, v.os, v.browser, v.invalid_reason, b.currency, v.goal, f.status,
    (b.changed_at AT TIME ZONE 'UTC')::date, v.language, v.region, v.city, v.isp, v.connection, v.os_version,
    v.browser_version, v.referrer_host, v.sub1, v.sub2, v.sub3, v.sub4, v.sub5, v.affiliate_sub, v.affiliate_sub2,
    v.affiliate_sub3, v.affiliate_sub4, v.affiliate_sub5, v.keyword, v.creative, v.placement, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    f.conversions * (v.kind = 'conversion')::integer, f.amount
FROM conversion_changes b
JOIN conversions v ON v.id = b.conversion_id AND v.campaign_id = b.campaign_id
CROSS JOIN LATERAL octo_book_flows(b.from_status, b.to_status, b.payout, b.revenue) f
UNION ALL
SELECT
    g.time_kind, g.hour, NULL, NULL, NULL, g.campaign_id, g.source_id, g.rule_id, g.path_id, g.landing_page_id, g.offer_id,
    g.country, g.device, g.os, g.browser, g.reason, g.currency, g.goal, g.status, g.rate_day, NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, g.clicks,
    g.valid_clicks, g.bot_clicks, g.unique_clicks, g.lander_views, g.lander_clicks, g.offer_clicks, g.costed_clicks,
    g.cost, g.conversions, g.amount
FROM report_gone g;

-- Facts of conversions in the sums, whoever stores or changes them. What retention deletes stays in the sums, and what is
-- erased too.
CREATE FUNCTION octo_sum_new_conversions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO report_deltas (
        time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser,
        reason, currency, goal, status, rate_day, conversions, amount
    )
    SELECT
        k.time_kind, date_trunc('hour', k.at, 'UTC'), v.campaign_id, v.source_id, v.rule_id, v.path_id, v.landing_page_id,
        v.offer_id, v.country, v.device, v.os, v.browser, v.invalid_reason, v.currency, v.goal, v.status,
        (v.converted_at AT TIME ZONE 'UTC')::date, sum((v.kind = 'conversion')::integer),
        sum(octo_conversion_amount(v.status, v.payout, v.original_payout))
    FROM fresh v
    CROSS JOIN LATERAL (VALUES (1, v.created_at), (2, v.converted_at)) AS k (time_kind, at)
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17;
    RETURN NULL;
END $$;
CREATE TRIGGER sum_new_conversions AFTER INSERT ON conversions
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION octo_sum_new_conversions();

CREATE FUNCTION octo_sum_changed_conversions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO report_deltas (
        time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser,
        reason, currency, goal, status, rate_day, conversions, amount
    )
    SELECT *
    FROM (
        SELECT
            k.time_kind, date_trunc('hour', k.at, 'UTC'), v.campaign_id, v.source_id, v.rule_id,
            v.path_id, v.landing_page_id, v.offer_id, v.country, v.device, v.os,
            v.browser, v.invalid_reason, v.currency, v.goal, v.status,
            (v.converted_at AT TIME ZONE 'UTC')::date,
            sum(v.sign * (v.kind = 'conversion')::integer) AS conversions,
            sum(v.sign * octo_conversion_amount(v.status, v.payout, v.original_payout)) AS amount
        FROM (
            SELECT -1 AS sign, w.* FROM was w
            UNION ALL
            SELECT 1, f.* FROM fresh f
        ) v
        CROSS JOIN LATERAL (VALUES (1, v.created_at), (2, v.converted_at)) AS k (time_kind, at)
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17
    ) change
    WHERE conversions <> 0
       OR amount <> 0;

    -- what the book said before goes along where the conversion is another offer's now; its new row is written by a later
    -- statement
    IF EXISTS (
        SELECT
        FROM fresh n
        JOIN was o ON o.id = n.id AND o.campaign_id = n.campaign_id
        WHERE (n.offer_id, n.kind) IS DISTINCT FROM (o.offer_id, o.kind)
    ) THEN
        INSERT INTO report_deltas (
            time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser,
            reason, currency, goal, status, rate_day, conversions, amount
        )
        SELECT
            3, date_trunc('hour', b.changed_at, 'UTC'), n.campaign_id, n.source_id, n.rule_id, n.path_id, n.landing_page_id,
            s.offer_id, n.country, n.device, n.os, n.browser, n.invalid_reason, b.currency, n.goal, f.status,
            (b.changed_at AT TIME ZONE 'UTC')::date, s.sign * f.conversions * (s.kind = 'conversion')::integer,
            s.sign * f.amount
        FROM fresh n
        JOIN was o ON o.id = n.id AND o.campaign_id = n.campaign_id
        JOIN conversion_changes b ON b.conversion_id = n.id AND b.campaign_id = n.campaign_id
        CROSS JOIN LATERAL (VALUES (-1, o.offer_id, o.kind), (1, n.offer_id, n.kind)) AS s (sign, offer_id, kind)
        CROSS JOIN LATERAL octo_book_flows(b.from_status, b.to_status, b.payout, b.revenue) f
        WHERE (n.offer_id, n.kind) IS DISTINCT FROM (o.offer_id, o.kind);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER sum_changed_conversions AFTER UPDATE ON conversions
    REFERENCING OLD TABLE AS was NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION octo_sum_changed_conversions();

-- Rows of the book that say the same are added up before it is asked which states they add to: that is in proportion. Each
-- conversion is found by its key, whatever the planner made of it when conversions or rows were few: every other plan reads
-- all conversions there are.
CREATE FUNCTION octo_sum_book() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
BEGIN
    INSERT INTO report_deltas (
        time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser,
        reason, currency, goal, status, rate_day, conversions, amount
    )
    SELECT
        3, c.hour, c.campaign_id, c.source_id, c.rule_id, c.path_id, c.landing_page_id, c.offer_id, c.country, c.device, c.os,
        c.browser, c.reason, c.currency, c.goal, f.status, (c.hour AT TIME ZONE 'UTC')::date,
        sum(f.conversions * c.conversions), sum(f.amount)
    FROM (
        SELECT
            date_trunc('hour', b.changed_at, 'UTC') AS hour, b.campaign_id, v.source_id, v.rule_id, v.path_id,
            v.landing_page_id, v.offer_id, v.country, v.device, v.os, v.browser, v.invalid_reason AS reason, b.currency,
            v.goal, b.from_status, b.to_status, sum((v.kind = 'conversion')::integer) AS conversions, sum(b.payout) AS payout,
            sum(b.revenue) AS revenue
        FROM fresh b
        CROSS JOIN LATERAL (
            SELECT
                source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser, invalid_reason, goal,
                kind
            FROM conversions
            WHERE id = b.conversion_id
              AND campaign_id = b.campaign_id
            LIMIT 1
        ) v
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16
    ) c
    CROSS JOIN LATERAL octo_book_flows(c.from_status, c.to_status, c.payout, c.revenue) f
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17;
    RETURN NULL;
END $$;
CREATE TRIGGER sum_book AFTER INSERT ON conversion_changes
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION octo_sum_book();

-- A click that is corrected, by whomever: out of the sums with what it was, and in again with what it is.
CREATE FUNCTION octo_sum_changed_click() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO report_deltas (
        hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser, reason,
        currency, clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks,
        cost
    )
    SELECT
        date_trunc('hour', v.created_at, 'UTC'), v.campaign_id, v.source_id, v.rule_id,
        v.path_id, v.landing_page_id, coalesce(l.offer_id, v.campaign_offer_id), v.country,
        v.device, v.os, v.browser, v.invalid_reason,
        CASE WHEN v.cost IS NOT NULL THEN coalesce(v.currency, 'XXX') END,
        v.sign * l.is_click,
        v.sign * l.is_click * v.is_valid::integer,
        v.sign * l.is_click * v.is_bot::integer,
        v.sign * l.is_click * coalesce(v.is_unique, false)::integer,
        v.sign * l.is_click * (v.is_valid AND v.landing_page_id IS NOT NULL)::integer,
        v.sign * l.lander_clicks * (v.is_valid AND v.landing_page_id IS NOT NULL)::integer,
        v.sign * (l.offer_clicks * v.is_valid::integer + l.is_click * (
            v.is_valid AND v.landing_page_id IS NULL AND v.campaign_offer_id IS NOT NULL
        )::integer),
        v.sign * l.is_click * (v.cost IS NOT NULL)::integer,
        v.sign * l.is_click * coalesce(v.cost, 0)
    FROM (SELECT -1 AS sign, OLD.* UNION ALL SELECT 1, NEW.*) v
    CROSS JOIN (
        SELECT NULL::bigint AS offer_id, 1 AS is_click, 0 AS lander_clicks, 0 AS offer_clicks
        UNION ALL
        SELECT NULL, 0, 1, 0 FROM out_click_keys WHERE click_id = NEW.id AND is_counted
        UNION ALL
        SELECT offer_id, 0, 0, 1 FROM out_click_legs WHERE click_id = NEW.id AND is_counted
    ) l;
    RETURN NULL;
END $$;
CREATE TRIGGER sum_changed_click AFTER UPDATE OF
    is_valid, invalid_reason, is_bot, cost, currency, country, device, os, browser, source_id, rule_id, path_id,
    landing_page_id, campaign_offer_id, is_unique
    ON clicks FOR EACH ROW
    WHEN (
        (
            OLD.is_valid, OLD.invalid_reason, OLD.is_bot, OLD.cost, OLD.currency, OLD.country, OLD.device, OLD.os, OLD.browser,
            OLD.source_id, OLD.rule_id, OLD.path_id, OLD.landing_page_id, OLD.campaign_offer_id, OLD.is_unique
        ) IS DISTINCT FROM (
            NEW.is_valid, NEW.invalid_reason, NEW.is_bot, NEW.cost, NEW.currency, NEW.country, NEW.device, NEW.os, NEW.browser,
            NEW.source_id, NEW.rule_id, NEW.path_id, NEW.landing_page_id, NEW.campaign_offer_id, NEW.is_unique
        )
    )
    EXECUTE FUNCTION octo_sum_changed_click();

-- The partition of a day. A lock that nobody waits for, but for others that make partitions.
CREATE FUNCTION octo_make_report_day(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text := format('report_hours_%s', to_char(day, 'YYYYMMDD'));
BEGIN
    IF to_regclass(name) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE report_hours INCLUDING DEFAULTS)', name);
        EXECUTE format('ALTER TABLE report_hours ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name,
            day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
    END IF;
END $$;

-- Under which value of each dimension a row of figures is summed up; all of a campaign stand under one.
CREATE FUNCTION octo_dimension_values(
    hour timestamptz, source_id bigint, rule_id bigint, path_id bigint, landing_page_id bigint, offer_id bigint,
    country text, device text, os text, browser text, reason text
) RETURNS TABLE (dimension text, value text) LANGUAGE sql STABLE AS $$
    VALUES
        ('campaign', ''),
        ('source', source_id::text),
        ('rule', rule_id::text),
        ('path', path_id::text),
        ('landing_page', landing_page_id::text),
        ('offer', offer_id::text),
        ('country', country),
        ('device', device),
        ('os', os),
        ('browser', browser),
        ('reason', reason),
        ('hour', to_char(hour AT TIME ZONE 'UTC', 'HH24'))
$$;

-- Adds rows of figures to sums, and says how many rows those were. `sums` names some of `recent`, `hours`, `days` and `dimensions`;
-- days, and dimensions of all campaigns together, are only of what was before `closed`. `source` is one of the texts that stand
-- below; what it reads or deletes, and the sums, are one statement and so one snapshot.
CREATE FUNCTION octo_add_figures(
    source text, lo timestamptz, hi timestamptz, rows_max integer, sums text[], closed timestamptz
) RETURNS bigint LANGUAGE plpgsql SET work_mem = '64MB' SET jit = off AS $function$
DECLARE
    added bigint;
BEGIN
    EXECUTE format($statement$
WITH figures AS (
%s
), hours AS MATERIALIZED (
    SELECT
        time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
        browser, reason, currency, goal, status, rate_day,
        sum(clicks) AS clicks, sum(valid_clicks) AS valid_clicks, sum(bot_clicks) AS bot_clicks,
        sum(unique_clicks) AS unique_clicks, sum(lander_views) AS lander_views, sum(lander_clicks) AS lander_clicks,
        sum(offer_clicks) AS offer_clicks, sum(costed_clicks) AS costed_clicks, sum(cost) AS cost,
        sum(conversions) AS conversions, sum(amount) AS amount, count(*) AS rows
    FROM figures
    GROUP BY
        time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
        browser, reason, currency, goal, status, rate_day
), add_recent AS (
    INSERT INTO report_recent (
        time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
        browser, reason, currency, goal, status, rate_day, clicks, valid_clicks, bot_clicks, unique_clicks, lander_views,
        lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    )
    SELECT
        time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
        browser, reason, currency, goal, status, rate_day, clicks, valid_clicks, bot_clicks, unique_clicks, lander_views,
        lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    FROM hours
    WHERE 'recent' = ANY ($4)
    ORDER BY campaign_id, hour
), add_hours AS (
    INSERT INTO report_hours (
        time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
        browser, reason, currency, goal, status, rate_day, clicks, valid_clicks, bot_clicks, unique_clicks, lander_views,
        lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    )
    SELECT
        time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
        browser, reason, currency, goal, status, rate_day, clicks, valid_clicks, bot_clicks, unique_clicks, lander_views,
        lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    FROM hours
    WHERE 'hours' = ANY ($4)
    ORDER BY campaign_id, hour
), days AS MATERIALIZED (
    SELECT
        time_kind, (hour AT TIME ZONE 'UTC')::date AS day, campaign_id, source_id, rule_id, path_id, landing_page_id,
        offer_id, country, device, os, browser, reason, currency, goal, status, rate_day,
        sum(clicks) AS clicks, sum(valid_clicks) AS valid_clicks, sum(bot_clicks) AS bot_clicks,
        sum(unique_clicks) AS unique_clicks, sum(lander_views) AS lander_views, sum(lander_clicks) AS lander_clicks,
        sum(offer_clicks) AS offer_clicks, sum(costed_clicks) AS costed_clicks, sum(cost) AS cost,
        sum(conversions) AS conversions, sum(amount) AS amount
    FROM hours
    WHERE 'days' = ANY ($4)
      AND hour < $5
    GROUP BY
        time_kind, day, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
        browser, reason, currency, goal, status, rate_day
), add_days AS (
    INSERT INTO report_days (
        time_kind, day, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
        browser, reason, currency, goal, status, rate_day, clicks, valid_clicks, bot_clicks, unique_clicks, lander_views,
        lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    )
    SELECT *
    FROM days
    ORDER BY day, campaign_id
), add_traffic AS (
    INSERT INTO report_traffic (
        time_kind, day, source_id, country, device, os, browser, reason, currency, goal, status, rate_day, clicks,
        valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
        conversions, amount
    )
    SELECT
        time_kind, day, source_id, country, device, os, browser, reason, currency, goal, status, rate_day,
        sum(clicks), sum(valid_clicks), sum(bot_clicks), sum(unique_clicks), sum(lander_views), sum(lander_clicks),
        sum(offer_clicks), sum(costed_clicks), sum(cost), sum(conversions), sum(amount)
    FROM days
    GROUP BY time_kind, day, source_id, country, device, os, browser, reason, currency, goal, status, rate_day
), dimensions AS MATERIALIZED (
    SELECT
        CASE
            WHEN GROUPING(source_id) = 0 THEN 'source'
            WHEN GROUPING(rule_id) = 0 THEN 'rule'
            WHEN GROUPING(path_id) = 0 THEN 'path'
            WHEN GROUPING(landing_page_id) = 0 THEN 'landing_page'
            WHEN GROUPING(offer_id) = 0 THEN 'offer'
            WHEN GROUPING(country) = 0 THEN 'country'
            WHEN GROUPING(device) = 0 THEN 'device'
            WHEN GROUPING(os) = 0 THEN 'os'
            WHEN GROUPING(browser) = 0 THEN 'browser'
            WHEN GROUPING(reason) = 0 THEN 'reason'
            WHEN GROUPING(hour_of_day) = 0 THEN 'hour'
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
            WHEN GROUPING(country) = 0 THEN country
            WHEN GROUPING(device) = 0 THEN device
            WHEN GROUPING(os) = 0 THEN os
            WHEN GROUPING(browser) = 0 THEN browser
            WHEN GROUPING(reason) = 0 THEN reason
            WHEN GROUPING(hour_of_day) = 0 THEN hour_of_day
            ELSE ''
        END AS value,
        time_kind, currency, goal, status, rate_day,
        sum(clicks) AS clicks, sum(valid_clicks) AS valid_clicks, sum(bot_clicks) AS bot_clicks,
        sum(unique_clicks) AS unique_clicks, sum(lander_views) AS lander_views, sum(lander_clicks) AS lander_clicks,
        sum(offer_clicks) AS offer_clicks, sum(costed_clicks) AS costed_clicks, sum(cost) AS cost,
        sum(conversions) AS conversions, sum(amount) AS amount
    FROM (
        SELECT *, (hour AT TIME ZONE 'UTC')::date AS day, to_char(hour AT TIME ZONE 'UTC', 'HH24') AS hour_of_day
        FROM hours
        WHERE 'dimensions' = ANY ($4)
    ) f
    GROUP BY
        day, campaign_id, time_kind, currency, goal, status, rate_day,
        GROUPING SETS ((), (source_id), (rule_id), (path_id), (landing_page_id), (offer_id), (country), (device), (os), (browser), (reason), (hour_of_day))
), add_dimensions AS (
    INSERT INTO report_dimensions AS s (
        dimension, day, campaign_id, value, time_kind, currency, goal, status, rate_day, clicks, valid_clicks, bot_clicks,
        unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
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
        dimension, day, value, time_kind, currency, goal, status, rate_day, clicks, valid_clicks, bot_clicks,
        unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    )
    SELECT
        dimension, day, value, time_kind, currency, goal, status, rate_day,
        sum(clicks), sum(valid_clicks), sum(bot_clicks), sum(unique_clicks), sum(lander_views), sum(lander_clicks),
        sum(offer_clicks), sum(costed_clicks), sum(cost), sum(conversions), sum(amount)
    FROM dimensions
    WHERE day::timestamp AT TIME ZONE 'UTC' < $5
    GROUP BY dimension, day, value, time_kind, currency, goal, status, rate_day
    ORDER BY dimension, day
)
SELECT coalesce(sum(rows), 0)::bigint FROM hours
    $statement$, source)
    INTO added USING lo, hi, rows_max, sums, closed;
    RETURN added;
END $function$;

-- One at a time adds deltas to the sums, or counts a day from its facts, whichever node does it. Whoever calls these has begun
-- its transaction REPEATABLE READ: what they read at first and what they do then is of one moment.
CREATE FUNCTION octo_lock_figures() RETURNS boolean LANGUAGE sql AS $$
    SELECT pg_try_advisory_xact_lock(1868788868)
$$;

-- When the first day begins that is not closed.
CREATE FUNCTION octo_closed_until() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT until::timestamp AT TIME ZONE 'UTC' FROM report_closed
$$;

-- Adds up to so many deltas to the sums, and deletes them; says how many that were, -1 where somebody else is about it. What was
-- clicked on the days of their clicks may have changed: in the same transaction their values are not current any more.
CREATE FUNCTION octo_fold_deltas(rows_max integer) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF NOT octo_lock_figures() THEN
        RETURN -1;
    END IF;
    UPDATE report_value_days
    SET changes = changes + 1,
        is_current = false
    WHERE day IN (SELECT DISTINCT (hour AT TIME ZONE 'UTC')::date FROM report_deltas WHERE time_kind = 0);
    RETURN octo_add_figures(
        $deltas$
    DELETE FROM report_deltas
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM report_deltas LIMIT $3))
    RETURNING *
        $deltas$,
        NULL, NULL, rows_max, '{recent,dimensions}', octo_closed_until()
    );
END $$;

-- Adds up to so many rows that wait, of hours before a time, to the sums of hours, and of days where those are closed; says how
-- many that were, -1 where somebody else is about it. In the order of campaigns: a report of one finds them together.
CREATE FUNCTION octo_settle_hours(before timestamptz, rows_max integer) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF NOT octo_lock_figures() THEN
        RETURN -1;
    END IF;
    PERFORM octo_make_report_day(day)
    FROM (SELECT DISTINCT (hour AT TIME ZONE 'UTC')::date AS day FROM report_recent WHERE hour < before) missing
    ORDER BY day;
    RETURN octo_add_figures(
        $recent$
    DELETE FROM report_recent
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM report_recent WHERE hour < $2 ORDER BY campaign_id, hour LIMIT $3))
    RETURNING *
        $recent$,
        NULL, before, rows_max, '{hours,days}', octo_closed_until()
    );
END $$;

-- Closes the next day (UTC), if it is before another: its hours are added up to sums of days. Says whether it did: 1, or 0 where
-- there is none to close; -1 where somebody else is about it.
CREATE FUNCTION octo_close_day(before date) RETURNS bigint LANGUAGE plpgsql AS $$
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
    SELECT
        time_kind, date_trunc('day', hour, 'UTC') AS hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id,
        country, device, os, browser, reason, currency, goal, status, rate_day, clicks, valid_clicks, bot_clicks,
        unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    FROM report_hours
    WHERE hour >= $1
      AND hour < $2
        $hours$,
        lo, hi, NULL, '{days}', hi
    );
    INSERT INTO report_overall (
        dimension, day, value, time_kind, currency, goal, status, rate_day, clicks, valid_clicks, bot_clicks,
        unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    )
    SELECT
        dimension, day, value, time_kind, currency, goal, status, rate_day,
        sum(clicks), sum(valid_clicks), sum(bot_clicks), sum(unique_clicks), sum(lander_views), sum(lander_clicks),
        sum(offer_clicks), sum(costed_clicks), sum(cost), sum(conversions), sum(amount)
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
CREATE FUNCTION octo_recount_day(of_day date) RETURNS bigint LANGUAGE plpgsql AS $$
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
    DELETE FROM report_recent WHERE hour >= lo AND hour < hi;
    DELETE FROM report_hours WHERE hour >= lo AND hour < hi;
    DELETE FROM report_days WHERE day = of_day;
    DELETE FROM report_dimensions WHERE day = of_day;
    DELETE FROM report_overall WHERE day = of_day;
    DELETE FROM report_traffic WHERE day = of_day;
    counted := octo_add_figures(
        $facts$
    SELECT
        time_kind, date_trunc('hour', at, 'UTC') AS hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id,
        country, device, os, browser, reason, currency, goal, status, rate_day, clicks, valid_clicks, bot_clicks,
        unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    FROM report_facts
    WHERE at >= $1
      AND at < $2
        $facts$,
        lo, hi, NULL, '{hours,days,dimensions}', octo_closed_until()
    );
    UPDATE report_recounts SET counted_at = now() WHERE day = of_day;
    RETURN counted;
END $$;

-- Counts the values of a day from its facts; the day stands in report_value_days since an earlier transaction. Called READ
-- COMMITTED: what changes meanwhile is seen at the end, or still waits in report_deltas. Says how many rows those are, -1 where
-- somebody else is about it.
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

-- Where the sums are not what the facts are, from a day (UTC) until before another: by campaign and day how many rows of `hours`,
-- `days`, `dimensions`, `overall` or `traffic` differ, and by how much they have more than they should; campaign_id is NULL of the
-- last two. No row: everything adds up.
CREATE FUNCTION octo_compare_figures(from_day date, to_day date)
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
    ), recent AS (
        SELECT *
        FROM deltas
        UNION ALL
        SELECT *
        FROM report_recent
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
        FROM recent
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
        FROM recent
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
        FROM recent
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

-- What an erasure takes from the facts and leaves in the sums, noted before it is deleted: of these clicks themselves with their
-- out-clicks (`clicks`), of their out-clicks alone (`out_clicks`), or of their conversions (`conversions`).
CREATE FUNCTION octo_note_gone(ids uuid[], times timestamptz[], what text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    noted bigint;
BEGIN
    INSERT INTO report_gone (
        time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os,
        browser, reason, currency, goal, status, rate_day, clicks, valid_clicks, bot_clicks, unique_clicks, lander_views,
        lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
    )
    SELECT
        f.time_kind, date_trunc('hour', f.at, 'UTC'), f.campaign_id, f.source_id, f.rule_id, f.path_id, f.landing_page_id,
        f.offer_id, f.country, f.device, f.os, f.browser, f.reason, f.currency, f.goal, f.status, f.rate_day,
        sum(f.clicks), sum(f.valid_clicks), sum(f.bot_clicks), sum(f.unique_clicks), sum(f.lander_views),
        sum(f.lander_clicks), sum(f.offer_clicks), sum(f.costed_clicks), sum(f.cost), sum(f.conversions), sum(f.amount)
    FROM unnest(ids, times) AS t (id, at)
    JOIN report_facts f ON f.click_id = t.id AND f.click_at = t.at
    WHERE CASE what
        WHEN 'conversions' THEN f.time_kind > 0
        WHEN 'out_clicks' THEN f.time_kind = 0 AND f.clicks = 0
        ELSE f.time_kind = 0
    END
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17;
    GET DIAGNOSTICS noted = ROW_COUNT;
    RETURN noted;
END $$;
