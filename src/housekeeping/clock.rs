//! Whether this node's clock can be believed. Ids, and so the times of clicks, come from it; nothing is deleted by it.

use std::time::{Instant, SystemTime};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    db::{self, clock::Skew},
    metrics,
};

/// When this release was made; no right clock says less. Moved with each release.
const RELEASED: DateTime<Utc> = DateTime::from_timestamp(1_793_491_200, 0).expect("2026-11-01");

/// How long after it a time can be believed.
const BELIEVED_FOR: TimeDelta = TimeDelta::days(3653);

/// Whether a clock may be right that says this.
pub fn is_plausible(now: DateTime<Utc>) -> bool {
    (RELEASED..RELEASED + BELIEVED_FOR).contains(&now)
}

/// By how much the wall clock was set, in seconds, as the clock that is never set shows: positive is ahead.
#[derive(Debug, Default)]
struct Jumps(Option<(SystemTime, Instant)>);

impl Jumps {
    fn look(&mut self, wall: SystemTime, steady: Instant) -> f64 {
        let Some((wall_before, steady_before)) = self.0.replace((wall, steady)) else { return 0.0 };
        let wall_s = match wall.duration_since(wall_before) {
            Ok(on) => on.as_secs_f64(),
            Err(back) => -back.duration().as_secs_f64(),
        };
        wall_s - steady.saturating_duration_since(steady_before).as_secs_f64()
    }
}

/// Watches the clock until the stop signal, and says what is wrong with it.
pub async fn run(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    let most = app.config.clock.skew_max;
    let mut settings = Jumps::default();
    let (mut was_plausible, mut was_apart) = (true, false);
    while !stop.is_cancelled() {
        let jump_s = settings.look(SystemTime::now(), Instant::now());
        if jump_s.abs() > most.as_secs_f64() {
            metrics::clock_jumped(jump_s > 0.0);
            let seconds = jump_s.round();
            tracing::warn!(
                seconds,
                "the clock of this machine was set, or it slept; clicks have the time it says"
            );
        }
        let now = Utc::now();
        let is_plausible = is_plausible(now);
        metrics::clock_plausible(is_plausible);
        if was_plausible && !is_plausible {
            tracing::error!(%now, "the clock of this machine cannot be right, and clicks get its time: set it");
        }
        was_plausible = is_plausible;
        let skew = db::clock::skew(&app.db).await;
        metrics::clock_skew(skew.as_ref().ok().map(|skew| seconds(*skew)));
        if let Ok(skew) = skew {
            let is_apart = skew.may_exceed(most);
            if is_apart && !was_apart {
                say_apart(skew);
            } else if was_apart && !is_apart {
                tracing::info!("the clocks of this node and of PostgreSQL agree again");
            }
            was_apart = is_apart;
        }
        stop.run_until_cancelled(sleep(app.config.clock.check_interval)).await;
    }
    Ok(())
}

/// Whether anything may be deleted for its age: only while this node's clock and the database's agree, because one of
/// them is wrong otherwise, and what is deleted does not come back.
pub async fn lets_delete(app: &App) -> Result<bool, db::Error> {
    let skew = db::clock::skew(&app.db).await?;
    let is_right = !skew.may_exceed(app.config.clock.skew_max) && is_plausible(Utc::now());
    if !is_right {
        say_apart(skew);
    }
    Ok(is_right)
}

fn say_apart(skew: Skew) {
    tracing::warn!(
        ahead_of_postgresql_s = seconds(skew),
        now = %Utc::now(),
        "this node's clock and PostgreSQL's differ, or neither can be right: nothing is deleted for its age until they agree"
    );
}

fn seconds(skew: Skew) -> f64 {
    skew.ahead.num_milliseconds() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_release_is_not_of_the_future_and_a_clock_not_of_long_ago() {
        assert!(is_plausible(Utc::now()), "move RELEASED back, or build with a right clock");
        assert_eq!(RELEASED.to_rfc3339(), "2026-11-01T00:00:00+00:00");
        for bad in [DateTime::UNIX_EPOCH, RELEASED - TimeDelta::seconds(1), RELEASED + BELIEVED_FOR] {
            assert!(!is_plausible(bad), "{bad}");
        }
    }

    #[test]
    fn a_clock_that_is_set_is_told_from_time_that_passes() {
        let (wall, steady) = (SystemTime::now(), Instant::now());
        let at = |wall_s: i64, steady_s: u64| {
            let moved = Duration::from_secs(wall_s.unsigned_abs());
            let wall = if wall_s < 0 { wall - moved } else { wall + moved };
            (wall, steady + Duration::from_secs(steady_s))
        };
        let mut jumps = Jumps::default();
        for ((wall, steady), wanted) in [
            (at(0, 0), 0.0),
            (at(5, 5), 0.0),
            (at(3610, 10), 3600.0),
            (at(15, 15), -3600.0),
            (at(-1, 20), -21.0),
        ] {
            assert!((jumps.look(wall, steady) - wanted).abs() < 1e-6, "{wanted}");
        }
    }
}
