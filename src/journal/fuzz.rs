//! The journal's bytes, damaged at random: reading them never panics, always ends, and gives only records that were
//! written, each under its own sequence.

use std::{io, path::PathBuf, sync::Arc};

use proptest::prelude::*;

use super::{
    disk::{Disk, RealDisk},
    frame::{self, SEGMENT_HEAD},
    reader::Reader,
    segment::{scan, segment_path, stream_dir},
    *,
};

const STREAM: Uuid = Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0001);

/// What happens to a file.
#[derive(Debug, Clone)]
enum Damage {
    Flip(usize, u8),
    Cut(usize),
    Overwrite(usize, Vec<u8>),
    /// Bytes of the file itself, moved: whole frames in the wrong place.
    Copy(usize, usize, usize),
    Insert(usize, Vec<u8>),
    Append(Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..60);
    let at = any::<usize>;
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        at().prop_map(Damage::Cut),
        (at(), bytes()).prop_map(|(at, bytes)| Damage::Overwrite(at, bytes)),
        (at(), at(), 0..200_usize).prop_map(|(from, to, length)| Damage::Copy(from, to, length)),
        (at(), bytes()).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        bytes().prop_map(Damage::Append),
    ]
}

impl Damage {
    fn do_to(&self, bytes: &mut Vec<u8>) {
        let place = |at: usize, bytes: &[u8]| at % (bytes.len() + 1);
        match self {
            Self::Flip(at, bit) => {
                let at = place(*at, bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Cut(at) => bytes.truncate(place(*at, bytes)),
            Self::Overwrite(at, with) => {
                let at = place(*at, bytes);
                let end = (at + with.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&with[..end - at]);
            }
            Self::Copy(from, to, length) => {
                let (from, to) = (place(*from, bytes), place(*to, bytes));
                let length = (*length).min(bytes.len() - from.max(to));
                bytes.copy_within(from..from + length, to);
            }
            Self::Insert(at, more) => {
                let at = place(*at, bytes);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Append(more) => bytes.extend_from_slice(more),
        }
    }
}

/// A segment with these batches from `first_seq` on.
fn segment(batches: &[Vec<Vec<u8>>], first_seq: u64) -> Vec<u8> {
    let mut bytes = frame::segment_head(STREAM, first_seq).to_vec();
    let mut seq = first_seq;
    for batch in batches {
        let mut frames = Vec::new();
        for payload in batch {
            assert!(frame::push_with(&mut frames, |out| out.extend_from_slice(payload)));
        }
        seq += frame::seal(&mut frames, STREAM, seq);
        bytes.extend_from_slice(&frames);
    }
    bytes
}

/// Everything a reader gives, by its sequence where that can be told, and how far it came.
fn read(root: &std::path::Path, end_seq: u64) -> io::Result<Vec<(u64, Vec<Vec<u8>>)>> {
    let mut reader = Reader::new(Arc::new(RealDisk), PathBuf::from(root), STREAM, 0);
    let mut runs = Vec::new();
    while reader.next_seq() < end_seq {
        let batch = reader.read(end_seq, 5, 300)?;
        assert!(batch.hi > batch.lo, "the reader stands still at {}", batch.lo);
        assert_eq!(batch.hi, reader.next_seq());
        let lost: u64 = batch.damage.iter().map(|(_, _, records)| records).sum();
        assert_eq!(batch.hi - batch.lo, lost + batch.len() as u64, "records and losses add up");
        // damage comes before the records of a batch, never between them
        runs.push((batch.lo + lost, batch.payloads().map(<[u8]>::to_vec).collect()));
    }
    Ok(runs)
}

/// With `OCTO_PROOF=long` 100 times as many.
fn cases() -> u32 {
    if std::env::var("OCTO_PROOF").is_ok_and(|proof| proof == "long") { 50_000 } else { 500 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn a_damaged_segment_gives_only_what_was_written(
        batches in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 1..90), 1..5), 1..6),
        second in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 1..30), 1..3), 0..3),
        damages in prop::collection::vec(damage(), 0..5),
    ) {
        let written: Vec<Vec<u8>> = batches.iter().chain(&second).flatten().cloned().collect();
        let first_len = batches.iter().map(Vec::len).sum::<usize>() as u64;
        let mut bytes = segment(&batches, 0);
        for damage in &damages {
            damage.do_to(&mut bytes);
        }

        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(stream_dir(dir.path(), STREAM)).unwrap();
        std::fs::write(segment_path(dir.path(), STREAM, 0), &bytes).unwrap();
        if !second.is_empty() {
            std::fs::write(segment_path(dir.path(), STREAM, first_len), segment(&second, first_len)).unwrap();
        }
        let runs = read(dir.path(), written.len() as u64).unwrap();
        for (seq, payloads) in &runs {
            for (i, payload) in payloads.iter().enumerate() {
                let at = usize::try_from(*seq).unwrap() + i;
                prop_assert_eq!(Some(payload), written.get(at), "record {}", at);
            }
        }
        let given: usize = runs.iter().map(|(_, payloads)| payloads.len()).sum();
        if damages.is_empty() {
            prop_assert_eq!(given, written.len());
        } else {
            // the segment behind is whole, whatever became of the first
            prop_assert!(given >= written.len() - usize::try_from(first_len).unwrap());
        }

        let mut file = RealDisk.open(&segment_path(dir.path(), STREAM, 0)).unwrap();
        let found = scan(file.as_mut(), bytes.len() as u64, STREAM, 0, None).unwrap();
        prop_assert!(found.records <= first_len && found.end_seq <= first_len);
        prop_assert!(found.end_offset + found.torn_bytes <= bytes.len() as u64);
    }

    #[test]
    fn bytes_that_nobody_wrote_hold_no_record(bytes in prop::collection::vec(any::<u8>(), 0..600), with_head: bool) {
        let head = frame::segment_head(STREAM, 0);
        let bytes = if with_head { [&head[..], &bytes].concat() } else { bytes };
        prop_assert_eq!(frame::resync(&bytes, STREAM, 0, 0), None);
        let from = bytes.get(SEGMENT_HEAD..).unwrap_or_default();
        prop_assert!(frame::parse(from, STREAM).is_err());
        // a frame of another stream is no frame of this one
        let mut other = Vec::new();
        if frame::push_with(&mut other, |out| out.extend_from_slice(&bytes)) {
            frame::seal(&mut other, Uuid::from_u128(1), 0);
            prop_assert!(frame::parse(&other, STREAM).is_err());
            prop_assert_eq!(frame::resync(&other, STREAM, 0, 0), None);
        }
    }
}
