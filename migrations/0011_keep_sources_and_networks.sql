-- Traffic sources and affiliate networks, and who uses what of the library.

ALTER TABLE traffic_sources
    ADD COLUMN template text,
    ADD COLUMN parameters jsonb NOT NULL DEFAULT '[]',  -- [{"name", "macro", "slot", "unit"?, "currency"?}]
    ADD COLUMN postback_url text,
    ADD COLUMN archived_at timestamptz,
    ADD COLUMN version bigint NOT NULL DEFAULT 1,
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN made_by uuid;                            -- the request: the same once more makes no other
CREATE UNIQUE INDEX traffic_sources_made_by ON traffic_sources (made_by);

CREATE TABLE affiliate_networks (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name                text        NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    template            text,
    click_id_parameter  text,
    click_id_macro      text,
    status_map          jsonb       NOT NULL DEFAULT '[]',  -- [{"word", "status", "goal"?}]
    currency            text,
    repeats             text        NOT NULL DEFAULT 'update' CHECK (repeats IN ('update', 'ignore', 'new', 'add')),
    archived_at         timestamptz,
    version             bigint      NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    made_by             uuid
);
CREATE UNIQUE INDEX affiliate_networks_made_by ON affiliate_networks (made_by);

ALTER TABLE landing_pages ADD COLUMN made_by uuid;
CREATE UNIQUE INDEX landing_pages_made_by ON landing_pages (made_by) WHERE made_by IS NOT NULL;
ALTER TABLE offers ADD COLUMN made_by uuid;
CREATE UNIQUE INDEX offers_made_by ON offers (made_by) WHERE made_by IS NOT NULL;
CREATE INDEX landing_pages_library ON landing_pages (id) WHERE campaign_id IS NULL;
CREATE INDEX offers_library ON offers (id) WHERE campaign_id IS NULL;

-- Small tables: what is used cannot go.
ALTER TABLE campaigns
    ADD CONSTRAINT campaigns_traffic_source_id_fkey FOREIGN KEY (traffic_source_id) REFERENCES traffic_sources (id);
ALTER TABLE offers
    ADD CONSTRAINT offers_affiliate_network_id_fkey FOREIGN KEY (affiliate_network_id) REFERENCES affiliate_networks (id);
CREATE INDEX offers_affiliate_network_id ON offers (affiliate_network_id) WHERE affiliate_network_id IS NOT NULL;
CREATE INDEX offers_overflow_offer_id ON offers (overflow_offer_id) WHERE overflow_offer_id IS NOT NULL;

CREATE TRIGGER library_changes BEFORE UPDATE ON traffic_sources
    FOR EACH ROW EXECUTE FUNCTION octo_library_changes();
CREATE TRIGGER library_changes BEFORE UPDATE ON affiliate_networks
    FOR EACH ROW EXECUTE FUNCTION octo_library_changes();

-- Every campaign of a source that changed is a new version, which nodes hear of: they keep the source beside it.
CREATE FUNCTION octo_source_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE campaigns SET updated_at = now() WHERE traffic_source_id = NEW.id AND deleted_at IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER source_changes AFTER UPDATE ON traffic_sources
    FOR EACH ROW
    WHEN ((OLD.name, OLD.parameters) IS DISTINCT FROM (NEW.name, NEW.parameters))
    EXECUTE FUNCTION octo_source_changes();

-- What the drain counts of a source's clicks; days are of UTC.
CREATE TABLE source_stats_daily (
    source_id   bigint NOT NULL,
    day         date   NOT NULL,
    clicks      bigint NOT NULL,
    unexpanded  bigint NOT NULL,  -- clicks with a macro that the source did not fill
    PRIMARY KEY (source_id, day)
);
