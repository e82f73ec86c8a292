//! Affiliate networks of the library.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use sqlx::{FromRow, types::Json};

use super::library::{self, Entry, Filter};
use crate::{
    db::{
        Db, Error,
        session::Session,
        statement::{Query, Statement, statements},
    },
    model::{
        network::{NetworkTerms, PostbackParameter, PostbackRules, StatusWord},
        postback::PostbackToken,
    },
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
        n.postback_key,
        n.postback_token_sha256,
        n.postback_addresses,
        n.postback_parameters,
        n.default_status,
        n.retry_window_s,
        n.sums_lists,
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

    ALL = "affiliate_network.all": select_networks!("
    ORDER BY n.id");

    FIND_MADE = "affiliate_network.find_made": "SELECT id FROM affiliate_networks WHERE made_by = $1";

    INSERT = "affiliate_network.insert": "
    INSERT INTO affiliate_networks (
        name, template, click_id_parameter, click_id_macro, status_map, currency, repeats,
        postback_key, postback_token_sha256, postback_addresses, postback_parameters, default_status, retry_window_s,
        sums_lists, archived_at, made_by
    )
    VALUES (
        $1, $2, $3, $4, $5, $6, $7,
        coalesce($8, replace(gen_random_uuid()::text, '-', '')), $9, $10, $11, $12, $13,
        $14, CASE WHEN $15 THEN now() END, $16
    )";

    UPDATE = "affiliate_network.update": "
    UPDATE affiliate_networks
    SET name = $1,
        template = $2,
        click_id_parameter = $3,
        click_id_macro = $4,
        status_map = $5,
        currency = $6,
        repeats = $7,
        postback_key = coalesce($8, replace(gen_random_uuid()::text, '-', '')),
        postback_token_sha256 = $9,
        postback_addresses = $10,
        postback_parameters = $11,
        default_status = $12,
        retry_window_s = $13,
        sums_lists = $14,
        archived_at = CASE WHEN $15 THEN coalesce(archived_at, now()) END
    WHERE id = $16
      AND version = $17";

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

/// Every affiliate network, as postbacks are read by them; from the primary.
pub(crate) async fn all(db: &Db) -> Result<Vec<AffiliateNetwork>, Error> {
    db.read_primary(ALL, |c| {
        Box::pin(async move {
            ALL.query_as::<Row>().fetch_all(c).await?.into_iter().map(AffiliateNetwork::of).collect()
        })
    })
    .await
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
            .bind(terms.postback_key.map(String::from))
            .bind(terms.postback_token.map(|token| token.hash().to_vec()))
            .bind(terms.postback_addresses.iter().map(IpNet::to_string).collect::<Vec<_>>())
            .bind(Json(terms.postback_parameters))
            .bind(terms.default_status.map(<&str>::from))
            .bind(terms.retry_window_s.cast_signed())
            .bind(terms.sums_lists)
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
            postback_key: Some(row.postback_key.parse().map_err(|e| decode(&e))?),
            postback_token: row
                .postback_token_sha256
                .map(|hash| <[u8; 32]>::try_from(hash).map(PostbackToken::of_hash))
                .transpose()
                .map_err(|_| decode(&"the hash of a token has 32 bytes"))?,
            postback_addresses: row
                .postback_addresses
                .iter()
                .map(|net| net.parse::<IpNet>())
                .collect::<Result<_, _>>()
                .map_err(|e| decode(&e))?,
            postback_parameters: row.postback_parameters.0,
            default_status: row
                .default_status
                .map(|t| t.parse())
                .transpose()
                .map_err(|e: String| decode(&e))?,
            retry_window_s: row.retry_window_s.cast_unsigned(),
            sums_lists: row.sums_lists,
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
    postback_key: String,
    postback_token_sha256: Option<Vec<u8>>,
    postback_addresses: Vec<String>,
    postback_parameters: Json<Vec<PostbackParameter>>,
    default_status: Option<String>,
    retry_window_s: i32,
    sums_lists: bool,
    archived_at: Option<DateTime<Utc>>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}
