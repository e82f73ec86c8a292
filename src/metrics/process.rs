//! The process itself: its version, clock, panics and threads.

use std::time::Duration;

families! {
    gauge skew("octo_clock_skew_seconds") =
        "How far this node's clock is ahead of the primary's; NaN: not known."
        => /// How far this node's clock is ahead of the primary's, in seconds; `None`: it does not answer.
           clock_skew(ahead_s: Option<f64>): ahead_s.unwrap_or(f64::NAN);
    gauge plausible("octo_clock_plausible") = "1 while this node's clock says a time that can be, else 0."
        => /// Whether this node's clock says a time that can be.
           clock_plausible(is_plausible: bool): f64::from(is_plausible);
    counter jumps("octo_clock_jumps_total", direction) =
        "Times that this node's clock was set by more than clock.skew_max_ms.",
        zeros Each(&["ahead", "back"]);
    gauge build("octo_build_info", version) = "1, labelled with the version.";
    counter panics("octo_panics_total") = "Requests that panicked.",
        zeros Plain
        => /// A request panicked.
           panicked(): 1;
    gauge workers("tokio_workers") = "Threads that run tasks.";
    gauge alive_tasks("tokio_alive_tasks") = "Tasks that have not ended.";
    gauge queue_depth("tokio_global_queue_depth") = "Tasks waiting for any thread.";
    counter busy_seconds("tokio_worker_busy_seconds_total") =
        "Time the threads spent running tasks, all together, in whole seconds.";
    counter worker_parks("tokio_worker_parks_total") = "How often a thread ran out of work and slept.";
}

/// This node's clock was set: ahead, or back.
pub fn clock_jumped(is_ahead: bool) {
    jumps(if is_ahead { "ahead" } else { "back" }).increment(1);
}

/// The version of this process.
pub(super) fn build_info() {
    build(env!("CARGO_PKG_VERSION")).set(1.0);
}

/// The runtime's threads and tasks. Over all threads together: a label for each would be a series for each
/// core of a large machine.
pub fn runtime(threads: usize, tasks: usize, queued: usize, busy: Duration, parks: u64) {
    workers().set(threads as f64);
    alive_tasks().set(tasks as f64);
    queue_depth().set(queued as f64);
    busy_seconds().absolute(busy.as_secs());
    worker_parks().absolute(parks);
}
