//! Which row of a report bears how much of what clicks cost. `money::costs` works out what all clicks of an hour cost; here the
//! clicks of rows bear their part of it.
//!
//! **Exact.** What an adjustment or a price of thousands comes to in the time is spread over the rows in the order of their keys: the
//! first `k` of its `n` units cost `floor(cost * k / n)` together, and a row costs what it adds to that. So rows add up to the whole
//! to the last millionth, and a row alone, or all of them in one, cost what they cost together. What is in another currency than the
//! report is spread day by day, each of which has its rate.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::figures::Key;
use crate::{
    model::{campaign::CostModel, cost::Kind, hour::hour_of, money::Currency},
    money::costs::{
        Adjustment, Clicks, Costs, Known, Micros, Part, Parts, Price, Provenance, amount, share, work_out,
    },
};

/// Clicks of one row whose cost is said by the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Of the row.
    pub key: Key,
    /// Whose clicks.
    pub campaign_id: Uuid,
    /// Of the adjustment that takes them.
    pub rank: Option<i64>,
    /// Where nobody else says what they cost: the place of the price that holds.
    pub price: Option<usize>,
    /// The day (UTC) they are of, where one of the costs is in another currency than the report.
    pub day: Option<NaiveDate>,
    /// How many they are; of no hour alone.
    pub clicks: Clicks,
}

/// What approved conversions come to of clicks of one row and hour whose cost nobody else says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earning {
    /// Of the row.
    pub key: Key,
    /// Whose clicks.
    pub campaign_id: Uuid,
    /// When the hour of the clicks begins.
    pub hour: DateTime<Utc>,
    /// The place of the price that holds.
    pub price: Option<usize>,
    /// Of the revenue.
    pub currency: Currency,
    /// Without further payments and corrections.
    pub conversions: i64,
    /// What they paid together.
    pub revenue: Micros,
}

/// What is known of a campaign with a price or an adjustment.
#[derive(Debug, Clone, Default)]
pub struct Campaign {
    /// All clicks of the hours that are asked for, and whatever their costs depend on.
    pub known: Known,
    /// Of the adjustments, in their order.
    pub ranks: Vec<i64>,
}

/// What costs are worked out of that are not only what links said.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// By id.
    pub campaigns: HashMap<Uuid, Campaign>,
    /// Clicks of these campaigns.
    pub cells: Vec<Cell>,
    /// Conversions of these campaigns, where they are paid for.
    pub earnings: Vec<Earning>,
}

/// What clicks of a row cost in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// Of the row.
    pub key: Key,
    /// Which currency it is in and the day (UTC) whose rate it is converted by; `None`: that of the report.
    pub foreign: Option<(Currency, NaiveDate)>,
    /// What they cost.
    pub cost: Decimal,
}

/// Of a total what no click bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unallocated {
    /// Whose.
    pub campaign_id: Uuid,
    /// Of the total.
    pub currency: Option<Currency>,
    /// How much.
    pub amount: Decimal,
}

/// What is to be known of costs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Where they are from.
    pub from: Provenance,
    /// Whether they may still change by clicks that come late.
    pub is_provisional: bool,
    /// What is in no row and in no total.
    pub unallocated: Vec<Unallocated>,
}

impl Notes {
    /// Adds what is known of others.
    pub fn add(&mut self, other: Self) {
        self.from.token |= other.from.token;
        self.from.model |= other.from.model;
        self.from.adjusted |= other.from.adjusted;
        self.is_provisional |= other.is_provisional;
        self.unallocated.extend(other.unallocated);
    }
}

/// What the rows of a report cost, from one time until before another, in the order of their keys for each campaign and what says
/// the cost.
pub fn spread(
    facts: Facts,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    currency: Currency,
) -> (Vec<Cost>, Notes) {
    let Facts { campaigns, cells, earnings } = facts;
    let mut of_campaign: HashMap<Uuid, (Vec<Cell>, Vec<Earning>)> = HashMap::with_capacity(campaigns.len());
    for cell in cells {
        of_campaign.entry(cell.campaign_id).or_default().0.push(cell);
    }
    for earning in earnings {
        of_campaign.entry(earning.campaign_id).or_default().1.push(earning);
    }
    let (mut costs, mut notes) = (Vec::new(), Notes::default());
    let mut campaigns: Vec<(Uuid, Campaign)> = campaigns.into_iter().collect();
    campaigns.sort_unstable_by_key(|(id, _)| *id);
    for (campaign_id, Campaign { known, ranks }) in campaigns {
        let (cells, earnings) = of_campaign.remove(&campaign_id).unwrap_or_default();
        let (adjustments, prices) = (known.adjustments.clone(), known.prices.clone());
        let spreading = Spreading {
            adjustments,
            places: ranks.into_iter().enumerate().map(|(place, rank)| (rank, place)).collect(),
            prices,
            worked_out: work_out(known),
            range: (hour_of(from), hour_of(to - TimeDelta::nanoseconds(1)) + TimeDelta::hours(1)),
            currency,
        };
        for (adjustment, micros) in spreading.unallocated((from, to)) {
            let Adjustment { currency, is_provisional, .. } = *adjustment;
            notes.unallocated.push(Unallocated { campaign_id, currency, amount: amount(micros) });
            notes.is_provisional |= is_provisional;
        }
        let mut found = Found::default();
        spreading.add_clicks(cells, &mut found);
        spreading.add_earnings(earnings, &mut found);
        notes.add(Notes { from: found.from, is_provisional: found.is_provisional, ..Notes::default() });
        costs.extend(found.costs.into_iter().map(|((key, foreign), cost)| Cost {
            key,
            foreign,
            cost: amount(cost),
        }));
    }
    (costs, notes)
}

/// Which currency a cost is in and the day of its rate, where it is not that of the report.
type Foreign = Option<(Currency, NaiveDate)>;

/// What says the cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    /// By its place.
    Adjustment(usize),
    /// By its place.
    Price(usize),
}

/// What is spread: by whom it is said, and of which day and currency it is, where that is not the currency of the report.
type Pot = (By, Option<Currency>, Foreign);

#[derive(Default)]
struct Found {
    costs: BTreeMap<(Key, Foreign), Micros>,
    from: Provenance,
    is_provisional: bool,
}

/// One campaign.
struct Spreading {
    adjustments: Vec<Adjustment>,
    /// Of the adjustments, by rank.
    places: HashMap<i64, usize>,
    prices: Vec<Price>,
    worked_out: Costs,
    range: (DateTime<Utc>, DateTime<Utc>),
    currency: Currency,
}

impl Spreading {
    fn foreign(&self, currency: Option<Currency>, day: Option<NaiveDate>) -> Foreign {
        currency.filter(|currency| *currency != self.currency).zip(day)
    }

    /// Totals that no click bears, or the rest of them, where they stand in the time.
    fn unallocated(
        &self,
        (from, to): (DateTime<Utc>, DateTime<Utc>),
    ) -> impl Iterator<Item = (&Adjustment, Micros)> {
        let all = self.adjustments.iter().zip(&self.worked_out.adjusted);
        let amounts = all.map(|(adjustment, adjusted)| (adjustment, adjusted.unallocated));
        amounts.filter(move |(adjustment, amount)| *amount > 0 && (from..to).contains(&adjustment.begins_at))
    }

    /// What is to be spread in the time.
    fn pots(&self) -> BTreeMap<Pot, Part> {
        let (from, to) = self.range;
        let mut pots: BTreeMap<Pot, Part> = BTreeMap::new();
        let mut add = |by: By, parts: &Parts| {
            for ((hour, currency), part) in parts.iter().filter(|((hour, _), _)| (from..to).contains(hour)) {
                let foreign = self.foreign(*currency, Some(hour.date_naive()));
                let pot = pots.entry((by, *currency, foreign)).or_default();
                pot.units += part.units;
                pot.cost += part.cost;
            }
        };
        for (i, adjusted) in self.worked_out.adjusted.iter().enumerate() {
            add(By::Adjustment(i), &adjusted.parts);
        }
        for (i, parts) in self.worked_out.priced.iter().enumerate() {
            add(By::Price(i), parts);
        }
        pots
    }

    fn add_clicks(&self, cells: Vec<Cell>, found: &mut Found) {
        let mut bearing: BTreeMap<Pot, BTreeMap<Key, Micros>> = BTreeMap::new();
        for Cell { key, rank, price, day, clicks, .. } in cells {
            let place = rank.and_then(|rank| self.places.get(&rank).copied());
            let (by, currency, units) = if let Some(place) = place {
                let adjustment = &self.adjustments[place];
                let is_factor = adjustment.kind == Kind::Factor;
                let currency = if is_factor { clicks.currency } else { adjustment.currency };
                found.from.adjusted = true;
                found.is_provisional |= adjustment.is_provisional;
                let basis = self.worked_out.adjusted[place].basis;
                (By::Adjustment(place), currency, adjustment.units(&clicks, basis))
            } else if clicks.currency.is_some() {
                found.from.token = true;
                let foreign = self.foreign(clicks.currency, day);
                *found.costs.entry((key, foreign)).or_default() += clicks.token;
                continue;
            } else {
                let price = price.and_then(|place| Some((place, self.prices.get(place)?)));
                let Some((place, price)) = price else { continue };
                let Some(part) = price.of(&clicks) else { continue };
                found.from.model = true;
                if price.model != CostModel::Cpm {
                    let foreign = self.foreign(price.currency, day);
                    *found.costs.entry((key, foreign)).or_default() += part.cost;
                    continue;
                }
                (By::Price(place), price.currency, part.units)
            };
            let pot = (by, currency, self.foreign(currency, day));
            *bearing.entry(pot).or_default().entry(key).or_default() += units;
        }
        let pots = self.pots();
        for (pot, rows) in bearing {
            let Part { units: all, cost } = pots.get(&pot).copied().unwrap_or_default();
            let parts = in_parts(rows, |k| if all == 0 { 0 } else { cost * k.min(all) / all });
            for (key, part) in parts {
                *found.costs.entry((key, pot.2)).or_default() += part;
            }
        }
    }

    fn add_earnings(&self, earnings: Vec<Earning>, found: &mut Found) {
        let mut shared: BTreeMap<(DateTime<Utc>, Currency, Micros), BTreeMap<Key, Micros>> = BTreeMap::new();
        for Earning { key, hour, price, currency, conversions, revenue, .. } in earnings {
            let price = price.and_then(|place| self.prices.get(place));
            let Some((price, of)) = price.and_then(|price| Some((price, price.amount?))) else { continue };
            match price.model {
                CostModel::Cpa => {
                    let foreign = self.foreign(price.currency, Some(hour.date_naive()));
                    *found.costs.entry((key, foreign)).or_default() += of * Micros::from(conversions);
                    found.from.model = true;
                }
                CostModel::Revshare => {
                    *shared.entry((hour, currency, of)).or_default().entry(key).or_default() += revenue;
                    found.from.model = true;
                }
                CostModel::Cpc | CostModel::Cpm | CostModel::Cpuc | CostModel::None => {}
            }
        }
        for ((hour, currency, percent), rows) in shared {
            let foreign = self.foreign(Some(currency), Some(hour.date_naive()));
            for (key, part) in in_parts(rows, |revenue| share(percent, revenue)) {
                *found.costs.entry((key, foreign)).or_default() += part;
            }
        }
    }
}

/// What each row adds, where the first units cost so much together.
fn in_parts(
    rows: BTreeMap<Key, Micros>,
    of_first: impl Fn(Micros) -> Micros,
) -> impl Iterator<Item = (Key, Micros)> {
    let mut before = 0;
    rows.into_iter().map(move |(key, units)| {
        let part = of_first(before + units) - of_first(before);
        before += units;
        (key, part)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::cost::{Filters, Spread};

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(hour * 3600, 0).unwrap()
    }

    fn eur() -> Currency {
        "EUR".parse().unwrap()
    }

    fn clicks(hour: i64, valid: i64) -> Clicks {
        Clicks { hour: at(hour), currency: None, clicks: valid, valid, unique: valid / 2, token: 0 }
    }

    fn total(hours: (i64, i64), micros: Micros) -> Adjustment {
        Adjustment {
            id: Uuid::from_u128(1),
            begins_at: at(hours.0),
            ends_at: at(hours.1),
            filters: Filters::default(),
            kind: Kind::Total,
            amount: micros,
            currency: Some(eur()),
            spread: Spread::Valid,
            is_provisional: true,
        }
    }

    fn cell(key: &str, rank: Option<i64>, clicks: Clicks) -> Cell {
        let key = vec![Some(key.to_owned())];
        Cell { key, campaign_id: Uuid::nil(), rank, price: Some(0), day: None, clicks }
    }

    fn of(known: Known, cells: Vec<Cell>, earnings: Vec<Earning>) -> Facts {
        let ranks = (1..).take(known.adjustments.len()).collect();
        let campaigns = [(Uuid::nil(), Campaign { known, ranks })].into();
        Facts { campaigns, cells, earnings }
    }

    #[test]
    fn what_no_click_bears_is_told_and_in_no_row() {
        let known = Known { adjustments: vec![total((0, 2), 7_000_000)], ..Known::default() };
        let (costs, notes) = spread(of(known.clone(), Vec::new(), Vec::new()), (at(0), at(2)), eur());
        assert_eq!(costs, []);
        let unallocated =
            Unallocated { campaign_id: Uuid::nil(), currency: Some(eur()), amount: Decimal::from(7) };
        assert_eq!((notes.unallocated, notes.is_provisional), (vec![unallocated], true));
        let (_, notes) = spread(of(known, Vec::new(), Vec::new()), (at(1), at(2)), eur());
        assert_eq!(notes, Notes::default(), "it stands at the first hour");
    }

    #[test]
    fn a_share_of_revenue_that_is_taken_back_is_too() {
        let price =
            Price { since: at(0), model: CostModel::Revshare, amount: Some(12_500_000), currency: None };
        let known = Known { prices: vec![price], ..Known::default() };
        let earning = |key: &str, revenue| Earning {
            key: vec![Some(key.to_owned())],
            campaign_id: Uuid::nil(),
            hour: at(0),
            price: Some(0),
            currency: eur(),
            conversions: 1,
            revenue,
        };
        let earnings = vec![earning("a", 8_000_000), earning("b", -7_999_999), earning("c", 5)];
        let (costs, notes) = spread(of(known, Vec::new(), earnings), (at(0), at(1)), eur());
        let micros: Vec<Decimal> = costs.iter().map(|cost| cost.cost * Decimal::from(1_000_000)).collect();
        assert_eq!(micros, [1_000_000, -1_000_000, 0].map(Decimal::from), "6 millionths are none");
        assert!(notes.from.model && !notes.from.token);
    }

    proptest! {
        /// Whatever rows the clicks of a total stand in, they cost it together, and no row more than its even part and a millionth.
        #[test]
        fn rows_add_up_to_what_is_spread_over_them(
            micros in 0..2_000_000_000_000_i128,
            rows in prop::collection::vec((0..9_i64, 0..6_u8, 1..40_i64), 1..60),
        ) {
            let mut hours: BTreeMap<i64, i64> = BTreeMap::new();
            for (hour, _, valid) in &rows {
                *hours.entry(*hour).or_default() += valid;
            }
            let known = Known {
                adjustments: vec![total((0, 9), micros)],
                hours: hours.iter().map(|(hour, valid)| clicks(*hour, *valid)).collect(),
                ..Known::default()
            };
            let cells = rows.iter().map(|(hour, key, valid)| cell(&key.to_string(), Some(1), clicks(*hour, *valid)));
            let (costs, notes) = spread(of(known, cells.collect(), Vec::new()), (at(0), at(9)), eur());
            prop_assert_eq!(costs.iter().map(|cost| cost.cost).sum::<Decimal>(), amount(micros));
            prop_assert!(notes.from.adjusted && notes.unallocated.is_empty());
            let all: i64 = rows.iter().map(|(_, _, valid)| valid).sum();
            for Cost { key, cost, .. } in costs {
                let own = rows.iter().filter(|(_, row, _)| key[0].as_deref() == Some(&row.to_string()));
                let own: i64 = own.map(|(_, _, valid)| valid).sum();
                let even = micros * Micros::from(own) / Micros::from(all);
                prop_assert!((cost - amount(even)).abs() <= amount(1), "{} for {}", cost, even);
            }
        }
    }
}
