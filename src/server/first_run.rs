//! What a start sets up in the database: the schema, then the demo campaign and the admin token of a first start, keys
//! and partitions. A node that knows no campaign waits for it; any other redirects meanwhile.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::Context;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, CannotStart, SetUp},
    campaigns::Source,
    db::{
        self, Db,
        store::{campaigns, tokens},
    },
    housekeeping::{
        database::{bring_schema_up, make_partitions, plain, share_keys},
        seal_keys,
    },
    model::{
        campaign::Terms,
        token::{self, Scope},
    },
    tasks::Gate,
};

/// Between two attempts to bring the schema up.
const SCHEMA_PAUSE: Duration = Duration::from_secs(1);

/// Between two attempts at the rest, at most.
const REST_PAUSE_MAX: Duration = Duration::from_mins(1);

/// The campaign of a first start.
pub(super) const DEMO_KEY: &str = "demo";

/// Everything a node needs that knows no campaign yet, before it says that it is ready. Here a PostgreSQL that cannot
/// be used is fatal; any other node redirects from what it saved, and leaves all of this to [`set_up_later`].
pub(super) async fn run(app: &App, schema_ready: &Gate) -> anyhow::Result<()> {
    if let Some(private) = &app.private_postgres {
        private.tried().await.map_err(CannotStart)?;
    }
    let reached = set_up_now(app, schema_ready).await.map_err(|error| {
        let remedy = "check that it runs and that database.url (DATABASE_URL) is right";
        CannotStart(match error.downcast_ref() {
            Some(db::Error::Encoding(_)) => format!("PostgreSQL cannot be used: {error:#}"),
            _ => format!("PostgreSQL cannot be used: {error:#}; {remedy}"),
        })
    })?;
    app.state.set_up.send_replace(reached);
    app.db.probed().await;
    Ok(())
}

async fn set_up_now(app: &App, schema_ready: &Gate) -> anyhow::Result<SetUp> {
    bring_schema_up(app).await?;
    if let Some(encoding) = app.state.foreign_encoding() {
        return Err(db::Error::Encoding(encoding).into());
    }
    schema_ready.open();
    let failed = set_up_rest(app).await;
    for (what, error) in &failed {
        // none of it keeps clicks from being redirected and stored: `set_up_later` tries again
        tracing::warn!(error = plain(app, error), "cannot set up {what} yet; trying again");
    }
    anyhow::ensure!(app.campaigns.state().1 != Source::Nothing, "the campaigns cannot be read; see the log");
    Ok(if failed.is_empty() { SetUp::Complete } else { SetUp::Schema })
}

/// Sets up what is not there yet, as soon as PostgreSQL answers, and opens a gate when the schema is ready and another
/// when all of it is; then waits for the stop signal.
pub(super) async fn set_up_later(
    app: App,
    schema_ready: Gate,
    complete: Gate,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let setting_up = async {
        if !schema_ready.is_open() {
            until_schema(&app).await;
            schema_ready.open();
            let pending = app.journal.stats().pending_records;
            tracing::info!(pending, "PostgreSQL is ready; storing the records that wait in the journal");
        }
        if *app.state.set_up.borrow() != SetUp::Complete {
            until_complete(&app).await;
            app.state.set_up.send_replace(SetUp::Complete);
        }
        complete.open();
        stop.cancelled().await;
    };
    stop.run_until_cancelled(setting_up).await;
    Ok(())
}

/// Waits until it is known whether PostgreSQL can be used.
pub(super) async fn is_decided(app: &App) {
    if let Some(private) = &app.private_postgres
        && private.tried().await.is_err()
    {
        return;
    }
    let mut set_up = app.state.set_up.subscribe();
    let _ = set_up.wait_for(|s| matches!(s, SetUp::Failing(_) | SetUp::Complete)).await; // the sender is ours
}

/// Every second: clicks are waiting in the journal.
async fn until_schema(app: &App) {
    let mut failures = 0_u32;
    loop {
        if let Some(private) = &app.private_postgres {
            private.up().await; // if it is not, its own task says why
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
async fn until_complete(app: &App) {
    let mut failures = 0_u32;
    loop {
        let failed = set_up_rest(app).await;
        if failed.is_empty() {
            return;
        }
        let pause = (SCHEMA_PAUSE * 2_u32.saturating_pow(failures.min(16))).min(REST_PAUSE_MAX);
        failures += 1;
        for (what, error) in failed.iter().filter(|_| failures % 10 == 1) {
            let next_try_s = pause.as_secs();
            tracing::warn!(failures, next_try_s, error = plain(app, error), "cannot set up {what} yet");
        }
        sleep(pause).await;
    }
}

/// What rows can be stored without: each part by itself, so that a lock on one table keeps nothing else back. Returns
/// what failed.
async fn set_up_rest(app: &App) -> Vec<(&'static str, anyhow::Error)> {
    let mut failed = Vec::new();
    let mut note = |what, result: anyhow::Result<()>| failed.extend(result.err().map(|error| (what, error)));
    if app.private_postgres.is_some() {
        note("the demo campaign", make_demo(&app.db).await);
        note("the admin token", make_token(app).await);
    }
    app.campaigns.refresh().await;
    note("the key of the day", share_keys(app).await.map_err(Into::into));
    note("the keys of tokens", seal_keys::share(app).await.map_err(Into::into));
    note("the partitions", make_partitions(app).await.map_err(Into::into));
    failed
}

/// A campaign to try, on a database that never had one.
async fn make_demo(db: &Db) -> anyhow::Result<()> {
    if !campaigns::is_untouched(db).await? {
        return Ok(());
    }
    let terms = Terms::demo("https://example.com/?click_id={click_id}&sub1={sub1}");
    match campaigns::insert(db, DEMO_KEY.parse().ok(), terms).await {
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
    tokens::insert_once(&app.db, Scope::Admin, "first start", &secret).await?;
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
    let secret = tokens::new_secret()?;
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
pub(super) fn token_file(data_dir: &Path) -> PathBuf {
    data_dir.join("admin-token")
}
