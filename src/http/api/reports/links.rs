//! Where the facts of a row are.

use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use serde_json::{Map, Value};
use url::form_urlencoded::Serializer;
use utoipa::ToSchema;

use crate::{
    http::api::manners::answer::ROOT,
    reports::{
        facts::{Cell, Kind, cell},
        figures::Key,
        question::{Dimension, Filter, Match, Question, TimeKind},
    },
};

/// Longest link, in bytes: more than this is no request that everything on the way lets through.
const BYTES_MAX: usize = 6000;

/// Where the facts of a row are: null where it can have none, or the link would be too long.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReportLinks {
    /// Its clicks and out-clicks.
    #[schema(
        example = "/api/v1/reports/facts?kind=clicks&from=2026-11-01T00%3A00%3A00Z&to=2026-12-01T00%3A00%3A00Z"
    )]
    clicks: Option<String>,
    /// Its conversions.
    #[schema(
        example = "/api/v1/reports/facts?kind=conversions&from=2026-11-01T00%3A00%3A00Z&to=2026-12-01T00%3A00%3A00Z"
    )]
    conversions: Option<String>,
    /// What was said of costs in its time, of its campaign where it is of one.
    #[schema(example = "/api/v1/costs?from=2026-11-01T00%3A00%3A00Z&to=2026-12-01T00%3A00%3A00Z")]
    costs: Option<String>,
}

impl ReportLinks {
    /// Of the row with this key.
    pub(super) fn of(question: &Question, key: &Key) -> Self {
        let cell = cell(question, key);
        // a cell that the range cuts off altogether has none
        let is_some = cell.from < cell.to;
        let filters: Vec<Value> = cell.filters.iter().map(filter).collect();
        let filters = if filters.is_empty() { String::new() } else { Value::from(filters).to_string() };
        let facts = |kind| facts(kind, &cell, &filters, question.tz, question.time);
        Self {
            clicks: (is_some && cell.has_clicks).then(|| facts(Kind::Clicks)).flatten(),
            conversions: is_some.then(|| facts(Kind::Conversions)).flatten(),
            costs: (is_some && cell.has_clicks).then(|| costs(&cell)),
        }
    }
}

fn facts(kind: Kind, cell: &Cell, filters: &str, tz: Tz, time: TimeKind) -> Option<String> {
    let mut query = query_of("reports/facts");
    query.append_pair("kind", kind.into());
    range(&mut query, cell.from, cell.to);
    if tz != Tz::UTC {
        query.append_pair("tz", tz.name());
    }
    if time != TimeKind::Click {
        query.append_pair("time", time.into());
    }
    if !filters.is_empty() {
        query.append_pair("filters", filters);
    }
    Some(query.finish()).filter(|link| link.len() <= BYTES_MAX)
}

fn costs(cell: &Cell) -> String {
    let mut query = query_of("costs");
    let campaign = cell.filters.iter().find_map(|filter| match filter {
        Filter { dimension: Dimension::Campaign, matching: Match::Is, values } => match &values[..] {
            [one] => Some(one),
            _ => None,
        },
        _ => None,
    });
    if let Some(campaign) = campaign {
        query.append_pair("campaign_id", campaign);
    }
    range(&mut query, cell.from, cell.to);
    query.finish()
}

/// The address of a list, whose parameters follow.
fn query_of(list: &str) -> Serializer<'static, String> {
    let link = format!("{ROOT}/{list}?");
    let length = link.len();
    Serializer::for_suffix(link, length)
}

fn range(query: &mut Serializer<'_, String>, from: DateTime<Utc>, to: DateTime<Utc>) {
    for (name, time) in [("from", from), ("to", to)] {
        query.append_pair(name, &time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
    }
}

fn filter(filter: &Filter) -> Value {
    let mut shown = Map::new();
    shown.insert("dimension".to_owned(), filter.dimension.to_string().into());
    shown.insert(filter.matching.to_string(), filter.values.clone().into());
    shown.into()
}
