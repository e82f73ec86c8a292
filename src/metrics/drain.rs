//! The way from the journal into Postgres, and what does not get there.

use std::time::Duration;

families! {
    counter rows("octo_drain_rows_total", table) = "Rows stored in Postgres.", zeros Each(&["clicks", "events", "out_clicks", "postbacks"]);
    histogram batch_rows("octo_drain_batch_rows") = "Records in one transaction.",
        buckets &[1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0];
    counter errors("octo_drain_errors_total", class) = "Transactions of the drain that failed, by class.",
        zeros Each(&["connect", "io", "timeout", "moved", "refused"])
        => /// A transaction of the drain failed.
           drain_error(class: &'static str): 1;
    counter already_stored("octo_drain_already_stored_total") = "Records that were sent again and found stored.",
        zeros Plain
        => /// Records that were sent again and found stored.
           drain_already_stored(records: u64): records;
    gauge lag_seconds("octo_drain_lag_seconds") = "Age of the newest record in Postgres when it was stored."
        => /// Age of the newest record when it was stored.
           drain_lag(lag: Duration): lag.as_secs_f64();
    counter erased_records("octo_erased_records_total", place) =
        "Records that were erased (octo privacy erase), by where they were found.",
        zeros Each(&["drain", "journal"])
        => /// Records erased where they were found: `drain` (and not stored) or `journal`.
           erased(place: &'static str, records: u64): records;
    counter dead_letters("octo_dead_letters_total", class) =
        "Records Postgres refuses for what they hold, by SQLSTATE class.",
        zeros Each(&["21", "22", "23", "42", "54", "malformed", "other"])
        => /// A record went to the dead letters.
           dead_letter(class: &'static str): 1;
    counter dead_letters_retried("octo_dead_letters_retried_total", outcome) =
        "Dead letters that were tried again, by outcome.",
        zeros Each(&["stored", "already_stored", "refused"])
        => /// A dead letter was tried again: `stored`, `already_stored`, `refused`.
           dead_letter_retried(outcome: &'static str): 1;
    gauge default_rows("octo_default_partition_rows", table) =
        "Rows in a DEFAULT partition: no partition of their day was there."
        => /// Rows found in a DEFAULT partition.
           default_partition_rows(table: &'static str, rows: u64): rows as f64;
}

/// A committed batch: rows stored by table.
pub fn drained(table: &'static str, stored: usize) {
    rows(table).increment(stored as u64);
}

/// Rows of one transaction of the drain.
pub fn drained_batch(stored: usize) {
    batch_rows().record(stored as f64);
}
