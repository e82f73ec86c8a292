-- What of a click's link could not be kept as it was sent (cut, an amount that is none, a macro that was not filled):
-- names of octo's `Adjustment`; NULL where everything was. Nullable and without a default: no row is rewritten.

ALTER TABLE clicks ADD COLUMN adjusted text[];
