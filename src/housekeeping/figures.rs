//! The sums of reports: what was stored is added to them, days from before there were sums are counted, and day by day they are
//! compared with the facts.

use std::time::{Duration, Instant};

use chrono::{DateTime, Days, NaiveDate, Utc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{app::App, db::store::figures, metrics, model::hour::hour_of};

/// Days back from today that are compared in turn.
const COMPARED_DAYS: u64 = 31;

/// How often it is looked for days to be counted.
const RECOUNT_LOOK: Duration = Duration::from_secs(10);

/// How often it is looked for days whose values are to be counted, and for days that are over.
const VALUES_LOOK: Duration = Duration::from_secs(5);
const DAYS_LOOK: Duration = Duration::from_mins(1);

/// Rows of a comparison that are logged.
const DIFFERENCES_MAX: i64 = 1000;

/// Adds what was stored to the sums, as soon as it is worth it or its hour is over, until the stop signal.
pub(crate) async fn run(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    let config = &app.config.reports;
    let mut recounts = Recounts::default();
    let mut settled = None;
    while !stop.is_cancelled() {
        let pending = figures::count_pending(&app.db).await.ok();
        if let Some(pending) = pending {
            metrics::pending_deltas(pending);
        }
        let is_worth_it = |rows: i64| usize::try_from(rows).is_ok_and(|rows| rows >= config.fold_rows_min);
        let is_full = pending.is_some_and(is_worth_it)
            && fold(&app).await.is_some_and(|rows| rows >= config.fold_rows_max as u64);
        settle(&app, &mut settled, &stop).await;
        recounts.look(&app, &stop).await;
        // a full transaction: there is more
        if !is_full {
            stop.run_until_cancelled(sleep(config.fold_interval)).await;
        }
    }
    Ok(())
}

/// Adds deltas to the sums, and says how many that were. `None`: another node is about it, or the database is away.
async fn fold(app: &App) -> Option<u64> {
    let config = &app.config.reports;
    let rows_max = i32::try_from(config.fold_rows_max).unwrap_or(i32::MAX);
    match figures::fold(&app.db, rows_max, config.fold_timeout).await {
        Ok(folded) => {
            metrics::folded_deltas(folded.unwrap_or_default());
            folded
        }
        // a Postgres that is away has its own lines in the log
        Err(error) => {
            tracing::debug!(?error, "deltas were not added to the sums of reports");
            None
        }
    }
}

/// Adds what is left of hours that are over, once an hour, and closes days that are over; `settled` is up to when that was done.
async fn settle(app: &App, settled: &mut Option<DateTime<Utc>>, stop: &CancellationToken) {
    let config = &app.config.reports;
    let over = Utc::now() - config.settle_after;
    let before = hour_of(over);
    if settled.is_some_and(|settled| settled >= before) {
        return;
    }
    while !stop.is_cancelled() {
        match fold(app).await {
            Some(rows) if rows < config.fold_rows_max as u64 => break,
            Some(_) => {}
            None => return, // later
        }
    }
    while !stop.is_cancelled() {
        match figures::close_day(&app.db, over.date_naive(), config.recount_timeout).await {
            Ok(Some(0)) => {
                *settled = Some(before);
                break;
            }
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                return tracing::warn!(error, "cannot close a day of the sums of reports; trying again soon");
            }
        }
    }
}

/// Days that are to be counted from their facts.
#[derive(Default)]
struct Recounts {
    looked: Option<Instant>,
    /// How many there were when the count began.
    begun: usize,
}

impl Recounts {
    /// Counts one day, if one waits. A day at a time: what is stored meanwhile is added to the sums in between, and whoever stops
    /// octo stops it there.
    async fn look(&mut self, app: &App, stop: &CancellationToken) {
        if self.begun == 0 && self.looked.is_some_and(|looked| looked.elapsed() < RECOUNT_LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        let Ok(days) = figures::list_recounts(&app.db).await else { return };
        metrics::recount_days(days.len());
        let Some(day) = days.first() else {
            if self.begun > 0 {
                tracing::info!(days = self.begun, "counted the figures of all days from their facts");
                self.begun = 0;
            }
            return;
        };
        if self.begun == 0 {
            tracing::info!(days = days.len(), "counting the figures of days from their facts");
        }
        self.begun = self.begun.max(days.len());
        let counting = figures::recount(&app.db, *day, app.config.reports.recount_timeout);
        match stop.run_until_cancelled(counting).await {
            Some(Ok(Some(facts))) => {
                let left = days.len() - 1;
                tracing::info!(%day, facts, left, "counted the figures of a day from its facts");
            }
            Some(Ok(None)) | None => {} // another node is about it, or octo stops
            Some(Err(error)) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(%day, error, "cannot count the figures of a day; trying again later");
                self.begun = 0;
            }
        }
    }
}

/// Counts the values that were clicked most on days that are over, until the stop signal. One day at a time, and beside the sums: what
/// is stored meanwhile makes the day's values out of date, and does not wait.
pub(crate) async fn count_values(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    let config = &app.config.reports;
    let values_max = i32::try_from(config.values_per_day_max).unwrap_or(i32::MAX);
    let mut noted: Option<Instant> = None;
    while !stop.is_cancelled() {
        if noted.is_none_or(|noted| noted.elapsed() > DAYS_LOOK)
            && figures::note_value_days(&app.db, config.values_interval).await.is_ok()
        {
            noted = Some(Instant::now());
        }
        let mut is_done = true;
        if let Ok(Some(day)) = figures::next_value_day(&app.db, config.values_interval).await {
            let counting = figures::count_values(&app.db, day, values_max, config.recount_timeout);
            match stop.run_until_cancelled(counting).await {
                Some(Ok(Some(rows))) => {
                    is_done = false;
                    tracing::debug!(%day, rows, "counted the values of a day that were clicked most");
                }
                Some(Ok(None)) | None => {} // another node is about it, or octo stops
                Some(Err(error)) => {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(%day, error, "cannot count the values of a day; trying again later");
                }
            }
        }
        if is_done {
            stop.run_until_cancelled(sleep(VALUES_LOOK)).await;
        }
    }
    Ok(())
}

/// Compares the sums of a day with its facts every `reports.compare_interval_s`, until the stop signal: the days of the last month
/// in turn, the newest first.
pub(crate) async fn compare(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    let config = &app.config.reports;
    let mut back = 0;
    while stop.run_until_cancelled(sleep(config.compare_interval)).await.is_some() {
        let Some(day) = Utc::now().date_naive().checked_sub_days(Days::new(back)) else { continue };
        back = (back + 1) % COMPARED_DAYS;
        // what they say is not complete yet
        if figures::list_recounts(&app.db).await.is_ok_and(|days| !days.contains(&day))
            && has_facts(&app, day).await
        {
            compare_day(&app, day).await;
        }
    }
    Ok(())
}

/// Whether retention has left the facts of a day alone.
async fn has_facts(app: &App, day: NaiveDate) -> bool {
    let Some(next) = day.succ_opt() else { return false };
    figures::lost_days(&app.db, day, next).await.is_ok_and(|lost| lost.is_empty())
}

async fn compare_day(app: &App, day: NaiveDate) {
    let Some(next) = day.succ_opt() else { return };
    let compared = figures::compare(&app.db, day, next, DIFFERENCES_MAX, app.config.reports.compare_timeout);
    match compared.await {
        Ok(differences) => {
            let rows: i64 = differences.iter().map(|difference| difference.differing).sum();
            metrics::differing_sums(rows);
            metrics::compared_sums(Utc::now().timestamp_millis() as f64 / 1000.0);
            if let Some(first) = differences.first() {
                tracing::error!(
                    %day, rows, ?first,
                    "sums of reports are not what their facts are; `octo reports recount` counts the day anew"
                );
            }
        }
        Err(error) => tracing::debug!(?error, %day, "the sums of a day were not compared with its facts"),
    }
}
