//! Landing pages of the library. A trigger makes every campaign that uses one that changed a new version.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::library::{self, Entry, Filter};
use crate::{
    db::{
        Db, Error,
        statement::{Query, Statement, statements},
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

/// Landing pages of the library, newest first, before (older than) `after`, at most `limit`; from a replica.
pub async fn list(
    db: &Db,
    filter: Filter,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<LandingPage>, Error> {
    library::list(db, LIST, filter, |query| query, after, limit).await
}

impl Entry for LandingPage {
    type Terms = LandingPageTerms;
    type Row = Row;

    const GET: Statement = GET;
    const FIND_MADE: Statement = FIND_MADE;
    const INSERT: Statement = INSERT;
    const UPDATE: Statement = UPDATE;
    const DELETE: Statement = DELETE;

    fn id(&self) -> i64 {
        self.id
    }

    fn terms(&self) -> &LandingPageTerms {
        &self.terms
    }

    fn version(&self) -> i64 {
        self.version
    }

    fn bind(query: Query, terms: LandingPageTerms) -> Query {
        query.bind(terms.name).bind(terms.url).bind(terms.web_url).bind(terms.is_archived)
    }

    fn of(row: Row) -> sqlx::Result<Self> {
        let Row { id, name, url, web_url, archived_at, version, created_at, updated_at } = row;
        let terms = LandingPageTerms { name, url, web_url, is_archived: archived_at.is_some() };
        Ok(Self { id, terms, archived_at, version, created_at, updated_at })
    }
}

/// What [`GET`] and [`LIST`] read.
#[derive(FromRow)]
pub(crate) struct Row {
    id: i64,
    name: String,
    url: String,
    web_url: Option<String>,
    archived_at: Option<DateTime<Utc>>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}
