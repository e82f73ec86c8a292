//! `/api/v1/exports`: reports and facts that are written to a file, because they are too long to be waited for.

pub(crate) mod worker;

use std::io;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream;
use serde::Serialize;
use serde_json::Value;
use tokio::{fs::File, io::AsyncReadExt as _};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::reports::{
    input::{self, FactsInput, ReportInput},
    rows::Format,
};
use crate::{
    app::App,
    db::store::reports::exports::{self, Export},
    http::{
        api::manners::{
            answer::{ROOT, answer, located, no_content},
            auth::{Admin, Read},
            problems::Problems,
            request::{Json, Name, parse_id},
        },
        error::{FieldError, Problem},
        fields::Fields,
    },
    model::id::new_uuid,
};

/// Bytes of a file that are read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Seconds after which to ask again for what is not done yet.
const RETRY_AFTER: &str = "2";

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(create)).routes(routes!(get, delete)).routes(routes!(file))
}

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// The rows of a report.
    Report,
    /// The facts behind figures.
    Facts,
}

/// An export that is asked for: one of `report` and `facts`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `create` reads")]
#[schema(as = ExportInput, example = json!({
    "report": {"group_by": ["country", "day"], "from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}, "format": "csv",
}))]
struct ExportInput {
    /// As `POST /reports` takes it; all its rows.
    report: Option<ReportInput>,
    /// As `POST /reports/facts` takes it; all its rows.
    facts: Option<FactsInput>,
    /// What the file is.
    #[schema(default = "csv")]
    format: Option<Format>,
}

/// An export.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Export)]
pub(crate) struct ExportBody {
    /// Ours.
    id: Uuid,
    /// `report` or `facts`.
    #[schema(example = "report")]
    what: String,
    /// What was asked, with times that stay as they are.
    question: Value,
    /// `csv` or `ndjson`.
    #[schema(example = "csv")]
    format: String,
    /// `queued`, `running`, `done` or `failed`.
    #[schema(example = "running")]
    state: String,
    /// How far it is, from 0 to 1; null: it is not known. Of facts it is an estimate.
    #[schema(example = 0.25)]
    progress: Option<f64>,
    /// Rows written so far.
    #[schema(example = 120_000)]
    rows: i64,
    /// Bytes written so far.
    #[schema(example = 14_000_000)]
    bytes: i64,
    /// The machine that makes it, and gives its file.
    #[schema(example = "node-1")]
    node: Option<String>,
    /// Why it failed.
    #[schema(example = "no room on the disk")]
    error: Option<String>,
    /// Where its file is, once it is done.
    #[schema(example = "/api/v1/exports/019aaf3c-5f00-7abc-8def-0123456789ab/file")]
    file: Option<String>,
    /// When it was asked for.
    created_at: DateTime<Utc>,
    /// When it was done, or failed.
    finished_at: Option<DateTime<Utc>>,
    /// When it and its file are deleted.
    expires_at: DateTime<Utc>,
}

impl From<Export> for ExportBody {
    fn from(export: Export) -> Self {
        let is_done = export.state == "done";
        let expected = export.rows_expected.filter(|rows| *rows > 0);
        // an estimate may be too small, and what is not done is not complete
        let part = expected.map(|rows| (export.rows as f64 / rows as f64).min(0.99));
        Self {
            file: is_done.then(|| format!("{ROOT}/exports/{}/file", export.id)),
            progress: if is_done { Some(1.0) } else { part },
            id: export.id,
            what: export.what,
            question: export.question.0,
            format: export.format,
            state: export.state,
            rows: export.rows,
            bytes: export.bytes,
            node: export.node,
            error: export.error,
            created_at: export.created_at,
            finished_at: export.finished_at,
            expires_at: export.expires_at,
        }
    }
}

/// Asks for an export: 202, and where it is.
pub(crate) async fn begin(
    app: &App,
    what: What,
    question: Value,
    format: Format,
) -> Result<Response, Problem> {
    let config = &app.config.reports;
    let what = match what {
        What::Report => "report",
        What::Facts => "facts",
    };
    let asked = (what, question, format.into());
    let export = exports::insert(&app.db, new_uuid(), asked, config.export_keep, config.exports_max).await?;
    let export = export.ok_or_else(|| {
        Problem::too_many(
            60,
            "There are as many exports as reports.exports_max allows; delete some, or wait.",
        )
    })?;
    let location = format!("{ROOT}/exports/{}", export.id);
    let mut response = located(answer(StatusCode::ACCEPTED, &ExportBody::from(export))?, &location)?;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    Ok(response)
}

/// Make an export
///
/// All rows of a report, or all facts behind figures, in a file that is made in the background. The same that is under way already
/// is not made twice.
#[utoipa::path(
    post, path = "/exports", tag = "reports", operation_id = "create_export", security(("token" = ["read"])),
    request_body = ExportInput,
    responses(
        (status = 202, description = "It will be made.", body = ExportBody, headers(
            ("Location" = String, description = "Where it is."),
        )),
        Problems,
    ),
)]
async fn create(_: Read, State(app): State<App>, Json(value): Json) -> Result<Response, Problem> {
    let (what, question, format) = read(&value)?;
    begin(&app, what, question, format).await
}

fn read(value: &Value) -> Result<(What, Value, Format), Vec<FieldError>> {
    let mut f = Fields::new(value, "").map_err(|error| vec![error])?;
    let format = f.choice("format", Format::Csv);
    f.refuse_unknown(&["report", "facts", "format"], &[]);
    let given = |name: &str| value.get(name).filter(|given| !given.is_null());
    let below = |name: &str, errors: Vec<FieldError>| {
        let below = |mut error: FieldError| {
            error.pointer = format!("/{name}{}", error.pointer);
            error
        };
        errors.into_iter().map(below).collect::<Vec<_>>()
    };
    let now = Utc::now();
    let (what, question) = match (given("report"), given("facts")) {
        (Some(report), None) => {
            let asked = input::read(report, now).map_err(|errors| below("report", errors))?;
            (What::Report, input::fixed(report, asked.question.from, asked.question.to))
        }
        (None, Some(facts)) => {
            let asked = input::read_facts(facts, now).map_err(|errors| below("facts", errors))?;
            (What::Facts, input::fixed(facts, asked.question.from, asked.question.to))
        }
        _ => {
            f.refuse("report", "required", "one of report and facts is needed");
            (What::Report, Value::Null)
        }
    };
    f.finish_with(Some((what, question, format)))
}

async fn find(app: &App, id: &str) -> Result<Export, Problem> {
    let missing = || Problem::not_found("export");
    let id = parse_id(id).ok_or_else(missing)?;
    exports::get(&app.db, id).await?.ok_or_else(missing)
}

/// Show an export
///
/// Its state, and how far it is.
#[utoipa::path(
    get, path = "/exports/{id}", tag = "reports", operation_id = "get_export",
    params(("id" = Uuid, Path, description = "Its id.", example = "019aaf3c-5f00-7abc-8def-0123456789ab")),
    responses((status = 200, description = "The export.", body = ExportBody), Problems),
)]
async fn get(_: Read, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    answer(StatusCode::OK, &ExportBody::from(find(&app, &id).await?))
}

/// Delete an export
///
/// And its file; one that is being made ends.
#[utoipa::path(
    delete, path = "/exports/{id}", tag = "reports", operation_id = "delete_export",
    params(("id" = Uuid, Path, description = "Its id.", example = "019aaf3c-5f00-7abc-8def-0123456789ab")),
    responses((status = 204, description = "It is gone."), Problems),
)]
async fn delete(_: Admin, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    let export = find(&app, &id).await?;
    exports::delete(&app.db, export.id).await?;
    worker::remove_file(&app, &export).await;
    Ok(no_content())
}

/// Read the file of an export
///
/// Only the node that made it has it: `node` of the export.
#[utoipa::path(
    get, path = "/exports/{id}/file", tag = "reports", operation_id = "read_export_file",
    params(("id" = Uuid, Path, description = "Its id.", example = "019aaf3c-5f00-7abc-8def-0123456789ab")),
    responses(
        (status = 200, description = "The file.", content((String = "text/csv"), (String = "application/x-ndjson"))),
        (status = 409, description = "It is not done: still under way, or failed."),
        Problems,
    ),
)]
async fn file(_: Read, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    let export = find(&app, &id).await?;
    if export.state != "done" {
        let detail = match &export.error {
            Some(error) => format!("The export failed: {error}"),
            None => format!("The export is {}; its file is there when it is done.", export.state),
        };
        return Err(Problem::conflict(detail));
    }
    let format: Format = export.format.parse().map_err(|error: String| Problem::internal(error))?;
    let path = worker::path(&app, &export);
    let file = match File::open(&path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (asked, here) = (export.node.unwrap_or_default(), worker::node());
            let detail =
                format!("The file of the export is on {asked}, and this is {here}: ask that node for it.");
            return Err(Problem::new(StatusCode::NOT_FOUND, "on_another_node", detail));
        }
        Err(error) => return Err(Problem::internal(error)),
    };
    let mut response = Response::new(Body::from_stream(pieces(file)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let name = format!("attachment; filename=\"octo-{}-{}.{}\"", export.what, export.id, format.extension());
    let name = HeaderValue::try_from(name).map_err(Problem::internal)?;
    headers.insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}

fn pieces(file: File) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    stream::try_unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE_BYTES];
        let length = file.read(&mut piece).await?;
        piece.truncate(length);
        Ok((length > 0).then(|| (piece.into(), file)))
    })
}
