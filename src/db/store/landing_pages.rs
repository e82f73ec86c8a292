//! Landing pages of the library. A trigger makes every campaign that uses one that changed a new version.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::{traffic_sources::Filter, uses::Removal};
use crate::{
    db::{
        Db, Error,
        session::Session,
        statement::{Query, statements},
        store::campaigns::Written,
    },
    model::library::LandingPageTerms,
};

/// A landing page of the library as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LandingPage {
    /// Ours, one sequence with those of campaigns.
    pub id: i64,
    /// What its owner says of it.
    pub terms: LandingPageTerms,
    /// Since when it is put away.
    pub archived_at: Option<DateTime<Utc>>,
    /// Counts changes; the ETag.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

macro_rules! select_pages {
    ($tail:literal) => {
        concat!(
            "
    SELECT
        p.id,
        p.name,
        p.url,
        p.web_url,
        p.archived_at,
        p.version,
        p.created_at,
        p.updated_at
    FROM landing_pages p
    WHERE p.campaign_id IS NULL",
            $tail
        )
    };
}

statements! {
    GET = "landing_page.get": select_pages!("
      AND p.id = $1");

    LIST = "landing_page.list": select_pages!("
      AND p.id < $1
      AND ($2::text IS NULL OR position(lower($2) IN lower(p.name)) > 0)
      AND ($3::boolean IS NULL OR (p.archived_at IS NOT NULL) = $3)
    ORDER BY p.id DESC
    LIMIT $4");

    FIND_MADE = "landing_page.find_made": "SELECT id FROM landing_pages WHERE made_by = $1";

    INSERT = "landing_page.insert": "
    INSERT INTO landing_pages (position, weight, is_active, name, url, web_url, archived_at, made_by)
    VALUES (0, 1, true, $1, $2, $3, CASE WHEN $4 THEN now() END, $5)";

    UPDATE = "landing_page.update": "
    UPDATE landing_pages
    SET name = $1,
        url = $2,
        web_url = $3,
        archived_at = CASE WHEN $4 THEN coalesce(archived_at, now()) END
    WHERE id = $5
      AND campaign_id IS NULL
      AND version = $6";

    DELETE = "landing_page.delete": "
    DELETE FROM landing_pages p
    WHERE p.id = $1
      AND p.campaign_id IS NULL
      AND p.version = coalesce($2, p.version)
      AND NOT EXISTS (
          SELECT
          FROM campaigns c
          WHERE c.library_landing_pages @> ARRAY[p.id]
            AND c.deleted_at IS NULL
      )";
}

/// The landing page of the library with this id; from the primary.
pub async fn get(db: &Db, id: i64) -> Result<Option<LandingPage>, Error> {
    db.read_primary(GET, move |c| Box::pin(select(c, id))).await
}

/// Landing pages of the library, newest first, before (older than) `after`, at most `limit`; from a replica.
pub async fn list(
    db: &Db,
    filter: Filter,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<LandingPage>, Error> {
    let after = after.unwrap_or(i64::MAX);
    db.read(LIST, move |c| {
        Box::pin(async move {
            let query = LIST.query_as::<Row>().bind(after).bind(filter.q).bind(filter.is_archived);
            let rows = query.bind(limit).fetch_all(c).await?;
            Ok(rows.into_iter().map(LandingPage::from).collect())
        })
    })
    .await
}

/// Makes a landing page for the request `made_by`; where an attempt before this one `may_exist`, what it made is the
/// page.
pub async fn insert(
    db: &Db,
    made_by: Uuid,
    may_exist: bool,
    terms: LandingPageTerms,
) -> Result<LandingPage, Error> {
    db.write(INSERT, move |c| {
        Box::pin(async move {
            let find = || FIND_MADE.query_scalar::<i64>().bind(made_by);
            if !may_exist || find().fetch_optional(c).await?.is_none() {
                bind_terms(INSERT.query(), terms).bind(made_by).execute(c).await?;
            }
            let id = find().fetch_one(c).await?;
            select(c, id).await?.ok_or(sqlx::Error::RowNotFound)
        })
    })
    .await
}

/// Gives a landing page that is in the version `expected` these terms; returns it as it is stored.
pub async fn update(
    db: &Db,
    id: i64,
    expected: i64,
    terms: LandingPageTerms,
) -> Result<Written<LandingPage>, Error> {
    db.write(UPDATE, move |c| {
        Box::pin(async move {
            let update = bind_terms(UPDATE.query(), terms).bind(id).bind(expected);
            let is_updated = update.execute(c).await?.rows_affected() > 0;
            Ok(match select(c, id).await? {
                Some(page) if is_updated => Written::Done(page),
                Some(_) => Written::Stale,
                None => Written::Missing,
            })
        })
    })
    .await
}

/// Deletes a landing page that no campaign uses.
pub async fn delete(db: &Db, id: i64, expected: Option<i64>) -> Result<Removal, Error> {
    db.write(DELETE, move |c| {
        Box::pin(async move {
            let deleted = DELETE.query().bind(id).bind(expected).execute(c).await?.rows_affected();
            if deleted > 0 {
                return Ok(Removal::Done);
            }
            let found = select(c, id).await?.map(|page| page.version);
            Ok(Removal::refused(found, expected))
        })
    })
    .await
}

/// `$1` to `$4` of [`INSERT`] and [`UPDATE`].
fn bind_terms(query: Query, terms: LandingPageTerms) -> Query {
    query.bind(terms.name).bind(terms.url).bind(terms.web_url).bind(terms.is_archived)
}

async fn select(c: &mut Session<'_>, id: i64) -> sqlx::Result<Option<LandingPage>> {
    Ok(GET.query_as::<Row>().bind(id).fetch_optional(c).await?.map(LandingPage::from))
}

#[derive(FromRow)]
struct Row {
    id: i64,
    name: String,
    url: String,
    web_url: Option<String>,
    archived_at: Option<DateTime<Utc>>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Row> for LandingPage {
    fn from(row: Row) -> Self {
        let Row { id, name, url, web_url, archived_at, version, created_at, updated_at } = row;
        let terms = LandingPageTerms { name, url, web_url, is_archived: archived_at.is_some() };
        Self { id, terms, archived_at, version, created_at, updated_at }
    }
}
