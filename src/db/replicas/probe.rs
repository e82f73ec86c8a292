//! Where a server is in the primary's log: asked on a connection of its own, so that a pool which is in full use
//! does not look like a server that is gone, and with a deadline of its own.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use sqlx::Row as _;
use tokio::time::timeout;

use crate::db::{pool::Pool, session::Session, statement::statements};

/// How many positions of the primary are remembered: ten minutes of one a second.
const POSITIONS_MAX: usize = 600;

statements! {
    // A position in the log (pg_lsn) is the number of bytes before it.
    PROBE = "replica.probe": "
SELECT
    pg_is_in_recovery() AS is_standby,
    (CASE
        WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0')
        ELSE pg_current_wal_flush_lsn()
    END - '0/0'::pg_lsn)::bigint AS position";
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Whether it follows a primary.
    pub is_standby: bool,
    /// The end of what it has replayed, or as the primary made durable, in bytes of the log.
    pub position: u64,
}

/// Asks one server again and again.
pub(in crate::db) struct Probe {
    pool: Pool,
    connection: Option<Session<'static>>,
    deadline: Duration,
}

impl Probe {
    pub(in crate::db) fn new(pool: &Pool, deadline: Duration) -> Self {
        Self { pool: pool.clone(), connection: None, deadline }
    }

    /// `None`: it did not answer in time. Then the next question is asked on a new connection.
    pub(in crate::db) async fn ask(&mut self) -> Option<Answer> {
        let mut connection = self.connection.take();
        let asking = async {
            let open = match connection.take() {
                Some(open) => open,
                None => self.pool.connect().await.ok()?,
            };
            ask(open).await
        };
        let (connection, answer) = timeout(self.deadline, asking).await.ok()??;
        self.connection = Some(connection);
        Some(answer)
    }
}

/// In one message (the simple protocol): outside of a transaction PgBouncer may part two.
async fn ask(mut connection: Session<'static>) -> Option<(Session<'static>, Answer)> {
    let row = PROBE.fetch_raw(&mut connection).await.ok()?;
    let (is_standby, position): (bool, i64) = (row.try_get(0).ok()?, row.try_get(1).ok()?);
    Some((connection, Answer { is_standby, position: u64::try_from(position).unwrap_or(0) }))
}

/// Where the primary was when. It turns a replica's position into a lag in seconds, in which an idle primary is no
/// lag, and needs no clock but ours.
#[derive(Debug, Default)]
pub struct History(VecDeque<(Instant, u64)>);

impl History {
    /// The primary is here now.
    pub fn push(&mut self, at: Instant, position: u64) {
        if self.0.back().is_some_and(|(_, last)| *last > position) {
            self.0.clear(); // another server is the primary now, and it is behind the old one
        }
        self.0.push_back((at, position));
        if self.0.len() > POSITIONS_MAX {
            self.0.pop_front();
        }
    }

    /// The last known position.
    pub fn latest(&self) -> u64 {
        self.0.back().map_or(0, |(_, position)| *position)
    }

    /// How long ago the primary went past `position`; 0 when it has not. Not more than is remembered.
    pub fn behind(&self, position: u64, now: Instant) -> Duration {
        let passed = self.0.partition_point(|(_, p)| *p <= position);
        self.0.get(passed).map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_time_since_the_primary_went_past() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut history = History::default();
        assert_eq!(history.behind(5, start), Duration::ZERO, "nothing is known");
        for (second, position) in [(0, 100), (1, 100), (2, 200), (3, 300), (9, 300)] {
            history.push(at(second), position);
        }
        assert_eq!(history.behind(300, at(9)), Duration::ZERO, "an idle primary is no lag");
        assert_eq!(history.behind(200, at(9)), Duration::from_secs(6));
        assert_eq!(history.behind(150, at(9)), Duration::from_secs(7));
        assert_eq!(history.behind(0, at(9)), Duration::from_secs(9));
        history.push(at(10), 250);
        assert_eq!((history.latest(), history.behind(250, at(11))), (250, Duration::ZERO));
    }
}
