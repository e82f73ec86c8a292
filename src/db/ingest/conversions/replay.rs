//! Postbacks read once more under the words and names of now, and what that changes; or what it would.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Told, derive_clicks};
use crate::{
    db::{
        Db, Error,
        ingest::{column, deliveries},
        session::Session,
        statement::statements,
        store::affiliate_networks,
    },
    model::{
        conversion::Status,
        id::{ClickId, Leg, time_of_uuid},
        network::PostbackRules,
    },
    money::reading,
};

/// Postbacks in one transaction.
const CHUNK: i64 = 1000;

statements! {
    LIST = "postback.list_to_replay": "
SELECT
    id,
    click_id,
    key_network_id,
    params,
    created_at
FROM postbacks
WHERE created_at >= $1
  AND created_at < $2
  AND (created_at, id) > ($3, $4)
  AND ($5::bigint IS NULL OR network_id = $5 OR key_network_id = $5)
  AND refusal IS NULL
ORDER BY created_at, id
LIMIT $6";

    FIND_CLICKS = "postback.find_clicks": "
UPDATE postbacks p
SET click_id = t.click_id,
    leg_offer_id = t.leg_offer_id
FROM unnest($1::timestamptz[], $2::uuid[], $3::uuid[], $4::int8[]) AS t (created_at, id, click_id, leg_offer_id)
WHERE p.created_at = t.created_at
  AND p.id = t.id";
}

/// Which postbacks are read again.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Of this network only.
    pub network_id: Option<i64>,
    /// That came at this time or later,
    pub from: DateTime<Utc>,
    /// and before this one.
    pub to: DateTime<Utc>,
    /// Behind this one, where an earlier call ended.
    pub after: Option<(DateTime<Utc>, Uuid)>,
    /// At most so many.
    pub limit: usize,
    /// Whether nothing is to be changed.
    pub is_dry_run: bool,
    /// Whether targets of postbacks are told of what changes.
    pub is_sent: bool,
}

/// What a replay changed, or would change.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Postbacks that were read.
    pub postbacks: usize,
    /// Those with another outcome than before.
    pub judged_anew: usize,
    /// Those whose click is known only now.
    pub clicks_found: usize,
    /// What changes of each conversion, in the order of their clicks.
    pub differences: Vec<Difference>,
    /// Where the next call begins; `None`: there is nothing more.
    pub next: Option<(DateTime<Utc>, Uuid)>,
    /// To be counted.
    pub told: Told,
}

/// What changes of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its id.
    pub conversion_id: Uuid,
    /// Its click.
    pub click_id: Uuid,
    /// Its state before; `None`: it is new.
    pub from: Option<Status>,
    /// Its state after.
    pub to: Status,
    /// By how much its payout changes.
    pub payout: Decimal,
    /// By how much the revenue does.
    pub revenue: Decimal,
    /// In this currency.
    pub currency: String,
}

#[derive(Debug, FromRow)]
struct Row {
    id: Uuid,
    click_id: Option<Uuid>,
    key_network_id: Option<i64>,
    params: String,
    created_at: DateTime<Utc>,
}

/// Derives the conversions of these postbacks' clicks again. A dry run does the same and takes it back.
pub async fn replay(db: &Db, replay: Replay) -> Result<Replayed, Error> {
    let mut replayed = Replayed { next: replay.after, ..Replayed::default() };
    loop {
        let left = replay.limit.saturating_sub(replayed.postbacks);
        if left == 0 {
            return Ok(replayed);
        }
        let limit = CHUNK.min(i64::try_from(left).unwrap_or(CHUNK));
        let (asked, after) = (replay.clone(), replayed.next);
        let chunk = db
            .maintain(LIST, move |c| {
                Box::pin(async move {
                    let mut transaction = c.begin().await?;
                    let chunk = replay_chunk(&mut transaction, &asked, after, limit).await?;
                    if asked.is_dry_run {
                        transaction.rollback().await?;
                    } else {
                        transaction.commit().await?;
                    }
                    Ok(chunk)
                })
            })
            .await?;
        let is_last = i64::try_from(chunk.postbacks).unwrap_or(0) < limit;
        replayed.add(chunk);
        if is_last {
            replayed.next = None;
            return Ok(replayed);
        }
    }
}

impl Replayed {
    fn add(&mut self, chunk: Self) {
        self.postbacks += chunk.postbacks;
        self.judged_anew += chunk.judged_anew;
        self.clicks_found += chunk.clicks_found;
        self.differences.extend(chunk.differences);
        self.next = chunk.next.or(self.next);
        self.told.extend(chunk.told);
    }
}

async fn replay_chunk(
    c: &mut Session<'_>,
    asked: &Replay,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> sqlx::Result<Replayed> {
    let (after_time, after_id) = after.unwrap_or((DateTime::UNIX_EPOCH, Uuid::nil()));
    let list = LIST.query_as().bind(asked.from).bind(asked.to).bind(after_time).bind(after_id);
    let rows: Vec<Row> = list.bind(asked.network_id).bind(limit).fetch_all(c).await?;
    let found = find_clicks(c, &rows).await?;
    let known = rows.iter().filter_map(|row| ClickId::from_uuid(row.click_id?));
    let clicks = known.chain(found.iter().map(|(_, leg)| leg.click_id)).collect();
    let outcomes = derive_clicks(c, clicks, &[]).await?;
    if asked.is_sent {
        deliveries::enqueue(c, &outcomes.told.changes).await?;
    }
    let difference = |row: &super::BookRow| Difference {
        conversion_id: row.conversion_id,
        click_id: row.click_id,
        from: row.from_status,
        to: row.to_status,
        payout: row.payout,
        revenue: row.revenue,
        currency: row.currency.clone(),
    };
    Ok(Replayed {
        postbacks: rows.len(),
        judged_anew: outcomes.judged_anew,
        clicks_found: found.len(),
        differences: outcomes.book.iter().map(difference).collect(),
        next: rows.last().map(|row| (row.created_at, row.id)),
        told: outcomes.told,
    })
}

/// Postbacks that named no click when they came, and do under the names of now; they are noted as of these clicks.
async fn find_clicks<'r>(c: &mut Session<'_>, rows: &'r [Row]) -> sqlx::Result<Vec<(&'r Row, Leg)>> {
    let networks: Vec<i64> = rows.iter().filter_map(|row| row.key_network_id).collect();
    let without = || rows.iter().filter(|row| row.click_id.is_none());
    if networks.is_empty() && without().next().is_none() {
        return Ok(Vec::new());
    }
    let rules = affiliate_networks::rules_on(c, networks).await?;
    let none = PostbackRules::default();
    let leg_of = |row: &Row| {
        let rules = row.key_network_id.and_then(|id| rules.get(&id)).unwrap_or(&none);
        reading::read(&row.params, rules, time_of_uuid(row.id)).leg.ok()
    };
    let found: Vec<(&Row, Leg)> = without().filter_map(|row| Some((row, leg_of(row)?))).collect();
    if !found.is_empty() {
        FIND_CLICKS
            .query()
            .bind(column(&found, |(row, _)| row.created_at))
            .bind(column(&found, |(row, _)| row.id))
            .bind(column(&found, |(_, leg)| leg.click_id.uuid()))
            .bind(column(&found, |(_, leg)| leg.offer_id))
            .execute(c)
            .await?;
    }
    Ok(found)
}
