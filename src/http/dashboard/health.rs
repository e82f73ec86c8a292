//! How octo and its parts are, and what to send to somebody who is to help.

use std::fmt::Write as _;

use askama::Template;
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Redirect, Response},
};
use chrono::Utc;

use super::{
    failure::Failure,
    figures::grouped,
    form::Fields,
    frame::{Frame, Section},
    html,
    session::{Opened, Posted},
};
use crate::{
    app::App,
    campaigns,
    db::{
        monitor, pool, replicas, server_status,
        store::dead_letters::{self, DeadLetter},
    },
    http::{
        api::dead_letters::{Choice, tried_again},
        error::Problem,
        ops::health::{self, Component},
    },
};

const PATH: &str = "/ui/health";

/// Queries that are shown, the slowest.
const QUERIES: usize = 15;

/// Tables that are shown, the largest.
const TABLES: usize = 12;

/// Dead letters that are shown, the newest, and that are tried again at once.
const LETTERS: u8 = 50;

/// Everything that the page shows.
struct Seen {
    components: Vec<Component>,
    pools: Vec<pool::State>,
    replicas: Vec<replicas::Report>,
    cache: campaigns::Report,
    database: Option<server_status::Snapshot>,
    queries: Vec<monitor::Query>,
}

impl Seen {
    async fn of(app: &App) -> Self {
        let mut queries = app.db.queries();
        queries.retain(|query| query.times.count > 0);
        queries.sort_by(|a, b| b.times.p95_ms.total_cmp(&a.times.p95_ms));
        queries.truncate(QUERIES);
        Self {
            components: health::components(app).await,
            pools: app.db.pools().map(pool::Pool::state).collect(),
            replicas: app.db.replicas().reports(),
            cache: app.campaigns.report().await,
            database: app.server_status.latest().as_deref().cloned(),
            queries,
        }
    }

    fn wrong(&self) -> impl Iterator<Item = &Component> {
        self.components.iter().filter(|component| component.status != "ok")
    }

    /// For whoever is to help: no addresses, no names of hosts, nothing of a click or a campaign.
    fn diagnostics(&self) -> String {
        let mut text = format!("octo {}, {}\n", env!("CARGO_PKG_VERSION"), Utc::now().to_rfc3339());
        let _ = writeln!(text, "{} {}\n", std::env::consts::OS, std::env::consts::ARCH);
        for Component { name, status, detail } in &self.components {
            let _ = writeln!(text, "{name}: {status}: {detail}");
        }
        for pool in &self.pools {
            let _ = writeln!(
                text,
                "pool {}: {} of {} used, {} idle, {} waiting, {} timeouts, {} failed, wait p95 {} ms",
                pool.pool,
                pool.used,
                pool.max,
                pool.idle,
                pool.waiting,
                pool.timeouts,
                pool.failed,
                pool.acquire.p95_ms
            );
        }
        for report in &self.replicas {
            let _ = writeln!(
                text,
                "replica {}: {}, {:.1} s and {} bytes behind, {} reads",
                report.replica,
                report.state.as_str(),
                report.lag_s,
                report.lag_bytes,
                report.reads
            );
        }
        for layer in &self.cache.layers {
            let _ = writeln!(
                text,
                "cache {}: {} hits, {} misses, {} errors",
                layer.layer, layer.hits, layer.misses, layer.errors
            );
        }
        if let Some(database) = &self.database {
            let _ = writeln!(
                text,
                "database: {} of {} connections, longest transaction {:.1} s, {} standbys, read {}",
                database.connections.of_server,
                database.connections.server_max,
                database.longest_transaction_s,
                database.standbys.len(),
                database.read_at.to_rfc3339()
            );
            for table in database.tables.iter().take(TABLES) {
                let _ = writeln!(
                    text,
                    "table {}: {} partitions, {} bytes, {} rows, {} dead",
                    table.name, table.partitions, table.bytes, table.live_rows, table.dead_rows
                );
            }
        }
        for query in &self.queries {
            let _ = writeln!(
                text,
                "query {}: {} times, p50 {} ms, p95 {} ms, p99 {} ms, {} errors, {} slow",
                query.query,
                query.times.count,
                query.times.p50_ms,
                query.times.p95_ms,
                query.times.p99_ms,
                query.errors,
                query.slow
            );
        }
        text
    }
}

/// A row of a small table.
type Cells = Vec<String>;

#[derive(Template)]
#[template(path = "health.html")]
struct HealthPage {
    frame: Frame,
    version: &'static str,
    wrong: Vec<(String, String)>,
    components: Vec<Component>,
    pools: Vec<Cells>,
    replicas: Vec<Cells>,
    tables: Vec<Cells>,
    database: Vec<(&'static str, String)>,
    queries: Vec<Cells>,
    letters: Vec<Cells>,
    diagnostics: String,
}

/// `GET /ui/health`
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let mut frame = Frame::of(&app, &opened, Section::Health, PATH, &[]).titled("Health");
    frame.notice = notice(&opened.fields);
    let seen = Seen::of(&app).await;
    // they are in the database: where that is away, the page says so and shows the rest
    let letters = dead_letters::list(&app.db, None, None, LETTERS.into()).await.unwrap_or_default();
    html(&HealthPage {
        version: env!("CARGO_PKG_VERSION"),
        wrong: seen.wrong().map(|part| (part.name.clone(), part.detail.clone())).collect(),
        pools: seen.pools.iter().map(pool_cells).collect(),
        replicas: seen.replicas.iter().map(replica_cells).collect(),
        tables: seen.database.iter().flat_map(|it| it.tables.iter().take(TABLES).map(table_cells)).collect(),
        database: seen.database.as_ref().map(of_database).unwrap_or_default(),
        queries: seen.queries.iter().map(query_cells).collect(),
        letters: letters.iter().map(|letter| letter_cells(letter, &frame)).collect(),
        diagnostics: seen.diagnostics(),
        components: seen.components,
        frame,
    })
}

/// `GET /ui/health/diagnostics.txt`
pub(super) async fn diagnostics(_: Opened, State(app): State<App>) -> Response {
    let text = Seen::of(&app).await.diagnostics();
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// `POST /ui/health`: tries dead letters again, the oldest first.
pub(super) async fn retry(State(app): State<App>, posted: Posted) -> Result<Response, Failure> {
    if posted.opened.fields.text("action") != "retry" {
        return Err(Problem::bad_request("action", "Choose what is to be done: retry.").into());
    }
    let outcomes = tried_again(&app, Choice::of_all(LETTERS.into())).await?;
    let stored = outcomes.stored + outcomes.already_stored;
    Ok(Redirect::to(&format!("{PATH}?done={stored}.{}", outcomes.refused.len())).into_response())
}

fn notice(fields: &Fields) -> Option<String> {
    let (stored, refused) = fields.text("done").split_once('.')?;
    let (stored, refused): (u64, u64) = (stored.parse().ok()?, refused.parse().ok()?);
    Some(format!("Tried again: {stored} stored, {refused} refused once more."))
}

fn count(number: impl Into<rust_decimal::Decimal>) -> String {
    grouped(number.into(), 0)
}

fn ms(value: f64) -> String {
    format!("{value:.1}")
}

/// A size in the unit that suits it.
fn size(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

fn pool_cells(pool: &pool::State) -> Cells {
    vec![
        pool.pool.clone(),
        format!("{} of {}", pool.used, pool.max),
        pool.idle.to_string(),
        pool.waiting.to_string(),
        ms(pool.acquire.p95_ms),
        count(pool.timeouts),
        count(pool.failed),
    ]
}

fn replica_cells(report: &replicas::Report) -> Cells {
    vec![
        report.replica.to_string(),
        report.state.as_str().to_owned(),
        format!("{:.1}", report.lag_s),
        size(i64::try_from(report.lag_bytes).unwrap_or(i64::MAX)),
        count(report.reads),
    ]
}

fn table_cells(table: &server_status::Table) -> Cells {
    vec![
        table.name.clone(),
        table.partitions.to_string(),
        size(table.bytes),
        count(table.live_rows),
        count(table.dead_rows),
    ]
}

fn query_cells(query: &monitor::Query) -> Cells {
    vec![
        query.query.to_owned(),
        count(query.times.count),
        ms(query.times.p50_ms),
        ms(query.times.p95_ms),
        ms(query.times.p99_ms),
        count(query.slow),
        count(query.errors),
    ]
}

fn of_database(it: &server_status::Snapshot) -> Vec<(&'static str, String)> {
    let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "–".to_owned(), |r| format!("{:.1} %", r * 100.0));
    vec![
        ("Connections", format!("{} of {}", it.connections.of_server, it.connections.server_max)),
        ("Statements that run", it.connections.active.to_string()),
        ("Longest transaction", format!("{:.1} s", it.longest_transaction_s)),
        ("Blocks of tables from memory", ratio(it.heap_hit_ratio)),
        ("Blocks of indexes from memory", ratio(it.index_hit_ratio)),
        ("Standbys", it.standbys.len().to_string()),
    ]
}

fn letter_cells(letter: &DeadLetter, frame: &Frame) -> Cells {
    vec![
        frame.view.moment(letter.created_at),
        letter.sqlstate.clone(),
        letter.message.clone(),
        size(letter.bytes.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_at_a_glance() {
        assert_eq!(
            (size(999), size(1500), size(2_340_000_000)),
            ("999 B".into(), "1.5 kB".into(), "2.3 GB".into())
        );
    }

    #[test]
    fn what_was_done_is_said_in_our_words_only() {
        let notice = |text: &str| notice(&Fields::parse(&format!("done={text}")));
        assert_eq!(notice("2.1").as_deref(), Some("Tried again: 2 stored, 1 refused once more."));
        assert_eq!((notice(""), notice("evil.1")), (None, None));
    }
}
