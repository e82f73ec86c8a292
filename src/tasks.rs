//! Background tasks and how they end: every task has a name, hears the stop signal, and one that ends
//! early (an error or a panic) stops the process instead of leaving a half-working one.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{SetOnce, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Shut until it is opened, once; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<SetOnce<()>>);

impl Gate {
    /// Lets everybody through who waits, and who comes.
    pub fn open(&self) {
        let _ = self.0.set(()); // an error: it was open
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.0.initialized()
    }

    /// Waits until it is open.
    pub async fn opened(&self) {
        self.0.wait().await;
    }
}

/// The background tasks of a server.
pub struct Tasks {
    stop: CancellationToken,
    set: JoinSet<&'static str>,
    failed: watch::Sender<Option<&'static str>>,
    is_stopping: Arc<AtomicBool>,
}

impl Default for Tasks {
    fn default() -> Self {
        let failed = watch::Sender::new(None);
        Self { stop: CancellationToken::new(), set: JoinSet::new(), failed, is_stopping: Arc::default() }
    }
}

impl Tasks {
    /// The signal given to every task.
    pub fn stop_signal(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task that runs until the stop signal.
    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let guard = Guard { name, is_stopping: self.is_stopping.clone(), failed: self.failed.clone() };
        self.set.spawn(async move {
            let result = task.await;
            if let Err(error) = result {
                tracing::error!(task = name, error = format!("{error:#}"), "a background task failed");
            }
            drop(guard);
            name
        });
    }

    /// Starts a task that waits for a gate to open first. One that still waits at the stop signal does not run.
    pub fn spawn_after(
        &mut self,
        gate: &Gate,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let (gate, stop) = (gate.clone(), self.stop_signal());
        self.spawn(name, async move {
            if stop.run_until_cancelled(gate.opened()).await.is_none() {
                return Ok(());
            }
            task.await
        });
    }

    /// Resolves with the name of a task that ended before the stop signal.
    pub fn failed(&self) -> impl Future<Output = &'static str> + 'static {
        let mut failed = self.failed.subscribe();
        async move {
            loop {
                if let Some(name) = *failed.borrow_and_update() {
                    return name;
                }
                if failed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// From now on a task that ends is no failure.
    pub fn stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Gives the stop signal and waits for the tasks; those still running at the deadline are aborted.
    pub async fn stop(mut self, deadline: Duration) {
        self.stopping();
        self.stop.cancel();
        let all = async { while self.set.join_next().await.is_some() {} };
        if timeout(deadline, all).await.is_err() {
            tracing::warn!(tasks = self.set.len(), "background tasks did not end in time and were cut off");
            self.set.abort_all();
        }
    }
}

/// Tells when its task ends, however it ends.
struct Guard {
    name: &'static str,
    is_stopping: Arc<AtomicBool>,
    failed: watch::Sender<Option<&'static str>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.is_stopping.load(Ordering::Relaxed) {
            self.failed.send_replace(Some(self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_early_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("steady", async { std::future::pending().await });
        let failed = tasks.failed();
        tasks.spawn("fragile", async { panic!("on purpose") });
        assert_eq!(failed.await, "fragile");
        tasks.stop(Duration::from_millis(10)).await;
    }

    #[tokio::test]
    async fn a_task_behind_a_gate_runs_once_it_is_open_and_not_at_all_after_the_stop_signal() {
        let gate = Gate::default();
        let (ran, mut runs) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = Tasks::default();
        let (first, stop) = (ran.clone(), tasks.stop_signal());
        tasks.spawn_after(&gate, "first", async move {
            first.send("first")?;
            stop.cancelled().await;
            Ok(())
        });
        tokio::task::yield_now().await;
        assert!(runs.try_recv().is_err() && !gate.is_open());
        gate.open();
        gate.open();
        assert_eq!(runs.recv().await, Some("first"));
        tasks.spawn_after(&Gate::default(), "never", async move {
            ran.send("never")?;
            Ok(())
        });
        tasks.stop(Duration::from_secs(5)).await;
        assert_eq!(runs.recv().await, None, "its sender is gone unused");
    }

    #[tokio::test]
    async fn a_task_that_ends_at_the_signal_is_no_failure() {
        let mut tasks = Tasks::default();
        let stop = tasks.stop_signal();
        let failed = tasks.failed();
        tasks.spawn("polite", async move {
            stop.cancelled().await;
            Ok(())
        });
        tasks.stop(Duration::from_secs(1)).await;
        assert!(timeout(Duration::from_millis(20), failed).await.is_err());
    }
}
