-- Who is signed in to the dashboard: only hashes are stored.

-- One cookie. What it may do, its token says; it ends with its token, when it is not used for long, and at `expires_at`.
CREATE TABLE sessions (
    id            uuid        PRIMARY KEY,
    token_id      uuid        NOT NULL REFERENCES api_tokens (id) ON DELETE CASCADE,
    cookie_sha256 bytea       NOT NULL UNIQUE CHECK (length(cookie_sha256) = 32),
    user_agent    text        CHECK (length(user_agent) <= 255),
    created_at    timestamptz NOT NULL DEFAULT now(),
    last_used_at  timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL
);

-- One use each: the row goes with it.
CREATE TABLE sign_in_links (
    code_sha256 bytea       PRIMARY KEY CHECK (length(code_sha256) = 32),
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL
);
