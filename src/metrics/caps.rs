//! Caps, and who was seen.

families! {
    counter overshoot("octo_cap_overshoot_total") =
        "Clicks that went over the limit of a cap, before this node heard what the others had counted.",
        zeros Plain
        => /// Clicks of this node that went over a limit.
           cap_overshoot(clicks: u64): clicks;
    counter shares("octo_cap_shares_total", outcome) =
        "Times counts of caps were shared with the other nodes, by the store (redis, postgres), or failed.",
        zeros Each(&["redis", "postgres", "failed"])
        => /// Counts were shared by `redis` or `postgres`, or that `failed`.
           caps_shared(outcome: &'static str): 1;
    counter without_counter("octo_caps_uncounted_total") =
        "Times a cap was not looked at, because caps.counters_max was reached.",
        zeros Plain
        => /// A cap could not be counted.
           cap_without_counter(): 1;
    gauge counters("octo_cap_counters") = "Counters of caps in memory.",
        zeros Plain
        => /// Counters in memory.
           cap_counters(count: usize): count as f64;
    counter visitors_forgotten("octo_unique_visitors_forgotten_total") =
        "Visitors forgotten within their day, because tracking.unique_visitors_max was reached.",
        zeros Plain
        => /// A visitor was forgotten before the day was over: the next click will be unique again.
           unique_visitor_forgotten(): 1;
}
