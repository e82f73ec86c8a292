//! Facts: what happened and is kept. Each becomes one record in the journal and one row in Postgres.

pub mod click;
pub mod event;
pub mod record;
