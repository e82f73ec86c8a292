//! `/api/v1/reports/facts`: the facts behind figures, row by row.

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    check_raw_rows,
    input::{self, FactsAsked, FactsInput, position_text},
    names::named,
    produce::{self, Bounds, Job},
    rows::Format,
    with_campaigns,
};
use crate::{
    app::App,
    db::store::reports::{
        facts::{self, Fact},
        names::{self, Ids, Names},
    },
    http::{
        api::{
            exports,
            manners::{answer::answer, auth::Read, problems::Problems, request::Json},
        },
        error::Problem,
    },
    model::money::amount_text,
    reports::{
        facts::{FactsQuestion, Kind, Position},
        question::{Dimension, TimeKind},
    },
};

/// The routes of this module.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(post, get))
}

/// Facts behind figures, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReportFacts {
    /// The first moment.
    from: DateTime<Utc>,
    /// The moment after the last.
    to: DateTime<Utc>,
    /// Where conversions stand.
    time: TimeKind,
    /// Their sums are the figures.
    pub(crate) rows: Vec<ReportFact>,
    /// Whether there are more rows behind these.
    pub(crate) has_more: bool,
    /// What `cursor` is to be then.
    #[schema(example = "000642a1b2c3d4e5019aaf3c5f007abc8def0123456789ab0")]
    pub(crate) next_cursor: Option<String>,
    /// What was before this was deleted because of its age (`privacy.retention_days`): figures still have it, and it is no row.
    /// Null: nothing is deleted.
    kept_since: Option<DateTime<Utc>>,
}

/// What one fact adds to figures: a click, an out-click, a conversion or a change of one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReportFact {
    /// The time at which it stands.
    pub(crate) at: DateTime<Utc>,
    /// `click`, `out_click`, `conversion`, or `erased`: the sum of what was erased, of an hour.
    #[schema(value_type = String, example = "click")]
    pub(crate) kind: &'static str,
    /// The click; null of what was erased.
    pub(crate) click_id: Option<Uuid>,
    /// The conversion.
    conversion_id: Option<Uuid>,
    /// The campaign.
    pub(crate) campaign: Uuid,
    /// `source`, by its id.
    source: Option<i64>,
    /// `rule`, by its id.
    rule: Option<i64>,
    /// `path`, by its id.
    path: Option<i64>,
    /// `landing_page`, by its id.
    landing_page: Option<i64>,
    /// `offer`, by its id.
    offer: Option<i64>,
    /// ISO 3166-1 alpha-2.
    #[schema(example = "DE")]
    pub(crate) country: Option<String>,
    /// The dimension of this name.
    #[schema(example = "BY")]
    region: Option<String>,
    /// The dimension of this name.
    #[schema(example = "Munich")]
    city: Option<String>,
    /// The dimension of this name.
    #[schema(example = "de")]
    language: Option<String>,
    /// The dimension of this name.
    #[schema(example = "mobile")]
    pub(crate) device: Option<String>,
    /// The dimension of this name.
    #[schema(example = "iOS")]
    pub(crate) os: Option<String>,
    /// The dimension of this name.
    #[schema(example = "17.5")]
    os_version: Option<String>,
    /// The dimension of this name.
    #[schema(example = "Safari")]
    pub(crate) browser: Option<String>,
    /// The dimension of this name.
    #[schema(example = "17.5")]
    browser_version: Option<String>,
    /// The dimension of this name.
    #[schema(example = "Telekom")]
    isp: Option<String>,
    /// The dimension of this name.
    #[schema(example = "cellular")]
    connection: Option<String>,
    /// The dimension of this name.
    #[schema(example = "news.example")]
    pub(crate) referrer_host: Option<String>,
    /// The dimension of this name.
    #[schema(example = "zone-1")]
    pub(crate) sub1: Option<String>,
    /// The dimension of this name.
    #[schema(example = "zone-2")]
    sub2: Option<String>,
    /// The dimension of this name.
    #[schema(example = "zone-3")]
    sub3: Option<String>,
    /// The dimension of this name.
    #[schema(example = "zone-4")]
    sub4: Option<String>,
    /// The dimension of this name.
    #[schema(example = "zone-5")]
    sub5: Option<String>,
    /// The dimension of this name.
    #[schema(example = "partner")]
    aff_sub: Option<String>,
    /// The dimension of this name.
    #[schema(example = "partner")]
    aff_sub2: Option<String>,
    /// The dimension of this name.
    #[schema(example = "partner")]
    aff_sub3: Option<String>,
    /// The dimension of this name.
    #[schema(example = "partner")]
    aff_sub4: Option<String>,
    /// The dimension of this name.
    #[schema(example = "partner")]
    aff_sub5: Option<String>,
    /// The dimension of this name.
    #[schema(example = "shoes")]
    keyword: Option<String>,
    /// The dimension of this name.
    #[schema(example = "banner-7")]
    creative: Option<String>,
    /// The dimension of this name.
    #[schema(example = "news")]
    placement: Option<String>,
    /// Why the click does not count.
    #[schema(example = "bot")]
    pub(crate) reason: Option<String>,
    /// The goal of the conversion.
    #[schema(example = "deposit")]
    pub(crate) goal: Option<String>,
    /// The state of the conversion.
    #[schema(example = "approved")]
    pub(crate) status: Option<String>,
    /// Of the cost or the amount; `XXX`: it is not known which.
    #[schema(example = "EUR")]
    pub(crate) currency: Option<String>,
    /// The day (UTC) whose rate an amount is converted by.
    rate_day: Option<NaiveDate>,
    /// How many it counts as.
    clicks: i64,
    /// How many it counts as.
    valid_clicks: i64,
    /// How many it counts as.
    bot_clicks: i64,
    /// How many it counts as.
    unique_clicks: i64,
    /// How many it counts as.
    lander_views: i64,
    /// How many it counts as.
    lander_clicks: i64,
    /// How many it counts as.
    offer_clicks: i64,
    /// How many it counts as.
    conversions: i64,
    /// What the link said that the click costs.
    #[schema(value_type = String, example = "0.05")]
    pub(crate) cost: String,
    /// What it pays: of the state in which the conversion is.
    #[schema(value_type = String, example = "7.00")]
    pub(crate) amount: String,
    /// Names of what stands as an id, by dimension; what was deleted has none.
    #[schema(value_type = Object, example = json!({"campaign": "Summer sale"}))]
    pub(crate) names: Map<String, Value>,
}

/// The columns of facts in CSV.
pub(super) fn columns() -> Vec<String> {
    COLUMNS.iter().map(|name| (*name).to_owned()).collect()
}

const COLUMNS: [&str; 56] = [
    "at",
    "kind",
    "click_id",
    "conversion_id",
    "campaign",
    "campaign_name",
    "source",
    "source_name",
    "rule",
    "rule_name",
    "path",
    "path_name",
    "landing_page",
    "landing_page_name",
    "offer",
    "offer_name",
    "country",
    "region",
    "city",
    "language",
    "device",
    "os",
    "os_version",
    "browser",
    "browser_version",
    "isp",
    "connection",
    "referrer_host",
    "sub1",
    "sub2",
    "sub3",
    "sub4",
    "sub5",
    "aff_sub",
    "aff_sub2",
    "aff_sub3",
    "aff_sub4",
    "aff_sub5",
    "keyword",
    "creative",
    "placement",
    "reason",
    "goal",
    "status",
    "currency",
    "rate_day",
    "clicks",
    "valid_clicks",
    "bot_clicks",
    "unique_clicks",
    "lander_views",
    "lander_clicks",
    "offer_clicks",
    "conversions",
    "cost",
    "amount",
];

impl ReportFact {
    fn new(fact: Fact, names: &Names) -> Self {
        let kind = match (fact.click_id, fact.time_kind, fact.clicks) {
            (None, ..) => "erased",
            (_, 0, 0) => "out_click",
            (_, 0, _) => "click",
            _ => "conversion",
        };
        let ids = ids_of(&fact);
        Self {
            at: fact.at,
            kind,
            click_id: fact.click_id,
            conversion_id: fact.conversion_id,
            campaign: fact.campaign_id,
            source: fact.source_id,
            rule: fact.rule_id,
            path: fact.path_id,
            landing_page: fact.landing_page_id,
            offer: fact.offer_id,
            country: fact.country,
            region: fact.region,
            city: fact.city,
            language: fact.language,
            device: fact.device,
            os: fact.os,
            os_version: fact.os_version,
            browser: fact.browser,
            browser_version: fact.browser_version,
            isp: fact.isp,
            connection: fact.connection,
            referrer_host: fact.referrer_host,
            sub1: fact.sub1,
            sub2: fact.sub2,
            sub3: fact.sub3,
            sub4: fact.sub4,
            sub5: fact.sub5,
            aff_sub: fact.affiliate_sub,
            aff_sub2: fact.affiliate_sub2,
            aff_sub3: fact.affiliate_sub3,
            aff_sub4: fact.affiliate_sub4,
            aff_sub5: fact.affiliate_sub5,
            keyword: fact.keyword,
            creative: fact.creative,
            placement: fact.placement,
            reason: fact.reason,
            goal: fact.goal,
            status: fact.status,
            currency: fact.currency,
            rate_day: fact.rate_day,
            clicks: fact.clicks,
            valid_clicks: fact.valid_clicks,
            bot_clicks: fact.bot_clicks,
            unique_clicks: fact.unique_clicks,
            lander_views: fact.lander_views,
            lander_clicks: fact.lander_clicks,
            offer_clicks: fact.offer_clicks,
            conversions: fact.conversions,
            cost: amount_text(fact.cost),
            amount: amount_text(fact.amount),
            names: named(names, ids.iter().map(|(dimension, id)| (*dimension, Some(id.as_str())))),
        }
    }
}

/// What of a fact has a name.
fn ids_of(fact: &Fact) -> Vec<(Dimension, String)> {
    let numbers = [
        (Dimension::Source, fact.source_id),
        (Dimension::Rule, fact.rule_id),
        (Dimension::Path, fact.path_id),
        (Dimension::LandingPage, fact.landing_page_id),
        (Dimension::Offer, fact.offer_id),
    ];
    let numbers = numbers.into_iter().filter_map(|(dimension, id)| Some((dimension, id?.to_string())));
    std::iter::once((Dimension::Campaign, fact.campaign_id.to_string())).chain(numbers).collect()
}

/// Facts as they are shown; `known` are names that were looked up before, of which there are few however many facts there are.
pub(super) async fn shown(app: &App, page: Vec<Fact>, known: &mut Names) -> Result<Vec<ReportFact>, Problem> {
    let mut ids = Ids::default();
    for (dimension, id) in page.iter().flat_map(ids_of) {
        if !known.contains_key(&(dimension, id.clone())) {
            ids.add(dimension, &id);
        }
    }
    known.extend(names::of_ids(&app.db, ids).await?);
    Ok(page.into_iter().map(|fact| ReportFact::new(fact, known)).collect())
}

/// List the facts behind figures
///
/// Each click, out-click and conversion with everything that figures are told apart by and what it counts: the sums of the rows
/// are the figures of a report with the same filters. `links` of a report's row lead here. `Accept: text/csv` and
/// `application/x-ndjson` give all rows.
#[utoipa::path(
    post, path = "/reports/facts", tag = "reports", operation_id = "read_report_facts", security(("token" = ["read"])),
    request_body = FactsInput,
    responses(
        (status = 200, description = "The facts.", content((ReportFacts = "application/json"), (String = "text/csv"), (String = "application/x-ndjson"))),
        (status = 202, description = "They are too many to be read at once: an export is made.", body = exports::ExportBody, headers(
            ("Location" = String, description = "Where the export is."),
        )),
        Problems,
    ),
)]
async fn post(
    _: Read,
    State(app): State<App>,
    headers: HeaderMap,
    Json(value): Json,
) -> Result<Response, Problem> {
    respond(&app, &value, &headers).await
}

/// List the facts behind figures by a link
///
/// As `POST /reports/facts`: `filters` as JSON.
#[utoipa::path(
    get, path = "/reports/facts", tag = "reports", operation_id = "get_report_facts",
    params(
        ("kind" = Option<Kind>, Query, description = "Which facts; by default everything that figures are made of."),
        ("filters" = Option<String>, Query, description = "As in `POST /reports/facts`, as JSON.", example = ""),
        ("from" = Option<String>, Query, description = "The first moment (RFC 3339); by default 30 days before `to`.", example = "2026-01-01T00:00:00Z"),
        ("to" = Option<String>, Query, description = "The moment after the last (RFC 3339); by default now.", example = "2026-02-01T00:00:00Z"),
        ("tz" = Option<String>, Query, description = "IANA time zone; `UTC` by default.", example = "Europe/Berlin"),
        ("time" = Option<TimeKind>, Query, description = "`click` by default."),
        ("limit" = Option<i64>, Query, description = "Rows at most, 50 by default.", minimum = 1, maximum = 5000),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the answer before.", example = ""),
    ),
    responses(
        (status = 200, description = "The facts.", content((ReportFacts = "application/json"), (String = "text/csv"), (String = "application/x-ndjson"))),
        (status = 202, description = "They are too many to be read at once: an export is made.", body = exports::ExportBody, headers(
            ("Location" = String, description = "Where the export is."),
        )),
        Problems,
    ),
)]
async fn get(
    _: Read,
    State(app): State<App>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    respond(&app, &input::of_facts_query(query.as_deref())?, &headers).await
}

async fn respond(app: &App, value: &Value, headers: &HeaderMap) -> Result<Response, Problem> {
    let asked = input::read_facts(value, Utc::now())?;
    let (from, to) = (asked.question.from, asked.question.to);
    let format = Format::wanted(headers);
    let asked = resolved(app, asked).await?;
    let bounds = Bounds::of_answers(app);
    match check_raw_rows(app, [(from, to)], asked.question.campaigns.clone(), bounds.raw_rows_max).await {
        Err(problem) if problem.code() == super::TOO_BIG => {
            let value = input::fixed(value, from, to);
            return exports::begin(app, exports::What::Facts, value, format.unwrap_or(Format::Ndjson)).await;
        }
        checked => drop(checked?),
    }
    if let Some(format) = format {
        let job = Job::Facts { question: asked.question, expected: None };
        return Ok(produce::streamed(app, job, format, bounds.timeout));
    }
    answer(StatusCode::OK, &page(app, asked).await?)
}

/// With campaigns by their ids.
pub(crate) async fn resolved(app: &App, mut asked: FactsAsked) -> Result<FactsAsked, Problem> {
    asked.question.campaigns = with_campaigns(app, &mut asked.question.filters).await?;
    Ok(asked)
}

/// The answer to what is asked in JSON; [`super::TOO_BIG`] where it cannot be read at once.
pub(crate) async fn answered(app: &App, value: &Value) -> Result<ReportFacts, Problem> {
    let asked = resolved(app, input::read_facts(value, Utc::now())?).await?;
    let (range, most) = ((asked.question.from, asked.question.to), Bounds::of_answers(app).raw_rows_max);
    check_raw_rows(app, [range], asked.question.campaigns.clone(), most).await?;
    page(app, asked).await
}

async fn page(app: &App, asked: FactsAsked) -> Result<ReportFacts, Problem> {
    let FactsAsked { question, limit, after } = asked;
    let FactsQuestion { from, to, time, .. } = question;
    let timeout = app.config.reports.timeout;
    let mut found = facts::list(&app.db, question, after, limit + 1, timeout).await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let end = end_of(&found, after);
    let kept = app.config.privacy.retention;
    let kept_since = chrono::TimeDelta::from_std(kept).ok().filter(|kept| !kept.is_zero());
    Ok(ReportFacts {
        from,
        to,
        time,
        rows: shown(app, found, &mut Names::new()).await?,
        has_more,
        next_cursor: end.filter(|_| has_more).map(position_text),
        kept_since: kept_since.map(|kept| Utc::now() - kept),
    })
}

/// Where a page that began at `after` ends.
fn end_of(page: &[Fact], after: Option<Position>) -> Option<Position> {
    let last = page.last()?;
    let is_same = |fact: &&Fact| (fact.at, fact.click_id) == (last.at, last.click_id);
    let shown = page.iter().rev().take_while(is_same).count();
    let before = after.filter(|after| (after.at, after.click_id) == (last.at, last.click_id));
    let skipped = i64::try_from(shown).unwrap_or(i64::MAX) + before.map_or(0, |before| before.skipped);
    Some(Position { at: last.at, click_id: last.click_id, skipped })
}
