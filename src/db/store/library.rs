//! The library: what is kept once and used by many campaigns, and how all of it is read, made, changed and deleted. Which
//! landing pages and offers of it a request names is asked here too.

use std::collections::{HashMap, HashSet};

use futures_util::future::BoxFuture;
use sqlx::{FromRow, postgres::PgRow};
use uuid::Uuid;

use super::{campaigns::Written, uses::Removal};
use crate::db::{
    Db, Error,
    session::Session,
    statement::{Query, QueryAs, Statement, statements},
};

/// Something of the library as it is stored.
pub(crate) trait Entry: Sized + Send + 'static {
    /// What its owner says of it.
    type Terms: Clone + PartialEq + Send + Sync + 'static;
    /// What [`Self::GET`] reads.
    type Row: for<'r> FromRow<'r, PgRow> + Send + Unpin;

    /// Reads the one with the id `$1`.
    const GET: Statement;
    /// The id of what the request `$1` made.
    const FIND_MADE: Statement;
    /// Makes one of its terms, for the request behind them.
    const INSERT: Statement;
    /// Gives one its terms; behind them stand its id and its version.
    const UPDATE: Statement;
    /// Deletes the one with the id `$1`, if nobody uses it and it is in the version `$2` (NULL: in any).
    const DELETE: Statement;

    /// Ours.
    fn id(&self) -> i64;
    /// What its owner says of it.
    fn terms(&self) -> &Self::Terms;
    /// Counts changes; the ETag.
    fn version(&self) -> i64;
    /// Its terms as [`Self::INSERT`] and [`Self::UPDATE`] take them, from `$1` on.
    fn bind(query: Query, terms: Self::Terms) -> Query;
    /// What a row says.
    fn of(row: Self::Row) -> sqlx::Result<Self>;

    /// Deletes one that nobody uses.
    fn remove<'c>(
        c: &'c mut Session<'_>,
        id: i64,
        expected: Option<i64>,
    ) -> BoxFuture<'c, sqlx::Result<Removal>> {
        Box::pin(async move {
            let deleted = Self::DELETE.query().bind(id).bind(expected).execute(c).await?.rows_affected();
            if deleted > 0 {
                return Ok(Removal::Done);
            }
            let found = select::<Self>(c, id).await?.map(|entry| entry.version());
            Ok(Removal::refused(found, expected))
        })
    }
}

/// Which ones are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Part of the name, in any case.
    pub q: Option<String>,
    /// Whether they are put away.
    pub is_archived: Option<bool>,
}

statements! {
    LANDING_PAGES = "library.landing_pages": "
    SELECT id
    FROM landing_pages
    WHERE id = ANY ($1)
      AND campaign_id IS NULL";

    OFFERS = "library.offers": "
    SELECT id, overflow_offer_id
    FROM offers
    WHERE id = ANY (octo_with_overflow($1))";
}

/// What of the library a request names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Named {
    /// Landing pages that there are.
    pub landing_pages: HashSet<i64>,
    /// Offers that there are, with those they lead to once they are full; each with its next.
    pub offers: HashMap<i64, Option<i64>>,
}

/// A row of [`OFFERS`].
#[derive(FromRow)]
struct OfferRow {
    id: i64,
    overflow_offer_id: Option<i64>,
}

/// Which of these are in the library; from the primary: a writer sees what it wrote.
pub async fn named(db: &Db, landing_pages: Vec<i64>, offers: Vec<i64>) -> Result<Named, Error> {
    let mut named = Named::default();
    if !landing_pages.is_empty() {
        let ids: Vec<i64> = db
            .read_primary(LANDING_PAGES, move |c| {
                Box::pin(LANDING_PAGES.query_scalar().bind(landing_pages).fetch_all(c))
            })
            .await?;
        named.landing_pages = ids.into_iter().collect();
    }
    if !offers.is_empty() {
        let rows = db
            .read_primary(OFFERS, move |c| Box::pin(OFFERS.query_as::<OfferRow>().bind(offers).fetch_all(c)))
            .await?;
        named.offers = rows.into_iter().map(|row| (row.id, row.overflow_offer_id)).collect();
    }
    Ok(named)
}

/// The one with this id; from the primary.
pub(crate) async fn get<E: Entry>(db: &Db, id: i64) -> Result<Option<E>, Error> {
    db.read_primary(E::GET, move |c| Box::pin(select(c, id))).await
}

/// Those that `statement` lists, newest first, before (older than) `after`, at most `limit`; from a replica. Its values are
/// `after`, the filter, what `more` binds, and `limit`.
pub(super) async fn list<E: Entry>(
    db: &Db,
    statement: Statement,
    filter: Filter,
    more: impl FnOnce(QueryAs<'static, E::Row>) -> QueryAs<'static, E::Row> + Clone + Send + 'static,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<E>, Error> {
    let after = after.unwrap_or(i64::MAX);
    db.read(statement, move |c| {
        Box::pin(async move {
            let query = statement.query_as::<E::Row>().bind(after).bind(filter.q).bind(filter.is_archived);
            more(query).bind(limit).fetch_all(c).await?.into_iter().map(E::of).collect()
        })
    })
    .await
}

/// Makes one for the request `made_by`; where an attempt before this one `may_exist`, what it made is the one.
pub(crate) async fn insert<E: Entry>(
    db: &Db,
    made_by: Uuid,
    may_exist: bool,
    terms: E::Terms,
) -> Result<E, Error> {
    db.write(E::INSERT, move |c| {
        Box::pin(async move {
            let find = || E::FIND_MADE.query_scalar::<i64>().bind(made_by);
            if !may_exist || find().fetch_optional(c).await?.is_none() {
                E::bind(E::INSERT.query(), terms).bind(made_by).execute(c).await?;
            }
            let id = find().fetch_one(c).await?;
            select(c, id).await?.ok_or(sqlx::Error::RowNotFound)
        })
    })
    .await
}

/// Gives one that is in the version `expected` these terms; returns it as it is stored.
pub(crate) async fn update<E: Entry>(
    db: &Db,
    id: i64,
    expected: i64,
    terms: E::Terms,
) -> Result<Written<E>, Error> {
    db.write(E::UPDATE, move |c| {
        Box::pin(async move {
            let update = E::bind(E::UPDATE.query(), terms).bind(id).bind(expected);
            let is_updated = update.execute(c).await?.rows_affected() > 0;
            Ok(match select(c, id).await? {
                Some(entry) if is_updated => Written::Done(entry),
                Some(_) => Written::Stale,
                None => Written::Missing,
            })
        })
    })
    .await
}

/// Deletes one that nobody uses. One that came into use since it was looked at is kept by a constraint.
pub(crate) async fn delete<E: Entry>(db: &Db, id: i64, expected: Option<i64>) -> Result<Removal, Error> {
    match db.write(E::DELETE, move |c| E::remove(c, id, expected)).await {
        Err(Error::Conflict { .. }) => Ok(Removal::InUse),
        removal => removal,
    }
}

pub(super) async fn select<E: Entry>(c: &mut Session<'_>, id: i64) -> sqlx::Result<Option<E>> {
    E::GET.query_as::<E::Row>().bind(id).fetch_optional(c).await?.map(E::of).transpose()
}
