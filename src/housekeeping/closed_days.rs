//! Days that are over: their clicks get an index by campaign and time, for the rows behind a report. Today's have none, because each
//! index costs whoever stores them a third of the rate.

use std::time::Instant;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{app::App, db::partitions, housekeeping::database::plain};

/// Looks for days to be indexed every `database.partitions_interval_s`, until the stop signal.
pub(crate) async fn run(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    let rounds = async {
        loop {
            if app.config.reports.index_closed_days {
                index(&app).await;
            }
            sleep(app.config.database.partitions_interval).await;
        }
    };
    stop.run_until_cancelled(rounds).await;
    Ok(())
}

/// One day after the other, until there is no more; what fails is tried again in the next round.
async fn index(app: &App) {
    let (hours, limit) = (app.config.reports.index_hour, app.config.database.partition_check_timeout);
    loop {
        let begun = Instant::now();
        match partitions::index_closed_day(&app.db, hours, limit).await {
            Ok(Some(partition)) => {
                let seconds = begun.elapsed().as_secs();
                tracing::info!(partition, seconds, "indexed the clicks of a day that is over");
            }
            Ok(None) => return,
            Err(error) => {
                let error = plain(app, &error.into());
                tracing::warn!(error, "cannot index the clicks of a day that is over; trying again later");
                return;
            }
        }
    }
}
