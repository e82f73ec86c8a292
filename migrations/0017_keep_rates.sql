-- What currencies are worth, and a function that converts by it: `amount * octo_fx('UAH', 'USD', day)`.

CREATE TABLE fx_rates (
    currency    text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$' AND currency NOT IN ('EUR', 'XXX')),
    day         date        NOT NULL,  -- ecb: when it was published; manual: from when on it holds
    rate        numeric     NOT NULL CHECK (rate BETWEEN 0.01 AND 100000000 AND scale(rate) <= 12), -- units for 1 EUR
    source      text        NOT NULL CHECK (source IN ('ecb', 'manual')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (currency, day, source)
);
CREATE INDEX fx_rates_day ON fx_rates (day, currency, source);

-- Rates that were changed, and with them what was reported of past days: only added to.
CREATE TABLE fx_restatements (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    currency     text        NOT NULL,
    day          date        NOT NULL,
    source       text        NOT NULL,
    old_rate     numeric     NOT NULL,
    new_rate     numeric     NOT NULL,
    restated_at  timestamptz NOT NULL DEFAULT now(),
    restated_by  text        NOT NULL  -- such as: octo fx import eurofxref-hist.zip
);

-- Units of a currency for 1 EUR on a day: the last that the bank published before it, unless that is older than
-- age_days_max; else the owner's, from its day on; else NULL. As src/money/rates.rs has it.
CREATE FUNCTION octo_fx_per_euro(of_currency text, on_day date, age_days_max integer) RETURNS numeric
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE of_currency
        WHEN 'EUR' THEN 1
        ELSE coalesce(
            (
                SELECT r.rate
                FROM fx_rates r
                WHERE r.currency = of_currency
                  AND r.source = 'ecb'
                  AND r.day < on_day
                  AND r.day >= on_day - age_days_max
                ORDER BY r.day DESC
                LIMIT 1
            ),
            (
                SELECT r.rate
                FROM fx_rates r
                WHERE r.currency = of_currency
                  AND r.source = 'manual'
                  AND r.day <= on_day
                ORDER BY r.day DESC
                LIMIT 1
            )
        )
    END
$$;

-- What one unit of a currency is worth in another on a day (UTC), to 18 decimals. NULL: there is no rate, and the amount
-- must not be added to others. age_days_max is money.rate_age_days_max.
CREATE FUNCTION octo_fx(from_currency text, to_currency text, on_day date, age_days_max integer DEFAULT 10)
    RETURNS numeric LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN from_currency = 'XXX' OR to_currency = 'XXX' THEN NULL -- not known which
        WHEN from_currency = to_currency THEN 1
        ELSE trim_scale(round(
            round(octo_fx_per_euro(to_currency, on_day, age_days_max), 30) -- for the decimals of the quotient
                / octo_fx_per_euro(from_currency, on_day, age_days_max),
            18
        ))
    END
$$;
