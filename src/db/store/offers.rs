//! Offers of the library. A trigger makes every campaign that uses one that changed a new version, also one that gets it
//! only once another is full.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::{FromRow, types::Json};

use super::library::{self, Entry, Filter};
use crate::{
    db::{
        Db, Error,
        statement::{Query, Statement, statements},
        store::campaigns::money,
    },
    model::{library::OfferTerms, rule::Cap},
};

/// An offer of the library as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Ours, one sequence with those of campaigns.
    pub id: i64,
    /// What its owner says of it.
    pub terms: OfferTerms,
    /// Since when it is put away.
    pub archived_at: Option<DateTime<Utc>>,
    /// Counts changes; the ETag.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// Where an offer would stand among those that lead to one another once they are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// Whether the first step is an offer of the library.
    pub is_known: bool,
    /// Whether it leads back to the offer itself.
    pub is_circle: bool,
    /// Steps from the first offer that leads here to the last that this leads to.
    pub steps: i64,
}

macro_rules! select_offers {
    ($tail:literal) => {
        concat!(
            "
    SELECT
        o.id,
        o.name,
        o.url,
        o.web_url,
        o.payout_amount::text,
        o.payout_currency,
        o.affiliate_network_id,
        o.caps,
        o.overflow_offer_id,
        o.archived_at,
        o.version,
        o.created_at,
        o.updated_at
    FROM offers o
    WHERE o.campaign_id IS NULL",
            $tail
        )
    };
}

statements! {
    GET = "offer.get": select_offers!("
      AND o.id = $1");

    LIST = "offer.list": select_offers!("
      AND o.id < $1
      AND ($2::text IS NULL OR position(lower($2) IN lower(o.name)) > 0)
      AND ($3::boolean IS NULL OR (o.archived_at IS NOT NULL) = $3)
      AND ($4::bigint IS NULL OR o.affiliate_network_id = $4)
    ORDER BY o.id DESC
    LIMIT $5");

    FIND_MADE = "offer.find_made": "SELECT id FROM offers WHERE made_by = $1";

    INSERT = "offer.insert": "
    INSERT INTO offers (
        position, weight, is_active, name, url, web_url, payout_amount, payout_currency, affiliate_network_id, caps,
        overflow_offer_id, archived_at, made_by
    )
    VALUES (0, 1, true, $1, $2, $3, $4, $5, $6, $7, $8, CASE WHEN $9 THEN now() END, $10)";

    UPDATE = "offer.update": "
    UPDATE offers
    SET name = $1,
        url = $2,
        web_url = $3,
        payout_amount = $4,
        payout_currency = $5,
        affiliate_network_id = $6,
        caps = $7,
        overflow_offer_id = $8,
        archived_at = CASE WHEN $9 THEN coalesce(archived_at, now()) END
    WHERE id = $10
      AND campaign_id IS NULL
      AND version = $11";

    DELETE = "offer.delete": "
    DELETE FROM offers o
    WHERE o.id = $1
      AND o.campaign_id IS NULL
      AND o.version = coalesce($2, o.version)
      AND NOT EXISTS (
          SELECT
          FROM campaigns c
          WHERE c.library_offers @> ARRAY[o.id]
            AND c.deleted_at IS NULL
      )
      AND NOT EXISTS (
          SELECT
          FROM offers other
          LEFT JOIN campaigns c ON c.id = other.campaign_id
          WHERE other.overflow_offer_id = o.id
            AND c.deleted_at IS NULL
      )";

    // UNION ends a circle, and so does the bound: more steps than are allowed are too many.
    CHAIN = "offer.chain": "
    WITH RECURSIVE down (id, step) AS (
        SELECT $2::bigint, 1
        UNION
        SELECT o.overflow_offer_id, down.step + 1
        FROM down
        JOIN offers o ON o.id = down.id
        WHERE o.overflow_offer_id IS NOT NULL
          AND o.id IS DISTINCT FROM $1::bigint
          AND down.step < 32
    ), up (id, step) AS (
        SELECT $1::bigint, 0
        WHERE $1::bigint IS NOT NULL
        UNION
        SELECT o.id, up.step + 1
        FROM up
        JOIN offers o ON o.overflow_offer_id = up.id
        WHERE o.campaign_id IS NULL
          AND up.step < 32
    )
    SELECT
        EXISTS (SELECT FROM offers WHERE id = $2 AND campaign_id IS NULL) AS is_known,
        EXISTS (SELECT FROM down WHERE id = $1) AS is_circle,
        (SELECT max(step) FROM down)::bigint + coalesce((SELECT max(step) FROM up), 0)::bigint AS steps";
}

/// Offers of the library (of this network), newest first, before (older than) `after`, at most `limit`; from a replica.
pub async fn list(
    db: &Db,
    filter: Filter,
    affiliate_network_id: Option<i64>,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<Offer>, Error> {
    library::list(db, LIST, filter, move |query| query.bind(affiliate_network_id), after, limit).await
}

/// Where the offer `id` (`None`: one that is made) would stand if it led to `overflow_offer_id`; from the primary.
pub async fn chain(db: &Db, id: Option<i64>, overflow_offer_id: i64) -> Result<Chain, Error> {
    db.read_primary(CHAIN, move |c| {
        Box::pin(async move {
            let query = CHAIN.query_as::<(bool, bool, i64)>().bind(id).bind(overflow_offer_id);
            let (is_known, is_circle, steps) = query.fetch_one(c).await?;
            Ok(Chain { is_known, is_circle, steps })
        })
    })
    .await
}

impl Entry for Offer {
    type Terms = OfferTerms;
    type Row = Row;

    const GET: Statement = GET;
    const FIND_MADE: Statement = FIND_MADE;
    const INSERT: Statement = INSERT;
    const UPDATE: Statement = UPDATE;
    const DELETE: Statement = DELETE;

    fn id(&self) -> i64 {
        self.id
    }

    fn terms(&self) -> &OfferTerms {
        &self.terms
    }

    fn version(&self) -> i64 {
        self.version
    }

    fn bind(query: Query, terms: OfferTerms) -> Query {
        query
            .bind(terms.name)
            .bind(terms.url)
            .bind(terms.web_url)
            .bind(terms.payout.map(|m| m.amount) as Option<Decimal>)
            .bind(terms.payout.map(|m| m.currency.to_string()))
            .bind(terms.affiliate_network_id)
            .bind(Json(terms.caps))
            .bind(terms.overflow_offer_id)
            .bind(terms.is_archived)
    }

    fn of(row: Row) -> sqlx::Result<Self> {
        let terms = OfferTerms {
            name: row.name,
            url: row.url,
            web_url: row.web_url,
            payout: money(row.payout_amount.as_deref(), row.payout_currency.as_deref()),
            affiliate_network_id: row.affiliate_network_id,
            caps: row.caps.0,
            overflow_offer_id: row.overflow_offer_id,
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
    url: String,
    web_url: Option<String>,
    payout_amount: Option<String>,
    payout_currency: Option<String>,
    affiliate_network_id: Option<i64>,
    caps: Json<Vec<Cap>>,
    overflow_offer_id: Option<i64>,
    archived_at: Option<DateTime<Utc>>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}
