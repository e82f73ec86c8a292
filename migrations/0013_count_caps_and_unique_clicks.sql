-- What each process counted toward a cap in a window: numbers that only rise, summed when read.

CREATE TABLE cap_counts (
    counter text NOT NULL,              -- such as offer/5/clicks/day/Europe/Berlin
    starts_at timestamptz NOT NULL,     -- of the window
    node uuid NOT NULL,                 -- a process of octo
    count bigint NOT NULL CHECK (count >= 0),
    kept_until timestamptz NOT NULL,
    PRIMARY KEY (counter, starts_at, node)
) WITH (fillfactor = 50); -- its rows change every second

-- First valid clicks of a visitor in a campaign on a day (UTC).
ALTER TABLE campaign_stats_hourly ADD COLUMN unique_clicks bigint NOT NULL DEFAULT 0;
