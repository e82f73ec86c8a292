-- Costs that move with conversions: a price of each approved conversion (cpa), and a part of the approved revenue
-- (revshare), both of the hour of the click.

ALTER TABLE campaigns
    ADD COLUMN revenue_share numeric(9, 6) CHECK (revenue_share BETWEEN 0 AND 100); -- percent

-- conversions are few beside clicks, and their costs are asked for by campaign and time of the click
CREATE INDEX conversions_campaign_id_created_at ON conversions (campaign_id, created_at);

-- The amount of revshare is a percentage and has no currency.
CREATE OR REPLACE FUNCTION octo_price_changes() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    price numeric := CASE WHEN NEW.cost_model = 'revshare' THEN NEW.revenue_share ELSE NEW.cost_amount END;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF price IS NULL THEN
            RETURN NULL;
        END IF;
    ELSIF (NEW.cost_model, NEW.cost_amount, NEW.cost_currency, NEW.revenue_share)
        IS NOT DISTINCT FROM (OLD.cost_model, OLD.cost_amount, OLD.cost_currency, OLD.revenue_share)
    THEN
        RETURN NULL;
    END IF;
    INSERT INTO campaign_prices (campaign_id, since, cost_model, amount, currency)
    VALUES (
        NEW.id,
        date_trunc('hour', now(), 'UTC'),
        NEW.cost_model,
        price,
        CASE WHEN NEW.cost_model <> 'revshare' THEN NEW.cost_currency END
    )
    ON CONFLICT (campaign_id, since) DO UPDATE
    SET cost_model = excluded.cost_model,
        amount = excluded.amount,
        currency = excluded.currency;
    RETURN NULL;
END $$;

-- By revshare no amount was a percentage so far.
UPDATE campaign_prices
SET amount = NULL,
    currency = NULL
WHERE cost_model = 'revshare';

-- What the first k of the n units of an adjustment or price cost together, in millionths: each unit costs what it adds, so any
-- parts add up to the whole. Units are clicks or conversions; of a factor millionths of what links said, of a percentage
-- millionths of revenue.
CREATE OR REPLACE FUNCTION octo_cost_share(kind text, amount numeric, n numeric, k numeric)
RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE kind
        WHEN 'total' THEN CASE WHEN n = 0 THEN 0 ELSE div(amount * k, n) END
        WHEN 'per_click' THEN amount * k
        WHEN 'per_mille' THEN div(amount * k, 1000)
        WHEN 'percent' THEN div(amount * k, 100000000)
        ELSE div(amount * k, 1000000)
    END
$$;

-- What approved conversions of clicks come to: how many there are (without further payments and corrections), and the
-- revenue in millionths.
CREATE FUNCTION octo_click_earnings(campaign uuid, lo timestamptz, hi timestamptz)
RETURNS TABLE (click_id uuid, created_at timestamptz, currency text, conversions bigint, revenue numeric)
LANGUAGE sql STABLE AS $$
    SELECT
        v.click_id,
        v.created_at,
        v.currency COLLATE "C",
        count(*) FILTER (WHERE v.kind = 'conversion'),
        sum(v.payout) * 1000000
    FROM conversions v
    WHERE v.campaign_id = campaign
      AND v.created_at >= lo
      AND v.created_at < hi
      AND v.status = 'approved'
    GROUP BY 1, 2, 3
$$;

-- What each click cost, and where that is from: the figures of GET /api/v1/campaigns/{id}/costs, click by click. By
-- revshare a click with revenue in several currencies has a row of each.
CREATE OR REPLACE FUNCTION octo_click_costs(campaign uuid, from_time timestamptz, to_time timestamptz)
RETURNS TABLE (click_id uuid, created_at timestamptz, cost numeric, currency text, provenance text)
-- compiling plans over many partitions takes longer than running them
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
DECLARE
    r record;
    a record;
    counted jsonb;
    done jsonb := '[]';
    units record;
    basis text;
    remaining numeric;
BEGIN
    SELECT *
    INTO r
    FROM octo_cost_range(
        campaign,
        date_trunc('hour', from_time, 'UTC'),
        date_trunc('hour', to_time + interval '59 minutes 59.999999 seconds', 'UTC')
    );
    SELECT coalesce(jsonb_agg(c), '[]')
    INTO counted
    FROM (
        SELECT
            rank,
            hour,
            currency,
            count(*) AS clicks,
            sum(is_valid) AS valid_clicks,
            sum(is_unique) AS unique_clicks,
            sum(token) AS token
        FROM octo_priced_clicks(campaign, r.lo, r.hi)
        WHERE rank IS NOT NULL
        GROUP BY 1, 2, 3
    ) c;
    FOR a IN
        SELECT *
        FROM live_cost_adjustments l
        WHERE l.campaign_id = campaign
          AND l.begins_at < r.hi
          AND l.ends_at > r.lo
        ORDER BY l.rank
    LOOP
        SELECT
            coalesce(sum(c.clicks), 0) AS clicks,
            coalesce(sum(c.valid_clicks), 0) AS valid,
            coalesce(sum(c.unique_clicks), 0) AS "unique"
        INTO units
        FROM jsonb_to_recordset(counted)
            AS c (rank bigint, clicks numeric, valid_clicks numeric, unique_clicks numeric)
        WHERE c.rank = a.rank;
        basis := CASE
            WHEN a.kind = 'factor' THEN 'token'
            WHEN a.kind <> 'total' THEN a.spread
            WHEN a.spread = 'unique' AND units."unique" > 0 THEN 'unique'
            WHEN a.spread <> 'all' AND units.valid > 0 THEN 'valid'
            ELSE 'all'
        END;
        remaining := a.amount * 1000000;
        IF a.kind = 'total' THEN
            -- less what more specific ones took of its clicks
            SELECT greatest(remaining - coalesce(sum(
                octo_cost_share(p.kind, p.rest, p.n, k.until_end) - octo_cost_share(p.kind, p.rest, p.n, k.before)
                + CASE
                    WHEN p.kind = 'total' AND p.n = 0 AND p.begins_at >= a.begins_at AND p.begins_at < a.ends_at
                    THEN p.rest
                    ELSE 0
                END
            ), 0), 0)
            INTO remaining
            FROM jsonb_to_recordset(done) AS p (
                rank bigint, kind text, rest numeric, n numeric, basis text, begins_at timestamptz,
                ends_at timestamptz, filters jsonb, currency text
            )
            CROSS JOIN LATERAL (
                SELECT
                    coalesce(sum(u.units) FILTER (WHERE c.hour < a.begins_at), 0) AS before,
                    coalesce(sum(u.units) FILTER (WHERE c.hour < a.ends_at), 0) AS until_end
                FROM jsonb_to_recordset(counted) AS c (
                    rank bigint, hour timestamptz, currency text, clicks numeric, valid_clicks numeric,
                    unique_clicks numeric, token numeric
                )
                CROSS JOIN LATERAL (
                    SELECT CASE p.basis
                        WHEN 'valid' THEN c.valid_clicks
                        WHEN 'unique' THEN c.unique_clicks
                        WHEN 'all' THEN c.clicks
                        ELSE CASE WHEN c.currency = a.currency THEN c.token ELSE 0 END
                    END AS units
                ) u
                WHERE c.rank = p.rank
            ) k
            WHERE p.begins_at < a.ends_at
              AND p.ends_at > a.begins_at
              AND (p.kind = 'factor' OR p.currency = a.currency)
              AND octo_cost_filter_within(p.filters, a.filters);
        END IF;
        done := done || jsonb_build_object(
            'rank', a.rank, 'kind', a.kind, 'rest', remaining, 'basis', basis, 'begins_at', a.begins_at,
            'ends_at', a.ends_at, 'filters', a.filters, 'currency', a.currency,
            'n', CASE basis WHEN 'valid' THEN units.valid WHEN 'unique' THEN units."unique" ELSE units.clicks END
        );
    END LOOP;
    RETURN QUERY
    WITH p AS (
        SELECT *
        FROM jsonb_to_recordset(done) AS p (rank bigint, kind text, rest numeric, n numeric, basis text, currency text)
    ), earned AS (
        SELECT *
        FROM octo_click_earnings(campaign, r.lo, r.hi)
    ), converted AS (
        SELECT e.click_id, sum(e.conversions) AS conversions
        FROM earned e
        GROUP BY 1
    ), priced AS (
        SELECT
            k.click_id,
            k.created_at,
            k.hour,
            k.token,
            k.rank,
            k.currency AS said_in,
            coalesce(p.kind, CASE m.cost_model
                WHEN 'cpm' THEN 'per_mille'
                WHEN 'revshare' THEN 'percent'
                ELSE 'per_click'
            END) AS kind,
            coalesce(p.rest, m.amount * 1000000) AS amount,
            p.n,
            coalesce(p.currency, CASE WHEN p.rank IS NULL THEN coalesce(m.currency, e.currency) END) AS priced_in,
            CASE coalesce(p.basis, CASE m.cost_model
                WHEN 'cpuc' THEN 'unique'
                WHEN 'cpa' THEN 'conversions'
                WHEN 'revshare' THEN 'revenue'
                ELSE 'valid'
            END)
                WHEN 'valid' THEN k.is_valid
                WHEN 'unique' THEN k.is_unique
                WHEN 'all' THEN 1
                WHEN 'conversions' THEN coalesce(v.conversions, 0)
                WHEN 'revenue' THEN coalesce(e.revenue, 0)
                ELSE k.token
            END AS units
        FROM octo_priced_clicks(campaign, r.lo, r.hi) k
        LEFT JOIN p ON p.rank = k.rank
        LEFT JOIN LATERAL (
            SELECT *
            FROM campaign_prices m
            WHERE m.campaign_id = campaign
              AND m.since <= k.hour
            ORDER BY m.since DESC
            LIMIT 1
        ) m ON k.rank IS NULL AND k.currency = '' AND m.cost_model <> 'none'
        LEFT JOIN converted v ON v.click_id = k.click_id AND m.cost_model = 'cpa'
        LEFT JOIN earned e ON e.click_id = k.click_id AND m.cost_model = 'revshare' AND m.amount IS NOT NULL
    ), summed AS (
        SELECT
            *,
            -- by a model each hour for itself, whatever range is asked for
            sum(units) OVER (
                PARTITION BY rank, CASE WHEN rank IS NULL THEN hour END, CASE kind WHEN 'factor' THEN said_in WHEN 'percent' THEN priced_in END
                ORDER BY hour, said_in, click_id
                ROWS UNBOUNDED PRECEDING
            ) AS k
        FROM priced
    )
    SELECT
        s.click_id,
        s.created_at,
        round(
            CASE
                WHEN s.rank IS NULL AND s.said_in <> '' THEN s.token
                ELSE octo_cost_share(s.kind, s.amount, s.n, s.k)
                    - octo_cost_share(s.kind, s.amount, s.n, s.k - s.units)
            END / 1000000,
            6
        ),
        coalesce(s.priced_in, nullif(s.said_in, '')),
        CASE
            WHEN s.rank IS NOT NULL THEN 'adjusted'
            WHEN s.said_in <> '' THEN 'token'
            WHEN s.amount IS NOT NULL AND s.priced_in IS NOT NULL THEN 'model'
            ELSE 'none'
        END
    FROM summed s
    WHERE s.created_at >= from_time
      AND s.created_at < to_time;
END $$;
