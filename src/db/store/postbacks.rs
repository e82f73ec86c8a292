//! Postbacks as they came: read. The drain is who stores them, and derives conversions from them (see `db::ingest`).

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::affiliate_networks;
use crate::{
    db::{Db, Error, statement::statements},
    facts::{self, Fact as _},
    model::{conversion::Outcome, id::ClickId, network::PostbackRules},
    money::reading::kept,
};

/// Rows cut in one transaction at most: as many as 16 MiB hold of the biggest postbacks.
const CUT_ROWS_MAX: i64 = 1000;

/// A postback as it is stored.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct Postback {
    /// Ours; a UUIDv7, so also when it came.
    pub id: Uuid,
    /// The network whose words were read.
    pub network_id: Option<i64>,
    /// How it came: a `Channel`.
    pub channel: String,
    /// Where it came from.
    pub ip_address: Option<String>,
    /// The click it tells of.
    pub click_id: Option<Uuid>,
    /// The offer of the click that it names.
    pub leg_offer_id: Option<i64>,
    /// What it said.
    pub params: String,
    /// What became of it: an `Outcome`.
    pub outcome: String,
    /// What is particular about that: an `OutcomeReason`.
    pub reason: Option<String>,
    /// The conversion that it tells of.
    pub conversion_id: Option<Uuid>,
    /// When it came.
    pub created_at: DateTime<Utc>,
}

/// A postback that is not stored yet, as it would be.
impl From<&facts::postback::Postback<'_>> for Postback {
    fn from(postback: &facts::postback::Postback<'_>) -> Self {
        Self {
            id: postback.id,
            network_id: postback.network_id,
            channel: postback.channel.to_string(),
            ip_address: postback.ip.map(|ip| ip.to_string()),
            click_id: postback.click_id.map(ClickId::uuid),
            leg_offer_id: postback.offer_id,
            params: postback.params.clone().into_owned(),
            outcome: postback.refusal.map_or(Outcome::Waiting, |_| Outcome::Refused).to_string(),
            reason: postback.refusal.map(|refusal| refusal.to_string()),
            conversion_id: None,
            created_at: postback.at(),
        }
    }
}

/// Which postbacks are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this network.
    pub network_id: Option<i64>,
    /// With this outcome.
    pub outcome: Option<String>,
    /// With this reason.
    pub reason: Option<String>,
    /// Of this click.
    pub click_id: Option<ClickId>,
    /// That came at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// That came before this time.
    pub to: Option<DateTime<Utc>>,
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "
    SELECT
        id,
        coalesce(network_id, key_network_id) AS network_id,
        channel,
        host(ip_address) AS ip_address,
        click_id,
        leg_offer_id,
        params,
        outcome,
        reason,
        conversion_id,
        created_at
    FROM postbacks",
            $tail
        )
    };
}

statements! {
    LIST = "postback.list": select!("
    WHERE (created_at, id) < ($1, $2)
      AND created_at >= $3
      AND created_at < $4
      AND ($5::bigint IS NULL OR coalesce(network_id, key_network_id) = $5)
      AND ($6::text IS NULL OR outcome = $6)
      AND ($7::text IS NULL OR reason = $7)
    ORDER BY created_at DESC, id DESC
    LIMIT $8");

    LIST_OF_CLICK = "postback.list_of_click": select!("
    WHERE click_id = $1
    ORDER BY created_at, id
    LIMIT $2");

    LIST_OF_CLICKS = "postback.list_of_clicks": select!("
    WHERE click_id = ANY ($1)
    ORDER BY created_at, id");

    GET = "postback.get": select!("
    WHERE created_at = $1
      AND id = $2");

    // Nobody waits for a row that the drain holds at this moment: its turn comes.
    LIST_UNCUT = "postback.list_uncut": "
    SELECT
        created_at,
        id,
        coalesce(network_id, key_network_id) AS network_id,
        params
    FROM postbacks
    WHERE NOT is_cut
      AND created_at < now() - $1::integer * interval '1 day'
    ORDER BY created_at, id
    LIMIT $2
    FOR UPDATE SKIP LOCKED";

    CUT = "postback.cut": "
    UPDATE postbacks p
    SET params = t.params,
        is_cut = true
    FROM unnest($1::timestamptz[], $2::uuid[], $3::text[]) AS t (created_at, id, params)
    WHERE p.created_at = t.created_at
      AND p.id = t.id";
}

/// A postback that may hold more than is read from it.
#[derive(FromRow)]
struct Uncut {
    created_at: DateTime<Utc>,
    id: Uuid,
    network_id: Option<i64>,
    params: String,
}

/// Postbacks, newest first, after (older than) the one of `after`, at most `limit`.
pub async fn list(
    db: &Db,
    filter: Filter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Postback>, Error> {
    if let Some(click_id) = filter.click_id {
        return list_of_click(db, click_id, limit).await;
    }
    let (after_time, after_id) = after.unwrap_or((crate::db::FAR_FUTURE, Uuid::max()));
    let from = filter.from.unwrap_or(DateTime::UNIX_EPOCH);
    let to = filter.to.unwrap_or(crate::db::FAR_FUTURE);
    db.read(LIST, move |c| {
        let list = LIST.query_as().bind(after_time).bind(after_id).bind(from).bind(to);
        let list = list.bind(filter.network_id).bind(filter.outcome).bind(filter.reason);
        Box::pin(list.bind(limit).fetch_all(c))
    })
    .await
}

/// The postbacks of a click, oldest first, at most `limit`.
pub async fn list_of_click(db: &Db, click_id: ClickId, limit: i64) -> Result<Vec<Postback>, Error> {
    db.read(LIST_OF_CLICK, move |c| {
        Box::pin(LIST_OF_CLICK.query_as().bind(click_id.uuid()).bind(limit).fetch_all(c))
    })
    .await
}

/// All postbacks of these clicks, oldest first, from the primary.
pub async fn list_of_clicks(db: &Db, clicks: Vec<Uuid>) -> Result<Vec<Postback>, Error> {
    db.maintain(LIST_OF_CLICKS, move |c| Box::pin(LIST_OF_CLICKS.query_as().bind(clicks).fetch_all(c))).await
}

/// One postback.
pub async fn get(db: &Db, id: Uuid) -> Result<Option<Postback>, Error> {
    let at = crate::model::id::time_of_uuid(id);
    db.read(GET, move |c| Box::pin(GET.query_as().bind(at).bind(id).fetch_optional(c))).await
}

/// Removes from postbacks older than so many days the parameters that nothing is read from, by the names that everybody
/// knows and by those of the network; once each. Gives how many there were.
pub(crate) async fn cut_old(db: &Db, keep_days: i32) -> Result<u64, Error> {
    let mut cut = 0;
    loop {
        let rows = db.maintain(CUT, move |c| {
            Box::pin(async move {
                let mut transaction = c.begin().await?;
                let list = LIST_UNCUT.query_as().bind(keep_days).bind(CUT_ROWS_MAX);
                let rows: Vec<Uncut> = list.fetch_all(&mut transaction).await?;
                let networks = rows.iter().filter_map(|row| row.network_id).collect();
                let rules = affiliate_networks::rules_on(&mut transaction, networks).await?;
                let none = PostbackRules::default();
                let rules_of = |row: &Uncut| row.network_id.and_then(|id| rules.get(&id)).unwrap_or(&none);
                let params: Vec<String> =
                    rows.iter().map(|row| kept::cut(&row.params, rules_of(row))).collect();
                let cut = CUT
                    .query()
                    .bind(rows.iter().map(|row| row.created_at).collect::<Vec<_>>())
                    .bind(rows.iter().map(|row| row.id).collect::<Vec<_>>())
                    .bind(params);
                cut.execute(&mut transaction).await?;
                transaction.commit().await?;
                Ok(rows.len() as u64)
            })
        });
        let rows = rows.await?;
        cut += rows;
        if rows < CUT_ROWS_MAX.unsigned_abs() {
            return Ok(cut);
        }
    }
}
