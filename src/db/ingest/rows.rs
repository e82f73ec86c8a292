//! The rows of a batch. Statements and values come from the tables of the facts: see `facts::table`.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    DeadLetter, Rows, StoreError, Told, bigint, column, conversions,
    copy::{CopyData, copy_in},
    deltas::Deltas,
    out_clicks,
    rollups::{self, Costs, Sources, Stats},
};
use crate::{
    db::{Statement, session::Session, statement::statements, text::Text},
    facts::{Fact, Kind, click::Click, event::Event, out_click::OutClick, table::Column},
};

pub(in crate::db) use super::arrays::arguments;

/// COPY, for few rows too: one that stored 1, 5, 20, 100, 1,000 and 5,000 clicks took 0.86, 0.76, 0.96, 0.95, 0.75 and
/// 0.48 of the time of an INSERT of arrays, over TCP with Nagle's algorithm off, and less CPU. It is no statement that
/// can be prepared; parsing it takes less than storing one row.
const COPY_CLICKS: Statement = Statement::new("clicks.copy_batch", const { copy_text(Kind::Click) }.as_str());

const COPY_OUT_CLICKS: Statement =
    Statement::new("out_clicks.copy_batch", const { copy_text(Kind::OutClick) }.as_str());

const fn copy_text(kind: Kind) -> Text<1024> {
    let text = Text::new().and("COPY ").and(kind.table()).and(" (");
    text.names(kind.columns(), true).and(") FROM STDIN (FORMAT binary)")
}

const INSERT_EVENTS_TEXT: Text<2048> = insert_events_text("\n", "\nRETURNING campaign_id, created_at");

/// Events from arrays of their columns, between what comes before the INSERT and what comes behind it.
///
/// An event belongs to the campaign it named, else to its click's, else to the one whose key it named. Keys are locked
/// in their order: strangers may send the same ids to two nodes the other way round, and no drain is to wait for a drain
/// that waits for it.
pub(in crate::db) const fn insert_events_text(before: &str, after: &str) -> Text<2048> {
    Text::new()
        .and("\nWITH incoming AS (\n    SELECT * FROM unnest(")
        .arrays(Event::COLUMNS)
        .and(") AS t (")
        .names(Event::COLUMNS, false)
        .and(
            ")
), fresh AS (
    INSERT INTO event_keys (id, created_at)
    SELECT key, created_at FROM incoming WHERE key IS NOT NULL ORDER BY key
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)",
        )
        .and(before)
        .and("INSERT INTO events (campaign_id, ")
        .names(Event::COLUMNS, true)
        .and(")\nSELECT coalesce(t.named_campaign_id, c.campaign_id, k.id), ")
        .stored_values(Event::COLUMNS)
        .and(
            "
FROM incoming t
LEFT JOIN LATERAL (
    SELECT campaign_id FROM clicks WHERE created_at = t.click_time AND id = t.click_id LIMIT 1
) c ON true
LEFT JOIN LATERAL (
    SELECT id FROM campaigns WHERE key = t.cid AND deleted_at IS NULL
) k ON true
WHERE (t.key IS NULL OR t.key IN (SELECT id FROM fresh))",
        )
        .and(after)
}

const FIND_STORED_TEXT: Text<1024> = find_stored_text();

/// For each kind an array of ids and one of times.
const fn find_stored_text() -> Text<1024> {
    let mut text = Text::new();
    let mut i = 0;
    while i < Kind::ALL.len() {
        text = text
            .and(if i == 0 { "" } else { "\nUNION ALL" })
            .and("\nSELECT t.id\nFROM unnest($")
            .number(2 * i + 1)
            .and("::uuid[], $")
            .number(2 * i + 2)
            .and("::timestamptz[]) AS t (id, created_at)\nCROSS JOIN LATERAL (\n    SELECT 1 FROM ")
            .and(Kind::ALL[i].table())
            .and(" s WHERE s.created_at = t.created_at AND s.id = t.id LIMIT 1\n) found");
        i += 1;
    }
    text
}

statements! {
    CHECK_CONSTRAINTS = "dead_letter.check": "SET CONSTRAINTS ALL IMMEDIATE";

    // Row by row by the primary key: LIMIT keeps the planner from reading whole tables instead.
    FIND_STORED = "ingest.find_stored": FIND_STORED_TEXT.as_str();

    INSERT_EVENTS = "events.insert_batch": INSERT_EVENTS_TEXT.as_str();

    // A letter may be there already: where the watermark was set back by hand, records are sent again.
    INSERT_DEAD_LETTERS = "dead_letters.insert_batch": "
INSERT INTO dead_letters (stream, seq, record, sqlstate, message)
SELECT $1, * FROM unnest($2::int8[], $3::bytea[], $4::text[], $5::text[])
ON CONFLICT (stream, seq) DO UPDATE SET
    record = excluded.record,
    sqlstate = excluded.sqlstate,
    message = excluded.message";
}

/// The ids of those rows that are stored already.
pub(super) async fn find_stored(c: &mut Session<'_>, rows: &Rows<'_>) -> Result<HashSet<Uuid>, StoreError> {
    let mut find = FIND_STORED.query_scalar();
    for kind in Kind::ALL {
        let facts: Vec<&dyn Fact> = rows.facts().filter(|fact| fact.kind() == kind).collect();
        find = find.bind(column(&facts, |fact| fact.id())).bind(column(&facts, |fact| fact.at()));
    }
    let found: Vec<Uuid> = find.fetch_all(c).await?;
    Ok(found.into_iter().collect())
}

/// Inserts the facts and adds them to the roll-ups, within the caller's transaction.
pub(super) async fn insert(c: &mut Session<'_>, rows: &Rows<'_>) -> Result<Told, StoreError> {
    let Rows { clicks, events, out_clicks, postbacks, .. } = rows;
    let (mut stats, mut costs, mut sources) = (Stats::default(), Costs::default(), Sources::default());
    if !clicks.is_empty() {
        c.run(COPY_CLICKS, async |c| copy(c, COPY_CLICKS, Click::COLUMNS, clicks).await).await?;
        Deltas::of(clicks).store(c).await?;
    }
    for click in clicks {
        stats.add_click(click);
        costs.add_click(click);
        sources.add_click(click);
    }
    if !events.is_empty() {
        insert_events(c, events, &mut stats).await?;
    }
    if !out_clicks.is_empty() {
        let columns = OutClick::COLUMNS;
        c.run(COPY_OUT_CLICKS, async |c| copy(c, COPY_OUT_CLICKS, columns, out_clicks).await).await?;
        for counted in out_clicks::count(c, out_clicks).await? {
            stats.add_lander_click(counted);
        }
    }
    let told = conversions::store(c, clicks, out_clicks, postbacks).await?;
    let hours = stats.into_hours();
    if !hours.is_empty() {
        rollups::upsert_stats(c, &hours).await?;
    }
    rollups::upsert_costs(c, &costs).await?;
    rollups::upsert_sources(c, &sources).await?;
    Ok(told)
}

/// [`insert`], with what constraints would say at the transaction's commit.
pub(in crate::db) async fn insert_checked(c: &mut Session<'_>, rows: &Rows<'_>) -> Result<(), StoreError> {
    drop(insert(c, rows).await?);
    CHECK_CONSTRAINTS.query().execute(c).await?;
    Ok(())
}

async fn copy<F: Fact>(
    c: &mut PgConnection,
    statement: Statement,
    columns: &[Column],
    facts: &[&F],
) -> sqlx::Result<()> {
    let rows = facts.iter();
    copy_in(c, statement, CopyData::new(columns, 0), rows, |data, fact| data.row(*fact)).await
}

async fn insert_events(c: &mut Session<'_>, events: &[&Event<'_>], stats: &mut Stats) -> sqlx::Result<()> {
    let mut seen = HashSet::new();
    let events: Vec<&Event<'_>> =
        events.iter().copied().filter(|e| e.key().is_none_or(|key| seen.insert(key))).collect();
    let insert = INSERT_EVENTS.query_as_with(arguments(Event::COLUMNS, &events)?);
    let stored: Vec<(Option<Uuid>, DateTime<Utc>)> = insert.fetch_all(c).await?;
    for (campaign_id, created_at) in stored {
        if let Some(campaign_id) = campaign_id {
            stats.add_event(campaign_id, created_at);
        }
    }
    Ok(())
}

pub(super) async fn insert_dead_letters(
    c: &mut Session<'_>,
    stream: Uuid,
    letters: &[DeadLetter<'_>],
) -> sqlx::Result<()> {
    INSERT_DEAD_LETTERS
        .query()
        .bind(stream)
        .bind(column(letters, |l| bigint(l.seq)))
        .bind(column(letters, |l| l.record))
        .bind(column(letters, |l| l.sqlstate.as_str()))
        .bind(column(letters, |l| l.message.as_str()))
        .execute(c)
        .await?;
    Ok(())
}
