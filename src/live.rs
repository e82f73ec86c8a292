//! What is stored, told at once to those who look. Nothing is kept, and while nobody looks nothing is copied: the drain asks one
//! relaxed atomic, the click path nothing at all.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::{
    db::ingest::Change,
    facts::{Fact as _, click::Click},
    model::{click::InvalidReason, id::ClickId},
};

/// Longest text of a stranger that is told, in characters.
const CHARS_MAX: usize = 120;

/// Everybody who looks.
#[derive(Debug)]
pub struct Live {
    sender: broadcast::Sender<Arc<Seen>>,
    watchers: Arc<AtomicUsize>,
    watchers_max: usize,
}

/// A click or a change of a conversion that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// When it came.
    pub at: DateTime<Utc>,
    /// Its click.
    pub click_id: ClickId,
    /// Its campaign.
    pub campaign_id: Uuid,
    /// Whether the click counts.
    pub is_valid: bool,
    /// What it is.
    pub what: What,
}

/// What was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A click.
    Click {
        /// ISO 3166-1 alpha-2.
        country: Option<String>,
        /// Device, operating system and browser, as far as they are known.
        device: String,
        /// `sub1`
        sub1: Option<String>,
        /// Why it does not count.
        reason: Option<InvalidReason>,
    },
    /// A conversion that is new, or is something else now.
    Conversion {
        /// What it is now.
        status: &'static str,
        /// What it pays.
        payout: Decimal,
        /// The currency of that.
        currency: String,
    },
}

impl Live {
    /// For so many at once; a reader who falls back by more than `lag_rows_max` loses rows.
    pub fn new(watchers_max: usize, lag_rows_max: usize) -> Self {
        let (sender, _) = broadcast::channel(lag_rows_max);
        Self { sender, watchers: Arc::default(), watchers_max }
    }

    /// Looks from now on; `None` where enough others do.
    pub fn watch(&self) -> Option<Watcher> {
        let more = |watchers| (watchers < self.watchers_max).then_some(watchers + 1);
        self.watchers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Watcher { receiver: self.sender.subscribe(), watchers: self.watchers.clone() })
    }

    fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    /// Tells of clicks that were stored.
    pub fn see_clicks(&self, clicks: &[&Click<'_>]) {
        if self.is_watched() {
            for click in clicks {
                self.tell(Seen::of_click(click));
            }
        }
    }

    /// Tells of changes of conversions that were stored.
    pub fn see_changes(&self, changes: &[Change]) {
        if self.is_watched() {
            for change in changes {
                self.tell(Seen::of_change(change));
            }
        }
    }

    fn tell(&self, seen: Seen) {
        let _ = self.sender.send(Arc::new(seen)); // the last one may just have gone
    }
}

impl Seen {
    fn of_click(click: &Click<'_>) -> Self {
        let known = [&click.device, &click.os, &click.browser].into_iter().flatten().map(|text| &**text);
        Self {
            at: click.at(),
            click_id: click.id,
            campaign_id: click.campaign_id,
            is_valid: click.is_valid(),
            what: What::Click {
                country: click.country.as_deref().map(shortened),
                device: known.collect::<Vec<_>>().join(", "),
                sub1: click.subs[0].as_deref().map(shortened),
                reason: click.invalid_reason,
            },
        }
    }

    fn of_change(change: &Change) -> Self {
        Self {
            at: change.changed_at,
            click_id: change.click_id,
            campaign_id: change.campaign_id,
            is_valid: change.is_click_valid,
            what: What::Conversion {
                status: change.to_status.into(),
                payout: change.payout,
                currency: change.currency.clone(),
            },
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(CHARS_MAX).collect()
}

/// Somebody who looks, until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    receiver: broadcast::Receiver<Arc<Seen>>,
    watchers: Arc<AtomicUsize>,
}

impl Watcher {
    /// The next one; `Err` with how many were lost, because this one read too slowly.
    pub async fn next(&mut self) -> Result<Arc<Seen>, u64> {
        match self.receiver.recv().await {
            Ok(seen) => Ok(seen),
            Err(broadcast::error::RecvError::Lagged(lost)) => Err(lost),
            // the sender is a part of the application, which outlives its answers
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen {
            at: Utc::now(),
            click_id: ClickId::now(),
            campaign_id: Uuid::nil(),
            is_valid: true,
            what: What::Conversion { status: "approved", payout: Decimal::ONE, currency: "USD".to_owned() },
        }
    }

    #[tokio::test]
    async fn so_many_look_at_once_and_one_who_goes_leaves_a_place() {
        let live = Live::new(2, 4);
        assert!(!live.is_watched());
        let (first, second) = (live.watch(), live.watch());
        assert!(first.is_some() && second.is_some() && live.watch().is_none());
        drop(first);
        assert!(live.watch().is_some());
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_many_it_lost() {
        let live = Live::new(1, 4);
        let mut watcher = live.watch().unwrap();
        let last = seen();
        for _ in 0..6 {
            live.tell(seen());
        }
        live.tell(last.clone());
        assert_eq!(watcher.next().await, Err(3));
        for _ in 0..3 {
            watcher.next().await.unwrap();
        }
        assert_eq!(*watcher.next().await.unwrap(), last);
    }
}
