-- Whether a postback has lost the parameters that nothing is read from (`postbacks.keep_raw_days`).

ALTER TABLE postbacks ADD COLUMN is_cut boolean NOT NULL DEFAULT false;
-- Those that are to be cut are the oldest of it.
CREATE INDEX postbacks_uncut ON postbacks (created_at, id) WHERE NOT is_cut;
