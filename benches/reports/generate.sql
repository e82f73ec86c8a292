-- What traffic looks like, for `cargo bench --bench reports`: 200 campaigns of which the first has a sixth of all clicks (Zipf) and
-- the seventeenth one in a hundred; each with one to four sources, rules by country, paths, landing pages and offers of its own,
-- one to five countries; devices, systems and browsers that go together; days and nights; a million values of sub1; robots and
-- duplicates; a cost in two currencies on three of five clicks; out-clicks from landing pages; a conversion of 1.5 clicks in 100, half of
-- them approved: an offer pays in one currency, a third of the offers know a second goal; another rate each day.
--
-- Clicks carry no user agent, no referrer and none of sub2 to sub5: no sum is told apart by them, and 100,000,000 clicks are to fit
-- on the disk of a laptop.

CREATE SCHEMA bench;

INSERT INTO fx_rates (currency, day, rate, source)
SELECT 'USD', day::date, 1.05 + 0.001 * (extract(doy FROM day)::integer % 100), 'ecb'
FROM generate_series(now() - interval '60 days', now(), '1 day') AS day;

INSERT INTO campaigns (id, key, name, status, cost_model)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(k), 12, '0'))::uuid, 'campaign-' || k, 'campaign ' || k, 'active', 'cpa'
FROM generate_series(1, 200) AS k;

-- Ways that clicks take: as many rows of each as it gets of the clicks.
CREATE TABLE bench.routes AS
WITH weights AS (
    SELECT array_agg(up_to ORDER BY k) AS bounds
    FROM (
        SELECT k, (sum(1.0 / k) OVER (ORDER BY k) / sum(1.0 / k) OVER ())::float8 AS up_to
        FROM generate_series(1, 200) AS k
    ) up_to
), picked AS (
    SELECT
        n,
        width_bucket(random(), bounds) + 1 AS k,
        random() AS of_source,
        random() AS of_country,
        random() AS of_path,
        random() AS of_page,
        random() AS of_offer
    FROM generate_series(0, 131071) AS n
    CROSS JOIN weights
), chosen AS (
    SELECT
        *,
        floor((1 + k % 4) * power(of_source, 1.5))::bigint AS source,
        floor((1 + k % 5) * power(of_country, 2))::bigint AS country_nth,
        floor((1 + k / 3 % 3) * of_path)::bigint AS path
    FROM (SELECT *, least(k, 200) AS campaign FROM picked) p
), placed AS (
    SELECT
        *,
        country_nth % (1 + campaign % 3) AS rule,
        (campaign + path) % 3 AS pages
    FROM chosen
)
SELECT
    n,
    ('00000000-0000-7000-8000-' || lpad(to_hex(campaign), 12, '0'))::uuid AS campaign_id,
    1 + (campaign + 3 * source) % 12 AS source_id,
    CASE WHEN rule = 0 THEN 0 ELSE 10 * campaign + rule END AS rule_id,
    CASE WHEN rule = 0 THEN path ELSE 100 * campaign + 10 * rule + path END AS path_id,
    CASE WHEN pages > 0 THEN 100 * campaign + 10 * path + floor(pages * of_page)::bigint END AS landing_page_id,
    100 * campaign + floor((1 + campaign / 2 % 3) * of_offer)::bigint AS offer_id,
    (ARRAY[
        'US', 'DE', 'IN', 'BR', 'GB', 'FR', 'ID', 'TR', 'MX', 'ES', 'IT', 'PL', 'TH', 'VN', 'PH', 'ZA', 'NG', 'EG', 'AR', 'CO',
        'CA', 'AU', 'JP', 'KR', 'MY', 'RO', 'CZ', 'NL', 'SE', 'PT'
    ])[1 + (campaign * 3 + country_nth * 7) % 30] AS country,
    CASE (campaign + 3 * source) % 12 % 5
        WHEN 0 THEN 'USD'
        WHEN 1 THEN 'EUR'
        WHEN 2 THEN 'USD'
    END AS currency
FROM placed;

-- What clicks come with, likewise.
CREATE TABLE bench.agents AS
SELECT row_number() OVER () - 1 AS n, device, os, os_version, browser, browser_version
FROM (
    VALUES
        (260, 'mobile', 'Android', '14', 'Chrome Mobile', '126'),
        (90, 'mobile', 'Android', '13', 'Chrome Mobile', '125'),
        (160, 'mobile', 'iOS', '18', 'Mobile Safari', '18'),
        (50, 'mobile', 'Android', '14', 'Samsung Internet', '25'),
        (40, 'mobile', 'Android', '14', 'Facebook', '480'),
        (40, 'mobile', 'iOS', '18', 'Facebook', '480'),
        (30, 'mobile', 'iOS', '18', 'Instagram', '340'),
        (20, 'mobile', 'iOS', '17', 'Chrome Mobile', '126'),
        (10, 'mobile', 'Android', '12', 'Opera Mobile', '80'),
        (8, 'mobile', 'Android', '14', 'Firefox Mobile', '127'),
        (150, 'desktop', 'Windows', '10', 'Chrome', '126'),
        (40, 'desktop', 'Windows', '10', 'Edge', '126'),
        (20, 'desktop', 'Windows', '10', 'Firefox', '127'),
        (35, 'desktop', 'macOS', '14', 'Safari', '17'),
        (25, 'desktop', 'macOS', '14', 'Chrome', '126'),
        (10, 'desktop', 'Linux', NULL, 'Chrome', '126'),
        (6, 'desktop', 'Linux', NULL, 'Firefox', '127'),
        (20, 'tablet', 'iOS', '17', 'Mobile Safari', '17'),
        (8, 'tablet', 'Android', '13', 'Chrome', '126'),
        (2, 'tv', 'Android', '11', 'Chrome', '110')
) AS a (weight, device, os, os_version, browser, browser_version)
CROSS JOIN LATERAL generate_series(1, weight);

ANALYZE bench.routes, bench.agents;

-- A day of so many clicks in the order of time, into a partition of its own, with the out-clicks and conversions that belong to
-- it. Triggers do not run: the sums of the day are counted from its facts afterwards.
CREATE FUNCTION bench.make_day(day date, count integer) RETURNS void LANGUAGE plpgsql
SET work_mem = '256MB' SET maintenance_work_mem = '512MB' SET max_parallel_workers_per_gather = 0 AS $$
DECLARE
    name    text := format('clicks_%s', to_char(day, 'YYYYMMDD'));
    begins  timestamptz := day::timestamp AT TIME ZONE 'UTC';
    agents  integer := (SELECT count(*) FROM bench.agents);
BEGIN
    PERFORM set_config('session_replication_role', 'replica', true);
    EXECUTE format('CREATE TABLE %I (LIKE clicks INCLUDING DEFAULTS)', name);
    EXECUTE format($sql$
        INSERT INTO %I (
            id, campaign_id, ip_address, is_valid, invalid_reason, is_bot, country, device, os, browser, os_version,
            browser_version, city, sub1, landing_page_id, campaign_offer_id, rule_id, path_id, source_id, cost, currency,
            is_unique, created_at, updated_at
        )
        SELECT
            (lpad(to_hex((extract(epoch FROM at) * 1000)::int8), 12, '0') || '7000-8' || lpad(to_hex(i), 15, '0'))::uuid,
            r.campaign_id, '10.0.0.0'::inet + (u.chance * 16000000)::integer, u.reason IS NULL, u.reason,
            coalesce(u.reason = 'bot', false), r.country, a.device, a.os, a.browser, a.os_version, a.browser_version,
            r.country || '-' || i %% 40, 'ad-' || (u.chance * 1000000)::integer, r.landing_page_id,
            CASE WHEN r.landing_page_id IS NULL THEN r.offer_id END, r.rule_id, r.path_id, r.source_id,
            CASE WHEN r.currency IS NOT NULL THEN (i %% 40 + 5) * 0.0005 END, r.currency,
            u.reason IS NULL AND u.chance < 0.85, at, at
        FROM (
            SELECT
                i,
                -- few at night, at most three and a half times as many by day
                $1 + interval '1 day' * least(0.99999999, (i - 0.5) / $2 + 0.09 * sin(2 * pi() * (i - 0.5) / $2)) AS exact,
                (random() * 131072 - 0.5)::integer AS route,
                (random() * $3 - 0.5)::integer AS agent,
                random() AS chance
            FROM generate_series(1, $2) AS i
        ) g
        CROSS JOIN LATERAL (
            SELECT
                date_trunc('milliseconds', exact) AS at,
                chance,
                CASE
                    WHEN i %% 25 = 3 THEN 'bot'
                    WHEN i %% 40 = 7 THEN 'duplicate'
                    WHEN i %% 200 = 9 THEN 'datacenter'
                    WHEN i %% 500 = 11 THEN 'prefetch'
                END AS reason
        ) u
        JOIN bench.routes r ON r.n = abs(g.route)
        JOIN bench.agents a ON a.n = abs(g.agent)
    $sql$, name) USING begins, count, agents;
    EXECUTE format('ALTER TABLE %I ADD PRIMARY KEY (created_at, id)', name);
    EXECUTE format('ALTER TABLE clicks ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, begins, begins + interval '1 day');

    -- three of ten go on from the landing page, to an offer of the campaign
    EXECUTE format($sql$
        INSERT INTO out_click_legs (click_id, offer_id, created_at, is_counted)
        SELECT id, landing_page_id / 100 * 100 + ('x' || right(id::text, 1))::bit(4)::integer %% 2, created_at, true
        FROM %I
        WHERE is_valid
          AND landing_page_id IS NOT NULL
          AND hashtext(id::text) %% 10 IN (0, 1, 2)
    $sql$, name);
    INSERT INTO out_click_keys (click_id, created_at, is_counted)
    SELECT click_id, created_at, true
    FROM out_click_legs
    WHERE created_at >= begins
      AND created_at < begins + interval '1 day';

    EXECUTE format($sql$
        INSERT INTO conversions (
            id, campaign_id, click_id, goal, txid, nth, kind, status, payout, original_payout, currency, flags, rule_id, path_id,
            landing_page_id, offer_id, source_id, country, device, os, browser, os_version, browser_version, city, sub1,
            is_click_valid, converted_at, first_at, last_at, created_at
        )
        SELECT
            gen_random_uuid(), campaign_id, id, CASE WHEN offer %% 3 = 0 AND chance < 0.2 THEN 'sale' ELSE '' END, id::text, 0,
            'conversion', status, CASE WHEN status IN ('approved', 'pending') THEN 12.5 ELSE 0 END,
            CASE WHEN status IN ('rejected', 'refunded') THEN 12.5 END, CASE WHEN offer %% 10 < 7 THEN 'USD' ELSE 'EUR' END,
            '{}', rule_id, path_id, landing_page_id, offer, source_id, country,
            device, os, browser, os_version, browser_version, city, sub1, true, at, at, at, created_at
        FROM (
            SELECT *, least(created_at + delay, $1 + interval '1 day' - interval '1 ms') AS at
            FROM (
                SELECT
                    *,
                    coalesce(campaign_offer_id, landing_page_id / 100 * 100) AS offer,
                    random() AS chance,
                    random() * interval '5 hours' AS delay,
                    (ARRAY['approved', 'approved', 'approved', 'approved', 'pending', 'pending', 'rejected', 'refunded'])[
                        1 + floor(random() * 8)::integer
                    ] AS status
                FROM %I
                WHERE is_valid
                  AND random() < 0.0162
            ) k
        ) k
    $sql$, name) USING begins;
    INSERT INTO conversion_changes (
        campaign_id, conversion_id, click_id, cause, to_status, payout, revenue, currency, changed_at, created_at
    )
    SELECT
        campaign_id, id, click_id, 'postback', status, payout, CASE WHEN status = 'approved' THEN payout ELSE 0 END, currency,
        last_at, created_at
    FROM conversions
    WHERE created_at >= begins
      AND created_at < begins + interval '1 day';
    PERFORM set_config('session_replication_role', 'origin', true);
END $$;

-- The sums of a day again as those of another: what many days come to where the facts of one are enough. Hours only of some
-- campaigns, where the disk is small: those of others stand elsewhere and are not read.
CREATE FUNCTION bench.copy_day(of_day date, as_day date, hours_of uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    days    integer := as_day - of_day;
    columns text := 'campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser, reason,
        currency, goal, status';
    sums    text := 'clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks,
        cost, conversions, amount';
BEGIN
    PERFORM octo_make_report_day(as_day);
    EXECUTE format(
        'INSERT INTO report_hours (hour, rate_day, time_kind, %1$s, %2$s)
         SELECT hour + $1 * interval ''1 day'', rate_day + $1, time_kind, %1$s, %2$s FROM report_hours_%3$s
         WHERE $2 IS NULL OR campaign_id = ANY ($2)',
        columns, sums, to_char(of_day, 'YYYYMMDD')) USING days, hours_of;
    EXECUTE format(
        'INSERT INTO report_days (day, rate_day, time_kind, %1$s, %2$s)
         SELECT day + $1, rate_day + $1, time_kind, %1$s, %2$s FROM report_days WHERE day = $2', columns, sums) USING days, of_day;
    EXECUTE format(
        'INSERT INTO report_dimensions (dimension, day, campaign_id, value, time_kind, currency, goal, status, rate_day, %1$s)
         SELECT dimension, day + $1, campaign_id, value, time_kind, currency, goal, status, rate_day + $1, %1$s
         FROM report_dimensions WHERE day = $2', sums) USING days, of_day;
    EXECUTE format(
        'INSERT INTO report_overall (dimension, day, value, time_kind, currency, goal, status, rate_day, %1$s)
         SELECT dimension, day + $1, value, time_kind, currency, goal, status, rate_day + $1, %1$s
         FROM report_overall WHERE day = $2', sums) USING days, of_day;
    EXECUTE format(
        'INSERT INTO report_traffic (
             day, rate_day, time_kind, source_id, country, device, os, browser, reason, currency, goal, status, %1$s
         )
         SELECT
             day + $1, rate_day + $1, time_kind, source_id, country, device, os, browser, reason, currency, goal, status, %1$s
         FROM report_traffic WHERE day = $2', sums) USING days, of_day;
    EXECUTE format(
        'INSERT INTO report_parts (
             day, rate_day, dimension, value, time_kind, campaign_id, rule_id, path_id, landing_page_id, offer_id, currency, goal,
             status, %1$s
         )
         SELECT
             day + $1, rate_day + $1, dimension, value, time_kind, campaign_id, rule_id, path_id, landing_page_id, offer_id, currency,
             goal, status, %1$s
         FROM report_parts WHERE day = $2', sums) USING days, of_day;
END $$;
