//! Stored out-clicks: read. The drain is who stores them (see `db::ingest`).

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    db::{Db, Error, statement::statements, text::Text},
    facts::{self, Fact as _, table::Sql},
    model::id::ClickId,
};

/// An out-click as it is stored.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct OutClick {
    /// Ours; a UUIDv7, so also its time.
    pub id: Uuid,
    /// The click it belongs to; none of a visitor without one.
    pub click_id: Option<Uuid>,
    /// The campaign; none where the global fallback took the visitor.
    pub campaign_id: Option<Uuid>,
    /// The campaign's key of today.
    pub campaign_key: Option<String>,
    /// The rule of the click, 0 the default one.
    pub rule_id: Option<i64>,
    /// The path whose offers were to choose from.
    pub path_id: Option<i64>,
    /// The landing page of the click.
    pub landing_page_id: Option<i64>,
    /// The offer it was sent to.
    pub offer_id: Option<i64>,
    /// The offer that the link named, by its place in the path from 1.
    pub position: Option<i64>,
    /// Why it went where it went, where that was not the first choice: a `Why` each.
    pub routed: Vec<String>,
    /// What told of the click: a `Carrier`.
    pub carrier: String,
    /// Why there is no click, or not the one that the link named: a `Problem`.
    pub problem: Option<String>,
    /// Whether it counts.
    pub is_valid: bool,
    /// Why it does not count: an `InvalidReason`, or `exit`.
    pub invalid_reason: Option<String>,
    /// Whether the user agent is a known robot's.
    pub is_bot: bool,
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// `desktop`, `mobile`, ...
    pub device: Option<String>,
    /// Operating system.
    pub os: Option<String>,
    /// Browser.
    pub browser: Option<String>,
    /// When it was made: the time in its id.
    pub created_at: DateTime<Utc>,
}

/// An out-click that is not stored yet, as it would be.
impl From<&facts::out_click::OutClick<'_>> for OutClick {
    fn from(out: &facts::out_click::OutClick<'_>) -> Self {
        let text = |t: &Option<std::borrow::Cow<'_, str>>| t.as_deref().map(str::to_owned);
        Self {
            id: out.id,
            click_id: out.click_id.map(ClickId::uuid),
            campaign_id: out.campaign_id,
            campaign_key: None,
            rule_id: out.rule_id,
            path_id: out.path_id,
            landing_page_id: out.landing_page_id,
            offer_id: out.offer_id,
            position: out.position,
            routed: out.routed.iter().map(|why| why.to_string()).collect(),
            carrier: out.carrier.to_string(),
            problem: out.problem.map(|problem| problem.to_string()),
            is_valid: out.is_valid(),
            invalid_reason: out.invalid_reason().map(str::to_owned),
            is_bot: out.is_bot,
            country: text(&out.country),
            device: text(&out.device),
            os: text(&out.os),
            browser: text(&out.browser),
            created_at: out.at(),
        }
    }
}

/// `SELECT` of whole out-clicks, with what follows the join.
const fn select(tail: &str) -> Text<2048> {
    let columns = facts::out_click::OutClick::COLUMNS;
    let mut text = Text::new().and("\n    SELECT\n        c.key AS campaign_key");
    let mut i = 0;
    while i < columns.len() {
        if columns[i].is_stored {
            let name = columns[i].name;
            text = match columns[i].sql {
                Sql::Texts => text.and(",\n        coalesce(o.").and(name).and(", '{}') AS ").and(name),
                _ => text.and(",\n        o.").and(name),
            };
        }
        i += 1;
    }
    text.and("\n    FROM out_clicks o\n    LEFT JOIN campaigns c ON c.id = o.campaign_id").and(tail)
}

statements! {
    LIST = "out_click.list": const { select("
    WHERE (o.created_at, o.id) < ($1, $2)
    ORDER BY o.created_at DESC, o.id DESC
    LIMIT $3") }.as_str();

    LIST_OF_CLICK = "out_click.list_of_click": const { select("
    WHERE o.click_id = $4
      AND o.created_at >= $5
      AND (o.created_at, o.id) < ($1, $2)
    ORDER BY o.created_at DESC, o.id DESC
    LIMIT $3") }.as_str();

    LIST_OF_CLICKS = "out_click.list_of_clicks": const { select("
    WHERE o.click_id = ANY ($1)
    ORDER BY o.created_at, o.id") }.as_str();
}

/// Out-clicks, of one click or of all, newest first, after (older than) the one of `after`, at most `limit`.
pub async fn list(
    db: &Db,
    click_id: Option<ClickId>,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<OutClick>, Error> {
    let (after_time, after_id) = after.unwrap_or((crate::db::FAR_FUTURE, Uuid::max()));
    match click_id {
        Some(click) => {
            let from = super::events::earliest_of(click);
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

/// All out-clicks of these clicks, oldest first, from the primary.
pub async fn list_of_clicks(db: &Db, clicks: Vec<Uuid>) -> Result<Vec<OutClick>, Error> {
    db.maintain(LIST_OF_CLICKS, move |c| Box::pin(LIST_OF_CLICKS.query_as().bind(clicks).fetch_all(c))).await
}
