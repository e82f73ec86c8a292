//! `POST /api/v1/campaigns/{id}/test-link`: a link that leads where it says, whatever the rules say.

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::find;
use crate::{
    app::App,
    http::{
        api::manners::{
            answer::answer,
            auth::Admin,
            problems::Problems,
            request::{Json, Name},
        },
        error::{FieldError, Problem},
        fields::Fields,
        track::test_link,
    },
    model::campaign::{Campaign, Destination},
    routing::Forced,
};

const FIELDS: [&str; 4] = ["rule_id", "path_id", "landing_page_id", "offer_id"];

/// Where a test link is to lead; what is not said is decided as for any click.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"offer_id": 6}))]
#[expect(dead_code, reason = "it is read field by field")]
struct TestLinkInput {
    /// The rule; 0 is the default rule.
    #[schema(minimum = 0, example = 0)]
    rule_id: Option<i64>,
    /// The path; 0 is the only path of the default rule.
    #[schema(minimum = 0, example = 0)]
    path_id: Option<i64>,
    /// The landing page.
    #[schema(minimum = 1, example = 5)]
    landing_page_id: Option<i64>,
    /// The offer.
    #[schema(minimum = 1, example = 6)]
    offer_id: Option<i64>,
}

/// A test link.
#[derive(Debug, Serialize, ToSchema)]
struct TestLink {
    /// The link.
    #[schema(example = "https://go.example.com/click?cid=summer-sale&octo_test=AQ")]
    url: String,
    /// From when it is a link like any other.
    expires_at: DateTime<Utc>,
}

/// Make a test link
///
/// A signed link to the campaign that leads to the rule, path, landing page and offer that it names, whatever the rules
/// say and also before the campaign begins, for `tracking.test_link_s`. Its clicks are stored as invalid: `test`.
#[utoipa::path(
    post, path = "/campaigns/{id}/test-link", tag = "campaigns", operation_id = "make_test_link",
    params(("id" = String, Path, description = "Its id or key.", example = "summer-sale")),
    request_body = TestLinkInput,
    responses((status = 200, description = "The link.", body = TestLink), Problems),
)]
pub(super) async fn make(
    _: Admin,
    State(app): State<App>,
    Name(id): Name,
    Json(body): Json,
) -> Result<Response, Problem> {
    let campaign = find(&app, &id).await?;
    let choices = read(&body, &campaign).map_err(Problem::unprocessable)?;
    let now = Utc::now();
    let url = test_link::make(&app, &campaign, choices, now);
    let lives = TimeDelta::from_std(app.config.tracking.test_link).unwrap_or(TimeDelta::MAX);
    let expires_at = now.checked_add_signed(lives).unwrap_or(crate::db::FAR_FUTURE);
    answer(StatusCode::OK, &TestLink { url, expires_at })
}

/// What is named must be there.
fn read(body: &Value, campaign: &Campaign) -> Result<Forced, Vec<FieldError>> {
    let mut fields = Fields::new(body, "").map_err(|error| vec![error])?;
    let terms = &campaign.terms;
    let rules: Vec<i64> = terms.rules.iter().filter_map(|rule| rule.id).chain([0]).collect();
    let paths: Vec<i64> = terms.all_paths().filter_map(|path| path.id).chain([0]).collect();
    let ids = |destination: &Destination| destination.id;
    let pages: Vec<i64> = terms.all_landing_pages().filter_map(ids).collect();
    let offers: Vec<i64> = terms.all_offers().filter_map(ids).collect();
    let mut id = |name: &str, known: &[i64]| {
        let id = fields.optional_integer(name, 0..=i64::MAX)?;
        if !known.contains(&id) {
            fields.refuse(name, "unknown", "is not of this campaign");
        }
        Some(id)
    };
    let choices = Forced {
        rule_id: id("rule_id", &rules),
        path_id: id("path_id", &paths),
        landing_page_id: id("landing_page_id", &pages),
        offer_id: id("offer_id", &offers),
    };
    fields.refuse_unknown(&FIELDS, &[]);
    fields.finish_with(Some(choices))
}
