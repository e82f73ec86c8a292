-- Campaigns and where they lead. Small tables, read into memory by every node.

CREATE TABLE traffic_sources (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text        NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE campaigns (
    id              uuid        PRIMARY KEY,
    key             text        NOT NULL CHECK (key ~ '^[A-Za-z0-9._-]{1,64}$'),
    name            text        NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    description     text,
    status          text        NOT NULL CHECK (status IN ('draft', 'active', 'paused', 'completed', 'cancelled')),
    start_at        timestamptz,
    end_at          timestamptz,
    cost_model      text        NOT NULL CHECK (cost_model IN ('cpc', 'cpa', 'cpm', 'revshare')),
    payout_amount        numeric(18, 6) CHECK (payout_amount >= 0),
    payout_currency      text,
    daily_budget_amount  numeric(18, 6) CHECK (daily_budget_amount >= 0),
    daily_budget_currency text,
    total_budget_amount  numeric(18, 6) CHECK (total_budget_amount >= 0),
    total_budget_currency text,
    fallback_url    text,
    pass_through    boolean     NOT NULL DEFAULT false,
    version         bigint      NOT NULL DEFAULT 1,
    -- the transaction of the last change: what a node polls for, see octo::db::campaigns
    changed_xid     xid8        NOT NULL DEFAULT pg_current_xact_id(),
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    deleted_at      timestamptz
);

-- the key of a deleted campaign may be used again
CREATE UNIQUE INDEX campaigns_key ON campaigns (key) WHERE deleted_at IS NULL;
CREATE INDEX campaigns_changed_xid ON campaigns (changed_xid);

CREATE TABLE landing_pages (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign_id uuid        NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    position    integer     NOT NULL,
    name        text        NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    url         text        NOT NULL,
    weight      integer     NOT NULL CHECK (weight BETWEEN 0 AND 1000000),
    is_active   boolean     NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX landing_pages_campaign_id ON landing_pages (campaign_id);

CREATE TABLE offers (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign_id uuid        NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    position    integer     NOT NULL,
    name        text        NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    url         text        NOT NULL,
    weight      integer     NOT NULL CHECK (weight BETWEEN 0 AND 1000000),
    is_active   boolean     NOT NULL,
    payout_amount   numeric(18, 6) CHECK (payout_amount >= 0),
    payout_currency text,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX offers_campaign_id ON offers (campaign_id);

-- Every change of a campaign, also one made by hand, is a new version that nodes hear of.

CREATE FUNCTION octo_campaign_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    NEW.changed_xid := pg_current_xact_id();
    NEW.updated_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER campaign_changes BEFORE UPDATE ON campaigns
    FOR EACH ROW EXECUTE FUNCTION octo_campaign_changes();

CREATE FUNCTION octo_campaign_told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('octo_campaigns', lower(TG_OP));
    RETURN NULL;
END $$;
CREATE TRIGGER campaign_told AFTER INSERT OR UPDATE OR DELETE ON campaigns
    FOR EACH STATEMENT EXECUTE FUNCTION octo_campaign_told();

CREATE FUNCTION octo_destination_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE campaigns SET updated_at = now() WHERE id IN (NEW.campaign_id, OLD.campaign_id);
    RETURN NULL;
END $$;
CREATE TRIGGER destination_changes AFTER INSERT OR UPDATE OR DELETE ON landing_pages
    FOR EACH ROW EXECUTE FUNCTION octo_destination_changes();
CREATE TRIGGER destination_changes AFTER INSERT OR UPDATE OR DELETE ON offers
    FOR EACH ROW EXECUTE FUNCTION octo_destination_changes();
