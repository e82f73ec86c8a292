//! What clicks cost, from sums by hour: the most specific adjustment counts, else what the links said, else the price of the
//! campaign. Pure; the database function `octo_click_costs` gives the same figures click by click.
//!
//! **Exact.** Amounts are whole millionths. The clicks that a total is spread over stand in one order (hour, currency, id),
//! and the first `k` of `n` cost `floor(total * k / n)` together. So every click costs what it adds to that, to within one
//! millionth of the even part, and the costs of hours, days or any other runs of clicks are those of their clicks and add
//! up to the total, whatever is grouped. (By largest remainders the parts of hours and those of days would not agree.)
//!
//! **Nested.** The more specific adjustment takes its clicks first. A total is of all its clicks: what more specific ones
//! took of them in its currency is taken off, and the rest is spread over the other clicks.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use rust_decimal::{Decimal, prelude::ToPrimitive as _};
use uuid::Uuid;

use crate::model::{
    campaign::CostModel,
    cost::{Filters, Kind, Spread},
    money::Currency,
};

/// Millionths of a unit of a currency.
pub type Micros = i128;

const MICROS: Micros = 1_000_000;

/// Clicks of one hour whose links said a cost in one currency, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clicks {
    /// When the hour begins.
    pub hour: DateTime<Utc>,
    /// Of what the links said; `None`: nothing.
    pub currency: Option<Currency>,
    /// All.
    pub clicks: i64,
    /// Those that count.
    pub valid: i64,
    /// The first ones of their visitor on that day.
    pub unique: i64,
    /// What the links said together.
    pub token: Micros,
}

/// An adjustment that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    /// Ours.
    pub id: Uuid,
    /// The first hour.
    pub begins_at: DateTime<Utc>,
    /// The hour after the last.
    pub ends_at: DateTime<Utc>,
    /// Which clicks.
    pub filters: Filters,
    /// What the amount is.
    pub kind: Kind,
    /// The amount, or the factor.
    pub amount: Micros,
    /// `None`: a factor has none.
    pub currency: Option<Currency>,
    /// Which clicks bear it.
    pub spread: Spread,
    /// Whether clicks of its range may still come.
    pub is_provisional: bool,
}

/// The price of the campaign from an hour on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// The first hour.
    pub since: DateTime<Utc>,
    /// What is paid for.
    pub model: CostModel,
    /// How much, of revenue how many percent; `None`: nothing from then on.
    pub amount: Option<Micros>,
    /// `None`: that of the revenue.
    pub currency: Option<Currency>,
}

/// What approved conversions of clicks of one hour come to in one currency, where neither a link nor an adjustment with
/// filters says what these clicks cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earned {
    /// When the hour of the clicks begins.
    pub hour: DateTime<Utc>,
    /// Of the revenue.
    pub currency: Currency,
    /// Clicks whose first currency of revenue this is.
    pub clicks: i64,
    /// Of these those that count.
    pub valid: i64,
    /// Without further payments and corrections.
    pub conversions: i64,
    /// What they paid together.
    pub revenue: Micros,
}

/// What is known of the clicks of a range.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Adjustments, the most specific one first; those with filters stand before those without.
    pub adjustments: Vec<Adjustment>,
    /// The sums of hours.
    pub hours: Vec<Clicks>,
    /// Of these the clicks of filters, by the place of the adjustment that takes them.
    pub filtered: Vec<(usize, Clicks)>,
    /// Prices of the campaign, oldest first.
    pub prices: Vec<Price>,
    /// What conversions come to, in the order of hours; empty where no price is of them.
    pub earned: Vec<Earned>,
}

/// Where a figure is from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Provenance {
    /// Links.
    pub token: bool,
    /// The price of the campaign.
    pub model: bool,
    /// Adjustments.
    pub adjusted: bool,
}

/// What clicks cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Clicks whose cost is in this currency, or that cost nothing that is known.
    pub clicks: i64,
    /// Of these those that count.
    pub valid_clicks: i64,
    /// By what links said.
    pub token: Micros,
    /// By the price of the campaign.
    pub model: Micros,
    /// By adjustments.
    pub adjusted: Micros,
    /// Of totals, for want of clicks to bear it.
    pub unallocated: Micros,
    /// Where the figures are from.
    pub from: Provenance,
    /// Whether they may still change by clicks that come late.
    pub is_provisional: bool,
}

/// Something to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning {
    /// More specific adjustments took more than this total: they win.
    PartsExceedTotal(Uuid),
    /// No click bears this total, or the rest of it.
    Unallocated(Uuid),
}

/// The costs of hours by currency, and what is to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Costs {
    /// By hour and currency; `None`: clicks of which no cost is known.
    pub hours: BTreeMap<(DateTime<Utc>, Option<Currency>), Figures>,
    /// In the order of the adjustments.
    pub warnings: Vec<Warning>,
    /// What each adjustment comes to, in their order.
    pub adjusted: Vec<Adjusted>,
    /// What clicks cost by each price, in the order of the prices; nothing of those that are of conversions.
    pub priced: Vec<Parts>,
}

/// So many units cost so much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    /// Clicks, or of a factor millionths of what links said.
    pub units: Micros,
    /// What they cost.
    pub cost: Micros,
}

/// By hour and currency of the cost.
pub type Parts = BTreeMap<(DateTime<Utc>, Option<Currency>), Part>;

/// What an adjustment comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjusted {
    /// Which clicks bear it.
    pub basis: Spread,
    /// What they cost.
    pub parts: Parts,
    /// Of a total, for want of clicks to bear it.
    pub unallocated: Micros,
}

/// An amount in millionths; what is finer is cut.
pub fn micros(amount: Decimal) -> Micros {
    (amount * Decimal::from(1_000_000)).trunc().to_i128().unwrap_or_default()
}

/// An amount of millionths.
pub fn amount(micros: Micros) -> Decimal {
    // beyond 28 digits, which no sum of money has
    Decimal::try_from_i128_with_scale(micros, 6).unwrap_or(Decimal::MAX)
}

impl Figures {
    /// What the clicks cost.
    pub fn effective(&self) -> Micros {
        self.token + self.model + self.adjusted
    }

    /// Adds other figures of the same currency.
    pub fn add(&mut self, other: &Self) {
        self.clicks += other.clicks;
        self.valid_clicks += other.valid_clicks;
        self.token += other.token;
        self.model += other.model;
        self.adjusted += other.adjusted;
        self.unallocated += other.unallocated;
        self.from.token |= other.from.token;
        self.from.model |= other.from.model;
        self.from.adjusted |= other.from.adjusted;
        self.is_provisional |= other.is_provisional;
    }

    fn bear(&mut self, clicks: &Clicks) {
        self.clicks += clicks.clicks;
        self.valid_clicks += clicks.valid;
    }
}

/// What the clicks of some hours cost.
pub fn work_out(known: Known) -> Costs {
    let Known { adjustments, hours, filtered, prices, earned } = known;
    let (taken, left) = share_out(&adjustments, hours, filtered);
    let mut costs = Costs { priced: vec![Parts::new(); prices.len()], ..Costs::default() };
    for clicks in left {
        costs.add_unadjusted(&clicks, &prices, &earned);
    }
    for (i, adjustment) in adjustments.iter().enumerate() {
        let took: Micros = adjustments[..i]
            .iter()
            .zip(&costs.adjusted)
            .filter(|(inner, _)| inner.filters.is_within(&adjustment.filters))
            .map(|(inner, adjusted)| adjustment.took(inner, adjusted))
            .sum();
        let adjusted = costs.add_adjustment(adjustment, &taken[i], took);
        costs.adjusted.push(adjusted);
    }
    costs
}

/// What so many percent of a revenue are; what is finer is cut.
pub fn share(percent: Micros, revenue: Micros) -> Micros {
    percent * revenue / (100 * MICROS)
}

impl Price {
    /// What clicks of which nobody says the cost come to; `None`: it is not paid for clicks.
    pub fn of(&self, clicks: &Clicks) -> Option<Part> {
        let price = self.amount?;
        let (basis, by) = match self.model {
            CostModel::Cpc => (Spread::Valid, 1),
            CostModel::Cpm => (Spread::Valid, 1000),
            CostModel::Cpuc => (Spread::Unique, 1),
            CostModel::Cpa | CostModel::Revshare | CostModel::None => return None,
        };
        let units = units(clicks, basis);
        Some(Part { units, cost: price * units / by })
    }

    /// Which of these holds in an hour, the newest last.
    fn at(prices: &[Self], hour: DateTime<Utc>) -> Option<(usize, &Self)> {
        prices.iter().enumerate().rev().find(|(_, price)| price.since <= hour)
    }
}

impl Adjustment {
    /// How many units of it clicks are, where it is spread over these.
    pub fn units(&self, clicks: &Clicks, basis: Spread) -> Micros {
        if self.kind == Kind::Factor { clicks.token } else { units(clicks, basis) }
    }

    fn has(&self, hour: DateTime<Utc>) -> bool {
        self.begins_at <= hour && hour < self.ends_at
    }

    /// What a more specific one took of the clicks of this one, in its currency.
    fn took(&self, inner: &Self, adjusted: &Adjusted) -> Micros {
        let is_own = |hour: DateTime<Utc>, currency| self.has(hour) && currency == self.currency;
        let parts = adjusted.parts.iter().filter(|((hour, currency), _)| is_own(*hour, *currency));
        let unallocated = if is_own(inner.begins_at, inner.currency) { adjusted.unallocated } else { 0 };
        parts.map(|(_, part)| part.cost).sum::<Micros>() + unallocated
    }

    /// Which clicks bear it.
    fn basis(&self, clicks: &[Clicks]) -> Spread {
        let sum = |of: fn(&Clicks) -> i64| clicks.iter().map(of).sum::<i64>();
        match (self.kind, self.spread) {
            (Kind::Total, Spread::Unique) if sum(|c| c.unique) > 0 => Spread::Unique,
            (Kind::Total, Spread::Unique | Spread::Valid) if sum(|c| c.valid) > 0 => Spread::Valid,
            (Kind::Total, _) => Spread::All,
            (_, spread) => spread,
        }
    }
}

fn units(clicks: &Clicks, basis: Spread) -> Micros {
    Micros::from(match basis {
        Spread::Valid => clicks.valid,
        Spread::All => clicks.clicks,
        Spread::Unique => clicks.unique,
    })
}

fn earned_in(hour: DateTime<Utc>, earned: &[Earned]) -> &[Earned] {
    let begin = earned.partition_point(|e| e.hour < hour);
    let end = earned.partition_point(|e| e.hour <= hour);
    &earned[begin..end]
}

/// Gives the clicks to the adjustments that take them, each in the order of hour and currency; the rest is left.
fn share_out(
    adjustments: &[Adjustment],
    hours: Vec<Clicks>,
    filtered: Vec<(usize, Clicks)>,
) -> (Vec<Vec<Clicks>>, Vec<Clicks>) {
    let mut taken = vec![Vec::new(); adjustments.len()];
    let mut by_hour: BTreeMap<_, Clicks> = hours.into_iter().map(|c| ((c.hour, c.currency), c)).collect();
    for (i, clicks) in filtered {
        // raw clicks that are erased or gone are still in the sums of their hour, and never the other way round
        if let Some(rest) = by_hour.get_mut(&(clicks.hour, clicks.currency)) {
            rest.clicks = (rest.clicks - clicks.clicks).max(0);
            rest.valid = (rest.valid - clicks.valid).max(0);
            rest.unique = (rest.unique - clicks.unique).max(0);
            rest.token = (rest.token - clicks.token).max(0);
        }
        if let Some(list) = taken.get_mut(i) {
            list.push(clicks);
        }
    }
    let mut left = Vec::new();
    for clicks in by_hour.into_values() {
        let is_won_by = |a: &Adjustment| {
            a.filters.0.is_empty()
                && a.has(clicks.hour)
                && (a.kind != Kind::Factor || clicks.currency.is_some())
        };
        match adjustments.iter().position(is_won_by) {
            Some(i) => taken[i].push(clicks),
            None => left.push(clicks),
        }
    }
    for list in &mut taken {
        list.sort_unstable_by_key(|c| (c.hour, c.currency));
    }
    (taken, left)
}

impl Costs {
    /// Clicks that no adjustment takes.
    fn add_unadjusted(&mut self, clicks: &Clicks, prices: &[Price], earned: &[Earned]) {
        if clicks.clicks == 0 {
            return;
        }
        if clicks.currency.is_some() {
            let figures = self.hours.entry((clicks.hour, clicks.currency)).or_default();
            figures.bear(clicks);
            figures.token += clicks.token;
            figures.from.token = true;
            return;
        }
        let price = Price::at(prices, clicks.hour);
        let earned = earned_in(clicks.hour, earned);
        if let Some((_, Price { model: CostModel::Revshare, amount: Some(percent), .. })) = price {
            return self.add_shares(clicks, *percent, earned);
        }
        let worked_out = price.and_then(|(place, price)| {
            let (amount, currency) = price.amount.zip(price.currency)?;
            if price.model == CostModel::Cpa {
                let conversions: Micros = earned.iter().map(|e| Micros::from(e.conversions)).sum();
                return Some((amount * conversions, currency));
            }
            let part = price.of(clicks)?;
            self.priced[place].insert((clicks.hour, Some(currency)), part);
            Some((part.cost, currency))
        });
        let figures = self.hours.entry((clicks.hour, worked_out.map(|(_, currency)| currency))).or_default();
        figures.bear(clicks);
        if let Some((cost, _)) = worked_out {
            figures.model += cost;
            figures.from.model = true;
        }
    }

    /// Clicks that cost so many percent of what they earned, in its currencies. Of the others no cost is known.
    fn add_shares(&mut self, clicks: &Clicks, percent: Micros, earned: &[Earned]) {
        let mut rest = *clicks;
        for Earned { currency, clicks, valid, revenue, .. } in earned {
            rest.clicks -= clicks;
            rest.valid -= valid;
            let figures = self.hours.entry((rest.hour, Some(*currency))).or_default();
            figures.clicks += clicks;
            figures.valid_clicks += valid;
            figures.model += share(percent, *revenue);
            figures.from.model = true;
        }
        if rest.clicks > 0 {
            self.hours.entry((rest.hour, None)).or_default().bear(&rest);
        }
    }

    /// The clicks of an adjustment of which others took something; gives what it comes to.
    fn add_adjustment(&mut self, adjustment: &Adjustment, clicks: &[Clicks], took: Micros) -> Adjusted {
        let Adjustment { id, kind, amount, currency, .. } = *adjustment;
        let basis = adjustment.basis(clicks);
        let bearers: Micros = clicks.iter().map(|c| units(c, basis)).sum();
        let rest = if kind == Kind::Total { (amount - took).max(0) } else { amount };
        if kind == Kind::Total && took > amount {
            self.warnings.push(Warning::PartsExceedTotal(id));
        }
        let mut adjusted = Adjusted { basis, parts: Parts::new(), unallocated: 0 };
        let mut counted: HashMap<Option<Currency>, Micros> = HashMap::new();
        for clicks in clicks {
            let currency = if kind == Kind::Factor { clicks.currency } else { currency };
            let units = adjustment.units(clicks, basis);
            let before = counted.entry(currency).or_default();
            let of_first = |k: Micros| match kind {
                Kind::Total if bearers == 0 => 0,
                Kind::Total => rest * k / bearers,
                Kind::PerClick => rest * k,
                Kind::PerMille => rest * k / 1000,
                Kind::Factor => rest * k / MICROS,
            };
            let cost = of_first(*before + units) - of_first(*before);
            *before += units;
            let part = adjusted.parts.entry((clicks.hour, currency)).or_default();
            part.units += units;
            part.cost += cost;
            let figures = self.hours.entry((clicks.hour, currency)).or_default();
            figures.bear(clicks);
            figures.adjusted += cost;
            figures.from.adjusted = true;
            figures.is_provisional |= adjustment.is_provisional;
        }
        if kind == Kind::Total && bearers == 0 && rest > 0 {
            self.warnings.push(Warning::Unallocated(id));
            adjusted.unallocated = rest;
            let figures = self.hours.entry((adjustment.begins_at, currency)).or_default();
            figures.unallocated += rest;
            figures.from.adjusted = true;
            figures.is_provisional |= adjustment.is_provisional;
        }
        adjusted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EUR: &str = "EUR";

    fn currency(code: &str) -> Option<Currency> {
        code.parse().ok()
    }

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(hour * 3600, 0).unwrap()
    }

    fn clicks(hour: i64, said: Option<&str>, clicks: i64, valid: i64, token: Micros) -> Clicks {
        Clicks { hour: at(hour), currency: said.and_then(currency), clicks, valid, unique: valid / 2, token }
    }

    fn adjustment(
        n: u128,
        hours: (i64, i64),
        filter: Option<&str>,
        kind: Kind,
        amount: Micros,
    ) -> Adjustment {
        let filter = filter.map(|value| {
            let (name, value) = value.split_once('=').unwrap();
            (name.parse().unwrap(), [value.to_owned()].into())
        });
        Adjustment {
            id: Uuid::from_u128(n),
            begins_at: at(hours.0),
            ends_at: at(hours.1),
            filters: Filters(filter.into_iter().collect()),
            kind,
            amount,
            currency: if kind == Kind::Factor { None } else { currency(EUR) },
            spread: Spread::Valid,
            is_provisional: false,
        }
    }

    fn sums(costs: &Costs, code: &str) -> Figures {
        let mut sum = Figures::default();
        let hours = costs.hours.iter().filter(|((_, c), _)| *c == currency(code));
        hours.for_each(|(_, figures)| sum.add(figures));
        sum
    }

    #[test]
    fn the_most_specific_counts_else_the_link_else_the_price() {
        let price =
            Price { since: at(2), model: CostModel::Cpc, amount: Some(50_000), currency: currency("USD") };
        let known = Known {
            adjustments: vec![adjustment(1, (0, 1), None, Kind::PerClick, 10_000)],
            hours: vec![
                clicks(0, Some("EUR"), 4, 3, 900_000),
                clicks(1, Some("EUR"), 2, 1, 300_000),
                clicks(1, None, 5, 5, 0),
                clicks(2, None, 5, 4, 0),
            ],
            prices: vec![price],
            ..Known::default()
        };
        let costs = work_out(known);
        let eur = sums(&costs, "EUR");
        assert_eq!((eur.adjusted, eur.token, eur.model, eur.clicks), (30_000, 300_000, 0, 6));
        assert_eq!(sums(&costs, "USD").model, 200_000, "valid clicks bear it");
        let nothing = costs.hours[&(at(1), None)];
        assert_eq!((nothing.clicks, nothing.effective()), (5, 0), "before there was a price");
        assert_eq!(nothing.from, Provenance::default());
    }

    #[test]
    fn a_total_is_less_what_more_specific_ones_took_and_never_negative() {
        let known = |inner: Micros| Known {
            adjustments: vec![
                adjustment(2, (0, 2), Some("country=DE"), Kind::Total, inner),
                adjustment(1, (0, 1), None, Kind::Total, 10_000_000),
            ],
            hours: vec![clicks(0, None, 30, 30, 0), clicks(1, None, 30, 30, 0)],
            filtered: vec![(0, clicks(0, None, 10, 10, 0)), (0, clicks(1, None, 10, 10, 0))],
            ..Known::default()
        };
        let costs = work_out(known(8_000_000));
        assert_eq!(costs.hours[&(at(0), currency(EUR))].adjusted, 10_000_000, "4 of it are of the part");
        assert_eq!(costs.hours[&(at(1), currency(EUR))].adjusted, 4_000_000);
        assert_eq!(costs.warnings, []);
        let costs = work_out(known(30_000_000));
        assert_eq!(costs.hours[&(at(0), currency(EUR))].adjusted, 15_000_000);
        assert_eq!(costs.warnings, [Warning::PartsExceedTotal(Uuid::from_u128(1))]);
    }

    #[test]
    fn where_no_click_is_valid_all_bear_a_total_and_where_there_is_none_it_stands_apart() {
        let total = vec![adjustment(1, (0, 3), None, Kind::Total, 7)];
        let hours = vec![clicks(1, None, 2, 0, 0)];
        let costs = work_out(Known { adjustments: total.clone(), hours, ..Known::default() });
        assert_eq!((sums(&costs, EUR).adjusted, sums(&costs, EUR).unallocated), (7, 0));
        let costs = work_out(Known { adjustments: total, ..Known::default() });
        assert_eq!((sums(&costs, EUR).adjusted, sums(&costs, EUR).unallocated), (0, 7));
        assert_eq!(costs.warnings, [Warning::Unallocated(Uuid::from_u128(1))]);
    }

    #[test]
    fn a_factor_multiplies_what_links_said_and_leaves_the_others() {
        let known = Known {
            adjustments: vec![adjustment(1, (0, 2), None, Kind::Factor, 1_100_000)],
            hours: vec![
                clicks(0, Some("EUR"), 1, 1, 1_000_001),
                clicks(0, Some("USD"), 1, 1, 5),
                clicks(1, None, 1, 1, 0),
            ],
            ..Known::default()
        };
        let costs = work_out(known);
        assert_eq!((sums(&costs, "EUR").adjusted, sums(&costs, "USD").adjusted), (1_100_001, 5));
        assert_eq!(costs.hours[&(at(1), None)].from, Provenance::default());
    }

    #[test]
    fn conversions_and_revenue_are_paid_by_the_price_of_the_hour_of_the_click() {
        let earned = |hour, code, clicks, conversions, revenue| {
            let currency = currency(code).unwrap();
            Earned { hour: at(hour), currency, clicks, valid: clicks, conversions, revenue }
        };
        let known = Known {
            adjustments: vec![adjustment(1, (3, 4), None, Kind::PerClick, 10_000)],
            hours: vec![
                clicks(0, None, 5, 5, 0),
                clicks(1, None, 4, 4, 0),
                clicks(1, Some("USD"), 1, 1, 9),
                clicks(3, None, 2, 2, 0),
            ],
            earned: vec![
                earned(0, "USD", 2, 3, 7_000_000),
                earned(1, "CHF", 1, 1, 100_000_001),
                earned(1, "USD", 1, 0, -8_000_000),
                earned(3, "CHF", 1, 1, 1_000_000),
            ],
            prices: vec![
                Price {
                    since: at(0),
                    model: CostModel::Cpa,
                    amount: Some(2_000_000),
                    currency: currency(EUR),
                },
                Price { since: at(1), model: CostModel::Revshare, amount: Some(12_500_000), currency: None },
            ],
            ..Known::default()
        };
        let costs = work_out(known);
        let of = |hour, code| costs.hours[&(at(hour), currency(code))];
        assert_eq!((of(0, EUR).model, of(0, EUR).clicks), (6_000_000, 5), "3 conversions");
        assert_eq!((of(1, "CHF").model, of(1, "CHF").clicks), (12_500_000, 1), "what is finer is cut");
        let usd = of(1, "USD");
        assert_eq!((usd.model, usd.token, usd.clicks), (-1_000_000, 9, 2), "a correction takes it back");
        assert_eq!(costs.hours[&(at(1), None)].clicks, 2, "they earned nothing");
        assert_eq!((of(3, EUR).adjusted, of(3, EUR).model), (20_000, 0), "an adjustment counts first");
        assert!(!costs.hours.contains_key(&(at(3), currency("CHF"))));
    }

    proptest! {
        /// Whatever the totals and the clicks: no millionth is lost or made, and every total holds over its own clicks.
        #[test]
        fn parts_add_up_to_the_total(
            outer in 0..2_000_000_000_000_i128,
            inner in 0..2_000_000_000_000_i128,
            counts in prop::collection::vec((0..50_i64, 0..50_i64, 0..50_i64), 1..60),
            begin in 0..30_i64,
        ) {
            let end = i64::try_from(counts.len()).unwrap();
            let range = (begin.min(end - 1), end);
            let hour = |i: usize| i64::try_from(i).unwrap();
            let all = counts.iter().enumerate();
            let known = Known {
                adjustments: vec![
                    adjustment(2, range, Some("sub1=a"), Kind::Total, inner),
                    adjustment(1, (0, end), None, Kind::Total, outer),
                ],
                hours: all.clone().map(|(i, c)| clicks(hour(i), None, c.0 + c.1 + c.2, c.0 + c.1, 0)).collect(),
                filtered: all
                    .filter(|(i, c)| hour(*i) >= range.0 && c.0 > 0)
                    .map(|(i, c)| (0, clicks(hour(i), None, c.0, c.0, 0)))
                    .collect(),
                ..Known::default()
            };
            let costs = work_out(known);
            let sum = sums(&costs, EUR);
            prop_assert_eq!(sum.adjusted + sum.unallocated, outer.max(inner));
            prop_assert_eq!(inner > outer, costs.warnings.contains(&Warning::PartsExceedTotal(Uuid::from_u128(1))));
            let shown = counts.iter().map(|c| c.0 + c.1 + c.2).sum::<i64>();
            prop_assert_eq!(costs.hours.values().map(|f| f.clicks).sum::<i64>(), shown);
        }

        /// Hours with more clicks bear more, to within a millionth.
        #[test]
        fn each_hour_bears_its_even_part(total in 0..1_000_000_000_000_i128, counts in prop::collection::vec(1..1000_i64, 1..100)) {
            let end = i64::try_from(counts.len()).unwrap();
            let known = Known {
                adjustments: vec![adjustment(1, (0, end), None, Kind::Total, total)],
                hours: (0..end).zip(&counts).map(|(hour, n)| clicks(hour, None, *n, *n, 0)).collect(),
                ..Known::default()
            };
            let all: Micros = counts.iter().map(|n| Micros::from(*n)).sum();
            for ((_, figures), n) in work_out(known).hours.iter().zip(&counts) {
                let even = total * Micros::from(*n) / all;
                prop_assert!((figures.adjusted - even).abs() <= 1, "{} for {even}", figures.adjusted);
            }
        }
    }
}
