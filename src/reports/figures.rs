//! What becomes of sums: rows are put together, amounts converted, measures worked out, rows sorted.

use std::{cmp::Ordering, collections::HashMap};

use chrono::NaiveDate;
use rust_decimal::Decimal;
use sqlx::FromRow;

use super::{
    costs::Notes,
    question::{By, Measure, Order, Question, Validity},
};
use crate::model::money::rounded;

/// What a row is told apart by, in the order in which the question groups; `None`: it is not known.
pub type Key = Vec<Option<String>>;

/// Sums of facts; amounts in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromRow)]
#[expect(missing_docs, reason = "the sums that `Measure` describes")]
pub struct Sums {
    pub clicks: i64,
    pub valid_clicks: i64,
    pub bot_clicks: i64,
    pub unique_clicks: i64,
    pub lander_views: i64,
    pub lander_clicks: i64,
    pub offer_clicks: i64,
    pub cost: Decimal,
    pub pending: i64,
    pub approved: i64,
    pub rejected: i64,
    pub refunded: i64,
    pub unmapped: i64,
    pub revenue_pending: Decimal,
    pub revenue: Decimal,
    pub revenue_rejected: Decimal,
    pub revenue_refunded: Decimal,
}

impl Sums {
    /// Adds others; a sum that is too long stays at the greatest.
    pub fn add(&mut self, other: &Self) {
        let add = |sum: &mut Decimal, other: Decimal| *sum = sum.saturating_add(other);
        self.clicks += other.clicks;
        self.valid_clicks += other.valid_clicks;
        self.bot_clicks += other.bot_clicks;
        self.unique_clicks += other.unique_clicks;
        self.lander_views += other.lander_views;
        self.lander_clicks += other.lander_clicks;
        self.offer_clicks += other.offer_clicks;
        self.pending += other.pending;
        self.approved += other.approved;
        self.rejected += other.rejected;
        self.refunded += other.refunded;
        self.unmapped += other.unmapped;
        add(&mut self.cost, other.cost);
        add(&mut self.revenue_pending, other.revenue_pending);
        add(&mut self.revenue, other.revenue);
        add(&mut self.revenue_rejected, other.revenue_rejected);
        add(&mut self.revenue_refunded, other.revenue_refunded);
    }

    /// What is taken off when it is added.
    #[must_use]
    pub fn negated(&self) -> Self {
        Self {
            clicks: -self.clicks,
            valid_clicks: -self.valid_clicks,
            bot_clicks: -self.bot_clicks,
            unique_clicks: -self.unique_clicks,
            lander_views: -self.lander_views,
            lander_clicks: -self.lander_clicks,
            offer_clicks: -self.offer_clicks,
            pending: -self.pending,
            approved: -self.approved,
            rejected: -self.rejected,
            refunded: -self.refunded,
            unmapped: -self.unmapped,
            ..self.converted(Decimal::NEGATIVE_ONE)
        }
    }

    /// With each amount multiplied: not rounded, so that the sum of parts is the sum of the whole.
    #[must_use]
    pub fn converted(&self, rate: Decimal) -> Self {
        let times = |amount: Decimal| amount.saturating_mul(rate);
        Self {
            cost: times(self.cost),
            revenue_pending: times(self.revenue_pending),
            revenue: times(self.revenue),
            revenue_rejected: times(self.revenue_rejected),
            revenue_refunded: times(self.revenue_refunded),
            ..*self
        }
    }

    /// Without any amount.
    #[must_use]
    pub fn without_money(&self) -> Self {
        self.converted(Decimal::ZERO)
    }

    fn has_money(&self) -> bool {
        *self != self.without_money()
    }

    /// A measure; `None`: there is nothing to divide by.
    pub fn measure(&self, measure: Measure, validity: Validity) -> Option<Decimal> {
        use Measure as M;
        let count = Decimal::from;
        let clicks = match validity {
            Validity::Valid => self.valid_clicks,
            Validity::All => self.clicks,
        };
        let conversions = self.pending + self.approved;
        let profit = self.revenue - self.cost;
        Some(match measure {
            M::Clicks => count(self.clicks),
            M::ValidClicks => count(self.valid_clicks),
            M::BotClicks => count(self.bot_clicks),
            M::UniqueClicks => count(self.unique_clicks),
            M::LanderViews => count(self.lander_views),
            M::LanderClicks => count(self.lander_clicks),
            M::LpCtr => return ratio(count(self.lander_clicks), count(self.lander_views)),
            M::OfferClicks => count(self.offer_clicks),
            M::Conversions => count(conversions),
            M::Pending => count(self.pending),
            M::Approved => count(self.approved),
            M::Rejected => count(self.rejected),
            M::Refunded => count(self.refunded),
            M::Unmapped => count(self.unmapped),
            M::Cr => return ratio(count(conversions), count(clicks)),
            M::OfferCr => return ratio(count(conversions), count(self.offer_clicks)),
            M::ApproveRate => return ratio(count(self.approved), count(self.approved + self.rejected)),
            M::ApproveRateOfAll => {
                let all = conversions + self.rejected + self.refunded + self.unmapped;
                return ratio(count(self.approved), count(all));
            }
            M::Revenue => rounded(self.revenue),
            M::RevenuePending => rounded(self.revenue_pending),
            M::RevenueRejected => rounded(self.revenue_rejected),
            M::RevenueRefunded => rounded(self.revenue_refunded),
            M::Cost => rounded(self.cost),
            M::Profit => rounded(profit),
            M::ProfitExpected => rounded(profit + self.revenue_pending),
            M::Roi => return ratio(profit, self.cost),
            M::Epc => return ratio(self.revenue, count(clicks)),
            M::EpcOffer => return ratio(self.revenue, count(self.offer_clicks)),
            M::Cpc => return ratio(self.cost, count(clicks)),
            M::Cpa => return ratio(self.cost, count(self.approved)),
            M::Ecpm => return ratio(self.revenue * Decimal::ONE_THOUSAND, count(clicks)),
        })
    }
}

/// Rounded once to six decimals, half away from zero; `None`: there is nothing to divide by.
fn ratio(of: Decimal, by: Decimal) -> Option<Decimal> {
    of.checked_div(by).map(rounded)
}

/// A row of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it is told apart by.
    pub key: Key,
    /// Its sums, amounts in the currency of the question.
    pub sums: Sums,
}

impl Row {
    fn of((key, sums): (&Key, &Sums)) -> Self {
        Self { key: key.clone(), sums: *sums }
    }
}

/// What a report comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    rows: HashMap<Key, Sums>,
    /// Amounts of currencies that have no rate on the day: in no row's money, by currency.
    pub without_rate: HashMap<String, Sums>,
    /// What is to be known of the costs.
    pub costs: Notes,
}

impl Figures {
    /// Adds sums of one row. `foreign` is the currency of its amounts and the day of their rate, where it is not the question's;
    /// `rate` gives what it is worth then.
    pub fn add(
        &mut self,
        key: Key,
        sums: &Sums,
        foreign: Option<(String, NaiveDate)>,
        rate: impl Fn(&str, NaiveDate) -> Option<Decimal>,
    ) {
        let row = self.rows.entry(key).or_default();
        let Some((currency, day)) = foreign else { return row.add(sums) };
        if let Some(rate) = rate(&currency, day) {
            row.add(&sums.converted(rate));
        } else {
            row.add(&sums.without_money());
            if sums.has_money() {
                self.without_rate.entry(currency).or_default().add(sums);
            }
        }
    }

    /// The sums of all rows.
    pub fn total(&self) -> Sums {
        self.rows.values().fold(Sums::default(), |mut total, sums| {
            total.add(sums);
            total
        })
    }

    /// Whether anything cost something.
    pub fn has_cost(&self) -> bool {
        self.rows.values().chain(self.without_rate.values()).any(|sums| !sums.cost.is_zero())
    }

    /// The sums of one row.
    pub fn get(&self, key: &Key) -> Option<&Sums> {
        self.rows.get(key)
    }

    /// All rows in the order that the question wants; one in which nothing is left of what was there once is none.
    pub fn sorted(&self, question: &Question) -> Vec<Row> {
        let mut rows: Vec<Row> =
            self.rows.iter().filter(|(_, sums)| **sums != Sums::default()).map(Row::of).collect();
        rows.sort_unstable_by(|a, b| compare(question, a, b));
        rows
    }
}

/// The order of two rows.
pub fn compare(question: &Question, a: &Row, b: &Row) -> Ordering {
    let Order { by, is_descending } = question.order;
    let directed = |ordering: Ordering| if is_descending { ordering.reverse() } else { ordering };
    let by_key = || a.key.cmp(&b.key);
    match by {
        By::Dimension(dimension) => {
            let place = question.group_by.iter().position(|group| *group == dimension);
            let value = |row: &Row| place.and_then(|place| row.key.get(place).cloned()).flatten();
            directed(value(a).cmp(&value(b))).then_with(by_key)
        }
        By::Measure(measure) => {
            let value = |row: &Row| row.sums.measure(measure, question.validity);
            let ordering = match (value(a), value(b)) {
                (Some(a), Some(b)) => directed(a.cmp(&b)),
                // nothing to divide by comes last, whatever the direction
                (a, b) => b.is_some().cmp(&a.is_some()),
            };
            ordering.then_with(by_key)
        }
    }
}
