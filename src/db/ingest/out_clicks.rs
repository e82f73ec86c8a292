//! Which clicks have an out-click: each of them once, whichever node stores what first.
//!
//! `out_click_keys` has a row for each click of which an out-click that counts is stored; who inserts it stored the first.
//! If the click itself is stored by then (this batch's are), it is counted at once, in the hour of the click. If not,
//! its node is behind: the row waits, and a later batch counts it. So no click is counted twice, and none that does not
//! stand in `lander_views`: the rate of a landing page never exceeds 100 %.
//!
//! `out_click_legs` is the same for each offer that a click went to. What is counted of both is added to the sums of reports,
//! with what the click is told apart by there.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::column;
use crate::{
    db::{Db, Error, session::Session, statement::statements},
    facts::out_click::OutClick,
    model::id::ClickId,
};

/// Days that a key waits for its click: journals are drained within minutes, and one that was away for long within days.
const WAIT_DAYS: i32 = 7;

/// Keys counted in one transaction at most.
const WAITING_MAX: i64 = 5000;

/// What is added to the sums of reports of clicks `c`, each with one `offer_id` and what it counts.
macro_rules! add_deltas {
    ($measure:literal, $offer:literal, $from:literal) => {
        concat!(
            "
INSERT INTO report_deltas (
    hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser, reason, currency, ",
            $measure,
            "
)
SELECT
    date_trunc('hour', c.created_at, 'UTC'),
    c.campaign_id,
    c.source_id,
    c.rule_id,
    c.path_id,
    c.landing_page_id,
    ",
            $offer,
            ",
    c.country,
    c.device,
    c.os,
    c.browser,
    c.invalid_reason,
    CASE WHEN c.cost IS NOT NULL THEN coalesce(c.currency, 'XXX') END,
    count(*)
",
            $from,
            "
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13"
        )
    };
}

statements! {
    // Keys in their order: two nodes may have the same ones, and neither is to wait for the other that waits for it.
    INSERT_KEYS = "out_clicks.insert_keys": "
INSERT INTO out_click_keys (click_id, created_at, is_counted)
SELECT t.click_id, t.created_at, found.id IS NOT NULL
FROM unnest($1::uuid[], $2::timestamptz[]) AS t (click_id, created_at)
LEFT JOIN LATERAL (
    SELECT id
    FROM clicks
    WHERE created_at = t.created_at
      AND id = t.click_id
      AND is_valid
      AND landing_page_id IS NOT NULL
    LIMIT 1
) found ON true
ORDER BY t.click_id
ON CONFLICT (click_id) DO NOTHING
RETURNING click_id, is_counted";

    // Who else counts the same key waits here, and then finds it counted.
    COUNT_WAITING = "out_clicks.count_waiting": "
WITH waiting AS (
    SELECT k.click_id, c.campaign_id, c.created_at
    FROM out_click_keys k
    CROSS JOIN LATERAL (
        SELECT campaign_id, created_at
        FROM clicks
        WHERE created_at = k.created_at
          AND id = k.click_id
          AND is_valid
          AND landing_page_id IS NOT NULL
        LIMIT 1
    ) c
    WHERE NOT k.is_counted
      AND k.created_at > now() - $1::integer * interval '1 day'
    ORDER BY k.click_id
    LIMIT $2
    FOR UPDATE OF k SKIP LOCKED
)
UPDATE out_click_keys k
SET is_counted = true
FROM waiting
WHERE k.click_id = waiting.click_id
RETURNING k.click_id, waiting.campaign_id, waiting.created_at";

    INSERT_LEGS = "out_clicks.insert_legs": concat!("
WITH fresh AS (
    INSERT INTO out_click_legs (click_id, offer_id, created_at, is_counted)
    SELECT t.click_id, t.offer_id, t.created_at, found.id IS NOT NULL
    FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[]) AS t (click_id, offer_id, created_at)
    LEFT JOIN LATERAL (
        SELECT id
        FROM clicks
        WHERE created_at = t.created_at
          AND id = t.click_id
          AND is_valid
        LIMIT 1
    ) found ON true
    ORDER BY t.click_id, t.offer_id
    ON CONFLICT (click_id, offer_id) DO NOTHING
    RETURNING click_id, offer_id, created_at, is_counted
)", add_deltas!("offer_clicks", "l.offer_id", "
FROM fresh l
CROSS JOIN LATERAL (
    SELECT *
    FROM clicks
    WHERE created_at = l.created_at
      AND id = l.click_id
    LIMIT 1
) c
WHERE l.is_counted"));

    COUNT_WAITING_LEGS = "out_clicks.count_waiting_legs": concat!("
WITH waiting AS (
    SELECT k.click_id, k.offer_id
    FROM out_click_legs k
    CROSS JOIN LATERAL (
        SELECT id
        FROM clicks
        WHERE created_at = k.created_at
          AND id = k.click_id
          AND is_valid
        LIMIT 1
    ) c
    WHERE NOT k.is_counted
      AND k.created_at > now() - $1::integer * interval '1 day'
    ORDER BY k.click_id, k.offer_id
    LIMIT $2
    FOR UPDATE OF k SKIP LOCKED
), fresh AS (
    UPDATE out_click_legs k
    SET is_counted = true
    FROM waiting
    WHERE k.click_id = waiting.click_id
      AND k.offer_id = waiting.offer_id
    RETURNING k.click_id, k.offer_id, k.created_at
)", add_deltas!("offer_clicks", "l.offer_id", "
FROM fresh l
CROSS JOIN LATERAL (
    SELECT *
    FROM clicks
    WHERE created_at = l.created_at
      AND id = l.click_id
    LIMIT 1
) c"));

    ADD_LANDER_CLICKS = "report_deltas.add_lander_clicks": add_deltas!("lander_clicks", "c.campaign_offer_id", "
FROM unnest($1::uuid[], $2::timestamptz[]) AS t (click_id, created_at)
CROSS JOIN LATERAL (
    SELECT *
    FROM clicks
    WHERE created_at = t.created_at
      AND id = t.click_id
    LIMIT 1
) c");
}

/// A click that is counted now: it has an out-click, and is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(super) struct Counted {
    click_id: Uuid,
    /// Its campaign.
    pub(super) campaign_id: Uuid,
    /// Its time.
    pub(super) created_at: DateTime<Utc>,
}

/// Notes the clicks of out-clicks that count, and gives those to be counted: theirs, and of earlier batches those whose
/// click has come since.
pub(super) async fn count(c: &mut Session<'_>, out_clicks: &[&OutClick<'_>]) -> sqlx::Result<Vec<Counted>> {
    let key = |out: &&OutClick<'_>| Some((out.counted_click()?, out.campaign_id?));
    let mut keys: Vec<(ClickId, Uuid)> = out_clicks.iter().filter_map(key).collect();
    keys.sort_unstable();
    keys.dedup_by_key(|(click_id, _)| *click_id);
    let mut counted = Vec::new();
    if !keys.is_empty() {
        let insert = INSERT_KEYS
            .query_as()
            .bind(column(&keys, |(click_id, _)| click_id.uuid()))
            .bind(column(&keys, |(click_id, _)| click_id.created_at()));
        let firsts: Vec<(Uuid, bool)> = insert.fetch_all(c).await?;
        for (id, _) in firsts.into_iter().filter(|(_, is_counted)| *is_counted) {
            let found = keys.binary_search_by_key(&id, |(click_id, _)| click_id.uuid());
            counted.extend(found.ok().map(|i| {
                let (click_id, campaign_id) = keys[i];
                Counted { click_id: id, campaign_id, created_at: click_id.created_at() }
            }));
        }
    }
    counted.extend(take_waiting(c).await?);
    add_deltas(c, &counted).await?;
    insert_legs(c, out_clicks).await?;
    Ok(counted)
}

/// Adds clicks that are counted to the sums of reports.
async fn add_deltas(c: &mut Session<'_>, counted: &[Counted]) -> sqlx::Result<()> {
    if counted.is_empty() {
        return Ok(());
    }
    ADD_LANDER_CLICKS
        .query()
        .bind(column(counted, |counted| counted.click_id))
        .bind(column(counted, |counted| counted.created_at))
        .execute(c)
        .await?;
    Ok(())
}

/// Notes the offers that clicks went to, and counts those whose click is stored.
async fn insert_legs(c: &mut Session<'_>, out_clicks: &[&OutClick<'_>]) -> sqlx::Result<()> {
    let leg = |out: &&OutClick<'_>| Some((out.counted_click()?, out.offer_id?));
    let mut legs: Vec<(ClickId, i64)> = out_clicks.iter().filter_map(leg).collect();
    legs.sort_unstable();
    legs.dedup();
    if !legs.is_empty() {
        INSERT_LEGS
            .query()
            .bind(column(&legs, |(click_id, _)| click_id.uuid()))
            .bind(column(&legs, |(_, offer_id)| *offer_id))
            .bind(column(&legs, |(click_id, _)| click_id.created_at()))
            .execute(c)
            .await?;
    }
    COUNT_WAITING_LEGS.query().bind(WAIT_DAYS).bind(WAITING_MAX).execute(c).await?;
    Ok(())
}

async fn take_waiting(c: &mut Session<'_>) -> sqlx::Result<Vec<Counted>> {
    COUNT_WAITING.query_as().bind(WAIT_DAYS).bind(WAITING_MAX).fetch_all(c).await
}

/// Counts what waits where no further out-click comes that would; says how many clicks that were.
pub async fn count_waiting(db: &Db) -> Result<usize, Error> {
    db.maintain(COUNT_WAITING, move |c| {
        Box::pin(async move {
            let mut transaction = c.begin().await?;
            let counted = take_waiting(&mut transaction).await?;
            add_deltas(&mut transaction, &counted).await?;
            insert_legs(&mut transaction, &[]).await?;
            let mut stats = super::rollups::Stats::default();
            for counted in &counted {
                stats.add_lander_click(*counted);
            }
            let hours = stats.into_hours();
            if !hours.is_empty() {
                super::rollups::upsert_stats(&mut transaction, &hours).await?;
            }
            transaction.commit().await?;
            Ok(counted.len())
        })
    })
    .await
}
