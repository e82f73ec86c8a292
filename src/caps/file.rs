//! The counts in a file of the data directory: JSON with a schema version, replaced as a whole. A start takes from it what
//! it counted before, also where every store is away. What was counted in the last interval before a crash may be missing.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Caps, Counter, CounterId, window::Window};

const SCHEMA: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    schema: u32,
    counters: Vec<SavedCounter>,
}

#[derive(Serialize, Deserialize)]
struct SavedCounter {
    name: String,
    /// The first second of its window.
    from: i64,
    /// What each process counted.
    counts: Vec<(Uuid, u64)>,
}

/// Takes the counts of windows that are not over. A file that cannot be read is passed over.
pub(super) fn load(caps: &Caps, path: &Path, now: DateTime<Utc>) {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        bytes => bytes,
    };
    let saved = bytes.and_then(|bytes| Ok(serde_json::from_slice::<Saved>(&bytes)?));
    match saved {
        Ok(saved) if saved.schema == SCHEMA => {
            saved.counters.into_iter().for_each(|counter| take(caps, counter, now));
        }
        Ok(saved) => {
            tracing::warn!(schema = saved.schema, "the counts of caps are of another release; ignored");
        }
        Err(error) => {
            let path = path.display();
            tracing::warn!(%path, %error, "the counts of caps cannot be read; those in Redis and PostgreSQL are used");
        }
    }
}

fn take(caps: &Caps, saved: SavedCounter, now: DateTime<Utc>) {
    let Ok(id) = saved.name.parse::<CounterId>() else { return };
    if Window::of(now, id.per, id.zone).from != saved.from {
        return;
    }
    let Some(counter) = caps.counter(id) else { return };
    let mut count = counter.at(now, caps);
    for (node, counted) in saved.counts {
        count.merge(node, counted);
    }
}

/// Writes all counts if any is not in the file yet; how many bytes it wrote.
pub(super) fn save(caps: &Caps, path: &Path, bytes_max: usize) -> io::Result<usize> {
    let counters = caps.all();
    let mut is_behind = false;
    for counter in &counters {
        is_behind |= std::mem::take(&mut counter.lock().is_unsaved);
    }
    if !is_behind {
        return Ok(0);
    }
    let written = write(&counters, path, bytes_max);
    if written.is_err() {
        for counter in &counters {
            counter.lock().is_unsaved = true;
        }
    }
    written
}

fn write(counters: &[Arc<Counter>], path: &Path, bytes_max: usize) -> io::Result<usize> {
    let saved = |counter: &Arc<Counter>| {
        let count = counter.lock();
        let counts = count.tallies.iter().filter(|tally| tally.count > 0);
        let counts = counts.map(|tally| (tally.node, tally.count)).collect();
        SavedCounter { name: counter.id.to_string(), from: count.window.from, counts }
    };
    let counters = counters.iter().map(saved).filter(|saved| !saved.counts.is_empty()).collect();
    let bytes = serde_json::to_vec(&Saved { schema: SCHEMA, counters })?;
    if bytes.len() > bytes_max {
        return Err(io::Error::other(format!("they take {} bytes; raise caps.file_bytes_max", bytes.len())));
    }
    // beside, then renamed: a crash of octo leaves the old file or the new one
    let beside = path.with_extension("json.new");
    fs::File::create(&beside)?.write_all(&bytes)?;
    fs::rename(&beside, path)?;
    Ok(bytes.len())
}
