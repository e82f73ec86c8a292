//! The database's housekeeping: its schema, partitions made ahead and dropped behind, the keys of the day, retention.
//! A node that has campaigns to redirect waits for none of it.

use std::{sync::atomic::Ordering, time::Duration};

use chrono::Utc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    db::{
        self, migrations, partitions,
        store::{erasures, fx_rates, postbacks, visitor_keys},
    },
    housekeeping::clock,
    metrics,
    money::ecb,
    privacy::keys,
};

/// Looks after retention, keys and partitions every `database.partitions_interval_s`, until the stop signal. At the
/// beginning keys and partitions were seen to a moment ago.
pub(crate) async fn run(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    let rounds = async {
        let mut has_rates = !app.config.money.built_in_rates;
        loop {
            has_rates = has_rates || fill_rates(&app).await;
            note_newest_rate(&app).await;
            apply_retention(&app).await;
            sleep(app.config.database.partitions_interval).await;
            prepare_days(&app).await;
        }
    };
    stop.run_until_cancelled(rounds).await;
    Ok(())
}

/// Makes what must be there before it is needed. What fails is logged, and tried again in the next round.
async fn prepare_days(app: &App) {
    if let Err(error) = share_keys(app).await {
        let error = format!("{:#}", anyhow::Error::from(error));
        tracing::warn!(error, "cannot share the key of the day; this node goes on with its own");
    }
    if let Err(error) = make_partitions(app).await {
        let error = plain(app, &error.into());
        tracing::warn!(error, "cannot make the partitions that are due; trying again later");
    }
}

/// Gives a database the rates that are built in, where it has none of the bank; says whether there is no more to do.
async fn fill_rates(app: &App) -> bool {
    match fx_rates::fill(&app.db, ecb::built_in).await {
        Ok(rates) => {
            if rates > 0 {
                tracing::info!(rates, "began with the built-in rates of the European Central Bank");
            }
            true
        }
        Err(error) => {
            let error = plain(app, &error.into());
            tracing::warn!(error, "cannot store the built-in rates of currencies; trying again later");
            false
        }
    }
}

/// Measures how old the rates of the bank are: they come by an import only.
async fn note_newest_rate(app: &App) {
    match fx_rates::newest(&app.db).await {
        Ok(day) => metrics::newest_rate(day),
        Err(error) => tracing::debug!(?error, "the newest rates of currencies were not looked for"),
    }
}

/// Deletes what is too old. What fails is logged, and tried again in the next round.
async fn apply_retention(app: &App) {
    if let Err(error) = delete_old(app).await {
        let error = plain(app, &error.into());
        tracing::warn!(error, "cannot delete what is too old; trying again later");
    }
}

/// Brings the schema up, where octo may: what must be done before rows can be stored.
pub(crate) async fn bring_schema_up(app: &App) -> Result<(), db::Error> {
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

/// Makes the partitions that are due. It may fail without harm.
pub(crate) async fn make_partitions(app: &App) -> Result<(), db::Error> {
    let config = &app.config.database;
    let round = partitions::make(&app.db, whole_days(config.partitions_ahead), config.into()).await?;
    if round.done > 0 {
        tracing::debug!(made = round.done, "made day partitions");
    }
    note_locked(app, round.busy);
    match partitions::default_rows(&app.db).await {
        Ok(rows) => {
            for (kind, rows) in rows {
                metrics::default_partition_rows(kind.table(), rows);
            }
        }
        // a figure, and no reason not to start: a replica that replays late may hold a lock on a new partition
        Err(error) => tracing::debug!(?error, "the rows of the DEFAULT partitions were not counted"),
    }
    Ok(())
}

/// A lock that is held for hours is one story, not a line a round.
fn note_locked(app: &App, busy: u32) {
    if busy == 0 {
        app.state.busy_rounds.store(0, Ordering::Relaxed);
        return;
    }
    let round = app.state.busy_rounds.fetch_add(1, Ordering::Relaxed) + 1;
    if round % 10 == 1 {
        tracing::warn!(
            partitions = busy,
            rounds = round,
            "partitions wait for a lock that somebody else holds (a dump, an open transaction); trying again later"
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
        partitions::note_retention(&app.db, days).await?;
        let round = partitions::drop_old(&app.db, days, options).await?;
        if round.done > 0 {
            tracing::info!(dropped = round.done, retention_days = days, "dropped partitions");
        }
        if round.busy > 0 {
            tracing::info!(
                partitions = round.busy,
                "old partitions wait for a lock that somebody else holds"
            );
        }
        let rows = partitions::delete_old(&app.db, days, options).await?;
        if rows > 0 {
            tracing::info!(rows, retention_days = days, "deleted old rows outside the day partitions");
        }
    }
    let days = whole_days(app.config.postbacks.keep_raw);
    if days > 0 {
        let cut = postbacks::cut_old(&app.db, i32::try_from(days).unwrap_or(i32::MAX)).await?;
        if cut > 0 {
            tracing::info!(postbacks = cut, keep_raw_days = days, "removed what nothing is read from");
        }
    }
    db::ingest::count_waiting_out_clicks(&app.db).await?;
    erasures::forget_old(&app.db, whole_days(app.config.privacy.erasure_keep)).await?;
    visitor_keys::delete_old(&app.db).await
}

/// Days as PostgreSQL counts them.
fn whole_days(time: Duration) -> u32 {
    u32::try_from(time.as_secs() / 86_400).unwrap_or(u32::MAX)
}

/// Takes the keys of today and tomorrow that all nodes have, so that none is asked for at midnight.
pub(crate) async fn share_keys(app: &App) -> Result<(), db::Error> {
    let mut fresh = [[0; 16]; 2];
    if fresh.iter_mut().any(|key| getrandom::fill(key).is_err()) {
        return Ok(()); // said at start; the keys of this node go on
    }
    let now_s = u64::try_from(Utc::now().timestamp()).unwrap_or(0);
    app.keys.share(visitor_keys::of_days(&app.db, keys::days(now_s), fresh).await?);
    Ok(())
}

/// In words that tell a server that does not answer from one that does.
pub(crate) fn plain(app: &App, error: &anyhow::Error) -> String {
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
