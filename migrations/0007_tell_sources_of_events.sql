-- Who told of an event, what its sender calls it, and when it happened by its sender's clock. Columns without a default
-- are there at once; what an earlier release stored, or stores beside this one, has none of them: who told of it is not known.
--
-- Ids that were used (event_keys) are those of one source. The rows that are there stay as they are and are the public's;
-- of everybody else it is a hash of source and id that is noted (model/event.rs), so an earlier release can run meanwhile.
ALTER TABLE events
    ADD COLUMN source      text,        -- 'public', or the id of the token
    ADD COLUMN external_id text,        -- an id that is no UUID; `id` is made of it
    ADD COLUMN occurred_at timestamptz;

COMMENT ON COLUMN event_keys.id IS 'the id of an event of the public; of others a hash of source and id';
