//! `POST /api/v1/reconciliations`: the report of a network beside what is stored. A question: nothing is kept or changed.

use axum::{
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{App, Parts},
    http::{
        api::{
            conversions::import::require_file,
            costs::input,
            manners::{answer::answer, auth::Read, page::Params, problems::Problems},
            views::reconciliation::Reconciliation,
        },
        body,
        error::{FieldError, Problem},
        head::require_identity,
    },
    model::{conversion::ReportDate, money::Currency},
    money::reconcile::Report,
    reconciliation::{self, Fault, Question, reconcile},
};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(compare))
}

/// Compare a report
///
/// The report of a network beside what is stored: which of its lines are missing here, which conversions are missing there,
/// what differs in state, currency, amount or day, and what is there twice; each with the hop at which it was lost. The file is
/// read like one of `POST /conversions/import`, with the same bounds, and days in a column such as `date`. What a line does not
/// say is not compared. Nothing is kept and nothing is changed. With `Accept: text/csv` the differences come as CSV.
#[utoipa::path(
    post, path = "/reconciliations", tag = "conversions", operation_id = "create_reconciliation", security(("token" = ["read"])),
    params(
        ("network" = i64, Query, description = "The affiliate network whose report it is.", minimum = 1, example = 3),
        ("from" = String, Query, description = "Conversions of this time or later must be in it: RFC 3339, or a day of `tz`.", example = "2026-11-01"),
        ("to" = String, Query, description = "And before this time: RFC 3339, or a day of `tz`, which is not in it any more.", example = "2026-12-01"),
        ("tz" = Option<String>, Query, description = "IANA time zone of its days and times; `UTC` by default.", example = "Europe/Berlin"),
        ("currency" = Option<String>, Query, description = "Of lines that name none; by default the network's.", pattern = "^(?:[A-Za-z]{3})?$", example = "USD"),
        ("date" = Option<ReportDate>, Query, description = "Which day its lines have: that of the conversion, which is the default, or of the click."),
    ),
    request_body(content = String, content_type = "text/csv",
        description = "The report: `text/csv`, or a JSON object a line as `application/x-ndjson`.",
        example = "click_id,txid,payout,status,date\n019aaf3c-5f00-7abc-8def-0123456789ab,T-1001,1.50,approved,2026-11-20\n"),
    responses(
        (status = 200, description = "What comes of it.", content((Reconciliation = "application/json"), (String = "text/csv"))),
        Problems,
    ),
)]
async fn compare(
    _: Read,
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    sent: Body,
) -> Result<Response, Problem> {
    let question = question(&app, query.as_deref())?;
    require_identity(&headers)?;
    require_file(&headers)?;
    let bytes = body::read(sent, app.config.postbacks.import_bytes_max).await?;
    let found = reconcile(&app.db, question, bytes, |_, _| {}).await.map_err(problem_of)?;
    let is_csv = wants_csv(&headers);
    let written = tokio::task::spawn_blocking(move || write(&found, is_csv));
    written.await.map_err(Problem::internal)?
}

/// What a query asks.
fn question(app: &Parts, query: Option<&str>) -> Result<Question, Problem> {
    let config = &app.config.postbacks;
    read(query, config.import_lines_max, config.reconcile_rows_max)
}

/// What comes of a report.
pub(crate) async fn compared(
    app: &Parts,
    query: Option<&str>,
    report: String,
) -> Result<Reconciliation, Problem> {
    let found = reconcile(&app.db, question(app, query)?, report, |_, _| {}).await.map_err(problem_of)?;
    let shown = tokio::task::spawn_blocking(move || Reconciliation::of(&found));
    shown.await.map_err(Problem::internal)
}

fn write(found: &reconciliation::Reconciliation, is_csv: bool) -> Result<Response, Problem> {
    let shown = Reconciliation::of(found);
    if !is_csv {
        return answer(StatusCode::OK, &shown);
    }
    let mut response = Response::new(Body::from(shown.csv().map_err(Problem::internal)?));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn problem_of(fault: Fault) -> Problem {
    match fault {
        Fault::NoNetwork => FieldError::new("?network", "not_found", fault.to_string()).into(),
        Fault::File(_) => FieldError::new("", "file", fault.to_string()).into(),
        Fault::TooMany(_) => FieldError::new("?from", "range", fault.to_string()).into(),
        Fault::Db(error) => error.into(),
        Fault::Failed(error) => Problem::internal(error),
    }
}

/// Whether CSV is asked for, and JSON is not before it.
fn wants_csv(headers: &HeaderMap) -> bool {
    let all = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = all
        .flat_map(|value| value.split(','))
        .map(|range| range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let first = ranges.find(|range| ["text/csv", "application/json", "*/*"].contains(&range.as_str()));
    first.is_some_and(|first| first == "text/csv")
}

fn read(query: Option<&str>, lines_max: usize, rows_max: usize) -> Result<Question, Problem> {
    let mut params = Params::parse(query, &["network", "from", "to", "tz", "currency", "date"]);
    let network_id = params.id("network");
    let zone = params.zone();
    let (from, to) = (time(&mut params, "from", zone), time(&mut params, "to", zone));
    if from.zip(to).is_some_and(|(from, to)| to <= from) {
        params.refuse("to", "range", "must be after from");
    }
    let report = Report {
        zone,
        date: params.parsed("date", "choice").unwrap_or_default(),
        currency: params.parsed::<Currency>("currency", "pattern"),
    };
    for name in ["network", "from", "to"] {
        if params.text(name).is_none() {
            params.refuse(name, "required", "is required");
        }
    }
    params.finish()?;
    let asked = network_id.zip(from.zip(to));
    let (network_id, (from, to)) = asked.ok_or_else(|| Problem::internal("a fault that was not named"))?;
    Ok(Question { network_id, from, to, report, lines_max, rows_max })
}

/// A time, or a day of the zone.
fn time(params: &mut Params<'_>, name: &str, zone: Tz) -> Option<DateTime<Utc>> {
    let text = params.text(name)?;
    // a `+` that was not encoded reads as a space
    let time = input::parse(text, zone).or_else(|| input::parse(&text.replace(' ', "+"), zone));
    if time.is_none() {
        params.refuse(
            name,
            "time",
            "must be a time such as 2026-01-31T12:00:00Z, or a day of tz such as 2026-01-31",
        );
    }
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_question_is_named_and_days_are_of_its_zone() {
        let faults = |query: &str| {
            let problem = read(Some(query), 1, 1).unwrap_err();
            problem
                .errors()
                .iter()
                .map(|error| format!("{} {}", error.pointer, error.code))
                .collect::<Vec<_>>()
        };
        assert_eq!(faults(""), ["?network required", "?from required", "?to required"]);
        assert_eq!(faults("network=3&from=2026-11-01&to=2026-11-01&tz=X"), ["?tz time_zone", "?to range"]);
        assert_eq!(
            faults("network=0&from=yesterday&to=2026-11-01&date=visit&currency=euro"),
            ["?network type", "?from time", "?date choice", "?currency pattern"]
        );
        let query = "network=3&from=2026-11-01&to=2026-12-01T00:00:00+01:00&tz=Europe/Berlin&date=click";
        let asked = read(Some(query), 1, 1).unwrap();
        assert_eq!(
            (asked.from.to_rfc3339(), asked.to.to_rfc3339()),
            ("2026-10-31T23:00:00+00:00".into(), "2026-11-30T23:00:00+00:00".into())
        );
        assert_eq!(asked.report.date, ReportDate::Click);
    }

    #[test]
    fn csv_is_for_who_asks_for_it_first() {
        for (accept, wanted) in [
            ("text/csv", true),
            ("Text/CSV;q=0.9, application/json", true),
            ("application/json, text/csv", false),
            ("*/*", false),
            ("text/html", false),
        ] {
            let headers = [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
            assert_eq!(wants_csv(&headers), wanted, "{accept}");
        }
        assert!(!wants_csv(&HeaderMap::new()));
    }
}
