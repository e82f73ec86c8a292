//! All rows of a question, as CSV or NDJSON, some at a time: for an answer that is streamed, and for the file of an export. The
//! rows of a report are in memory before, because they are sorted; facts never are.

use std::{io, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::{future::join, stream};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::{
    Found, facts,
    names::{has_names, ids_of},
    rows::{Format, Rows},
};
use crate::{
    app::App,
    db::{
        position,
        store::reports::{
            facts::{self as stored, Fact},
            names::{self, Names},
        },
    },
    http::{api::manners::idempotency::NotKept, error::Problem, request_id},
    reports::{facts::FactsQuestion, figures::Row},
};

/// Rows of a report that are written at once.
const CHUNK_ROWS: usize = 500;

/// Chunks that wait to be taken.
const WAITING_MAX: usize = 2;

/// What a question may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Rows of a report.
    pub(crate) rows_max: usize,
    /// Clicks that are read one by one.
    pub(crate) raw_rows_max: usize,
    /// Longest of the queries of a report.
    pub(crate) query_timeout: Duration,
    /// Longest time in which rows are read one by one.
    pub(crate) timeout: Duration,
}

impl Bounds {
    /// Of what somebody waits for.
    pub(crate) fn of_answers(app: &App) -> Self {
        let config = &app.config.reports;
        Self {
            rows_max: config.rows_max,
            raw_rows_max: config.raw_rows_max,
            query_timeout: config.timeout,
            timeout: config.stream_timeout,
        }
    }

    /// Of an export: as many facts as can be read in its time.
    pub(crate) fn of_exports(app: &App) -> Self {
        let config = &app.config.reports;
        Self {
            rows_max: config.export_rows_max,
            raw_rows_max: usize::MAX,
            query_timeout: config.export_timeout,
            timeout: config.export_timeout,
        }
    }
}

/// What is to be written.
pub(crate) enum Job {
    /// The rows of a report that was read.
    Report(Box<Found>),
    /// Facts that are still to be read.
    Facts {
        /// Which.
        question: FactsQuestion,
        /// About how many they are, where that is known.
        expected: Option<i64>,
    },
}

/// Some rows.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// As they are written.
    pub(crate) bytes: Bytes,
    /// How many.
    pub(crate) rows: i64,
    /// About how many there will be in all, where it is known.
    pub(crate) expected: Option<i64>,
}

/// Writes all rows of a job, as fast as they are taken; until nobody takes them.
pub(crate) async fn produce(
    app: &App,
    job: Job,
    format: Format,
    timeout: Duration,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<(), Problem> {
    match job {
        Job::Report(found) => produce_report(app, &found, format, chunks).await,
        Job::Facts { question, expected } => {
            let (sender, receiver) = mpsc::channel(WAITING_MAX);
            let reading = async move { stored::stream(&app.db, question, &sender, timeout).await };
            let writing = produce_facts(app, receiver, expected, format, chunks);
            let (read, written) = join(reading, writing).await;
            written?;
            Ok(read?)
        }
    }
}

async fn produce_report(
    app: &App,
    found: &Found,
    format: Format,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<(), Problem> {
    let sorted = found.sorted();
    let expected = i64::try_from(sorted.len()).ok();
    let mut rows = Rows::new(format, found.columns())?;
    let mut written = sorted.chunks(CHUNK_ROWS).peekable();
    loop {
        let part = written.next().unwrap_or_default();
        let names = names::of_ids(&app.db, ids_of(found.question(), part)).await?;
        for row in part {
            let shown = match format {
                Format::Ndjson => {
                    serde_json::to_value(found.row(row, &names, false)).map_err(Problem::internal)?
                }
                Format::Csv => flat(found, row, &names)?,
            };
            rows.push(&shown)?;
        }
        let (bytes, count) = rows.take()?;
        let is_taken = chunks.send(Chunk { bytes, rows: count, expected }).await.is_ok();
        if !is_taken || written.peek().is_none() {
            return Ok(());
        }
    }
}

async fn produce_facts(
    app: &App,
    mut pages: mpsc::Receiver<Vec<Fact>>,
    expected: Option<i64>,
    format: Format,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<(), Problem> {
    let mut rows = Rows::new(format, facts::columns())?;
    let mut names = Names::new();
    let mut is_begun = false;
    loop {
        let page = pages.recv().await;
        let is_end = page.is_none();
        for fact in facts::shown(app, page.unwrap_or_default(), &mut names).await? {
            let mut shown = serde_json::to_value(fact).map_err(Problem::internal)?;
            if format == Format::Csv {
                flatten_names(&mut shown);
            }
            rows.push(&shown)?;
        }
        // the header alone, where there is no row
        if !is_end || !is_begun {
            let (bytes, count) = rows.take()?;
            if chunks.send(Chunk { bytes, rows: count, expected }).await.is_err() {
                return Ok(());
            }
        }
        is_begun = true;
        if is_end {
            return Ok(());
        }
    }
}

/// A row of a report with every value at the top.
fn flat(found: &Found, row: &Row, names: &Names) -> Result<Value, Problem> {
    let shown = serde_json::to_value(found.row(row, names, false)).map_err(Problem::internal)?;
    let mut flat = Map::new();
    for (part, suffix) in [("keys", ""), ("names", "_name"), ("figures", ""), ("before", "_before")] {
        for (name, value) in shown[part].as_object().into_iter().flatten() {
            flat.insert(format!("{name}{suffix}"), value.clone());
        }
    }
    Ok(flat.into())
}

fn flatten_names(shown: &mut Value) {
    let names = shown["names"].take();
    for (name, value) in names.as_object().into_iter().flatten() {
        shown[format!("{name}_name")] = value.clone();
    }
}

impl Found {
    /// The columns of its rows in CSV.
    fn columns(&self) -> Vec<String> {
        let question = self.question();
        let mut columns = Vec::new();
        for dimension in &question.group_by {
            columns.push(dimension.to_string());
            if has_names(*dimension) {
                columns.push(format!("{dimension}_name"));
            }
        }
        columns.extend(question.measures.iter().map(ToString::to_string));
        if self.is_compared() {
            columns.extend(question.measures.iter().map(|measure| format!("{measure}_before")));
        }
        columns
    }
}

/// What an answer gets.
enum Piece {
    Rows(Chunk),
    /// There are no more: without it the answer broke off.
    End,
}

/// An answer whose rows are written while it is sent. A client that hangs up ends the query.
pub(crate) fn streamed(app: &App, job: Job, format: Format, timeout: Duration) -> Response {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let app = app.clone();
    let work = async move {
        let (chunks, mut written) = mpsc::channel(1);
        let passing = async {
            while let Some(chunk) = written.recv().await {
                if sender.send(Piece::Rows(chunk)).await.is_err() {
                    return;
                }
            }
        };
        let producing = async move { produce(&app, job, format, timeout, &chunks).await };
        let produced = tokio::select! {
            (produced, ()) = join(producing, passing) => produced,
            () = sender.closed() => return,
        };
        match produced {
            Ok(()) => drop(sender.send(Piece::End).await), // nobody may be there to hear it
            Err(problem) => tracing::warn!(?problem, "rows that were being sent broke off"),
        }
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends with its rows, with the client, or with reports.stream_timeout_ms"
    )]
    tokio::spawn(position::carried(request_id::inherited(work)));
    let pieces = stream::unfold(Some(receiver), |receiver: Option<mpsc::Receiver<Piece>>| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Piece::Rows(chunk)) => Some((Ok(chunk.bytes), Some(receiver))),
            Some(Piece::End) => None,
            None => Some((Err(io::Error::other("the rows broke off")), None)),
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    response.extensions_mut().insert(NotKept);
    response
}
