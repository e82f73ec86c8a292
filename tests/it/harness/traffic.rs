//! Thirty days of traffic of usual shape, and what reports are asked about it: small in `api::report_scale`, large in
//! `cargo bench --bench reports`.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

/// Makes campaigns, and the function `bench.make_day(day, clicks)`.
pub(crate) const GENERATE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/reports/generate.sql"));

/// Of traffic.
pub(crate) const DAYS: i32 = 30;

/// The seventeenth by clicks: one in a hundred.
const CAMPAIGN: &str = "campaign-17";

const MEASURES: [&str; 6] = ["clicks", "unique_clicks", "cost", "conversions", "revenue", "roi"];

/// A report that is asked for.
pub(crate) struct Asked {
    pub(crate) name: &'static str,
    pub(crate) group_by: &'static [&'static str],
    /// Whether it is of one campaign.
    pub(crate) is_of_one: bool,
    /// What it should take of 30 days with 100,000,000 clicks, in milliseconds.
    pub(crate) goal: u32,
}

/// What an owner asks.
pub(crate) const REPORTS: &[Asked] = &[
    asked("overview", &[], false, 50),
    asked("overview by day", &["day"], false, 200),
    asked("campaigns", &["campaign"], false, 50),
    asked("country", &["country"], false, 200),
    asked("browser", &["browser"], false, 200),
    asked("path", &["path"], false, 200),
    asked("country, os", &["country", "os"], false, 2000),
    asked("path, os", &["path", "os"], false, 2000),
    asked("of one campaign: country", &["country"], true, 150),
    asked("of one campaign: day, offer", &["day", "offer"], true, 150),
    asked("of one campaign: country, device, offer", &["country", "device", "offer"], true, 150),
    asked("of one campaign: day, path, os", &["day", "path", "os"], true, 150),
];

/// What is read from the facts, because it is in no sum.
pub(crate) const OF_FACTS: Asked = asked("of one campaign: sub1", &["sub1"], true, 1000);

const fn asked(name: &'static str, group_by: &'static [&'static str], is_of_one: bool, goal: u32) -> Asked {
    Asked { name, group_by, is_of_one, goal }
}

impl Asked {
    /// As `POST /reports` takes it: of so many days before `end`.
    pub(crate) fn question(&self, end: NaiveDate, days: i32, tz: Tz) -> Value {
        let begin = |day: NaiveDate| -> DateTime<Utc> {
            let midnight = day.and_time(NaiveTime::MIN).and_local_timezone(tz);
            midnight.earliest().map_or_else(|| day.and_time(NaiveTime::MIN).and_utc(), |at| at.to_utc())
        };
        let of_one = json!({ "dimension": "campaign", "is": [CAMPAIGN] });
        json!({
            "group_by": self.group_by,
            "measures": MEASURES,
            "filters": if self.is_of_one { vec![of_one] } else { Vec::new() },
            "from": begin(end - TimeDelta::days(days.into())),
            "to": begin(end),
            "tz": tz.name(),
        })
    }
}

/// The same question with a filter that holds for every click and that no sum knows: so it is answered from the facts.
pub(crate) fn of_facts(mut question: Value) -> Value {
    let filters = question["filters"].as_array_mut().expect("a question has filters");
    filters.push(json!({ "dimension": "sub1", "starts": ["ad-"] }));
    question
}
