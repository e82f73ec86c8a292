//! The database's own affairs: its schema, partitions made ahead and dropped behind, and what a first start without
//! configuration needs (a demo campaign, a token). A node that has campaigns to redirect waits for none of it.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::Context;
use chrono::Utc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, SetUp},
    campaigns::Source,
    db::{
        self, Db, migrations, partitions,
        store::{erasures, visitor_keys},
    },
    housekeeping::clock,
    metrics,
    model::{
        campaign::Terms,
        token::{self, Scope},
    },
    privacy::keys,
    server::CannotStart,
    tasks::Gate,
};

/// Between two attempts to bring the schema up.
const SCHEMA_PAUSE: Duration = Duration::from_secs(1);
/// Between two attempts at the rest, at most.
const FURNISH_PAUSE_MAX: Duration = Duration::from_mins(1);

/// The campaign of a first start.
pub(crate) const DEMO_KEY: &str = "demo";

/// Everything a node needs that knows no campaign yet, before it says that it is ready. Here a PostgreSQL that cannot
/// be used is fatal; any other node redirects from what it saved, and leaves all of this to [`keep`].
pub(crate) async fn first_set_up(app: &App, schema_ready: &Gate) -> anyhow::Result<()> {
    if let Some(private) = &app.private_postgres {
        private.tried().await.map_err(CannotStart)?;
    }
    let set_up = async {
        bring_schema_up(app).await?;
        if let Some(encoding) = app.state.foreign_encoding() {
            return Err(db::Error::Encoding(encoding).into());
        }
        schema_ready.open();
        let failed = furnish(app).await;
        for (what, error) in &failed {
            // none of it keeps clicks from being redirected and stored: `keep` tries again
            tracing::warn!(error = plain(app, error), "cannot set up {what} yet");
        }
        anyhow::ensure!(
            app.campaigns.state().1 != Source::Nothing,
            "the campaigns cannot be read; see the log"
        );
        Ok(if failed.is_empty() { SetUp::Complete } else { SetUp::Schema })
    };
    let reached = set_up.await.map_err(|error: anyhow::Error| {
        let remedy = "check that it runs and that database.url (DATABASE_URL) is right";
        CannotStart(match error.downcast_ref() {
            Some(db::Error::Encoding(_)) => format!("PostgreSQL cannot be used: {error:#}"),
            _ => format!("PostgreSQL cannot be used: {error:#}; {remedy}"),
        })
    })?;
    app.state.set_up.send_replace(reached);
    Ok(())
}

/// Brings the schema up as soon as PostgreSQL answers and opens the gate of the drain; then sees to the rest, and goes
/// on looking after partitions and keys. Until the stop signal.
pub(crate) async fn keep(app: App, schema_ready: Gate, stop: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        () = set_up_and_keep(&app, &schema_ready) => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}

/// Waits until it is known whether PostgreSQL can be used.
pub(crate) async fn is_decided(app: &App) {
    if let Some(private) = &app.private_postgres
        && private.tried().await.is_err()
    {
        return;
    }
    let mut set_up = app.state.set_up.subscribe();
    let _ = set_up.wait_for(|s| matches!(s, SetUp::Failing(_) | SetUp::Complete)).await; // the sender is ours
}

async fn set_up_and_keep(app: &App, schema_ready: &Gate) {
    if !schema_ready.is_open() {
        until_schema(app).await;
        schema_ready.open();
        let pending = app.journal.stats().pending_records;
        tracing::info!(pending, "PostgreSQL is ready; what waits in the journal is stored now");
    }
    if *app.state.set_up.borrow() != SetUp::Complete {
        until_furnished(app).await;
        app.state.set_up.send_replace(SetUp::Complete);
    }
    let interval = app.config.database.partitions_interval;
    loop {
        // keys and partitions were seen to a moment ago
        forget_old(app).await;
        sleep(interval).await;
        look_ahead(app).await;
    }
}

/// A round of what must be there before it is needed. What fails is said, and tried again the next time.
async fn look_ahead(app: &App) {
    if let Err(error) = share_keys(app).await {
        let error = format!("{:#}", anyhow::Error::from(error));
        tracing::warn!(error, "cannot share the key of the day; this node goes on with its own");
    }
    if let Err(error) = keep_partitions(app).await {
        let error = plain(app, &error.into());
        tracing::warn!(error, "cannot maintain the partitions; trying again later");
    }
}

/// A round of what retention deletes. What fails is said, and tried again the next time.
async fn forget_old(app: &App) {
    if let Err(error) = delete_old(app).await {
        let error = plain(app, &error.into());
        tracing::warn!(error, "cannot delete what is too old; trying again later");
    }
}

/// Every second: clicks are waiting in the journal.
async fn until_schema(app: &App) {
    let mut failures = 0_u32;
    loop {
        if let Some(private) = &app.private_postgres {
            private.up().await; // why it is not, it says itself
        }
        let Err(error) = bring_schema_up(app).await else { break };
        failures += 1;
        let reason = plain(app, &error.into());
        // the first and each tenth: an outage is one story, not a line a second
        if failures % 10 == 1 {
            tracing::warn!(
                failures,
                "PostgreSQL {reason}: its schema cannot be checked; clicks are redirected and wait in the journal"
            );
        }
        app.state.set_up.send_replace(SetUp::Failing(reason));
        sleep(SCHEMA_PAUSE).await;
    }
    app.state.set_up.send_replace(SetUp::Schema);
}

/// Less and less often: rows without a partition go to DEFAULT.
async fn until_furnished(app: &App) {
    let mut failures = 0_u32;
    loop {
        let failed = furnish(app).await;
        if failed.is_empty() {
            return;
        }
        let pause = (SCHEMA_PAUSE * 2_u32.saturating_pow(failures.min(16))).min(FURNISH_PAUSE_MAX);
        failures += 1;
        for (what, error) in failed.iter().filter(|_| failures % 10 == 1) {
            let next_try_s = pause.as_secs();
            tracing::warn!(failures, next_try_s, error = plain(app, error), "cannot set up {what} yet");
        }
        sleep(pause).await;
    }
}

/// What must be before rows can be stored.
async fn bring_schema_up(app: &App) -> Result<(), db::Error> {
    let encoding = migrations::encoding(app.db.direct()).await?;
    let is_new = app.state.note_encoding(&encoding);
    if app.config.database.migrate_on_start {
        let count = migrations::up(app.db.direct()).await?;
        if count > 0 {
            tracing::info!(count, "ran the pending migrations");
        }
    }
    if is_new && let Some(encoding) = app.state.foreign_encoding() {
        // it has our tables already: what can be stored is stored, and nothing is lost
        let what = db::Error::Encoding(encoding);
        tracing::error!(
            "{what}. Clicks that do not fit become dead letters; `octo journal retry` stores them then"
        );
    }
    Ok(())
}

/// What need not be: each part by itself, so that a lock on one table keeps nothing else back. What failed.
async fn furnish(app: &App) -> Vec<(&'static str, anyhow::Error)> {
    let mut failed = Vec::new();
    let mut note = |what, result: anyhow::Result<()>| failed.extend(result.err().map(|error| (what, error)));
    if app.private_postgres.is_some() {
        note("the demo campaign", make_demo(&app.db).await);
        note("the admin token", make_token(app).await);
    }
    app.campaigns.refresh().await;
    note("the key of the day", share_keys(app).await.map_err(Into::into));
    note("the partitions", keep_partitions(app).await.map_err(Into::into));
    failed
}

/// In words that tell a server that does not answer from one that does.
fn plain(app: &App, error: &anyhow::Error) -> String {
    const LOCKED: &str = "waits for a lock that another session holds, such as a dump or a long transaction";
    let Some(source) = error.chain().find_map(|error| error.downcast_ref::<sqlx::Error>()) else {
        return format!("cannot be used ({error:#})");
    };
    let code = source.as_database_error().and_then(sqlx::error::DatabaseError::code);
    match (code.as_deref(), db::monitor::class(source)) {
        (Some("55P03"), _) => LOCKED.to_owned(),
        (Some("57014"), _) => format!("took too long; perhaps it {LOCKED}"),
        (None, "timeout") if app.db.primary_seen().is_some() => {
            format!("answers, but this took too long; perhaps it {LOCKED}")
        }
        (None, "timeout" | "io") => format!("does not answer ({source})"),
        (Some(code), _) => format!("refuses with SQLSTATE {code} ({error:#})"),
        _ => format!("cannot be used ({error:#})"),
    }
}

/// Makes the partitions that are due. It may fail without harm.
async fn keep_partitions(app: &App) -> Result<(), db::Error> {
    let config = &app.config.database;
    let round = partitions::make(&app.db, whole_days(config.partitions_ahead), config.into()).await?;
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
            "partitions wait for a lock that another session holds (a dump, an open transaction); trying again later"
        );
    }
}

/// Drops and deletes what is too old by the database's clock, while this node's agrees with it.
async fn delete_old(app: &App) -> Result<(), db::Error> {
    if !clock::lets_delete(app).await? {
        return Ok(());
    }
    let (days, options) = (whole_days(app.config.privacy.retention), (&app.config.database).into());
    if days > 0 {
        let round = partitions::drop_old(&app.db, days, options).await?;
        if round.done > 0 {
            tracing::info!(dropped = round.done, retention_days = days, "dropped partitions");
        }
        if round.busy > 0 {
            tracing::info!(
                partitions = round.busy,
                "old partitions wait for a lock that another session holds"
            );
        }
        let rows = partitions::delete_old(&app.db, days, options).await?;
        if rows > 0 {
            tracing::info!(rows, retention_days = days, "deleted old rows outside the day partitions");
        }
    }
    erasures::forget_old(&app.db, whole_days(app.config.privacy.erasure_keep)).await?;
    visitor_keys::delete_old(&app.db).await
}

/// Days as PostgreSQL counts them.
fn whole_days(time: Duration) -> u32 {
    u32::try_from(time.as_secs() / 86_400).unwrap_or(u32::MAX)
}

/// Takes the keys of today and tomorrow that all nodes have, so that none is asked for at midnight.
async fn share_keys(app: &App) -> Result<(), db::Error> {
    if !app.judge.uses_keys() && !app.privacy.uses_keys() {
        return Ok(());
    }
    let mut fresh = [[0; 16]; 2];
    if fresh.iter_mut().any(|key| getrandom::fill(key).is_err()) {
        return Ok(()); // said at start; the keys of this node go on
    }
    let now_s = u64::try_from(Utc::now().timestamp()).unwrap_or(0);
    app.keys.share(visitor_keys::of_days(&app.db, keys::days(now_s), fresh).await?);
    Ok(())
}

/// A campaign to try, on a database that never had one.
async fn make_demo(db: &Db) -> anyhow::Result<()> {
    if !db::store::campaigns::is_untouched(db).await? {
        return Ok(());
    }
    let terms = Terms::demo("https://example.com/?click_id={click_id}&sub1={sub1}");
    match db::store::campaigns::insert(db, DEMO_KEY.parse().ok(), terms).await {
        Ok(_) | Err(db::Error::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// An admin token for the one who owns the data directory, kept there in a file that only the owner reads. The file
/// comes first, under another name: where it cannot be written no token is made, and one that was made before a crash
/// is found there again.
async fn make_token(app: &App) -> anyhow::Result<()> {
    let file = token_file(&app.config.server.data_dir);
    if file.exists() {
        return Ok(());
    }
    let beside = file.with_extension("new");
    let secret = write_secret(&beside).with_context(|| format!("cannot write {}", beside.display()))?;
    db::store::tokens::insert_once(&app.db, Scope::Admin, "first start", &secret).await?;
    fs::rename(&beside, &file).with_context(|| format!("cannot write {}", file.display()))?;
    app.state.has_new_token.store(true, Ordering::Relaxed);
    Ok(())
}

/// The secret of an earlier attempt, else a new one, which is on disk afterwards.
fn write_secret(file: &Path) -> anyhow::Result<String> {
    let earlier = fs::read_to_string(file).unwrap_or_default();
    if token::hash(earlier.trim()).is_some() {
        return Ok(earlier.trim().to_owned());
    }
    let secret = db::store::tokens::new_secret()?;
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(out, "{secret}")?;
    out.sync_all()?;
    Ok(secret)
}

/// Where the admin token of a start without configuration is kept.
pub(crate) fn token_file(data_dir: &Path) -> PathBuf {
    data_dir.join("admin-token")
}
