//! `POST /api/v1/campaigns/{id}/explain`: where a made-up visitor would go, and why.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{drafted, find};
use crate::{
    app::{App, Parts},
    explain::{Explained, MadeUp, explain_visitor},
    http::{
        api::manners::{
            answer::answer,
            auth::Read,
            problems::Problems,
            request::{Json, Name},
        },
        error::{FieldError, Problem},
        fields::{Fields, Given},
    },
    model::{
        campaign::{Campaign, Terms},
        id::ClickId,
    },
    routing::Routes,
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(explain))
}

/// A visitor who is made up; what is not given is not known.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `read` reads")]
struct VisitorInput {
    /// The link he follows, or its query alone.
    #[schema(max_length = 8192, example = "https://track.example/click?cid=summer-sale&sub1=banner-7")]
    url: Option<String>,
    /// Where he comes from.
    #[schema(schema_with = address)]
    ip: Option<String>,
    /// What his browser says of itself.
    #[schema(
        max_length = 1024,
        example = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
    )]
    user_agent: Option<String>,
    /// `Accept-Language`, as his browser sends it.
    #[schema(max_length = 255, example = "de-DE,de;q=0.9,en;q=0.5")]
    language: Option<String>,
    /// The page that led him here.
    #[schema(max_length = 2048, example = "https://news.example/page")]
    referrer: Option<String>,
    /// When he comes; null is now.
    at: Option<DateTime<Utc>>,
    /// The id of his click: the same one is drawn the same way.
    #[schema(
        pattern = "^(?:[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})?$",
        example = "019aaf3c-5f00-7abc-8def-0123456789ab"
    )]
    click_id: Option<String>,
    /// Whether he came to the campaign before.
    #[schema(example = false)]
    returning: Option<bool>,
    /// Whether it is his first click of the campaign today.
    #[schema(example = true)]
    unique: Option<bool>,
}

fn address() -> RefOr<Schema> {
    let schema = json!({
        "description": "Where he comes from.",
        "anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}, {"type": "null"}],
        "example": "91.1.2.3",
    });
    serde_json::from_value(schema).expect("a schema")
}

const FIELDS: [&str; 9] =
    ["url", "ip", "user_agent", "language", "referrer", "at", "click_id", "returning", "unique"];

/// Explain where a visitor goes
///
/// Asks the rules of the campaign as a click does, for a visitor who is made up: what each criterion sees and whether it
/// holds, which paths take part, their weights after caps, and how probable each way is. Nothing is stored.
#[utoipa::path(
    post, path = "/campaigns/{id}/explain", tag = "campaigns", operation_id = "explain_campaign", security(("token" = ["read"])),
    params(("id" = String, Path, description = "Its id or key.", example = "summer-sale")),
    request_body = VisitorInput,
    responses((status = 200, description = "Where he goes, and why.", body = Explained), Problems),
)]
async fn explain(
    _: Read,
    State(app): State<App>,
    Name(id): Name,
    Json(body): Json,
) -> Result<Response, Problem> {
    let made_up = read(&body)?;
    answer(StatusCode::OK, &explained(&app, find(&app, &id).await?, &made_up)?)
}

/// Where the visitor that a body makes up would go if a patch of a campaign were stored, and its terms then: what is new of
/// them has an id that is made up too.
pub(crate) async fn with_patch(
    app: &Parts,
    id_or_key: &str,
    patch: &Value,
    headers: &HeaderMap,
    visitor: &Value,
) -> Result<(Explained, Terms), Problem> {
    let made_up = read(visitor)?;
    let campaign = drafted::drafted(app, id_or_key, patch, headers).await?;
    let terms = campaign.terms.clone();
    Ok((explained(app, campaign, &made_up)?, terms))
}

fn explained(app: &Parts, campaign: Campaign, made_up: &MadeUp) -> Result<Explained, Problem> {
    let routes = Routes::new(campaign)
        .map_err(|error| Problem::conflict(format!("The campaign is not served: {error}.")))?;
    // he is nobody, so that no cap has counted him; and what is not stored has counted nobody
    let is_full = |target| !drafted::is_made_up(target) && app.caps.is_full(&routes, target, Utc::now(), 0);
    let is_spent = app.budgets.is_exhausted(routes.campaign.id, Utc::now());
    Ok(explain_visitor(&routes, &app.enricher, made_up, &is_full, is_spent))
}

/// Reads a visitor; names everything that is wrong with him.
fn read(body: &Value) -> Result<MadeUp, Vec<FieldError>> {
    let mut f = Fields::new(body, "").map_err(|error| vec![error])?;
    let text = |f: &mut Fields<'_>, name: &str, chars_max: usize| {
        f.optional_text(name, 0..=chars_max).map(str::to_owned)
    };
    let flag = |f: &mut Fields<'_>, name: &str| match f.given(name) {
        Given::Value(_) => Some(f.boolean(name, false)),
        Given::Absent | Given::Null => None,
    };
    let url = text(&mut f, "url", 8192).unwrap_or_default();
    let ip = text(&mut f, "ip", 64).map(|ip| ip.parse());
    if ip.as_ref().is_some_and(Result::is_err) {
        f.refuse("ip", "address", "must be an IP address");
    }
    let click_id = text(&mut f, "click_id", 64).filter(|id| !id.is_empty()).map(|id| id.parse::<ClickId>());
    if click_id == Some(Err(())) {
        f.refuse("click_id", "uuid", "must be the id of a click (a UUIDv7)");
    }
    let made_up = MadeUp {
        query: query_of(&url).to_owned(),
        ip: ip.and_then(Result::ok),
        user_agent: text(&mut f, "user_agent", 1024).unwrap_or_default(),
        language: text(&mut f, "language", 255).unwrap_or_default(),
        referrer: text(&mut f, "referrer", 2048),
        at: f.time("at"),
        click_id: click_id.and_then(Result::ok),
        is_returning: flag(&mut f, "returning"),
        is_unique: flag(&mut f, "unique"),
    };
    f.refuse_unknown(&FIELDS, &[]);
    f.finish_with(Some(made_up))
}

/// The query of a link, or what is one already.
fn query_of(url: &str) -> &str {
    let url = url.split('#').next().unwrap_or_default();
    match url.split_once('?') {
        Some((_, query)) => query,
        None if url.contains("://") || url.starts_with('/') => "",
        None => url,
    }
}
