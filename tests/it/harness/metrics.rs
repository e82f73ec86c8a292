//! `/metrics`, as tests ask it.

use super::{Octo, eventually};
use std::time::Duration;

impl Octo {
    /// All that `/metrics` says.
    pub(crate) async fn metrics(&self) -> String {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.status(), 200, "/metrics");
        answer.text().await.expect("a body")
    }

    /// What a series counts, or 0 where it has not begun. Its name and labels as they are written: `octo_x_total{a="b"}`.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let metrics = self.metrics().await;
        let count = value_of(&metrics, series).unwrap_or("0");
        count.parse().unwrap_or_else(|_| panic!("{series} is no whole number: {count}"))
    }

    /// What a series measures, or NaN where it has not begun.
    pub(crate) async fn gauge(&self, series: &str) -> f64 {
        let metrics = self.metrics().await;
        value_of(&metrics, series).map_or(f64::NAN, |value| value.parse().expect("a number"))
    }

    /// Waits until nothing of the journal is on its way to Postgres.
    pub(crate) async fn wait_drained(&self, timeout: Duration) {
        eventually(timeout, async || {
            let pending = self.gauge("octo_journal_pending_records").await;
            anyhow::ensure!(pending < 1.0, "{pending} records are on their way");
            Ok(())
        })
        .await;
    }
}

/// The value of a series in what `/metrics` says, as it is written there.
pub(crate) fn value_of<'a>(metrics: &'a str, series: &str) -> Option<&'a str> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
}
