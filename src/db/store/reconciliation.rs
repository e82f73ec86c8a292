//! What the report of a network is compared with: conversions of a range and of clicks, and what is known of clicks that have
//! none. By many clicks at once, and from a replica.

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    db::{Db, Error, statement::statements},
    model::{
        conversion::ReportDate,
        id::{ClickId, time_of_uuid},
    },
};

/// Conversions of one click that are looked at.
const PER_CLICK_MAX: i64 = 1000;

/// Postbacks of one click that are looked at, and bytes of each: what says which line it is of stands ahead.
const TOLD_PER_CLICK_MAX: i64 = 20;
const TOLD_BYTES_MAX: i32 = 4096;

/// Rows of a statement at most.
const PAGE: i64 = 5000;

/// How long the first postback of a conversion may have come before the conversion, by clocks that differ.
const CLOCKS_DIFFER_MAX: TimeDelta = TimeDelta::days(1);

/// A conversion, as far as it is compared.
#[derive(Debug, Clone, PartialEq, FromRow)]
#[expect(missing_docs, reason = "the columns of the table, which the API's view describes")]
pub struct Conversion {
    pub id: Uuid,
    pub click_id: Uuid,
    pub network_id: Option<i64>,
    pub offer_id: Option<i64>,
    pub goal: String,
    pub txid: String,
    pub kind: String,
    pub status: String,
    pub status_text: Option<String>,
    pub payout: Decimal,
    pub currency: String,
    pub converted_at: DateTime<Utc>,
    pub first_at: DateTime<Utc>,
    pub clicked_at: DateTime<Utc>,
}

/// A postback, as far as it says of which conversion it is.
#[derive(Debug, Clone, PartialEq, FromRow)]
#[expect(missing_docs, reason = "the columns of the table, which the API's view describes")]
pub struct Told {
    pub id: Uuid,
    pub click_id: Option<Uuid>,
    pub network_id: Option<i64>,
    pub outcome: String,
    pub reason: Option<String>,
    pub params: String,
}

/// What the book says last of a conversion.
#[derive(Debug, Clone, PartialEq, FromRow)]
#[expect(missing_docs, reason = "the columns of the table, which the API's view describes")]
pub struct Change {
    pub conversion_id: Uuid,
    pub postback_id: Option<Uuid>,
    pub cause: String,
    pub from_status: Option<String>,
    pub to_status: String,
    pub changed_at: DateTime<Utc>,
}

macro_rules! select {
    ($from:literal) => {
        concat!(
            "
    SELECT
        v.id,
        v.click_id,
        v.network_id,
        v.offer_id,
        v.goal,
        v.txid,
        v.kind,
        v.status,
        v.status_text,
        v.payout,
        v.currency,
        v.converted_at,
        v.first_at,
        v.created_at AS clicked_at",
            $from
        )
    };
}

statements! {
    // No conversion is before its click, and no first postback before its conversion, by more than clocks differ.
    LIST_OF_RANGE = "reconciliation.list_of_range": select!("
    FROM conversions v
    WHERE (v.first_at, v.id) > ($1, $2)
      AND v.network_id = $3
      AND CASE WHEN $4 THEN v.created_at ELSE v.converted_at END >= $5
      AND CASE WHEN $4 THEN v.created_at ELSE v.converted_at END < $6
    ORDER BY v.first_at, v.id
    LIMIT $7");

    // Row by row by an index, here and below: LIMIT keeps the planner from reading the whole table instead.
    LIST_OF_CLICKS = "reconciliation.list_of_clicks": select!("
    FROM unnest($1::uuid[]) AS t (click_id)
    CROSS JOIN LATERAL (SELECT * FROM conversions WHERE click_id = t.click_id LIMIT $2) v");

    // OFFSET keeps the planner from reading the table in the order of time until it meets the click.
    LIST_TOLD = "reconciliation.list_told": "
    SELECT
        p.id,
        p.click_id,
        coalesce(p.network_id, p.key_network_id) AS network_id,
        p.outcome,
        p.reason,
        left(p.params, $3) AS params
    FROM unnest($1::uuid[]) AS t (click_id)
    CROSS JOIN LATERAL (
        SELECT *
        FROM (SELECT * FROM postbacks WHERE click_id = t.click_id OFFSET 0) of_click
        ORDER BY created_at DESC, id DESC
        LIMIT $2
    ) p";

    LIST_LOST = "reconciliation.list_lost": "
    SELECT
        id,
        click_id,
        coalesce(network_id, key_network_id) AS network_id,
        outcome,
        reason,
        left(params, $5) AS params
    FROM postbacks
    WHERE created_at >= $1
      AND (created_at, id) < ($2, $3)
      AND click_id IS NULL
      AND coalesce(network_id, key_network_id) = $4
    ORDER BY created_at DESC, id DESC
    LIMIT $6";

    FIND_CLICKS = "reconciliation.find_clicks": "
    SELECT c.id
    FROM unnest($1::uuid[], $2::timestamptz[]) AS t (id, created_at)
    CROSS JOIN LATERAL (SELECT id FROM clicks WHERE created_at = t.created_at AND id = t.id LIMIT 1) c";

    LIST_CHANGES = "reconciliation.list_changes": "
    SELECT DISTINCT ON (conversion_id)
        conversion_id,
        postback_id,
        cause,
        from_status,
        to_status,
        changed_at
    FROM conversion_changes
    WHERE conversion_id = ANY ($1)
    ORDER BY conversion_id, id DESC";
}

/// The conversions of a network whose day is in a range, at most one more than `limit`.
pub async fn list_of_range(
    db: &Db,
    network_id: i64,
    date: ReportDate,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    limit: usize,
) -> Result<Vec<Conversion>, Error> {
    let mut found: Vec<Conversion> = Vec::new();
    let mut after = (from - CLOCKS_DIFFER_MAX, Uuid::nil());
    loop {
        let of_click = date == ReportDate::Click;
        let rows: Vec<Conversion> = db
            .read(LIST_OF_RANGE, move |c| {
                let list = LIST_OF_RANGE.query_as().bind(after.0).bind(after.1).bind(network_id);
                Box::pin(list.bind(of_click).bind(from).bind(to).bind(PAGE).fetch_all(c))
            })
            .await?;
        let is_last = i64::try_from(rows.len()).is_ok_and(|rows| rows < PAGE);
        after = rows.last().map_or(after, |last| (last.first_at, last.id));
        found.extend(rows);
        if is_last || found.len() > limit {
            return Ok(found);
        }
    }
}

/// The conversions of clicks.
pub async fn list_of_clicks(db: &Db, clicks: Vec<Uuid>) -> Result<Vec<Conversion>, Error> {
    db.read(LIST_OF_CLICKS, move |c| {
        Box::pin(LIST_OF_CLICKS.query_as().bind(clicks).bind(PER_CLICK_MAX).fetch_all(c))
    })
    .await
}

/// The newest postbacks of clicks, of each the newest first.
pub async fn list_told(db: &Db, clicks: Vec<Uuid>) -> Result<Vec<Told>, Error> {
    db.read(LIST_TOLD, move |c| {
        let list = LIST_TOLD.query_as().bind(clicks).bind(TOLD_PER_CLICK_MAX).bind(TOLD_BYTES_MAX);
        Box::pin(list.fetch_all(c))
    })
    .await
}

/// The postbacks of a network that came at a time or later and name no click of ours, newest first, about `limit` at most.
pub async fn list_lost(
    db: &Db,
    network_id: i64,
    from: DateTime<Utc>,
    limit: usize,
) -> Result<Vec<Told>, Error> {
    let mut found: Vec<Told> = Vec::new();
    let mut before = (crate::db::FAR_FUTURE, Uuid::max());
    loop {
        let rows: Vec<Told> = db
            .read(LIST_LOST, move |c| {
                let list = LIST_LOST.query_as().bind(from).bind(before.0).bind(before.1).bind(network_id);
                Box::pin(list.bind(TOLD_BYTES_MAX).bind(PAGE).fetch_all(c))
            })
            .await?;
        let is_last = i64::try_from(rows.len()).is_ok_and(|rows| rows < PAGE);
        before = rows.last().map_or(before, |last| (time_of_uuid(last.id), last.id));
        found.extend(rows);
        if is_last || found.len() >= limit {
            return Ok(found);
        }
    }
}

/// Which of these clicks are stored.
pub async fn find_clicks(db: &Db, clicks: Vec<ClickId>) -> Result<Vec<Uuid>, Error> {
    db.read(FIND_CLICKS, move |c| {
        let ids: Vec<Uuid> = clicks.iter().map(|click| click.uuid()).collect();
        let times: Vec<DateTime<Utc>> = clicks.iter().map(|click| click.created_at()).collect();
        Box::pin(FIND_CLICKS.query_scalar().bind(ids).bind(times).fetch_all(c))
    })
    .await
}

/// What the book says last of conversions.
pub async fn list_changes(db: &Db, conversions: Vec<Uuid>) -> Result<Vec<Change>, Error> {
    db.read(LIST_CHANGES, move |c| Box::pin(LIST_CHANGES.query_as().bind(conversions).fetch_all(c))).await
}
