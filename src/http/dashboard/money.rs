//! What the screens of conversions, postbacks and deliveries have in common: the places beside each other, the words, and how a
//! list is asked for.

use std::collections::HashMap;

use chrono::SecondsFormat;
use serde_json::json;
use url::form_urlencoded;

use super::{form::Fields, view::View};
use crate::{
    app::App,
    db::store::{affiliate_networks, library::Filter},
    http::{
        api::{reports, views::postback::Postback},
        error::Problem,
    },
};

/// Networks to choose from.
const NETWORKS_MAX: i64 = 500;

/// Entries of a page.
const ROWS: &str = "100";

/// Places beside each other: address, name, whether it is here.
pub(super) type Tabs = Vec<(String, String, bool)>;

/// A choice of a list: value, name, whether it is chosen.
pub(super) type Choice = (String, String, bool);

/// The place of these that a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Conversions,
    Waiting,
    Orphan,
    Unmapped,
    Postbacks,
    Deliveries,
}

/// The places; behind three of them stands how many postbacks of the range are there.
pub(super) async fn tabs(app: &App, view: &View, here: Place) -> Result<Tabs, Problem> {
    let mut question = view.question();
    question["group_by"] = json!(["campaign"]);
    question["measures"] = json!(["conversions"]);
    question["limit"] = json!(1);
    let notes = reports::answered(app, &question).await?.notes;
    let list = view.query.at("/ui/conversions");
    let of = |place, address: String, name: String| (address, name, place == here);
    let apart = |place, kind: &str, name: &str, count: i64| {
        of(place, list.with("tab", kind).to_string(), format!("{name} ({count})"))
    };
    Ok(vec![
        of(Place::Conversions, list.to_string(), "Conversions".to_owned()),
        apart(Place::Unmapped, "unmapped", "Unmapped", notes.unmapped),
        apart(Place::Waiting, "waiting", "Waiting", notes.waiting),
        apart(Place::Orphan, "orphan", "Without a click", notes.orphan),
        of(Place::Postbacks, view.link("/ui/postbacks"), "All postbacks".to_owned()),
        of(Place::Deliveries, view.link("/ui/deliveries"), "Deliveries".to_owned()),
    ])
}

/// The query of a list of the API: the range of the page, `more`, and those of these fields that say something.
pub(super) fn asked(view: &View, fields: &Fields, names: &[&str], more: &[(&str, &str)]) -> String {
    let time = |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("from", &time(view.from())).append_pair("to", &time(view.to()));
    query.append_pair("limit", ROWS).extend_pairs(more);
    query.extend_pairs(names.iter().map(|name| (*name, fields.text(name))));
    query.finish()
}

/// The names of affiliate networks by their ids.
pub(super) async fn networks(app: &App) -> Result<HashMap<i64, String>, Problem> {
    let found = affiliate_networks::list(&app.db, Filter::default(), None, NETWORKS_MAX).await?;
    Ok(found.into_iter().map(|network| (network.id, network.terms.name)).collect())
}

/// Networks to choose from, by name.
pub(super) fn network_choices(networks: &HashMap<i64, String>, chosen: &str) -> Vec<Choice> {
    let mut choices: Vec<Choice> =
        networks.iter().map(|(id, name)| (id.to_string(), name.clone(), id.to_string() == chosen)).collect();
    choices.sort_by_key(|(_, name, _)| name.to_lowercase());
    choices
}

/// The values of a closed choice, in words.
pub(super) fn choices(values: &[&str], chosen: &str) -> Vec<Choice> {
    values.iter().map(|value| ((*value).to_owned(), words(value), *value == chosen)).collect()
}

/// `late_pending` as `late pending`
pub(super) fn words(text: &str) -> String {
    text.replace('_', " ")
}

/// A postback in a list.
pub(super) struct PostbackRow {
    pub(super) at: String,
    pub(super) address: String,
    pub(super) network: String,
    pub(super) channel: String,
    pub(super) said: String,
    pub(super) outcome: String,
    pub(super) tone: &'static str,
    pub(super) conversion: Option<String>,
    pub(super) is_unmapped: bool,
}

/// Longest text of what a postback said in a list, in characters.
const SAID_CHARS: usize = 120;

impl PostbackRow {
    pub(super) fn of(postback: &Postback, view: &View, networks: &HashMap<i64, String>) -> Self {
        let said: Vec<String> =
            postback.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let said = said.join(" ");
        let cut = match said.char_indices().nth(SAID_CHARS) {
            Some((end, _)) => format!("{}\u{2026}", &said[..end]),
            None => said,
        };
        Self {
            at: view.moment(postback.created_at),
            address: view.link(&format!("/ui/postbacks/{}", postback.id)),
            network: network_name(networks, postback.network_id),
            channel: postback.channel.clone(),
            said: cut,
            outcome: outcome(postback),
            tone: tone(postback),
            conversion: postback.conversion_id.map(|id| view.link(&format!("/ui/conversions/{id}"))),
            is_unmapped: postback.reason.as_deref() == Some("unmapped"),
        }
    }
}

/// The name of a network, or its number where it is gone; nothing where none is known.
pub(super) fn network_name(networks: &HashMap<i64, String>, id: Option<i64>) -> String {
    id.map(|id| networks.get(&id).cloned().unwrap_or_else(|| format!("#{id}"))).unwrap_or_default()
}

/// What became of a postback, in a few words.
pub(super) fn outcome(postback: &Postback) -> String {
    let outcome = match postback.outcome.as_str() {
        "accepted" => "counted",
        "orphan" => "without a click",
        "waiting" => "waits for its click",
        other => other,
    };
    let reason = match postback.reason.as_deref() {
        Some("no_click_id") => "names no click",
        Some("bad_click_id") => "its click id is none of ours",
        Some("ignored_status") => "its word means no conversion",
        Some("too_many") => "its click has too many",
        Some("wrong_key") => "the key in its address is nobody's",
        Some("wrong_token") => "wrong token",
        Some("wrong_address") => "from an address that is not its network's",
        Some("repeat") => "the same once more",
        Some("late_pending") => "pending behind a decision",
        Some("unmapped") => "its word is not mapped",
        Some(other) => other,
        None => return outcome.to_owned(),
    };
    format!("{outcome}: {reason}")
}

/// How it looks: what is lost or waits for somebody is not like what counts.
fn tone(postback: &Postback) -> &'static str {
    match (postback.outcome.as_str(), postback.reason.as_deref()) {
        ("refused" | "orphan", _) | (_, Some("unmapped")) => "bad",
        ("accepted", _) => "good",
        _ => "",
    }
}
