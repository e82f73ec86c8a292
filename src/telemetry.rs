//! Logs and metrics of the process: the tracing subscriber and the Prometheus recorder, installed once.

use std::{
    collections::HashSet,
    io::IsTerminal,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    config::{Log, LogFormat},
    metrics::{self, Family},
};

/// For a histogram of times that names none: without buckets it would be a summary, which cannot be added up.
const SECONDS: [f64; 8] = [0.000_5, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0, 30.0];

const UPKEEP_INTERVAL: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5000 });

/// Sends log lines to stderr; stdout is for data.
pub fn init_logs(log: &Log) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => filter,
        _ => log.level.clone(),
    };
    let filter =
        EnvFilter::try_new(&filter).with_context(|| format!("log.level `{filter}` is not a filter"))?;
    let registry = tracing_subscriber::registry().with(filter);
    // what cannot be written, as to a terminal that is gone, would otherwise be said there too, and end the process
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    match log.format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Text => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry.with(layer.with_ansi(colour).with_target(false)).try_init()
        }
    }
    .context("the log was set up twice")
}

/// The metrics of the process.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

impl Metrics {
    /// Installs the recorder.
    pub fn install() -> anyhow::Result<Self> {
        let mut builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?;
        for Family { name, buckets, .. } in metrics::families().filter(|family| !family.buckets.is_empty()) {
            builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets)?;
        }
        let handle = builder.install_recorder().context("the metrics were set up twice")?;
        let process = metrics_process::Collector::default();
        process.describe();
        metrics::describe();
        Ok(Self { handle, process })
    }

    /// Moves recorded values into the histograms, without which they grow while nobody scrapes, and looks at the
    /// disk of the journal; until the stop signal.
    pub async fn keep(self, journal_dir: PathBuf, stop: CancellationToken) -> anyhow::Result<()> {
        let mut looking = None;
        while !stop.is_cancelled() {
            self.handle.run_upkeep();
            // a disk that hangs holds up one thread, and nobody here
            if looking.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
                let dir = journal_dir.clone();
                looking = Some(tokio::task::spawn_blocking(move || look_at_disk(&dir)));
            } else {
                metrics::disk(f64::NAN, f64::NAN);
            }
            stop.run_until_cancelled(sleep(UPKEEP_INTERVAL)).await;
        }
        Ok(())
    }

    /// The text of `/metrics`. A metric without series is there by its name and help, so that whoever writes a
    /// rule finds it.
    pub fn render(&self) -> String {
        self.process.collect();
        look_at_runtime();
        let mut text = self.handle.render();
        let typed = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let present: HashSet<&str> = typed.collect();
        let absent = metrics::families().filter(|family| !present.contains(family.name));
        let lines: Vec<String> = absent
            .map(|Family { name, kind, help, .. }| format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"))
            .collect();
        text.extend(lines);
        text
    }
}

/// Sets the gauges of the disk; NaN if it cannot be asked.
fn look_at_disk(dir: &Path) {
    match rustix::fs::statvfs(dir) {
        Ok(disk) => {
            let bytes = |blocks: u64| blocks as f64 * disk.f_frsize as f64;
            metrics::disk(bytes(disk.f_bavail), bytes(disk.f_blocks));
        }
        Err(_) => metrics::disk(f64::NAN, f64::NAN),
    }
}

fn look_at_runtime() {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let runtime = runtime.metrics();
    let workers = 0..runtime.num_workers();
    let busy = workers.clone().map(|worker| runtime.worker_total_busy_duration(worker)).sum();
    let parks = workers.map(|worker| runtime.worker_park_count(worker)).sum();
    metrics::runtime(
        runtime.num_workers(),
        runtime.num_alive_tasks(),
        runtime.global_queue_depth(),
        busy,
        parks,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_bytes() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// 4 million values are 32 MB where nobody takes them out of the queue.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn histograms_that_nobody_scrapes_do_not_pile_up() {
        let installed = Metrics::install().unwrap();
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "a test's own task")]
        let keep = tokio::spawn(installed.clone().keep(std::env::temp_dir(), stop.clone()));
        let mut after_first = 0;
        for round in 0..16 {
            for _ in 0..250_000 {
                metrics::journal_fsync(Duration::from_micros(300));
            }
            sleep(4 * UPKEEP_INTERVAL).await;
            if round == 1 {
                after_first = resident_bytes();
            }
        }
        let grown = resident_bytes().saturating_sub(after_first);
        assert!(grown < 10 << 20, "{grown} bytes more");
        let text = installed.render();
        let count =
            text.lines().find_map(|line| line.strip_prefix("octo_journal_fsync_duration_seconds_count "));
        let count: u32 = count.unwrap().parse().unwrap();
        // Not 4 million: metrics-util 0.20 publishes a new block of values before it links the full ones to it, and a
        // drain in between loses those. So alerts are made of counters and gauges, which are exact.
        assert!((3_000_000..=4_000_000).contains(&count), "{count}");
        stop.cancel();
        keep.await.unwrap().unwrap();
        each_metric_is_there_in_the_kind_it_was_described_with(&installed);
    }

    /// Part of the test above, because a process has one recorder.
    fn each_metric_is_there_in_the_kind_it_was_described_with(installed: &Metrics) {
        metrics::redis_command("ok", Duration::ZERO);
        metrics::query("click.get", Duration::ZERO, true);
        metrics::pool_state("primary", 1, 1, 2, 0);
        let text = installed.render();
        for Family { name, kind, .. } in metrics::families() {
            let line = format!("# TYPE {name} {kind}\n");
            assert_eq!(text.matches(&line).count(), 1, "{line} in\n{text}");
            assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{name} has two kinds");
        }
    }
}
