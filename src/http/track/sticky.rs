//! What is known of a visitor when he clicks: what he got before, from the cookie `octo_s`, and whether he was here today.
//! The cookie holds choices only, sealed; of who asks for privacy none is read, and none is set.

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::{
    app::Parts,
    judge::uniques,
    model::rule::{Dimension, Sticky},
    privacy::Sender,
    routing::{Bound, Decision, Routes, sticky::Choices},
    seal::Purpose,
};

/// The cookie of choices.
const COOKIE: &str = "octo_s";

/// Longest cookie that is looked at; ours is shorter.
const COOKIE_CHARS_MAX: usize = 1024;

/// What is known of a visitor.
#[derive(Debug)]
pub(crate) struct Remembered {
    /// Who visits the campaign, for a day.
    pub(crate) visit: u64,
    /// What he got before; `None`: the campaign keeps no choices, or he asks for privacy.
    choices: Option<Choices>,
    /// Whether it is his first click of the campaign today, whether or not it counts.
    pub(crate) is_unique: Option<bool>,
    /// Whether he came before.
    pub(crate) is_returning: Option<bool>,
}

impl Remembered {
    /// Of whoever clicks on a campaign at a time. What no rule of the campaign looks at is not found out.
    pub(crate) fn of(
        app: &Parts,
        headers: &HeaderMap,
        routes: &Routes,
        sender: &Sender<'_>,
        now: DateTime<Utc>,
        is_click: bool,
    ) -> Self {
        let now_s = u64::try_from(now.timestamp()).unwrap_or(0);
        let agent = sender.user_agent.as_deref().unwrap_or_default();
        let campaign = &routes.campaign;
        let visit = app.keys.hash_visit(sender.ip, agent, campaign.id, now_s);
        let choices = choices(app, headers, routes, sender.asks_for_privacy);
        let dimensions = routes.dimensions();
        let is_looked_at =
            dimensions.contains(Dimension::Unique) || dimensions.contains(Dimension::Returning);
        let is_unique = is_looked_at.then(|| app.uniques.is_first(visit, now_s, is_click));
        let is_known = choices.as_ref().is_some_and(|choices| choices.knows(campaign));
        let is_returning = match is_unique {
            None => None,
            Some(is_unique) if is_known || !is_unique => Some(true),
            // nobody knows of other days
            Some(_) if sender.asks_for_privacy => None,
            Some(_) => Some(false),
        };
        Self { visit, choices, is_unique, is_returning }
    }

    /// What choices hang on where they are kept.
    pub(crate) fn key(&self) -> u64 {
        uniques::visitor_key(self.visit)
    }

    /// What he got before.
    pub(crate) fn bound(&self, routes: &Routes) -> Option<Bound> {
        self.choices.as_ref()?.bound(&routes.campaign)
    }

    /// The cookie that keeps what he got, for `Set-Cookie`.
    pub(crate) fn cookie(
        self,
        app: &Parts,
        routes: &Routes,
        decision: &Decision<'_>,
        now: DateTime<Utc>,
    ) -> Option<HeaderValue> {
        let mut choices = self.choices?;
        choices.note(&routes.campaign, decision);
        choices.knows(&routes.campaign).then(|| set(app, &choices, now)).flatten()
    }

    /// The cookie that keeps the offer too that he went to from a landing page, for `Set-Cookie`; `None` where it is kept
    /// already, or is not to be.
    pub(crate) fn cookie_of_offer(
        self,
        app: &Parts,
        routes: &Routes,
        decision: &Decision<'_>,
        now: DateTime<Utc>,
    ) -> Option<HeaderValue> {
        let mut choices = self.choices?;
        choices.note_offer(&routes.campaign, decision).then(|| set(app, &choices, now)).flatten()
    }
}

/// The choices of whoever sends these headers, where the campaign keeps them; one that did not come from here is none.
fn choices(app: &Parts, headers: &HeaderMap, routes: &Routes, asks_for_privacy: bool) -> Option<Choices> {
    if routes.campaign.terms.sticky == Sticky::Off || asks_for_privacy {
        return None;
    }
    let text = cookie(headers).filter(|text| text.len() <= COOKIE_CHARS_MAX);
    let bytes = text.and_then(|text| app.keyring.open_text(Purpose::Sticky, text).ok());
    Some(bytes.map(|bytes| Choices::read(&bytes)).unwrap_or_default())
}

/// Our cookie, of however many.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';'));
    pairs.find_map(|pair| pair.trim_start().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn set(app: &Parts, choices: &Choices, now: DateTime<Utc>) -> Option<HeaderValue> {
    let text = app.keyring.seal(Purpose::Sticky, &choices.to_bytes(), now);
    let age_s = app.config.tracking.sticky.as_secs();
    let secure = if app.public_url.starts_with("https://") { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={text}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_maybe_shared(Bytes::from(cookie)).ok()
}
