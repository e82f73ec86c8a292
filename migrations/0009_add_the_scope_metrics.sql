-- A token that may read /metrics and the detailed /health, and nothing else.

ALTER TABLE api_tokens
    DROP CONSTRAINT api_tokens_scope_check,
    ADD CONSTRAINT api_tokens_scope_check CHECK (scope IN ('admin', 'read', 'ingest', 'metrics'));
