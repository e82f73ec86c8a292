//! How many records a second the journal makes durable, on the real disk, for 1, 16 and 256 callers at once.
//!
//! `cargo bench --bench journal`. A caller appends, waits until its record is on disk, and appends the next.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use octo::journal::{
    Journal, Options,
    disk::{Disk, Entry, Read, RealDisk, Write},
};
use tokio::task::JoinSet;

mod support;

use support::{micros, percentile_ms};

const RUN: Duration = Duration::from_secs(2);

/// The real disk, counting `fdatasync`.
#[derive(Default)]
struct CountingDisk(Arc<AtomicU64>);

struct CountingFile(Box<dyn Write>, Arc<AtomicU64>);

impl Disk for CountingDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        RealDisk.list(path)
    }

    fn make_private(&self, path: &Path) -> io::Result<()> {
        RealDisk.make_private(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Write>> {
        Ok(Box::new(CountingFile(RealDisk.create(path)?, self.0.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        RealDisk.open(path)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        RealDisk.replace(path, bytes)
    }

    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        RealDisk.truncate(path, length)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }
}

impl Write for CountingFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.sync()
    }
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    support::print_load();
    println!(
        "{:>8} {:>11} {:>9} {:>9} {:>8} {:>15}",
        "callers", "appends/s", "p50 ms", "p99 ms", "fsyncs", "records/fsync"
    );
    for callers in [1, 16, 256] {
        runtime.block_on(run(callers))?;
    }
    Ok(())
}

/// One line of the table.
async fn run(callers: usize) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?; // a disk: /tmp may be memory
    let disk = CountingDisk::default();
    let syncs = disk.0.clone();
    let options = Options {
        root: dir.path().to_owned(),
        segment_bytes: 64 << 20,
        bytes_max: 8 << 30,
        queue_records_max: 65_536,
        queue_bytes_max: 64 << 20,
        keep_drained: Duration::from_hours(1),
        retry_interval: Duration::from_secs(1),
    };
    let journal = Journal::open(Arc::new(disk), options)?;
    let mut payload = Vec::new();
    support::typical_click(octo::model::id::new_uuid(), 1).encode(&mut payload);
    payload.resize(400, b'x');

    let (start, syncs_before) = (Instant::now(), syncs.load(Ordering::Relaxed));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (journal, payload) = (journal.clone(), payload.clone());
        tasks.spawn(async move {
            let mut waits = Vec::with_capacity(1 << 14);
            while start.elapsed() < RUN {
                let asked = Instant::now();
                journal.append(&payload).durable().await?;
                waits.push(micros(asked.elapsed()));
            }
            anyhow::Ok(waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(of_one) = tasks.join_next().await {
        waits.extend(of_one??);
    }
    let seconds = start.elapsed().as_secs_f64();
    let syncs = syncs.load(Ordering::Relaxed) - syncs_before;
    journal.close();

    waits.sort_unstable();
    let count = waits.len() as f64;
    println!(
        "{callers:>8} {:>11.0} {:>9.3} {:>9.3} {syncs:>8} {:>15.1}",
        count / seconds,
        percentile_ms(&waits, 50),
        percentile_ms(&waits, 99),
        count / syncs as f64,
    );
    Ok(())
}
