-- Exports: reports and their facts, written to a file because they are too long to be waited for.

-- Whoever makes one holds a lease, and has its file; a lease that ends is another node's to take, which begins anew.
CREATE TABLE report_exports (
    id              uuid        PRIMARY KEY,
    what            text        NOT NULL CHECK (what IN ('report', 'facts')),
    question        jsonb       NOT NULL,   -- as the API takes it, with times that stay as they are
    format          text        NOT NULL CHECK (format IN ('csv', 'ndjson')),
    state           text        NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'failed')),
    node            text,                   -- the machine that makes it and has its file
    attempts        integer     NOT NULL DEFAULT 0,
    rows            bigint      NOT NULL DEFAULT 0,
    rows_expected   bigint,                 -- about so many; NULL: it is not known yet
    bytes           bigint      NOT NULL DEFAULT 0,
    error           text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    lease_until     timestamptz,
    finished_at     timestamptz,
    expires_at      timestamptz NOT NULL
);
CREATE INDEX report_exports_open ON report_exports (created_at) WHERE state IN ('queued', 'running');
