//! Rates of currencies, and the list of those that were changed.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use sqlx::FromRow;

use crate::{
    db::{Db, Error, session::Session, statement::statements},
    model::money::Currency,
    money::rates::{Rate, RateSource, Rates},
};

/// Rates written by one statement.
const CHUNK_RATES: usize = 5_000;

macro_rules! select_restatements {
    ($tail:literal) => {
        concat!(
            "
    SELECT
        id,
        currency,
        day,
        source,
        old_rate,
        new_rate,
        restated_at,
        restated_by
    FROM fx_restatements",
            $tail
        )
    };
}

statements! {
    LIST = "fx_rate.list": "
    SELECT
        currency,
        day,
        rate,
        source,
        created_at
    FROM fx_rates
    WHERE ($1::text IS NULL OR currency = $1)
      AND day >= coalesce($2::date, '-infinity')
      AND day <= coalesce($3::date, 'infinity')
      AND ($4::date IS NULL OR (day, currency, source) < ($4, $5::text, $6::text))
    ORDER BY day DESC, currency DESC, source DESC
    LIMIT $7";

    // What may hold on one of the days from $1 to $2: an own rate holds for ever.
    LOAD = "fx_rate.load": "
    SELECT
        currency,
        day,
        rate,
        source
    FROM fx_rates
    WHERE (source = 'ecb' AND day >= $1::date - $3::integer AND day < $2)
       OR (source = 'manual' AND day <= $2)";

    LOCK = "fx_rate.lock": "SELECT pg_advisory_xact_lock(1868788867)";

    // Each part sees the table as it was before, so that the old rates are still in it.
    PUT = "fx_rate.put": "
    WITH written AS (
        INSERT INTO fx_rates AS f (currency, day, rate, source)
        SELECT currency, day, rate, $4
        FROM unnest($1::text[], $2::date[], $3::numeric[]) AS given (currency, day, rate)
        ON CONFLICT (currency, day, source) DO UPDATE SET
            rate = excluded.rate
            WHERE f.rate <> excluded.rate
        RETURNING currency, day, rate
    ), restated AS (
        INSERT INTO fx_restatements (currency, day, source, old_rate, new_rate, restated_by)
        SELECT w.currency, w.day, was.source, was.rate, w.rate, $5
        FROM written w
        JOIN fx_rates was ON was.currency = w.currency AND was.day = w.day AND was.source = $4
        ORDER BY w.day, w.currency
        RETURNING id
    )
    SELECT
        (SELECT count(*) FROM written),
        ARRAY(SELECT id FROM restated ORDER BY id)";

    HAS_PUBLISHED = "fx_rate.has_published": "SELECT EXISTS (SELECT FROM fx_rates WHERE source = 'ecb')";

    NEWEST = "fx_rate.newest": "SELECT max(day) FROM fx_rates WHERE source = 'ecb'";

    FILL = "fx_rate.fill": "
    INSERT INTO fx_rates (currency, day, rate, source)
    SELECT currency, day, rate, 'ecb'
    FROM unnest($1::text[], $2::date[], $3::numeric[]) AS given (currency, day, rate)
    WHERE NOT EXISTS (SELECT FROM fx_rates WHERE source = 'ecb')
    ON CONFLICT (currency, day, source) DO NOTHING";

    RESTATEMENTS = "fx_restatement.list": select_restatements!("
    WHERE id < $1
      AND ($2::text IS NULL OR currency = $2)
    ORDER BY id DESC
    LIMIT $3");

    RESTATEMENTS_OF = "fx_restatement.list_of": select_restatements!("
    WHERE id = ANY ($1)
    ORDER BY id");
}

/// A rate as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRate {
    /// What was said.
    pub rate: Rate,
    /// When it came here first.
    pub created_at: DateTime<Utc>,
}

/// Where a rate is in the list.
pub type Key = (NaiveDate, Currency, RateSource);

/// Which rates are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of this currency.
    pub currency: Option<Currency>,
    /// Of this day or later.
    pub from: Option<NaiveDate>,
    /// Of this day or before.
    pub to: Option<NaiveDate>,
}

/// A rate that was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restatement {
    /// Counts up.
    pub id: i64,
    /// The rate as it is now.
    pub rate: Rate,
    /// Units of the currency for one euro, as they were.
    pub old_rate: Decimal,
    /// When it was changed.
    pub restated_at: DateTime<Utc>,
    /// Who changed it, or what.
    pub restated_by: String,
}

/// What became of rates that were written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Put {
    /// Rates that were not there.
    pub new: u64,
    /// Rates that were there as they are.
    pub unchanged: u64,
    /// The ids of the restatements of those that were there otherwise.
    pub restated: Vec<i64>,
}

/// Rates, newest first, after (older than) `after`, at most `limit`; from a replica.
pub async fn list(db: &Db, filter: Filter, after: Option<Key>, limit: i64) -> Result<Vec<StoredRate>, Error> {
    db.read(LIST, move |c| {
        Box::pin(async move {
            let query = LIST
                .query_as::<StoredRow>()
                .bind(filter.currency.map(String::from))
                .bind(filter.from)
                .bind(filter.to)
                .bind(after.map(|(day, ..)| day))
                .bind(after.map(|(_, currency, _)| String::from(currency)))
                .bind(after.map(|(.., source)| <&str>::from(source)))
                .bind(limit);
            query.fetch_all(c).await?.into_iter().map(StoredRow::into_stored).collect()
        })
    })
    .await
}

/// What converts amounts of the days `from` to `to`; from a replica. `age_days_max` is `money.rate_age_days_max`.
pub async fn load(db: &Db, from: NaiveDate, to: NaiveDate, age_days_max: u16) -> Result<Rates, Error> {
    let rows: Vec<Row> = db
        .read(LOAD, move |c| {
            Box::pin(LOAD.query_as().bind(from).bind(to).bind(i32::from(age_days_max)).fetch_all(c))
        })
        .await?;
    let rates: sqlx::Result<Vec<_>> = rows.into_iter().map(Row::into_rate).collect();
    let rates = rates.map_err(|source| Error::Query { query: LOAD.name(), source })?;
    Ok(Rates::new(age_days_max, rates))
}

/// Writes rates, all of them or none; those that are there otherwise are restated in the name of `by`. Currency, day and
/// source of each stand there once. `seen` is told how many are done.
pub async fn put(
    db: &Db,
    rates: Vec<Rate>,
    by: String,
    seen: impl Fn(usize) + Send + Sync + 'static,
) -> Result<Put, Error> {
    db.maintain(PUT, move |c| Box::pin(async move { put_on(c, &rates, &by, &seen).await })).await
}

/// Writes the bank's rates into a database that has none of it; says how many.
pub async fn fill(db: &Db, rates: impl FnOnce() -> Vec<Rate>) -> Result<u64, Error> {
    let has_some = db
        .read_primary(HAS_PUBLISHED, |c| Box::pin(HAS_PUBLISHED.query_scalar::<bool>().fetch_one(c)))
        .await?;
    if has_some {
        return Ok(0);
    }
    let (currencies, days, values) = columns(&rates());
    db.maintain(FILL, move |c| {
        let query = FILL.query().bind(currencies).bind(days).bind(values);
        Box::pin(async move { Ok(query.execute(c).await?.rows_affected()) })
    })
    .await
}

/// The newest day for which there are rates of the bank; from a replica.
pub async fn newest(db: &Db) -> Result<Option<NaiveDate>, Error> {
    db.read(NEWEST, |c| Box::pin(NEWEST.query_scalar().fetch_one(c))).await
}

/// Rates that were changed, of one currency or of all, newest first, after (older than) `after`, at most `limit`; from a
/// replica.
pub async fn restatements(
    db: &Db,
    currency: Option<Currency>,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<Restatement>, Error> {
    db.read(RESTATEMENTS, move |c| {
        Box::pin(async move {
            let query = RESTATEMENTS
                .query_as::<RestatementRow>()
                .bind(after.unwrap_or(i64::MAX))
                .bind(currency.map(String::from))
                .bind(limit);
            query.fetch_all(c).await?.into_iter().map(RestatementRow::into_restatement).collect()
        })
    })
    .await
}

/// The restatements with these ids, in order; from the primary: who wrote them asks.
pub async fn restatements_of(db: &Db, ids: Vec<i64>) -> Result<Vec<Restatement>, Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    db.read_primary(RESTATEMENTS_OF, move |c| {
        Box::pin(async move {
            let query = RESTATEMENTS_OF.query_as::<RestatementRow>().bind(ids);
            query.fetch_all(c).await?.into_iter().map(RestatementRow::into_restatement).collect()
        })
    })
    .await
}

/// Behind a lock, so that what was there is what the statement sees.
async fn put_on(
    c: &mut Session<'_>,
    rates: &[Rate],
    by: &str,
    seen: &(dyn Fn(usize) + Send + Sync),
) -> sqlx::Result<Put> {
    let mut transaction = c.begin().await?;
    LOCK.query().execute(&mut transaction).await?;
    let (mut put, mut done) = (Put::default(), 0);
    let sources: BTreeSet<_> = rates.iter().map(|rate| rate.source).collect();
    for source in sources {
        let of_source: Vec<Rate> = rates.iter().filter(|rate| rate.source == source).copied().collect();
        for chunk in of_source.chunks(CHUNK_RATES) {
            let (currencies, days, values) = columns(chunk);
            let query = PUT.query_as().bind(currencies).bind(days).bind(values);
            let query = query.bind(<&str>::from(source)).bind(by.to_owned());
            let (written, restated): (i64, Vec<i64>) = query.fetch_one(&mut transaction).await?;
            let written = u64::try_from(written).unwrap_or(0);
            put.unchanged += (chunk.len() as u64).saturating_sub(written);
            put.new += written.saturating_sub(restated.len() as u64);
            put.restated.extend(restated);
            done += chunk.len();
            seen(done);
        }
    }
    transaction.commit().await?;
    Ok(put)
}

fn columns(rates: &[Rate]) -> (Vec<String>, Vec<NaiveDate>, Vec<Decimal>) {
    let currencies = rates.iter().map(|rate| rate.currency.into()).collect();
    (currencies, rates.iter().map(|rate| rate.day).collect(), rates.iter().map(|rate| rate.rate).collect())
}

/// What [`LOAD`] reads.
#[derive(FromRow)]
struct Row {
    currency: String,
    day: NaiveDate,
    rate: Decimal,
    source: String,
}

impl Row {
    fn into_rate(self) -> sqlx::Result<Rate> {
        let Self { currency, day, rate, source } = self;
        Ok(Rate {
            currency: currency.parse().map_err(|e: &str| sqlx::Error::Decode(e.into()))?,
            day,
            rate: rate.normalize(),
            source: source.parse().map_err(|e: String| sqlx::Error::Decode(e.into()))?,
        })
    }
}

/// What [`LIST`] reads.
#[derive(FromRow)]
struct StoredRow {
    #[sqlx(flatten)]
    row: Row,
    created_at: DateTime<Utc>,
}

impl StoredRow {
    fn into_stored(self) -> sqlx::Result<StoredRate> {
        Ok(StoredRate { rate: self.row.into_rate()?, created_at: self.created_at })
    }
}

/// What [`RESTATEMENTS`] and [`RESTATEMENTS_OF`] read.
#[derive(FromRow)]
struct RestatementRow {
    id: i64,
    currency: String,
    day: NaiveDate,
    source: String,
    old_rate: Decimal,
    new_rate: Decimal,
    restated_at: DateTime<Utc>,
    restated_by: String,
}

impl RestatementRow {
    fn into_restatement(self) -> sqlx::Result<Restatement> {
        let Self { id, currency, day, source, old_rate, new_rate, restated_at, restated_by } = self;
        let rate = Row { currency, day, rate: new_rate, source }.into_rate()?;
        Ok(Restatement { id, rate, old_rate: old_rate.normalize(), restated_at, restated_by })
    }
}
