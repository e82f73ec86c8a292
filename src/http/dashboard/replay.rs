//! Postbacks read once more under the names and words of now: first what that would change, then the change.

use askama::Template;
use axum::{extract::State, http::StatusCode, response::Response};
use chrono::SecondsFormat;
use serde_json::json;

use super::{
    failure::Failure,
    figures,
    form::Fields,
    frame::{Frame, Section},
    html,
    money::{self, Choice, Place, Tabs},
    session::{Opened, Posted},
    view::View,
};
use crate::{
    app::App,
    http::{
        api::postbacks::{self, ReplayResult},
        error::Problem,
    },
};

const PATH: &str = "/ui/postbacks/replay";

/// Differences that are shown.
const SHOWN_MAX: usize = 100;

struct Difference {
    address: String,
    conversion: String,
    from: String,
    to: String,
    payout: String,
    revenue: String,
}

/// What was changed, or would be.
struct Outcome {
    is_preview: bool,
    counts: Vec<(&'static str, String)>,
    totals: Vec<(String, String, String)>,
    differences: Vec<Difference>,
    left_out: Option<String>,
    changes_something: bool,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "replay.html")]
struct ReplayPage {
    frame: Frame,
    tabs: Tabs,
    networks: Vec<Choice>,
    network_name: String,
    kept: Vec<(String, String)>,
    network: String,
    cursor: String,
    sends: bool,
    outcome: Option<Outcome>,
    faults: Vec<String>,
}

/// `GET /ui/postbacks/replay`
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    if !opened.viewer.may_change() {
        return Err(Problem::forbidden("A token of scope read replays no postbacks.").into());
    }
    shown(&app, &opened, None, Vec::new()).await
}

async fn shown(
    app: &App,
    opened: &Opened,
    outcome: Option<Outcome>,
    faults: Vec<String>,
) -> Result<Response, Failure> {
    let fields = &opened.fields;
    let mut frame =
        Frame::of(app, opened, Section::Conversions, PATH, &["network"]).titled("Replay postbacks");
    frame.notice = notice(fields);
    let networks = money::networks(app).await?;
    let network = fields.text("network");
    html(&ReplayPage {
        tabs: money::tabs(app, &frame.view, Place::Postbacks).await?,
        network_name: money::network_name(&networks, network.parse().ok()),
        networks: money::network_choices(&networks, network),
        kept: frame.query.hidden(&["network"]),
        network: network.to_owned(),
        cursor: fields.text("cursor").to_owned(),
        sends: fields.text("send") == "true",
        outcome,
        faults,
        frame,
    })
}

/// What was just done, in a sentence.
fn notice(fields: &Fields) -> Option<String> {
    (fields.text("done") == "mapped").then(|| {
        "The word is mapped. What came before still says what it said: preview a replay to count it."
            .to_owned()
    })
}

/// `POST /ui/postbacks/replay`: previews, or applies. What is shown is what was done, so it is answered and not led elsewhere:
/// sent twice it changes nothing more.
pub(super) async fn run(State(app): State<App>, posted: Posted) -> Result<Response, Failure> {
    let opened = &posted.opened;
    let fields = &opened.fields;
    let view = Frame::of(&app, opened, Section::Conversions, PATH, &["network"]).view;
    let is_preview = fields.text("action") != "apply";
    let time = |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let mut asked = json!({
        "from": time(view.from()),
        "to": time(view.to()),
        "dry_run": is_preview,
        "send": fields.text("send") == "true",
    });
    if let Ok(network) = fields.text("network").parse::<i64>() {
        asked["network"] = json!(network);
    }
    if !fields.text("cursor").is_empty() {
        asked["cursor"] = json!(fields.text("cursor"));
    }
    match postbacks::replayed(&app, &asked).await {
        Ok(result) => shown(&app, opened, Some(Outcome::of(&result, &view)), Vec::new()).await,
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            let faults = problem.errors().iter().map(|error| format!("{}: {}", error.pointer, error.detail));
            let mut response = shown(&app, opened, None, faults.collect()).await?;
            *response.status_mut() = problem.status();
            Ok(response)
        }
        Err(problem) => Err(problem.into()),
    }
}

impl Outcome {
    fn of(result: &ReplayResult, view: &View) -> Self {
        let difference = |it: &postbacks::Difference| Difference {
            address: view.link(&format!("/ui/conversions/{}", it.conversion_id)),
            conversion: it.conversion_id.to_string(),
            from: it.from_status.map_or_else(|| "new".to_owned(), |status| status.to_string()),
            to: it.to_status.to_string(),
            payout: signed(&it.payout, &it.currency),
            revenue: signed(&it.revenue, &it.currency),
        };
        let count = |count: usize| figures::grouped(count.into(), 0);
        let listed = result.differences.len();
        Self {
            is_preview: result.dry_run,
            counts: vec![
                ("Postbacks read", count(result.postbacks)),
                ("Judged anew", count(result.judged_anew)),
                ("Clicks found only now", count(result.clicks_found)),
                ("Conversions that change", count(listed)),
            ],
            totals: result
                .totals
                .iter()
                .map(|total| {
                    let of = |amount: &str| signed(amount, &total.currency);
                    (total.currency.clone(), of(&total.payout), of(&total.revenue))
                })
                .collect(),
            differences: result.differences.iter().take(SHOWN_MAX).map(difference).collect(),
            left_out: (listed > SHOWN_MAX)
                .then(|| format!("The first {SHOWN_MAX} are shown; all are in the sums.")),
            changes_something: listed > 0 || result.judged_anew > 0 || result.clicks_found > 0,
            next: result.next_cursor.clone(),
        }
    }
}

/// `+12.00 USD`
fn signed(amount: &str, currency: &str) -> String {
    let is_zero = amount.chars().all(|c| matches!(c, '0' | '.' | '-'));
    let sign = if is_zero || amount.starts_with('-') { "" } else { "+" };
    format!("{sign}{amount} {currency}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_has_its_sign() {
        assert_eq!(signed("12.00", "USD"), "+12.00 USD");
        assert_eq!(signed("-1.50", "EUR"), "-1.50 EUR");
        assert_eq!(signed("0.00", "EUR"), "0.00 EUR");
    }
}
