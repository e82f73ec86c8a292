//! Figures as people read them: grouped digits, two decimals, a sign and a tone for profit and loss.

use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::Value;

use crate::{
    http::api::reports::ReportFigures,
    model::money::Currency,
    reports::{
        figures::Sums,
        question::{Dimension, Measure, UNKNOWN, Validity},
    },
};

/// What stands where there is nothing to divide by.
const NOTHING: &str = "\u{2013}";

/// A figure as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Figure {
    /// The number.
    pub(super) text: String,
    /// `good`, `bad` or nothing: beside the sign, which says the same.
    pub(super) tone: &'static str,
}

/// How a figure differs from the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// In per cent, with its sign.
    pub(super) text: String,
    /// As that of a figure.
    pub(super) tone: &'static str,
}

/// A figure of a whole range above a page, and how it differs from the one before.
pub(super) struct Headline {
    /// What it is called, with its unit.
    pub(super) name: String,
    /// The figure.
    pub(super) figure: Figure,
    /// The change.
    pub(super) change: Option<Change>,
}

impl Headline {
    /// Of the totals of a report, and those of the time before.
    pub(super) fn of(
        measure: Measure,
        now: &ReportFigures,
        before: Option<&ReportFigures>,
        currency: Currency,
    ) -> Self {
        let (figure, change) = compared(measure, now, before);
        Self { name: heading(measure, currency), figure, change }
    }
}

/// A figure as it is shown, with its change where there is one to compare it with.
pub(super) fn compared(
    measure: Measure,
    now: &ReportFigures,
    before: Option<&ReportFigures>,
) -> (Figure, Option<Change>) {
    let now = value(now, measure);
    let change = before.and_then(|before| change(measure, now, value(before, measure)));
    (shown(measure, now), change)
}

/// What stands above a measure: its name, of amounts with their currency.
pub(super) fn heading(measure: Measure, currency: Currency) -> String {
    if measure.is_money() { format!("{}, {currency}", name(measure)) } else { name(measure).to_owned() }
}

/// A figure of a report.
pub(super) fn value(figures: &ReportFigures, measure: Measure) -> Option<Decimal> {
    match figures.0.get(<&str>::from(measure))? {
        Value::Number(number) => number.as_i64().map(Decimal::from),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// A figure of a report, as it is shown.
pub(super) fn figure(figures: &ReportFigures, measure: Measure) -> Figure {
    shown(measure, value(figures, measure))
}

/// A figure of sums, as it is shown.
pub(super) fn figure_of(sums: &Sums, measure: Measure) -> Figure {
    shown(measure, sums.measure(measure, Validity::Valid))
}

/// A figure as it is shown.
pub(super) fn shown(measure: Measure, value: Option<Decimal>) -> Figure {
    let Some(value) = value else { return Figure { text: NOTHING.to_owned(), tone: "" } };
    let has_sign = matches!(measure, Measure::Profit | Measure::ProfitExpected | Measure::Roi);
    let text = if measure.is_count() {
        grouped(value, 0)
    } else if is_of_one(measure) {
        grouped(value, 4)
    } else if measure.is_money() {
        grouped(value, 2)
    } else {
        format!("{}\u{202f}%", grouped(value * Decimal::ONE_HUNDRED, if has_sign { 1 } else { 2 }))
    };
    let tone = match value {
        _ if !has_sign || value.is_zero() => "",
        value if value.is_sign_negative() => "bad",
        _ => "good",
    };
    let text = if tone == "good" { format!("+{text}") } else { text };
    Figure { text, tone }
}

/// Amounts of single clicks are small.
fn is_of_one(measure: Measure) -> bool {
    matches!(measure, Measure::Epc | Measure::EpcOffer | Measure::Cpc)
}

/// The change from one figure to another; none where there was nothing.
pub(super) fn change(measure: Measure, now: Option<Decimal>, before: Option<Decimal>) -> Option<Change> {
    let (now, before) = (now?, before.filter(|before| !before.is_zero())?);
    let ratio = (now - before).checked_div(before.abs())? * Decimal::ONE_HUNDRED;
    let text = grouped(ratio, u32::from(ratio.abs() < Decimal::TEN));
    let is_worse_when_more = matches!(
        measure,
        Measure::Cost
            | Measure::Cpc
            | Measure::Cpa
            | Measure::Rejected
            | Measure::Refunded
            | Measure::BotClicks
            | Measure::Unmapped
    );
    let is_flat = text.trim_start_matches(MINUS).chars().all(|c| matches!(c, '0' | '.'));
    let tone = match (is_flat, ratio.is_sign_negative() != is_worse_when_more) {
        (true, _) => "",
        (false, true) => "bad",
        (false, false) => "good",
    };
    let sign = if is_flat || ratio.is_sign_negative() { "" } else { "+" };
    Some(Change { text: format!("{sign}{text}\u{202f}%"), tone })
}

const MINUS: char = '\u{2212}';

/// A number with its thousands apart and so many decimals, rounded half away from zero.
pub(super) fn grouped(value: Decimal, decimals: u32) -> String {
    let rounded = value.round_dp_with_strategy(decimals, RoundingStrategy::MidpointAwayFromZero);
    let text = format!("{:.*}", decimals as usize, rounded.abs());
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut shown = String::with_capacity(text.len() + 8);
    if rounded.is_sign_negative() && !rounded.is_zero() {
        shown.push(MINUS);
    }
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    if let Some(rest) = rest {
        shown.push('.');
        shown.push_str(rest);
    }
    shown
}

/// What a figure is called.
pub(super) fn name(measure: Measure) -> &'static str {
    use Measure as M;
    match measure {
        M::Clicks => "Clicks",
        M::ValidClicks => "Valid clicks",
        M::BotClicks => "Bot clicks",
        M::UniqueClicks => "Unique clicks",
        M::LanderViews => "Lander views",
        M::LanderClicks => "Lander clicks",
        M::LpCtr => "LP CTR",
        M::OfferClicks => "Offer clicks",
        M::Conversions => "Conversions",
        M::Pending => "Pending",
        M::Approved => "Approved",
        M::Rejected => "Rejected",
        M::Refunded => "Refunded",
        M::Unmapped => "Unmapped",
        M::Cr => "CR",
        M::OfferCr => "Offer CR",
        M::ApproveRate => "Approval rate",
        M::ApproveRateOfAll => "Approval rate of all",
        M::Revenue => "Revenue",
        M::RevenuePending => "Pending revenue",
        M::RevenueRejected => "Rejected revenue",
        M::RevenueRefunded => "Refunded revenue",
        M::Cost => "Cost",
        M::Profit => "Profit",
        M::ProfitExpected => "Expected profit",
        M::Roi => "ROI",
        M::Epc => "EPC",
        M::EpcOffer => "EPC of offers",
        M::Cpc => "CPC",
        M::Cpa => "CPA",
        M::Ecpm => "eCPM",
    }
}

/// What a dimension is called.
pub(super) fn dimension_name(dimension: Dimension) -> &'static str {
    use Dimension as D;
    match dimension {
        D::Campaign => "Campaign",
        D::Source => "Source",
        D::Rule => "Rule",
        D::Path => "Path",
        D::LandingPage => "Landing page",
        D::Offer => "Offer",
        D::Country => "Country",
        D::Region => "Region",
        D::City => "City",
        D::Language => "Language",
        D::Device => "Device",
        D::Os => "System",
        D::OsVersion => "System version",
        D::Browser => "Browser",
        D::BrowserVersion => "Browser version",
        D::Isp => "Provider",
        D::Connection => "Connection",
        D::ReferrerHost => "Referrer",
        D::Sub1 => "sub1",
        D::Sub2 => "sub2",
        D::Sub3 => "sub3",
        D::Sub4 => "sub4",
        D::Sub5 => "sub5",
        D::AffSub => "aff_sub",
        D::AffSub2 => "aff_sub2",
        D::AffSub3 => "aff_sub3",
        D::AffSub4 => "aff_sub4",
        D::AffSub5 => "aff_sub5",
        D::Keyword => "Keyword",
        D::Creative => "Creative",
        D::Placement => "Placement",
        D::Reason => "Reason not to count",
        D::Goal => "Goal",
        D::Status => "Conversion status",
        D::Currency => "Currency of the amount",
        D::Hour => "Hour",
        D::HourOfDay => "Hour of the day",
        D::Day => "Day",
        D::Weekday => "Weekday",
        D::Week => "Week",
        D::Month => "Month",
    }
}

/// A value of a dimension as it is shown, where it has no name of its own; `None` is not known.
pub(super) fn value_name(dimension: Dimension, value: Option<&str>) -> String {
    let Some(value) = value.filter(|value| *value != UNKNOWN) else {
        return match dimension {
            Dimension::Source => "No source",
            Dimension::Offer => "No offer",
            Dimension::LandingPage => "No landing page",
            Dimension::Reason => "Counts",
            Dimension::Goal | Dimension::Status => "Clicks",
            _ => "Unknown",
        }
        .to_owned();
    };
    match dimension {
        _ if value.is_empty() => "(empty)".to_owned(),
        Dimension::HourOfDay => format!("{value:0>2}:00"),
        Dimension::Weekday => {
            let days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
            let day = value.parse::<usize>().ok().and_then(|day| days.get(day.checked_sub(1)?));
            day.map_or_else(|| value.to_owned(), |day| (*day).to_owned())
        }
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn figures_are_grouped_rounded_and_signed() {
        for (measure, value, text, tone) in [
            (Measure::Clicks, "1234567", "1,234,567", ""),
            (Measure::Clicks, "999", "999", ""),
            (Measure::Revenue, "1234.565", "1,234.57", ""),
            (Measure::Profit, "12", "+12.00", "good"),
            (Measure::Profit, "-1200.5", "\u{2212}1,200.50", "bad"),
            (Measure::Profit, "0", "0.00", ""),
            (Measure::Cr, "0.0125", "1.25\u{202f}%", ""),
            (Measure::Roi, "-0.305", "\u{2212}30.5\u{202f}%", "bad"),
            (Measure::Epc, "0.01234", "0.0123", ""),
        ] {
            let figure = shown(measure, Some(decimal(value)));
            assert_eq!((figure.text.as_str(), figure.tone), (text, tone), "{value}");
        }
        assert_eq!(shown(Measure::Cr, None).text, NOTHING);
        assert_eq!(grouped(decimal("-0.001"), 2), "0.00");
    }

    #[test]
    fn a_change_is_good_where_more_is_better() {
        let of = |measure, now, before| {
            let found = change(measure, Some(decimal(now)), Some(decimal(before)));
            found.map(|change| (change.text, change.tone))
        };
        assert_eq!(of(Measure::Clicks, "110", "100"), Some(("+10\u{202f}%".to_owned(), "good")));
        assert_eq!(of(Measure::Cost, "110", "100"), Some(("+10\u{202f}%".to_owned(), "bad")));
        assert_eq!(of(Measure::Cost, "90", "100"), Some(("\u{2212}10\u{202f}%".to_owned(), "good")));
        assert_eq!(of(Measure::Profit, "5", "-5"), Some(("+200\u{202f}%".to_owned(), "good")));
        assert_eq!(of(Measure::Clicks, "100", "100"), Some(("0.0\u{202f}%".to_owned(), "")));
        assert_eq!(of(Measure::Clicks, "1", "0"), None);
    }

    #[test]
    fn values_without_a_name_are_told_in_words() {
        assert_eq!(value_name(Dimension::Country, None), "Unknown");
        assert_eq!(value_name(Dimension::Sub1, Some("")), "(empty)");
        assert_eq!(value_name(Dimension::HourOfDay, Some("7")), "07:00");
        assert_eq!(value_name(Dimension::Weekday, Some("1")), "Monday");
        assert_eq!(value_name(Dimension::Weekday, Some("0")), "0");
    }
}
