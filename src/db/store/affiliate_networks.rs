//! Affiliate networks of the library.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, types::Json};

use super::library::{self, Entry, Filter};
use crate::{
    db::{
        Db, Error,
        session::Session,
        statement::{Query, Statement, statements},
    },
    model::network::{NetworkTerms, PostbackRules, StatusWord},
};

/// An affiliate network as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffiliateNetwork {
    /// Ours.
    pub id: i64,
    /// What its owner says of it.
    pub terms: NetworkTerms,
    /// Since when it is put away.
    pub archived_at: Option<DateTime<Utc>>,
    /// Counts changes; the ETag.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

macro_rules! select_networks {
    ($tail:literal) => {
        concat!(
            "
    SELECT
        n.id,
        n.name,
        n.template,
        n.click_id_parameter,
        n.click_id_macro,
        n.status_map,
        n.currency,
        n.repeats,
        n.archived_at,
        n.version,
        n.created_at,
        n.updated_at
    FROM affiliate_networks n",
            $tail
        )
    };
}

statements! {
    GET = "affiliate_network.get": select_networks!("
    WHERE n.id = $1");

    LIST = "affiliate_network.list": select_networks!("
    WHERE n.id < $1
      AND ($2::text IS NULL OR position(lower($2) IN lower(n.name)) > 0)
      AND ($3::boolean IS NULL OR (n.archived_at IS NOT NULL) = $3)
    ORDER BY n.id DESC
    LIMIT $4");

    OF_IDS = "affiliate_network.of_ids": select_networks!("
    WHERE n.id = ANY ($1)");

    FIND_MADE = "affiliate_network.find_made": "SELECT id FROM affiliate_networks WHERE made_by = $1";

    INSERT = "affiliate_network.insert": "
    INSERT INTO affiliate_networks (
        name, template, click_id_parameter, click_id_macro, status_map, currency, repeats, archived_at, made_by
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, CASE WHEN $8 THEN now() END, $9)";

    UPDATE = "affiliate_network.update": "
    UPDATE affiliate_networks
    SET name = $1,
        template = $2,
        click_id_parameter = $3,
        click_id_macro = $4,
        status_map = $5,
        currency = $6,
        repeats = $7,
        archived_at = CASE WHEN $8 THEN coalesce(archived_at, now()) END
    WHERE id = $9
      AND version = $10";

    DELETE = "affiliate_network.delete": "
    DELETE FROM affiliate_networks n
    WHERE n.id = $1
      AND n.version = coalesce($2, n.version)
      AND NOT EXISTS (SELECT FROM offers o WHERE o.affiliate_network_id = n.id)";
}

/// Affiliate networks, newest first, before (older than) `after`, at most `limit`; from a replica.
pub async fn list(
    db: &Db,
    filter: Filter,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<AffiliateNetwork>, Error> {
    library::list(db, LIST, filter, |query| query, after, limit).await
}

/// How the postbacks of these networks are taken, within the caller's transaction.
pub(in crate::db) async fn rules_on(
    c: &mut Session<'_>,
    ids: Vec<i64>,
) -> sqlx::Result<HashMap<i64, PostbackRules>> {
    let rows: Vec<Row> = OF_IDS.query_as().bind(ids).fetch_all(c).await?;
    rows.into_iter()
        .map(|row| {
            let network = AffiliateNetwork::of(row)?;
            Ok((network.id, network.terms.rules()))
        })
        .collect()
}

impl Entry for AffiliateNetwork {
    type Terms = NetworkTerms;
    type Row = Row;

    const GET: Statement = GET;
    const FIND_MADE: Statement = FIND_MADE;
    const INSERT: Statement = INSERT;
    const UPDATE: Statement = UPDATE;
    const DELETE: Statement = DELETE;

    fn id(&self) -> i64 {
        self.id
    }

    fn terms(&self) -> &NetworkTerms {
        &self.terms
    }

    fn version(&self) -> i64 {
        self.version
    }

    fn bind(query: Query, terms: NetworkTerms) -> Query {
        query
            .bind(terms.name)
            .bind(terms.template)
            .bind(terms.click_id_parameter.map(String::from))
            .bind(terms.click_id_macro.map(String::from))
            .bind(Json(terms.status_map))
            .bind(terms.currency.map(String::from))
            .bind(<&str>::from(terms.repeats))
            .bind(terms.is_archived)
    }

    fn of(row: Row) -> sqlx::Result<Self> {
        let decode = |error: &dyn std::fmt::Display| sqlx::Error::Decode(error.to_string().into());
        let terms = NetworkTerms {
            name: row.name,
            template: row.template,
            click_id_parameter: row
                .click_id_parameter
                .map(|t| t.parse())
                .transpose()
                .map_err(|e| decode(&e))?,
            click_id_macro: row.click_id_macro.map(|t| t.parse()).transpose().map_err(|e| decode(&e))?,
            status_map: row.status_map.0,
            currency: row.currency.map(|t| t.parse()).transpose().map_err(|e| decode(&e))?,
            repeats: row.repeats.parse().map_err(|e: String| decode(&e))?,
            is_archived: row.archived_at.is_some(),
        };
        let Row { id, archived_at, version, created_at, updated_at, .. } = row;
        Ok(Self { id, terms, archived_at, version, created_at, updated_at })
    }
}

/// What [`GET`] and [`LIST`] read.
#[derive(FromRow)]
pub(crate) struct Row {
    id: i64,
    name: String,
    template: Option<String>,
    click_id_parameter: Option<String>,
    click_id_macro: Option<String>,
    status_map: Json<Vec<StatusWord>>,
    currency: Option<String>,
    repeats: String,
    archived_at: Option<DateTime<Utc>>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}
