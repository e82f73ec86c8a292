//! The sums that reports are made of.

families! {
    gauge pending("octo_cube_pending_deltas") =
        "Rows that the sums of reports are still to be added; reports read them as they are until then.",
        zeros Plain
        => /// Deltas that are not added to the sums yet.
           pending_deltas(rows: i64): rows as f64;
    counter folded("octo_cube_folded_deltas_total") = "Rows added to the sums of reports, by this node.",
        zeros Plain;
    gauge recounts("octo_cube_recounts_waiting") =
        "Days that wait to be counted from their facts; what reports say of them is not complete yet.",
        zeros Plain
        => /// Days whose facts are still to be counted.
           recount_days(days: usize): days as f64;
    gauge differing("octo_cube_differing_rows") =
        "Rows of the sums of reports that are not what their facts are, in the day that was compared last.",
        zeros Plain
        => /// Sums that are not what the facts are.
           differing_sums(rows: i64): rows as f64;
    histogram reading("octo_report_duration_seconds", source) =
        "How long reports took, by where they were read.",
        buckets &[0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0]
        => /// A report was read from sums of one `dimension`, from the `cube`, from facts (`raw`), or from top `values`.
           report_read(source: &'static str, duration: std::time::Duration): duration;
    gauge compared("octo_cube_compared_timestamp_seconds") =
        "When the sums of a day were last compared with its facts.",
        zeros Absent;
}

/// Deltas were added to the sums.
pub fn folded_deltas(rows: u64) {
    folded().increment(rows);
}

/// The sums of a day were compared with its facts just now.
pub fn compared_sums(unix_seconds: f64) {
    compared().set(unix_seconds);
}
