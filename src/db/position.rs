//! Read your writes: a position in the primary's log goes out with the answer to a write, and a read that brings
//! it is answered by a server that has replayed so far.

use std::future::Future;

tokio::task_local! {
    static AT_LEAST: u64;
}

/// Runs `work`, whose reads see at least what was written up to `position` (bytes of the log).
pub async fn at_least<T>(position: u64, work: impl Future<Output = T>) -> T {
    AT_LEAST.scope(position, work).await
}

/// What the reads of the current task must see; 0 where nothing was asked for.
pub(super) fn needed() -> u64 {
    AT_LEAST.try_with(|position| *position).unwrap_or(0)
}

/// The same work, for a task of its own: its reads see what those of the current task see.
pub fn carried<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    at_least(needed(), work)
}

/// As Postgres writes a `pg_lsn`: two hexadecimal numbers, the upper and lower 32 bits.
pub fn to_text(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xFFFF_FFFF)
}

/// Reads what [`to_text`] writes.
pub fn from_text(text: &str) -> Option<u64> {
    let (upper, lower) = text.split_once('/')?;
    let part = |digits: &str| {
        let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit()); // not `+1`
        is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    Some(u64::from(part(upper)?) << 32 | u64::from(part(lower)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_written_as_postgres_does() {
        for (position, text) in [(0, "0/0"), (0x0300_0148, "0/3000148"), (0x0016_B374_D848, "16/B374D848")] {
            assert_eq!(to_text(position), text);
            assert_eq!(from_text(text), Some(position));
        }
        for bad in ["", "/", "0", "0/", "g/0", "+1/0", "0/0/0", "123456789/0"] {
            assert_eq!(from_text(bad), None, "{bad}");
        }
    }
}
