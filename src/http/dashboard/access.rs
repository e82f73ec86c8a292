//! Who may come in: tokens and sessions; and beside them what else is set: days and money of the viewer, and how somebody's data is
//! erased.

use askama::Template;
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use chrono::{DateTime, NaiveTime, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    failure::Failure,
    form::Fields,
    frame::{Frame, Section},
    html,
    inputs::Inputs,
    session::{self, Opened, Posted},
    settings::refused,
    view::View,
};
use crate::{
    app::App,
    db::store::{
        sessions::{self, Listed},
        tokens,
    },
    http::{
        api::{self, manners::page::id_cursor},
        error::Problem,
    },
    model::{
        id::new_uuid,
        token::{Scope, Token},
    },
};

const PATH: &str = "/ui/settings";

/// Tokens of a page.
const TOKENS: i64 = 50;

/// Sessions that are shown, the ones used last.
const SESSIONS: i64 = 100;

const FIELDS: [&str; 3] = ["name", "scope", "expires_on"];

fn field_of(pointer: &str) -> Option<&'static str> {
    Some(match pointer {
        "/name" => "name",
        "/scope" => "scope",
        "/expires_at" => "expires_on",
        _ => return None,
    })
}

/// A page of the settings: address, name, whether it is here.
pub(super) fn tabs(view: &View, here: &str) -> Vec<(String, &'static str, bool)> {
    [(PATH, "Access"), ("/ui/settings/rates", "Currencies and rates")]
        .map(|(path, name)| (view.link(path), name, path == here))
        .into()
}

/// A token in the list.
struct TokenRow {
    id: Uuid,
    name: String,
    scope: Scope,
    state: &'static str,
    made: String,
    used: String,
    expires: String,
    is_own: bool,
}

/// A session in the list.
struct SessionRow {
    id: Uuid,
    token: String,
    scope: Scope,
    browser: String,
    began: String,
    used: String,
    is_own: bool,
}

#[derive(Template)]
#[template(path = "access.html")]
struct AccessPage {
    frame: Frame,
    tabs: Vec<(String, &'static str, bool)>,
    /// A token that was just made: its name and its secret, which is `None` where it was shown before.
    made: Option<(String, Option<String>)>,
    tokens: Vec<TokenRow>,
    older: Option<String>,
    sessions: Vec<SessionRow>,
    has_others: bool,
    inputs: Inputs,
    faults: Vec<String>,
    scopes: Vec<(&'static str, bool)>,
    attempt: Uuid,
    zone: &'static str,
    currency: String,
    idle_hours: u64,
    max_days: u64,
}

/// `GET /ui/settings`
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let inputs = Inputs::of(&FIELDS, |name| if name == "scope" { "read" } else { "" }.to_owned());
    shown(&app, &opened, None, inputs, Vec::new(), new_uuid()).await
}

async fn shown(
    app: &App,
    opened: &Opened,
    made: Option<(String, Option<String>)>,
    inputs: Inputs,
    faults: Vec<String>,
    attempt: Uuid,
) -> Result<Response, Failure> {
    use strum::VariantNames as _;

    let own = opened.viewer.session();
    let mut frame = Frame::of(app, opened, Section::Settings, PATH, &["cursor"]).titled("Settings");
    frame.notice = notice(&opened.fields);
    let after = Uuid::try_parse(opened.fields.text("cursor")).ok();
    let mut tokens = tokens::list(&app.db, after, TOKENS + 1).await?;
    let has_more = tokens.len() > usize::try_from(TOKENS).unwrap_or(usize::MAX);
    tokens.truncate(usize::try_from(TOKENS).unwrap_or(usize::MAX));
    let older = tokens.last().filter(|_| has_more);
    let older = older.map(|token| frame.query.with("cursor", &id_cursor(token.id)).to_string());
    let sessions = sessions::list(&app.db, session::lifetime(&app.config.dashboard), SESSIONS).await?;
    let scope = inputs.get("scope").value;
    html(&AccessPage {
        tabs: tabs(&frame.view, PATH),
        made,
        tokens: tokens.into_iter().map(|token| token_row(token, own, &frame.view)).collect(),
        older,
        has_others: sessions.iter().any(|listed| listed.session.id != own.id),
        sessions: sessions.into_iter().map(|listed| session_row(listed, own, &frame.view)).collect(),
        inputs,
        faults,
        scopes: Scope::VARIANTS.iter().map(|name| (*name, *name == scope)).collect(),
        attempt,
        zone: app.config.dashboard.time_zone.name(),
        currency: app.config.dashboard.currency.to_string(),
        idle_hours: app.config.dashboard.session_idle.as_secs() / 3600,
        max_days: app.config.dashboard.session_max.as_secs() / 86400,
        frame,
    })
}

fn token_row(token: Token, own: &sessions::Session, view: &View) -> TokenRow {
    let moment = |at: Option<DateTime<Utc>>| at.map_or_else(|| "never".to_owned(), |at| view.moment(at));
    TokenRow {
        id: token.id,
        state: token.state(Utc::now()),
        made: view.moment(token.created_at),
        used: moment(token.last_used_at),
        expires: moment(token.expires_at),
        is_own: token.id == own.token.id,
        scope: token.scope,
        name: token.name,
    }
}

fn session_row(listed: Listed, own: &sessions::Session, view: &View) -> SessionRow {
    let Listed { session, user_agent, began_at } = listed;
    SessionRow {
        id: session.id,
        scope: session.token.scope,
        browser: user_agent.unwrap_or_else(|| "unknown".to_owned()),
        began: view.moment(began_at),
        used: view.moment(session.last_used_at),
        is_own: session.id == own.id,
        token: session.token.name,
    }
}

/// `POST /ui/settings`: makes or revokes a token, ends a session or all others.
pub(super) async fn change(State(app): State<App>, posted: Posted) -> Result<Response, Failure> {
    let fields = &posted.opened.fields;
    let own = posted.opened.viewer.session();
    let done = match fields.text("action") {
        "make" => return make(&app, &posted).await,
        "revoke" => {
            api::tokens::revoked(&app, fields.text("id")).await?;
            "revoked".to_owned()
        }
        "end" => {
            let id = Uuid::try_parse(fields.text("id")).map_err(|_| Problem::not_found("session"))?;
            if !sessions::end_one(&app.db, id).await? {
                return Err(Problem::not_found("session").into());
            }
            "ended.1".to_owned()
        }
        "end_others" => format!("ended.{}", sessions::end_others(&app.db, own.id).await?),
        _ => {
            let detail = "Choose what is to be done: make, revoke, end or end_others.";
            return Err(Problem::bad_request("action", detail).into());
        }
    };
    Ok(Redirect::to(&format!("{PATH}?done={done}")).into_response())
}

/// The page with the secret, which is shown this once: the form sent again makes no second token.
async fn make(app: &App, posted: &Posted) -> Result<Response, Failure> {
    let fields = &posted.opened.fields;
    let attempt = fields.attempt();
    let mut body = Map::new();
    for name in ["name", "scope"] {
        if !fields.text(name).is_empty() {
            body.insert(name.to_owned(), fields.text(name).into());
        }
    }
    match fields.text("expires_on") {
        "" => {}
        day => {
            body.insert("expires_at".to_owned(), end_of(day).into());
        }
    }
    match api::tokens::made(app, &Value::Object(body), attempt, true).await {
        Ok((token, secret)) => {
            let inputs = Inputs::of(&FIELDS, |name| if name == "scope" { "read" } else { "" }.to_owned());
            shown(app, &posted.opened, Some((token.name, secret)), inputs, Vec::new(), new_uuid()).await
        }
        Err(problem) if problem.status().is_client_error() => {
            let mut inputs = Inputs::typed(&FIELDS, fields);
            let faults = inputs.refuse(&problem, field_of);
            let page = shown(app, &posted.opened, None, inputs, faults, attempt).await?;
            Ok(refused(page, StatusCode::UNPROCESSABLE_ENTITY))
        }
        Err(problem) => Err(problem.into()),
    }
}

/// The end of a day (UTC), as the API takes it; what is no day it is to refuse.
fn end_of(day: &str) -> String {
    let end = |day: chrono::NaiveDate| day.and_time(NaiveTime::MIN).and_utc() + chrono::TimeDelta::days(1);
    match day.parse() {
        Ok(day) => end(day).to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        Err(_) => day.to_owned(),
    }
}

/// What was just done, in a sentence.
fn notice(fields: &Fields) -> Option<String> {
    match fields.text("done") {
        "revoked" => {
            Some("The token is revoked: it is refused from now on, and its sessions are over.".to_owned())
        }
        text => match text.strip_prefix("ended.")?.parse::<u64>().ok()? {
            1 => Some("1 session is over.".to_owned()),
            count => Some(format!("{count} sessions are over.")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_to_the_end_of_its_last_day() {
        assert_eq!(end_of("2026-12-31"), "2027-01-01T00:00:00Z");
        assert_eq!(end_of("soon"), "soon");
    }

    #[test]
    fn what_was_done_is_said_in_our_words_only() {
        let notice = |text: &str| notice(&Fields::parse(&format!("done={text}")));
        assert!(notice("revoked").unwrap().contains("revoked"));
        assert_eq!(notice("ended.3").as_deref(), Some("3 sessions are over."));
        for text in ["", "ended", "ended.x", "evil"] {
            assert_eq!(notice(text), None, "{text}");
        }
    }
}
