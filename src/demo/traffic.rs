//! Thirty days of traffic: days and nights, better and worse placements, robots and doubles, people who read on and people who
//! buy, and a network that says so, takes some of it back, and has a word that nobody knows.
//!
//! The same numbers are drawn each time; only the ids are new.

use std::{collections::BTreeMap, net::IpAddr};

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, TimeDelta, Utc, Weekday};
use fastrand::Rng;
use rust_decimal::Decimal;

use super::{
    Day,
    terms::{Lane, SoldOffer},
};
use crate::{
    facts::{Fact, click::Click, out_click::OutClick, postback::Postback},
    model::{
        click::InvalidReason,
        conversion::Channel,
        id::{ClickId, uuid_at},
        money::Currency,
        out_click::Carrier,
        rule::{DEFAULT_RULE, ONLY_PATH},
    },
};

const SEED: u64 = 0x006f_6374_6f64_656d;

/// How many come in each hour (UTC) of a day.
const HOURS: [u32; 24] =
    [8, 5, 4, 3, 3, 5, 9, 14, 19, 22, 23, 24, 25, 24, 23, 23, 25, 28, 33, 36, 35, 29, 20, 13];

/// Of each placement's visitors so many percent of what is usual buy.
const PLACEMENTS: [u32; 12] = [240, 190, 150, 120, 100, 90, 70, 60, 40, 30, 10, 0];

/// Device, system with version, browser with version, user agent, share.
type Agent = (&'static str, (&'static str, &'static str), (&'static str, &'static str), &'static str, u32);

const AGENTS: [Agent; 5] = [
    (
        "mobile",
        ("Android", "14"),
        ("Chrome Mobile", "140.0"),
        "Mozilla/5.0 (Linux; Android 14; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
        44,
    ),
    (
        "mobile",
        ("iOS", "18.5"),
        ("Mobile Safari", "18.5"),
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
        27,
    ),
    (
        "desktop",
        ("Windows", "10"),
        ("Chrome", "140.0"),
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
        18,
    ),
    (
        "desktop",
        ("macOS", "10.15"),
        ("Safari", "18.5"),
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
        7,
    ),
    (
        "tablet",
        ("iPadOS", "18.5"),
        ("Mobile Safari", "18.5"),
        "Mozilla/5.0 (iPad; CPU OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
        4,
    ),
];

/// What the network says of a sale, each so many days behind it; with its share.
type Story = (&'static [(i64, &'static str)], u32);

const STORIES: [Story; 5] = [
    (&[(0, "approved")], 66),
    (&[(0, "pending"), (2, "approved")], 17),
    (&[(0, "pending"), (3, "rejected")], 9),
    (&[(0, "approved"), (4, "refunded")], 5),
    (&[(0, "under_manual_review")], 3),
];

/// Draws the traffic of one day after the other.
pub(super) struct Traffic {
    lanes: Vec<Lane>,
    now: DateTime<Utc>,
    rng: Rng,
    /// What will come later than its click's day.
    later: BTreeMap<NaiveDate, Day>,
    sales: u32,
}

impl Traffic {
    /// Up to `now`.
    pub(super) fn new(lanes: Vec<Lane>, now: DateTime<Utc>) -> Self {
        Self { lanes, now, rng: Rng::with_seed(SEED), later: BTreeMap::new(), sales: 0 }
    }

    /// What comes on this day.
    pub(super) fn day(&mut self, date: NaiveDate) -> Day {
        let lanes = std::mem::take(&mut self.lanes);
        let midnight = date.and_time(NaiveTime::MIN).and_utc();
        let is_weekend = matches!(date.weekday(), Weekday::Sat | Weekday::Sun);
        for lane in &lanes {
            let usual = lane.plan.clicks * if is_weekend { 118 } else { 100 } / 100;
            for _ in 0..usual * self.rng.u32(85..115) / 100 {
                let hour = i64::from(self.pick(&HOURS, |hour| *hour).0);
                let at =
                    midnight + TimeDelta::milliseconds((hour * 3600 * 1000) + self.rng.i64(0..3_600_000));
                if at < self.now {
                    self.visit(lane, at);
                }
            }
        }
        self.lanes = lanes;
        let mut day = self.later.remove(&date).unwrap_or_default();
        day.clicks.sort_unstable_by_key(Fact::at);
        day.out_clicks.sort_unstable_by_key(Fact::at);
        day.postbacks.sort_unstable_by_key(Fact::at);
        day
    }

    fn visit(&mut self, lane: &Lane, at: DateTime<Utc>) {
        let Some(id) = ClickId::from_uuid(uuid_at(at)) else { return };
        let (_, &(country, _)) = self.pick(lane.plan.countries, |(_, share)| *share);
        let (_, &(device, os, browser, user_agent, _)) = self.pick(&AGENTS, |agent| agent.4);
        let (placement, creative) = (self.rng.usize(0..PLACEMENTS.len()), self.rng.u32(1..6));
        let invalid_reason = match self.rng.u32(0..100) {
            0..4 => Some(InvalidReason::Bot),
            4..6 => Some(InvalidReason::Duplicate),
            6 => Some(InvalidReason::Datacenter),
            _ => None,
        };
        let is_bot = invalid_reason == Some(InvalidReason::Bot);
        let of_rule = lane.rule.filter(|rule| (rule.2, rule.3) == (country, os.0));
        let landing_page_id = match of_rule {
            Some(_) => lane.pages.last().copied(),
            None => self.rng.choice(&lane.pages).copied(),
        };
        let offer = self.rng.choice(&lane.offers).cloned();
        let cost = i64::from(lane.plan.cost_micros * self.rng.u32(70..131) / 100);
        let mut click = Click {
            ip: Some(IpAddr::from([203, 0, 113, 0])), // for documentation (RFC 5737), cut as addresses are
            user_agent: Some(if is_bot { "Mozilla/5.0 (compatible; bot)" } else { user_agent }.into()),
            is_bot,
            invalid_reason,
            country: Some(country.into()),
            device: Some(device.into()),
            os: Some(os.0.into()),
            os_version: Some(os.1.into()),
            browser: Some(browser.0.into()),
            browser_version: Some(browser.1.into()),
            click_id_param: Some(format!("demo-{:08x}", self.rng.u32(..)).into()),
            landing_page_id,
            campaign_offer_id: if landing_page_id.is_none() {
                offer.as_ref().map(|offer| offer.id)
            } else {
                None
            },
            cost: Some(Decimal::new(cost, 6)),
            currency: Some(Currency::USD),
            rule_id: Some(of_rule.map_or(DEFAULT_RULE, |rule| rule.0)),
            path_id: Some(of_rule.map_or(ONLY_PATH, |rule| rule.1)),
            source_id: Some(lane.source_id),
            creative: Some(format!("ad-{creative}").into()),
            placement: Some(format!("site-{:02}.example", placement + 1).into()),
            is_unique: invalid_reason.is_none() && self.rng.u32(0..100) < 88,
            ..Click::new(id, lane.campaign.id)
        };
        click.keyword = self.rng.choice(lane.plan.keywords).map(|keyword| (*keyword).into());
        let is_valid = click.is_valid();
        let of_click = (id, click.rule_id, click.path_id, landing_page_id);
        self.on(at).clicks.push(click);
        let Some(offer) = offer.filter(|_| is_valid) else { return };
        let mut reached = at;
        if landing_page_id.is_some() {
            if self.rng.u32(0..1000) >= lane.plan.out_per_mille {
                return;
            }
            reached += TimeDelta::seconds(self.rng.i64(4..180));
            if reached >= self.now {
                return;
            }
            let (click_id, rule_id, path_id, landing_page_id) = of_click;
            let out = OutClick {
                click_id: Some(click_id),
                campaign_id: Some(lane.campaign.id),
                rule_id,
                path_id,
                landing_page_id,
                offer_id: Some(offer.id),
                carrier: Carrier::Token,
                country: Some(country.into()),
                device: Some(device.into()),
                os: Some(os.0.into()),
                browser: Some(browser.0.into()),
                ..OutClick::new(uuid_at(reached))
            };
            self.on(reached).out_clicks.push(out);
        }
        // whoever read a page is nearer to buying
        let nearer = if landing_page_id.is_some() { 3 } else { 1 };
        if self.rng.u32(0..1_000_000) < lane.plan.sales_per_myriad * nearer * PLACEMENTS[placement] {
            self.sell(lane, id, &offer, reached);
        }
    }

    fn sell(&mut self, lane: &Lane, click_id: ClickId, offer: &SoldOffer, reached: DateTime<Utc>) {
        self.sales += 1;
        let sale = self.sales;
        let sold = reached + TimeDelta::seconds(self.rng.i64(60..5400));
        let (_, (story, _)) = self.pick(&STORIES, |story| story.1);
        for (days, word) in *story {
            let at = sold + TimeDelta::days(*days);
            if at >= self.now {
                return;
            }
            let params = format!(
                "click_id={click_id}&status={word}&payout={}&currency={}&txid=demo-{sale:05}",
                offer.payout.amount, offer.payout.currency
            );
            let mut postback = Postback::new(uuid_at(at), params);
            (postback.channel, postback.click_id) = (Channel::Http, Some(click_id));
            postback.network_id = Some(lane.network_id);
            self.on(at).postbacks.push(postback);
        }
    }

    fn on(&mut self, at: DateTime<Utc>) -> &mut Day {
        self.later.entry(at.date_naive()).or_default()
    }

    /// One of them by its share, with its place.
    fn pick<'a, T>(&mut self, of: &'a [T], share: impl Fn(&T) -> u32) -> (u32, &'a T) {
        let mut left = self.rng.u32(0..of.iter().map(&share).sum());
        for (place, one) in (0..).zip(of) {
            match left.checked_sub(share(one)) {
                Some(rest) => left = rest,
                None => return (place, one),
            }
        }
        (0, &of[0])
    }
}
