//! Keeps the set fresh: polls Postgres for changed campaigns, and listens for its notifications, which only make the
//! next poll come at once.

use std::{
    convert::Infallible,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    Campaigns, Source,
    set::{Set, whole},
    shared::Shared,
};
use crate::{
    db::{self, store::campaigns::Changes},
    metrics::{self, CacheLayer::Database, CacheOutcome},
    model::{campaign::Campaign, id::CampaignKey},
    routing::Routes,
};

/// Campaigns read from Postgres in one query.
const PAGE: i64 = 2000;

/// Up to where Postgres was read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// What to ask for next time; 0: everything.
    horizon: i64,
    /// Since when the server runs that was read.
    server: Option<DateTime<Utc>>,
}

impl Campaigns {
    pub(super) async fn keep_polling(&self, stop: &CancellationToken) {
        let mut failures = 0u32;
        while !stop.is_cancelled() {
            match self.poll().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    metrics::cache_request(Database, CacheOutcome::Error);
                    if failures % 12 == 1 {
                        let error = format!("{error:#}");
                        tracing::warn!(error, "cannot read campaigns; serving those in memory");
                    }
                }
            }
            tokio::select! {
                () = sleep(self.poll_interval) => {}
                () = self.poll_now.notified() => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Marks the set as stale when no poll has confirmed it for a while; a poll may hang, so beside it.
    pub(super) async fn watch_age(&self) {
        loop {
            sleep(self.poll_interval.min(Duration::from_secs(1))).await;
            let is_stale = self.confirmed_age().is_none_or(|age| age > self.stale_after);
            let was_stale = self.is_stale.swap(is_stale, Ordering::Relaxed);
            if is_stale && !was_stale {
                tracing::warn!(
                    "the campaigns in memory are not confirmed any more; serving them as they are"
                );
            }
        }
    }

    /// Listens for notifications until the stop signal; each one brings the next poll forward.
    pub async fn listen(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        if !self.db.direct().is_session() {
            tracing::info!("no notifications come through PgBouncer: changed campaigns are polled for");
            stop.cancelled().await;
            return Ok(());
        }
        while !stop.is_cancelled() {
            let Some(ended) = stop.run_until_cancelled(self.hear_notifications()).await else {
                return Ok(());
            };
            tracing::debug!(error = ?ended, "not listening for campaign changes; polling goes on");
            stop.run_until_cancelled(sleep(Duration::from_secs(1))).await;
        }
        Ok(())
    }

    /// Ends only with its connection.
    async fn hear_notifications(&self) -> Result<Infallible, sqlx::Error> {
        let mut listener = self.db.direct().listen("octo_campaigns").await?;
        self.poll_now.notify_one(); // what was said while nobody listened
        loop {
            let notification = listener.recv().await?;
            if notification.payload() == "delete" {
                self.reload.store(true, Ordering::Relaxed);
            }
            self.poll_now.notify_one();
        }
    }

    /// Polls, and brings what changed to Redis; whether Postgres answered.
    pub(super) async fn see_changes(&self) -> bool {
        match self.poll().await {
            Ok(()) => {
                self.write_to_redis().await;
                self.save_if_due().await;
                true
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "cannot refresh the campaigns; the next poll will");
                false
            }
        }
    }

    /// Reads what changed since the last poll; everything the first time, after a deletion by hand, after Postgres
    /// went back in time, and from another server than before: what was seen of that one may be lost.
    pub(super) async fn poll(&self) -> Result<(), db::Error> {
        let mut seen = self.seen.lock().await;
        let is_known = seen.horizon != 0;
        let mut is_full = self.reload.swap(false, Ordering::Relaxed) || !is_known;
        let read = async {
            let mut read = self.read_since(if is_full { 0 } else { seen.horizon }, !is_known).await?;
            if !is_full && (read.horizon < seen.horizon || seen.server != Some(read.server)) {
                tracing::info!("PostgreSQL was started again or is another server; reading all campaigns");
                is_full = true;
                read = self.read_since(0, false).await?;
            }
            Ok(read)
        };
        let Changes { horizon, server, is_foreign, list: changes } = match read.await {
            Ok(read) => read,
            Err(error) => {
                // asked for and not done
                self.reload.fetch_or(is_full && is_known, Ordering::Relaxed);
                return Err(error);
            }
        };
        *seen = Seen { horizon, server: Some(server) };
        if is_foreign {
            self.heal().await;
        }
        self.identify(is_full).await;
        let is_first = self.source.swap(Source::Database as u64, Ordering::Relaxed) == Source::Nothing as u64;
        self.confirmed.store(self.now_ms(), Ordering::Relaxed);
        self.is_stale.store(false, Ordering::Relaxed);
        if !is_full && changes.is_empty() {
            return Ok(());
        }
        let keys = self.replace(changes, is_full);
        self.changes.fetch_add(1, Ordering::Relaxed);
        for key in &keys {
            self.forget(key).await;
        }
        if !keys.is_empty() {
            self.file.must_save();
        }
        // the first load does not fill Redis: look-ups do
        if !is_first {
            self.must_write(keys);
        }
        Ok(())
    }

    /// Asks the database which one it is, where names in Redis are made of it: at first, and whenever everything is
    /// read again, because it may have been replaced. What cannot be asked now is asked at the next poll; until then
    /// what was saved holds, and without that Redis is not asked.
    async fn identify(&self, is_full: bool) {
        let redis = self.shared.as_ref().map(Shared::redis);
        let Some(redis) = redis.filter(|redis| redis.is_named_by_database()) else { return };
        if !is_full && redis.installation().is_some() {
            return;
        }
        match db::store::installation::identify(&self.db).await {
            Ok(identity) => {
                // an empty set is not worth a save, but for the next one to wait for
                if redis.name_after(&identity) && self.state().0 > 0 {
                    self.file.must_save();
                }
            }
            Err(error @ db::Error::Query { .. }) if is_full => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(
                    error,
                    "the database does not say which one it is: without redis.key_prefix Redis is not used"
                );
            }
            Err(error) => tracing::debug!(?error, "the database was not asked which one it is"),
        }
    }

    /// What changed, and what to ask for next time: the smallest horizon of all pages, and the server of the first. A
    /// node that has read nothing yet takes what a replica says (`may_lag`).
    async fn read_since(&self, since: i64, may_lag: bool) -> Result<Changes, db::Error> {
        let mut read: Option<Changes> = None;
        let mut after = None;
        loop {
            let page = db::store::campaigns::changed_since(&self.db, since, after, PAGE, may_lag).await?;
            after = page.list.last().map(|change| change.campaign.id);
            let is_last = page.list.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
            let read = match &mut read {
                None => read.insert(page),
                Some(read) => {
                    read.horizon = read.horizon.min(page.horizon);
                    read.list.extend(page.list);
                    read
                }
            };
            if is_last {
                return Ok(std::mem::take(read));
            }
        }
    }

    /// Of a database that was restored from the dump of another one: otherwise each poll would read the same campaigns.
    async fn heal(&self) {
        match db::store::campaigns::heal(&self.db).await {
            Ok(0) => {} // another node was faster
            Ok(campaigns) => tracing::info!(
                campaigns,
                "the database came from another server, as a dump does: its campaigns have transaction ids of this one now"
            ),
            Err(error) => tracing::debug!(?error, "campaigns keep transaction ids of another server"),
        }
    }

    /// Puts changes into the set; returns the keys that mean something else now, or nothing any more.
    pub(super) fn replace(
        &self,
        changes: Vec<db::store::campaigns::Change>,
        is_full: bool,
    ) -> Vec<CampaignKey> {
        if is_full {
            return self.exchange(whole(changes));
        }
        let mut keys = Vec::new();
        let mut set = self.set.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            set.apply(change, &mut keys);
        }
        metrics::cache_campaigns(set.by_key.len());
        keys
    }

    /// Puts another set in the place of the one there is; clicks wait only while the two are compared. Returns the keys
    /// that mean something else now, or nothing any more.
    pub(super) fn exchange(&self, fresh: Set) -> Vec<CampaignKey> {
        let mut keys = Vec::new();
        let version = |routes: &Arc<Routes>| {
            let Campaign { id, version, updated_at, .. } = &routes.campaign;
            (*id, *version, *updated_at)
        };
        let is_other = |(key, routes): &(&CampaignKey, &Arc<Routes>), set: &Set| {
            set.by_key.get(*key).map(version) != Some(version(routes))
        };
        metrics::cache_campaigns(fresh.by_key.len());
        let mut set = self.set.write().unwrap_or_else(PoisonError::into_inner);
        keys.extend(fresh.by_key.iter().filter(|e| is_other(e, &set)).map(|(key, _)| key.clone()));
        keys.extend(set.by_key.keys().filter(|key| !fresh.by_key.contains_key(*key)).cloned());
        let before = std::mem::replace(&mut *set, fresh);
        drop(set);
        drop(before); // takes as long as its campaigns are many, and nobody waits for it
        keys
    }
}
