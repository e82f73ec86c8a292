//! The keys of tokens, the same for all nodes: whoever finds that a new one is due makes it.

use chrono::{DateTime, Utc};

use crate::{
    db::{Db, Error, statement::statements},
    seal::keys::Key,
};

/// Days that a key is kept beyond the life of its tokens: clocks of nodes differ.
const SPARE_DAYS: i32 = 2;

statements! {
    // One node at a time, so that two that start together do not make two first keys.
    LOCK = "seal_keys.lock": "SELECT pg_advisory_xact_lock(1868788849)";

    // Those that this database has not: a node made them alone, or a backup from before they were made was restored.
    OFFER = "seal_keys.offer": "
    INSERT INTO seal_keys (id, key, created_at)
    SELECT id, key, least(made_at, now())
    FROM unnest($1::int8[], $2::bytea[], $3::timestamptz[]) AS t (id, key, made_at)
    WHERE made_at > now() - $4::integer * interval '1 day'
    ON CONFLICT (id) DO NOTHING";

    // The first seals at once; a later one when every node has heard of it.
    MAKE = "seal_keys.make": "
    INSERT INTO seal_keys (id, key, seals_from)
    SELECT $1, $2, CASE
        WHEN EXISTS (SELECT FROM seal_keys WHERE seals_from <= now()) THEN now() + interval '1 hour'
        ELSE now()
    END
    WHERE NOT EXISTS (
        SELECT FROM seal_keys WHERE seals_from > now() - $3::integer * interval '1 day'
    )
    ON CONFLICT (id) DO NOTHING";

    // Tokens live for $1 days after a key's successor took over; one without a turn of its own sealed for $2 days at most.
    FORGET = "seal_keys.forget": "
    DELETE FROM seal_keys k
    WHERE coalesce(
        (SELECT min(later.seals_from) FROM seal_keys later WHERE later.seals_from > k.seals_from),
        CASE WHEN k.seals_from IS NULL THEN k.created_at + $2::integer * interval '1 day' END
    ) < now() - $1::integer * interval '1 day'";

    LIST = "seal_keys.list": "
    SELECT
        key,
        seals_from,
        created_at
    FROM seal_keys
    ORDER BY id";
}

/// A key, from when it seals, when it was made.
type Row = (Vec<u8>, Option<DateTime<Utc>>, DateTime<Utc>);

/// Puts these keys among those of all nodes, makes `fresh` the next one if that is due (after so many days), forgets
/// those whose tokens, which live for so many days, are all dead, and gives the rest.
pub async fn share(
    db: &Db,
    known: Vec<Key>,
    fresh: Key,
    seal_days: u32,
    live_days: u32,
) -> Result<Vec<Key>, Error> {
    let ids: Vec<i64> = known.iter().map(|key| key.id().into()).collect();
    let secrets: Vec<Vec<u8>> = known.iter().map(|key| key.secret().to_vec()).collect();
    let times: Vec<DateTime<Utc>> = known.iter().map(|key| key.made_at).collect();
    let days = |days: u32| i32::try_from(days).unwrap_or(i32::MAX);
    let (seal_days, live_days) = (days(seal_days), days(live_days));
    let rows: Vec<Row> = db
        .maintain(LIST, move |c| {
            Box::pin(async move {
                let mut transaction = c.begin().await?;
                LOCK.query().execute(&mut transaction).await?;
                let offer = OFFER.query().bind(ids).bind(secrets).bind(times);
                offer.bind(seal_days.saturating_add(live_days)).execute(&mut transaction).await?;
                let make = MAKE.query().bind(i64::from(fresh.id())).bind(fresh.secret().to_vec());
                make.bind(seal_days).execute(&mut transaction).await?;
                let forget = FORGET.query().bind(live_days.saturating_add(SPARE_DAYS));
                forget.bind(seal_days).execute(&mut transaction).await?;
                let rows = LIST.query_as().fetch_all(&mut transaction).await?;
                transaction.commit().await?;
                Ok(rows)
            })
        })
        .await?;
    let key = |(secret, seals_from, made_at): Row| {
        let mut key = Key::new(secret.try_into().ok()?, made_at);
        key.seals_from = seals_from;
        Some(key)
    };
    Ok(rows.into_iter().filter_map(key).collect())
}
