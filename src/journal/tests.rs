//! The journal on a real file system; `proof` has one that fails.

use std::ops::Range;

use super::{disk::RealDisk, *};

fn options(root: &Path) -> Options {
    Options {
        root: root.to_owned(),
        segment_bytes: 4096,
        bytes_max: 1 << 30,
        queue_records_max: 1000,
        queue_bytes_max: 1 << 24,
        keep_drained: Duration::ZERO,
        retry_interval: Duration::from_hours(1),
    }
}

/// Segment, offset, records.
type Damage = (u64, u64, u64);

fn open(root: &Path) -> Journal {
    Journal::open(Arc::new(RealDisk), options(root)).unwrap()
}

fn payload(i: u64) -> Vec<u8> {
    format!("record {i} {}", "x".repeat(usize::try_from(i % 97).unwrap())).into_bytes()
}

/// Appends one by one, each confirmed before the next.
fn append(journal: &Journal, range: Range<u64>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for i in range {
        let _ = runtime.block_on(journal.append(&payload(i)).durable()).unwrap();
    }
}

fn read_all(journal: &Journal, stream: Uuid, from: u64) -> (Vec<Vec<u8>>, Vec<Damage>) {
    let end = journal.streams().into_iter().find(|(id, _)| *id == stream).map_or(0, |(_, end)| end);
    let mut reader = journal.reader(stream, from);
    let (mut records, mut damage) = (Vec::new(), Vec::new());
    while reader.next_seq() < end {
        let batch = reader.read(end, 7, 100).unwrap();
        assert!(batch.hi > batch.lo, "no progress at {}", batch.lo);
        records.extend(batch.payloads().map(<[u8]>::to_vec));
        damage.extend(batch.damage);
    }
    (records, damage)
}

fn last_segment(root: &Path, stream: Uuid) -> PathBuf {
    let all = segments(&RealDisk, root, stream).unwrap();
    segment::segment_path(root, stream, all.last().unwrap().first_seq)
}

#[test]
fn records_come_back_in_order_over_many_segments_and_from_any_position() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append(&journal, 0..300);
    assert!(journal.stats().segments > 3);
    for from in [0, 1, 99, 299, 300] {
        let (records, damage) = read_all(&journal, journal.stream(), from);
        assert!(damage.is_empty());
        assert_eq!(records, (from..300).map(payload).collect::<Vec<_>>());
    }
}

#[test]
fn a_new_start_finds_what_the_last_one_left_and_begins_its_own_stream() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    append(&first, 0..50);
    let again = open(dir.path()); // the first was never closed: as after kill -9
    assert_ne!(again.stream(), first.stream());
    assert_eq!(read_all(&again, first.stream(), 0).0.len(), 50);
    assert_eq!(again.stats().pending_records, 50);
}

#[test]
fn a_start_without_records_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close();
    let journal = open(dir.path());
    assert_eq!(journal.streams().len(), 1);
}

#[test]
fn a_torn_tail_is_cut_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    append(&first, 0..10);
    first.close();
    let path = last_segment(dir.path(), first.stream());
    let whole = fs::read(&path).unwrap();
    let mut unsealed = Vec::new();
    assert!(frame::push_with(&mut unsealed, |out| out.extend_from_slice(b"never synced")));
    frame::seal(&mut unsealed, first.stream(), 10);
    for cut in 1..unsealed.len() {
        fs::write(&path, [&whole[..], &unsealed[..cut]].concat()).unwrap();
        let journal = open(dir.path());
        assert_eq!(read_all(&journal, first.stream(), 0).0.len(), 10, "cut {cut}");
        assert_eq!(fs::read(&path).unwrap(), whole);
        assert_eq!(journal.stats().corrupt_segments, 0);
    }
}

#[test]
fn damage_in_synced_records_is_reported_passed_over_and_never_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    append(&first, 0..20);
    first.close();
    let path = last_segment(dir.path(), first.stream());
    let mut bytes = fs::read(&path).unwrap();
    bytes[frame::SEGMENT_HEAD + frame::FRAME_HEAD + 2] ^= 1; // in record 0 of the last segment
    fs::write(&path, &bytes).unwrap();

    let journal = open(dir.path());
    let (records, damage) = read_all(&journal, first.stream(), 0);
    assert_eq!(records.len(), 19);
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].2, 1);
    journal.set_corrupt(first.stream(), damage[0].0);
    journal.set_drained(first.stream(), 20);
    journal.clean(Instant::now() + Duration::from_secs(1));
    assert!(path.exists());
    assert_eq!(open(dir.path()).stats().corrupt_segments, 1);
}

#[test]
fn a_segment_marked_as_damaged_is_neither_cut_nor_removed_by_the_next_start() {
    for (records, damaged) in [(1, frame::FRAME_HEAD + 2), (20, 300)] {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        append(&first, 0..records);
        first.close();
        let path = last_segment(dir.path(), first.stream());
        let mut bytes = fs::read(&path).unwrap();
        let from = frame::SEGMENT_HEAD + damaged;
        bytes[from..].fill(0xff); // up to the end: as after a torn write
        fs::write(&path, &bytes).unwrap();
        first.set_corrupt(first.stream(), 0); // as the drain does when it meets that
        for _ in 0..2 {
            let journal = open(dir.path());
            assert_eq!(fs::read(&path).unwrap(), bytes);
            assert_eq!(journal.stats().corrupt_segments, 1);
        }
    }
}

#[test]
fn drained_segments_are_deleted_when_old_enough_and_never_before() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append(&journal, 0..300);
    let later = Instant::now() + Duration::from_secs(10);
    assert_eq!(journal.clean(later), 0, "nothing is drained");
    journal.set_drained(journal.stream(), 150);
    assert!(journal.clean(later) > 0);
    assert_eq!(read_all(&journal, journal.stream(), 150).0.len(), 150);
    journal.close();
    journal.set_drained(journal.stream(), 300);
    journal.clean(later);
    assert!(journal.streams().is_empty());
    assert_eq!(journal.stats().bytes, 0);
}

#[test]
fn a_full_journal_refuses_and_recovers_once_drained() {
    let dir = tempfile::tempdir().unwrap();
    let soon =
        Options { bytes_max: 10_000, retry_interval: Duration::from_millis(50), ..options(dir.path()) };
    let journal = Journal::open(Arc::new(RealDisk), soon).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut stored = 0;
    let error = loop {
        match runtime.block_on(journal.append(&payload(stored)).durable()) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::Full), "{error}");
    assert!(!journal.is_writable());
    assert_eq!(read_all(&journal, journal.stream(), 0).0.len() as u64, stored);
    // a small one that fits does not hide that others do not
    let small = runtime.block_on(journal.append(b"s").durable());
    thread::sleep(Duration::from_millis(200));
    assert!(!journal.is_writable(), "{small:?}");
    stored += u64::from(small.is_ok());
    journal.set_drained(journal.stream(), stored);
    append(&journal, stored..stored + 5);
    eventually("room", || journal.is_writable());
}

#[test]
fn an_empty_and_an_oversized_record_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for bad in [vec![], vec![0; PAYLOAD_BYTES_MAX + 1]] {
        let answer = runtime.block_on(journal.append(&bad).durable());
        assert!(matches!(answer, Err(AppendError::Size)));
    }
}

#[test]
fn a_reader_that_follows_a_live_stream_sees_each_record_once() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let mut reader = journal.reader(journal.stream(), 0);
    let mut seen = 0;
    for round in 0..40 {
        append(&journal, round * 10..round * 10 + 10);
        let end = *journal.durable().borrow();
        while reader.next_seq() < end {
            let batch = reader.read(end, 1000, 1 << 20).unwrap();
            for record in batch.payloads() {
                assert_eq!(record, payload(seen));
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 400);
}

#[test]
fn two_processes_cannot_share_a_journal() {
    let dir = tempfile::tempdir().unwrap();
    let held = Lock::acquire(dir.path()).unwrap();
    assert!(held.is_some());
    assert!(Lock::acquire(dir.path()).unwrap().is_none());
    drop(held);
    assert!(Lock::acquire(dir.path()).unwrap().is_some());
}

/// What an erased record reads as.
fn blanked(i: u64) -> Vec<u8> {
    let mut bytes = payload(i);
    crate::facts::record::blank(&mut bytes);
    bytes
}

/// Erases every seventh record, also of the segment being written, and says how many.
fn erase_sevenths(journal: &Journal, count: u64) -> u64 {
    let sevenths: Vec<_> = (0..count).step_by(7).map(payload).collect();
    let mut records = 0;
    for _ in 0..1000 {
        let erased = journal.erase(&|p| sevenths.iter().any(|s| s == p)).unwrap();
        records += erased.records;
        if erased.is_complete {
            return records;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the segment being written never ends");
}

#[test]
fn erased_records_are_blank_and_the_others_stay_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    append(&journal, 0..300);
    let mut early = journal.reader(journal.stream(), 0);
    let head = early.read(300, 1, 100).unwrap();
    assert_eq!(head.payloads().next(), Some(&payload(0)[..]));
    let bytes = journal.stats().bytes;
    assert_eq!(erase_sevenths(&journal, 300), 43);
    assert_eq!(erase_sevenths(&journal, 300), 0, "once");
    append(&journal, 300..310);
    let wanted = |i: u64| if i < 300 && i.is_multiple_of(7) { blanked(i) } else { payload(i) };
    for from in [0, 7, 299, 309] {
        let (records, damage) = read_all(&journal, journal.stream(), from);
        assert!(damage.is_empty());
        assert_eq!(records, (from..310).map(wanted).collect::<Vec<_>>());
    }
    // who had a segment open reads on in the old one
    let (mut read, mut seq) = (0, 1);
    while early.next_seq() < 310 {
        let batch = early.read(310, 50, 1000).unwrap();
        assert!(batch.damage.is_empty());
        for bytes in batch.payloads() {
            assert!(bytes == payload(seq) || bytes == wanted(seq), "{seq}");
            (read, seq) = (read + 1, seq + 1);
        }
    }
    assert_eq!(read, 309);
    journal.close();
    let again = open(dir.path());
    assert_eq!(again.stats().corrupt_segments, 0);
    assert!(again.stats().bytes >= bytes, "as long as before");
    let (records, damage) = read_all(&again, journal.stream(), 0);
    assert!(damage.is_empty());
    assert_eq!(records, (0..310).map(wanted).collect::<Vec<_>>());
    let names = fs::read_dir(dir.path().join(journal.stream().to_string())).unwrap();
    assert!(
        names.flatten().all(|e| e.path().extension().is_some_and(|e| e == "seg")),
        "no file is left over"
    );
}

#[test]
fn an_erasure_beside_appends_and_cleaning_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    thread::scope(|scope| {
        let appending = scope.spawn(|| append(&journal, 0..2_000));
        let sevenths: std::collections::HashSet<_> = (0..2_000).step_by(7).map(payload).collect();
        while !appending.is_finished() {
            journal.erase(&|p| sevenths.contains(p)).unwrap();
            journal.set_drained(journal.stream(), 500);
            journal.clean(Instant::now() + Duration::from_hours(1));
        }
    });
    erase_sevenths(&journal, 2_000);
    let (records, damage) = read_all(&journal, journal.stream(), 500);
    assert!(damage.is_empty(), "{damage:?}");
    let wanted = |i: u64| if i.is_multiple_of(7) { blanked(i) } else { payload(i) };
    assert_eq!(records, (500..2_000).map(wanted).collect::<Vec<_>>());
}

#[test]
fn what_is_damaged_or_torn_stays_as_it_is_beside_an_erased_record() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    append(&first, 0..30);
    first.close();
    let path = last_segment(dir.path(), first.stream());
    let mut bytes = fs::read(&path).unwrap();
    bytes[60] ^= 0xff;
    bytes.extend_from_slice(b"torn");
    fs::write(&path, &bytes).unwrap();
    let first_seq = segments(&RealDisk, dir.path(), first.stream()).unwrap().last().unwrap().first_seq;
    let is_erased = |p: &[u8]| p == payload(20);
    assert_eq!(erase(&RealDisk, dir.path(), first.stream(), first_seq, &is_erased, false).unwrap(), 1);
    let after = fs::read(&path).unwrap();
    let changed = bytes.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert!(after.len() == bytes.len() && changed <= payload(20).len() + 4, "{changed} bytes changed");
    assert!(after.ends_with(b"torn") && after[60] == bytes[60]);
}

/// Waits for what happens in the journal's thread.
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_journal_takes_records_again_once_drained_without_being_asked() {
    let dir = tempfile::tempdir().unwrap();
    let soon =
        Options { bytes_max: 10_000, retry_interval: Duration::from_millis(10), ..options(dir.path()) };
    let journal = Journal::open(Arc::new(RealDisk), soon).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut stored = 0;
    while runtime.block_on(journal.append(&payload(stored)).durable()).is_ok() {
        stored += 1;
    }
    thread::sleep(Duration::from_millis(100));
    assert!(!journal.is_writable(), "there is no room yet");
    assert!(matches!(journal.trouble(), Some(AppendError::Full)));
    journal.set_drained(journal.stream(), stored);
    eventually("room", || journal.is_writable());
    assert!(journal.trouble().is_none());
    append(&journal, stored..stored + 5);
}

#[test]
fn a_full_journal_of_one_drained_segment_makes_room_too() {
    let dir = tempfile::tempdir().unwrap();
    let soon = Options { bytes_max: 8_192, retry_interval: Duration::from_millis(10), ..options(dir.path()) };
    let journal = Journal::open(Arc::new(RealDisk), soon).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // more than a segment's size, so that it fills the journal alone
    runtime.block_on(journal.append(&[1; 7_500]).durable()).unwrap();
    let full = runtime.block_on(journal.append(&[2; 1_000]).durable());
    assert!(matches!(full, Err(AppendError::Full)), "{full:?}");
    journal.set_drained(journal.stream(), 1);
    eventually("room", || journal.is_writable());
    runtime.block_on(journal.append(&[2; 1_000]).durable()).unwrap();
}

#[test]
fn a_journal_that_cannot_be_opened_is_opened_later_with_what_was_there_before() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    append(&first, 0..20);
    first.close();
    let may_open = Arc::new(AtomicBool::new(false));
    let asked = may_open.clone();
    let claim =
        move || asked.load(Ordering::Relaxed).then_some(()).ok_or_else(|| io::Error::other("not yet"));
    let soon = Options { retry_interval: Duration::from_millis(10), ..options(dir.path()) };
    let journal = Journal::start(Arc::new(RealDisk), soon, claim).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let refused = runtime.block_on(journal.append(&payload(20)).durable());
    assert!(
        matches!(&refused, Err(AppendError::Disk(error)) if error.to_string() == "not yet"),
        "{refused:?}"
    );
    assert!(journal.streams().is_empty() && journal.stats() == Stats::default());
    may_open.store(true, Ordering::Relaxed);
    eventually("an open journal", || journal.is_writable());
    append(&journal, 20..25);
    assert_eq!(read_all(&journal, first.stream(), 0).0, (0..20).map(payload).collect::<Vec<_>>());
    assert_eq!(read_all(&journal, journal.stream(), 0).0, (20..25).map(payload).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_panic_of_the_journals_thread_ends_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::start(Arc::new(RealDisk), options(dir.path()), || panic!("on purpose")).unwrap();
    let mut tasks = crate::tasks::Tasks::default();
    let failed = tasks.failed();
    tasks.spawn("journal", crate::drain::watch(journal.clone(), tasks.stop_signal()));
    assert_eq!(tokio::time::timeout(Duration::from_secs(30), failed).await, Ok("journal"));
    assert!(!journal.is_writable() && journal.append(b"x").durable().await.is_err());
}

#[tokio::test]
async fn a_journal_that_is_closed_ends_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    journal.close();
    assert!(tokio::time::timeout(Duration::from_millis(50), journal.broken()).await.is_err());
}

#[test]
fn a_drained_segment_is_kept_from_the_moment_it_was_drained_however_old_it_is() {
    const KEEP: Duration = Duration::from_mins(1);
    const NEARLY: Duration = Duration::from_millis(59_999);
    let dir = tempfile::tempdir().unwrap();
    let kept = Options { keep_drained: KEEP, ..options(dir.path()) };
    let first = open(dir.path());
    append(&first, 0..300);
    first.close();
    let stream = first.stream();
    let long_ago = SystemTime::now() - Duration::from_hours(48);
    for segment in segments(&RealDisk, dir.path(), stream).unwrap() {
        let path = segment_path(dir.path(), stream, segment.first_seq);
        fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }
    let journal = Journal::open(Arc::new(RealDisk), kept).unwrap();
    let before = Instant::now();
    journal.set_drained(stream, 150);
    assert_eq!(journal.clean(before + NEARLY), 0, "drained just now");
    // a failover: it is not drained any more, and then it is again
    journal.set_drained(stream, 0);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(journal.clean(Instant::now() + KEEP * 2), 0, "not drained");
    let again = Instant::now();
    journal.set_drained(stream, 150);
    assert_eq!(journal.clean(again + NEARLY), 0, "drained just now, again");
    assert!(journal.clean(Instant::now() + KEEP) > 0);
    assert_eq!(read_all(&journal, stream, 150).0.len(), 150);
}

#[test]
fn what_an_erasure_left_unfinished_is_removed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    append(&first, 0..10);
    first.close();
    let left = last_segment(dir.path(), first.stream()).with_extension("new");
    fs::write(&left, "what was to be erased").unwrap();
    fs::write(dir.path().join("probe.new"), "").unwrap();
    let journal = open(dir.path());
    assert!(!left.exists() && !dir.path().join("probe.new").exists());
    assert_eq!(read_all(&journal, first.stream(), 0).0.len(), 10);
}

#[test]
fn a_renewed_watermark_begins_at_what_is_drained_and_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let stream = first.stream();
    assert_eq!(first.watermark(stream), Watermark { id: stream, from_seq: 0 });
    append(&first, 0..30);
    first.set_drained(stream, 7);
    let renewed = first.renew_watermark(stream).unwrap();
    assert!(renewed.id != stream && renewed.from_seq == 7, "{renewed:?}");
    first.set_drained(stream, 9);
    let again = first.renew_watermark(stream).unwrap();
    assert!(again.id != renewed.id && again.from_seq == 9, "{again:?}");
    first.close();
    let journal = open(dir.path());
    // a Postgres that does not know it gets all that is left
    assert_eq!(journal.watermark(stream), Watermark { id: again.id, from_seq: 0 });
    assert!(journal.is_beyond(stream, 31) && !journal.is_beyond(stream, 30));
    // with its stream it goes too
    journal.set_drained(stream, 30);
    journal.clean(Instant::now());
    assert!(!dir.path().join(stream.to_string()).exists());
}

#[test]
fn the_oldest_pending_record_is_the_first_of_the_oldest_stream_that_has_one() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    append(&first, 0..30);
    first.close();
    let journal = open(dir.path());
    append(&journal, 30..35);
    let place = || journal.oldest_pending().map(|oldest| (oldest.stream, oldest.seq, oldest.end_seq));
    assert_eq!(place(), Some((first.stream(), 0, 30)));
    journal.set_drained(first.stream(), 29);
    assert_eq!(place(), Some((first.stream(), 29, 30)));
    journal.set_drained(first.stream(), 30);
    assert_eq!(place(), Some((journal.stream(), 0, 5)));
    journal.set_drained(journal.stream(), 5);
    assert_eq!(place(), None);
}
