//! Signing in by a link or a token, and out. There are no passwords.

use askama::Template;
use axum::{
    extract::{RawQuery, Request, State},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Redirect, Response},
};

use super::{
    ROOT, assets,
    failure::Failure,
    first_steps::{self, Missing},
    form::{self, Fields},
    html,
    session::{self, Opened},
};
use crate::{
    app::App,
    db::store::sessions,
    http::{api::manners::auth, error::Problem},
    model::token::{PREFIX, Scope, digest},
};

/// What stands before the code in a link.
const CODE: &str = "#t=";

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    style: &'static str,
    script: &'static str,
    to: String,
    fault: Option<String>,
}

/// `GET /ui/sign-in`: the form, unless somebody is signed in already.
pub(super) async fn page(
    opened: Result<Opened, Failure>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let to = place(Fields::parse(query.as_deref().unwrap_or_default()).text("to"));
    match opened {
        Ok(_) => Ok(Redirect::to(&to).into_response()),
        Err(Failure::SignIn { is_stale, .. }) => {
            let mut response = shown(to, None)?;
            if is_stale {
                session::forget(response.headers_mut());
            }
            Ok(response)
        }
        Err(failure) => Err(failure),
    }
}

fn shown(to: String, fault: Option<String>) -> Result<Response, Failure> {
    html(&SignInPage { style: assets::style(), script: assets::script(), to, fault })
}

/// `POST /ui/sign-in`: a session of a token, or of a link, whose code is good once. Whatever session the browser had ends.
pub(super) async fn enter(State(app): State<App>, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    session::must_be_own(&parts.headers, &app)?;
    let fields = form::read(&parts.headers, body, app.config.dashboard.form_bytes_max).await?;
    let to = place(fields.text("to"));
    let cookie = sessions::new_code()?;
    match begin(&app, &parts, fields.text("secret"), &cookie).await {
        Ok(()) => {
            if let Some(old) = session::cookie_hash(&parts) {
                sessions::end(&app.db, old).await?;
            }
            let to = if leads_on(&app, &to, fields.text("secret")).await { first_steps::PATH } else { &to };
            let mut response = Redirect::to(to).into_response();
            session::remember(response.headers_mut(), &parts.headers, &app, &cookie);
            Ok(response)
        }
        Err(problem) if problem.status().is_client_error() => {
            let (status, fault) = (problem.status(), fault(&problem));
            let mut response = shown(to, Some(fault))?;
            *response.status_mut() = status;
            Ok(response)
        }
        Err(problem) => Err(problem.into()),
    }
}

/// Whether somebody who just started octo without configuration comes by its link, and nothing happened yet: then the first steps are
/// the place to begin.
async fn leads_on(app: &App, to: &str, secret: &str) -> bool {
    let is_first = app.private_postgres.is_some() && to == ROOT && !secret.starts_with(PREFIX);
    is_first && matches!(first_steps::missing(app).await, Ok(Some(Missing::Click)))
}

/// Begins the session with this cookie.
async fn begin(app: &App, parts: &Parts, secret: &str, cookie: &str) -> Result<(), Problem> {
    let agent =
        parts.headers.get(http::header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let (cookie, agent) = (digest(cookie), agent.as_deref());
    let lasts = session::lifetime(&app.config.dashboard);
    if secret.starts_with(PREFIX) {
        let token = auth::token_of(Some(secret), parts, app).await?;
        if !token.scope.allows(Scope::Read) {
            let detail =
                format!("This token has the scope {}; the dashboard needs admin or read.", token.scope);
            return Err(Problem::forbidden(detail));
        }
        return Ok(sessions::begin(&app.db, token.id, cookie, agent, lasts).await?);
    }
    // the whole link will do, too
    let code = secret.rsplit_once(CODE).map_or(secret, |(_, code)| code);
    let redeem =
        |code| async move { Ok(sessions::redeem(&app.db, code, cookie, agent, lasts).await?.then_some(())) };
    auth::known((!code.is_empty()).then(|| digest(code)), parts, app, redeem).await
}

fn fault(problem: &Problem) -> String {
    if problem.status() == StatusCode::UNAUTHORIZED {
        return "That is no token that is valid, and no link that is still good: a link is good once, and not for long. \
                Make another with `octo sign-in-link`."
            .to_owned();
    }
    problem.detail().to_owned()
}

/// `POST /ui/sign-out`: ends the session.
pub(super) async fn leave(State(app): State<App>, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let cookie = session::cookie_hash(&parts);
    session::signed(Request::from_parts(parts, body), &app).await?;
    if let Some(cookie) = cookie {
        sessions::end(&app.db, cookie).await?;
    }
    let mut response = Redirect::to("/ui/sign-in").into_response();
    session::forget(response.headers_mut());
    Ok(response)
}

/// A page of the dashboard to go on to; anything else is none of ours.
fn place(text: &str) -> String {
    let is_ours = text == ROOT || text.starts_with("/ui/") || text.starts_with("/ui?");
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    let leads_back = text.starts_with("/ui/sign-in") || text.contains("/../") || text.contains("//");
    if is_ours && is_plain && !leads_back { text.to_owned() } else { ROOT.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_goes_on_to_pages_of_the_dashboard_only() {
        for good in ["/ui", "/ui/campaigns", "/ui?range=7d", "/ui/report?f=country%3Ais%3ADE"] {
            assert_eq!(place(good), good);
        }
        for bad in [
            "",
            "/",
            "//evil.example",
            "https://evil.example/ui",
            "/uix",
            "/ui/sign-in?to=/ui",
            "/ui/..//evil.example",
            "/ui/\\evil",
            "/ui/a\r\nb",
        ] {
            assert_eq!(place(bad), ROOT, "{bad}");
        }
    }
}
