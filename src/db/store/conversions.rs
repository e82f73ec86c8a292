//! Conversions and the book of their changes: read. The drain is who derives them (see `db::ingest`).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use crate::{
    db::{Db, Error, statement::statements},
    model::id::ClickId,
};

/// A conversion as it is stored.
#[derive(Debug, Clone, PartialEq, FromRow)]
#[expect(missing_docs, reason = "the columns of the table, which the API's view describes")]
pub struct Conversion {
    pub id: Uuid,
    pub campaign_id: Uuid,
    pub campaign_key: Option<String>,
    pub click_id: Uuid,
    pub network_id: Option<i64>,
    pub goal: String,
    pub txid: String,
    pub nth: i32,
    pub kind: String,
    pub status: String,
    pub status_text: Option<String>,
    pub status_detail: Option<String>,
    pub payout: Decimal,
    pub original_payout: Option<Decimal>,
    pub sale_amount: Option<Decimal>,
    pub currency: String,
    pub flags: Vec<String>,
    pub numbers: Option<Json<BTreeMap<String, Decimal>>>,
    pub rule_id: Option<i64>,
    pub path_id: Option<i64>,
    pub landing_page_id: Option<i64>,
    pub offer_id: Option<i64>,
    pub source_id: Option<i64>,
    pub country: Option<String>,
    pub device: Option<String>,
    pub os: Option<String>,
    pub browser: Option<String>,
    pub sub1: Option<String>,
    pub sub2: Option<String>,
    pub sub3: Option<String>,
    pub sub4: Option<String>,
    pub sub5: Option<String>,
    pub keyword: Option<String>,
    pub creative: Option<String>,
    pub placement: Option<String>,
    pub is_click_valid: bool,
    pub converted_at: DateTime<Utc>,
    pub first_at: DateTime<Utc>,
    pub last_at: DateTime<Utc>,
    pub clicked_at: DateTime<Utc>,
}

/// A row of the book.
#[derive(Debug, Clone, PartialEq, FromRow)]
#[expect(missing_docs, reason = "the columns of the table, which the API's view describes")]
pub struct Change {
    pub id: i64,
    pub conversion_id: Uuid,
    pub postback_id: Option<Uuid>,
    pub cause: String,
    pub from_status: Option<String>,
    pub to_status: String,
    pub payout: Decimal,
    pub revenue: Decimal,
    pub currency: String,
    pub changed_at: DateTime<Utc>,
    pub recorded_at: DateTime<Utc>,
}

/// Which conversions are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of these campaigns.
    pub campaign_ids: Option<Vec<Uuid>>,
    /// Of this network.
    pub network_id: Option<i64>,
    /// In this state.
    pub status: Option<String>,
    /// With this goal.
    pub goal: Option<String>,
    /// Of this click.
    pub click_id: Option<ClickId>,
    /// Whose first postback came at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Whose first postback came before this time.
    pub to: Option<DateTime<Utc>>,
}

/// How many wait, or want to be looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromRow)]
pub struct Open {
    /// Clicks whose postbacks wait for them.
    pub waiting: i64,
    /// Postbacks whose word is not known.
    pub unmapped: i64,
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "
    SELECT
        v.id, v.campaign_id, c.key AS campaign_key, v.click_id, v.network_id, v.goal, v.txid, v.nth, v.kind, v.status,
        v.status_text, v.status_detail, v.payout, v.original_payout, v.sale_amount, v.currency, v.flags, v.numbers,
        v.rule_id, v.path_id, v.landing_page_id, v.offer_id, v.source_id, v.country, v.device, v.os, v.browser, v.sub1,
        v.sub2, v.sub3, v.sub4, v.sub5, v.keyword, v.creative, v.placement, v.is_click_valid, v.converted_at,
        v.first_at, v.last_at, v.created_at AS clicked_at
    FROM conversions v
    LEFT JOIN campaigns c ON c.id = v.campaign_id",
            $tail
        )
    };
}

statements! {
    LIST = "conversion.list": select!("
    WHERE (v.first_at, v.id) < ($1, $2)
      AND v.first_at >= $3
      AND v.first_at < $4
      AND ($5::uuid[] IS NULL OR v.campaign_id = ANY ($5))
      AND ($6::bigint IS NULL OR v.network_id = $6)
      AND ($7::text IS NULL OR v.status = $7)
      AND ($8::text IS NULL OR v.goal = $8)
    ORDER BY v.first_at DESC, v.id DESC
    LIMIT $9");

    LIST_OF_CLICKS = "conversion.list_of_clicks": select!("
    WHERE v.click_id = ANY ($1)
    ORDER BY v.first_at, v.id");

    GET = "conversion.get": select!("
    WHERE v.id = $1");

    LIST_CHANGES = "conversion.list_changes": "
    SELECT
        id,
        conversion_id,
        postback_id,
        cause,
        from_status,
        to_status,
        payout,
        revenue,
        currency,
        changed_at,
        recorded_at
    FROM conversion_changes
    WHERE conversion_id = ANY ($1)
    ORDER BY id";

    COUNT_OPEN = "conversion.count_open": "
    SELECT
        (SELECT count(*) FROM conversion_clicks WHERE state = 'waiting') AS waiting,
        (SELECT count(*) FROM postbacks WHERE reason = 'unmapped') AS unmapped";

    FIND_TROUBLED_NETWORKS = "conversion.find_troubled_networks": "
    SELECT coalesce(network_id, key_network_id, 0)
    FROM postbacks
    WHERE created_at > now() - interval '1 hour'
    GROUP BY 1
    HAVING count(*) FILTER (WHERE outcome IN ('refused', 'ignored')) > 10
       AND count(*) FILTER (WHERE outcome IN ('refused', 'ignored')) * 5 > count(*)
    ORDER BY 1
    LIMIT 100";

    FIND_STOPPED_OFFERS = "conversion.find_stopped_offers": "
    SELECT v.offer_id
    FROM conversions v
    JOIN offers o ON o.id = v.offer_id AND o.is_active
    WHERE v.first_at > now() - interval '8 days'
      AND v.offer_id IS NOT NULL
      AND v.kind = 'conversion'
    GROUP BY 1
    HAVING count(*) >= 20
       AND max(v.first_at) < now() - interval '1 day'
    ORDER BY 1
    LIMIT 100";
}

/// What of conversions goes wrong for somebody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Networks of whose postbacks of the last hour more than a fifth, and more than ten, were refused or ignored.
    pub networks: Vec<i64>,
    /// Active offers that had at least 20 conversions within the week before, and none in the last day.
    pub offers: Vec<i64>,
}

/// Conversions, newest first by their first postback, after (older than) the one of `after`, at most `limit`.
pub async fn list(
    db: &Db,
    filter: Filter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Conversion>, Error> {
    if let Some(click_id) = filter.click_id {
        return list_of_clicks(db, vec![click_id.uuid()]).await;
    }
    let (after_time, after_id) = after.unwrap_or((crate::db::FAR_FUTURE, Uuid::max()));
    let from = filter.from.unwrap_or(DateTime::UNIX_EPOCH);
    let to = filter.to.unwrap_or(crate::db::FAR_FUTURE);
    db.read(LIST, move |c| {
        let list = LIST.query_as().bind(after_time).bind(after_id).bind(from).bind(to);
        let list = list.bind(filter.campaign_ids).bind(filter.network_id).bind(filter.status);
        Box::pin(list.bind(filter.goal).bind(limit).fetch_all(c))
    })
    .await
}

/// The conversions of clicks, oldest first.
pub async fn list_of_clicks(db: &Db, clicks: Vec<Uuid>) -> Result<Vec<Conversion>, Error> {
    db.read(LIST_OF_CLICKS, move |c| Box::pin(LIST_OF_CLICKS.query_as().bind(clicks).fetch_all(c))).await
}

/// One conversion.
pub async fn get(db: &Db, id: Uuid) -> Result<Option<Conversion>, Error> {
    db.read(GET, move |c| Box::pin(GET.query_as().bind(id).fetch_optional(c))).await
}

/// What the book says of conversions, in order.
pub async fn list_changes(db: &Db, conversions: Vec<Uuid>) -> Result<Vec<Change>, Error> {
    db.read(LIST_CHANGES, move |c| Box::pin(LIST_CHANGES.query_as().bind(conversions).fetch_all(c))).await
}

/// How many wait, or want to be looked at.
pub async fn count_open(db: &Db) -> Result<Open, Error> {
    db.read(COUNT_OPEN, move |c| Box::pin(COUNT_OPEN.query_as().fetch_one(c))).await
}

/// What of conversions goes wrong for somebody.
pub async fn find_trouble(db: &Db) -> Result<Trouble, Error> {
    let networks = db
        .read(FIND_TROUBLED_NETWORKS, move |c| Box::pin(FIND_TROUBLED_NETWORKS.query_scalar().fetch_all(c)));
    let offers =
        db.read(FIND_STOPPED_OFFERS, move |c| Box::pin(FIND_STOPPED_OFFERS.query_scalar().fetch_all(c)));
    Ok(Trouble { networks: networks.await?, offers: offers.await? })
}
