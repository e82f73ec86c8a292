//! A connection that statements run on. It knows whether they are kept prepared there, and tells the [`Monitor`] of each
//! one that runs, so that no statement is run under another name or past the figures.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use sqlx::{Connection as _, PgConnection, Postgres};
use tokio::time::timeout;

use super::{Statement, monitor::Monitor, pool::timed_out};

/// A connection, pooled or of its own, or the transaction it is in; what sqlx does with a [`PgConnection`] it does with
/// this.
pub struct Session<'c> {
    connection: Link<'c>,
    rules: Rules,
}

enum Link<'c> {
    Connection(PgConnection),
    Transaction(sqlx::Transaction<'c, Postgres>),
}

/// How statements run.
#[derive(Clone)]
struct Rules {
    monitor: Arc<Monitor>,
    is_prepared: bool,
    /// Of a pooled connection: what runs on it now, which is counted as a whole.
    whole: Option<Statement>,
    /// What each statement is held to: it ends by then.
    limit: Option<Duration>,
}

impl Rules {
    /// Runs `run` as this statement: within its limit, counted.
    async fn observe<T>(
        &self,
        statement: Statement,
        run: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        let running = self.bounded(run);
        match self.whole {
            None => self.monitor.observe(statement, running).await,
            Some(whole) if whole == statement => running.await,
            Some(_) => self.monitor.part(statement, running).await,
        }
    }

    async fn bounded<T>(&self, run: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        match self.limit {
            Some(limit) => timeout(limit, run).await.unwrap_or_else(|_| Err(timed_out())),
            None => run.await,
        }
    }
}

impl Session<'static> {
    /// `is_prepared`: statements are prepared once and kept by name. Not behind PgBouncer in transaction mode, where the
    /// next transaction may run on another server.
    pub(super) fn new(connection: PgConnection, is_prepared: bool, monitor: Arc<Monitor>) -> Self {
        let rules = Rules { monitor, is_prepared, whole: None, limit: None };
        Self { connection: Link::Connection(connection), rules }
    }

    /// What runs from now on is part of this statement, which whoever runs it counts as a whole.
    pub(super) fn run_for(&mut self, statement: Statement) {
        self.rules.whole = Some(statement);
    }

    /// Each statement that runs from now on ends by then.
    pub(super) fn limit(&mut self, limit: Duration) {
        self.rules.limit = Some(limit);
    }

    /// Says farewell and closes the connection.
    pub async fn close(self) -> sqlx::Result<()> {
        match self.connection {
            Link::Connection(connection) => connection.close().await,
            Link::Transaction(transaction) => transaction.rollback().await,
        }
    }
}

impl Session<'_> {
    /// Whether statements are kept prepared.
    pub(super) fn is_prepared(&self) -> bool {
        self.rules.is_prepared
    }

    /// Begins a transaction, or within one sets a savepoint.
    pub async fn begin(&mut self) -> sqlx::Result<Transaction<'_>> {
        let rules = self.rules.clone();
        let transaction = rules.bounded(self.connection.begin()).await?;
        Ok(Transaction(Session { connection: Link::Transaction(transaction), rules }))
    }

    /// Begins a transaction that sees one state of the database, and fails where others changed what it changes.
    pub(super) async fn begin_repeatable(&mut self) -> sqlx::Result<Transaction<'_>> {
        self.begin_as("BEGIN ISOLATION LEVEL REPEATABLE READ").await
    }

    /// Begins a transaction that only reads, and sees one state of the database.
    pub(super) async fn begin_snapshot(&mut self) -> sqlx::Result<Transaction<'_>> {
        self.begin_as("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await
    }

    async fn begin_as(&mut self, sql: &'static str) -> sqlx::Result<Transaction<'_>> {
        let rules = self.rules.clone();
        let begun = self.connection.begin_with(sql);
        let transaction = rules.bounded(begun).await?;
        Ok(Transaction(Session { connection: Link::Transaction(transaction), rules }))
    }

    /// Runs `run` as this statement: within its limit, counted.
    pub(super) async fn run<T>(
        &mut self,
        statement: Statement,
        run: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        self.rules.observe(statement, run(&mut self.connection)).await
    }
}

impl Deref for Session<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Session<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Deref for Link<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Connection(connection) => connection,
            Self::Transaction(transaction) => transaction,
        }
    }
}

impl DerefMut for Link<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Connection(connection) => connection,
            Self::Transaction(transaction) => transaction,
        }
    }
}

/// A transaction of a session, or a savepoint in one. Dropped, it is rolled back with the next statement.
pub struct Transaction<'c>(Session<'c>);

impl Transaction<'_> {
    /// Makes it last.
    pub async fn commit(self) -> sqlx::Result<()> {
        let Session { connection, rules } = self.0;
        rules.bounded(connection.commit()).await
    }

    /// [`Transaction::commit`], counted as this statement.
    pub(super) async fn commit_as(self, statement: Statement) -> sqlx::Result<()> {
        let Session { connection, rules } = self.0;
        rules.observe(statement, connection.commit()).await
    }

    /// Takes it back.
    pub async fn rollback(self) -> sqlx::Result<()> {
        let Session { connection, rules } = self.0;
        rules.bounded(connection.rollback()).await
    }
}

impl Link<'_> {
    async fn commit(self) -> sqlx::Result<()> {
        match self {
            Self::Connection(_) => Ok(()),
            Self::Transaction(transaction) => transaction.commit().await,
        }
    }

    async fn rollback(self) -> sqlx::Result<()> {
        match self {
            Self::Connection(_) => Ok(()),
            Self::Transaction(transaction) => transaction.rollback().await,
        }
    }
}

impl<'c> Deref for Transaction<'c> {
    type Target = Session<'c>;

    fn deref(&self) -> &Session<'c> {
        &self.0
    }
}

impl<'c> DerefMut for Transaction<'c> {
    fn deref_mut(&mut self) -> &mut Session<'c> {
        &mut self.0
    }
}
