//! The database's own affairs: migrations at start, partitions made ahead and dropped behind, and what a
//! first start without configuration needs (a demo campaign, a token).

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::Context;
use chrono::Utc;
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::sync::CancellationToken;

use super::CannotStart;
use crate::{
    app::App,
    cache::Source,
    clock,
    db::{self, Db, erasures, migrations, partitions, visitor_keys},
    enrich, metrics,
    model::token::Scope,
};

/// The campaign of a first start.
pub(super) const DEMO_KEY: &str = "demo";

/// Brings the schema up and loads the campaigns; says whether Postgres answered. A Postgres that does not is
/// fatal only on a node that has never seen a campaign: any other redirects from what it saved.
pub(super) async fn prepare(app: &App, is_embedded: bool) -> anyhow::Result<bool> {
    match set_up(app, is_embedded).await {
        Ok(()) => Ok(true),
        Err(error) if app.campaigns.state().1 == Source::Nothing => {
            let remedy = "check that it runs and that database.url (DATABASE_URL) is right";
            Err(CannotStart(format!("PostgreSQL cannot be used: {error:#}; {remedy}")).into())
        }
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "PostgreSQL does not answer; serving the campaigns saved on disk"
            );
            Ok(false)
        }
    }
}

/// Sets the database up as soon as it answers, opens the gate of the drain, then keeps partitions.
pub(super) async fn keep(
    app: App,
    mut is_up: bool,
    is_embedded: bool,
    ready: Arc<Semaphore>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while !is_up {
        tokio::select! {
            () = sleep(Duration::from_secs(1)) => {}
            () = stop.cancelled() => return Ok(()),
        }
        is_up = set_up(&app, is_embedded).await.is_ok();
    }
    ready.add_permits(1);
    let interval = Duration::from_secs(app.config.database.partitions_interval_s);
    loop {
        tokio::select! {
            () = look_after(&app) => {}
            () = stop.cancelled() => return Ok(()),
        }
        tokio::select! {
            () = sleep(interval) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// A round of all that is done once in a while. What fails is said, and tried again the next time.
async fn look_after(app: &App) {
    if let Err(error) = share_keys(app).await {
        let error = format!("{:#}", anyhow::Error::from(error));
        tracing::warn!(error, "cannot share the key of the day; this node goes on with its own");
    }
    if let Err(error) = keep_partitions(app).await {
        let error = format!("{:#}", anyhow::Error::from(error));
        tracing::warn!(error, "cannot look after the partitions; trying again later");
    }
    if let Err(error) = delete_old(app).await {
        let error = format!("{:#}", anyhow::Error::from(error));
        tracing::warn!(error, "cannot delete what is too old; trying again later");
    }
}

async fn set_up(app: &App, is_embedded: bool) -> anyhow::Result<()> {
    if app.config.database.migrate_on_start {
        let count = migrations::up(app.db.direct()).await?;
        if count > 0 {
            tracing::info!(count, "ran the pending migrations");
        }
    }
    if let Err(error) = keep_partitions(app).await {
        // nothing needs them to begin: rows without a partition go to the DEFAULT one
        let error = format!("{:#}", anyhow::Error::from(error));
        tracing::warn!(error, "cannot look after the partitions yet");
    }
    if is_embedded {
        make_demo(&app.db).await?;
        make_token(app).await?;
    }
    app.campaigns.refresh().await;
    share_keys(app).await?;
    Ok(())
}

/// Makes the partitions that are due. It may fail without harm.
async fn keep_partitions(app: &App) -> Result<(), db::Error> {
    let config = &app.config.database;
    let round = partitions::make(&app.db, config.partitions_ahead_days, config.into()).await?;
    if round.done > 0 {
        tracing::debug!(made = round.done, "made day partitions");
    }
    say_busy(app, round.busy);
    match partitions::default_rows(&app.db).await {
        Ok((clicks, events)) => {
            metrics::default_partition_rows("clicks", u64::try_from(clicks).unwrap_or(0));
            metrics::default_partition_rows("events", u64::try_from(events).unwrap_or(0));
        }
        // a figure, and no reason not to start: a replica that replays late may hold a lock on a new partition
        Err(error) => tracing::debug!(?error, "the rows of the DEFAULT partitions were not counted"),
    }
    Ok(())
}

/// A lock that is held for hours is one story, not a line a round.
fn say_busy(app: &App, busy: u32) {
    if busy == 0 {
        app.state.busy_rounds.store(0, Ordering::Relaxed);
        return;
    }
    let round = app.state.busy_rounds.fetch_add(1, Ordering::Relaxed) + 1;
    if round % 10 == 1 {
        tracing::warn!(
            partitions = busy,
            rounds = round,
            "partitions wait for a lock that somebody holds (a dump, an open transaction); trying again later"
        );
    }
}

/// Drops and deletes what is too old by the database's clock, while this node's agrees with it.
async fn delete_old(app: &App) -> Result<(), db::Error> {
    if !clock::lets_delete(app).await? {
        return Ok(());
    }
    let (days, options) = (app.config.privacy.retention_days, (&app.config.database).into());
    if days > 0 {
        let round = partitions::drop_old(&app.db, days, options).await?;
        if round.done > 0 {
            tracing::info!(dropped = round.done, retention_days = days, "dropped partitions");
        }
        if round.busy > 0 {
            tracing::info!(partitions = round.busy, "old partitions wait for a lock that somebody holds");
        }
        let rows = partitions::delete_old(&app.db, days, options).await?;
        if rows > 0 {
            tracing::info!(rows, retention_days = days, "deleted old rows outside the day partitions");
        }
    }
    erasures::forget_old(&app.db, app.config.privacy.erasure_keep_days).await?;
    visitor_keys::delete_old(&app.db).await
}

/// Takes the keys of today and tomorrow that all nodes have, so that none is asked for at midnight.
async fn share_keys(app: &App) -> Result<(), db::Error> {
    let Some(keys) = app.visits.keys() else { return Ok(()) };
    let mut fresh = [[0; 16]; 2];
    if fresh.iter_mut().any(|key| getrandom::fill(key).is_err()) {
        return Ok(()); // said at start; the keys of this node go on
    }
    let now_s = u64::try_from(Utc::now().timestamp()).unwrap_or(0);
    keys.share(visitor_keys::of_days(&app.db, enrich::keys::days(now_s), fresh).await?);
    Ok(())
}

/// A campaign to try, on a database that never had one.
async fn make_demo(db: &Db) -> anyhow::Result<()> {
    if !db::campaigns::is_untouched(db).await? {
        return Ok(());
    }
    let new = db::campaigns::New::demo(DEMO_KEY, "https://example.com/?click_id={click_id}&sub1={sub1}");
    match db::campaigns::insert(db, new).await {
        Ok(_) | Err(db::Error::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// An admin token for the one who owns the data directory, kept there in a file that only the owner reads.
async fn make_token(app: &App) -> anyhow::Result<()> {
    let file = token_file(&app.config.server.data_dir);
    if file.exists() {
        return Ok(());
    }
    let (_, token) = db::tokens::create(&app.db, Scope::Admin, "first start", None).await?;
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)
        .with_context(|| format!("cannot write {}", file.display()))?;
    writeln!(out, "{token}")?;
    app.state.has_new_token.store(true, Ordering::Relaxed);
    Ok(())
}

/// Where the admin token of a start without configuration is kept.
pub(super) fn token_file(data_dir: &Path) -> PathBuf {
    data_dir.join("admin-token")
}
