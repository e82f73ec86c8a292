//! Bind, start, serve, stop: the only file that knows the order.

mod connection;
mod database;
mod descriptors;
mod framing;
mod listeners;
mod notify;
mod proxy_protocol;

use std::{
    future::Future,
    io::IsTerminal,
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use ::http::HeaderValue;
use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Admission,
    app::{App, Parts, State},
    cache::{Campaigns, Source},
    config::{Config, millis},
    db::Db,
    drain,
    embedded::Embedded,
    enrich::{Enricher, NewVisit, Visits},
    erasure, http,
    journal::{Journal, Lock, Options, disk::RealDisk},
    limits::Limits,
    shutdown::Tasks,
    telemetry::Metrics,
};
use connection::{Connections, Hall};
pub use listeners::Inherited;
use listeners::Listener;
use notify::Manager;

/// Why octo did not start: one plain sentence with the remedy. Exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CannotStart(pub String);

/// Serves until a signal, then stops in order.
pub async fn run(mut config: Config, inherited: Inherited) -> anyhow::Result<()> {
    let started = Instant::now();
    let stop = listen_for_signals()?;
    let metrics = Metrics::install()?;
    let manager = Arc::new(Manager::from_env());
    let lock_wait = millis(if inherited.is_any() { config.journal.lock_wait_ms } else { 0 });
    let (listener, admin_listener) = inherited.listen(&mut config.server)?;
    let connections_max = descriptors::connections_max(&config);
    let _lock = lock_journal(&config, lock_wait, &manager).await?;
    let journal = open_journal(&config)?;
    let embedded = start_embedded(&config).await?;
    let url = database_url(&config, embedded.as_ref())?;
    let db = Arc::new(Db::new(&url, &config.database).context("database.url")?);
    let campaigns = Arc::new(Campaigns::new(db.clone(), &config)?);
    let enricher = Enricher::open(config.tracking.country_file.as_deref())
        .map_err(|e| CannotStart(format!("tracking.country_file: {:#}", anyhow::Error::from(e))))?;
    let (told, telling) = mpsc::channel(config.tracking.duplicate_share_max);
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|e| anyhow::anyhow!("the system has no random numbers: {e}"))?;
    let visits = Visits::open(&config, key, campaigns.has_redis().then_some(told)).map_err(|e| {
        CannotStart(format!("tracking.datacenter_networks_file: {:#}", anyhow::Error::from(e)))
    })?;
    let public_url = public_url(&config, listener.socket.local_addr()?);
    let referrer_policy =
        HeaderValue::from_str(&config.tracking.referrer_policy).ok().filter(|v| !v.is_empty());
    let limits = Limits::new(&config.limits);
    let admission = Arc::new(Admission::new(&config.admission, config.journal.max_bytes));
    let app: App = Arc::new(Parts {
        config,
        db,
        campaigns,
        statistics: Arc::default(),
        journal,
        admission,
        enricher,
        limits,
        visits: Arc::new(visits),
        metrics,
        state: State::default(),
        public_url,
        referrer_policy,
    });

    let mut tasks = Tasks::default();
    let is_up = database::prepare(&app, embedded.is_some()).await?;
    spawn_tasks(&app, &mut tasks, is_up, embedded.is_some());
    let watched = (manager.clone(), tasks.stop_signal());
    tasks.spawn("watchdog", async move {
        let (manager, stop) = watched;
        manager.watch(stop).await;
        Ok(())
    });
    spawn_sharing(&app, &mut tasks, telling);
    app.db.probed().await;
    // before the listeners: whoever waited in the queue of an inherited socket is not told "starting"
    app.state.is_started.store(true, Ordering::Relaxed);
    let connections = Connections::new(&app.config.server, connections_max);
    let accepting = CancellationToken::new();
    serve(&mut tasks, &connections, listener, Hall::Public, http::Service::public(&app), &accepting)?;
    if let Some(listener) = admin_listener {
        serve(&mut tasks, &connections, listener, Hall::Admin, http::Service::admin(&app), &accepting)?;
    }
    announce(&app, embedded.as_ref(), is_up, started.elapsed()).await;
    manager.ready(&format!("redirecting the clicks of {} campaigns", app.campaigns.state().0));

    let failed = tokio::select! {
        () = stop.cancelled() => None,
        name = tasks.failed() => Some(name),
    };
    manager.stopping();
    shut_down(&app, tasks, connections, &accepting, embedded).await;
    match failed {
        Some(name) => anyhow::bail!("the task {name} ended by itself; see the log"),
        None => Ok(()),
    }
}

/// The first signal drains, the second forces.
fn listen_for_signals() -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let heard = stop.clone();
    #[expect(clippy::disallowed_methods, reason = "must live as long as the process, past every other task")]
    tokio::spawn(async move {
        for round in 0.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if round == 0 {
                tracing::info!("stopping; a second signal forces");
                heard.cancel();
            } else {
                tracing::warn!("forced to stop; what was answered is safe in the journal");
                std::process::exit(1);
            }
        }
    });
    Ok(stop)
}

/// The right to the data directory. With an inherited socket there may be a predecessor that is about to give it up;
/// meanwhile the socket's queue holds whoever comes.
async fn lock_journal(config: &Config, wait: Duration, manager: &Manager) -> anyhow::Result<Lock> {
    let root = config.journal_dir();
    let deadline = Instant::now() + wait;
    let mut is_told = false;
    loop {
        if let Some(lock) = Lock::acquire(&root).map_err(|error| cannot_write(&root, &error))? {
            return Ok(lock);
        }
        if Instant::now() >= deadline {
            let place = root.display();
            return Err(CannotStart(format!(
                "{place} is in use by another octo; stop it or choose another --data-dir"
            ))
            .into());
        }
        if !is_told {
            is_told = true;
            tracing::info!("waiting for the octo before to give up {}", root.display());
            manager.status("waiting for the octo before to give up the data directory");
        }
        sleep(Duration::from_millis(5)).await;
    }
}

fn cannot_write(root: &Path, error: &std::io::Error) -> CannotStart {
    let root = root.display();
    CannotStart(format!(
        "the journal in {root} cannot be written ({error}); check the disk and the rights, or set journal.dir"
    ))
}

fn open_journal(config: &Config) -> anyhow::Result<Journal> {
    let root = config.journal_dir();
    let options = Options {
        root: root.clone(),
        segment_bytes: config.journal.segment_bytes,
        bytes_max: config.journal.max_bytes,
        queue_records_max: config.journal.queue_records_max,
        queue_bytes_max: config.journal.queue_bytes_max,
        keep_drained: Duration::from_secs(config.journal.keep_drained_s),
    };
    Ok(Journal::open(Arc::new(RealDisk), options).map_err(|error| cannot_write(&root, &error))?)
}

async fn start_embedded(config: &Config) -> anyhow::Result<Option<Embedded>> {
    if config.database.url.is_some() {
        return Ok(None);
    }
    let embedded = Embedded::start(&config.server.data_dir).await;
    embedded.map(Some).map_err(|error| CannotStart(format!("{:#}", anyhow::Error::from(error))).into())
}

/// The configured primary, else the embedded one.
pub fn database_url(config: &Config, embedded: Option<&Embedded>) -> anyhow::Result<SecretString> {
    match (&config.database.url, embedded) {
        (Some(url), _) => Ok(url.clone()),
        (None, Some(embedded)) => Ok(embedded.url().into()),
        (None, None) => anyhow::bail!("no database is configured"),
    }
}

fn public_url(config: &Config, listening: SocketAddr) -> String {
    match &config.server.public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => format!("http://{listening}"),
    }
}

fn spawn_tasks(app: &App, tasks: &mut Tasks, is_up: bool, is_embedded: bool) {
    let stop = tasks.stop_signal();
    let ready = Arc::new(Semaphore::new(0));
    tasks.spawn("database-watch", app.db.clone().watch(stop.clone()));
    tasks.spawn("campaigns", app.campaigns.clone().run(stop.clone()));
    tasks.spawn("campaign-notifications", app.campaigns.clone().listen(stop.clone()));
    tasks.spawn("campaign-redis", app.campaigns.clone().keep_redis(stop.clone()));
    tasks.spawn("database", database::keep(app.clone(), is_up, is_embedded, ready.clone(), stop.clone()));
    let drain = drain::run(app.journal.clone(), app.db.clone(), app.config.drain.clone(), stop.clone());
    let (stopping, migrated) = (stop.clone(), ready.clone());
    tasks.spawn("drain", async move {
        // rows go into a schema that is there, into partitions that are made
        tokio::select! {
            permit = migrated.acquire() => drop(permit),
            () = stopping.cancelled() => return Ok(()),
        }
        drain.await
    });
    let interval = Duration::from_secs(app.config.privacy.erasure_interval_s);
    tasks.spawn("erasures", erasure::run(app.journal.clone(), app.db.clone(), interval, stop.clone()));
    let (house, stopping, migrated) = (app.clone(), stop.clone(), ready);
    tasks.spawn("idempotency-house", async move {
        tokio::select! {
            permit = migrated.acquire() => drop(permit),
            () = stopping.cancelled() => return Ok(()),
        }
        http::idempotency::keep_house(house, stopping).await
    });
    tasks.spawn("journal-house", drain::keep_house(app.journal.clone(), stop.clone()));
    let (journal, admission) = (app.journal.clone(), app.admission.clone());
    let (journal_dir, queue_records_max) = (app.config.journal_dir(), app.config.journal.queue_records_max);
    tasks.spawn("admission", admission.run(journal, journal_dir, queue_records_max, stop.clone()));
    let statistics = app.statistics.clone().run(app.db.clone(), app.config.database.clone(), stop.clone());
    tasks.spawn("database-statistics", statistics);
    tasks.spawn("metrics-upkeep", app.metrics.clone().keep(app.config.journal_dir(), stop));
}

/// First clicks of visits go to the other nodes and come from them, where there is a window and a way.
fn spawn_sharing(app: &App, tasks: &mut Tasks, telling: mpsc::Receiver<NewVisit>) {
    if app.config.tracking.duplicate_window_s == 0 || !app.campaigns.has_redis() {
        return;
    }
    let stop = tasks.stop_signal();
    let interval = millis(app.config.tracking.duplicate_share_ms);
    tasks.spawn("visits-tell", app.campaigns.clone().tell_visits(telling, interval, stop.clone()));
    tasks.spawn("visits-hear", app.campaigns.clone().hear_visits(app.visits.clone(), stop));
}

fn serve(
    tasks: &mut Tasks,
    connections: &Connections,
    listener: Listener,
    hall: Hall,
    service: http::Service,
    accepting: &CancellationToken,
) -> anyhow::Result<()> {
    let address = listener.socket.local_addr()?;
    tracing::info!("listening on http://{address}");
    let accept = connections.accept(listener, hall, service, accepting.clone());
    tasks.spawn("listener", async move {
        accept.await;
        Ok(())
    });
    Ok(())
}

/// Readiness says no and each answer ends its connection; the listener closes, requests finish, the journal commits,
/// the drain empties it, connections close: each within what is left of the deadline.
async fn shut_down(
    app: &App,
    tasks: Tasks,
    connections: Connections,
    accepting: &CancellationToken,
    embedded: Option<Embedded>,
) {
    app.state.is_stopping.store(true, Ordering::Relaxed);
    let drain_delay = sleep(millis(app.config.server.drain_delay_ms));
    tokio::join!(drain_delay, connections.wind_down(millis(app.config.server.keep_alive_drain_ms)));
    let deadline = Instant::now() + millis(app.config.server.shutdown_timeout_ms);
    let left = || deadline.saturating_duration_since(Instant::now());
    // from here on a listener that ends is no failure
    tasks.stopping();
    accepting.cancel();
    connections.finish(left()).await;
    let journal = app.journal.clone();
    let closed = tokio::task::spawn_blocking(move || journal.close());
    if timeout(left(), closed).await.is_err() {
        tracing::error!("the disk did not take the last records of the journal in time");
    }
    tasks.stop(left().max(Duration::from_secs(1))).await;
    let pending = app.journal.stats().pending_records;
    if pending > 0 {
        tracing::info!(pending, "records are safe in the journal and will be stored at the next start");
    }
    app.db.close();
    if let Some(embedded) = embedded
        && let Err(error) = embedded.stop().await
    {
        tracing::warn!(%error, "PostgreSQL was not stopped");
    }
    tracing::info!("stopped");
}

/// The last lines at start: what runs where, and how to go on.
async fn announce(app: &App, embedded: Option<&Embedded>, is_up: bool, took: Duration) {
    let postgres = if let Some(embedded) = embedded {
        format!("private, only for octo; data in {}", embedded.data_path().display())
    } else {
        let replicas = app.db.replicas().len();
        let state = if is_up { "" } else { "; DOES NOT ANSWER, clicks wait in the journal" };
        format!("{}, {replicas} replicas{state}", app.db.primary().server())
    };
    let redis = redis_place(&app.config.redis);
    let (count, source) = app.campaigns.state();
    let campaigns = match source {
        Source::Disk => format!("{count}, saved by an earlier start"),
        _ => count.to_string(),
    };
    let demo = database::DEMO_KEY;
    let data_dir = &app.config.server.data_dir;
    let data = std::fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.clone());
    let mut lines = vec![
        ("public URL", app.public_url.clone()),
        ("PostgreSQL", postgres),
        ("Redis", redis),
        ("campaigns", campaigns),
        ("countries", app.enricher.country_source().to_owned()),
        ("data", format!("{} (journal: {})", data.display(), app.config.journal_dir().display())),
    ];
    if embedded.is_some() {
        let has_demo = match demo.parse() {
            Ok(key) => matches!(app.campaigns.get(&key).await, crate::cache::Lookup::Found(_)),
            Err(_) => false,
        };
        if has_demo {
            lines.push(("click link", format!("{}/click?cid={demo}", app.public_url)));
        }
        lines.push((
            "admin token",
            admin_token_line(data_dir, app.state.has_new_token.load(Ordering::Relaxed)),
        ));
    } else {
        lines.push(("admin token", "make one with `octo token create --scope admin`".to_owned()));
    }
    if std::io::stderr().is_terminal() || app.config.log.format == crate::config::LogFormat::Text {
        eprintln!("\nocto {} is ready after {:.1} s", env!("CARGO_PKG_VERSION"), took.as_secs_f64());
        for (name, value) in &lines {
            eprintln!("  {name:<12} {value}");
        }
        eprintln!();
    } else {
        tracing::info!(took_ms = took.as_millis(), postgres = lines[1].1, "ready");
    }
}

/// A token is shown once: log files are read by many.
fn admin_token_line(data_dir: &Path, is_new: bool) -> String {
    let file = database::token_file(data_dir);
    match std::fs::read_to_string(&file) {
        Ok(token) if is_new => format!("{} (not shown again; kept in {})", token.trim(), file.display()),
        Ok(_) => format!("kept in {}", file.display()),
        Err(_) => "make one with `octo token create --scope admin`".to_owned(),
    }
}

fn redis_place(config: &crate::config::Redis) -> String {
    let places = |urls: &[SecretString]| -> String {
        urls.iter().map(|u| place_of(u.expose_secret())).collect::<Vec<_>>().join(", ")
    };
    match (&config.url, &config.sentinel_master) {
        (Some(url), _) => place_of(url.expose_secret()),
        (None, Some(master)) => format!("{master}, named by Sentinel at {}", places(&config.sentinel_urls)),
        (None, None) if config.cluster_urls.is_empty() => "not configured, not needed".to_owned(),
        (None, None) => format!("Cluster at {}", places(&config.cluster_urls)),
    }
}

/// Host, port and database of a URL, without user and password.
fn place_of(url: &str) -> String {
    let Ok(url) = url::Url::parse(url) else { return "configured".to_owned() };
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    let host = url.query_pairs().find(|(k, _)| k == "host").map(|(_, v)| v.into_owned());
    let host = host.or_else(|| url.host_str().map(str::to_owned)).unwrap_or_default();
    format!("{host}{port}{}", url.path())
}

/// Blocks the current thread on a server of this configuration.
pub fn block_on(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(run);
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}
