-- Rules, paths, and libraries of landing pages and offers.
--
-- Columns of clicks are nullable and without a default: no row is rewritten. `rules` is NULL for a campaign that is written
-- with `landing_pages` and `offers` alone, which are its default rule's only path: so 0.1.0 reads and writes it as before.

ALTER TABLE clicks
    ADD COLUMN rule_id bigint,          -- 0: the default rule; NULL: none took it
    ADD COLUMN path_id bigint,          -- 0: the default rule's only path
    ADD COLUMN routed text[],           -- why, where it was not the first choice
    ADD COLUMN language text,
    ADD COLUMN region text,
    ADD COLUMN city text,
    ADD COLUMN isp text,
    ADD COLUMN connection text,
    ADD COLUMN os_version text,
    ADD COLUMN browser_version text,
    ADD COLUMN source_id bigint,        -- in traffic_sources
    ADD COLUMN keyword text,
    ADD COLUMN creative text,
    ADD COLUMN placement text,
    ADD COLUMN is_unique boolean,
    ADD COLUMN via text;                -- 'script': POST /visit

-- What rules and paths are named by; never used again.
CREATE SEQUENCE route_ids AS bigint;

ALTER TABLE campaigns
    ADD COLUMN rules jsonb,             -- octo's StoredRules: rules and paths, their destinations by id
    ADD COLUMN sticky text NOT NULL DEFAULT 'off' CHECK (sticky IN ('off', 'path', 'all')),
    ADD COLUMN epoch integer NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    ADD COLUMN time_zone text NOT NULL DEFAULT 'UTC',
    ADD COLUMN traffic_source_id bigint,
    -- of the library: what its paths name, and for offers what those lead to once they are full
    ADD COLUMN library_landing_pages bigint[] NOT NULL DEFAULT '{}',
    ADD COLUMN library_offers bigint[] NOT NULL DEFAULT '{}';
CREATE INDEX campaigns_library_landing_pages ON campaigns USING gin (library_landing_pages);
CREATE INDEX campaigns_library_offers ON campaigns USING gin (library_offers);
CREATE INDEX campaigns_traffic_source_id ON campaigns (traffic_source_id) WHERE traffic_source_id IS NOT NULL;

-- Without a campaign: of the library.
ALTER TABLE landing_pages
    ALTER COLUMN campaign_id DROP NOT NULL,
    ADD COLUMN web_url text,
    ADD COLUMN archived_at timestamptz,
    ADD COLUMN version bigint NOT NULL DEFAULT 1,
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now();

ALTER TABLE offers
    ALTER COLUMN campaign_id DROP NOT NULL,
    ADD COLUMN web_url text,
    ADD COLUMN caps jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN overflow_offer_id bigint,
    ADD COLUMN affiliate_network_id bigint,
    ADD COLUMN archived_at timestamptz,
    ADD COLUMN version bigint NOT NULL DEFAULT 1,
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now();

CREATE FUNCTION octo_library_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    NEW.updated_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER library_changes BEFORE UPDATE ON landing_pages
    FOR EACH ROW EXECUTE FUNCTION octo_library_changes();
CREATE TRIGGER library_changes BEFORE UPDATE ON offers
    FOR EACH ROW EXECUTE FUNCTION octo_library_changes();

-- Offers of the library, with those that they lead to once they are full: at most 8 steps.
CREATE FUNCTION octo_with_overflow(ids bigint[]) RETURNS bigint[] LANGUAGE sql STABLE AS $$
    WITH RECURSIVE chain (id, step) AS (
        SELECT id, 0
        FROM unnest(ids) AS given (id)
        UNION
        SELECT o.overflow_offer_id, chain.step + 1
        FROM chain
        JOIN offers o ON o.id = chain.id
        WHERE o.campaign_id IS NULL
          AND o.overflow_offer_id IS NOT NULL
          AND chain.step < 8
    )
    SELECT coalesce(array_agg(DISTINCT o.id), '{}')
    FROM chain
    JOIN offers o ON o.id = chain.id AND o.campaign_id IS NULL
$$;

-- Every campaign that uses what changed is a new version, which nodes hear of.
CREATE OR REPLACE FUNCTION octo_destination_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.campaign_id IS NULL AND OLD.campaign_id IS NULL THEN
        IF TG_TABLE_NAME = 'offers' THEN
            UPDATE campaigns
            SET library_offers = octo_with_overflow(library_offers), updated_at = now()
            WHERE library_offers @> ARRAY[coalesce(NEW.id, OLD.id)];
        ELSE
            UPDATE campaigns SET updated_at = now()
            WHERE library_landing_pages @> ARRAY[coalesce(NEW.id, OLD.id)];
        END IF;
    ELSE
        UPDATE campaigns SET updated_at = now() WHERE id IN (NEW.campaign_id, OLD.campaign_id);
    END IF;
    RETURN NULL;
END $$;
