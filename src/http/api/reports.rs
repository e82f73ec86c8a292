//! `/api/v1/reports`: figures by any dimensions, and whether they add up.

pub(crate) mod facts;
pub(crate) mod input;
mod links;
mod names;
pub(crate) mod produce;
pub(crate) mod rows;

use std::time::Instant;

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use rust_decimal::{Decimal, prelude::ToPrimitive as _};
use serde::Serialize;
use serde_json::{Map, Value};
use strum::VariantArray as _;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::App,
    db::store::{
        figures, fx_rates,
        reports::{
            self, Limits, Part, Read as ReportRead,
            names::{self as stored_names, Names},
            notes,
        },
    },
    http::{
        api::{
            campaigns, exports,
            manners::{
                answer::answer,
                auth::Read,
                page::Params,
                problems::Problems,
                request::{Json, parse_id},
            },
        },
        error::{FieldError, Problem},
    },
    metrics,
    model::money::{Currency, amount_text},
    money::{costs::Provenance, rates::Rates},
    reports::{
        costs::{Cost, Facts, Notes, Unallocated, spread},
        figures::{Figures, Key, Row, Sums, compare},
        plan::{Kind, Plan, plan, plan_with_values, valued},
        question::{Comparison, Dimension, Filter, Match, Measure, OTHER, Question, TimeKind, Validity},
    },
};
use input::{Asked, ReportInput};
use links::ReportLinks;
use produce::{Bounds, Job};
use rows::Format;

/// The code of what is beyond the bounds of its kind.
pub(crate) const TOO_BIG: &str = "report_too_big";

/// Days that are compared at once.
const COMPARED_DAYS_MAX: i64 = 31;

/// Rows of a comparison.
const DIFFERENCES_MAX: i64 = 1000;

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(post, get))
        .merge(facts::router())
        .routes(routes!(dimensions))
        .routes(routes!(invariants))
}

/// A report.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Report {
    /// The first moment.
    from: DateTime<Utc>,
    /// The moment after the last.
    to: DateTime<Utc>,
    /// Whose hours, days, weeks and months count.
    #[schema(value_type = String, format = "time-zone", example = "Europe/Berlin")]
    tz: Tz,
    /// Where conversions stand.
    time: TimeKind,
    /// The currency of all amounts.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "EUR")]
    pub(crate) currency: Currency,
    /// Which clicks ratios are divided by.
    validity: Validity,
    /// What rows are told apart by.
    group_by: Vec<Dimension>,
    /// What is shown of each row.
    measures: Vec<Measure>,
    /// In the order asked for.
    pub(crate) rows: Vec<ReportRow>,
    /// Whether there are more rows behind these.
    pub(crate) has_more: bool,
    /// What `cursor` is to be then.
    #[schema(example = "[\"DE\"]")]
    pub(crate) next_cursor: Option<String>,
    /// Of all rows together, worked out for itself: `limit` has nothing to do with it.
    pub(crate) totals: ReportFigures,
    /// Likewise of the time before, where it is compared.
    pub(crate) totals_before: Option<ReportFigures>,
    /// When it was read: everything that was stored by then is in it.
    as_of: DateTime<Utc>,
    /// How far the journal of each node was stored by then: at most a hundred, those that moved last first.
    watermarks: Vec<ReportWatermark>,
    /// Where it was read: sums of one `dimension`, sums of hours and days (`cube`), or facts (`raw`): the figures are the same. Where
    /// that would read more clicks than it may, `values`: those that were clicked most, and a row `is_other`.
    #[schema(value_type = String, example = "cube")]
    source: &'static str,
    /// What is to be known of the figures.
    pub(crate) notes: ReportNotes,
}

/// A row of a report.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReportRow {
    /// The value of each dimension that the report is grouped by; null is not known.
    #[schema(value_type = Object, example = json!({"country": "DE"}))]
    pub(crate) keys: Map<String, Value>,
    /// Names of what stands as an id, by dimension; what was deleted has none.
    #[schema(value_type = Object, example = json!({"campaign": "Summer sale"}))]
    pub(crate) names: Map<String, Value>,
    /// Whether it has all values together that are not kept one by one; the key of their dimension is null.
    pub(crate) is_other: bool,
    /// What is shown of it.
    pub(crate) figures: ReportFigures,
    /// Likewise of the time before, where it is compared.
    pub(crate) before: Option<ReportFigures>,
    /// Where its facts are; not in a row that is streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    links: Option<ReportLinks>,
}

/// How far a journal was stored.
#[derive(Debug, Serialize, ToSchema)]
struct ReportWatermark {
    /// The journal: one start of a node.
    stream: Uuid,
    /// Everything up to this record of it was stored.
    seq: i64,
    /// When that moved last.
    updated_at: DateTime<Utc>,
}

/// The measures that were asked for: counts are numbers, amounts and ratios decimal numbers in a text, and null where there is
/// nothing to divide by.
#[derive(Debug, Serialize, ToSchema)]
#[schema(value_type = Object, example = json!({"clicks": 1200, "revenue": "42.50", "cr": "0.0125"}))]
pub(crate) struct ReportFigures(pub(crate) Map<String, Value>);

/// What is to be known of the figures of a report.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReportNotes {
    /// Amounts that are in no figure, because their currency has no rate on their day.
    pub(crate) without_rate: Vec<WithoutRate>,
    /// Days (UTC) in the range that are still to be counted from their facts: their figures are not complete yet.
    pub(crate) uncounted_days: usize,
    /// `unique_clicks` of several days is the sum of their days.
    are_uniques_of_days: bool,
    /// How many values at most are together in rows `is_other`, where `source` is `values`; a value may be among them on one day and have
    /// a row of its own by another.
    other_values: Option<i64>,
    /// Where costs are from.
    cost_from: Vec<CostFrom>,
    /// Whether costs may still change by clicks of an adjustment's range that come late (`costs.settle_s`).
    pub(crate) provisional: bool,
    /// Of totals what no click bears: in no row, and not in `totals`.
    unallocated: Vec<UnallocatedNote>,
    /// Postbacks that came in the range with a word for their state that nobody mapped. These three are of all campaigns.
    pub(crate) unmapped: i64,
    /// Postbacks that came in the range and whose click never came.
    pub(crate) orphan: i64,
    /// Postbacks that came in the range and wait for their click.
    pub(crate) waiting: i64,
}

/// Where costs are from.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ReportCostFrom)]
enum CostFrom {
    /// Links.
    Token,
    /// Prices of campaigns.
    Model,
    /// Adjustments.
    Adjusted,
}

/// Of a total what no click bears.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReportUnallocated)]
struct UnallocatedNote {
    /// The campaign.
    campaign_id: Uuid,
    /// Of the total.
    #[schema(value_type = Option<String>, pattern = "^[A-Z]{3}$", example = "EUR")]
    currency: Option<Currency>,
    /// How much.
    #[schema(example = "30.00")]
    amount: String,
}

/// Amounts that could not be converted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WithoutRate {
    /// Theirs; `XXX`: it is not known which.
    #[schema(pattern = "^[A-Z]{3}$", example = "UAH")]
    pub(crate) currency: String,
    /// Revenue that is not in the figures.
    #[schema(example = "1200.00")]
    revenue: String,
    /// Of pending conversions.
    #[schema(example = "0.00")]
    revenue_pending: String,
    /// Cost that is not in the figures.
    #[schema(example = "0.00")]
    cost: String,
}

/// Read a report
///
/// Figures by up to four dimensions, exact and current: what is stored is in them. Counted from sums that are kept of what was
/// stored; from the facts themselves where the sums do not know what is asked. `Accept: text/csv` and `application/x-ndjson` give
/// all rows.
#[utoipa::path(
    post, path = "/reports", tag = "reports", operation_id = "read_report", security(("token" = ["read"])),
    request_body = ReportInput,
    responses(
        (status = 200, description = "The report.", content((Report = "application/json"), (String = "text/csv"), (String = "application/x-ndjson"))),
        (status = 202, description = "It is too much to be read at once: an export is made.", body = exports::ExportBody, headers(
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
    report(&app, &value, &headers).await
}

/// Read a report by a link
///
/// As `POST /reports`: lists by commas, `filters` as JSON.
#[utoipa::path(
    get, path = "/reports", tag = "reports", operation_id = "get_report",
    params(
        ("group_by" = Option<String>, Query, description = "Dimensions, by commas.", example = "country,day"),
        ("measures" = Option<String>, Query, description = "Measures, by commas.", example = "clicks,revenue"),
        ("filters" = Option<String>, Query, description = "As in `POST /reports`, as JSON.", example = ""),
        ("from" = Option<String>, Query, description = "The first moment (RFC 3339); by default 30 days before `to`.", example = "2026-01-01T00:00:00Z"),
        ("to" = Option<String>, Query, description = "The moment after the last (RFC 3339); by default now.", example = "2026-02-01T00:00:00Z"),
        ("tz" = Option<String>, Query, description = "IANA time zone; `UTC` by default.", example = "Europe/Berlin"),
        ("time" = Option<TimeKind>, Query, description = "`click` by default."),
        ("currency" = Option<String>, Query, description = "What amounts are converted to; `USD` by default.", example = "EUR"),
        ("validity" = Option<Validity>, Query, description = "`valid` by default."),
        ("compare" = Option<Comparison>, Query, description = "`none` by default."),
        ("order" = Option<String>, Query, description = "A dimension or measure, with `-` before it for the greatest first.", example = "-clicks"),
        ("limit" = Option<i64>, Query, description = "Rows at most, 50 by default.", minimum = 1, maximum = 10000),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the answer before.", example = ""),
    ),
    responses(
        (status = 200, description = "The report.", content((Report = "application/json"), (String = "text/csv"), (String = "application/x-ndjson"))),
        (status = 202, description = "It is too much to be read at once: an export is made.", body = exports::ExportBody, headers(
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
    report(&app, &input::of_query(query.as_deref())?, &headers).await
}

async fn report(app: &App, value: &Value, headers: &HeaderMap) -> Result<Response, Problem> {
    let asked = input::read(value, Utc::now())?;
    let format = Format::wanted(headers);
    let (beside, found) = match find(app, &asked).await {
        Err(problem) if problem.code() == TOO_BIG => {
            let value = input::fixed(value, asked.question.from, asked.question.to);
            return exports::begin(app, exports::What::Report, value, format.unwrap_or(Format::Ndjson)).await;
        }
        found => found?,
    };
    if let Some(format) = format {
        return Ok(all_rows(app, found, format));
    }
    answer(StatusCode::OK, &found.shown(app, &asked, beside).await?)
}

/// The answer to what is asked in JSON; [`TOO_BIG`] where it cannot be read at once.
pub(crate) async fn answered(app: &App, value: &Value) -> Result<Report, Problem> {
    let asked = input::read(value, Utc::now())?;
    let (beside, found) = find(app, &asked).await?;
    found.shown(app, &asked, beside).await
}

/// What is found of what is asked in JSON, for who sorts it himself.
pub(crate) async fn found(app: &App, value: &Value) -> Result<Found, Problem> {
    Found::of(app, &input::read(value, Utc::now())?, Bounds::of_answers(app)).await
}

/// Likewise all its rows as CSV.
pub(crate) async fn answered_as_csv(app: &App, value: &Value) -> Result<Response, Problem> {
    let (_, found) = find(app, &input::read(value, Utc::now())?).await?;
    Ok(all_rows(app, found, Format::Csv))
}

async fn find(app: &App, asked: &Asked) -> Result<(Beside, Found), Problem> {
    let begun = Instant::now();
    let beside = Beside::read(app, &asked.question).await?;
    let found = Found::of(app, asked, Bounds::of_answers(app)).await?;
    metrics::report_read(found.kind.into(), begun.elapsed());
    Ok((beside, found))
}

fn all_rows(app: &App, found: Found, format: Format) -> Response {
    produce::streamed(app, Job::Report(Box::new(found)), format, Bounds::of_answers(app).timeout)
}

/// What is said beside the figures of a report.
struct Beside {
    as_of: DateTime<Utc>,
    watermarks: Vec<notes::Watermark>,
    open: notes::Open,
}

impl Beside {
    /// Read before the figures: what is stored by then is in them.
    async fn read(app: &App, question: &Question) -> Result<Self, Problem> {
        let as_of = Utc::now();
        let watermarks = notes::watermarks(&app.db).await?;
        let open = notes::count_open(&app.db, question.from, question.to).await?;
        Ok(Self { as_of, watermarks, open })
    }
}

/// What was found.
pub(crate) struct Found {
    question: Question,
    kind: Kind,
    figures: Figures,
    total: Sums,
    before: Option<(Figures, Sums)>,
    uncounted_days: usize,
    other_values: Option<i64>,
}

impl Found {
    /// Reads what is asked for, within its bounds; [`TOO_BIG`] where they do not do.
    pub(crate) async fn of(app: &App, asked: &Asked, bounds: Bounds) -> Result<Self, Problem> {
        let mut question = asked.question.clone();
        let campaigns = with_campaigns(app, &mut question.filters).await?;
        let plan = planned(app, &question, campaigns.clone(), bounds).await?;
        let other_values = match plan.kind() {
            Kind::Values => Some(reports::count_others(&app.db, &plan, campaigns.clone()).await?),
            _ => None,
        };
        let rates = rates(app, &question).await?;
        let kind = plan.kind();
        let mut questions = vec![(question.clone(), plan)];
        if asked.compare == Comparison::Previous {
            let question = question.before();
            let plan = planned(app, &question, campaigns.clone(), bounds).await?;
            questions.push((question, plan));
        }
        let mut found = read_with_totals(app, questions, campaigns, &rates, bounds).await?.into_iter();
        let (figures, total) = found.next().unwrap_or_default();
        let before = found.next();
        let uncounted = figures::list_recounts(&app.db).await?;
        let is_in = |day: &&NaiveDate| (question.from.date_naive()..=question.to.date_naive()).contains(*day);
        let uncounted_days = uncounted.iter().filter(is_in).count();
        Ok(Self { question, kind, figures, total, before, uncounted_days, other_values })
    }

    /// Its question, with campaigns by their ids.
    pub(crate) fn question(&self) -> &Question {
        &self.question
    }

    /// Whether it is compared with the time before.
    pub(crate) fn is_compared(&self) -> bool {
        self.before.is_some()
    }

    /// All its rows, in the order asked for.
    pub(crate) fn sorted(&self) -> Vec<Row> {
        self.figures.sorted(&self.question)
    }

    /// What is to be known of its figures alone.
    pub(crate) fn notes_of_figures(&self) -> ReportNotes {
        self.notes(notes::Open::default())
    }

    async fn shown(&self, app: &App, asked: &Asked, beside: Beside) -> Result<Report, Problem> {
        let question = &self.question;
        let mut rows = self.figures.sorted(question);
        if let Some(cursor) = &asked.cursor {
            let last = row_of_cursor(cursor, &self.figures)?;
            rows.retain(|row| compare(question, row, &last).is_gt());
        }
        let has_more = rows.len() > asked.limit;
        rows.truncate(asked.limit);
        let next_cursor = rows.last().filter(|_| has_more).map(|row| cursor_of(&row.key));
        let names = stored_names::of_ids(&app.db, names::ids_of(question, &rows)).await?;
        Ok(Report {
            from: question.from,
            to: question.to,
            tz: question.tz,
            time: question.time,
            currency: question.currency,
            validity: question.validity,
            group_by: question.group_by.clone(),
            measures: question.measures.clone(),
            rows: rows.iter().map(|row| self.row(row, &names, true)).collect(),
            has_more,
            next_cursor,
            totals: ReportFigures::of(question, &self.total),
            totals_before: self.before.as_ref().map(|(_, total)| ReportFigures::of(question, total)),
            as_of: beside.as_of,
            watermarks: beside.watermarks.into_iter().map(ReportWatermark::from).collect(),
            source: self.kind.into(),
            notes: self.notes(beside.open),
        })
    }

    fn row(&self, row: &Row, names: &Names, has_links: bool) -> ReportRow {
        let question = &self.question;
        let dimensions = question.group_by.iter().map(ToString::to_string);
        let before = self.before.as_ref().map(|(figures, _)| {
            let sums = figures.get(&row.key).copied().unwrap_or_default();
            ReportFigures::of(question, &sums)
        });
        let is_other = |value: &Option<String>| value.as_deref() == Some(OTHER);
        let shown =
            |value: &Option<String>| if is_other(value) { Value::Null } else { Value::from(value.clone()) };
        ReportRow {
            keys: dimensions.zip(row.key.iter().map(shown)).collect(),
            names: names::named(names, names::values(question, &row.key)),
            is_other: row.key.iter().any(is_other),
            figures: ReportFigures::of(question, &row.sums),
            before,
            links: has_links.then(|| ReportLinks::of(question, &row.key)),
        }
    }

    fn notes(&self, open: notes::Open) -> ReportNotes {
        let notes::Open { unmapped, orphan, waiting } = open;
        let mut without_rate: Vec<WithoutRate> = self
            .figures
            .without_rate
            .iter()
            .map(|(currency, sums)| WithoutRate {
                currency: currency.clone(),
                revenue: amount_text(sums.revenue),
                revenue_pending: amount_text(sums.revenue_pending),
                cost: amount_text(sums.cost),
            })
            .collect();
        without_rate.sort_by(|a, b| a.currency.cmp(&b.currency));
        let costs = &self.figures.costs;
        ReportNotes {
            without_rate,
            uncounted_days: self.uncounted_days,
            are_uniques_of_days: self.question.measures.contains(&Measure::UniqueClicks),
            other_values: self.other_values,
            cost_from: cost_from(costs),
            provisional: costs.is_provisional,
            unallocated: costs.unallocated.iter().map(UnallocatedNote::of).collect(),
            unmapped,
            orphan,
            waiting,
        }
    }
}

fn cost_from(costs: &Notes) -> Vec<CostFrom> {
    let Provenance { token, model, adjusted } = costs.from;
    let all = [(token, CostFrom::Token), (model, CostFrom::Model), (adjusted, CostFrom::Adjusted)];
    all.into_iter().filter(|(is_one, _)| *is_one).map(|(_, from)| from).collect()
}

impl UnallocatedNote {
    fn of(of: &Unallocated) -> Self {
        Self { campaign_id: of.campaign_id, currency: of.currency, amount: amount_text(of.amount) }
    }
}

impl From<notes::Watermark> for ReportWatermark {
    fn from(watermark: notes::Watermark) -> Self {
        let notes::Watermark { stream, seq, updated_at } = watermark;
        Self { stream, seq, updated_at }
    }
}

impl ReportFigures {
    fn of(question: &Question, sums: &Sums) -> Self {
        let shown = |measure: &Measure| {
            let value = sums.measure(*measure, question.validity);
            let value = match value {
                None => Value::Null,
                Some(count) if measure.is_count() => Value::from(count.to_i64()),
                Some(amount) if measure.is_money() => Value::from(amount_text(amount)),
                Some(ratio) => Value::from(ratio.normalize().to_string()),
            };
            (measure.to_string(), value)
        };
        Self(question.measures.iter().map(shown).collect())
    }
}

/// Puts the ids of campaigns in the place of their keys; gives those that are named.
async fn with_campaigns(app: &App, filters: &mut [Filter]) -> Result<Option<Vec<Uuid>>, Problem> {
    let mut named: Option<Vec<Uuid>> = None;
    for (i, filter) in filters.iter_mut().enumerate() {
        let Filter {
            dimension: Dimension::Campaign,
            matching: matching @ (Match::Is | Match::IsNot),
            values,
        } = filter
        else {
            continue;
        };
        let mut ids = Vec::with_capacity(values.len());
        for (j, value) in values.iter_mut().enumerate() {
            let id = match parse_id(value) {
                Some(id) => id, // one that is deleted has its figures still
                None => match campaigns::find(app, value).await {
                    Ok(campaign) => campaign.id,
                    Err(problem) if problem.status() == StatusCode::NOT_FOUND => {
                        let pointer = format!("/filters/{i}/{matching}/{j}");
                        return Err(FieldError::new(pointer, "not_found", "there is no such campaign").into());
                    }
                    Err(problem) => return Err(problem),
                },
            };
            *value = id.to_string();
            ids.push(id);
        }
        if *matching == Match::Is {
            named = Some(match named {
                Some(before) => before.into_iter().filter(|id| ids.contains(id)).collect(),
                None => ids,
            });
        }
    }
    Ok(named)
}

/// Where the question is read: from the values that were clicked most, where it would read too many facts.
async fn planned(
    app: &App,
    question: &Question,
    campaigns: Option<Vec<Uuid>>,
    bounds: Bounds,
) -> Result<Plan, Problem> {
    let exact = plan(question);
    let raw_rows_max = bounds.raw_rows_max;
    let Err(too_big) = check_raw_rows(app, exact.raw_ranges(), campaigns.clone(), raw_rows_max).await else {
        return Ok(exact);
    };
    let Some(dimension) = valued(question) else { return Err(too_big) };
    let days = reports::value_days(&app.db, question.from, question.to).await?;
    let plan = plan_with_values(question, dimension, &days);
    check_raw_rows(app, plan.raw_ranges(), campaigns, raw_rows_max).await?;
    Ok(plan)
}

/// About how many facts are to be read; refuses too many.
pub(crate) async fn check_raw_rows(
    app: &App,
    ranges: impl IntoIterator<Item = (DateTime<Utc>, DateTime<Utc>)>,
    campaigns: Option<Vec<Uuid>>,
    raw_rows_max: usize,
) -> Result<i64, Problem> {
    let mut clicks = 0i64;
    for (from, to) in ranges {
        clicks = clicks.saturating_add(reports::count_clicks(&app.db, from, to, campaigns.clone()).await?);
    }
    let is_too_much = usize::try_from(clicks).is_ok_and(|clicks| clicks > raw_rows_max);
    if is_too_much { Err(too_many_clicks(clicks, raw_rows_max)) } else { Ok(clicks) }
}

/// What may be needed to convert amounts of the question.
async fn rates(app: &App, question: &Question) -> Result<Rates, Problem> {
    if !question.needs_money() {
        return Ok(Rates::default());
    }
    // the conversion of a click may be later than the range, and by the clock of a network later than now
    let until = (question.to.max(Utc::now()) + TimeDelta::days(31)).date_naive();
    let from = question.before().from.date_naive();
    Ok(fx_rates::load(&app.db, from, until, app.config.money.rate_age_days_max).await?)
}

/// The figures of each question and the sums of all their rows, all of one snapshot. The sums are read for themselves; of a question
/// that groups by nothing they are its figures.
async fn read_with_totals(
    app: &App,
    mut questions: Vec<(Question, Plan)>,
    campaigns: Option<Vec<Uuid>>,
    rates: &Rates,
    bounds: Bounds,
) -> Result<Vec<(Figures, Sums)>, Problem> {
    let count = questions.len();
    let totals: Vec<Question> = questions
        .iter()
        .filter(|(question, _)| !question.group_by.is_empty())
        .map(|(question, _)| question.in_total())
        .collect();
    questions.extend(totals.into_iter().map(|question| (question.clone(), plan(&question))));
    let mut figures = read(app, questions, campaigns, rates, bounds).await?;
    let totals = figures.split_off(count);
    let totals: Vec<Sums> =
        if totals.is_empty() { &figures } else { &totals }.iter().map(Figures::total).collect();
    Ok(figures.into_iter().zip(totals).collect())
}

/// The figures of each question, all of one snapshot.
async fn read(
    app: &App,
    questions: Vec<(Question, Plan)>,
    campaigns: Option<Vec<Uuid>>,
    rates: &Rates,
    bounds: Bounds,
) -> Result<Vec<Figures>, Problem> {
    let limits = Limits {
        rows_max: bounds.rows_max,
        cost_rows_max: app.config.reports.cost_rows_max,
        raw_rows_max: bounds.raw_rows_max,
        timeout: bounds.query_timeout,
    };
    let settled = Utc::now() - app.config.costs.settle;
    let asked: Vec<Question> = questions.iter().map(|(question, _)| question.clone()).collect();
    let answers = reports::read(&app.db, questions, campaigns, settled, limits).await?;
    asked
        .iter()
        .zip(answers)
        .map(|(question, answer)| match answer {
            ReportRead::All { parts, costs } => Ok(figures_of(question, parts, costs, rates)),
            ReportRead::TooManyClicks(clicks) => Err(too_many_clicks(clicks, bounds.raw_rows_max)),
            ReportRead::TooManyRows(most) => Err(too_many_rows(most, bounds.rows_max)),
        })
        .collect()
}

/// What was read of a question, in its currency.
fn figures_of(question: &Question, parts: Vec<Part>, costs: Facts, rates: &Rates) -> Figures {
    let rate = |currency: &str, day: NaiveDate| -> Option<Decimal> {
        rates.rate(currency.parse().ok()?, question.currency, day)
    };
    let mut figures = Figures::default();
    for part in parts {
        figures.add(part.key, &part.sums, part.foreign, rate);
    }
    figures.costs.from.token = question.needs_cost() && figures.has_cost();
    let (costs, notes) = spread(costs, (question.from, question.to), question.currency);
    for Cost { key, foreign, cost } in costs {
        let foreign = foreign.map(|(currency, day)| (currency.to_string(), day));
        figures.add(key, &Sums { cost, ..Sums::default() }, foreign, rate);
    }
    figures.costs.add(notes);
    figures.costs.unallocated.retain(|of| question.has_campaign(&of.campaign_id.to_string()));
    figures
}

fn too_many_rows(most: usize, rows_max: usize) -> Problem {
    let key = if most == rows_max { "rows_max" } else { "cost_rows_max" };
    let detail =
        format!("The report has more than {most} rows (reports.{key}). Group by less, or filter more.");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, TOO_BIG, detail)
}

fn too_many_clicks(clicks: i64, most: usize) -> Problem {
    let detail = format!(
        "The report has to read {clicks} clicks one by one, more than {most} (reports.raw_rows_max). Ask for a shorter time or \
         for one campaign."
    );
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, TOO_BIG, detail)
}

/// The key of a row as a cursor.
fn cursor_of(key: &Key) -> String {
    serde_json::to_string(key).unwrap_or_default()
}

/// The row behind which the answer goes on; it may have changed, and may be gone.
fn row_of_cursor(cursor: &str, figures: &Figures) -> Result<Row, Problem> {
    let key: Option<Key> = serde_json::from_str(cursor).ok();
    let refused = || FieldError::new("/cursor", "cursor", "is not the next_cursor of a report");
    let key = key.ok_or_else(refused)?;
    let sums = figures.get(&key).copied().unwrap_or_default();
    Ok(Row { key, sums })
}

/// What reports can be asked.
#[derive(Debug, Serialize, ToSchema)]
struct ReportDimensions {
    /// What they can be grouped by and filtered by.
    dimensions: Vec<DimensionInfo>,
    /// What they can show.
    measures: Vec<MeasureInfo>,
}

/// A dimension of reports.
#[derive(Debug, Serialize, ToSchema)]
struct DimensionInfo {
    /// Its name.
    name: Dimension,
    /// Whether sums are kept by it: then a report of any length is quick. Otherwise it counts facts.
    is_summed: bool,
}

/// A measure of reports.
#[derive(Debug, Serialize, ToSchema)]
struct MeasureInfo {
    /// Its name.
    name: Measure,
    /// Whether it is an amount of money.
    is_money: bool,
}

/// List dimensions and measures
///
/// Closed lists: what is in them can be asked for, and nothing else.
#[utoipa::path(
    get, path = "/reports/dimensions", tag = "reports", operation_id = "list_report_dimensions",
    responses((status = 200, description = "All of them.", body = ReportDimensions), Problems),
)]
async fn dimensions(_: Read) -> Result<Response, Problem> {
    let dimensions =
        Dimension::VARIANTS.iter().map(|name| DimensionInfo { name: *name, is_summed: name.is_summed() });
    let measures =
        Measure::VARIANTS.iter().map(|name| MeasureInfo { name: *name, is_money: name.is_money() });
    answer(
        StatusCode::OK,
        &ReportDimensions { dimensions: dimensions.collect(), measures: measures.collect() },
    )
}

/// Whether figures add up.
#[derive(Debug, Serialize, ToSchema)]
struct Invariants {
    /// The first day (UTC).
    from: NaiveDate,
    /// The day after the last.
    to: NaiveDate,
    /// Whether every sum is what its facts are.
    adds_up: bool,
    /// Records that this node accepted and PostgreSQL has not stored yet: accepted less stored.
    pending_records: u64,
    /// Where sums and facts differ; none: everything adds up.
    differences: Vec<Value>,
    /// Days (UTC) of the range that are still to be counted from their facts.
    uncounted_days: Vec<NaiveDate>,
}

/// Compare sums with facts
///
/// The sums of hours, of days and of single dimensions, and what is still to be added to them, against all facts of the days, in
/// one snapshot. It reads every fact: of a long range it takes long.
#[utoipa::path(
    get, path = "/stats/invariants", tag = "reports", operation_id = "compare_figures",
    params(
        ("from" = Option<String>, Query, description = "The first day (UTC); yesterday by default.", example = "2026-11-29"),
        ("to" = Option<String>, Query, description = "The day after the last; by default tomorrow. At most 31 days.", example = "2026-12-01"),
    ),
    responses((status = 200, description = "What was found.", body = Invariants), Problems),
)]
async fn invariants(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &["from", "to"]);
    let today = Utc::now().date_naive();
    let from = params.day("from").unwrap_or_else(|| today.pred_opt().unwrap_or(today));
    let to = params.day("to").unwrap_or_else(|| today.succ_opt().unwrap_or(today));
    if to <= from {
        params.refuse("to", "range", "must be after from");
    } else if (to - from).num_days() > COMPARED_DAYS_MAX {
        params.refuse("from", "range", format!("must be at most {COMPARED_DAYS_MAX} days before to"));
    }
    params.finish()?;
    let limit = app.config.reports.compare_timeout;
    let found = figures::compare(&app.db, from, to, DIFFERENCES_MAX, limit).await?;
    let uncounted = figures::list_recounts(&app.db).await?;
    let shown = Invariants {
        from,
        to,
        adds_up: found.is_empty(),
        pending_records: app.journal.stats().pending_records,
        differences: found.iter().map(difference).collect(),
        uncounted_days: uncounted.into_iter().filter(|day| (from..to).contains(day)).collect(),
    };
    answer(StatusCode::OK, &shown)
}

/// A difference as it is shown: what is the same is left out.
pub(crate) fn difference(found: &figures::Difference) -> Value {
    let mut shown = serde_json::json!({
        "kept_by": found.kept_by, "day": found.day, "campaign_id": found.campaign_id, "rows": found.differing,
    });
    for (name, more) in found.sums() {
        shown[name] = Value::from(more.normalize().to_string());
    }
    shown
}
