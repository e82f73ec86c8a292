-- How an affiliate network tells of conversions: the key in its address, who may, and how what it sends is read.
--
-- A small table, so that it may be rewritten for the keys of the networks that are there.

ALTER TABLE affiliate_networks
    ADD COLUMN postback_key text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', '')
        CHECK (postback_key ~ '^[A-Za-z0-9_-]{8,64}$'),
    ADD COLUMN postback_token_sha256 bytea CHECK (octet_length(postback_token_sha256) = 32),
    ADD COLUMN postback_addresses text[] NOT NULL DEFAULT '{}',     -- networks (CIDR) that may send; empty: all
    ADD COLUMN postback_parameters jsonb NOT NULL DEFAULT '[]',     -- [{"field", "name"}]
    ADD COLUMN default_status text
        CHECK (default_status IN ('pending', 'approved', 'rejected', 'refunded', 'rebill', 'ignored')),
    ADD COLUMN retry_window_s integer NOT NULL DEFAULT 3600 CHECK (retry_window_s BETWEEN 0 AND 604800),
    ADD COLUMN sums_lists boolean NOT NULL DEFAULT false;
CREATE UNIQUE INDEX affiliate_networks_postback_key ON affiliate_networks (postback_key);
