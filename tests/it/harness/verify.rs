//! The verifier: what the visitors were told, against what PostgreSQL holds, in one snapshot.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{
    Octo, eventually,
    tracker::assert_roll_ups_agree,
    visitors::{CAMPAIGNS, Click, Trail},
};

/// What became of the clicks; nothing that must not be: that fails the test.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) acked: usize,
    pub(crate) stored: usize,
    /// Clicks whose visitor was told that they are not recorded, and that are not: a late disk may record one yet.
    pub(crate) unrecorded: usize,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked, stored, unrecorded } = self;
        write!(f, "acked {acked}, stored {stored}, counted as unrecorded {unrecorded}, lost 0, twice 0")
    }
}

/// Waits until the journal is in the database, to its last record, and then compares everything with everything.
pub(crate) async fn verify(octo: &Octo, pool: &PgPool, trail: &Trail) -> Verdict {
    wait_drained(octo, pool).await;
    let mut snapshot = pool.begin().await.unwrap();
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .execute(&mut *snapshot)
        .await
        .unwrap();
    let rows = stored(&mut snapshot).await;
    let by_tag: HashMap<&str, &Row> = rows.iter().map(|row| (row.tag.as_str(), row)).collect();
    let acked = trail.acked();
    assert_each_once(&rows, &by_tag);
    assert_nothing_is_lost(&acked, &by_tag);
    assert_nothing_is_invented(&rows, trail);
    assert_sums(&mut snapshot, &rows).await;
    assert_roll_ups_agree(&mut *snapshot).await;
    assert_progress(&mut snapshot, rows.len()).await;
    let told = trail.unrecorded();
    let unrecorded = told.keys().filter(|tag| !by_tag.contains_key(tag.as_str())).count();
    Verdict { acked: acked.len(), stored: rows.len(), unrecorded }
}

/// The watermark of every stream on disk is where the stream ends. Reading a journal takes time from the server, so
/// that is done again only when the watermarks are where it ended before.
async fn wait_drained(octo: &Octo, pool: &PgPool) {
    let mut ends = stream_ends(&octo.inspect_journal().await).expect("an undamaged journal");
    eventually(Duration::from_mins(1), async || {
        let streams: Vec<Uuid> = ends.keys().copied().collect();
        let watermarks: Vec<(Uuid, i64)> =
            sqlx::query_as("SELECT stream, seq FROM ingest_watermark WHERE stream = ANY($1)")
                .bind(streams)
                .fetch_all(pool)
                .await?;
        let watermarks: BTreeMap<Uuid, i64> = watermarks.into_iter().collect();
        ensure!(watermarks == ends, "watermarks {watermarks:?}, streams end at {ends:?}");
        ends = stream_ends(&octo.inspect_journal().await)?;
        ensure!(watermarks == ends, "the journal grows: watermarks {watermarks:?}, streams end at {ends:?}");
        Ok(())
    })
    .await;
}

/// Where each stream ends, provided that its segments follow each other without a gap.
fn stream_ends(journal: &Value) -> Result<BTreeMap<Uuid, i64>> {
    ensure!(journal["damaged_records"] == 0, "the journal is damaged: {journal}");
    let mut ends = BTreeMap::new();
    for stream in journal["streams"].as_array().into_iter().flatten() {
        let id = stream["id"].as_str().unwrap_or_default().parse()?;
        let segments = stream["segments"].as_array().map(Vec::as_slice).unwrap_or_default();
        for pair in segments.windows(2) {
            ensure!(pair[0]["end_seq"] == pair[1]["first_seq"], "a gap between segments: {stream}");
        }
        let end = segments.last().and_then(|segment| segment["end_seq"].as_i64());
        ends.extend(end.map(|end| (id, end)));
    }
    Ok(ends)
}

/// A stored click, as far as it was chosen by its sender.
#[derive(Debug, PartialEq, sqlx::FromRow)]
struct Row {
    id: Uuid,
    tag: String,
    campaign: String,
    cents: i64,
    is_bot: bool,
    is_valid: bool,
}

async fn stored(snapshot: &mut PgConnection) -> Vec<Row> {
    let query = sqlx::query_as(
        "
        SELECT c.id, coalesce(c.sub1, '') AS tag, coalesce(k.key, '') AS campaign,
               coalesce(c.cost * 100, -1)::bigint AS cents, c.is_bot, c.is_valid
        FROM clicks c
        LEFT JOIN campaigns k ON k.id = c.campaign_id",
    );
    query.fetch_all(snapshot).await.unwrap()
}

fn assert_each_once(rows: &[Row], by_tag: &HashMap<&str, &Row>) {
    let ids: HashSet<Uuid> = rows.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), rows.len(), "ids stored once, and rows");
    assert_eq!(by_tag.len(), rows.len(), "tags stored once, and rows");
}

fn assert_nothing_is_lost(acked: &HashMap<String, Uuid>, by_tag: &HashMap<&str, &Row>) {
    let lost: Vec<_> = acked.iter().filter(|(tag, _)| !by_tag.contains_key(tag.as_str())).collect();
    assert!(lost.is_empty(), "{} of {} answered clicks are lost: {:?}", lost.len(), acked.len(), few(&lost));
    let other: Vec<_> = acked.iter().filter(|(tag, id)| by_tag[tag.as_str()].id != **id).collect();
    assert!(other.is_empty(), "{} clicks have another id than was answered: {:?}", other.len(), few(&other));
}

/// Every row is a click that was sent, and says what that click said.
fn assert_nothing_is_invented(rows: &[Row], trail: &Trail) {
    let sent = trail.sent();
    let strange: Vec<_> = rows.iter().filter(|row| !sent.contains(&row.tag) || !is_as_sent(row)).collect();
    assert!(strange.is_empty(), "{} rows are not what was sent: {:?}", strange.len(), few(&strange));
}

fn is_as_sent(row: &Row) -> bool {
    let Some(click) = Click::of_tag(&row.tag) else { return false };
    let asked = (click.campaign(), click.cents(), click.is_bot(), !click.is_bot());
    (row.campaign.as_str(), row.cents, row.is_bot, row.is_valid) == asked
}

fn few<T>(all: &[T]) -> &[T] {
    &all[..all.len().min(10)]
}

/// Clicks, bots and cents of each campaign, as the reports give them, are those of the clicks that were sent.
async fn assert_sums(snapshot: &mut PgConnection, rows: &[Row]) {
    for campaign in CAMPAIGNS {
        let reported: (i64, i64, i64) = sqlx::query_as(
            "
            SELECT coalesce(sum(s.clicks), 0)::bigint, coalesce(sum(s.bot_clicks), 0)::bigint,
                   (SELECT coalesce(sum(cost) * 100, 0)::bigint FROM clicks WHERE campaign_id = k.id)
            FROM campaigns k
            LEFT JOIN campaign_stats_hourly s ON s.campaign_id = k.id
            WHERE k.key = $1
            GROUP BY k.id",
        )
        .bind(campaign)
        .fetch_one(&mut *snapshot)
        .await
        .unwrap();
        let clicks: Vec<Click> = rows
            .iter()
            .filter_map(|row| Click::of_tag(&row.tag))
            .filter(|c| c.campaign() == campaign)
            .collect();
        let count = |n: usize| i64::try_from(n).expect("few");
        let bots = count(clicks.iter().filter(|click| click.is_bot()).count());
        let expected = (count(clicks.len()), bots, clicks.iter().map(|click| click.cents()).sum());
        assert_eq!(reported, expected, "clicks, bots and cents of {campaign}");
    }
}

/// Every record that a watermark passed is a row; none is a dead letter.
async fn assert_progress(snapshot: &mut PgConnection, rows: usize) {
    let (passed, events, dead_letters): (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT coalesce(sum(seq), 0)::bigint FROM ingest_watermark), (SELECT count(*) FROM events), (SELECT count(*) FROM dead_letters)",
    )
    .fetch_one(snapshot)
    .await
    .unwrap();
    assert_eq!(dead_letters, 0, "dead letters");
    assert_eq!(usize::try_from(passed - events).unwrap(), rows, "records the watermarks passed, and rows");
}
