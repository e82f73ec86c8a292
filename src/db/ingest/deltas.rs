//! What the clicks of a batch add to the sums of reports (`report_deltas`): a row for each hour and everything that clicks are
//! told apart by. Conversions are added by triggers, and out-clicks where they are counted.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::copy::{CopyData, copy_in};
use crate::{
    db::{Statement, session::Session},
    facts::{click::Click, table::Value},
    model::{click::InvalidReason, hour::hour_of, money::Currency},
};

/// See `rows::COPY_CLICKS`.
const COPY: Statement = Statement::new(
    "report_deltas.copy_batch",
    "COPY report_deltas (hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, \
     browser, reason, currency, clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, offer_clicks, costed_clicks, \
     cost) FROM STDIN (FORMAT binary)",
);

const COLUMNS: usize = 21;

/// What clicks of reports are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key<'c> {
    hour: DateTime<Utc>,
    campaign_id: Uuid,
    source_id: Option<i64>,
    rule_id: Option<i64>,
    path_id: Option<i64>,
    landing_page_id: Option<i64>,
    offer_id: Option<i64>,
    country: Option<&'c str>,
    device: Option<&'c str>,
    os: Option<&'c str>,
    browser: Option<&'c str>,
    reason: Option<InvalidReason>,
    currency: Option<Currency>,
}

/// How many clicks, and of what kind.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    clicks: i64,
    bot_clicks: i64,
    unique_clicks: i64,
    cost: Decimal,
}

/// What the clicks of a batch add.
#[derive(Debug, Default)]
pub(super) struct Deltas<'c> {
    places: HashMap<Key<'c>, usize, foldhash::fast::RandomState>,
    rows: Vec<(Key<'c>, Sums)>,
}

impl<'c> Deltas<'c> {
    pub(super) fn of(clicks: &[&'c Click<'c>]) -> Self {
        let mut deltas = Self::default();
        for click in clicks {
            let sums = deltas.sums(Key::of(click));
            sums.clicks += 1;
            sums.bot_clicks += i64::from(click.is_bot);
            sums.unique_clicks += i64::from(click.is_unique);
            sums.cost += click.cost.unwrap_or_default();
        }
        deltas
    }

    fn sums(&mut self, key: Key<'c>) -> &mut Sums {
        let place = match self.places.entry(key) {
            Entry::Occupied(place) => *place.get(),
            Entry::Vacant(place) => {
                self.rows.push((key, Sums::default()));
                *place.insert(self.rows.len() - 1)
            }
        };
        &mut self.rows[place].1
    }

    /// Stores them within the caller's transaction.
    pub(super) async fn store(&self, c: &mut Session<'_>) -> sqlx::Result<()> {
        let write = |data: &mut CopyData, (key, sums): &(Key<'_>, Sums)| {
            data.values(key.values().into_iter().chain(sums.values(key)));
        };
        let (data, rows) = (CopyData::with_fields(COLUMNS), self.rows.iter());
        c.run(COPY, async |c| copy_in(c, COPY, data, rows, write).await).await
    }
}

impl<'c> Key<'c> {
    fn of(click: &'c Click<'c>) -> Self {
        Self {
            hour: hour_of(click.id.created_at()),
            campaign_id: click.campaign_id,
            source_id: click.source_id,
            rule_id: click.rule_id,
            path_id: click.path_id,
            landing_page_id: click.landing_page_id,
            offer_id: click.campaign_offer_id,
            country: click.country.as_deref(),
            device: click.device.as_deref(),
            os: click.os.as_deref(),
            browser: click.browser.as_deref(),
            reason: click.invalid_reason,
            // an amount of no known currency is added to no other
            currency: click.cost.map(|_| click.currency.unwrap_or(Currency::UNKNOWN)),
        }
    }

    fn values(&self) -> [Value<'_>; 13] {
        let text = |text: Option<&'c str>| Value::Text(text.map(Cow::Borrowed));
        [
            Value::Timestamptz(Some(self.hour)),
            Value::Uuid(Some(self.campaign_id)),
            Value::Int8(self.source_id),
            Value::Int8(self.rule_id),
            Value::Int8(self.path_id),
            Value::Int8(self.landing_page_id),
            Value::Int8(self.offer_id),
            text(self.country),
            text(self.device),
            text(self.os),
            text(self.browser),
            Value::Text(self.reason.map(|reason| Cow::Borrowed(reason.into()))),
            Value::Text(self.currency.map(|currency| Cow::Owned(currency.into()))),
        ]
    }
}

impl Sums {
    fn values(&self, key: &Key<'_>) -> [Value<'static>; 8] {
        let counted = |is: bool| Value::Int8(Some(if is { self.clicks } else { 0 }));
        let is_valid = key.reason.is_none();
        [
            Value::Int8(Some(self.clicks)),
            counted(is_valid),
            Value::Int8(Some(self.bot_clicks)),
            Value::Int8(Some(self.unique_clicks)),
            counted(is_valid && key.landing_page_id.is_some()),
            counted(is_valid && key.landing_page_id.is_none() && key.offer_id.is_some()),
            counted(key.currency.is_some()),
            Value::Numeric(Some(self.cost)),
        ]
    }
}
