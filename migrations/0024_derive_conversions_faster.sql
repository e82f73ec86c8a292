-- What a conversion costs the transaction that derives it.

-- The host of a URL, in small letters; NULL where there is none. Most URLs need no pattern, which takes three times as long and
-- says the same.
CREATE OR REPLACE FUNCTION octo_referrer_host(url text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN url ^@ 'https://' AND strpos(url, '@') = 0 THEN
            nullif(lower(split_part(split_part(split_part(split_part(substr(url, 9), '/', 1), '?', 1), '#', 1), ':', 1)), '')
        ELSE nullif(lower(substring(url FROM '^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:]*)')), '')
    END
$$;

-- One index of two times in place of two of one: a row is noted in each, and a BRIN index finds ranges of each of its columns
-- alike.
DROP INDEX conversions_created_at_brin, conversions_converted_at_brin;
CREATE INDEX conversions_times_brin ON conversions USING brin (created_at, converted_at);
DROP INDEX conversion_changes_created_at_brin, conversion_changes_changed_at_brin;
CREATE INDEX conversion_changes_times_brin ON conversion_changes USING brin (created_at, changed_at);

-- Conversions that say the same are added up once, and then stand under the click's hour and under their own.
CREATE OR REPLACE FUNCTION octo_sum_new_conversions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO report_deltas (
        time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser,
        reason, currency, goal, status, rate_day, conversions, amount
    )
    SELECT
        k.time_kind, k.hour, v.campaign_id, v.source_id, v.rule_id, v.path_id, v.landing_page_id, v.offer_id, v.country,
        v.device, v.os, v.browser, v.invalid_reason, v.currency, v.goal, v.status, (v.converted AT TIME ZONE 'UTC')::date,
        v.conversions, v.amount
    FROM (
        SELECT
            date_trunc('hour', created_at, 'UTC') AS clicked, date_trunc('hour', converted_at, 'UTC') AS converted,
            campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser, invalid_reason,
            currency, goal, status, sum((kind = 'conversion')::integer) AS conversions,
            sum(octo_conversion_amount(status, payout, original_payout)) AS amount
        FROM fresh
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16
    ) v
    CROSS JOIN LATERAL (VALUES (1, v.clicked), (2, v.converted)) AS k (time_kind, hour);
    RETURN NULL;
END $$;

-- Rows of the book that say the same are added up before it is asked which states they add to: that is in proportion. Each
-- conversion is found by its id alone, whatever the planner made of it when conversions or rows were few: every other plan reads
-- all conversions there are, or all of the campaign, and `=` for campaign_id lets it choose that.
CREATE OR REPLACE FUNCTION octo_sum_book() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
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
              AND campaign_id IS NOT DISTINCT FROM b.campaign_id
            LIMIT 1
        ) v
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16
    ) c
    CROSS JOIN LATERAL octo_book_flows(c.from_status, c.to_status, c.payout, c.revenue) f
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17;
    RETURN NULL;
END $$;
