//! `octo journal ...`: what is on disk, read without a lock beside a running octo; and what PostgreSQL refused of it.

use std::{path::Path, process::ExitCode, time::SystemTime};

use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde::Serialize;
use uuid::Uuid;

use super::{
    dead_letters::{self, Which},
    print, with_db,
};
use crate::{
    config::Config,
    db::Db,
    journal::{
        self, Scan, Segment,
        disk::{Disk, RealDisk},
    },
    model::id::time_of_uuid,
};

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Command {
    /// Show streams, segments and records
    Inspect {
        /// As JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Check every record's checksum; exit code 1 when there is damage
    Verify {
        /// As JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// List the records that PostgreSQL refused, newest first
    DeadLetters {
        /// As JSON on stdout, one letter a line
        #[arg(long)]
        json: bool,
    },
    /// Store refused records now that the cause is gone; exit code 1 when one is refused again
    Retry {
        /// The stream of one letter, as in `octo journal dead-letters`
        #[arg(requires = "seq", required_unless_present = "all", conflicts_with = "all")]
        stream: Option<Uuid>,
        /// Its sequence
        seq: Option<i64>,
        /// Every letter, oldest first
        #[arg(long)]
        all: bool,
        /// With --all: only those refused for this SQLSTATE
        #[arg(long, requires = "all", value_name = "CODE")]
        sqlstate: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct Report {
    dir: String,
    streams: Vec<Stream>,
    records: u64,
    bytes: u64,
    damaged_records: u64,
}

/// One start of octo.
#[derive(Debug, Serialize)]
struct Stream {
    id: Uuid,
    started_at: DateTime<Utc>,
    /// Its row in `ingest_watermark`: its own id, unless somebody else moved that one.
    watermark: Uuid,
    segments: Vec<SegmentReport>,
}

#[derive(Debug, Serialize)]
struct SegmentReport {
    first_seq: u64,
    end_seq: u64,
    records: u64,
    bytes: u64,
    modified_at: DateTime<Utc>,
    /// Bytes behind the last record: being written, or torn by a crash (never acknowledged).
    unfinished_bytes: u64,
    damage: Vec<Damage>,
}

#[derive(Debug, Serialize)]
struct Damage {
    offset: u64,
    first_seq: u64,
    records: u64,
}

pub(super) fn run(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Inspect { json } => look(config, json, false),
        Command::Verify { json } => look(config, json, true),
        Command::DeadLetters { json } => {
            with_db(config, async move |db: Db| dead_letters::list(&db, json).await)
        }
        Command::Retry { stream, seq, sqlstate, .. } => {
            let which = match (stream, seq) {
                (Some(stream), Some(seq)) => Which::One { stream, seq },
                _ => Which::All { sqlstate },
            };
            with_db(config, async move |db: Db| dead_letters::retry(&db, which).await)
        }
    }
}

fn look(config: &Config, json: bool, is_verify: bool) -> anyhow::Result<ExitCode> {
    let report = report(&config.journal_dir())?;
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    } else {
        print(&text(&report, is_verify))?;
    }
    let is_damaged = report.damaged_records > 0
        || report.streams.iter().flat_map(|s| &s.segments).any(|s| !s.damage.is_empty());
    Ok(ExitCode::from(u8::from(is_verify && is_damaged)))
}

fn report(root: &Path) -> anyhow::Result<Report> {
    let mut report = Report {
        dir: root.display().to_string(),
        streams: Vec::new(),
        records: 0,
        bytes: 0,
        damaged_records: 0,
    };
    for stream in journal::streams(&RealDisk, root)? {
        let all = journal::segments(&RealDisk, root, stream)?;
        let mut segments = Vec::with_capacity(all.len());
        for (i, segment) in all.iter().enumerate() {
            let limit_seq = all.get(i + 1).map(|next| next.first_seq);
            let path = journal::segment_path(root, stream, segment.first_seq);
            // a running octo may have deleted it meanwhile: it was drained
            let Ok(mut file) = RealDisk.open(&path) else { continue };
            let scan = journal::scan(file.as_mut(), segment.bytes, stream, segment.first_seq, limit_seq)?;
            let described = describe(segment, &scan, limit_seq);
            report.records += described.records;
            report.bytes += described.bytes;
            report.damaged_records += described.damage.iter().map(|d| d.records).sum::<u64>();
            segments.push(described);
        }
        let watermark = journal::watermark_id(&RealDisk, root, stream)?;
        report.streams.push(Stream { id: stream, started_at: time_of_uuid(stream), watermark, segments });
    }
    Ok(report)
}

fn describe(segment: &Segment, scan: &Scan, limit_seq: Option<u64>) -> SegmentReport {
    let mut damage: Vec<Damage> = scan
        .corrupt
        .iter()
        .map(|&(offset, first_seq, records)| Damage { offset, first_seq, records })
        .collect();
    // what is missing before the next segment was synced once
    if let Some(records) = limit_seq.and_then(|limit| limit.checked_sub(scan.end_seq)).filter(|n| *n > 0) {
        damage.push(Damage { offset: scan.end_offset, first_seq: scan.end_seq, records });
    }
    SegmentReport {
        first_seq: segment.first_seq,
        end_seq: scan.end_seq,
        records: scan.records,
        bytes: segment.bytes,
        modified_at: time(segment.modified),
        unfinished_bytes: scan.torn_bytes,
        damage,
    }
}

fn time(time: SystemTime) -> DateTime<Utc> {
    time.into()
}

fn text(report: &Report, is_verify: bool) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("journal {}: {} records, {} bytes", report.dir, report.records, report.bytes));
    for stream in &report.streams {
        line(format!("stream {} (started {:.19})", stream.id, stream.started_at.to_rfc3339()));
        if stream.watermark != stream.id {
            line(format!("  in ingest_watermark it is {}", stream.watermark));
        }
        for s in &stream.segments {
            line(format!("  segment {:>12}  {:>9} records  {:>12} bytes", s.first_seq, s.records, s.bytes));
            for d in &s.damage {
                line(format!(
                    "    DAMAGED at byte {}: {} records from {} on cannot be read",
                    d.offset, d.records, d.first_seq
                ));
            }
        }
    }
    if is_verify {
        line(match report.damaged_records {
            0 => "every record is intact".to_owned(),
            n => format!("{n} records are damaged; the files are kept as they are"),
        });
    }
    line("how much of it is already in PostgreSQL: see /health or SELECT * FROM ingest_watermark".to_owned());
    out
}
