//! Which database this is: so that two installations may share a Redis.

use crate::db::{Db, Error};

/// Every statement of this module.
pub const STATEMENTS: &[(&str, &str)] = &[("installation.identify", IDENTIFY_SQL)];

/// The cluster and the database in it: a copy made by dump and restore is another one, a replica is not. Every role may
/// ask, unless somebody took that right away.
const IDENTIFY_SQL: &str = "
    SELECT
        concat_ws('/', s.system_identifier, d.oid)
    FROM pg_control_system() s
    CROSS JOIN pg_database d
    WHERE d.datname = current_database()";

/// A text that is the same on every node and replica of an installation, and another for every other database.
pub async fn identify(db: &Db) -> Result<String, Error> {
    let identify = db.read("installation.identify", |c| {
        Box::pin(crate::db::query_scalar::<String>(IDENTIFY_SQL).fetch_one(c))
    });
    identify.await
}
