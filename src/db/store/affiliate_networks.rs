//! Affiliate networks of the library.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{traffic_sources::Filter, uses::Removal};
use crate::{
    db::{
        Db, Error,
        session::Session,
        statement::{Query, statements},
        store::campaigns::Written,
    },
    model::network::{NetworkTerms, StatusWord},
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

/// The affiliate network with this id; from the primary.
pub async fn get(db: &Db, id: i64) -> Result<Option<AffiliateNetwork>, Error> {
    db.read_primary(GET, move |c| Box::pin(select(c, id))).await
}

/// Affiliate networks, newest first, before (older than) `after`, at most `limit`; from a replica.
pub async fn list(
    db: &Db,
    filter: Filter,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<AffiliateNetwork>, Error> {
    let after = after.unwrap_or(i64::MAX);
    db.read(LIST, move |c| {
        Box::pin(async move {
            let query = LIST.query_as::<Row>().bind(after).bind(filter.q).bind(filter.is_archived);
            query.bind(limit).fetch_all(c).await?.into_iter().map(Row::into_network).collect()
        })
    })
    .await
}

/// Makes an affiliate network for the request `made_by`; where an attempt before this one `may_exist`, what it made is
/// the network.
pub async fn insert(
    db: &Db,
    made_by: Uuid,
    may_exist: bool,
    terms: NetworkTerms,
) -> Result<AffiliateNetwork, Error> {
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

/// Gives an affiliate network that is in the version `expected` these terms; returns it as it is stored.
pub async fn update(
    db: &Db,
    id: i64,
    expected: i64,
    terms: NetworkTerms,
) -> Result<Written<AffiliateNetwork>, Error> {
    db.write(UPDATE, move |c| {
        Box::pin(async move {
            let update = bind_terms(UPDATE.query(), terms).bind(id).bind(expected);
            let is_updated = update.execute(c).await?.rows_affected() > 0;
            Ok(match select(c, id).await? {
                Some(network) if is_updated => Written::Done(network),
                Some(_) => Written::Stale,
                None => Written::Missing,
            })
        })
    })
    .await
}

/// Deletes an affiliate network that no offer names.
pub async fn delete(db: &Db, id: i64, expected: Option<i64>) -> Result<Removal, Error> {
    db.write(DELETE, move |c| {
        Box::pin(async move {
            let deleted = DELETE.query().bind(id).bind(expected).execute(c).await?.rows_affected();
            if deleted > 0 {
                return Ok(Removal::Done);
            }
            let found = select(c, id).await?.map(|network| network.version);
            Ok(Removal::refused(found, expected))
        })
    })
    .await
}

/// `$1` to `$8` of [`INSERT`] and [`UPDATE`].
fn bind_terms(query: Query, terms: NetworkTerms) -> Query {
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

async fn select(c: &mut Session<'_>, id: i64) -> sqlx::Result<Option<AffiliateNetwork>> {
    GET.query_as::<Row>().bind(id).fetch_optional(c).await?.map(Row::into_network).transpose()
}

#[derive(FromRow)]
struct Row {
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

impl Row {
    fn into_network(self) -> sqlx::Result<AffiliateNetwork> {
        let decode = |error: &dyn std::fmt::Display| sqlx::Error::Decode(error.to_string().into());
        let terms = NetworkTerms {
            name: self.name,
            template: self.template,
            click_id_parameter: self
                .click_id_parameter
                .map(|t| t.parse())
                .transpose()
                .map_err(|e| decode(&e))?,
            click_id_macro: self.click_id_macro.map(|t| t.parse()).transpose().map_err(|e| decode(&e))?,
            status_map: self.status_map.0,
            currency: self.currency.map(|t| t.parse()).transpose().map_err(|e| decode(&e))?,
            repeats: self.repeats.parse().map_err(|e: String| decode(&e))?,
            is_archived: self.archived_at.is_some(),
        };
        let Self { id, archived_at, version, created_at, updated_at, .. } = self;
        Ok(AffiliateNetwork { id, terms, archived_at, version, created_at, updated_at })
    }
}
