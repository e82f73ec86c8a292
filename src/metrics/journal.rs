//! The journal and its disk.

use std::time::Duration;

families! {
    counter records("octo_journal_records_total") = "Records made durable.", zeros Plain;
    counter written_bytes("octo_journal_written_bytes_total") = "Bytes made durable.", zeros Plain;
    counter errors("octo_journal_errors_total") = "Writes or syncs of the journal that failed.",
        zeros Plain
        => /// A write or sync of the journal failed.
           journal_error(): 1;
    histogram fsync_duration("octo_journal_fsync_duration_seconds") = "Time of one fdatasync.",
        buckets &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0]
        => /// One fdatasync.
           journal_fsync(took: Duration): took;
    gauge writable("octo_journal_writable") =
        "1 while records are taken, 0 while clicks are redirected but not recorded.";
    gauge pending_records("octo_journal_pending_records") = "Durable records not yet in Postgres.";
    gauge bytes_on_disk("octo_journal_bytes") = "Bytes of the journal on disk.";
    gauge segments_on_disk("octo_journal_segments") = "Segments on disk.";
    gauge corrupt_segments("octo_journal_corrupt_segments") =
        "Segments with damage; they are kept until a person deletes them.";
    counter damaged_records("octo_journal_damaged_records_total") = "Records that could not be read back.",
        zeros Plain
        => /// Records that could not be read back.
           journal_damaged(records: u64): records;
    gauge oldest_pending("octo_journal_oldest_pending_timestamp_seconds") =
        "Unix time of the oldest record not in Postgres; 0: none."
        => /// Unix time of the oldest record not in Postgres; 0: none.
           journal_oldest_pending(unix_seconds: f64): unix_seconds;
    counter foreign_watermarks("octo_journal_foreign_watermarks_total") =
        "Times the progress of a stream was found moved by somebody else; its records are sent again.",
        zeros Plain
        => /// The progress of a stream was moved by somebody else.
           journal_foreign_watermark(): 1;
    gauge disk_free("octo_disk_free_bytes") = "Bytes that octo may still write on the journal's file system.";
    gauge disk_size("octo_disk_size_bytes") = "Size of the journal's file system.";
}

/// A batch of the journal.
pub fn journal_committed(is_durable: bool, batch: u64, bytes: usize) {
    if is_durable {
        records().increment(batch);
        written_bytes().increment(bytes as u64);
    }
}

/// Figures of the journal.
pub fn journal_state(is_writable: bool, pending: u64, bytes: u64, segments: usize, corrupt: usize) {
    writable().set(f64::from(is_writable));
    pending_records().set(pending as f64);
    bytes_on_disk().set(bytes as f64);
    segments_on_disk().set(segments as f64);
    corrupt_segments().set(corrupt as f64);
}

/// The journal's file system; NaN when it does not answer.
pub fn disk(free_bytes: f64, size_bytes: f64) {
    disk_free().set(free_bytes);
    disk_size().set(size_bytes);
}
