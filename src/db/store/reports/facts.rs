//! The facts behind figures, row by row: the newest first, and what was erased as one row an hour.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use rust_decimal::Decimal;
use sqlx::FromRow;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{PLAN_ANEW, values};
use crate::{
    db::{
        Db, Error,
        session::Session,
        statement::{QueryAs, statements},
    },
    reports::{
        facts::{FILTERS_MAX, FactsQuestion, Kind, Position},
        question::TimeKind,
    },
};

/// Rows that are handed on at once.
const PAGE_ROWS: usize = 500;

/// The time that is looked at first.
const FIRST_SPAN: TimeDelta = TimeDelta::hours(1);

/// How many times as long the next one is.
const SPANS_GROW: i32 = 4;

/// Those of `$from` that are asked for, as `f`. The value of each filter's dimension stands once, in `k`.
macro_rules! asked_for {
    ($from:literal) => {
        concat!(
            "
FROM ",
            $from,
            "
CROSS JOIN LATERAL (
    SELECT
        ",
            of_facts!("$12"),
            " AS value1,
        ",
            of_facts!("$15"),
            " AS value2,
        ",
            of_facts!("$18"),
            " AS value3,
        ",
            of_facts!("$21"),
            " AS value4,
        ",
            of_facts!("$24"),
            " AS value5,
        ",
            of_facts!("$27"),
            " AS value6,
        ",
            of_facts!("$30"),
            " AS value7,
        ",
            of_facts!("$33"),
            " AS value8,
        ",
            of_facts!("$36"),
            " AS value9,
        ",
            of_facts!("$39"),
            " AS value10,
        ",
            of_facts!("$42"),
            " AS value11,
        ",
            of_facts!("$45"),
            " AS value12
        ",
            "
) k
WHERE f.time_kind = ANY ($1::smallint[])
  AND f.at >= $2::timestamptz
  AND f.at < $3::timestamptz
  AND ($5::uuid[] IS NULL OR f.campaign_id = ANY ($5))
  AND ($6::uuid IS NULL OR f.campaign_id = $6)
  AND (NOT $7::boolean OR f.costed_clicks <> 0 OR f.cost <> 0)
  AND ($8::timestamptz IS NULL OR f.at <= $8)
  AND $4::text IS NOT NULL",
            holds!("k.value1", "$12", "$13", "$14"),
            holds!("k.value2", "$15", "$16", "$17"),
            holds!("k.value3", "$18", "$19", "$20"),
            holds!("k.value4", "$21", "$22", "$23"),
            holds!("k.value5", "$24", "$25", "$26"),
            holds!("k.value6", "$27", "$28", "$29"),
            holds!("k.value7", "$30", "$31", "$32"),
            holds!("k.value8", "$33", "$34", "$35"),
            holds!("k.value9", "$36", "$37", "$38"),
            holds!("k.value10", "$39", "$40", "$41"),
            holds!("k.value11", "$42", "$43", "$44"),
            holds!("k.value12", "$45", "$46", "$47"),
        )
    };
}

statements! {
    // Equal ones have a click, and an order that stays: where a page ends within one, the next begins so many rows behind its first.
    // What was erased has no click: it comes last of its moment.
    LIST = "report_facts.list": concat!("
SELECT
    f.time_kind::smallint,
    f.at,
    f.click_id,
    f.click_at,
    f.conversion_id,
    f.campaign_id,
    f.source_id,
    f.rule_id,
    f.path_id,
    f.landing_page_id,
    f.offer_id,
    f.country,
    f.device,
    f.os,
    f.browser,
    f.reason,
    f.currency,
    f.goal,
    f.status,
    f.rate_day,
    f.language,
    f.region,
    f.city,
    f.isp,
    f.connection,
    f.os_version,
    f.browser_version,
    f.referrer_host,
    f.sub1,
    f.sub2,
    f.sub3,
    f.sub4,
    f.sub5,
    f.affiliate_sub,
    f.affiliate_sub2,
    f.affiliate_sub3,
    f.affiliate_sub4,
    f.affiliate_sub5,
    f.keyword,
    f.creative,
    f.placement,
    f.clicks,
    f.valid_clicks,
    f.bot_clicks,
    f.unique_clicks,
    f.lander_views,
    f.lander_clicks,
    f.offer_clicks,
    f.costed_clicks,
    f.cost,
    f.conversions,
    f.amount",
        asked_for!("report_facts f"), "
  AND f.click_id IS NOT NULL
  AND ($8::timestamptz IS NULL OR f.at < $8 OR f.click_id <= $9::uuid)
UNION ALL
SELECT
    f.time_kind::smallint,
    f.at,
    NULL::uuid,
    NULL::timestamptz,
    NULL::uuid,
    f.campaign_id,
    NULL::bigint,
    NULL::bigint,
    NULL::bigint,
    NULL::bigint,
    NULL::bigint,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    f.currency,
    f.goal,
    f.status,
    f.rate_day,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    NULL::text,
    sum(f.clicks)::bigint,
    sum(f.valid_clicks)::bigint,
    sum(f.bot_clicks)::bigint,
    sum(f.unique_clicks)::bigint,
    sum(f.lander_views)::bigint,
    sum(f.lander_clicks)::bigint,
    sum(f.offer_clicks)::bigint,
    sum(f.costed_clicks)::bigint,
    sum(f.cost),
    sum(f.conversions)::bigint,
    sum(f.amount)",
        asked_for!("(
    SELECT
        g.*,
        g.hour AS at,
        NULL::text AS language,
        NULL::text AS region,
        NULL::text AS city,
        NULL::text AS isp,
        NULL::text AS connection,
        NULL::text AS os_version,
        NULL::text AS browser_version,
        NULL::text AS referrer_host,
        NULL::text AS sub1,
        NULL::text AS sub2,
        NULL::text AS sub3,
        NULL::text AS sub4,
        NULL::text AS sub5,
        NULL::text AS affiliate_sub,
        NULL::text AS affiliate_sub2,
        NULL::text AS affiliate_sub3,
        NULL::text AS affiliate_sub4,
        NULL::text AS affiliate_sub5,
        NULL::text AS keyword,
        NULL::text AS creative,
        NULL::text AS placement
    FROM report_gone g
) f"), "
GROUP BY f.time_kind, f.at, f.campaign_id, f.currency, f.goal, f.status, f.rate_day
ORDER BY
    at DESC,
    click_id DESC NULLS LAST,
    time_kind,
    conversion_id,
    clicks DESC,
    lander_clicks DESC,
    offer_id,
    campaign_id,
    currency,
    goal,
    status,
    rate_day,
    conversions,
    amount
OFFSET $10
LIMIT $11");
}

/// What one fact adds to figures, and everything that it is told apart by.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
#[expect(missing_docs, reason = "the columns of the view report_facts")]
pub struct Fact {
    pub time_kind: i16,
    pub at: DateTime<Utc>,
    pub click_id: Option<Uuid>,
    pub click_at: Option<DateTime<Utc>>,
    pub conversion_id: Option<Uuid>,
    pub campaign_id: Uuid,
    pub source_id: Option<i64>,
    pub rule_id: Option<i64>,
    pub path_id: Option<i64>,
    pub landing_page_id: Option<i64>,
    pub offer_id: Option<i64>,
    pub country: Option<String>,
    pub device: Option<String>,
    pub os: Option<String>,
    pub browser: Option<String>,
    pub reason: Option<String>,
    pub currency: Option<String>,
    pub goal: Option<String>,
    pub status: Option<String>,
    pub rate_day: Option<NaiveDate>,
    pub language: Option<String>,
    pub region: Option<String>,
    pub city: Option<String>,
    pub isp: Option<String>,
    pub connection: Option<String>,
    pub os_version: Option<String>,
    pub browser_version: Option<String>,
    pub referrer_host: Option<String>,
    pub sub1: Option<String>,
    pub sub2: Option<String>,
    pub sub3: Option<String>,
    pub sub4: Option<String>,
    pub sub5: Option<String>,
    pub affiliate_sub: Option<String>,
    pub affiliate_sub2: Option<String>,
    pub affiliate_sub3: Option<String>,
    pub affiliate_sub4: Option<String>,
    pub affiliate_sub5: Option<String>,
    pub keyword: Option<String>,
    pub creative: Option<String>,
    pub placement: Option<String>,
    pub clicks: i64,
    pub valid_clicks: i64,
    pub bot_clicks: i64,
    pub unique_clicks: i64,
    pub lander_views: i64,
    pub lander_clicks: i64,
    pub offer_clicks: i64,
    pub costed_clicks: i64,
    pub cost: Decimal,
    pub conversions: i64,
    pub amount: Decimal,
}

/// Facts of a question from the one at `after` on, at most `limit`.
///
/// The newest are looked for in the last hour, then in four times as long before that, and so on: so a page costs what it shows,
/// and not all that is behind it.
pub async fn list(
    db: &Db,
    question: FactsQuestion,
    after: Option<Position>,
    limit: usize,
    time_max: Duration,
) -> Result<Vec<Fact>, Error> {
    db.read_report(LIST, time_max, move |c| {
        Box::pin(async move {
            PLAN_ANEW.query().execute(c).await?;
            let mut found: Vec<Fact> = Vec::new();
            let (mut after, mut span) = (after, FIRST_SPAN);
            let past = |after: Position| after.at + TimeDelta::microseconds(1);
            let mut to = after.map_or(question.to, |after| question.to.min(past(after)));
            while found.len() < limit && to > question.from {
                let from = question.from.max(to - span);
                let within = FactsQuestion { from, to, ..question.clone() };
                let missing = i64::try_from(limit - found.len()).ok();
                found.extend(bound(&within, after, missing).fetch_all(c).await?);
                (to, after, span) = (from, None, span * SPANS_GROW);
            }
            Ok(found)
        })
    })
    .await
}

/// All facts of a question, some at a time, until nobody takes them.
pub async fn stream(
    db: &Db,
    question: FactsQuestion,
    pages: &mpsc::Sender<Vec<Fact>>,
    time_max: Duration,
) -> Result<(), Error> {
    let pages = pages.clone();
    db.stream(LIST, time_max, move |c: &mut Session<'_>| {
        Box::pin(async move { Box::pin(bound(&question, None, None).send_all(c, PAGE_ROWS, &pages)).await })
    })
    .await
}

fn bound(question: &FactsQuestion, after: Option<Position>, limit: Option<i64>) -> QueryAs<'static, Fact> {
    let of_conversions = match question.time {
        TimeKind::Click => 1i16,
        TimeKind::Conversion => 2,
        TimeKind::Change => 3,
    };
    let time_kinds = match question.kind {
        None => vec![0, of_conversions],
        Some(Kind::Clicks | Kind::Costs) => vec![0],
        Some(Kind::Conversions) => vec![of_conversions],
    };
    let single = question.campaigns.as_deref().and_then(|ids| <[Uuid; 1]>::try_from(ids).ok());
    let mut query = LIST
        .query_as()
        .bind(time_kinds)
        .bind(question.from)
        .bind(question.to)
        .bind(question.tz.name())
        .bind(question.campaigns.clone())
        .bind(single.map(|[id]| id))
        .bind(question.kind == Some(Kind::Costs))
        .bind(after.map(|after| after.at))
        .bind(after.map(|after| after.click_id.unwrap_or(Uuid::nil())))
        .bind(after.map_or(0, |after| after.skipped))
        .bind(limit);
    for i in 0..FILTERS_MAX {
        let filter = question.filters.get(i);
        query = query
            .bind(filter.map(|filter| <&str>::from(filter.dimension)))
            .bind(filter.map(|filter| <&str>::from(filter.matching)))
            .bind(filter.map(values));
    }
    query
}
