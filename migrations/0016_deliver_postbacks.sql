-- Whom a conversion is told to, what is to be told, and every attempt.

-- Few, and read by every node every second. What octo notes by itself (failures_in_a_row, held_until) is no new version.
CREATE TABLE postback_targets (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name                text        NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    template            text,                   -- key of a template; what is NULL below is as that says
    traffic_source_id   bigint      REFERENCES traffic_sources (id) ON DELETE CASCADE,  -- of its clicks; NULL: of all
    campaign_id         uuid        REFERENCES campaigns (id) ON DELETE CASCADE,        -- of its clicks; NULL: of all
    is_default          boolean     NOT NULL DEFAULT false,     -- its url is the postback_url of its source
    kind                text        NOT NULL DEFAULT 'postback' CHECK (kind IN ('postback', 'webhook')),
    method              text        NOT NULL DEFAULT 'GET' CHECK (method IN ('GET', 'POST')),
    url                 text        NOT NULL,
    headers             jsonb       NOT NULL DEFAULT '[]',      -- [{"name", "value"}]
    body                text,
    statuses            text[]      NOT NULL DEFAULT '{approved}',  -- of pending, approved
    goals               text[]      NOT NULL DEFAULT '{}',      -- none: all
    mode                text        NOT NULL DEFAULT 'first' CHECK (mode IN ('first', 'all')),
    payout_rule         text        NOT NULL DEFAULT 'as_is' CHECK (payout_rule IN ('as_is', 'factor', 'fixed', 'none')),
    payout_factor       numeric(12, 6),
    payout_amount       numeric(18, 6),
    payout_currency     text,
    success_status_min  integer     NOT NULL DEFAULT 200,
    success_status_max  integer     NOT NULL DEFAULT 299,
    success_pattern     text,                   -- the answer must match it
    failure_pattern     text,                   -- the answer must not match it
    follow_redirects    integer     NOT NULL DEFAULT 0 CHECK (follow_redirects BETWEEN 0 AND 3),
    window_days         integer     CHECK (window_days > 0),    -- it takes nothing older; NULL: of any age
    takes_refunds       boolean     NOT NULL DEFAULT false,
    needs_click_id      boolean     GENERATED ALWAYS AS (
        position('{external_click_id' IN url || coalesce(body, '') || headers::text) > 0
    ) STORED,
    -- 244 random bits
    secret              text        NOT NULL DEFAULT 'whsec_' || encode(
        sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64'
    ),
    previous_secret     text,                   -- signs too, for a while after secret_changed_at
    secret_changed_at   timestamptz NOT NULL DEFAULT now(),
    is_active           boolean     NOT NULL DEFAULT true,
    paused_at           timestamptz,            -- what is due waits
    pause_reason        text,                   -- owner, failures, gone
    failures_in_a_row   integer     NOT NULL DEFAULT 0,
    held_until          timestamptz,            -- it asked for a pause (Retry-After)
    version             bigint      NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    made_by             uuid
);
CREATE UNIQUE INDEX postback_targets_made_by ON postback_targets (made_by);
CREATE UNIQUE INDEX postback_targets_default ON postback_targets (traffic_source_id) WHERE is_default;

CREATE TRIGGER target_changes BEFORE UPDATE ON postback_targets
    FOR EACH ROW
    WHEN ((
        OLD.name, OLD.traffic_source_id, OLD.campaign_id, OLD.kind, OLD.method, OLD.url, OLD.headers, OLD.body, OLD.statuses,
        OLD.goals, OLD.mode, OLD.payout_rule, OLD.payout_factor, OLD.payout_amount, OLD.payout_currency,
        OLD.success_status_min, OLD.success_status_max, OLD.success_pattern, OLD.failure_pattern, OLD.follow_redirects,
        OLD.window_days, OLD.takes_refunds, OLD.secret, OLD.is_active, OLD.paused_at
    ) IS DISTINCT FROM (
        NEW.name, NEW.traffic_source_id, NEW.campaign_id, NEW.kind, NEW.method, NEW.url, NEW.headers, NEW.body, NEW.statuses,
        NEW.goals, NEW.mode, NEW.payout_rule, NEW.payout_factor, NEW.payout_amount, NEW.payout_currency,
        NEW.success_status_min, NEW.success_status_max, NEW.success_pattern, NEW.failure_pattern, NEW.follow_redirects,
        NEW.window_days, NEW.takes_refunds, NEW.secret, NEW.is_active, NEW.paused_at
    ))
    EXECUTE FUNCTION octo_library_changes();

-- The postback_url of a source is the target of that source. An address that still has a REPLACE of its template in it
-- is not called before somebody has put the own value there.
CREATE FUNCTION octo_source_target() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.postback_url IS NULL THEN
        UPDATE postback_targets SET is_active = false WHERE traffic_source_id = NEW.id AND is_default;
    ELSE
        INSERT INTO postback_targets (name, template, traffic_source_id, is_default, url, is_active)
        VALUES (NEW.name, NEW.template, NEW.id, true, NEW.postback_url, position('REPLACE' IN NEW.postback_url) = 0)
        ON CONFLICT (traffic_source_id) WHERE is_default DO UPDATE
        SET url = EXCLUDED.url,
            is_active = EXCLUDED.is_active;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER source_target_made AFTER INSERT ON traffic_sources
    FOR EACH ROW
    WHEN (NEW.postback_url IS NOT NULL)
    EXECUTE FUNCTION octo_source_target();
CREATE TRIGGER source_target_changed AFTER UPDATE ON traffic_sources
    FOR EACH ROW
    WHEN (OLD.postback_url IS DISTINCT FROM NEW.postback_url)
    EXECUTE FUNCTION octo_source_target();
INSERT INTO postback_targets (name, template, traffic_source_id, is_default, url, is_active)
SELECT name, template, id, true, postback_url, position('REPLACE' IN postback_url) = 0
FROM traffic_sources
WHERE postback_url IS NOT NULL;

-- The outbox. The id is made of target, conversion and change, so that nothing is told twice. created_at is the click's: a
-- delivery is kept as long as that.
CREATE TABLE deliveries (
    id              uuid        NOT NULL,
    seq             bigint      GENERATED ALWAYS AS IDENTITY,   -- those of a conversion go out in this order
    target_id       bigint      NOT NULL,
    campaign_id     uuid        NOT NULL,
    conversion_id   uuid        NOT NULL,
    click_id        uuid        NOT NULL,
    change          text        NOT NULL,   -- the status it has now
    goal            text        NOT NULL,
    kind            text        NOT NULL,   -- conversion, rebill, correction
    payout          numeric,                -- as the target is told it; NULL: not at all
    currency        text        NOT NULL,
    changed_at      timestamptz NOT NULL,
    state           text        NOT NULL CHECK (
        state IN ('pending', 'leased', 'delivered', 'dead', 'not_supported', 'cancelled')
    ),
    reason          text,                   -- of dead, not_supported and cancelled
    attempts        integer     NOT NULL DEFAULT 0,
    attempts_before integer     NOT NULL DEFAULT 0, -- made before it was last put back by hand: the schedule began anew
    next_at         timestamptz NOT NULL DEFAULT clock_timestamp(), -- of a leased one: when the lease ends
    queued_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at     timestamptz,
    expires_at      timestamptz,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (id, campaign_id)
);
CREATE INDEX deliveries_seq ON deliveries (seq);
CREATE INDEX deliveries_target_id ON deliveries (target_id, seq);
CREATE INDEX deliveries_due ON deliveries (target_id, next_at) WHERE state IN ('pending', 'leased');
CREATE INDEX deliveries_conversion_id ON deliveries (conversion_id);
CREATE INDEX deliveries_click_id ON deliveries (click_id);
CREATE INDEX deliveries_created_at_brin ON deliveries USING brin (created_at);

-- What waits for a target that is deleted, also with its source, is told to nobody.
CREATE FUNCTION octo_cancel_deliveries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE deliveries
    SET state = 'cancelled',
        reason = 'target_deleted',
        finished_at = now()
    WHERE target_id = OLD.id
      AND state IN ('pending', 'leased');
    RETURN NULL;
END $$;
CREATE TRIGGER cancel_deliveries AFTER DELETE ON postback_targets
    FOR EACH ROW EXECUTE FUNCTION octo_cancel_deliveries();

-- Every request that was made, and what came back. created_at is the click's.
CREATE TABLE delivery_attempts (
    delivery_id     uuid        NOT NULL,
    campaign_id     uuid        NOT NULL,
    n               integer     NOT NULL,   -- from 1
    at              timestamptz NOT NULL,
    method          text        NOT NULL,
    url             text        NOT NULL,   -- without what is secret in it
    status          integer,                -- NULL: there was no answer
    answer          text,                   -- how it begins
    ms              integer     NOT NULL,
    error           text,                   -- NULL: it succeeded
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (delivery_id, n, campaign_id)
);
CREATE INDEX delivery_attempts_created_at_brin ON delivery_attempts USING brin (created_at);
