//! The secret of a day, the same for all nodes: whoever asks first makes it, and when the day is over it is deleted,
//! so that nobody can tell from a hash who it was.

use chrono::{DateTime, NaiveDate, Utc};

use crate::{
    db::{Db, Error, statement::statements},
    privacy::keys::Key,
};

statements! {
    MAKE = "visitor_keys.make": "
    INSERT INTO visitor_keys (day, key)
    SELECT * FROM unnest($1::date[], $2::bytea[])
    ON CONFLICT (day) DO NOTHING";

    LIST = "visitor_keys.list": "
    SELECT
        day,
        key
    FROM visitor_keys
    WHERE day = ANY ($1)";

    // A minute more, which clocks may differ by: until then another node may be in that day.
    DELETE = "visitor_keys.delete": "
    DELETE FROM visitor_keys
    WHERE day < ((now() - interval '1 minute') AT TIME ZONE 'UTC')::date";
}

/// The keys of these days (since 1970, UTC); those that are missing are made of `fresh`.
pub async fn of_days(db: &Db, days: [u64; 2], fresh: [Key; 2]) -> Result<Vec<(u64, Key)>, Error> {
    let dates = days.map(date);
    let keys: Vec<Vec<u8>> = fresh.iter().map(|key| key.to_vec()).collect();
    let rows: Vec<(NaiveDate, Vec<u8>)> = db
        .write(MAKE, move |c| {
            Box::pin(async move {
                MAKE.query().bind(dates).bind(keys).execute(c).await?;
                LIST.query_as().bind(dates).fetch_all(c).await
            })
        })
        .await?;
    let key = |(day, key): (NaiveDate, Vec<u8>)| {
        let day = days.into_iter().zip(dates).find(|(_, date)| *date == day)?.0;
        Some((day, key.try_into().ok()?))
    };
    Ok(rows.into_iter().filter_map(key).collect())
}

/// Deletes the keys of days that are over by the database's clock.
pub async fn delete_old(db: &Db) -> Result<(), Error> {
    db.write(DELETE, |c| Box::pin(async move { DELETE.query().execute(c).await.map(drop) })).await
}

fn date(day: u64) -> NaiveDate {
    let seconds = i64::try_from(day).unwrap_or(0).saturating_mul(86_400);
    DateTime::<Utc>::from_timestamp(seconds, 0).unwrap_or_default().date_naive()
}
