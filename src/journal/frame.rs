//! One record on disk, and the head of a segment.
//!
//! ```text
//! segment = "OCTOJRNL" | version u32 | crc32c u32 | stream 16 bytes | first_seq u64 | frame*     40 bytes, then frames
//! frame   = length u32 | crc32c u32 | seq u64 | payload                                          16 bytes, then payload
//! ```
//! All little-endian. The checksum (CRC-32C, RFC 3720 appendix B.4) covers every other byte of the head or
//! frame and the stream's id, so bytes of another stream or an older file never pass for a frame of this one.
//! The top bit of `length` marks the first frame of a batch: a batch is only begun after everything before
//! it was synced, so a good marked frame *behind* a bad one proves that the bad one had been synced once
//! (corruption), and its absence that it had not (a torn tail, never acknowledged).

use uuid::Uuid;

/// Bytes before a payload.
pub(super) const FRAME_HEAD: usize = 16;
/// Bytes before the first frame of a segment.
pub(super) const SEGMENT_HEAD: usize = 40;
/// Largest payload.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

const FIRST_OF_BATCH: u32 = 1 << 31;
const MAGIC: &[u8; 8] = b"OCTOJRNL";
const VERSION: u32 = 1;

/// A frame that passed its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) seq: u64,
    pub(super) is_first_of_batch: bool,
    pub(super) payload: &'a [u8],
}

impl Frame<'_> {
    /// Bytes on disk.
    pub(super) fn len(&self) -> usize {
        FRAME_HEAD + self.payload.len()
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoFrame {
    /// More bytes are needed to tell.
    Incomplete,
    /// They cannot become one.
    Bad,
}

/// Appends an unsealed frame: length and payload, the rest is filled in by [`seal`]. `false`, and nothing is
/// appended, for a payload that is empty or over [`PAYLOAD_BYTES_MAX`].
pub(super) fn push_with(buffer: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> bool {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME_HEAD]);
    write(buffer);
    let length = buffer.len() - start - FRAME_HEAD;
    let word = u32::try_from(length).ok().filter(|_| (1..=PAYLOAD_BYTES_MAX).contains(&length));
    match word {
        Some(word) => buffer[start..start + 4].copy_from_slice(&word.to_le_bytes()),
        None => buffer.truncate(start),
    }
    word.is_some()
}

/// Numbers and checksums the unsealed frames of one batch from `first_seq` on; returns how many.
pub(super) fn seal(batch: &mut [u8], stream: Uuid, first_seq: u64) -> u64 {
    let mut seq = first_seq;
    let mut rest = batch;
    while rest.len() >= FRAME_HEAD {
        let length = u32_at(rest, 0) & !FIRST_OF_BATCH;
        let (frame, tail) = rest.split_at_mut(FRAME_HEAD + length as usize);
        let word = if seq == first_seq { length | FIRST_OF_BATCH } else { length };
        frame[..4].copy_from_slice(&word.to_le_bytes());
        frame[8..16].copy_from_slice(&seq.to_le_bytes());
        let crc = checksum(stream, frame);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        seq += 1;
        rest = tail;
    }
    seq - first_seq
}

/// Gives a frame whose payload was changed its checksum again.
pub(super) fn reseal(frame: &mut [u8], stream: Uuid) {
    let crc = checksum(stream, frame);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the frame at the start of `bytes`.
pub(super) fn parse(bytes: &[u8], stream: Uuid) -> Result<Frame<'_>, NoFrame> {
    if bytes.len() < FRAME_HEAD {
        return Err(NoFrame::Incomplete);
    }
    let word = u32_at(bytes, 0);
    let length = (word & !FIRST_OF_BATCH) as usize;
    if length == 0 || length > PAYLOAD_BYTES_MAX {
        return Err(NoFrame::Bad);
    }
    let frame = bytes.get(..FRAME_HEAD + length).ok_or(NoFrame::Incomplete)?;
    if u32_at(frame, 4) != checksum(stream, frame) {
        return Err(NoFrame::Bad);
    }
    let is_first_of_batch = word & FIRST_OF_BATCH != 0;
    Ok(Frame { seq: u64_at(frame, 8), is_first_of_batch, payload: &frame[FRAME_HEAD..] })
}

/// The first good frame at or behind `from` with a sequence of `least` or more: its offset and itself.
pub(super) fn resync(bytes: &[u8], stream: Uuid, from: usize, least: u64) -> Option<(usize, Frame<'_>)> {
    let most = (bytes.len() / FRAME_HEAD) as u64;
    (from..bytes.len().saturating_sub(FRAME_HEAD)).find_map(|at| {
        // a cheap look at the sequence before the checksum: a frame further on cannot be far ahead
        let seq = u64_at(&bytes[at..], 8);
        let near = seq >= least && seq - least <= most;
        let frame = near.then(|| parse(&bytes[at..], stream).ok()).flatten()?;
        Some((at, frame))
    })
}

/// The head of a new segment.
pub(super) fn segment_head(stream: Uuid, first_seq: u64) -> [u8; SEGMENT_HEAD] {
    let mut head = [0; SEGMENT_HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[16..32].copy_from_slice(stream.as_bytes());
    head[32..40].copy_from_slice(&first_seq.to_le_bytes());
    let crc = head_checksum(&head);
    head[12..16].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Whether `bytes` begin with the head of this segment.
pub(super) fn is_segment_head(bytes: &[u8], stream: Uuid, first_seq: u64) -> bool {
    bytes.get(..SEGMENT_HEAD).is_some_and(|head| head == segment_head(stream, first_seq))
}

fn checksum(stream: Uuid, frame: &[u8]) -> u32 {
    let crc = crc32c::crc32c(stream.as_bytes());
    let crc = crc32c::crc32c_append(crc, &frame[..4]);
    crc32c::crc32c_append(crc, &frame[8..])
}

fn head_checksum(head: &[u8; SEGMENT_HEAD]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[..12]), &head[16..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: Uuid = Uuid::from_u128(7);

    fn batch(payloads: &[&[u8]], first_seq: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for payload in payloads {
            assert!(push_with(&mut bytes, |out| out.extend_from_slice(payload)));
        }
        assert_eq!(seal(&mut bytes, STREAM, first_seq), payloads.len() as u64);
        bytes
    }

    #[test]
    fn frames_read_back_in_order_and_the_first_is_marked() {
        let bytes = batch(&[b"one", b"two"], 5);
        let one = parse(&bytes, STREAM).unwrap();
        assert_eq!((one.seq, one.is_first_of_batch, one.payload), (5, true, &b"one"[..]));
        let two = parse(&bytes[one.len()..], STREAM).unwrap();
        assert_eq!((two.seq, two.is_first_of_batch, two.payload), (6, false, &b"two"[..]));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_seen() {
        let bytes = batch(&[b"payload"], 1);
        for bit in 0..bytes.len() * 8 {
            let mut copy = bytes.clone();
            copy[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&copy, STREAM).is_err(), "bit {bit}");
        }
        assert_eq!(parse(&bytes, Uuid::from_u128(8)), Err(NoFrame::Bad));
    }

    #[test]
    fn every_cut_is_incomplete() {
        let bytes = batch(&[b"payload"], 1);
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut], STREAM), Err(NoFrame::Incomplete), "cut {cut}");
        }
    }

    #[test]
    fn a_good_frame_behind_a_bad_one_is_found() {
        let mut bytes = batch(&[b"aaaa", b"bbbb", b"cccc"], 1);
        bytes[25] ^= 0xff; // the length of the second
        let (at, frame) = resync(&bytes, STREAM, 21, 2).unwrap();
        assert_eq!((at, frame.seq, frame.payload), (40, 3, &b"cccc"[..]));
    }
}
