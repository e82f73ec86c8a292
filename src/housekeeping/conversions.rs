//! Conversions beside the drain: those whose click came by another node, those that waited too long, and what of them is
//! counted.

use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    db::{
        ingest::{self, Change, Told},
        store::conversions::{self, Trouble},
    },
    metrics,
    model::conversion::{ConversionKind, Status},
};

/// Minutes back from now in which every round looks for clicks that came meanwhile.
const OFTEN_MINUTES: i32 = 15;

/// How often all that wait are looked at, and counted.
const SELDOM: Duration = Duration::from_mins(10);

/// Settles what waits every `drain.conversions_interval_ms`, until the stop signal.
pub(crate) async fn run(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    let (mut seldom, mut trouble) = (None::<Instant>, Trouble::default());
    while !stop.is_cancelled() {
        let is_seldom = seldom.is_none_or(|last| last.elapsed() >= SELDOM);
        let minutes = if is_seldom { i32::MAX } else { OFTEN_MINUTES };
        match ingest::settle_waiting_conversions(&app.db, minutes).await {
            Ok(settled) => {
                count_stored(&app, &settled);
                if is_seldom {
                    seldom = Some(Instant::now());
                }
            }
            // the next round is soon
            Err(error) => {
                tracing::debug!(?error, "conversions that wait for their clicks were not looked at");
            }
        }
        if is_seldom {
            look_for_trouble(&app, &mut trouble).await;
        }
        if let Ok(open) = conversions::count_open(&app.db).await {
            metrics::conversions_waiting(open.waiting);
            metrics::conversions_unmapped(open.unmapped);
        }
        stop.run_until_cancelled(sleep(app.config.drain.conversions_interval)).await;
    }
    Ok(())
}

/// Says which networks and offers somebody should look at; each once, while it lasts.
async fn look_for_trouble(app: &App, known: &mut Trouble) {
    let Ok(trouble) = conversions::find_trouble(&app.db).await else { return };
    metrics::troubled_networks(trouble.networks.len());
    metrics::stopped_offers(trouble.offers.len());
    let fresh = |now: &[i64], known: &[i64]| -> Vec<i64> {
        now.iter().filter(|id| !known.contains(id)).copied().collect()
    };
    let networks = fresh(&trouble.networks, &known.networks);
    if !networks.is_empty() {
        tracing::warn!(
            ?networks,
            "more than a fifth of the postbacks of affiliate networks were refused or ignored within an hour (0: of no \
             network that is known); GET /api/v1/postbacks?network= says why"
        );
    }
    let offers = fresh(&trouble.offers, &known.offers);
    if !offers.is_empty() {
        tracing::warn!(?offers, "offers that used to convert had no conversion for a day");
    }
    *known = trouble;
}

/// Counts conversions that were stored: in the figures of `/metrics`, and toward caps.
pub(crate) fn count_stored(app: &App, told: &Told) {
    for outcome in &told.postbacks {
        metrics::postback_stored(outcome.into());
    }
    for change in &told.changes {
        if change.from_status != Some(change.to_status) {
            metrics::conversion(change.to_status.into());
        }
        count_toward_caps(app, change);
    }
    app.live.see_changes(&told.changes);
}

/// A conversion takes a place while it is pending or approved.
fn count_toward_caps(app: &App, change: &Change) {
    let takes_place = |status: Status| status.has_money();
    let (before, now) = (change.from_status.is_some_and(takes_place), takes_place(change.to_status));
    if change.kind != ConversionKind::Conversion || before == now {
        return;
    }
    let Some(routes) = app.campaigns.in_memory_by_id(change.campaign_id) else { return };
    let (path_id, offer_id, arrived_at) = (change.path_id, change.offer_id, change.arrived_at);
    if now {
        app.caps.count_conversion(&routes, path_id, offer_id, Utc::now());
    } else {
        app.caps.give_back_conversion(&routes, path_id, offer_id, arrived_at, Utc::now());
    }
}
