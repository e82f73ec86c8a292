//! The order of things: listen, start, serve, stop.

mod announce;
mod first_run;
mod notify;
mod start;
mod stop;

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{app::App, config::Config, net::descriptors, tasks::Tasks, telemetry::Metrics};
pub use crate::{
    app::{CannotStart, database_url},
    net::listeners::Inherited,
};
pub use announce::{dashboard_url, sign_in_link};
use notify::Manager;
use start::{Gates, Listening};

/// How long the tasks of a start that is given up may take to end.
const GIVE_UP_LIMIT: Duration = Duration::from_secs(1);

/// Serves until a signal, then stops in order.
pub async fn run(mut config: Config, inherited: Inherited) -> anyhow::Result<()> {
    let started = Instant::now();
    let stop = stop::on_signals()?;
    let metrics = Metrics::install()?;
    let manager = Arc::new(Manager::from_env());
    let lock_wait = if inherited.is_any() { config.journal.lock_wait } else { Duration::ZERO };
    let (public, admin) = inherited.listen(&mut config.server)?;
    let connections_max = descriptors::connections_max(&config);
    let lock = start::lock_data_dir(&config, lock_wait, &manager).await?;
    let public_url = announce::public_url(&config, &public.socket)?;
    let (app, new_visits) = App::build(config, lock, metrics, public_url)?;

    let mut tasks = Tasks::default();
    let gates = Gates::default();
    start::spawn_tasks(&app, &mut tasks, &gates, &manager, new_visits);
    if app.campaigns.state().0 == 0
        && let Err(error) = first_run_or_end(&app, &tasks, &gates, &stop).await
    {
        tasks.stop(GIVE_UP_LIMIT).await;
        stop::close_database(&app).await;
        return if stop.is_cancelled() { Ok(()) } else { Err(error) };
    }
    gates.first_run.open();
    // before the listeners: whoever waited in the queue of an inherited socket is not told "starting"
    app.state.is_started.store(true, Ordering::Relaxed);
    let listening = Listening::start(&app, &mut tasks, connections_max, public, admin)?;
    let took = started.elapsed();
    manager.ready(&format!("serving {} campaigns", app.campaigns.state().0));

    let announcing = async {
        announce::once_decided(&app, took).await;
        std::future::pending::<()>().await;
    };
    let failed = tokio::select! {
        () = stop.cancelled() => None,
        name = tasks.failed() => Some(name),
        () = announcing => None,
    };
    manager.stopping();
    stop::shut_down(&app, tasks, listening).await;
    match failed {
        Some(name) => Err(ended(name)),
        None => Ok(()),
    }
}

/// There is nothing to redirect yet, and whoever comes waits in the listener's queue.
async fn first_run_or_end(
    app: &App,
    tasks: &Tasks,
    gates: &Gates,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    tokio::select! {
        done = first_run::run(app, &gates.schema_ready) => done,
        () = stop.cancelled() => anyhow::bail!("told to stop"),
        name = tasks.failed() => Err(ended(name)),
    }
}

fn ended(task: &str) -> anyhow::Error {
    anyhow::anyhow!("the background task {task} ended unexpectedly; see the log")
}

/// Blocks the current thread on a server of this configuration.
pub fn block_on(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(run);
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}
