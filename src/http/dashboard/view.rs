//! What every page is asked alike: a range of days, whose days they are, and the currency of amounts. It stands in the address and
//! goes along with every link, so it is the same on the next page.

use chrono::{
    DateTime, Datelike as _, Days, Months, NaiveDate, SecondsFormat, TimeDelta, Timelike as _, Utc,
};
use chrono_tz::Tz;
use serde_json::{Value, json};

use super::{form::Fields, query::Query};
use crate::{
    config,
    model::money::Currency,
    reports::{plan::begin_of, question::Dimension},
};

/// The parameters that go along with every link.
pub(super) const COMMON: [&str; 5] = ["range", "from", "to", "tz", "currency"];

/// A range with a name: what stands in the address, what is shown, the key that leads to it.
type Preset = (&'static str, &'static str, &'static str);

/// Ranges with a name; all but those that are over include today.
const PRESETS: [Preset; 8] = [
    ("today", "Today", "D"),
    ("yesterday", "Yesterday", "Y"),
    ("7d", "7 days", "W"),
    ("14d", "14 days", "F"),
    ("30d", "30 days", "T"),
    ("90d", "90 days", "Q"),
    ("month", "This month", "M"),
    ("last-month", "Last month", "L"),
];

/// A link to a range: its address, its name, its key, whether it is the one.
pub(super) type PresetLink = (String, &'static str, &'static str, bool);

/// The range where the address names none.
const DEFAULT: &str = "7d";

/// What a page is asked.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The address: the path and the common parameters.
    pub(super) query: Query,
    /// The name of the range; `custom`: by its days.
    pub(super) range: &'static str,
    /// The first day.
    pub(super) first: NaiveDate,
    /// The last day.
    pub(super) last: NaiveDate,
    /// Whose days.
    pub(super) tz: Tz,
    /// Of amounts.
    pub(super) currency: Currency,
    now: DateTime<Utc>,
}

impl View {
    /// Reads an address. What makes no sense is as if it were not there: an address that somebody cut still shows something.
    pub(super) fn of(path: &str, fields: &Fields, config: &config::Dashboard, now: DateTime<Utc>) -> Self {
        let tz = fields.text("tz").parse().unwrap_or(config.time_zone);
        let currency =
            fields.text("currency").parse().ok().filter(Currency::is_known).unwrap_or(config.currency);
        let today = now.with_timezone(&tz).date_naive();
        let day = |name| fields.text(name).parse::<NaiveDate>().ok();
        let (range, first, last) = match (fields.text("range"), day("from"), day("to")) {
            ("custom", Some(from), Some(to)) if from <= to => ("custom", from, to),
            (name, ..) => {
                let name =
                    PRESETS.iter().map(|(name, ..)| *name).find(|known| *known == name).unwrap_or(DEFAULT);
                let (first, last) = days_of(name, today);
                (name, first, last)
            }
        };
        let common: &[&str] = if range == "custom" { &COMMON } else { &["range", "tz", "currency"] };
        Self { query: Query::new(path).keeping(fields, common), range, first, last, tz, currency, now }
    }

    /// This range on another page.
    pub(super) fn link(&self, path: &str) -> String {
        self.query.at(path).to_string()
    }

    /// The ranges with a name.
    pub(super) fn presets(&self, query: &Query) -> Vec<PresetLink> {
        let query = query.without("cursor").without("page").without("from").without("to");
        let of = |(name, label, key): &Preset| {
            (query.with("range", name).to_string(), *label, *key, *name == self.range)
        };
        PRESETS.iter().map(of).collect()
    }

    /// As many days just before these.
    pub(super) fn earlier(&self, query: &Query) -> Option<String> {
        let days = Days::new(self.days_count());
        moved(query, self.first.checked_sub_days(days)?, self.last.checked_sub_days(days)?)
    }

    /// As many days just after these, as far as they have begun.
    pub(super) fn later(&self, query: &Query) -> Option<String> {
        if self.is_running() {
            return None;
        }
        let today = self.now.with_timezone(&self.tz).date_naive();
        let days = Days::new(self.days_count());
        moved(query, self.first.checked_add_days(days)?, self.last.checked_add_days(days)?.min(today))
    }

    fn days_count(&self) -> u64 {
        u64::try_from((self.last - self.first).num_days()).unwrap_or(0) + 1
    }

    /// The first moment.
    pub(super) fn from(&self) -> DateTime<Utc> {
        begin_of(self.tz, self.first)
    }

    /// The moment after the last: of a range that is still running the end of this hour, so that it is compared with as much of the
    /// one before.
    pub(super) fn to(&self) -> DateTime<Utc> {
        let end = begin_of(self.tz, self.last.succ_opt().unwrap_or(self.last));
        let hour =
            self.now.with_minute(0).and_then(|at| at.with_second(0)).and_then(|at| at.with_nanosecond(0));
        let hour = hour.unwrap_or(self.now) + TimeDelta::hours(1);
        if self.is_running() { end.min(hour).max(self.from() + TimeDelta::hours(1)) } else { end }
    }

    /// The day that it is.
    pub(super) fn today(&self) -> NaiveDate {
        self.now.with_timezone(&self.tz).date_naive()
    }

    /// Whether today is in it.
    pub(super) fn is_running(&self) -> bool {
        self.last >= self.now.with_timezone(&self.tz).date_naive()
    }

    /// What its graph is told apart by: hours of one or two days, days, else months.
    pub(super) fn step(&self) -> Dimension {
        match (self.last - self.first).num_days() {
            ..=1 => Dimension::Hour,
            2..=120 => Dimension::Day,
            _ => Dimension::Month,
        }
    }

    /// The days in words.
    pub(super) fn days(&self) -> String {
        let day = |day: NaiveDate| day.format("%-d %b %Y").to_string();
        if self.first == self.last {
            return day(self.first);
        }
        if self.first.year() == self.last.year() {
            return format!("{} \u{2013} {}", self.first.format("%-d %b"), day(self.last));
        }
        format!("{} \u{2013} {}", day(self.first), day(self.last))
    }

    /// A question of reports about this range, to be added to.
    pub(super) fn question(&self) -> Value {
        self.question_of(self.from(), self.to())
    }

    /// Likewise about as long a time just before.
    pub(super) fn question_before(&self) -> Value {
        let (from, to) = (self.from(), self.to());
        self.question_of(from - (to - from), from)
    }

    fn question_of(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Value {
        let text = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        json!({ "from": text(from), "to": text(to), "tz": self.tz.name(), "currency": self.currency.to_string() })
    }

    /// A moment as it is shown.
    pub(super) fn moment(&self, at: DateTime<Utc>) -> String {
        at.with_timezone(&self.tz).format("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// The hours, days or months of its graph, as reports name them.
    pub(super) fn steps(&self) -> Vec<String> {
        self.steps_between(self.from(), self.to())
    }

    /// Those of as long a time just before.
    pub(super) fn steps_before(&self) -> Vec<String> {
        let (from, to) = (self.from(), self.to());
        self.steps_between(from - (to - from), from)
    }

    fn steps_between(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<String> {
        let day = |at: DateTime<Utc>| at.with_timezone(&self.tz).date_naive();
        let (first, last) = (day(from), day(to - TimeDelta::seconds(1)));
        match self.step() {
            Dimension::Hour => {
                let name = |hour| (from + TimeDelta::hours(hour)).to_rfc3339_opts(SecondsFormat::Secs, true);
                (0..(to - from).num_hours()).map(name).collect()
            }
            Dimension::Month => {
                let first = first.with_day(1).unwrap_or(first);
                let months = (0..).map_while(|n| first.checked_add_months(Months::new(n)));
                months
                    .take_while(|month| *month <= last)
                    .map(|month| month.format("%Y-%m").to_string())
                    .collect()
            }
            _ => first.iter_days().take_while(|day| *day <= last).map(|day| day.to_string()).collect(),
        }
    }
}

fn days_of(range: &str, today: NaiveDate) -> (NaiveDate, NaiveDate) {
    let ago = |days| today.checked_sub_days(Days::new(days)).unwrap_or(today);
    let month = today.with_day(1).unwrap_or(today);
    match range {
        "today" => (today, today),
        "yesterday" => (ago(1), ago(1)),
        "14d" => (ago(13), today),
        "30d" => (ago(29), today),
        "90d" => (ago(89), today),
        "month" => (month, today),
        "last-month" => {
            let first = month.checked_sub_months(Months::new(1)).unwrap_or(month);
            (first, month.pred_opt().unwrap_or(month))
        }
        _ => (ago(6), today),
    }
}

/// The same page for these days; `None` where there are none.
fn moved(query: &Query, first: NaiveDate, last: NaiveDate) -> Option<String> {
    let query = query.without("cursor").without("page").with("range", "custom");
    (first <= last).then(|| query.with("from", &first.to_string()).with("to", &last.to_string()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(query: &str) -> View {
        let config = crate::config::Loaded::load(None, [], &crate::config::Flags::default()).unwrap().config;
        let now = "2026-11-30T23:20:30Z".parse().unwrap();
        View::of("/ui", &Fields::parse(query), &config.dashboard, now)
    }

    #[test]
    fn ranges_are_of_days_of_the_zone_and_include_today_by_default() {
        for (query, first, last) in [
            ("", "2026-11-24", "2026-11-30"),
            ("range=nonsense&from=x", "2026-11-24", "2026-11-30"),
            ("range=today&tz=Asia/Tokyo", "2026-12-01", "2026-12-01"),
            ("range=yesterday", "2026-11-29", "2026-11-29"),
            ("range=30d", "2026-11-01", "2026-11-30"),
            ("range=last-month", "2026-10-01", "2026-10-31"),
            ("range=month&tz=Asia/Tokyo", "2026-12-01", "2026-12-01"),
            ("range=custom&from=2026-01-02&to=2026-01-03", "2026-01-02", "2026-01-03"),
            ("range=custom&from=2026-01-03&to=2026-01-02", "2026-11-24", "2026-11-30"),
        ] {
            let view = view(query);
            assert_eq!(
                (view.first.to_string(), view.last.to_string()),
                (first.to_owned(), last.to_owned()),
                "{query}"
            );
        }
    }

    #[test]
    fn what_is_running_ends_with_this_hour_and_what_is_over_with_its_last_day() {
        let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        assert_eq!(view("").to(), time("2026-12-01T00:00:00Z"));
        let tokyo = view("range=today&tz=Asia/Tokyo");
        assert_eq!((tokyo.from(), tokyo.to()), (time("2026-11-30T15:00:00Z"), time("2026-12-01T00:00:00Z")));
        assert_eq!(tokyo.steps().len(), 9);
        let before = tokyo.question_before();
        assert_eq!(
            (before["from"].as_str(), before["to"].as_str()),
            (Some("2026-11-30T06:00:00Z"), Some("2026-11-30T15:00:00Z"))
        );
        assert_eq!(view("range=yesterday").to(), time("2026-11-30T00:00:00Z"));
        assert_eq!(view("range=custom&from=2025-11-01&to=2026-11-02").steps().len(), 13);
    }

    #[test]
    fn the_days_before_and_after_are_as_many_and_none_is_to_come() {
        let query = Query::new("/ui/report").with("g1", "day").with("range", "7d").with("cursor", "x");
        let week = view("");
        assert_eq!(
            week.earlier(&query).as_deref(),
            Some("/ui/report?g1=day&range=custom&from=2026-11-17&to=2026-11-23")
        );
        assert_eq!(week.later(&query), None, "it is running");
        let before = view("range=custom&from=2026-11-17&to=2026-11-23");
        assert_eq!(
            before.later(&query).as_deref(),
            Some("/ui/report?g1=day&range=custom&from=2026-11-24&to=2026-11-30")
        );
        let month = view("range=custom&from=2026-11-01&to=2026-11-29");
        assert!(
            month.later(&query).unwrap().ends_with("from=2026-11-30&to=2026-11-30"),
            "as far as it has begun"
        );
    }

    #[test]
    fn each_range_has_a_key_of_its_own() {
        let keys: std::collections::HashSet<_> = PRESETS.iter().map(|(_, _, key)| key).collect();
        assert_eq!(keys.len(), PRESETS.len());
    }

    #[test]
    fn the_range_the_zone_and_the_currency_go_along() {
        let view = view("range=30d&tz=Europe/Berlin&currency=eur&sort=-clicks&from=2026-01-01");
        assert_eq!(view.link("/ui/clicks"), "/ui/clicks?range=30d&tz=Europe%2FBerlin&currency=eur");
        assert_eq!(view.currency.to_string(), "EUR");
    }
}
