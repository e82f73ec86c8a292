//! The records of one write, and the tasks that wait for it: one allocation for all of them, and one lock.

use std::{
    mem,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use super::{AppendError, lock};

/// Everything that goes to disk with one sync.
#[derive(Debug, Default)]
pub(super) struct Group(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Sequence of the first record, once all of them are on disk.
    outcome: Option<Result<u64, AppendError>>,
    wakers: Vec<Waker>,
}

impl Group {
    /// Tells everyone who waits. Only the first answer counts.
    pub(super) fn answer(&self, outcome: Result<u64, AppendError>) {
        let mut waiting = lock(&self.0);
        waiting.outcome.get_or_insert(outcome);
        let wakers = mem::take(&mut waiting.wakers);
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The place of the record that is `index` records behind the first.
    pub(super) fn place(self: &Arc<Self>, index: usize) -> Place {
        Place { group: self.clone(), index: index as u64, waker: None }
    }
}

/// One record's place in a group.
#[derive(Debug)]
pub(super) struct Place {
    group: Arc<Group>,
    index: u64,
    /// Where our waker is, once it was left there.
    waker: Option<usize>,
}

impl Place {
    /// The record's sequence, once it is on disk.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<Result<u64, AppendError>> {
        let mut waiting = lock(&self.group.0);
        if let Some(outcome) = &waiting.outcome {
            return Poll::Ready(outcome.clone().map(|first_seq| first_seq + self.index));
        }
        if let Some(at) = self.waker {
            waiting.wakers[at].clone_from(context.waker());
        } else {
            self.waker = Some(waiting.wakers.len());
            waiting.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}
