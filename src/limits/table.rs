//! The state of a limit: a table of fixed size, so that no number of addresses can fill the memory.
//!
//! It is made of sets of [`WAYS`] slots. An address has one set; a new one takes the slot there that is
//! forgiven first, which a free slot is already. So nothing has to be pruned, passers-by push out each other
//! before they push out an address over its limit, and a look-up is one lock, shared by the addresses of one
//! set only, and a walk over two cache lines. Which addresses share a set is secret and changes with each
//! start.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use governor::{nanos::Nanos, state::StateStore};

/// Slots of a set.
const WAYS: usize = 8;

/// An address and when its bucket is full again, in nanoseconds since the start; 0: the slot is free.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: u64,
    full_at: u64,
}

pub(super) struct Table {
    sets: Box<[Mutex<[Slot; WAYS]>]>,
    hasher: RandomState,
}

impl Table {
    /// A table of `addresses` slots, rounded up to whole sets: 17 bytes each.
    pub(super) fn new(addresses: usize) -> Self {
        let sets = addresses.div_ceil(WAYS).max(1);
        Self { sets: (0..sets).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// Runs `decide` on the state of `key`; what it answers is kept if `is_kept`.
    fn measure<T, E>(
        &self,
        key: u64,
        is_kept: bool,
        decide: impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    ) -> Result<T, E> {
        let place = self.hasher.hash_one(key) % self.sets.len() as u64;
        let set = &self.sets[usize::try_from(place).expect("less than the number of sets")];
        let mut slots = set.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = slots.iter_mut().find(|slot| slot.full_at > 0 && slot.key == key);
        let full_at = of_key.as_ref().map(|slot| Duration::from_nanos(slot.full_at).into());
        let (answer, next) = decide(full_at)?;
        let first_forgiven = match of_key {
            Some(slot) => Some(slot),
            None => slots.iter_mut().min_by_key(|slot| slot.full_at),
        };
        if let Some(slot) = first_forgiven.filter(|_| is_kept) {
            *slot = Slot { key, full_at: next.as_u64() };
        }
        Ok(answer)
    }
}

/// The table, for a limiter that counts.
pub(super) struct Counting(pub(super) Arc<Table>);

/// The table, for a limiter that only says what would be if it counted.
pub(super) struct Looking(pub(super) Arc<Table>);

impl StateStore for Counting {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure(*key, true, f)
    }
}

impl StateStore for Looking {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure(*key, false, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_takes_17_bytes() {
        assert_eq!(size_of::<Mutex<[Slot; WAYS]>>(), 17 * WAYS);
    }
}
