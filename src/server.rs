//! Bind, start, serve, stop: the only file that knows the order.

mod notify;

use std::{
    future::Future,
    io::{IsTerminal, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use ::http::HeaderValue;
use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use socket2::SockRef;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

pub use crate::net::listeners::Inherited;
use crate::{
    admission::Admission,
    app::{App, Parts, SetUp, State},
    campaigns::{Campaigns, Source, report_cache::ReportCache},
    config::Config,
    db::Db,
    drain,
    embedded::{self, Embedded, Supervisor},
    housekeeping::{clock, database, erasure},
    http,
    journal::{Journal, Lock, Options, disk::RealDisk},
    judge::{Judge, NewVisit, sharing},
    limits::Limits,
    net::{Connections, ListenerKind, descriptors, listeners::Listener},
    privacy::{Privacy, keys::Keys},
    redis::Redis,
    tasks::{Gate, Tasks},
    telemetry::Metrics,
    visitor::Enricher,
};
use notify::Manager;

/// How long the last lines of the start wait for PostgreSQL, so that they can say more than that it is being asked.
/// Clicks are redirected meanwhile.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(1);

/// How long the tasks of a start that is given up may take to end.
const GIVE_UP_LIMIT: Duration = Duration::from_secs(1);

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
    let lock_wait = if inherited.is_any() { config.journal.lock_wait } else { Duration::ZERO };
    let (listener, admin_listener) = inherited.listen(&mut config.server)?;
    let connections_max = descriptors::connections_max(&config);
    let lock = lock_journal(&config, lock_wait, &manager).await?;
    let journal = open_journal(&config, lock.clone())?;
    let private_postgres =
        config.database.url.is_none().then(|| Arc::new(Supervisor::new(&config.server.data_dir)));
    let url = match (&config.database.url, &private_postgres) {
        (None, Some(private)) => private.likely_url().into(),
        _ => database_url(&config, None)?,
    };
    let db = Arc::new(Db::new(&url, &config.database).context("database.url")?);
    let redis = Redis::open(&config.redis)?;
    let campaigns = Arc::new(Campaigns::new(db.clone(), redis.clone(), &config));
    may_start_unrecorded(&config, &journal, &campaigns)?;
    let enricher = Enricher::open(config.tracking.country_file.as_deref())
        .map_err(|e| CannotStart(format!("tracking.country_file: {:#}", anyhow::Error::from(e))))?;
    let (told, telling) = mpsc::channel(config.tracking.duplicate_share_max);
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|e| anyhow::anyhow!("the system has no random numbers: {e}"))?;
    let keys = Arc::new(Keys::new(key));
    let privacy = Privacy::new(config.privacy.ip_mode, keys.clone());
    let judge = Judge::open(&config, keys.clone(), redis.as_ref().map(|_| told)).map_err(|e| {
        CannotStart(format!("tracking.datacenter_networks_file: {:#}", anyhow::Error::from(e)))
    })?;
    let public_url = public_url(&config, &listener)?;
    let referrer_policy =
        HeaderValue::from_str(&config.tracking.referrer_policy).ok().filter(|v| !v.is_empty());
    let limits = Limits::new(&config.limits);
    let admission = Arc::new(Admission::new(&config.admission, config.journal.max_bytes));
    let report_cache = ReportCache::new(redis.clone(), &config.cache);
    let app: App = Arc::new(Parts {
        config,
        db,
        private_postgres,
        redis,
        campaigns,
        report_cache,
        server_status: Arc::default(),
        journal,
        admission,
        enricher,
        limits,
        judge: Arc::new(judge),
        privacy,
        keys,
        metrics,
        state: State::default(),
        public_url,
        referrer_policy,
    });

    let mut tasks = Tasks::default();
    let schema_ready = Gate::default();
    spawn_servers_of_data(&app, &mut tasks);
    if app.campaigns.state().0 == 0
        && let Err(error) = wait_for_set_up(&app, &tasks, &schema_ready, &stop).await
    {
        tasks.stop(GIVE_UP_LIMIT).await;
        stop_private_postgres(&app).await;
        return if stop.is_cancelled() { Ok(()) } else { Err(error) };
    }
    spawn_tasks(&app, &mut tasks, &schema_ready);
    let watched = (manager.clone(), tasks.stop_signal());
    tasks.spawn("watchdog", async move {
        let (manager, stop) = watched;
        manager.watch(stop).await;
        Ok(())
    });
    spawn_sharing(&app, &mut tasks, telling);
    // before the listeners: whoever waited in the queue of an inherited socket is not told "starting"
    app.state.is_started.store(true, Ordering::Relaxed);
    let connections = Connections::new(&app.config.server, connections_max);
    let accepting = CancellationToken::new();
    serve(&mut tasks, &connections, listener, ListenerKind::Public, http::Service::public(&app), &accepting)?;
    if let Some(listener) = admin_listener {
        serve(
            &mut tasks,
            &connections,
            listener,
            ListenerKind::Admin,
            http::Service::admin(&app),
            &accepting,
        )?;
    }
    let took = started.elapsed();
    manager.ready(&format!("redirecting the clicks of {} campaigns", app.campaigns.state().0));

    let announcing = async {
        let _ = timeout(ANNOUNCE_WAIT, database::is_decided(&app)).await; // what is true at the end of it is said
        announce(&app, took).await;
        std::future::pending::<()>().await;
    };
    let failed = tokio::select! {
        () = stop.cancelled() => None,
        name = tasks.failed() => Some(name),
        () = announcing => None,
    };
    manager.stopping();
    shut_down(&app, tasks, connections, &accepting).await;
    match failed {
        Some(name) => anyhow::bail!("the task {name} ended by itself; see the log"),
        None => Ok(()),
    }
}

/// There is nothing to redirect yet, and whoever comes waits in the listener's queue.
async fn wait_for_set_up(
    app: &App,
    tasks: &Tasks,
    schema_ready: &Gate,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let set_up = async {
        database::first_set_up(app, schema_ready).await?;
        app.db.probed().await;
        Ok(())
    };
    tokio::select! {
        done = set_up => done,
        () = stop.cancelled() => anyhow::bail!("told to stop"),
        name = tasks.failed() => anyhow::bail!("the task {name} ended by itself; see the log"),
    }
}

/// The first signal drains, the second forces. A hang-up (SIGHUP) drains like the others, but it never forces: a
/// terminal that closes sends several.
fn listen_for_signals() -> anyhow::Result<CancellationToken> {
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
                tracing::info!("stopping; a second signal forces");
                heard.cancel();
            } else if forces {
                tracing::warn!("forced to stop; what was answered is safe in the journal");
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

/// The right to the data directory; `None` until a directory that cannot be made or read at the start can be.
type SharedLock = Arc<Mutex<Option<Lock>>>;

/// Takes the right to the data directory. With an inherited socket there may be a predecessor that is about to give it
/// up; meanwhile the socket's queue holds whoever comes.
async fn lock_journal(config: &Config, wait: Duration, manager: &Manager) -> anyhow::Result<SharedLock> {
    let root = config.journal_dir();
    let deadline = Instant::now() + wait;
    let mut is_told = false;
    loop {
        match Lock::acquire(&root) {
            Ok(Some(lock)) => return Ok(Arc::new(Mutex::new(Some(lock)))),
            Ok(None) => {}
            // the journal cannot be opened either, and says so
            Err(_) => return Ok(Arc::default()),
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

/// A journal that cannot be opened is tried again by itself.
fn open_journal(config: &Config, lock: SharedLock) -> anyhow::Result<Journal> {
    let root = config.journal_dir();
    let options = Options {
        root: root.clone(),
        segment_bytes: config.journal.segment_bytes,
        bytes_max: config.journal.max_bytes,
        queue_records_max: config.journal.queue_records_max,
        queue_bytes_max: config.journal.queue_bytes_max,
        keep_drained: config.journal.keep_drained,
        retry_interval: config.journal.retry_interval,
    };
    let claim = move || {
        let mut lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_none() {
            *lock = Lock::acquire(&root)?;
        }
        lock.is_some().then_some(()).ok_or_else(|| std::io::Error::other("it is in use by another octo"))
    };
    Journal::start(Arc::new(RealDisk), options, claim).context("the journal's thread cannot be started")
}

/// Without a journal octo redirects from the campaigns of an earlier start; where there are none it is misconfigured.
fn may_start_unrecorded(config: &Config, journal: &Journal, campaigns: &Campaigns) -> anyhow::Result<()> {
    let Some(trouble) = journal.trouble().filter(|_| campaigns.state().1 == Source::Nothing) else {
        return Ok(());
    };
    let (root, trouble) = (config.journal_dir(), anyhow::Error::from(trouble));
    let root = root.display();
    Err(CannotStart(format!(
        "the journal in {root} cannot be written ({trouble:#}); check the disk and the rights, or set journal.dir"
    ))
    .into())
}

/// The configured primary, else the embedded one.
pub fn database_url(config: &Config, embedded: Option<&Embedded>) -> anyhow::Result<SecretString> {
    match (&config.database.url, embedded) {
        (Some(url), _) => Ok(url.clone()),
        (None, Some(embedded)) => Ok(embedded.url().into()),
        (None, None) => anyhow::bail!("no database is configured"),
    }
}

/// What links are built from: as configured, else an address of this machine that a browser can open.
fn public_url(config: &Config, listener: &Listener) -> anyhow::Result<String> {
    if let Some(url) = &config.server.public_url {
        return Ok(url.as_str().trim_end_matches('/').to_owned());
    }
    let is_only_v6 = SockRef::from(&listener.socket).only_v6().unwrap_or(false);
    Ok(format!("http://{}", reachable(listener.socket.local_addr()?, is_only_v6)))
}

/// `0.0.0.0` and `[::]` are every address, and none that can be asked for. Which of its own a machine is known by
/// outside only its owner knows: this is the one that is always right on the machine itself.
fn reachable(listening: SocketAddr, is_only_v6: bool) -> SocketAddr {
    let ip = match listening.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() && is_only_v6 => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

/// The private PostgreSQL, if there is one, and the probes: what the set-up of a first start needs too.
fn spawn_servers_of_data(app: &App, tasks: &mut Tasks) {
    let stop = tasks.stop_signal();
    tasks.spawn("database-watch", app.db.clone().watch(stop.clone()));
    let Some(private) = app.private_postgres.clone() else { return };
    let owner = app.clone();
    let lead = move |url: &str| {
        if let Err(error) = owner.db.primary().lead_to(&url.into(), &owner.config.database) {
            tracing::error!(?error, "the private PostgreSQL has an address that cannot be used");
        }
    };
    tasks.spawn("private-postgres", async move { private.run(lead, stop).await });
}

fn spawn_tasks(app: &App, tasks: &mut Tasks, schema_ready: &Gate) {
    let stop = tasks.stop_signal();
    tasks.spawn("campaigns", app.campaigns.clone().run(stop.clone()));
    tasks.spawn("campaign-notifications", app.campaigns.clone().listen(stop.clone()));
    tasks.spawn("campaign-redis", app.campaigns.clone().keep_redis(stop.clone()));
    tasks.spawn("database", database::keep(app.clone(), schema_ready.clone(), stop.clone()));
    let drain = drain::run(app.journal.clone(), app.db.clone(), app.config.drain.clone(), stop.clone());
    // rows go into a schema that is there; where a partition is missing, into DEFAULT
    tasks.spawn_after(schema_ready, "drain", drain);
    let interval = app.config.privacy.erasure_interval;
    tasks.spawn("erasures", erasure::run(app.journal.clone(), app.db.clone(), interval, stop.clone()));
    let house = http::api::manners::idempotency::housekeeping(app.clone(), stop.clone());
    tasks.spawn_after(schema_ready, "idempotency-house", house);
    tasks.spawn("clock", clock::run(app.clone(), stop.clone()));
    tasks.spawn("journal-house", drain::housekeeping(app.journal.clone(), stop.clone()));
    tasks.spawn("journal", drain::watch(app.journal.clone(), stop.clone()));
    let (journal, admission) = (app.journal.clone(), app.admission.clone());
    let (journal_dir, queue_records_max) = (app.config.journal_dir(), app.config.journal.queue_records_max);
    tasks.spawn("admission", admission.run(journal, journal_dir, queue_records_max, stop.clone()));
    let server_status =
        app.server_status.clone().run(app.db.clone(), app.config.database.clone(), stop.clone());
    tasks.spawn("database-statistics", server_status);
    tasks.spawn("metrics-upkeep", app.metrics.clone().keep(app.config.journal_dir(), stop));
}

/// First clicks of visits go to the other nodes and come from them, where there is a window and a way.
fn spawn_sharing(app: &App, tasks: &mut Tasks, telling: mpsc::Receiver<NewVisit>) {
    let Some(redis) = app.redis.as_ref().filter(|_| !app.config.tracking.duplicate_window.is_zero()) else {
        return;
    };
    let stop = tasks.stop_signal();
    let interval = app.config.tracking.duplicate_share;
    tasks.spawn("visits-tell", sharing::tell(redis.clone(), telling, interval, stop.clone()));
    tasks.spawn("visits-hear", sharing::hear(redis.clone(), app.judge.clone(), stop));
}

fn serve(
    tasks: &mut Tasks,
    connections: &Connections,
    listener: Listener,
    kind: ListenerKind,
    service: http::Service,
    accepting: &CancellationToken,
) -> anyhow::Result<()> {
    let address = listener.socket.local_addr()?;
    tracing::info!("listening on http://{address}");
    let accept = connections.accept(listener, kind, service, accepting.clone());
    tasks.spawn("listener", async move {
        accept.await;
        Ok(())
    });
    Ok(())
}

/// Readiness says no and each answer ends its connection; the listener closes, requests finish, the journal commits,
/// the drain empties it, connections close: each within what is left of the deadline.
async fn shut_down(app: &App, tasks: Tasks, connections: Connections, accepting: &CancellationToken) {
    app.state.is_stopping.store(true, Ordering::Relaxed);
    let drain_delay = sleep(app.config.server.drain_delay);
    tokio::join!(drain_delay, connections.wind_down(app.config.server.keep_alive_drain));
    let deadline = Instant::now() + app.config.server.shutdown_timeout;
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
    stop_private_postgres(app).await;
    tracing::info!("stopped");
}

/// After everybody who works with it.
async fn stop_private_postgres(app: &App) {
    app.db.close();
    if let Some(private) = &app.private_postgres
        && let Err(error) = private.stop().await
    {
        tracing::warn!(%error, "PostgreSQL was not stopped");
    }
}

/// The last lines at start: what runs where, and how to go on.
async fn announce(app: &App, took: Duration) {
    let postgres = postgres_line(app);
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
        ("public URL", public_url_line(app)),
        ("PostgreSQL", postgres),
        ("Redis", redis),
        ("campaigns", campaigns),
        ("countries", app.enricher.country_source().to_owned()),
        ("data", format!("{} (journal: {})", data.display(), app.config.journal_dir().display())),
    ];
    if app.private_postgres.is_some() {
        let has_demo = match demo.parse() {
            Ok(key) => matches!(app.campaigns.get(&key).await, crate::campaigns::Lookup::Found(_)),
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
        let lines: Vec<_> = lines.iter().map(|(name, value)| format!("  {name:<12} {value}")).collect();
        let (version, lines) = (env!("CARGO_PKG_VERSION"), lines.join("\n"));
        let said = format!("\nocto {version} is ready after {:.1} s\n{lines}\n\n", took.as_secs_f64());
        let _ = std::io::stderr().write_all(said.as_bytes()); // a terminal that is gone is no reason to stop
    } else {
        tracing::info!(took_ms = took.as_millis(), postgres = lines[1].1, "ready");
    }
}

/// What is true of PostgreSQL now; what becomes true later is in the log.
fn postgres_line(app: &App) -> String {
    const WAIT: &str = "clicks are redirected and wait in the journal";
    let set_up = app.state.set_up.borrow().clone();
    let line = match app.private_postgres.as_deref().map(Supervisor::state) {
        Some(embedded::State::Up { data }) => format!("private, only for octo; data in {}", data.display()),
        Some(embedded::State::Starting) => {
            return format!("private, only for octo; IS BEING STARTED, {WAIT}");
        }
        Some(embedded::State::Failing(reason)) => {
            return format!("private, only for octo; CANNOT BE STARTED: {reason}. It is tried again; {WAIT}");
        }
        None => format!("{}, {} replicas", app.db.primary().server(), app.db.replicas().len()),
    };
    match set_up {
        SetUp::Schema | SetUp::Complete => line,
        SetUp::Waiting => format!("{line}; HAS NOT ANSWERED YET; {WAIT}"),
        SetUp::Failing(reason) => {
            let reason = reason.replacen("does not answer", "DOES NOT ANSWER", 1);
            format!("{line}; {reason}; {WAIT}")
        }
    }
}

fn public_url_line(app: &App) -> String {
    let url = &app.public_url;
    if app.config.server.public_url.is_none() && app.config.server.listen.ip().to_canonical().is_unspecified()
    {
        return format!("{url} (on this machine; set server.public_url to what visitors see)");
    }
    url.clone()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_link_can_be_opened() {
        for (listening, is_only_v6, wanted) in [
            ("0.0.0.0:8080", false, "127.0.0.1:8080"),
            ("0.0.0.0:80", false, "127.0.0.1:80"),
            ("[::]:8080", false, "127.0.0.1:8080"), // takes IPv4 too
            ("[::]:8080", true, "[::1]:8080"),
            ("[::ffff:0.0.0.0]:8080", false, "127.0.0.1:8080"),
            ("127.0.0.1:8080", false, "127.0.0.1:8080"),
            ("127.0.0.5:1", false, "127.0.0.5:1"),
            ("192.0.2.7:8080", false, "192.0.2.7:8080"),
            ("[::ffff:192.0.2.7]:8080", false, "192.0.2.7:8080"),
            ("[::1]:65535", true, "[::1]:65535"),
            ("[2001:db8::1]:8080", true, "[2001:db8::1]:8080"),
        ] {
            let address = reachable(listening.parse().unwrap(), is_only_v6);
            assert_eq!(address.to_string(), wanted, "{listening}");
        }
    }
}
