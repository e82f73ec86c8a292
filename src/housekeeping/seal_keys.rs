//! The keys of tokens: shared with the other nodes through Postgres, every `tracking.token_keys_poll_s`, and as soon as
//! a token names a key that is not known here.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{app::App, db, db::store::seal_keys, seal::keys::Key};

/// A new key seals an hour after it is made.
const POLL_MAX: Duration = Duration::from_mins(30);

/// Between two looks that tokens of unknown keys ask for: strangers can make such tokens.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps the keys those of all nodes, until the stop signal.
pub(crate) async fn run(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    let rounds = async {
        loop {
            sleep(PAUSE).await;
            tokio::select! {
                () = sleep(app.config.tracking.token_keys_poll.min(POLL_MAX)) => {}
                () = app.keyring.wanted.notified() => {}
            }
            // a Postgres that is away has its own lines in the log
            if let Err(error) = share(&app).await {
                tracing::debug!(?error, "the keys of tokens were not shared");
            }
        }
    };
    stop.run_until_cancelled(rounds).await;
    Ok(())
}

/// Gives the keys of this node to all, and takes those of all.
pub(crate) async fn share(app: &App) -> Result<(), db::Error> {
    let Ok(fresh) = Key::random() else { return Ok(()) }; // said at start
    let tracking = &app.config.tracking;
    let days = |time: Duration| u32::try_from(time.as_secs() / 86_400).unwrap_or(u32::MAX);
    let (seal_days, live_days) = (days(tracking.token_key), days(tracking.token));
    let keys = seal_keys::share(&app.db, app.keyring.offered(), fresh, seal_days, live_days).await?;
    let keyring = app.keyring.clone();
    let _ = tokio::task::spawn_blocking(move || keyring.share(keys)).await; // it writes the file
    Ok(())
}
