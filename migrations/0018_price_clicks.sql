-- What clicks cost: what their links said, summed by hour and currency, and what is said of it later.

-- Kept by the drain in the transaction that stores the clicks. The currency is '' where the link said no cost, and XXX
-- where it said an amount of no known currency, which is added to no other.
CREATE TABLE campaign_costs_hourly (
    campaign_id   uuid        NOT NULL,
    hour          timestamptz NOT NULL,
    currency      text        NOT NULL,
    clicks        bigint      NOT NULL DEFAULT 0,
    valid_clicks  bigint      NOT NULL DEFAULT 0,
    unique_clicks bigint      NOT NULL DEFAULT 0,
    costed_clicks bigint      NOT NULL DEFAULT 0,
    cost          numeric     NOT NULL DEFAULT 0,
    PRIMARY KEY (campaign_id, hour, currency)
) WITH (fillfactor = 70); -- updates of one page stay in it (HOT)

-- What is stored already; the clicks are only read.
INSERT INTO campaign_costs_hourly
SELECT
    campaign_id,
    date_trunc('hour', created_at, 'UTC'),
    CASE WHEN cost IS NULL THEN '' ELSE coalesce(currency, 'XXX') END,
    count(*),
    count(*) FILTER (WHERE is_valid),
    count(*) FILTER (WHERE is_unique),
    count(cost),
    coalesce(sum(cost), 0)
FROM clicks
GROUP BY 1, 2, 3;

-- What a click costs by the model of its campaign.
ALTER TABLE campaigns
    DROP CONSTRAINT campaigns_cost_model_check,
    ADD CONSTRAINT campaigns_cost_model_check
        CHECK (cost_model IN ('cpc', 'cpa', 'cpm', 'revshare', 'cpuc', 'none')),
    ADD COLUMN cost_amount numeric(18, 6) CHECK (cost_amount >= 0),
    ADD COLUMN cost_currency text,
    ADD COLUMN revenue_share numeric(9, 6) CHECK (revenue_share BETWEEN 0 AND 100); -- percent, of revshare

-- conversions are few beside clicks, and their costs are asked for by campaign and time of the click
CREATE INDEX conversions_campaign_id_created_at ON conversions (campaign_id, created_at);

-- Since which hour a campaign has which price: another price moves no past cost.
CREATE TABLE campaign_prices (
    campaign_id uuid        NOT NULL,
    since       timestamptz NOT NULL,
    cost_model  text        NOT NULL,
    amount      numeric(18, 6),
    currency    text,
    PRIMARY KEY (campaign_id, since)
);

-- The amount of revshare is a percentage and has no currency.
CREATE FUNCTION octo_price_changes() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE TRIGGER price_changes AFTER INSERT OR UPDATE ON campaigns
    FOR EACH ROW EXECUTE FUNCTION octo_price_changes();

-- What is said later of the costs of a range. Rows are only added, and marked as void.
CREATE TABLE cost_adjustments (
    id          uuid        PRIMARY KEY,
    seq         bigint      GENERATED ALWAYS AS IDENTITY,
    campaign_id uuid        NOT NULL,
    begins_at   timestamptz NOT NULL,
    ends_at     timestamptz NOT NULL,       -- before this time
    time_zone   text        NOT NULL,       -- in which the range was said
    filters     jsonb       NOT NULL,       -- {"country": ["DE"]}: clicks with one of the values of each
    scope       text        NOT NULL,       -- the newest of one scope counts
    kind        text        NOT NULL CHECK (kind IN ('total', 'per_click', 'per_mille', 'factor')),
    amount      numeric(18, 6) NOT NULL CHECK (amount >= 0),
    currency    text,                       -- NULL: a factor has none
    spread      text        NOT NULL CHECK (spread IN ('valid', 'all', 'unique')),
    note        text,
    author_id   uuid,                       -- the token; NULL: the command line
    author      text        NOT NULL,
    account     text,                       -- of a running total
    external_id text,
    day         date,
    supersedes  uuid,
    voided_at   timestamptz,
    voided_by   text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (begins_at < ends_at),
    CHECK ((kind = 'factor') = (currency IS NULL)),
    CHECK (date_trunc('hour', begins_at, 'UTC') = begins_at AND date_trunc('hour', ends_at, 'UTC') = ends_at)
);
CREATE UNIQUE INDEX cost_adjustments_seq ON cost_adjustments (seq);
CREATE INDEX cost_adjustments_scope ON cost_adjustments (campaign_id, scope, seq);
CREATE INDEX cost_adjustments_campaign_id ON cost_adjustments (campaign_id, ends_at);

-- Those that count, with what makes one more specific than another: more dimensions, then fewer values, then a shorter
-- range, then newer.
CREATE VIEW live_cost_adjustments AS
SELECT
    a.*,
    row_number() OVER (
        PARTITION BY a.campaign_id
        ORDER BY
            (SELECT count(*) FROM jsonb_object_keys(a.filters)) DESC,
            (SELECT coalesce(sum(jsonb_array_length(value)), 0) FROM jsonb_each(a.filters)),
            a.ends_at - a.begins_at,
            a.seq DESC
    ) AS rank
FROM cost_adjustments a
WHERE a.voided_at IS NULL
  AND NOT EXISTS (
      SELECT
      FROM cost_adjustments n
      WHERE n.campaign_id = a.campaign_id
        AND n.scope = a.scope
        AND n.seq > a.seq
        AND n.voided_at IS NULL
  );

-- Whether a click is one of a filter; what is not known of it is `unknown`.
CREATE FUNCTION octo_cost_filter(
    filters jsonb, source bigint, landing_page bigint, offer bigint, path bigint, rule bigint, country text, device text,
    sub1 text, sub2 text, sub3 text, sub4 text, sub5 text, keyword text, creative text, placement text
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (NOT filters ? 'source' OR filters -> 'source' ? coalesce(source::text, 'unknown'))
       AND (NOT filters ? 'landing_page' OR filters -> 'landing_page' ? coalesce(landing_page::text, 'unknown'))
       AND (NOT filters ? 'offer' OR filters -> 'offer' ? coalesce(offer::text, 'unknown'))
       AND (NOT filters ? 'path' OR filters -> 'path' ? coalesce(path::text, 'unknown'))
       AND (NOT filters ? 'rule' OR filters -> 'rule' ? coalesce(rule::text, 'unknown'))
       AND (NOT filters ? 'country' OR filters -> 'country' ? coalesce(country, 'unknown'))
       AND (NOT filters ? 'device' OR filters -> 'device' ? coalesce(device, 'unknown'))
       AND (NOT filters ? 'sub1' OR filters -> 'sub1' ? coalesce(sub1, 'unknown'))
       AND (NOT filters ? 'sub2' OR filters -> 'sub2' ? coalesce(sub2, 'unknown'))
       AND (NOT filters ? 'sub3' OR filters -> 'sub3' ? coalesce(sub3, 'unknown'))
       AND (NOT filters ? 'sub4' OR filters -> 'sub4' ? coalesce(sub4, 'unknown'))
       AND (NOT filters ? 'sub5' OR filters -> 'sub5' ? coalesce(sub5, 'unknown'))
       AND (NOT filters ? 'keyword' OR filters -> 'keyword' ? coalesce(keyword, 'unknown'))
       AND (NOT filters ? 'creative' OR filters -> 'creative' ? coalesce(creative, 'unknown'))
       AND (NOT filters ? 'placement' OR filters -> 'placement' ? coalesce(placement, 'unknown'))
$$;

-- The hours that the costs of a range depend on: those of every adjustment that touches it, and of those that touch
-- these.
CREATE FUNCTION octo_cost_range(campaign uuid, INOUT lo timestamptz, INOUT hi timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    wider record;
BEGIN
    LOOP
        SELECT least(min(a.begins_at), lo) AS lo, greatest(max(a.ends_at), hi) AS hi
        INTO wider
        FROM live_cost_adjustments a
        WHERE a.campaign_id = campaign
          AND a.begins_at < octo_cost_range.hi
          AND a.ends_at > octo_cost_range.lo;
        EXIT WHEN wider.lo = lo AND wider.hi = hi;
        lo := wider.lo;
        hi := wider.hi;
    END LOOP;
END $$;

-- Whether every click of the one filter is one of the other.
CREATE FUNCTION octo_cost_filter_within(inner_filters jsonb, outer_filters jsonb)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT NOT EXISTS (
        SELECT
        FROM jsonb_each(outer_filters) o
        WHERE NOT coalesce(inner_filters -> o.key <@ o.value, false)
    )
$$;

-- What the first k of the n units of an adjustment or price cost together, in millionths: each unit costs what it adds, so any
-- parts add up to the whole. Units are clicks or conversions; of a factor millionths of what links said, of a percentage
-- millionths of revenue.
CREATE FUNCTION octo_cost_share(kind text, amount numeric, n numeric, k numeric)
RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE kind
        WHEN 'total' THEN CASE WHEN n = 0 THEN 0 ELSE div(amount * k, n) END
        WHEN 'per_click' THEN amount * k
        WHEN 'per_mille' THEN div(amount * k, 1000)
        WHEN 'percent' THEN div(amount * k, 100000000)
        ELSE div(amount * k, 1000000)
    END
$$;

-- The clicks of a campaign, each with the rank of the adjustment that prices it, if any.
CREATE FUNCTION octo_priced_clicks(campaign uuid, lo timestamptz, hi timestamptz)
RETURNS TABLE (
    click_id uuid, created_at timestamptz, hour timestamptz, currency text, token numeric, is_valid integer,
    is_unique integer, rank bigint
)
LANGUAGE sql STABLE AS $$
    WITH a AS MATERIALIZED (
        SELECT *
        FROM live_cost_adjustments
        WHERE campaign_id = campaign
          AND begins_at < hi
          AND ends_at > lo
    )
    SELECT
        k.id,
        k.created_at,
        date_trunc('hour', k.created_at, 'UTC'),
        CASE WHEN k.cost IS NULL THEN '' ELSE coalesce(k.currency, 'XXX') END COLLATE "C",
        coalesce(k.cost, 0) * 1000000,
        k.is_valid::integer,
        coalesce(k.is_unique, false)::integer,
        (
            SELECT min(a.rank)
            FROM a
            WHERE k.created_at >= a.begins_at
              AND k.created_at < a.ends_at
              AND (a.kind <> 'factor' OR k.cost IS NOT NULL)
              AND octo_cost_filter(
                  a.filters, k.source_id, k.landing_page_id, k.campaign_offer_id, k.path_id, k.rule_id, k.country,
                  k.device, k.sub1, k.sub2, k.sub3, k.sub4, k.sub5, k.keyword, k.creative, k.placement
              )
        )
    FROM clicks k
    WHERE k.campaign_id = campaign
      AND k.created_at >= lo
      AND k.created_at < hi
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
CREATE FUNCTION octo_click_costs(campaign uuid, from_time timestamptz, to_time timestamptz)
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
