-- Postbacks as they came, the conversions derived from them, and the book of what changed.
--
-- Few beside clicks, so no partitions. No foreign keys, and campaign_id in every key of what belongs to a campaign.

-- The ledger. created_at is when it came; outcome, reason and network_id are derived, as
-- conversions are.
CREATE TABLE postbacks (
    id              uuid        NOT NULL,
    key_network_id  bigint,                 -- whose key it came under; NULL: its offer tells
    channel         text        NOT NULL,   -- http, import, api
    ip_address      inet,
    click_id        uuid,
    leg_offer_id    bigint,                 -- the offer of the click that it names
    params          text        NOT NULL,   -- application/x-www-form-urlencoded, without what stands for a person
    refusal         text,
    outcome         text        NOT NULL,   -- accepted, ignored, refused, waiting, orphan
    reason          text,
    network_id      bigint,                 -- whose words were read
    conversion_id   uuid,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (created_at, id)
);
CREATE INDEX postbacks_click_id ON postbacks (click_id) WHERE click_id IS NOT NULL;
CREATE INDEX postbacks_unmapped ON postbacks (created_at) WHERE reason = 'unmapped';

-- One row a click that postbacks tell of; whoever derives its conversions holds it locked. created_at is the click's.
CREATE TABLE conversion_clicks (
    click_id    uuid        PRIMARY KEY,
    created_at  timestamptz NOT NULL,
    first_at    timestamptz NOT NULL,       -- when the first postback came
    state       text        NOT NULL CHECK (state IN ('waiting', 'stored', 'orphan'))
);
CREATE INDEX conversion_clicks_open ON conversion_clicks (first_at) WHERE state <> 'stored';
CREATE INDEX conversion_clicks_created_at_brin ON conversion_clicks USING brin (created_at);

-- Conversions. The id is made of click, goal, transaction id and nth. Everything from rule_id on is of the click, copied
-- when the conversion was made. created_at is the click's: a conversion is kept as long as its click.
CREATE TABLE conversions (
    id              uuid        NOT NULL,
    campaign_id     uuid        NOT NULL,
    click_id        uuid        NOT NULL,
    network_id      bigint,
    goal            text        NOT NULL,   -- '' where none was named
    txid            text        NOT NULL,   -- '' where none was sent
    nth             integer     NOT NULL,   -- of those with the same goal and transaction id, from 0
    kind            text        NOT NULL,   -- conversion, rebill, correction
    status          text        NOT NULL,   -- pending, approved, rejected, refunded, unmapped, ignored
    status_text     text,                   -- the network's word
    status_detail   text,
    payout          numeric(18, 6) NOT NULL,    -- what counts now: 0 of what is rejected or refunded
    original_payout numeric(18, 6),             -- what it paid before it was rejected or refunded
    sale_amount     numeric(18, 6),
    currency        text        NOT NULL,
    flags           text[]      NOT NULL,
    numbers         jsonb,                  -- event1 .. event30
    rule_id         bigint,
    path_id         bigint,
    landing_page_id bigint,
    offer_id        bigint,
    source_id       bigint,
    country         text,
    device          text,
    os              text,
    browser         text,
    sub1            text,
    sub2            text,
    sub3            text,
    sub4            text,
    sub5            text,
    keyword         text,
    creative        text,
    placement       text,
    is_click_valid  boolean     NOT NULL,
    converted_at    timestamptz NOT NULL,   -- when it happened, by the first postback
    first_at        timestamptz NOT NULL,   -- when the first postback came
    last_at         timestamptz NOT NULL,   -- when the last one came that changed it
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (id, campaign_id)
);
CREATE INDEX conversions_click_id ON conversions (click_id);
CREATE INDEX conversions_first_at ON conversions (first_at, id);
CREATE INDEX conversions_created_at_brin ON conversions USING brin (created_at);

-- The book: append-only. The sums of payout and revenue over the changes of a conversion are what it pays now (revenue:
-- as far as it is approved). changed_at is when the postback came that caused it, recorded_at when it was derived.
CREATE TABLE conversion_changes (
    id              bigint      GENERATED ALWAYS AS IDENTITY,
    campaign_id     uuid        NOT NULL,
    conversion_id   uuid        NOT NULL,
    click_id        uuid        NOT NULL,
    postback_id     uuid,
    cause           text        NOT NULL,   -- postback; or derived_again: by a replay, or by postbacks that came late
    from_status     text,                   -- NULL: it is new
    to_status       text        NOT NULL,
    payout          numeric(18, 6) NOT NULL,
    revenue         numeric(18, 6) NOT NULL,
    currency        text        NOT NULL,
    changed_at      timestamptz NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at      timestamptz NOT NULL,   -- the click's
    PRIMARY KEY (id, campaign_id)
);
CREATE INDEX conversion_changes_conversion_id ON conversion_changes (conversion_id);
CREATE INDEX conversion_changes_changed_at_brin ON conversion_changes USING brin (changed_at);
CREATE INDEX conversion_changes_created_at_brin ON conversion_changes USING brin (created_at);
