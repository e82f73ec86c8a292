//! Postbacks out.

use chrono::{DateTime, Utc};

families! {
    counter deliveries("octo_deliveries_total", outcome) =
        "Deliveries to targets of postbacks by what came of the attempt: delivered, failed (it is tried again) or dead.",
        zeros Each(&["delivered", "failed", "dead"])
        => /// An attempt came to `delivered`, `failed` or `dead`.
           delivery(outcome: &'static str): 1;
    gauge pending("octo_deliveries_pending") =
        "Deliveries in the database that are not done, those of paused targets included.",
        zeros Plain;
    gauge oldest("octo_deliveries_oldest_pending_timestamp_seconds") =
        "When the oldest delivery was queued that is not done and whose target is not paused; 0: there is none.",
        zeros Plain;
    gauge failing("octo_postback_targets_failing") =
        "Targets of postbacks with at least deliveries.warn_failures failures in a row.",
        zeros Plain;
    gauge paused("octo_postback_targets_paused") = "Targets of postbacks that are paused.",
        zeros Plain;
}

/// What waits in the database.
pub fn deliveries_waiting(count: i64, since: Option<DateTime<Utc>>) {
    pending().set(count as f64);
    oldest().set(since.map_or(0.0, |at| at.timestamp_millis() as f64 / 1e3));
}

/// How the targets are.
pub fn postback_targets(failing_count: i64, paused_count: i64) {
    failing().set(failing_count as f64);
    paused().set(paused_count as f64);
}
