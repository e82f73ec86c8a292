//! What costs of reports are worked out of where links do not say all of it: campaigns that have a price or an adjustment.
//!
//! Their clicks are read by what the question groups by, as its figures are, and besides by what says their cost: the most specific
//! adjustment that takes them, else the link, else the price. The rules are in `money::costs`, which works out what all clicks of
//! an hour cost; here is only which row bears how much of it.

use chrono::{DateTime, NaiveDate, TimeDelta, Timelike as _, Utc};
use rust_decimal::{Decimal, prelude::ToPrimitive as _};
use sqlx::FromRow;
use uuid::Uuid;

use super::{COUNT_CLICKS, KeyRow, Limits, Read, bind_hours, bind_piece, bind_rest};
use crate::{
    db::{
        Statement,
        session::Session,
        statement::statements,
        store::costs::{Hours, known_of},
    },
    model::{cost::Dimension as FilterDimension, hour::hour_of},
    money::costs::{Clicks, Known, micros},
    reports::{
        costs::{Campaign, Cell, Earning, Facts},
        plan::{Kind, Piece, Plan, Source},
        question::{Dimension, Question},
    },
};

/// The prices and adjustments of the campaigns in $13, these by hour.
macro_rules! said {
    () => {
        "
WITH m AS MATERIALIZED (
    SELECT
        campaign_id,
        array_agg(since ORDER BY since) AS sinces
    FROM campaign_prices
    WHERE campaign_id = ANY ($13::uuid[])
    GROUP BY campaign_id
), a AS MATERIALIZED (
    SELECT
        l.campaign_id,
        h.hour,
        bool_or(l.filters <> '{}') AS has_filters,
        min(l.rank) AS rank_said,
        min(l.rank) FILTER (WHERE l.kind <> 'factor') AS rank_unsaid,
        array_agg(l.rank ORDER BY l.rank) AS ranks,
        array_agg(l.kind = 'factor' ORDER BY l.rank) AS are_factors,
        array_agg(l.filters ORDER BY l.rank) AS filters
    FROM live_cost_adjustments l
    CROSS JOIN LATERAL generate_series(
        greatest(l.begins_at, date_trunc('hour', $2::timestamptz, 'UTC')),
        least(l.ends_at, $3::timestamptz) - interval '1 microsecond',
        interval '1 hour'
    ) AS h (hour)
    WHERE l.campaign_id = ANY ($13)
      AND l.begins_at < $3
      AND l.ends_at > $2
    GROUP BY l.campaign_id, h.hour
)"
    };
}

/// The adjustment that takes the clicks of a row, which takes all of them or none.
macro_rules! taken {
    ($texts:ident) => {
        concat!(
            "
LEFT JOIN m ON m.campaign_id = f.campaign_id
LEFT JOIN a ON a.campaign_id = f.campaign_id AND a.hour = date_trunc('hour', f.at, 'UTC')
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN a.hour IS NULL THEN NULL
        WHEN NOT a.has_filters THEN CASE WHEN f.currency IS NULL THEN a.rank_unsaid ELSE a.rank_said END
        ELSE (
            SELECT min(u.rank)
            FROM unnest(a.ranks, a.are_factors, a.filters) AS u (rank, is_factor, filters)
            WHERE (NOT u.is_factor OR f.currency IS NOT NULL)
              AND (
                  u.filters = '{}'
                  OR octo_cost_filter(
                      u.filters, f.source_id, f.landing_page_id, f.offer_id, f.path_id, f.rule_id, f.country, f.device, ",
            $texts!(),
            "
                  )
              )
        )
    END AS rank
    OFFSET 0 -- worked out once a row
) won"
        )
    };
}

/// Likewise where no adjustment has filters.
macro_rules! taken_whole {
    () => {
        "
LEFT JOIN m ON m.campaign_id = f.campaign_id
LEFT JOIN a ON a.campaign_id = f.campaign_id AND a.hour = date_trunc('hour', f.at, 'UTC')
CROSS JOIN LATERAL (
    SELECT CASE WHEN f.currency IS NULL THEN a.rank_unsaid ELSE a.rank_said END AS rank
) won"
    };
}

/// What no adjustment can look at in sums.
macro_rules! no_texts {
    () => {
        "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"
    };
}

/// What facts have of it.
macro_rules! texts {
    () => {
        "f.sub1, f.sub2, f.sub3, f.sub4, f.sub5, f.keyword, f.creative, f.placement"
    };
}

/// Clicks of what stands in `$from` as `f`, by the question's keys and by what says their cost. $7 has campaigns with costs in other
/// currencies than that of the question: theirs stand by day (UTC).
macro_rules! clicks {
    ($value:ident, $taken:expr, $from:expr) => {
        concat!(
            said!(),
            "
SELECT
    ", $value!("$9"), " AS key1,
    ", $value!("$10"), " AS key2,
    ", $value!("$11"), " AS key3,
    ", $value!("$12"), " AS key4,
    f.campaign_id,
    won.rank,
    f.currency,
    CASE WHEN won.rank IS NULL AND f.currency IS NULL THEN coalesce(width_bucket(f.at, m.sinces), 0) END AS price,
    CASE
        WHEN f.currency <> $6::text OR f.campaign_id = ANY ($7::uuid[]) THEN (f.at AT TIME ZONE 'UTC')::date
    END AS day,
    octo_sum(f.clicks) AS clicks,
    octo_sum(f.valid_clicks) AS valid_clicks,
    octo_sum(f.unique_clicks) AS unique_clicks,
    sum(f.cost) AS cost
FROM ", $from,
            $taken,
            asked!($value),
            "
  AND f.campaign_id = ANY ($13)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
HAVING octo_sum(f.clicks) <> 0 OR octo_sum(f.valid_clicks) <> 0 OR octo_sum(f.unique_clicks) <> 0 OR sum(f.cost) <> 0
LIMIT $14"
        )
    };
}

statements! {
    // Campaigns whose costs are not only what links say: with a price or an adjustment in the time.
    SPECIAL = "report_costs.list_campaigns": "
WITH prices AS (
    SELECT
        campaign_id,
        since,
        cost_model,
        amount,
        lead(since) OVER (PARTITION BY campaign_id ORDER BY since) AS until
    FROM campaign_prices
    WHERE $3::uuid[] IS NULL OR campaign_id = ANY ($3)
)
SELECT campaign_id
FROM prices
WHERE since < $2::timestamptz
  AND (until IS NULL OR until > $1::timestamptz)
  AND amount IS NOT NULL
  AND cost_model <> 'none'
UNION
SELECT campaign_id
FROM cost_adjustments
WHERE voided_at IS NULL
  AND begins_at < $2
  AND ends_at > $1
  AND ($3 IS NULL OR campaign_id = ANY ($3))";

    OF_DIMENSIONS = "report_costs.of_dimensions": clicks!(alone, taken_whole!(), dimension_sums!());

    OF_DAYS = "report_costs.of_days": clicks!(summed, taken!(no_texts), day_sums!());

    OF_HOURS = "report_costs.of_hours": clicks!(summed, taken!(no_texts), hour_sums!());

    OF_DELTAS = "report_costs.of_deltas": clicks!(summed, taken!(no_texts), delta_sums!());

    OF_FACTS = "report_costs.of_facts": clicks!(of_facts, taken!(texts), "(
    SELECT *
    FROM report_facts
    WHERE time_kind = 0
      AND clicks > 0
      AND at >= $2
      AND at < $3
) f");

    // What approved conversions of clicks come to whose cost neither a link nor an adjustment says.
    EARNED = "report_costs.earned": concat!(
        said!(),
        "
SELECT
    ", of_facts!("$9"), " AS key1,
    ", of_facts!("$10"), " AS key2,
    ", of_facts!("$11"), " AS key3,
    ", of_facts!("$12"), " AS key4,
    f.campaign_id,
    date_trunc('hour', f.at, 'UTC') AS hour,
    coalesce(width_bucket(f.at, m.sinces), 0) AS price,
    f.earned_in AS currency,
    sum(f.conversions)::bigint AS conversions,
    sum(f.revenue) AS revenue
FROM (
    SELECT
        0::smallint AS time_kind,
        c.created_at AS at,
        c.campaign_id,
        c.source_id,
        c.rule_id,
        c.path_id,
        c.landing_page_id,
        c.campaign_offer_id AS offer_id,
        c.country,
        c.device,
        c.os,
        c.browser,
        c.invalid_reason AS reason,
        NULL::text AS currency,
        NULL::text AS goal,
        NULL::text AS status,
        c.language,
        c.region,
        c.city,
        c.isp,
        c.connection,
        c.os_version,
        c.browser_version,
        octo_referrer_host(c.referrer) AS referrer_host,
        c.sub1,
        c.sub2,
        c.sub3,
        c.sub4,
        c.sub5,
        c.affiliate_sub,
        c.affiliate_sub2,
        c.affiliate_sub3,
        c.affiliate_sub4,
        c.affiliate_sub5,
        c.keyword,
        c.creative,
        c.placement,
        e.currency AS earned_in,
        e.conversions,
        e.revenue
    FROM unnest($13) AS s (campaign_id)
    CROSS JOIN LATERAL octo_click_earnings(s.campaign_id, $2, $3) e
    JOIN clicks c ON c.created_at = e.created_at AND c.id = e.click_id
    WHERE c.cost IS NULL
      AND c.created_at >= $2
      AND c.created_at < $3
) f",
        taken!(texts),
        asked!(of_facts),
        "
  AND f.campaign_id = ANY ($13)
  AND won.rank IS NULL
  AND $6::text IS NOT NULL
  AND $7::uuid[] IS NOT NULL
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
LIMIT $14"
    );
}

/// The campaigns of a question whose costs are not only what links say; none where it asks for no costs.
pub(super) async fn list_special(
    c: &mut Session<'_>,
    question: &Question,
    campaigns: Option<&[Uuid]>,
) -> sqlx::Result<Vec<Uuid>> {
    if !question.needs_cost() {
        return Ok(Vec::new());
    }
    let query = SPECIAL.query_scalar().bind(question.from).bind(question.to);
    query.bind(campaigns.map(<[Uuid]>::to_vec)).fetch_all(c).await
}

/// What the costs of these campaigns are worked out of; `settled` is as in [`super::read`], and days are closed until the other time.
pub(super) async fn read(
    c: &mut Session<'_>,
    question: &Question,
    plan: &Plan,
    special: &[Uuid],
    (settled, closed_until): (DateTime<Utc>, DateTime<Utc>),
    limits: Limits,
) -> sqlx::Result<Result<Facts, Read>> {
    let mut facts = Facts::default();
    if special.is_empty() {
        return Ok(Ok(facts));
    }
    if plan.kind() == Kind::Values {
        // which of its values a cost is of, only the clicks say
        return Ok(Err(Read::TooManyClicks(count_clicks(c, question, special).await?)));
    }
    let end = question.to - TimeDelta::nanoseconds(1);
    let range = (hour_of(question.from), hour_of(end) + TimeDelta::hours(1));
    let known = known_of(c, special, range, settled, Hours::OfShared).await?;
    let is_foreign = |id: &Uuid| known.get(id).is_some_and(|of| is_foreign(question, &of.known));
    let foreign: Vec<Uuid> = special.iter().copied().filter(is_foreign).collect();
    let reading = Reading { question, foreign, rows_max: limits.cost_rows_max };
    for (kind, pieces) in pieces(question, plan) {
        let is_kind = |id: &Uuid| known.get(id).is_some_and(|of| Group::of(question, &of.known) == kind);
        let ids: Vec<Uuid> = special.iter().copied().filter(is_kind).collect();
        if ids.is_empty() {
            continue;
        }
        if kind == Group::Counted {
            let clicks = count_clicks(c, question, &ids).await?;
            if usize::try_from(clicks).is_ok_and(|clicks| clicks > limits.raw_rows_max) {
                return Ok(Err(Read::TooManyClicks(clicks)));
            }
        }
        for piece in pieces.iter().flat_map(|piece| piece.closed_until(closed_until)) {
            let rows = reading.rows(c, &piece, plan, &ids).await?;
            facts.cells.extend(rows.into_iter().map(|row| row.read(question)));
            if facts.cells.len() > limits.cost_rows_max {
                return Ok(Err(Read::TooManyRows(limits.cost_rows_max)));
            }
        }
    }
    let is_of_conversions = |id: &Uuid| {
        known.get(id).is_some_and(|of| {
            of.known.prices.iter().any(|price| price.amount.is_some() && price.model.is_of_conversions())
        })
    };
    let ids: Vec<Uuid> = special.iter().copied().filter(is_of_conversions).collect();
    if !ids.is_empty() {
        let rows = reading.earned(c, &ids).await?;
        if rows.len() > limits.cost_rows_max {
            return Ok(Err(Read::TooManyRows(limits.cost_rows_max)));
        }
        facts.earnings = rows.into_iter().map(|row| row.read(question)).collect::<Result<_, _>>()?;
    }
    facts.campaigns =
        known.into_iter().map(|(id, of)| (id, Campaign { known: of.known, ranks: of.ranks })).collect();
    Ok(Ok(facts))
}

/// Clicks of these campaigns in the time of the question.
async fn count_clicks(c: &mut Session<'_>, question: &Question, ids: &[Uuid]) -> sqlx::Result<i64> {
    COUNT_CLICKS
        .query_scalar()
        .bind(question.from)
        .bind(question.to)
        .bind(Some(ids.to_vec()))
        .fetch_one(c)
        .await
}

/// How the clicks of a campaign are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// As the figures: prices and adjustments are of whole days (UTC) of the time and of all clicks.
    Plain,
    /// From sums of days: likewise, but adjustments take clicks by what sums know.
    Daily,
    /// From sums of hours.
    Hourly,
    /// One by one: adjustments look at what is in no sum.
    Counted,
}

impl Group {
    fn of(question: &Question, known: &Known) -> Self {
        let Question { from, to, .. } = *question;
        let adjustments: Vec<_> =
            known.adjustments.iter().filter(|a| a.begins_at < to && a.ends_at > from).collect();
        let mut looked_at = adjustments.iter().flat_map(|a| a.filters.0.keys());
        if looked_at.any(|dimension| !is_summed(*dimension)) {
            return Self::Counted;
        }
        let ends = adjustments.iter().flat_map(|a| [a.begins_at, a.ends_at]);
        let mut ends = ends.chain(known.prices.iter().map(|price| price.since));
        let is_in_day = |at: DateTime<Utc>| at > from && at < to && at.num_seconds_from_midnight() != 0;
        if ends.any(is_in_day) {
            Self::Hourly
        } else if adjustments.iter().all(|a| a.filters.0.is_empty()) {
            Self::Plain
        } else {
            Self::Daily
        }
    }
}

/// Whether sums of hours are told apart by what an adjustment looks at.
fn is_summed(dimension: FilterDimension) -> bool {
    use FilterDimension as D;
    match dimension {
        D::Source | D::LandingPage | D::Offer | D::Path | D::Rule | D::Country | D::Device => true,
        D::Sub1 | D::Sub2 | D::Sub3 | D::Sub4 | D::Sub5 | D::Keyword | D::Creative | D::Placement => false,
    }
}

/// Where each group is read; the plan is [by campaign](Plan::by_campaign).
fn pieces(question: &Question, plan: &Plan) -> [(Group, Vec<Piece>); 4] {
    let Question { from, to, .. } = *question;
    let whole = |source| Piece::of(source, from, to);
    let is_facts = |piece: &&Piece| piece.source == Source::Facts;
    let mut hourly: Vec<Piece> = plan.pieces.iter().filter(is_facts).cloned().collect();
    if hourly.len() < plan.pieces.len() {
        hourly.extend([whole(Source::Deltas), whole(Source::Hours)]);
    }
    // costs are spread over rows as they come: where the plan takes something off, by hours instead
    let is_simple = !plan.pieces.iter().any(|piece| piece.is_taken_off);
    let direct = if is_simple { plan.pieces.clone() } else { hourly.clone() };
    let mut daily = direct.clone();
    for piece in &mut daily {
        match piece.source {
            Source::Alone(_) => piece.source = Source::Days,
            Source::CampaignHours => piece.source = Source::Hours,
            _ => {}
        }
    }
    let counted = if from < to { vec![whole(Source::Facts)] } else { Vec::new() };
    [(Group::Plain, direct), (Group::Daily, daily), (Group::Hourly, hourly), (Group::Counted, counted)]
}

/// Whether anything but links may say a cost in another currency than that of the question.
fn is_foreign(question: &Question, known: &Known) -> bool {
    let adjusted = known.adjustments.iter().filter_map(|a| a.currency);
    let priced = known.prices.iter().filter_map(|price| price.currency);
    adjusted.chain(priced).any(|currency| currency != question.currency)
}

struct Reading<'q> {
    question: &'q Question,
    foreign: Vec<Uuid>,
    rows_max: usize,
}

impl Reading<'_> {
    async fn rows(
        &self,
        c: &mut Session<'_>,
        piece: &Piece,
        plan: &Plan,
        ids: &[Uuid],
    ) -> sqlx::Result<Vec<CellRow>> {
        let (statement, alone): (Statement, Option<Dimension>) = match piece.source {
            Source::Alone(dimension) | Source::Overall(dimension) => (OF_DIMENSIONS, Some(dimension)),
            Source::Days | Source::Parts(_) | Source::Traffic => (OF_DAYS, None),
            Source::Hours
            | Source::CampaignHours
            | Source::OverallHours
            | Source::EdgeHours
            | Source::OpenDays => (OF_HOURS, None),
            Source::Deltas => (OF_DELTAS, None),
            // of values that are kept, costs are not spread: see `read`
            Source::Facts | Source::ClickFacts | Source::ConversionFacts | Source::Values(_) => {
                (OF_FACTS, None)
            }
        };
        let query = bind_piece(statement.query_as::<CellRow>(), vec![0], plan, piece, self.question);
        let query = query.bind(self.foreign.clone()).bind(None::<Vec<Uuid>>);
        let mut query = bind_rest(query, self.question, Some(ids.to_vec()), self.rows_max);
        if let Some(dimension) = alone {
            query = query.bind(<&str>::from(dimension));
        }
        if statement == OF_HOURS {
            query = bind_hours(query, plan, piece);
        }
        query.fetch_all(c).await
    }

    async fn earned(&self, c: &mut Session<'_>, ids: &[Uuid]) -> sqlx::Result<Vec<EarnedRow>> {
        let question = self.question;
        let whole = Piece::of(Source::Facts, question.from, question.to);
        let query = bind_piece(EARNED.query_as(), vec![0], &Plan::default(), &whole, question);
        let query = query.bind(self.foreign.clone()).bind(None::<Vec<Uuid>>);
        bind_rest(query, question, Some(ids.to_vec()), self.rows_max).fetch_all(c).await
    }
}

#[derive(FromRow)]
struct CellRow {
    #[sqlx(flatten)]
    key: KeyRow,
    campaign_id: Uuid,
    rank: Option<i64>,
    currency: Option<String>,
    price: Option<i32>,
    day: Option<NaiveDate>,
    clicks: i64,
    valid_clicks: i64,
    unique_clicks: i64,
    cost: Decimal,
}

impl CellRow {
    fn read(self, question: &Question) -> Cell {
        Cell {
            key: self.key.read(question),
            campaign_id: self.campaign_id,
            rank: self.rank,
            price: place(self.price.unwrap_or_default()),
            day: self.day,
            clicks: Clicks {
                hour: hour_of(question.from),
                currency: self.currency.and_then(|code| code.parse().ok()),
                clicks: self.clicks,
                valid: self.valid_clicks,
                unique: self.unique_clicks,
                token: micros(self.cost),
            },
        }
    }
}

/// Of the price that holds; `None`: there is none yet.
fn place(bucket: i32) -> Option<usize> {
    usize::try_from(bucket).ok()?.checked_sub(1)
}

#[derive(FromRow)]
struct EarnedRow {
    #[sqlx(flatten)]
    key: KeyRow,
    campaign_id: Uuid,
    hour: DateTime<Utc>,
    price: i32,
    currency: String,
    conversions: i64,
    revenue: Decimal,
}

impl EarnedRow {
    fn read(self, question: &Question) -> sqlx::Result<Earning> {
        let currency = self.currency.parse();
        Ok(Earning {
            key: self.key.read(question),
            campaign_id: self.campaign_id,
            hour: self.hour,
            price: place(self.price),
            currency: currency.map_err(|_| sqlx::Error::Decode("a currency has three letters".into()))?,
            conversions: self.conversions,
            revenue: self.revenue.to_i128().unwrap_or_default(), // whole millionths
        })
    }
}
