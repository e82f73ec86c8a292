//! Stored events: read, and stored one at a time. The drain stores those of the journal (see `db::ingest`).

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::value::{RawValue, to_raw_value};
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use crate::{
    db::{
        Db, Error,
        ingest::rows::{arguments, insert_events_text},
        monitor::classify,
        statement::statements,
        text::Text,
    },
    facts::{self, erasure::Sub, table::Sql},
    model::id::ClickId,
};

/// How much earlier than its click an event may be: clocks of nodes differ.
const CLOCKS_DIFFER_BY: TimeDelta = TimeDelta::hours(1);

/// An event as it is stored.
#[derive(Debug, Clone, FromRow)]
pub struct Event {
    /// The sender's, or ours.
    pub id: Uuid,
    /// The click it belongs to.
    pub click_id: Option<Uuid>,
    /// The campaign it belongs to.
    pub campaign_id: Option<Uuid>,
    /// The campaign's key of today.
    pub campaign_key: Option<String>,
    /// What happened.
    pub event_type: String,
    /// For people.
    pub event_name: Option<String>,
    /// What the sender told, as PostgreSQL wrote it: its numbers may be longer than ours.
    pub properties: Option<Json<Box<RawValue>>>,
    /// The page.
    pub url: Option<String>,
    /// What led to the page.
    pub referrer: Option<String>,
    /// The sender's session.
    pub session_id: Option<String>,
    /// The sender's user.
    pub user_id: Option<String>,
    /// Who told of it: `public`, or the id of the token; nothing where it was stored before that was noted.
    pub source: Option<String>,
    /// The sender's own id, where it is no UUID; at most 128 characters of it.
    pub external_id: Option<String>,
    /// When it happened, as the sender says.
    pub occurred_at: Option<DateTime<Utc>>,
    /// When it arrived.
    pub created_at: DateTime<Utc>,
}

/// An event that is not stored yet, as it would be; properties that are no JSON are shown as text.
impl From<&facts::event::Event<'_>> for Event {
    fn from(event: &facts::event::Event<'_>) -> Self {
        let text = |t: &Option<std::borrow::Cow<'_, str>>| t.as_deref().map(str::to_owned);
        // as a value: RawValue alone would let half of a surrogate pair pass, which no reader of our answer does
        let is_json = |t: &str| serde_json::from_str::<serde_json::Value>(t).is_ok();
        let raw = |t: &str| {
            if is_json(t) { RawValue::from_string(t.to_owned()).ok() } else { to_raw_value(t).ok() }
        };
        Self {
            id: event.id,
            click_id: event.click_id.map(ClickId::uuid),
            campaign_id: event.campaign_id,
            campaign_key: text(&event.cid),
            event_type: event.event_type.clone().into_owned(),
            event_name: text(&event.event_name),
            properties: event.properties.as_deref().and_then(raw).map(Json),
            url: text(&event.url),
            referrer: text(&event.referrer),
            session_id: text(&event.session_id),
            user_id: text(&event.user_id),
            source: Some(event.source.to_string()),
            external_id: text(&event.external_id),
            occurred_at: event.occurred_at,
            created_at: event.created_at,
        }
    }
}

/// `SELECT` of whole events, with what follows the join.
const fn select(tail: &str) -> Text<2048> {
    let mut text = Text::new().and("\n    SELECT\n        e.campaign_id,\n        c.key AS campaign_key");
    let mut i = 0;
    while i < facts::event::Event::COLUMNS.len() {
        let column = facts::event::Event::COLUMNS[i];
        if column.is_stored {
            let name = if matches!(column.sql, Sql::Jsonb) { "properties" } else { column.name };
            text = text.and(",\n        e.").and(column.name).and(" AS ").and(name);
        }
        i += 1;
    }
    text.and("\n    FROM events e\n    LEFT JOIN campaigns c ON c.id = e.campaign_id").and(tail)
}

/// One event as the drain stores many, with its roll-up.
const INSERT_TEXT: Text<2048> = insert_events_text(
    ", stored AS (\n",
    "
    ON CONFLICT (created_at, id) DO NOTHING
    RETURNING campaign_id, created_at
), counted AS (
    INSERT INTO campaign_stats_hourly AS s (campaign_id, hour, events)
    SELECT campaign_id, date_trunc('hour', created_at, 'UTC'), 1
    FROM stored
    WHERE campaign_id IS NOT NULL
    ON CONFLICT (campaign_id, hour) DO UPDATE
    SET events = s.events + excluded.events
)
SELECT EXISTS (SELECT FROM stored)",
);

statements! {
    LIST = "event.list": const { select("
    WHERE (e.created_at, e.id) < ($1, $2)
    ORDER BY e.created_at DESC, e.id DESC
    LIMIT $3") }.as_str();

    LIST_OF_CLICK = "event.list_of_click": const { select("
    WHERE e.click_id = $4
      AND e.created_at >= $5
      AND (e.created_at, e.id) < ($1, $2)
    ORDER BY e.created_at DESC, e.id DESC
    LIMIT $3") }.as_str();

    LIST_OF_CLICKS = "event.list_of_clicks": const { select("
    WHERE e.click_id = ANY ($1)
    ORDER BY e.created_at, e.id") }.as_str();

    // no index leads there, as for clicks (`erasures.find_clicks`)
    LIST_OF_PERSON = "event.list_of_person": const { select("
    WHERE $2 = CASE $1
        WHEN 'user_id' THEN e.user_id
        WHEN 'session_id' THEN e.session_id
    END
    ORDER BY e.created_at, e.id") }.as_str();

    INSERT = "event.insert": INSERT_TEXT.as_str();
}

/// Events, of one click or of all, newest first, after (older than) the event of `after`, at most `limit`.
pub async fn list(
    db: &Db,
    click_id: Option<ClickId>,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Event>, Error> {
    let (after_time, after_id) = after.unwrap_or((crate::db::FAR_FUTURE, Uuid::max()));
    match click_id {
        Some(click) => {
            let from = earliest_of(click);
            db.read(LIST_OF_CLICK, move |c| {
                let query = LIST_OF_CLICK.query_as().bind(after_time).bind(after_id).bind(limit);
                Box::pin(query.bind(click.uuid()).bind(from).fetch_all(c))
            })
            .await
        }
        None => {
            db.read(LIST, move |c| {
                Box::pin(LIST.query_as().bind(after_time).bind(after_id).bind(limit).fetch_all(c))
            })
            .await
        }
    }
}

/// Before this time nothing can have followed a click.
pub(super) fn earliest_of(click: ClickId) -> DateTime<Utc> {
    // a click of the future has its time from a clock that was wrong, and its events from one that may not be
    let is_of_the_future = click.created_at() > Utc::now();
    if is_of_the_future { DateTime::UNIX_EPOCH } else { click.created_at() - CLOCKS_DIFFER_BY }
}

/// Stores an event and counts it in its roll-up, in one statement; `false` when one of the same source with the
/// sender's id is stored already. Whoever comes second with an id waits for the first.
pub async fn insert(db: &Db, event: &facts::event::Event<'_>) -> Result<bool, Error> {
    let arguments =
        arguments(facts::event::Event::COLUMNS, &[event]).map_err(|e| classify(INSERT.name(), e))?;
    let query = INSERT.query_as_with::<(bool,)>(arguments);
    let (is_stored,) = db.write(INSERT, move |c| Box::pin(query.fetch_one(c))).await?;
    Ok(is_stored)
}

/// All events of these clicks, oldest first, from the primary.
pub async fn list_of_clicks(db: &Db, clicks: Vec<Uuid>) -> Result<Vec<Event>, Error> {
    db.maintain(LIST_OF_CLICKS, move |c| Box::pin(LIST_OF_CLICKS.query_as().bind(clicks).fetch_all(c))).await
}

/// All events that name this user or session, oldest first, from the primary.
pub async fn list_of_person(db: &Db, sub: Sub) -> Result<Vec<Event>, Error> {
    db.maintain(LIST_OF_PERSON, move |c| {
        Box::pin(LIST_OF_PERSON.query_as().bind(sub.name).bind(sub.value).fetch_all(c))
    })
    .await
}
