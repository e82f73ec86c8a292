//! Clicks and conversions as they are stored, by server-sent events. Bounded everywhere: streams, rows of a second, rows that wait.

use std::{convert::Infallible, sync::Arc, sync::atomic::Ordering, time::Duration};

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderName, HeaderValue},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::stream;
use serde_json::json;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use uuid::Uuid;

use super::{
    failure::Failure,
    figures,
    form::Fields,
    frame::{Frame, Section},
    html,
    session::{Opened, Viewer},
    view::View,
};
use crate::{
    app::App,
    http::error::{FieldError, Problem},
    live::{Seen, Watcher, What},
    model::money::amount_text,
    reports::question::Dimension,
};

const PATH: &str = "/ui/live";

/// What is left out, in the address.
const OWN: [&str; 4] = ["campaign", "kind", "country", "valid"];

/// When one who found no place may ask again, in seconds.
const RETRY_S: u64 = 10;

/// What somebody wants to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Wanted {
    campaign: Option<Uuid>,
    is_click: Option<bool>,
    country: Option<String>,
    is_valid: Option<bool>,
}

impl Wanted {
    /// What an address asks; `Err`: no campaign in memory is called so.
    fn of(fields: &Fields, app: &App) -> Result<Self, String> {
        let campaign = match fields.text("campaign") {
            "" => None,
            name => {
                let all = app.campaigns.list();
                let found = all.iter().map(|routes| &routes.campaign).find(|campaign| {
                    campaign.key.as_str() == name || campaign.id.to_string().eq_ignore_ascii_case(name)
                });
                Some(found.ok_or("There is no campaign with this key or id.")?.id)
            }
        };
        Ok(Self { campaign, ..Self::without_campaign(fields) })
    }

    fn without_campaign(fields: &Fields) -> Self {
        let choice = |name, yes, no| match fields.text(name) {
            text if text == yes => Some(true),
            text if text == no => Some(false),
            _ => None,
        };
        let country = fields.text("country").to_ascii_uppercase();
        Self {
            campaign: None,
            is_click: choice("kind", "clicks", "conversions"),
            country: (!country.is_empty()).then_some(country),
            is_valid: choice("valid", "yes", "no"),
        }
    }

    fn has(&self, seen: &Seen) -> bool {
        let country = match &seen.what {
            What::Click { country, .. } => country.as_deref(),
            What::Conversion { .. } => None,
        };
        let is_click = matches!(seen.what, What::Click { .. });
        self.campaign.is_none_or(|campaign| campaign == seen.campaign_id)
            && self.is_click.is_none_or(|wanted| wanted == is_click)
            && self.country.as_deref().is_none_or(|wanted| country == Some(wanted))
            && self.is_valid.is_none_or(|wanted| wanted == seen.is_valid)
    }
}

#[derive(Template)]
#[template(path = "live.html")]
struct LivePage {
    campaign: String,
    country: String,
    kinds: Vec<(&'static str, &'static str, bool)>,
    validities: Vec<(&'static str, &'static str, bool)>,
    kept: Vec<(String, String)>,
    fault: Option<String>,
    events: String,
    rows_max: usize,
    per_second: usize,
    clicks: String,
    frame: Frame,
}

/// `GET /ui/live`
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let fields = &opened.fields;
    let frame = Frame::of(&app, &opened, Section::Live, PATH, &OWN).titled("Live");
    let choice = |name: &str, values: [(&'static str, &'static str); 3]| {
        let asked = fields.text(name);
        values.into_iter().map(|(value, text)| (value, text, value == asked)).collect()
    };
    let config = &app.config.dashboard;
    html(&LivePage {
        campaign: fields.text("campaign").to_owned(),
        country: fields.text("country").to_owned(),
        kinds: choice(
            "kind",
            [("", "Clicks and conversions"), ("clicks", "Clicks"), ("conversions", "Conversions")],
        ),
        validities: choice("valid", [("", "All"), ("yes", "That count"), ("no", "That do not count")]),
        kept: frame.query.hidden(&OWN),
        fault: Wanted::of(fields, &app).err(),
        events: frame.query.at("/ui/live/events").to_string(),
        rows_max: config.live_rows_max,
        per_second: config.live_rows_per_second_max,
        clicks: frame.view.link("/ui/clicks"),
        frame,
    })
}

/// `GET /ui/live/events`
pub(super) async fn events(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let Opened { viewer, fields } = opened;
    let wanted = Wanted::of(&fields, &app)
        .map_err(|fault| Problem::unprocessable(vec![FieldError::new("/campaign", "unknown", fault)]))?;
    let watcher = app.live.watch().ok_or_else(|| {
        Problem::too_many(RETRY_S, "Too many live views are open. Close one, or try again in a while.")
    })?;
    let view = View::of(PATH, &fields, &app.config.dashboard, chrono::Utc::now());
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let checked = Instant::now();
    let told = None; // so that the first tick, which is at once, tells that it has begun
    let stream = Stream {
        app,
        viewer,
        view,
        wanted,
        watcher,
        tick,
        checked,
        of_second: 0,
        counts: Counts::default(),
        told,
    };
    let events = stream::unfold(Some(stream), |stream| async move { stream?.next().await });
    let mut response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    // a proxy that keeps back what is small would show nothing
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response.headers_mut().insert(unbuffered.0, unbuffered.1);
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// What was not shown, since the stream began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    /// There were too many in a second.
    counted: u64,
    /// The reader was too slow.
    lost: u64,
}

/// The answer to one who looks.
struct Stream {
    app: App,
    viewer: Viewer,
    view: View,
    wanted: Wanted,
    watcher: Watcher,
    tick: Interval,
    /// When the session was looked for last.
    checked: Instant,
    /// Rows of this second.
    of_second: usize,
    counts: Counts,
    told: Option<Counts>,
}

type Next = Option<(Result<Event, Infallible>, Option<Stream>)>;

impl Stream {
    async fn next(mut self) -> Next {
        let per_second = self.app.config.dashboard.live_rows_per_second_max;
        loop {
            tokio::select! {
                seen = self.watcher.next() => match seen {
                    Ok(seen) if !self.wanted.has(&seen) => {}
                    Ok(seen) if self.of_second < per_second => {
                        self.of_second += 1;
                        return Some((Ok(self.row(&seen)), Some(self)));
                    }
                    Ok(_) => self.counts.counted += 1,
                    Err(lost) => self.counts.lost += lost,
                },
                _ = self.tick.tick() => {
                    self.of_second = 0;
                    if let Some(why) = self.end().await {
                        return Some((Ok(Event::default().event("end").data(why)), None));
                    }
                    if self.told != Some(self.counts) {
                        self.told = Some(self.counts);
                        let Counts { counted, lost } = self.counts;
                        let data = json!({ "counted": counted, "lost": lost }).to_string();
                        return Some((Ok(Event::default().event("counts").data(data)), Some(self)));
                    }
                }
            }
        }
    }

    /// Why it is over, in a sentence.
    async fn end(&mut self) -> Option<&'static str> {
        if self.app.state.is_stopping.load(Ordering::Relaxed) {
            return Some("octo stops. Load the page again in a moment.");
        }
        if self.checked.elapsed() < self.app.config.dashboard.live_session_check {
            return None;
        }
        self.checked = Instant::now();
        match self.viewer.is_still_signed_in(&self.app).await {
            Ok(true) => None,
            Ok(false) => Some("Your session is over. Load the page again to sign in."),
            Err(_) => Some(
                "The database cannot be asked whether you are signed in. Load the page again in a moment.",
            ),
        }
    }

    fn row(&self, seen: &Arc<Seen>) -> Event {
        let campaign = self.app.campaigns.in_memory_by_id(seen.campaign_id);
        let campaign =
            campaign.map_or_else(|| seen.campaign_id.to_string(), |it| it.campaign.key.as_str().to_owned());
        let link = |path: String| self.view.link(&path);
        let (kind, country, device, sub1, state, amount) = match &seen.what {
            What::Click { country, device, sub1, reason } => (
                "Click",
                figures::value_name(Dimension::Country, country.as_deref()),
                device.as_str(),
                sub1.as_deref().unwrap_or_default(),
                reason.map_or_else(|| "counts".to_owned(), |reason| reason.to_string().replace('_', " ")),
                String::new(),
            ),
            What::Conversion { status, payout, currency } => {
                let amount = format!("{} {currency}", amount_text(*payout));
                ("Conversion", String::new(), "", "", (*status).to_owned(), amount)
            }
        };
        // in the order of the columns
        let row = json!({
            "click": link(format!("/ui/clicks/{}", seen.click_id)),
            "campaign": link(format!("/ui/campaigns/{}", seen.campaign_id)),
            "counts": seen.is_valid,
            "cells": [self.view.moment(seen.at), kind, campaign, country, device, sub1, state, amount],
        });
        Event::default().event("row").data(row.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::ClickId;

    #[test]
    fn each_filter_leaves_out_what_it_says() {
        let click = Seen {
            at: chrono::Utc::now(),
            click_id: ClickId::now(),
            campaign_id: Uuid::nil(),
            is_valid: false,
            what: What::Click {
                country: Some("DE".to_owned()),
                device: String::new(),
                sub1: None,
                reason: None,
            },
        };
        for (query, is_wanted) in [
            ("", true),
            ("kind=clicks&country=de&valid=no", true),
            ("kind=conversions", false),
            ("country=FR", false),
            ("valid=yes", false),
            ("kind=nonsense&valid=x", true),
        ] {
            assert_eq!(Wanted::without_campaign(&Fields::parse(query)).has(&click), is_wanted, "{query}");
        }
        assert!(!Wanted { campaign: Some(Uuid::max()), ..Wanted::default() }.has(&click));
    }
}
