//! Who is signed in: a random cookie, of which only the hash is stored, and what the forms of its pages bring along to show that
//! they are ours.
//!
//! A form counts when its cookie does, when the browser says that it was sent from this site, and when it holds the token of the
//! session. Each of the three would do; a browser that lacks one has the others.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
};
use chrono::Utc;

use super::{
    ROOT, csrf,
    failure::Failure,
    form::{self, Fields},
};
use crate::{
    app::App,
    config,
    db::{
        self,
        store::sessions::{self, Lifetime, Session},
    },
    http::{api::manners::auth, error::Problem},
    model::token::{Hash, Scope, digest},
};

/// The cookie where the browser speaks https: it takes one of this name from nobody but this very host.
const SECURE_COOKIE: &str = "__Host-octo_session";

/// The cookie where it does not.
const PLAIN_COOKIE: &str = "octo_session";

/// What a form holds.
pub(super) const CSRF_FIELD: &str = "csrf";

/// What a cookie must begin with to be ours: 43 characters of base64url.
const COOKIE_CHARS: usize = 43;

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How long sessions last here.
pub(super) fn lifetime(config: &config::Dashboard) -> Lifetime {
    Lifetime { idle: config.session_idle, max: config.session_max }
}

/// Somebody who is signed in and may look.
#[derive(Debug, Clone)]
pub(super) struct Viewer {
    session: Session,
    cookie: Arc<str>,
}

impl Viewer {
    /// The session, with its token.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Whether this one may change anything.
    pub(super) fn may_change(&self) -> bool {
        self.session.token.scope.allows(Scope::Admin)
    }

    /// The scope of the token, in a word.
    pub(super) fn scope(&self) -> &'static str {
        self.session.token.scope.into()
    }

    /// What a form of this session holds. Whoever can read it can read the pages, too.
    pub(super) fn csrf(&self) -> String {
        csrf::masked(&self.csrf_token())
    }

    fn csrf_token(&self) -> Hash {
        digest(&format!("csrf {}", self.cookie))
    }

    /// Whether the session is not over since; for answers that take long.
    pub(super) async fn is_still_signed_in(&self, app: &App) -> Result<bool, db::Error> {
        let lasts = lifetime(&app.config.dashboard);
        Ok(sessions::find(&app.db, digest(&self.cookie), lasts).await?.is_some())
    }

    /// Of the session that the request has; signed in first where it has none.
    async fn of(parts: &Parts, app: &App) -> Result<Self, Failure> {
        let to = if parts.method == Method::GET {
            parts.uri.path_and_query().map_or(ROOT, |target| target.as_str()).to_owned()
        } else {
            ROOT.to_owned() // a form is not sent again by itself
        };
        let Some(cookie) = cookie_of(parts) else { return Err(Failure::SignIn { to, is_stale: false }) };
        let lasts = lifetime(&app.config.dashboard);
        let found =
            auth::known(Some(digest(cookie)), parts, app, |hash| sessions::find(&app.db, hash, lasts)).await;
        let session = match found {
            Err(problem) if problem.status() == http::StatusCode::UNAUTHORIZED => {
                return Err(Failure::SignIn { to, is_stale: true });
            }
            found => found?,
        };
        if app.db.primary_seen().is_some()
            && let Err(error) = sessions::touch(&app.db, &session, Utc::now()).await
        {
            // it ends a little earlier; no reason to show nothing
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the use of a session could not be noted"
            );
        }
        Ok(Self { session, cookie: cookie.into() })
    }
}

/// A page that somebody who is signed in asks for.
#[derive(Debug)]
pub(super) struct Opened {
    /// Who.
    pub(super) viewer: Viewer,
    /// What its address asks, or the form that leads to it.
    pub(super) fields: Fields,
}

impl FromRequestParts<App> for Opened {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let fields = Fields::parse(parts.uri.query().unwrap_or_default());
        Ok(Self { viewer: Viewer::of(parts, app).await?, fields })
    }
}

/// A form of a page of ours, sent by somebody who may change things.
#[derive(Debug)]
pub(super) struct Posted {
    /// Who, and the fields of the form.
    pub(super) opened: Opened,
    /// The head of the request.
    pub(super) headers: HeaderMap,
}

impl Posted {
    /// The head that the API is asked with.
    pub(super) fn head(&self) -> HeaderMap {
        self.headers.get(header::HOST).map(|host| (header::HOST, host.clone())).into_iter().collect()
    }

    /// The same, for a change of what has this version.
    pub(super) fn if_match(&self, version: i64) -> Result<HeaderMap, Problem> {
        let version = HeaderValue::try_from(format!("\"{version}\"")).map_err(Problem::internal)?;
        let mut head = self.head();
        head.insert(header::IF_MATCH, version);
        Ok(head)
    }
}

impl FromRequest<App> for Posted {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let posted = signed(request, app).await?;
        if !posted.opened.viewer.may_change() {
            let detail =
                "You are signed in with a token of scope read: it shows everything and changes nothing.";
            return Err(Problem::forbidden(detail).into());
        }
        Ok(posted)
    }
}

/// A form of a page of ours, whoever sent it.
pub(super) async fn signed(request: Request, app: &App) -> Result<Posted, Failure> {
    let (parts, body) = request.into_parts();
    must_be_own(&parts.headers, app)?;
    let viewer = Viewer::of(&parts, app).await?;
    let fields = form::read(&parts.headers, body, app.config.dashboard.form_bytes_max).await?;
    if !csrf::is_of(&viewer.csrf_token(), fields.text(CSRF_FIELD)) {
        return Err(Problem::forbidden(
            "This form is of another session. Go back, load the page again, and send it anew.",
        )
        .into());
    }
    Ok(Posted { opened: Opened { viewer, fields }, headers: parts.headers })
}

/// Refuses a form that the browser says is from another site. Where it says nothing (an old one, or a program) the other two
/// defences are left.
pub(super) fn must_be_own(headers: &HeaderMap, app: &App) -> Result<(), Problem> {
    if is_own(headers, &app.public_url) {
        Ok(())
    } else {
        Err(Problem::forbidden("This form was sent from another site."))
    }
}

fn is_own(headers: &HeaderMap, public_url: &str) -> bool {
    if let Some(site) = headers.get(&SEC_FETCH_SITE) {
        return site == "same-origin";
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = |url: &str| url.split_once("://").map(|(_, host)| host.to_owned());
    let (Some(from), asked) = (origin.to_str().ok().and_then(host), headers.get(header::HOST)) else {
        return false;
    };
    // a proxy may ask by another name than the browser did
    asked.is_some_and(|asked| asked.as_bytes() == from.as_bytes()) || host(public_url) == Some(from)
}

/// The cookie of a request, if it has the shape of one.
fn cookie_of(parts: &Parts) -> Option<&str> {
    let named = |wanted: &'static str| {
        let values = parts.headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs =
            values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value)
    };
    let is_code = |text: &&str| {
        text.len() == COOKIE_CHARS && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    named(SECURE_COOKIE).or_else(|| named(PLAIN_COOKIE)).filter(is_code)
}

/// The hash of the cookie of a request.
pub(super) fn cookie_hash(parts: &Parts) -> Option<Hash> {
    cookie_of(parts).map(digest)
}

/// Has the browser send this cookie from now on. Whether it speaks https it says itself, in the origin of the form.
pub(super) fn remember(headers: &mut HeaderMap, asked: &HeaderMap, app: &App, cookie: &str) {
    let is_secure = match asked.get(header::ORIGIN) {
        Some(origin) => origin.as_bytes().starts_with(b"https://"),
        None => app.public_url.starts_with("https://"),
    };
    let age = app.config.dashboard.session_max.as_secs();
    let set = if is_secure {
        format!("{SECURE_COOKIE}={cookie}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict; Secure")
    } else {
        format!("{PLAIN_COOKIE}={cookie}; Path={ROOT}; Max-Age={age}; HttpOnly; SameSite=Strict")
    };
    set_cookie(headers, set);
}

/// Has the browser forget its cookies.
pub(super) fn forget(headers: &mut HeaderMap) {
    for set in [
        format!("{SECURE_COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict; Secure"),
        format!("{PLAIN_COOKIE}=; Path={ROOT}; Max-Age=0; HttpOnly; SameSite=Strict"),
    ] {
        set_cookie(headers, set);
    }
}

fn set_cookie(headers: &mut HeaderMap, set: String) {
    if let Ok(set) = HeaderValue::try_from(set) {
        headers.append(header::SET_COOKIE, set); // always: plain characters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_form_of_another_site_is_told_by_what_the_browser_says() {
        let own = |pairs: &[(&'static str, &'static str)]| is_own(&headers(pairs), "https://t.example");
        assert!(own(&[]) && own(&[("sec-fetch-site", "same-origin")]));
        assert!(own(&[("host", "10.0.0.1:8080"), ("origin", "http://10.0.0.1:8080")]));
        assert!(own(&[("host", "backend"), ("origin", "https://t.example")]));
        for site in ["cross-site", "same-site", "none"] {
            let value = HeaderValue::from_static(site);
            assert!(
                !is_own(&HeaderMap::from_iter([(SEC_FETCH_SITE.clone(), value)]), "https://t.example"),
                "{site}"
            );
        }
        for origin in ["null", "https://evil.example", "https://t.example.evil.example", ""] {
            let value = HeaderValue::from_static(origin);
            assert!(
                !is_own(&HeaderMap::from_iter([(header::ORIGIN, value)]), "https://t.example"),
                "{origin}"
            );
        }
    }

    #[test]
    fn a_cookie_is_taken_by_its_name_and_shape() {
        let code = "abcdefghijklmnopqrstuvwxyz0123456789ABCDE-_";
        let of = |cookie: String| {
            let (mut parts, ()) = http::Request::new(()).into_parts();
            parts.headers.insert(header::COOKIE, HeaderValue::try_from(cookie).unwrap());
            cookie_of(&parts).map(str::to_owned)
        };
        assert_eq!(of(format!("a=b; octo_session={code}")), Some(code.to_owned()));
        assert_eq!(of(format!("octo_session=x; __Host-octo_session={code}")), Some(code.to_owned()));
        for bad in ["", "octo_session", "octo_session=x", "xocto_session=", "octo_session=abc%00"] {
            assert_eq!(of(bad.to_owned()), None, "{bad}");
        }
    }
}
