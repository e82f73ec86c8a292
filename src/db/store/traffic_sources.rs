//! Traffic sources of the library. A trigger makes every campaign of one that changed a new version.

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use sqlx::{FromRow, types::Json};

use super::{
    library::{self, Entry, Filter, select},
    uses::Removal,
};
use crate::{
    db::{
        Db, Error,
        session::Session,
        statement::{Query, Statement, statements},
    },
    model::source::{Parameter, SourceTerms},
};

/// Days of which clicks are counted beside a source.
pub const RECENT_DAYS: u16 = 7;

/// A traffic source as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficSource {
    /// Ours.
    pub id: i64,
    /// What its owner says of it.
    pub terms: SourceTerms,
    /// Since when it is put away.
    pub archived_at: Option<DateTime<Utc>>,
    /// Counts changes; the ETag.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// Its clicks of the last days.
    pub recent: Recent,
}

/// Clicks of a source of today and the [`RECENT_DAYS`] - 1 days before (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recent {
    /// All that are stored.
    pub clicks: i64,
    /// Those with a macro that the source did not fill.
    pub unexpanded: i64,
}

macro_rules! select_sources {
    ($tail:literal) => {
        concat!(
            "
    SELECT
        s.id,
        s.name,
        s.template,
        s.parameters,
        s.postback_url,
        s.archived_at,
        s.version,
        s.created_at,
        s.updated_at,
        recent.clicks,
        recent.unexpanded
    FROM traffic_sources s
    CROSS JOIN LATERAL (
        SELECT
            coalesce(sum(d.clicks), 0)::bigint AS clicks,
            coalesce(sum(d.unexpanded), 0)::bigint AS unexpanded
        FROM source_stats_daily d
        WHERE d.source_id = s.id
          AND d.day > (now() AT TIME ZONE 'UTC')::date - 7
    ) AS recent",
            $tail
        )
    };
}

statements! {
    GET = "traffic_source.get": select_sources!("
    WHERE s.id = $1");

    LIST = "traffic_source.list": select_sources!("
    WHERE s.id < $1
      AND ($2::text IS NULL OR position(lower($2) IN lower(s.name)) > 0)
      AND ($3::boolean IS NULL OR (s.archived_at IS NOT NULL) = $3)
    ORDER BY s.id DESC
    LIMIT $4");

    FIND_MADE = "traffic_source.find_made": "SELECT id FROM traffic_sources WHERE made_by = $1";

    INSERT = "traffic_source.insert": "
    INSERT INTO traffic_sources (name, template, parameters, postback_url, archived_at, made_by)
    VALUES ($1, $2, $3, $4, CASE WHEN $5 THEN now() END, $6)";

    UPDATE = "traffic_source.update": "
    UPDATE traffic_sources
    SET name = $1,
        template = $2,
        parameters = $3,
        postback_url = $4,
        archived_at = CASE WHEN $5 THEN coalesce(archived_at, now()) END
    WHERE id = $6
      AND version = $7";

    // A campaign that is deleted keeps nothing.
    RELEASE = "traffic_source.release": "
    UPDATE campaigns
    SET traffic_source_id = NULL
    WHERE traffic_source_id = $1
      AND deleted_at IS NOT NULL";

    DELETE = "traffic_source.delete": "
    DELETE FROM traffic_sources s
    WHERE s.id = $1
      AND s.version = coalesce($2, s.version)
      AND NOT EXISTS (SELECT FROM campaigns c WHERE c.traffic_source_id = s.id)";

    FORGET_STATS = "traffic_source.forget_stats": "DELETE FROM source_stats_daily WHERE source_id = $1";
}

/// Traffic sources, newest first, before (older than) `after`, at most `limit`; from a replica.
pub async fn list(
    db: &Db,
    filter: Filter,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<TrafficSource>, Error> {
    library::list(db, LIST, filter, |query| query, after, limit).await
}

impl Entry for TrafficSource {
    type Terms = SourceTerms;
    type Row = Row;

    const GET: Statement = GET;
    const FIND_MADE: Statement = FIND_MADE;
    const INSERT: Statement = INSERT;
    const UPDATE: Statement = UPDATE;
    const DELETE: Statement = DELETE;

    fn id(&self) -> i64 {
        self.id
    }

    fn terms(&self) -> &SourceTerms {
        &self.terms
    }

    fn version(&self) -> i64 {
        self.version
    }

    fn bind(query: Query, terms: SourceTerms) -> Query {
        query
            .bind(terms.name)
            .bind(terms.template)
            .bind(Json(terms.parameters))
            .bind(terms.postback_url)
            .bind(terms.is_archived)
    }

    fn of(row: Row) -> sqlx::Result<Self> {
        let Row { id, archived_at, version, created_at, updated_at, clicks, unexpanded, .. } = row;
        let terms = SourceTerms {
            name: row.name,
            template: row.template,
            parameters: row.parameters.0,
            postback_url: row.postback_url,
            is_archived: archived_at.is_some(),
        };
        let recent = Recent { clicks, unexpanded };
        Ok(Self { id, terms, archived_at, version, created_at, updated_at, recent })
    }

    /// With what was counted of it.
    fn remove<'c>(
        c: &'c mut Session<'_>,
        id: i64,
        expected: Option<i64>,
    ) -> BoxFuture<'c, sqlx::Result<Removal>> {
        Box::pin(async move {
            let mut tx = c.begin().await?;
            RELEASE.query().bind(id).execute(&mut tx).await?;
            let deleted = DELETE.query().bind(id).bind(expected).execute(&mut tx).await?.rows_affected();
            if deleted == 0 {
                let found = select::<Self>(&mut tx, id).await?.map(|source| source.version);
                tx.rollback().await?;
                return Ok(Removal::refused(found, expected));
            }
            FORGET_STATS.query().bind(id).execute(&mut tx).await?;
            tx.commit().await?;
            Ok(Removal::Done)
        })
    }
}

/// What [`GET`] and [`LIST`] read.
#[derive(FromRow)]
pub(crate) struct Row {
    id: i64,
    name: String,
    template: Option<String>,
    parameters: Json<Vec<Parameter>>,
    postback_url: Option<String>,
    archived_at: Option<DateTime<Utc>>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    clicks: i64,
    unexpanded: i64,
}
