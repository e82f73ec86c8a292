//! What is said of costs later, and what is known of the clicks of a range to work out what they cost.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::{Decimal, prelude::ToPrimitive as _};
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use crate::{
    db::{Db, Error, session::Session, statement::statements},
    model::{
        campaign::CostModel,
        cost::{Dimension, Filters, RunningTotal, Terms},
        money::Currency,
    },
    money::costs::{Adjustment, Clicks, Earned, Known, Price, micros},
};

/// An adjustment as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostAdjustment {
    /// Ours.
    pub id: Uuid,
    /// In the order in which they were said.
    pub seq: i64,
    /// What was said.
    pub terms: Terms,
    /// Who said it.
    pub author: String,
    /// Which one of the same scope counted before.
    pub supersedes: Option<Uuid>,
    /// Since when it does not count.
    pub voided_at: Option<DateTime<Utc>>,
    /// Who voided it.
    pub voided_by: Option<String>,
    /// Whether it counts: it is not void, and no newer one of its scope counts.
    pub is_live: bool,
    /// When it was said.
    pub created_at: DateTime<Utc>,
}

/// Who says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The token; `None`: the command line.
    pub id: Option<Uuid>,
    /// For people.
    pub name: String,
}

/// Which adjustments are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of this campaign.
    pub campaign_id: Option<Uuid>,
    /// That end after this time.
    pub from: Option<DateTime<Utc>>,
    /// That begin before this time.
    pub to: Option<DateTime<Utc>>,
    /// Whether they are void.
    pub is_voided: Option<bool>,
}

macro_rules! select_adjustments {
    ($tail:literal) => {
        concat!(
            "
    SELECT
        a.id,
        a.seq,
        a.campaign_id,
        a.begins_at,
        a.ends_at,
        a.time_zone,
        a.filters,
        a.kind,
        a.amount,
        a.currency,
        a.spread,
        a.note,
        a.author,
        a.account,
        a.external_id,
        a.day,
        a.supersedes,
        a.voided_at,
        a.voided_by,
        a.created_at,
        EXISTS (SELECT FROM live_cost_adjustments l WHERE l.id = a.id AND l.campaign_id = a.campaign_id) AS is_live
    FROM cost_adjustments a",
            $tail
        )
    };
}

statements! {
    // A running total that is as it was is not said again.
    INSERT = "costs.insert": "
    WITH newest AS (
        SELECT *
        FROM cost_adjustments
        WHERE campaign_id = $2
          AND scope = $7
          AND voided_at IS NULL
        ORDER BY seq DESC
        LIMIT 1
    )
    INSERT INTO cost_adjustments (
        id,
        campaign_id,
        begins_at,
        ends_at,
        time_zone,
        filters,
        scope,
        kind,
        amount,
        currency,
        spread,
        note,
        author_id,
        author,
        account,
        external_id,
        day,
        supersedes
    )
    SELECT
        $1::uuid,
        $2::uuid,
        $3::timestamptz,
        $4::timestamptz,
        $5::text,
        $6::jsonb,
        $7::text,
        $8::text,
        $9::numeric,
        $10::text,
        $11::text,
        $12::text,
        $13::uuid,
        $14::text,
        $15::text,
        $16::text,
        $17::date,
        (SELECT id FROM newest)
    WHERE $15 IS NULL
       OR NOT EXISTS (
           SELECT
           FROM newest
           WHERE (begins_at, ends_at, filters, kind, amount, spread) = ($3, $4, $6, $8, $9, $11)
             AND currency IS NOT DISTINCT FROM $10
       )
    ON CONFLICT (id) DO NOTHING";

    NEWEST = "costs.newest": select_adjustments!("
    WHERE a.campaign_id = $1
      AND a.scope = $2
      AND a.voided_at IS NULL
    ORDER BY a.seq DESC
    LIMIT 1");

    GET = "costs.get": select_adjustments!("
    WHERE a.id = $1");

    LIST = "costs.list": select_adjustments!("
    WHERE a.seq < $1
      AND ($2::uuid IS NULL OR a.campaign_id = $2)
      AND ($3::timestamptz IS NULL OR a.ends_at > $3)
      AND ($4::timestamptz IS NULL OR a.begins_at < $4)
      AND ($5::boolean IS NULL OR (a.voided_at IS NOT NULL) = $5)
    ORDER BY a.seq DESC
    LIMIT $6");

    VOID = "costs.void": "
    UPDATE cost_adjustments
    SET voided_at = now(),
        voided_by = $2
    WHERE id = $1
      AND voided_at IS NULL";

    // Of each campaign of $1 the hours that its costs depend on.
    RANGES = "costs.ranges": "
    SELECT
        s.campaign_id,
        r.lo,
        r.hi
    FROM unnest($1::uuid[]) AS s (campaign_id)
    CROSS JOIN LATERAL octo_cost_range(s.campaign_id, $2, $3) r";

    // Campaigns with the first hour of each, and the hour after its last.
    LIVE = "costs.list_live": "
    SELECT
        a.campaign_id,
        a.id,
        a.begins_at,
        a.ends_at,
        a.filters,
        a.kind,
        a.amount,
        a.currency,
        a.spread,
        a.rank
    FROM live_cost_adjustments a
    JOIN unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) AS s (campaign_id, lo, hi)
      ON s.campaign_id = a.campaign_id
    WHERE a.campaign_id = ANY ($1)
      AND a.begins_at < s.hi
      AND a.ends_at > s.lo
    ORDER BY a.campaign_id, a.rank";

    // Likewise.
    HOURS = "costs.hours": "
    SELECT
        h.campaign_id,
        h.hour,
        h.currency,
        h.clicks,
        h.valid_clicks,
        h.unique_clicks,
        h.cost
    FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) AS s (campaign_id, lo, hi)
    JOIN campaign_costs_hourly h
      ON h.campaign_id = s.campaign_id
     AND h.hour >= s.lo
     AND h.hour < s.hi";

    PRICES = "costs.prices": "
    SELECT
        campaign_id,
        since,
        cost_model,
        amount,
        currency
    FROM campaign_prices
    WHERE campaign_id = ANY ($1)
    ORDER BY campaign_id, since";

    // $5 to $19 are the dimensions, NULL where one of these adjustments does not look at it. With the values known when it is
    // planned, only those that are looked at are tested.
    PLAN = "costs.plan_anew": "SELECT set_config('plan_cache_mode', 'force_custom_plan', true)";

    // Each click once, with the most specific of these adjustments that has it.
    FILTERED = "costs.count_filtered": "
    WITH a AS MATERIALIZED (
        SELECT
            rank,
            begins_at,
            ends_at,
            filters,
            kind
        FROM live_cost_adjustments
        WHERE campaign_id = $1
          AND id = ANY ($4)
    )
    SELECT
        won.rank,
        date_trunc('hour', k.created_at, 'UTC') AS hour,
        CASE WHEN k.cost IS NULL THEN '' ELSE coalesce(k.currency, 'XXX') END AS currency,
        count(*) AS clicks,
        count(*) FILTER (WHERE k.is_valid) AS valid_clicks,
        count(*) FILTER (WHERE k.is_unique) AS unique_clicks,
        coalesce(sum(k.cost), 0) AS cost
    FROM clicks k
    CROSS JOIN LATERAL (
        SELECT min(a.rank) AS rank
        FROM a
        WHERE k.created_at >= a.begins_at
          AND k.created_at < a.ends_at
          AND (a.kind <> 'factor' OR k.cost IS NOT NULL)
          AND octo_cost_filter(
              a.filters, k.source_id, k.landing_page_id, k.campaign_offer_id, k.path_id, k.rule_id, k.country,
              k.device, k.sub1, k.sub2, k.sub3, k.sub4, k.sub5, k.keyword, k.creative, k.placement
          )
    ) won
    WHERE k.campaign_id = $1
      AND k.created_at >= $2
      AND k.created_at < $3
      AND won.rank IS NOT NULL
      AND ($5::text[] IS NULL OR coalesce(k.source_id::text, 'unknown') = ANY ($5))
      AND ($6::text[] IS NULL OR coalesce(k.landing_page_id::text, 'unknown') = ANY ($6))
      AND ($7::text[] IS NULL OR coalesce(k.campaign_offer_id::text, 'unknown') = ANY ($7))
      AND ($8::text[] IS NULL OR coalesce(k.path_id::text, 'unknown') = ANY ($8))
      AND ($9::text[] IS NULL OR coalesce(k.rule_id::text, 'unknown') = ANY ($9))
      AND ($10::text[] IS NULL OR coalesce(k.country, 'unknown') = ANY ($10))
      AND ($11::text[] IS NULL OR coalesce(k.device, 'unknown') = ANY ($11))
      AND ($12::text[] IS NULL OR coalesce(k.sub1, 'unknown') = ANY ($12))
      AND ($13::text[] IS NULL OR coalesce(k.sub2, 'unknown') = ANY ($13))
      AND ($14::text[] IS NULL OR coalesce(k.sub3, 'unknown') = ANY ($14))
      AND ($15::text[] IS NULL OR coalesce(k.sub4, 'unknown') = ANY ($15))
      AND ($16::text[] IS NULL OR coalesce(k.sub5, 'unknown') = ANY ($16))
      AND ($17::text[] IS NULL OR coalesce(k.keyword, 'unknown') = ANY ($17))
      AND ($18::text[] IS NULL OR coalesce(k.creative, 'unknown') = ANY ($18))
      AND ($19::text[] IS NULL OR coalesce(k.placement, 'unknown') = ANY ($19))
    GROUP BY 1, 2, 3";

    // Of clicks whose links said no cost, and that are none of these adjustments'.
    EARNED = "costs.earned": "
    WITH a AS MATERIALIZED (
        SELECT
            begins_at,
            ends_at,
            filters
        FROM live_cost_adjustments
        WHERE campaign_id = $1
          AND id = ANY ($4)
          AND kind <> 'factor'
    ), e AS MATERIALIZED (
        SELECT
            *,
            row_number() OVER (PARTITION BY click_id ORDER BY currency) = 1 AS is_first
        FROM octo_click_earnings($1, $2, $3)
    )
    SELECT
        date_trunc('hour', k.created_at, 'UTC') AS hour,
        e.currency,
        count(*) FILTER (WHERE e.is_first) AS clicks,
        count(*) FILTER (WHERE e.is_first AND k.is_valid) AS valid_clicks,
        sum(e.conversions)::bigint AS conversions,
        sum(e.revenue) AS revenue
    FROM e
    JOIN clicks k ON k.created_at = e.created_at AND k.id = e.click_id
    WHERE k.created_at >= $2
      AND k.created_at < $3
      AND k.cost IS NULL
      AND NOT EXISTS (
          SELECT
          FROM a
          WHERE k.created_at >= a.begins_at
            AND k.created_at < a.ends_at
            AND octo_cost_filter(
                a.filters, k.source_id, k.landing_page_id, k.campaign_offer_id, k.path_id, k.rule_id, k.country,
                k.device, k.sub1, k.sub2, k.sub3, k.sub4, k.sub5, k.keyword, k.creative, k.placement
            )
      )
    GROUP BY 1, 2
    ORDER BY 1, 2";
}

/// Stores what was said, once for each id; gives what is stored: of a running total that is as it was the one that counts.
pub async fn insert(db: &Db, id: Uuid, terms: Terms, author: Author) -> Result<CostAdjustment, Error> {
    db.write(INSERT, move |c| {
        Box::pin(async move {
            let (running, campaign_id, scope) = (terms.running.clone(), terms.campaign_id, terms.scope());
            INSERT
                .query()
                .bind(id)
                .bind(terms.campaign_id)
                .bind(terms.begins_at)
                .bind(terms.ends_at)
                .bind(terms.time_zone.name())
                .bind(Json(&terms.filters))
                .bind(scope.clone())
                .bind(<&str>::from(terms.kind))
                .bind(terms.amount)
                .bind(terms.currency.map(String::from))
                .bind(<&str>::from(terms.spread))
                .bind(terms.note)
                .bind(author.id)
                .bind(author.name)
                .bind(running.as_ref().map(|r| r.account.clone()))
                .bind(running.as_ref().map(|r| r.external_id.clone()))
                .bind(running.map(|r| r.day))
                .execute(c)
                .await?;
            if let Some(stored) = select(c, id).await? {
                return Ok(stored);
            }
            NEWEST.query_as::<Row>().bind(campaign_id).bind(scope).fetch_one(c).await?.read()
        })
    })
    .await
}

/// Adjustments, newest first, before (older than) `after`, at most `limit`; from a replica.
pub async fn list(
    db: &Db,
    filter: Filter,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<CostAdjustment>, Error> {
    let Filter { campaign_id, from, to, is_voided } = filter;
    db.read(LIST, move |c| {
        Box::pin(async move {
            let query = LIST.query_as::<Row>().bind(after.unwrap_or(i64::MAX)).bind(campaign_id);
            let rows = query.bind(from).bind(to).bind(is_voided).bind(limit).fetch_all(c).await?;
            rows.into_iter().map(Row::read).collect()
        })
    })
    .await
}

/// One adjustment; from a replica.
pub async fn get(db: &Db, id: Uuid) -> Result<Option<CostAdjustment>, Error> {
    db.read(GET, move |c| Box::pin(async move { select(c, id).await })).await
}

/// Takes one out of the figures, for good; `None`: there is none with this id.
pub async fn void(db: &Db, id: Uuid, by: String) -> Result<Option<CostAdjustment>, Error> {
    db.write(VOID, move |c| {
        Box::pin(async move {
            VOID.query().bind(id).bind(by).execute(c).await?;
            select(c, id).await
        })
    })
    .await
}

/// What is known of the clicks of a campaign from the hour `from` until before the hour `to`, and of those that share an
/// adjustment with them, at one moment: sums by hour, and what is counted one by one: clicks of filters, and conversions where
/// they are paid for. Each may take `count_timeout`. What ended before `settled` does not change any more.
pub async fn known(
    db: &Db,
    campaign_id: Uuid,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    settled: DateTime<Utc>,
    count_timeout: Duration,
) -> Result<Known, Error> {
    let read = db.read_snapshot(HOURS, count_timeout, move |c| {
        Box::pin(async move {
            let mut all = known_of(c, &[campaign_id], (from, to), settled, Hours::All).await?;
            let Some(OfCampaign { mut known, lo, hi, .. }) = all.remove(&campaign_id) else {
                return Ok(Known::default());
            };
            if known.prices.iter().any(|price| price.amount.is_some() && price.model.is_of_conversions()) {
                let with_filters = known.adjustments.iter().filter(|a| !a.filters.0.is_empty());
                let ids: Vec<Uuid> = with_filters.map(|a| a.id).collect();
                let query = EARNED.query_as::<EarnedRow>().bind(campaign_id).bind(lo).bind(hi).bind(ids);
                let earned = query.fetch_all(c).await?;
                known.earned = earned.into_iter().map(EarnedRow::read).collect::<Result<_, _>>()?;
            }
            Ok(known)
        })
    });
    read.await
}

/// Of which campaigns the sums of hours are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hours {
    /// All.
    All,
    /// Those with adjustments, or whose price is not one of each click: the others' costs are known without.
    OfShared,
}

/// What is known of a campaign.
#[derive(Debug, Clone)]
pub(super) struct OfCampaign {
    /// Everything but what conversions come to.
    pub(super) known: Known,
    /// By which the database knows the adjustments.
    pub(super) ranks: Vec<i64>,
    /// The first hour that its costs depend on.
    lo: DateTime<Utc>,
    /// The hour after the last.
    hi: DateTime<Utc>,
}

/// As [`known`] without conversions, of several campaigns.
pub(super) async fn known_of(
    c: &mut Session<'_>,
    campaigns: &[Uuid],
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    settled: DateTime<Utc>,
    of: Hours,
) -> sqlx::Result<HashMap<Uuid, OfCampaign>> {
    let mut found = HashMap::with_capacity(campaigns.len());
    let ranges = RANGES.query_as::<RangeRow>().bind(campaigns.to_vec()).bind(from).bind(to);
    let ranges = ranges.fetch_all(c).await?;
    let in_order = |rows: &[RangeRow]| -> (Vec<Uuid>, Vec<DateTime<Utc>>, Vec<DateTime<Utc>>) {
        let ends = rows.iter().map(|row| (row.lo, row.hi));
        let (lo, hi) = ends.unzip();
        (rows.iter().map(|row| row.campaign_id).collect(), lo, hi)
    };
    let (ids, lo, hi) = in_order(&ranges);
    for RangeRow { campaign_id, lo, hi } in &ranges {
        let known = Known::default();
        found.insert(*campaign_id, OfCampaign { known, ranks: Vec::new(), lo: *lo, hi: *hi });
    }
    let live = LIVE.query_as::<LiveRow>().bind(ids.clone()).bind(lo).bind(hi).fetch_all(c).await?;
    let prices = PRICES.query_as::<PriceRow>().bind(ids).fetch_all(c).await?;
    for row in live {
        if let Some(of) = found.get_mut(&row.campaign_id) {
            of.ranks.push(row.rank);
            of.known.adjustments.push(row.read(settled)?);
        }
    }
    for row in prices {
        if let Some(of) = found.get_mut(&row.campaign_id) {
            of.known.prices.push(row.read()?);
        }
    }
    let is_shared = |of: &OfCampaign| {
        let by_thousands = |price: &Price| price.model == CostModel::Cpm && price.amount.is_some();
        !of.known.adjustments.is_empty() || of.known.prices.iter().any(by_thousands)
    };
    let wanted = ranges
        .into_iter()
        .filter(|row| of == Hours::All || found.get(&row.campaign_id).is_some_and(is_shared));
    let (ids, lo, hi) = in_order(&wanted.collect::<Vec<_>>());
    let hours = HOURS.query_as::<HourRow>().bind(ids).bind(lo).bind(hi).fetch_all(c).await?;
    for row in hours {
        if let Some(of) = found.get_mut(&row.campaign_id) {
            of.known.hours.push(row.clicks.read());
        }
    }
    for (campaign_id, of) in &mut found {
        let counted = count_filtered(c, *campaign_id, &of.known.adjustments).await?;
        let place = |rank: i64| of.ranks.iter().position(|known| *known == rank);
        of.known.filtered =
            counted.into_iter().filter_map(|row| Some((place(row.rank)?, row.clicks.read()))).collect();
    }
    Ok(found)
}

/// The dimensions of [`FILTERED`], in the order of its parameters.
const DIMENSIONS: [Dimension; 15] = [
    Dimension::Source,
    Dimension::LandingPage,
    Dimension::Offer,
    Dimension::Path,
    Dimension::Rule,
    Dimension::Country,
    Dimension::Device,
    Dimension::Sub1,
    Dimension::Sub2,
    Dimension::Sub3,
    Dimension::Sub4,
    Dimension::Sub5,
    Dimension::Keyword,
    Dimension::Creative,
    Dimension::Placement,
];

/// Counts the clicks of adjustments with filters one by one.
async fn count_filtered(
    c: &mut Session<'_>,
    campaign_id: Uuid,
    adjustments: &[Adjustment],
) -> sqlx::Result<Vec<FilteredRow>> {
    let adjustments: Vec<&Adjustment> = adjustments.iter().filter(|a| !a.filters.0.is_empty()).collect();
    let begin = adjustments.iter().map(|row| row.begins_at).min();
    let end = adjustments.iter().map(|row| row.ends_at).max();
    let Some((begin, end)) = begin.zip(end) else { return Ok(Vec::new()) };
    PLAN.query().execute(&mut *c).await?;
    let ids: Vec<Uuid> = adjustments.iter().map(|row| row.id).collect();
    let mut query = FILTERED.query_as::<FilteredRow>().bind(campaign_id).bind(begin).bind(end).bind(ids);
    for dimension in DIMENSIONS {
        let values = |row: &&Adjustment| row.filters.0.get(&dimension).cloned();
        let all: Option<Vec<BTreeSet<String>>> = adjustments.iter().map(values).collect();
        // a click that has none of them is none of any adjustment's
        query = query.bind(all.map(|all| all.into_iter().flatten().collect::<Vec<String>>()));
    }
    query.fetch_all(c).await
}

async fn select(c: &mut Session<'_>, id: Uuid) -> sqlx::Result<Option<CostAdjustment>> {
    GET.query_as::<Row>().bind(id).fetch_optional(c).await?.map(Row::read).transpose()
}

/// What [`GET`] and [`LIST`] read.
#[derive(FromRow)]
struct Row {
    id: Uuid,
    seq: i64,
    campaign_id: Uuid,
    begins_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    time_zone: String,
    filters: Json<Filters>,
    kind: String,
    amount: Decimal,
    currency: Option<String>,
    spread: String,
    note: Option<String>,
    author: String,
    account: Option<String>,
    external_id: Option<String>,
    day: Option<NaiveDate>,
    supersedes: Option<Uuid>,
    voided_at: Option<DateTime<Utc>>,
    voided_by: Option<String>,
    created_at: DateTime<Utc>,
    is_live: bool,
}

impl Row {
    fn read(self) -> sqlx::Result<CostAdjustment> {
        let Self { id, seq, author, supersedes, voided_at, voided_by, created_at, is_live, .. } = self;
        let running = self.account.zip(self.external_id).zip(self.day);
        let terms = Terms {
            campaign_id: self.campaign_id,
            begins_at: self.begins_at,
            ends_at: self.ends_at,
            time_zone: parsed(&self.time_zone)?,
            filters: self.filters.0,
            kind: parsed(&self.kind)?,
            amount: self.amount,
            currency: currency(self.currency.as_deref())?,
            spread: parsed(&self.spread)?,
            note: self.note,
            running: running.map(|((account, external_id), day)| RunningTotal { account, external_id, day }),
        };
        Ok(CostAdjustment { id, seq, terms, author, supersedes, voided_at, voided_by, is_live, created_at })
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> sqlx::Result<T> {
    text.parse().map_err(|error: T::Err| sqlx::Error::Decode(error.to_string().into()))
}

fn currency(code: Option<&str>) -> sqlx::Result<Option<Currency>> {
    code.map(parsed).transpose()
}

#[derive(FromRow)]
struct RangeRow {
    campaign_id: Uuid,
    lo: DateTime<Utc>,
    hi: DateTime<Utc>,
}

#[derive(FromRow)]
struct LiveRow {
    campaign_id: Uuid,
    id: Uuid,
    begins_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    filters: Json<Filters>,
    kind: String,
    amount: Decimal,
    currency: Option<String>,
    spread: String,
    rank: i64,
}

impl LiveRow {
    fn read(self, settled: DateTime<Utc>) -> sqlx::Result<Adjustment> {
        Ok(Adjustment {
            id: self.id,
            begins_at: self.begins_at,
            ends_at: self.ends_at,
            filters: self.filters.0,
            kind: parsed(&self.kind)?,
            amount: micros(self.amount),
            currency: currency(self.currency.as_deref())?,
            spread: parsed(&self.spread)?,
            is_provisional: self.ends_at > settled,
        })
    }
}

#[derive(FromRow)]
struct HourRow {
    campaign_id: Uuid,
    #[sqlx(flatten)]
    clicks: ClicksRow,
}

#[derive(FromRow)]
struct ClicksRow {
    hour: DateTime<Utc>,
    currency: String,
    clicks: i64,
    valid_clicks: i64,
    unique_clicks: i64,
    cost: Decimal,
}

impl ClicksRow {
    fn read(self) -> Clicks {
        Clicks {
            hour: self.hour,
            currency: self.currency.parse().ok(), // '' is none
            clicks: self.clicks,
            valid: self.valid_clicks,
            unique: self.unique_clicks,
            token: micros(self.cost),
        }
    }
}

#[derive(FromRow)]
struct FilteredRow {
    rank: i64,
    #[sqlx(flatten)]
    clicks: ClicksRow,
}

#[derive(FromRow)]
struct PriceRow {
    campaign_id: Uuid,
    since: DateTime<Utc>,
    cost_model: String,
    amount: Option<Decimal>,
    currency: Option<String>,
}

impl PriceRow {
    fn read(self) -> sqlx::Result<Price> {
        Ok(Price {
            since: self.since,
            model: parsed(&self.cost_model)?,
            amount: self.amount.map(micros),
            currency: currency(self.currency.as_deref())?,
        })
    }
}

#[derive(FromRow)]
struct EarnedRow {
    hour: DateTime<Utc>,
    currency: String,
    clicks: i64,
    valid_clicks: i64,
    conversions: i64,
    revenue: Decimal,
}

impl EarnedRow {
    fn read(self) -> sqlx::Result<Earned> {
        Ok(Earned {
            hour: self.hour,
            currency: parsed(&self.currency)?,
            clicks: self.clicks,
            valid: self.valid_clicks,
            conversions: self.conversions,
            revenue: self.revenue.to_i128().unwrap_or_default(), // whole millionths
        })
    }
}
