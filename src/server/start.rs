//! What a start needs before it serves: the right to the data directory, every background task, the listeners.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{first_run, notify::Manager};
use crate::{
    app::{App, CannotStart, NewVisits, SharedLock, caps_file},
    caps::sharing::Sharing,
    config::Config,
    db::ingest::Rows,
    drain,
    housekeeping::{clock, closed_days, conversions, database, erasure, figures, seal_keys},
    http::{
        self,
        api::{exports, manners::idempotency},
    },
    journal::Lock,
    judge::sharing::{self, Channel},
    net::{Connections, ListenerKind, listeners::Listener},
    postback::worker::Worker,
    tasks::{Gate, Tasks},
};

/// Takes the right to the data directory. With an inherited socket another octo may be about to release it; meanwhile
/// the socket's queue holds whoever comes.
pub(super) async fn lock_data_dir(
    config: &Config,
    wait: Duration,
    manager: &Manager,
) -> Result<SharedLock, CannotStart> {
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
            return Err(CannotStart(format!(
                "{} is in use by another octo; stop it or choose another --data-dir",
                root.display()
            )));
        }
        if !is_told {
            is_told = true;
            tracing::info!("waiting for another octo to release {}", root.display());
            manager.status("waiting for another octo to release the data directory");
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// What background tasks wait for before they run.
#[derive(Debug, Default)]
pub(super) struct Gates {
    /// There are campaigns to redirect, or a first run is done.
    pub(super) first_run: Gate,
    /// Rows can be stored.
    pub(super) schema_ready: Gate,
    /// Everything in the database is set up.
    pub(super) set_up: Gate,
}

/// Starts every background task there is, each in one line. Only the listeners come later: [`Listening`].
pub(super) fn spawn_tasks(
    app: &App,
    tasks: &mut Tasks,
    gates: &Gates,
    manager: &Arc<Manager>,
    new_visits: NewVisits,
) {
    let Gates { first_run, schema_ready, set_up } = gates;
    let signal = tasks.stop_signal();
    let stop = || signal.clone();
    let (db, journal, campaigns) = (|| app.db.clone(), || app.journal.clone(), || app.campaigns.clone());
    let config = &app.config;

    // what a first run needs itself
    tasks.spawn("database-watch", db().watch(stop()));
    tasks.spawn("private-postgres", run_private_postgres(app.clone(), stop()));

    tasks.spawn_after(first_run, "campaigns", campaigns().run(stop()));
    tasks.spawn_after(first_run, "campaign-notifications", campaigns().listen(stop()));
    tasks.spawn_after(first_run, "campaign-redis", campaigns().keep_redis(stop()));
    let interval = config.tracking.duplicate_share;
    if let (Some(redis), Some(visits)) = (&app.redis, new_visits.visits) {
        let (channel, judge) = (Channel::Visits, app.judge.clone());
        tasks.spawn_after(
            first_run,
            "visits-tell",
            sharing::tell(redis.clone(), channel, visits, interval, stop()),
        );
        let heard = move |visit| judge.heard(visit);
        tasks.spawn_after(first_run, "visits-hear", sharing::hear(redis.clone(), channel, heard, stop()));
    }
    if let (Some(redis), Some(visitors)) = (&app.redis, new_visits.visitors) {
        let (channel, uniques) = (Channel::Visitors, app.uniques.clone());
        tasks.spawn_after(
            first_run,
            "visitors-tell",
            sharing::tell(redis.clone(), channel, visitors, interval, stop()),
        );
        let heard = move |visitor| uniques.heard(visitor);
        tasks.spawn_after(first_run, "visitors-hear", sharing::hear(redis.clone(), channel, heard, stop()));
    }
    tasks.spawn_after(first_run, "visitors", app.uniques.clone().keep(config.tracking.unique_save, stop()));
    let caps = Sharing {
        caps: app.caps.clone(),
        redis: app.redis.clone(),
        db: db(),
        config: config.caps.clone(),
        file: caps_file(config),
    };
    tasks.spawn_after(first_run, "caps", caps.run(stop()));
    let budgets = app.budgets.clone().run(campaigns(), db(), config.clone(), stop());
    tasks.spawn_after(schema_ready, "budgets", budgets);
    let admission =
        app.admission.clone().run(journal(), config.journal_dir(), config.journal.queue_records_max, stop());
    tasks.spawn_after(first_run, "admission", admission);

    tasks.spawn_after(first_run, "journal", drain::watch(journal(), stop()));
    tasks.spawn_after(first_run, "journal-housekeeping", drain::housekeeping(journal(), stop()));
    let interval = config.privacy.erasure_interval;
    tasks.spawn_after(first_run, "erasures", erasure::run(journal(), db(), interval, stop()));
    // rows go into a schema that is there; where a partition is missing, into DEFAULT
    let stored = {
        let app = app.clone();
        move |rows: &Rows<'_>| {
            app.live.see_clicks(&rows.clicks);
            conversions::count_stored(&app, &rows.told);
        }
    };
    let draining = drain::run(journal(), db(), config.drain.clone(), stored, stop());
    tasks.spawn_after(schema_ready, "drain", draining);
    tasks.spawn_after(schema_ready, "conversions", conversions::run(app.clone(), stop()));

    tasks.spawn_after(schema_ready, "figures", figures::run(app.clone(), stop()));
    tasks.spawn_after(set_up, "figures-values", figures::count_values(app.clone(), stop()));
    tasks.spawn_after(set_up, "figures-comparison", figures::compare(app.clone(), stop()));
    tasks.spawn_after(schema_ready, "exports", exports::worker::run(app.clone(), stop()));
    tasks.spawn_after(set_up, "closed-days", closed_days::run(app.clone(), stop()));

    let worker = Worker::new(db(), config.deliveries.clone(), app.postbacks.clone());
    tasks.spawn_after(schema_ready, "deliveries", worker.run(stop()));

    let setting_up = first_run::set_up_later(app.clone(), schema_ready.clone(), set_up.clone(), stop());
    tasks.spawn_after(first_run, "set-up", setting_up);
    tasks.spawn_after(set_up, "database-housekeeping", database::run(app.clone(), stop()));
    tasks.spawn_after(
        schema_ready,
        "idempotency-housekeeping",
        idempotency::housekeeping(app.clone(), stop()),
    );
    tasks.spawn_after(schema_ready, "affiliate-networks", app.networks.clone().run(stop()));
    tasks.spawn_after(schema_ready, "token-keys", seal_keys::run(app.clone(), stop()));
    tasks.spawn_after(first_run, "clock", clock::run(app.clone(), stop()));

    let server_status = app.server_status.clone().run(db(), config.database.clone(), stop());
    tasks.spawn_after(first_run, "database-statistics", server_status);
    tasks.spawn_after(first_run, "metrics-upkeep", app.metrics.clone().keep(config.journal_dir(), stop()));
    tasks.spawn_after(first_run, "watchdog", manager.clone().watch(stop()));
}

/// The private PostgreSQL, where there is one; the primary follows it to its address.
async fn run_private_postgres(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(private) = &app.private_postgres else {
        stop.cancelled().await;
        return Ok(());
    };
    let reached_at = |url: &str| {
        if let Err(error) = app.db.primary().lead_to(&url.into(), &app.config.database) {
            tracing::error!(?error, "the private PostgreSQL has an address that cannot be used");
        }
    };
    private.run(reached_at, stop).await
}

/// The listeners while they accept.
pub(super) struct Listening {
    pub(super) connections: Connections,
    /// Ends the accepting, and only that.
    pub(super) accepting: CancellationToken,
}

impl Listening {
    /// Accepts on the public listener and, if there is one, on the admin listener.
    pub(super) fn start(
        app: &App,
        tasks: &mut Tasks,
        connections_max: usize,
        public: Listener,
        admin: Option<Listener>,
    ) -> anyhow::Result<Self> {
        let connections = Connections::new(&app.config.server, connections_max);
        let listening = Self { connections, accepting: CancellationToken::new() };
        listening.accept(tasks, public, ListenerKind::Public, http::Service::public(app))?;
        if let Some(admin) = admin {
            listening.accept(tasks, admin, ListenerKind::Admin, http::Service::admin(app))?;
        }
        Ok(listening)
    }

    fn accept(
        &self,
        tasks: &mut Tasks,
        listener: Listener,
        kind: ListenerKind,
        service: http::Service,
    ) -> anyhow::Result<()> {
        tracing::info!("listening on http://{}", listener.socket.local_addr()?);
        let accept = self.connections.accept(listener, kind, service, self.accepting.clone());
        tasks.spawn("listener", async move {
            accept.await;
            Ok(())
        });
        Ok(())
    }
}
