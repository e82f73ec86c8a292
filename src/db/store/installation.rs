//! Which database this is: so that two installations may share a Redis.

use crate::db::{Db, Error, statement::statements};

statements! {
    /// The cluster and the database in it: a copy made by dump and restore is another one, a replica is not. Every role may
    /// ask, unless somebody took that right away.
    IDENTIFY = "installation.identify": "
    SELECT
        concat_ws('/', s.system_identifier, d.oid)
    FROM pg_control_system() s
    CROSS JOIN pg_database d
    WHERE d.datname = current_database()";
}

/// A text that is the same on every node and replica of an installation, and another for every other database.
pub async fn identify(db: &Db) -> Result<String, Error> {
    let identify = db.read(IDENTIFY, |c| Box::pin(IDENTIFY.query_scalar::<String>().fetch_one(c)));
    identify.await
}
