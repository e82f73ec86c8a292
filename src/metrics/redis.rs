//! Redis, and what is kept there.

use std::time::Duration;

families! {
    counter commands("octo_redis_commands_total", outcome) = "Redis commands by outcome.",
        zeros Each(&["ok", "error", "timeout", "open"]);
    histogram command_duration("octo_redis_command_duration_seconds") = "Time of a Redis command.",
        buckets &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05];
    gauge breaker_open("octo_redis_breaker_open") =
        "1 while Redis is not asked because it failed too often, else 0."
        => /// Whether the breaker of Redis is open (or half open).
           redis_breaker(is_open: bool): f64::from(is_open);
    counter stats_cache_requests("octo_stats_cache_requests_total", outcome) =
        "Requests for statistics, by whether Redis had the answer."
        => /// A question for figures of a campaign: `hit`, `miss` or `error`.
           stats_cache_request(outcome: &'static str): 1;
}

/// A Redis command: outcome `ok`, `error` or `timeout`.
pub fn redis_command(outcome: &'static str, took: Duration) {
    commands(outcome).increment(1);
    command_duration().record(took);
}

/// A Redis command that was not sent, because the breaker is open.
pub fn redis_refused() {
    commands("open").increment(1);
}
