-- Answers to POSTs of the API that carried an Idempotency-Key, so that the same request again gets the same answer.

CREATE TABLE idempotency_keys (
    token_id     uuid        NOT NULL REFERENCES api_tokens (id) ON DELETE CASCADE,
    key          text        NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    -- of method, address and body: the key again with another request is a mistake
    fingerprint  bytea       NOT NULL CHECK (length(fingerprint) = 32),
    -- of what the request makes: whoever carries on after a node died finds it by this, or makes it
    object_id    uuid        NOT NULL,
    -- who runs it: the one who started it last
    attempt      integer     NOT NULL DEFAULT 1,
    -- until then nobody else runs it
    locked_until timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- the answer; NULL while it runs
    status       smallint,
    headers      jsonb,
    body         bytea,
    PRIMARY KEY (token_id, key)
);

CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
