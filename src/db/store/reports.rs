//! Figures of reports, from each place where they are kept: one text, over other tables.
//!
//! What a question groups by and looks at comes as values, and the statements choose by them. They are planned anew each time with
//! the values known (`plan_cache_mode`), so what a question does not ask for costs nothing: PostgreSQL leaves it out, as if each
//! question had a text of its own. So no text of SQL is ever put together from a question.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use sqlx::{FromRow, postgres::PgRow};
use uuid::Uuid;

use crate::{
    db::{
        Db, Error, Statement,
        session::Session,
        statement::{QueryAs, statements},
    },
    reports::{
        costs::Facts,
        figures::{Key, Sums},
        plan::{Piece, Plan, Source},
        question::{Dimension, FILTERS_MAX, Filter, GROUPS_MAX, Match, OTHER, Question, TimeKind},
    },
};

/// The value of the dimension that the parameter names, of everything that there are figures of; then what else `$more` knows.
macro_rules! value {
    ($name:literal, $more:expr) => {
        concat!(
            "CASE ",
            $name,
            "::text
        WHEN 'campaign' THEN f.campaign_id::text
        WHEN 'goal' THEN f.goal
        WHEN 'status' THEN f.status
        WHEN 'currency' THEN f.currency
        WHEN 'hour' THEN to_char(date_trunc('hour', f.at, $4) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
        WHEN 'hour_of_day' THEN extract(hour FROM f.at AT TIME ZONE $4)::text
        WHEN 'day' THEN (f.at AT TIME ZONE $4)::date::text
        WHEN 'weekday' THEN extract(isodow FROM f.at AT TIME ZONE $4)::text
        WHEN 'week' THEN date_trunc('week', f.at AT TIME ZONE $4)::date::text
        WHEN 'month' THEN to_char(f.at AT TIME ZONE $4, 'YYYY-MM')
",
            $more,
            "
    END"
        )
    };
}

/// What sums of hours and days know besides.
macro_rules! in_sums {
    () => {
        "        WHEN 'source' THEN f.source_id::text
        WHEN 'rule' THEN f.rule_id::text
        WHEN 'path' THEN f.path_id::text
        WHEN 'landing_page' THEN f.landing_page_id::text
        WHEN 'offer' THEN f.offer_id::text
        WHEN 'country' THEN f.country
        WHEN 'device' THEN f.device
        WHEN 'os' THEN f.os
        WHEN 'browser' THEN f.browser
        WHEN 'reason' THEN f.reason"
    };
}

/// The value of a dimension, of sums of hours and days.
macro_rules! summed {
    ($name:literal) => {
        value!($name, in_sums!())
    };
}

/// Likewise of sums of one dimension.
macro_rules! alone {
    ($name:literal) => {
        value!($name, "        ELSE f.value")
    };
}

/// Likewise of facts.
macro_rules! of_facts {
    ($name:literal) => {
        value!(
            $name,
            concat!(
                in_sums!(),
                "
        WHEN 'region' THEN f.region
        WHEN 'city' THEN f.city
        WHEN 'language' THEN f.language
        WHEN 'os_version' THEN f.os_version
        WHEN 'browser_version' THEN f.browser_version
        WHEN 'isp' THEN f.isp
        WHEN 'connection' THEN f.connection
        WHEN 'referrer_host' THEN f.referrer_host
        WHEN 'sub1' THEN f.sub1
        WHEN 'sub2' THEN f.sub2
        WHEN 'sub3' THEN f.sub3
        WHEN 'sub4' THEN f.sub4
        WHEN 'sub5' THEN f.sub5
        WHEN 'aff_sub' THEN f.affiliate_sub
        WHEN 'aff_sub2' THEN f.affiliate_sub2
        WHEN 'aff_sub3' THEN f.affiliate_sub3
        WHEN 'aff_sub4' THEN f.affiliate_sub4
        WHEN 'aff_sub5' THEN f.affiliate_sub5
        WHEN 'keyword' THEN f.keyword
        WHEN 'creative' THEN f.creative
        WHEN 'placement' THEN f.placement"
            )
        )
    };
}

/// Whether the filter of these parameters holds for the value of its dimension. What is of a conversion leaves nothing out but
/// conversions.
macro_rules! holds {
    ($value:expr, $dimension:literal, $matching:literal, $values:literal) => {
        concat!(
            "
  AND (
    ",
            $dimension,
            "::text IS NULL
    OR f.time_kind = 0 AND ",
            $dimension,
            " IN ('goal', 'status')
    OR CASE ",
            $matching,
            "::text
        WHEN 'is' THEN coalesce(",
            $value,
            ", 'unknown') = ANY (",
            $values,
            "::text[])
        WHEN 'is_not' THEN NOT coalesce(",
            $value,
            ", 'unknown') = ANY (",
            $values,
            "::text[])
        ELSE coalesce(",
            $value,
            ", 'unknown') ILIKE ANY (",
            $values,
            "::text[])
    END
  )"
        )
    };
}

pub mod exports;
pub mod facts;
pub mod names;
pub mod notes;

/// The rows that are asked for, of those that `$from` has of the time from `$2` until before `$3`: it knows how its time can be looked
/// up, and one that is worked out here is guessed wrong by the planner. `$1` to `$38` are those of `bind_piece`.
macro_rules! asked {
    ($value:ident) => {
        concat!(
            "
WHERE f.time_kind = ANY ($1::smallint[])
  AND ($5::timestamptz[] IS NULL OR date_trunc('hour', f.at, 'UTC') <> ALL ($5))
  AND ($8::uuid[] IS NULL OR f.campaign_id = ANY ($8))
  AND $4::text IS NOT NULL",
            holds!($value!("$15"), "$15", "$16", "$17"),
            holds!($value!("$18"), "$18", "$19", "$20"),
            holds!($value!("$21"), "$21", "$22", "$23"),
            holds!($value!("$24"), "$24", "$25", "$26"),
            holds!($value!("$27"), "$27", "$28", "$29"),
            holds!($value!("$30"), "$30", "$31", "$32"),
            holds!($value!("$33"), "$33", "$34", "$35"),
            holds!($value!("$36"), "$36", "$37", "$38"),
        )
    };
}

/// Of which day sums are, as they are reckoned with: by its noon, so that it is the same day in every time zone that tells apart days
/// beside them, and with the day whose rate they are converted by.
macro_rules! of_day {
    () => {
        "(day + interval '12 hours') AT TIME ZONE 'UTC' AS at, coalesce(rate_day, day) AS rate_day"
    };
}

/// Whole days (UTC) of the time.
macro_rules! in_days {
    () => {
        "day >= ($2 AT TIME ZONE 'UTC')::date
      AND day < ($3 AT TIME ZONE 'UTC')::date"
    };
}

/// What is summed up.
macro_rules! sums {
    () => {
        "clicks, valid_clicks, bot_clicks, unique_clicks, lander_views, lander_clicks, offer_clicks, costed_clicks, cost,
        conversions, amount"
    };
}

/// Sums of one dimension as `f`.
macro_rules! dimension_sums {
    () => {
        concat!(
            "(
    SELECT ",
            of_day!(),
            ", time_kind, campaign_id, value, currency, goal, status, ",
            sums!(),
            "
    FROM report_dimensions
    WHERE dimension = $39::text
      AND ",
            in_days!(),
            "
) f"
        )
    };
}

/// Sums of days that are closed.
macro_rules! day_sums {
    () => {
        concat!(
            "(
    SELECT ",
            of_day!(),
            ", time_kind, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser, reason,
        currency, goal, status, ",
            sums!(),
            "
    FROM report_days
    WHERE ",
            in_days!(),
            "
) f"
        )
    };
}

/// Sums of hours: of those in `$39`, if it is not NULL; `$40`: as if they were sums of their days.
macro_rules! hour_sums {
    () => {
        "(
    SELECT h.*, CASE WHEN $40::boolean THEN date_trunc('day', h.hour, 'UTC') + interval '12 hours' ELSE h.hour END AS at
    FROM report_hours h
    WHERE h.hour >= $2
      AND h.hour < $3
      AND ($39::timestamptz[] IS NULL OR h.hour = ANY ($39))
) f"
    };
}

/// Sums of the dimension `hour`, by when each hour begins.
macro_rules! hours_of_dimensions {
    ($columns:literal, $table:literal) => {
        concat!(
            "(
    SELECT ",
            $columns,
            ", (d.day + d.value::integer * interval '1 hour') AT TIME ZONE 'UTC' AS at
    FROM ",
            $table,
            " d
    WHERE d.dimension = 'hour'
      AND d.day >= ($2 AT TIME ZONE 'UTC')::date
      AND d.day <= ($3 AT TIME ZONE 'UTC')::date
      AND (d.day + d.value::integer * interval '1 hour') AT TIME ZONE 'UTC' >= $2
      AND (d.day + d.value::integer * interval '1 hour') AT TIME ZONE 'UTC' < $3
) f"
        )
    };
}

/// What is to be added to the sums.
macro_rules! delta_sums {
    () => {
        "(
    SELECT d.*, d.hour AS at
    FROM report_deltas d
    WHERE d.hour >= $2
      AND d.hour < $3
) f"
    };
}

/// The sums of what stands in `$from` as `f`.
macro_rules! figures {
    ($value:ident, $from:expr) => {
        concat!(
            "
SELECT
    ", $value!("$9"), " AS key1,
    ", $value!("$10"), " AS key2,
    ", $value!("$11"), " AS key3,
    ", $value!("$12"), " AS key4,
    CASE WHEN $7::boolean AND f.currency <> $6::text THEN f.currency END AS currency,
    CASE WHEN $7::boolean AND f.currency <> $6::text THEN coalesce(f.rate_day, (f.at AT TIME ZONE 'UTC')::date) END AS rate_day,
    octo_sum(f.clicks) AS clicks,
    octo_sum(f.valid_clicks) AS valid_clicks,
    octo_sum(f.bot_clicks) AS bot_clicks,
    octo_sum(f.unique_clicks) AS unique_clicks,
    octo_sum(f.lander_views) AS lander_views,
    octo_sum(f.lander_clicks) AS lander_clicks,
    octo_sum(f.offer_clicks) AS offer_clicks,
    coalesce(sum(f.cost) FILTER (WHERE f.cost <> 0 AND ($13::uuid[] IS NULL OR f.campaign_id <> ALL ($13))), 0) AS cost,
    octo_sum(f.conversions) FILTER (WHERE f.status = 'pending') AS pending,
    octo_sum(f.conversions) FILTER (WHERE f.status = 'approved') AS approved,
    octo_sum(f.conversions) FILTER (WHERE f.status = 'rejected') AS rejected,
    octo_sum(f.conversions) FILTER (WHERE f.status = 'refunded') AS refunded,
    octo_sum(f.conversions) FILTER (WHERE f.status = 'unmapped') AS unmapped,
    coalesce(sum(f.amount) FILTER (WHERE f.status = 'pending'), 0) AS revenue_pending,
    coalesce(sum(f.amount) FILTER (WHERE f.status = 'approved'), 0) AS revenue,
    coalesce(sum(f.amount) FILTER (WHERE f.status = 'rejected'), 0) AS revenue_rejected,
    coalesce(sum(f.amount) FILTER (WHERE f.status = 'refunded'), 0) AS revenue_refunded
FROM ", $from,
            asked!($value),
            "
GROUP BY 1, 2, 3, 4, 5, 6
LIMIT $14"
        )
    };
}

pub(in crate::db) mod costs; // it has the macros above too

statements! {
    // See above.
    PLAN_ANEW = "reports.plan_anew": "
SELECT
    set_config('plan_cache_mode', 'force_custom_plan', true),
    set_config('jit', 'off', true),
    set_config('work_mem', '64MB', true)";

    // Rows are grouped, and not sorted: of what a CASE gives the planner does not know that it has few values.
    GROUP_BY_HASH = "reports.group_by_hash": "SELECT set_config('enable_sort', 'off', true)";

    CLOSED_UNTIL = "reports.closed_until": "SELECT octo_closed_until()";

    OF_DIMENSIONS = "reports.of_dimensions": figures!(alone, dimension_sums!());

    OF_OVERALL = "reports.of_overall": figures!(alone, concat!("(
    SELECT ", of_day!(), ", time_kind, NULL::uuid AS campaign_id, value, currency, goal, status, ", sums!(), "
    FROM report_overall
    WHERE dimension = $39::text
      AND ", in_days!(), "
) f"));

    OF_TRAFFIC = "reports.of_traffic": figures!(summed, concat!("(
    SELECT
        ", of_day!(), ", time_kind, NULL::uuid AS campaign_id, source_id, NULL::bigint AS rule_id, NULL::bigint AS path_id,
        NULL::bigint AS landing_page_id, NULL::bigint AS offer_id, country, device, os, browser, reason, currency, goal, status,
        ", sums!(), "
    FROM report_traffic
    WHERE ", in_days!(), "
) f"));

    OF_PARTS = "reports.of_parts": figures!(summed, concat!("(
    SELECT
        ", of_day!(), ", time_kind, campaign_id, CASE WHEN $39::text = 'source' THEN value::bigint END AS source_id, rule_id,
        path_id, landing_page_id, offer_id, CASE WHEN $39 = 'country' THEN value END AS country,
        CASE WHEN $39 = 'device' THEN value END AS device, CASE WHEN $39 = 'os' THEN value END AS os,
        CASE WHEN $39 = 'browser' THEN value END AS browser, CASE WHEN $39 = 'reason' THEN value END AS reason, currency, goal,
        status, ", sums!(), "
    FROM report_parts
    WHERE dimension = $39
      AND ", in_days!(), "
) f"));

    OF_OVERALL_HOURS = "reports.of_overall_hours":
        figures!(alone, hours_of_dimensions!("d.*, NULL::uuid AS campaign_id", "report_overall"));

    OF_CAMPAIGN_HOURS = "reports.of_campaign_hours": figures!(alone, hours_of_dimensions!("d.*", "report_dimensions"));

    OF_DAYS = "reports.of_days": figures!(summed, day_sums!());

    OF_HOURS = "reports.of_hours": figures!(summed, hour_sums!());

    OF_DELTAS = "reports.of_deltas": figures!(summed, delta_sums!());

    OF_FACTS = "reports.of_facts": figures!(of_facts, "(
    SELECT *
    FROM report_facts
    WHERE at >= $2
      AND at < $3
) f");

    // A value behind `=`, all others together as `*`.
    OF_VALUES = "reports.of_values": figures!(alone, "(
    SELECT
        0::smallint AS time_kind,
        v.day::timestamp AT TIME ZONE 'UTC' AS at,
        v.campaign_id,
        CASE WHEN v.is_other THEN '*' ELSE '=' || v.value END AS value,
        v.currency,
        NULL::text AS goal,
        NULL::text AS status,
        NULL::date AS rate_day,
        v.clicks,
        v.valid_clicks,
        v.bot_clicks,
        v.unique_clicks,
        v.lander_views,
        v.lander_clicks,
        v.offer_clicks,
        v.cost,
        0::bigint AS conversions,
        0::numeric AS amount
    FROM report_values v
    WHERE v.dimension = $39::text
      AND v.day >= ($2 AT TIME ZONE 'UTC')::date
      AND v.day < ($3 AT TIME ZONE 'UTC')::date
) f");

    // Days whose values are what their clicks are, whatever is not added to the sums yet.
    VALUE_DAYS = "reports.value_days": "
SELECT day
FROM report_value_days
WHERE is_current
  AND day >= ($1::timestamptz AT TIME ZONE 'UTC')::date
  AND day < ($2::timestamptz AT TIME ZONE 'UTC')::date
  AND day NOT IN (
      SELECT (hour AT TIME ZONE 'UTC')::date
      FROM report_deltas
      WHERE time_kind = 0
  )
ORDER BY day";

    COUNT_OTHERS = "reports.count_others": "
SELECT coalesce(sum(other_values), 0)::bigint
FROM report_values
WHERE dimension = $1
  AND day >= ($2::timestamptz AT TIME ZONE 'UTC')::date
  AND day < ($3::timestamptz AT TIME ZONE 'UTC')::date
  AND is_other
  AND ($4::uuid[] IS NULL OR campaign_id = ANY ($4))";

    // What a count of facts has to read at most.
    COUNT_CLICKS = "reports.count_clicks": "
SELECT coalesce(sum(clicks), 0)::bigint
FROM (
    SELECT clicks
    FROM report_dimensions
    WHERE dimension = 'campaign'
      AND time_kind = 0
      AND day >= ($1::timestamptz AT TIME ZONE 'UTC')::date
      AND day <= (($2::timestamptz - interval '1 microsecond') AT TIME ZONE 'UTC')::date
      AND ($3::uuid[] IS NULL OR campaign_id = ANY ($3))
    UNION ALL
    SELECT clicks
    FROM report_deltas
    WHERE time_kind = 0
      AND hour >= $1
      AND hour < $2
      AND ($3::uuid[] IS NULL OR campaign_id = ANY ($3))
) counted";
}

/// What a row is told apart by, as it is read.
#[derive(Debug, FromRow)]
struct KeyRow {
    key1: Option<String>,
    key2: Option<String>,
    key3: Option<String>,
    key4: Option<String>,
}

impl KeyRow {
    fn read(self, question: &Question) -> Key {
        [self.key1, self.key2, self.key3, self.key4].into_iter().take(question.group_by.len()).collect()
    }
}

/// Sums of one row, as they are kept.
#[derive(Debug, FromRow)]
struct Row {
    #[sqlx(flatten)]
    key: KeyRow,
    currency: Option<String>,
    rate_day: Option<NaiveDate>,
    #[sqlx(flatten)]
    sums: Sums,
}

/// Sums of one row, in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What the row is told apart by: as many as the question groups by.
    pub key: Key,
    /// Which currency its amounts are in and the day (UTC) whose rate they are converted by; `None`: that of the question.
    pub foreign: Option<(String, NaiveDate)>,
    /// The sums.
    pub sums: Sums,
}

/// What one reading may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows of the figures at most.
    pub rows_max: usize,
    /// Rows at most by which costs that are not what links said are spread over those.
    pub cost_rows_max: usize,
    /// Clicks that are read one by one for that at most.
    pub raw_rows_max: usize,
    /// Longest of the queries.
    pub timeout: Duration,
}

/// What was read of a question.
#[derive(Debug, Clone)]
pub enum Read {
    /// All of it.
    All {
        /// The sums, but for the costs of `costs`.
        parts: Vec<Part>,
        /// By which what is not said by links alone is worked out.
        costs: Facts,
    },
    /// There are more rows than may be.
    TooManyRows(usize),
    /// There are more clicks than may be read one by one.
    TooManyClicks(i64),
}

/// Reads the answers of questions in one snapshot, each by its plan, with what costs are worked out of, where they are asked
/// for. What ended before `settled` does not change any more. Behind one that is too much none is read.
pub async fn read(
    db: &Db,
    questions: Vec<(Question, Plan)>,
    campaigns: Option<Vec<Uuid>>,
    settled: DateTime<Utc>,
    limits: Limits,
) -> Result<Vec<Read>, Error> {
    db.read_report(OF_HOURS, limits.timeout, move |c| {
        Box::pin(async move {
            PLAN_ANEW.query().execute(c).await?;
            GROUP_BY_HASH.query().execute(c).await?;
            let mut answers = Vec::new();
            for (question, plan) in questions {
                let campaigns = campaigns.clone();
                let reading =
                    Reading { question, plan, campaigns, but_costs_of: Vec::new(), settled, limits };
                answers.push(reading.run(c).await?);
                if !matches!(answers.last(), Some(Read::All { .. })) {
                    break;
                }
            }
            Ok(answers)
        })
    })
    .await
}

/// Clicks of the time from `from` until before `to`, which a count of facts has to read at most.
pub async fn count_clicks(
    db: &Db,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    campaigns: Option<Vec<Uuid>>,
) -> Result<i64, Error> {
    db.read(COUNT_CLICKS, move |c| {
        Box::pin(COUNT_CLICKS.query_scalar().bind(from).bind(to).bind(campaigns).fetch_one(c))
    })
    .await
}

/// Days (UTC) from `from` until before `to` of which the values that were clicked most are kept and are current, in order.
pub async fn value_days(db: &Db, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Vec<NaiveDate>, Error> {
    db.read(VALUE_DAYS, move |c| Box::pin(VALUE_DAYS.query_scalar().bind(from).bind(to).fetch_all(c))).await
}

/// How many values of a dimension are not kept one by one on the days (UTC) of a plan: those of each day, campaign and currency, so at
/// most so many.
pub async fn count_others(db: &Db, plan: &Plan, campaigns: Option<Vec<Uuid>>) -> Result<i64, Error> {
    let mut others = 0;
    for piece in &plan.pieces {
        let Source::Values(dimension) = piece.source else { continue };
        let (from, to, campaigns) = (piece.from, piece.to, campaigns.clone());
        others += db
            .read(COUNT_OTHERS, move |c| {
                let query = COUNT_OTHERS.query_scalar::<i64>().bind(<&str>::from(dimension)).bind(from);
                Box::pin(query.bind(to).bind(campaigns).fetch_one(c))
            })
            .await?;
    }
    Ok(others)
}

#[derive(Clone)]
struct Reading {
    question: Question,
    plan: Plan,
    campaigns: Option<Vec<Uuid>>,
    but_costs_of: Vec<Uuid>,
    settled: DateTime<Utc>,
    limits: Limits,
}

impl Reading {
    async fn run(mut self, c: &mut Session<'_>) -> sqlx::Result<Read> {
        let special = costs::list_special(c, &self.question, self.campaigns.as_deref()).await?;
        if !special.is_empty() {
            self.plan = self.plan.by_campaign();
        }
        self.but_costs_of.clone_from(&special);
        let closed_until = CLOSED_UNTIL.query_scalar().fetch_one(c).await?;
        let mut pieces = Vec::new();
        for piece in &self.plan.pieces {
            pieces.extend(current(c, piece, closed_until).await?);
        }
        let mut parts: HashMap<(Key, Option<(String, NaiveDate)>), Sums> = HashMap::new();
        let mut values = Kept::default();
        for piece in &pieces {
            for row in self.rows(c, piece).await? {
                let Part { key, foreign, sums } = values.read(row, &self.question, piece.source);
                let sums = if piece.is_taken_off { sums.negated() } else { sums };
                parts.entry((key, foreign)).or_default().add(&sums);
            }
            if parts.len() > self.limits.rows_max {
                return Ok(Read::TooManyRows(self.limits.rows_max));
            }
        }
        let part = |((key, foreign), sums)| Part { key, foreign, sums };
        let parts = parts.into_iter().map(part).filter(|part| part.sums != Sums::default()).collect();
        let costs =
            costs::read(c, &self.question, &self.plan, &special, (self.settled, closed_until), self.limits)
                .await?;
        Ok(match costs {
            Ok(costs) => Read::All { parts, costs },
            Err(too_much) => too_much,
        })
    }

    async fn rows(&self, c: &mut Session<'_>, piece: &Piece) -> sqlx::Result<Vec<Row>> {
        let (statement, dimension): (Statement, Option<Dimension>) = match piece.source {
            Source::Alone(dimension) => (OF_DIMENSIONS, Some(dimension)),
            Source::Overall(dimension) => (OF_OVERALL, Some(dimension)),
            Source::Parts(dimension) => (OF_PARTS, Some(dimension)),
            Source::CampaignHours => (OF_CAMPAIGN_HOURS, None),
            Source::OverallHours => (OF_OVERALL_HOURS, None),
            Source::Days => (OF_DAYS, None),
            Source::Traffic => (OF_TRAFFIC, None),
            Source::Hours | Source::EdgeHours | Source::OpenDays => (OF_HOURS, None),
            Source::Deltas => (OF_DELTAS, None),
            Source::Facts | Source::ClickFacts | Source::ConversionFacts => (OF_FACTS, None),
            Source::Values(dimension) => (OF_VALUES, Some(dimension)),
        };
        let question = &self.question;
        let mut kinds = time_kinds(question);
        kinds.retain(|kind| match piece.source {
            Source::ClickFacts | Source::Values(_) => *kind == 0,
            Source::ConversionFacts => *kind > 0,
            _ => true,
        });
        let query = bind_piece(statement.query_as::<Row>(), kinds, &self.plan, piece, question);
        let query = query.bind(question.needs_money()).bind(self.campaigns.clone());
        let but_costs_of = (!self.but_costs_of.is_empty()).then(|| self.but_costs_of.clone());
        let mut query = bind_rest(query, question, but_costs_of, self.limits.rows_max);
        if let Some(dimension) = dimension {
            query = query.bind(<&str>::from(dimension));
        }
        if statement == OF_HOURS {
            query = bind_hours(query, &self.plan, piece);
        }
        query.fetch_all(c).await
    }
}

/// The piece as it can be read in this snapshot: days that are not closed from their hours, and days whose values are not current
/// any more from their clicks.
async fn current(c: &mut Session<'_>, piece: &Piece, until: DateTime<Utc>) -> sqlx::Result<Vec<Piece>> {
    let Source::Values(_) = piece.source else { return Ok(piece.closed_until(until).collect()) };
    let days: Vec<NaiveDate> = VALUE_DAYS.query_scalar().bind(piece.from).bind(piece.to).fetch_all(c).await?;
    let mut pieces: Vec<Piece> = Vec::new();
    let mut begin = piece.from;
    while begin < piece.to {
        let end = begin + TimeDelta::days(1);
        let source = if days.contains(&begin.date_naive()) { piece.source } else { Source::ClickFacts };
        match pieces.last_mut() {
            Some(last) if last.source == source => last.to = end,
            _ => pieces.push(Piece::of(source, begin, end)),
        }
        begin = end;
    }
    Ok(pieces)
}

/// Values that have a row of their own, where others stand together: what is of conversions comes last, and goes with its clicks.
#[derive(Debug, Default)]
struct Kept {
    values: HashSet<String>,
    has_others: bool,
}

impl Kept {
    fn read(&mut self, row: Row, question: &Question, source: Source) -> Part {
        let read = |(group, key): (&Dimension, Option<String>)| {
            let key = key?;
            Some(if group.has_top_values() { self.value(key, source) } else { key })
        };
        Part {
            key: question.group_by.iter().zip(row.key.read(question)).map(read).collect(),
            foreign: row.currency.zip(row.rate_day),
            sums: row.sums,
        }
    }

    fn value(&mut self, key: String, source: Source) -> String {
        match source {
            Source::Values(_) => {
                let Some(value) = key.strip_prefix('=') else {
                    self.has_others = true;
                    return OTHER.to_owned();
                };
                self.values.insert(value.to_owned());
                value.to_owned()
            }
            Source::ClickFacts => {
                self.values.insert(key.clone());
                key
            }
            Source::ConversionFacts if self.has_others && !self.values.contains(&key) => OTHER.to_owned(),
            _ => key,
        }
    }
}

/// $1 to $6: which rows of a piece, and what they are told apart by.
fn bind_piece<'q, T>(
    query: QueryAs<'q, T>,
    kinds: Vec<i16>,
    plan: &Plan,
    piece: &Piece,
    question: &Question,
) -> QueryAs<'q, T>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    query
        .bind(kinds)
        .bind(piece.from)
        .bind(piece.to)
        .bind(question.tz.name())
        .bind(plan.left_out(piece))
        .bind(question.currency.as_str().to_owned())
}

/// $9 to $38: groups, campaigns, one row more than there may be, filters.
fn bind_rest<'q, T>(
    mut query: QueryAs<'q, T>,
    question: &Question,
    campaigns: Option<Vec<Uuid>>,
    rows_max: usize,
) -> QueryAs<'q, T>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    for i in 0..GROUPS_MAX {
        query = query.bind(question.group_by.get(i).map(<&str>::from));
    }
    query = query.bind(campaigns).bind(i64::try_from(rows_max).unwrap_or(i64::MAX).saturating_add(1));
    for i in 0..FILTERS_MAX {
        let filter = question.filters.get(i);
        query = query
            .bind(filter.map(|filter| <&str>::from(filter.dimension)))
            .bind(filter.map(|filter| <&str>::from(filter.matching)))
            .bind(filter.map(values));
    }
    query
}

/// $39 and $40 of sums of hours: which of them, and whether as sums of their days.
fn bind_hours<'q, T>(query: QueryAs<'q, T>, plan: &Plan, piece: &Piece) -> QueryAs<'q, T>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let is_edge = piece.source == Source::EdgeHours;
    let is_of_days = piece.source == Source::OpenDays || is_edge && piece.is_taken_off;
    query.bind(is_edge.then(|| plan.edges_of(piece))).bind(is_of_days)
}

/// Those of the rows that the question needs.
fn time_kinds(question: &Question) -> Vec<i16> {
    let of_conversions = match question.time {
        TimeKind::Click => 1,
        TimeKind::Conversion => 2,
        TimeKind::Change => 3,
    };
    if question.needs_conversions() { vec![0, of_conversions] } else { vec![0] }
}

/// As the statement compares them: what is contained, or begins so, is a pattern.
fn values(filter: &Filter) -> Vec<String> {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    let value = |value: &String| match filter.matching {
        Match::Is | Match::IsNot => value.clone(),
        Match::Contains => format!("%{}%", escaped(value)),
        Match::Starts => format!("{}%", escaped(value)),
    };
    filter.values.iter().map(value).collect()
}
