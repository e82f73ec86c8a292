//! What each process counted toward caps, where nodes find what the others did. A number only ever rises, so telling it
//! again changes nothing.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::{Db, Error, statement::statements};

statements! {
    SHARE = "caps.share": "
    WITH told AS (
        INSERT INTO cap_counts AS c (counter, starts_at, node, count, kept_until)
        SELECT *
        FROM unnest($3::text[], $4::timestamptz[], $5::uuid[], $6::int8[], $7::timestamptz[])
            AS t (counter, starts_at, node, count, kept_until)
        ORDER BY counter, starts_at, node
        ON CONFLICT (counter, starts_at, node) DO UPDATE SET
            count = greatest(c.count, excluded.count),
            kept_until = excluded.kept_until
    )
    SELECT
        c.counter,
        c.node,
        c.count
    FROM unnest($1::text[], $2::timestamptz[]) AS asked (counter, starts_at)
    JOIN cap_counts c USING (counter, starts_at)";

    DELETE_OLD = "caps.delete_old": "
    DELETE FROM cap_counts
    WHERE kept_until < now()";
}

/// What a process counted.
#[derive(Debug, Clone)]
pub struct Row {
    /// The name of the counter.
    pub counter: String,
    /// When its window begins.
    pub starts_at: DateTime<Utc>,
    /// The process.
    pub node: Uuid,
    /// How many.
    pub count: i64,
    /// When it may be deleted.
    pub kept_until: DateTime<Utc>,
}

/// Notes rows, and gives what was there of some counters and windows: name, process and number.
pub async fn share(
    db: &Db,
    asked: Vec<(String, DateTime<Utc>)>,
    rows: Vec<Row>,
) -> Result<Vec<(String, Uuid, i64)>, Error> {
    let (names, begins): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
    // nobody reads them on a replica, so that none has to wait for them
    db.primary()
        .run(SHARE, move |c| {
            let column = |of: fn(&Row) -> DateTime<Utc>| rows.iter().map(of).collect::<Vec<_>>();
            let query = SHARE
                .query_as()
                .bind(names)
                .bind(begins)
                .bind(rows.iter().map(|row| row.counter.clone()).collect::<Vec<_>>())
                .bind(column(|row| row.starts_at))
                .bind(rows.iter().map(|row| row.node).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.count).collect::<Vec<_>>())
                .bind(column(|row| row.kept_until));
            Box::pin(query.fetch_all(c))
        })
        .await
}

/// Deletes what may be deleted by the database's clock.
pub async fn delete_old(db: &Db) -> Result<(), Error> {
    db.primary()
        .run(DELETE_OLD, |c| Box::pin(async move { DELETE_OLD.query().execute(c).await.map(drop) }))
        .await
}
