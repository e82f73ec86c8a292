//! The stop: what asks for it, and its order.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::start::Listening;
use crate::{app::App, tasks::Tasks};

/// The first signal drains, the second forces. A hang-up (SIGHUP) drains like the others, but it never forces: a
/// terminal that closes sends several.
pub(super) fn on_signals() -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = if is_hang_up_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
    let stop = CancellationToken::new();
    let heard = stop.clone();
    #[expect(clippy::disallowed_methods, reason = "must live as long as the process, past every other task")]
    tokio::spawn(async move {
        loop {
            let forces = tokio::select! {
                _ = interrupt.recv() => true,
                _ = terminate.recv() => true,
                () = hung_up(&mut hang_up) => false,
            };
            if !heard.is_cancelled() {
                tracing::info!("stopping; a second signal ends octo at once");
                heard.cancel();
            } else if forces {
                tracing::warn!("forced to stop; every answered click is safe in the journal");
                std::process::exit(1);
            }
        }
    });
    Ok(stop)
}

async fn hung_up(hang_up: &mut Option<Signal>) {
    match hang_up {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// nohup(1) has the signal ignored before it starts us, and means it. Where there is no `/proc`, it is not known.
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// Readiness says no and each answer ends its connection; the listener closes, requests finish, the journal commits,
/// the drain empties it, connections close: each within what is left of the deadline.
pub(super) async fn shut_down(app: &App, tasks: Tasks, listening: Listening) {
    let Listening { connections, accepting } = listening;
    let config = &app.config.server;
    app.state.is_stopping.store(true, Ordering::Relaxed);
    tokio::join!(sleep(config.drain_delay), connections.wind_down(config.keep_alive_drain));
    let deadline = Instant::now() + config.shutdown_timeout;
    let left = || deadline.saturating_duration_since(Instant::now());
    // from here on a listener that ends is no failure
    tasks.stopping();
    accepting.cancel();
    connections.finish(left()).await;
    let journal = app.journal.clone();
    let closed = tokio::task::spawn_blocking(move || journal.close());
    if timeout(left(), closed).await.is_err() {
        tracing::error!("the last records of the journal were not written to disk in time");
    }
    tasks.stop(left().max(Duration::from_secs(1))).await;
    let pending = app.journal.stats().pending_records;
    if pending > 0 {
        tracing::info!(pending, "records are safe in the journal and will be stored at the next start");
    }
    close_database(app).await;
    tracing::info!("stopped");
}

/// Closes the pools and stops the private PostgreSQL, after everybody who works with it.
pub(super) async fn close_database(app: &App) {
    app.db.close();
    if let Some(private) = &app.private_postgres
        && let Err(error) = private.stop().await
    {
        tracing::warn!(%error, "the private PostgreSQL could not be stopped");
    }
}
