//! `GET /api/v1/campaigns/{id}/costs`: what the clicks of a campaign cost, by hour or day and currency.

use std::collections::BTreeMap;

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::input::local;
use crate::{
    app::{App, Parts},
    db::store::{costs, stats::GroupBy},
    http::{
        api::{
            campaigns,
            manners::{answer::answer, auth::Read, page::Params, problems::Problems, request::Name},
        },
        error::Problem,
    },
    model::{
        cost::{Kind, Spread},
        hour::hour_of,
        money::{Currency, amount_text},
    },
    money::costs::{Adjusted, Costs, Figures, Warning, amount, work_out},
};

/// Most hours or days of an answer.
const BUCKETS_MAX: i32 = 2400;

/// The routes of this module.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(get))
}

/// What the clicks of a campaign cost.
#[derive(Debug, Serialize, ToSchema)]
struct CampaignCosts {
    /// Whose clicks.
    campaign_id: Uuid,
    /// What they are added up by.
    group_by: GroupBy,
    /// The time zone of days.
    #[schema(value_type = String, format = "time-zone", example = "Europe/Berlin")]
    tz: Tz,
    /// The first hour that is in.
    from: DateTime<Utc>,
    /// Hours that begin before this time are in.
    to: DateTime<Utc>,
    /// In order of time and currency.
    data: Vec<Bucket>,
    /// Of all that is in `data`, by currency.
    totals: Vec<Total>,
    /// What is to be looked at.
    warnings: Vec<Note>,
}

/// What clicks of one hour or day cost in one currency.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CostBucket)]
struct Bucket {
    /// When it begins.
    start_at: DateTime<Utc>,
    /// The day in the time zone asked for.
    date: NaiveDate,
    #[serde(flatten)]
    figures: Shown,
}

/// Sums of one currency.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CostTotal)]
pub(crate) struct Total {
    #[serde(flatten)]
    pub(crate) figures: Shown,
}

/// What clicks cost in one currency.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CostFigures)]
pub(crate) struct Shown {
    /// Null: clicks of which no cost is known; `XXX`: links said an amount of no known currency.
    #[schema(value_type = Option<String>, pattern = "^[A-Z]{3}$", example = "EUR")]
    pub(crate) currency: Option<Currency>,
    /// Clicks whose cost is in this currency.
    #[schema(example = 1200)]
    pub(crate) clicks: i64,
    /// Those of them that count.
    #[schema(example = 1160)]
    pub(crate) valid_clicks: i64,
    /// By what their links said.
    #[schema(example = "12.50")]
    pub(crate) token: String,
    /// By the price of the campaign.
    #[schema(example = "0.00")]
    pub(crate) model: String,
    /// By adjustments.
    #[schema(example = "30.00")]
    pub(crate) adjusted: String,
    /// What the clicks cost: these three together.
    #[schema(example = "42.50")]
    pub(crate) effective: String,
    /// Of totals what no click bears; it stands at the first hour of the total and is in none of the others.
    #[schema(example = "0.00")]
    pub(crate) unallocated: String,
    /// Where `effective` is from.
    pub(crate) provenance: Provenance,
    /// Whether clicks of an adjustment's range may still come (`costs.settle_s`).
    pub(crate) provisional: bool,
}

/// Where a figure is from.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = CostProvenance)]
pub(crate) enum Provenance {
    /// Nowhere: no cost is known.
    None,
    /// Links.
    Token,
    /// The price of the campaign.
    Model,
    /// Adjustments.
    Adjusted,
    /// Several of them.
    Mixed,
}

/// Something to look at.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CostWarning)]
pub(crate) struct Note {
    /// `parts_exceed_total` or `unallocated`.
    #[schema(value_type = String, example = "parts_exceed_total")]
    code: &'static str,
    /// In words.
    #[schema(example = "More specific adjustments took more than this total; they count.")]
    detail: &'static str,
    /// The adjustment.
    cost_id: Uuid,
}

/// Show what clicks cost
///
/// Of each click the most specific adjustment counts, else what its link said, else the price of the campaign. Totals are
/// spread over their clicks exactly. Hours and days without clicks are left out.
#[utoipa::path(
    get, path = "/campaigns/{id}/costs", tag = "costs", operation_id = "get_campaign_costs",
    params(
        ("id" = String, Path, description = "The campaign's id or key.", example = "summer-sale"),
        ("from" = Option<String>, Query, description = "From the hour of this time (RFC 3339); by default 30 days, by hour one day, before `to`.", example = "2026-01-01T00:00:00Z"),
        ("to" = Option<String>, Query, description = "Until the end of the hour of this time (RFC 3339); by default now.", example = "2026-02-01T00:00:00Z"),
        ("group_by" = Option<GroupBy>, Query, description = "`day` by default."),
        ("tz" = Option<String>, Query, description = "IANA time zone whose days count; `UTC` by default. A day gets the hours (UTC) that begin in it.", example = "Europe/Berlin"),
    ),
    responses((status = 200, description = "The figures.", body = CampaignCosts), Problems),
)]
async fn get(
    _: Read,
    State(app): State<App>,
    Name(id): Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let now = Utc::now();
    let Asked { group_by, from, to, tz } = Asked::read(query.as_deref(), now)?;
    let campaign_id = campaigns::find(&app, &id).await?.id;
    let config = &app.config.costs;
    let known =
        costs::known(&app.db, campaign_id, (from, to), now - config.settle, config.count_timeout).await?;
    let Costs { hours, warnings, .. } = work_out(known);
    let mut buckets: BTreeMap<(DateTime<Utc>, NaiveDate, Option<Currency>), Figures> = BTreeMap::new();
    let mut totals: BTreeMap<Option<Currency>, Figures> = BTreeMap::new();
    for ((hour, currency), figures) in hours.into_iter().filter(|((hour, _), _)| (from..to).contains(hour)) {
        let date = hour.with_timezone(&tz).date_naive();
        let start_at = if group_by == GroupBy::Day { local(tz, date.into()) } else { hour };
        buckets.entry((start_at, date, currency)).or_default().add(&figures);
        totals.entry(currency).or_default().add(&figures);
    }
    let bucket = |((start_at, date, currency), figures): (_, Figures)| Bucket {
        start_at,
        date,
        figures: Shown::of(currency, &figures),
    };
    let total = |(currency, figures): (_, Figures)| Total { figures: Shown::of(currency, &figures) };
    let shown = CampaignCosts {
        campaign_id,
        group_by,
        tz,
        from,
        to,
        data: buckets.into_iter().map(bucket).collect(),
        totals: totals.into_iter().map(total).collect(),
        warnings: warnings.into_iter().map(Note::of).collect(),
    };
    answer(StatusCode::OK, &shown)
}

/// What the clicks of a range cost together, and what one adjustment of it comes to.
pub(crate) struct OfRange {
    /// By currency.
    pub(crate) totals: Vec<Total>,
    /// `None`: it does not count, or none was asked for.
    pub(crate) borne: Option<Borne>,
}

/// What an adjustment comes to.
pub(crate) struct Borne {
    /// Which clicks bear it.
    pub(crate) basis: Spread,
    /// How many; `None` of a factor.
    pub(crate) clicks: Option<i128>,
    /// What they bear, by currency.
    pub(crate) sums: Vec<(String, String)>,
    /// Of a total what no click bears.
    pub(crate) unallocated: Option<String>,
}

/// What the clicks of these hours cost, and what the adjustment with this id comes to.
pub(crate) async fn of_range(
    app: &Parts,
    campaign_id: Uuid,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    cost_id: Option<Uuid>,
) -> Result<OfRange, Problem> {
    let config = &app.config.costs;
    let settled = Utc::now() - config.settle;
    let known = costs::known(&app.db, campaign_id, (from, to), settled, config.count_timeout).await?;
    let place = known.adjustments.iter().position(|it| Some(it.id) == cost_id);
    let kind = place.map(|place| known.adjustments[place].kind);
    let Costs { hours, mut adjusted, .. } = work_out(known);
    let mut totals: BTreeMap<Option<Currency>, Figures> = BTreeMap::new();
    for ((_, currency), figures) in hours.into_iter().filter(|((hour, _), _)| (from..to).contains(hour)) {
        totals.entry(currency).or_default().add(&figures);
    }
    let borne = place.filter(|place| *place < adjusted.len()).map(|place| {
        let Adjusted { basis, parts, unallocated } = adjusted.swap_remove(place);
        let mut sums: BTreeMap<Option<Currency>, i128> = BTreeMap::new();
        for ((_, currency), part) in &parts {
            *sums.entry(*currency).or_default() += part.cost;
        }
        let text = |micros| amount_text(amount(micros));
        let named = |currency: Option<Currency>| currency.map(String::from).unwrap_or_default();
        Borne {
            basis,
            clicks: (kind != Some(Kind::Factor)).then(|| parts.values().map(|part| part.units).sum()),
            sums: sums.into_iter().map(|(currency, sum)| (text(sum), named(currency))).collect(),
            unallocated: (kind == Some(Kind::Total)).then(|| text(unallocated)),
        }
    });
    let total = |(currency, figures): (_, Figures)| Total { figures: Shown::of(currency, &figures) };
    Ok(OfRange { totals: totals.into_iter().map(total).collect(), borne })
}

struct Asked {
    group_by: GroupBy,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    tz: Tz,
}

impl Asked {
    fn read(query: Option<&str>, now: DateTime<Utc>) -> Result<Self, Problem> {
        let mut params = Params::parse(query, &["from", "to", "group_by", "tz"]);
        let group_by = params.parsed("group_by", "choice").unwrap_or(GroupBy::Day);
        let (step, steps) = match group_by {
            GroupBy::Hour => (TimeDelta::hours(1), 24),
            GroupBy::Day => (TimeDelta::days(1), 30),
        };
        let end = params.time("to").unwrap_or(now);
        let to = if hour_of(end) == end { end } else { hour_of(end) + TimeDelta::hours(1) };
        let from = hour_of(params.time("from").unwrap_or(to - step * steps));
        let tz = params.zone();
        if to <= from {
            params.refuse("to", "range", "must be after from");
        } else if to - from > step * BUCKETS_MAX {
            params.refuse("from", "range", format!("must be at most {BUCKETS_MAX} {group_by}s before to"));
        }
        params.finish()?;
        Ok(Self { group_by, from, to, tz })
    }
}

impl Shown {
    fn of(currency: Option<Currency>, figures: &Figures) -> Self {
        let money = |micros| amount_text(amount(micros));
        let from = figures.from;
        Self {
            currency,
            clicks: figures.clicks,
            valid_clicks: figures.valid_clicks,
            token: money(figures.token),
            model: money(figures.model),
            adjusted: money(figures.adjusted),
            effective: money(figures.effective()),
            unallocated: money(figures.unallocated),
            provenance: match (from.token, from.model, from.adjusted) {
                (false, false, false) => Provenance::None,
                (true, false, false) => Provenance::Token,
                (false, true, false) => Provenance::Model,
                (false, false, true) => Provenance::Adjusted,
                _ => Provenance::Mixed,
            },
            provisional: figures.is_provisional,
        }
    }
}

impl Note {
    fn of(warning: Warning) -> Self {
        let (code, detail, cost_id) = match warning {
            Warning::PartsExceedTotal(id) => {
                ("parts_exceed_total", "More specific adjustments took more than this total; they count.", id)
            }
            Warning::Unallocated(id) => ("unallocated", "No click bears this total, or the rest of it.", id),
        };
        Self { code, detail, cost_id }
    }
}
