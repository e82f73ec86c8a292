//! What octo holds in memory while it gives away all facts of the clicks: as streams, and as the file of an export.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use chrono::{DateTime, NaiveTime, SecondsFormat, TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    CLICKS,
    it::harness::{
        Octo, PrivatePostgres, migrate,
        traffic::{DAYS, GENERATE},
    },
    number, support,
};

const SAMPLES_EVERY: Duration = Duration::from_millis(250);

/// Longer than any of it takes.
const TIMEOUT: Duration = Duration::from_hours(1);

/// Parts of the rows whose memory is told apart.
const PARTS: u64 = 10;

struct Exports {
    postgres: PrivatePostgres,
    octo: Octo,
    token: String,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

/// Memory of octo in MB when so many rows were there.
type Samples = Vec<(u64, f64)>;

pub(crate) async fn measure() -> anyhow::Result<()> {
    let clicks = number("OCTO_BENCH_CLICKS", CLICKS)?;
    let postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let to = Utc::now().date_naive().and_time(NaiveTime::MIN).and_utc();
    let start = Instant::now();
    let mut admin = postgres.admin().await;
    sqlx::raw_sql(GENERATE).execute(&mut admin).await?;
    for back in 1..=DAYS {
        let day = (to - TimeDelta::days(back.into())).date_naive();
        let make = sqlx::query("SELECT bench.make_day($1, $2)").bind(day).bind(clicks / DAYS);
        make.execute(&mut admin).await?;
    }
    sqlx::raw_sql("VACUUM ANALYZE").execute(&mut admin).await?;
    println!("{clicks} clicks were made in {:.0} s", start.elapsed().as_secs_f64());
    let octo = Octo::builder()
        .database_url(postgres.url())
        .env("OCTO_REPORTS__RAW_ROWS_MAX", i32::MAX.to_string())
        .env("OCTO_REPORTS__STREAM_TIMEOUT_MS", TIMEOUT.as_millis().to_string());
    let octo = octo.start().await;
    let token = octo.admin_token().await;
    let exports = Exports { postgres, octo, token, from: to - TimeDelta::days(DAYS.into()), to };
    println!(
        "{:<14} {:>10} {:>6} {:>7} {:>11} {:>14} {:>8}  MB by tenths of the rows, the most",
        "", "rows", "MB", "s", "CPU s, octo", "CPU s, Postgres", "MB before"
    );
    exports.print("NDJSON stream", exports.stream("application/x-ndjson")).await?;
    exports.print("CSV stream", exports.stream("text/csv")).await?;
    exports.print("NDJSON file", exports.file("ndjson")).await?;
    exports.print("CSV file", exports.file("csv")).await
}

impl Exports {
    async fn print(
        &self,
        name: &str,
        exporting: impl Future<Output = anyhow::Result<(Samples, u64)>>,
    ) -> anyhow::Result<()> {
        let cpu = || (support::cpu_of(self.octo.pid()), support::cpu_of_tree(self.postgres.pid()));
        let ((octo, postgres), start, before) =
            (cpu(), Instant::now(), support::resident_mb(self.octo.pid()));
        support::forget_peak(self.octo.pid());
        let (samples, bytes) = exporting.await?;
        let (took, most, (octo_after, postgres_after)) =
            (start.elapsed(), support::peak_mb(self.octo.pid()), cpu());
        let rows = samples.last().map_or(0, |(rows, _)| *rows);
        let tenth = |part: u64| {
            let in_part =
                samples.iter().filter(|(so_far, _)| (so_far * PARTS).div_ceil(rows.max(1)).max(1) == part);
            in_part.map(|(_, mb)| *mb).fold(0.0, f64::max)
        };
        let tenths: Vec<String> = (1..=PARTS).map(|part| format!("{:.0}", tenth(part))).collect();
        println!(
            "{name:<14} {rows:>10} {:>6} {:>7.1} {:>11.1} {:>14.1} {before:>8.1}  {}, {most:.1}",
            bytes / 1_000_000,
            took.as_secs_f64(),
            (octo_after.saturating_sub(octo)).as_secs_f64(),
            (postgres_after.saturating_sub(postgres)).as_secs_f64(),
            tenths.join(" ")
        );
        Ok(())
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.octo.api(&self.token).request(method, path).timeout(TIMEOUT)
    }

    /// A line is a row; in CSV the first has names.
    async fn stream(&self, accept: &str) -> anyhow::Result<(Samples, u64)> {
        let (rows, bytes, samples) = (Cell::new(0), Cell::new(0), RefCell::new(Samples::new()));
        let heads = u64::from(accept == "text/csv");
        let [from, to] = [self.from, self.to].map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
        let path = format!("/reports/facts?kind=clicks&from={from}&to={to}");
        let request = self.request(Method::GET, &path).header("accept", accept);
        let reading = async {
            let mut answer = request.send().await?;
            anyhow::ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
            while let Some(piece) = answer.chunk().await? {
                rows.set(rows.get() + (piece.split(|byte| *byte == b'\n').count() - 1) as u64);
                bytes.set(bytes.get() + piece.len() as u64);
            }
            Ok(())
        };
        tokio::select! {
            read = reading => read?,
            () = self.sample(&rows, &samples) => {}
        }
        let mut samples = samples.into_inner();
        samples.push((rows.get() - heads, support::resident_mb(self.octo.pid())));
        Ok((samples, bytes.get()))
    }

    async fn sample(&self, rows: &Cell<u64>, samples: &RefCell<Samples>) {
        loop {
            samples.borrow_mut().push((rows.get(), support::resident_mb(self.octo.pid())));
            sleep(SAMPLES_EVERY).await;
        }
    }

    async fn file(&self, format: &str) -> anyhow::Result<(Samples, u64)> {
        let facts = json!({ "kind": "clicks", "from": self.from, "to": self.to });
        let body = json!({ "facts": facts, "format": format });
        let answer = self.request(Method::POST, "/exports").json(&body).send().await?;
        anyhow::ensure!(answer.status() == StatusCode::ACCEPTED, "{}", answer.status());
        let export: serde_json::Value = answer.json().await?;
        let path = format!("/exports/{}", export["id"].as_str().unwrap_or_default());
        let mut samples = Samples::new();
        loop {
            let export: serde_json::Value = self.request(Method::GET, &path).send().await?.json().await?;
            let number = |name: &str| export[name].as_u64().unwrap_or_default();
            samples.push((number("rows"), support::resident_mb(self.octo.pid())));
            match export["state"].as_str() {
                Some("done") => {
                    self.request(Method::DELETE, &path).send().await?.error_for_status()?;
                    return Ok((samples, number("bytes")));
                }
                Some("queued" | "running") => sleep(SAMPLES_EVERY).await,
                _ => anyhow::bail!("{export}"),
            }
        }
    }
}
