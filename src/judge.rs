//! Whether a click counts. From memory only. Where a visit leads does not depend on it: people and bots get the same
//! destination.

pub(crate) mod duplicates;
pub(crate) mod networks;
pub(crate) mod sharing;

use std::{net::IpAddr, sync::Arc};

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    config::Config,
    judge::{
        duplicates::{DuplicateTable, Sight},
        networks::{InvalidNetworks, Networks},
    },
    limits::PerAddress,
    metrics,
    model::click::InvalidReason,
    privacy::keys::Keys,
};

/// The first click of a visit, for the other nodes: a hash under a key that only they have, and its second.
pub type NewVisit = (u64, u64);

/// Judges visits.
pub struct Judge {
    datacenters: Networks,
    duplicates: Option<Duplicates>,
    clicks_per_address: Option<PerAddress>,
}

struct Duplicates {
    seen: DuplicateTable,
    keys: Arc<Keys>,
    /// To the other nodes; `None` where there is no way to tell them.
    told: Option<mpsc::Sender<NewVisit>>,
}

/// What a visit is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Whether the browser fetched the link ahead of a visit.
    pub is_prefetch: bool,
    /// Whether the user agent is a known robot's.
    pub is_bot: bool,
    /// The visitor's whole address.
    pub ip: IpAddr,
    /// As sent; empty when there was none.
    pub user_agent: &'a str,
    /// The campaign whose link it is.
    pub campaign_id: Uuid,
    /// Seconds since 1970.
    pub now_s: u64,
}

impl Judge {
    /// Reads the operator's list. `told` takes the first clicks of visits for other nodes.
    pub fn open(
        config: &Config,
        keys: Arc<Keys>,
        told: Option<mpsc::Sender<NewVisit>>,
    ) -> Result<Self, InvalidNetworks> {
        let tracking = &config.tracking;
        let networks = tracking.datacenter_networks_file.as_deref().map(Networks::open);
        let duplicates = (!tracking.duplicate_window.is_zero()).then(|| Duplicates {
            seen: DuplicateTable::new(tracking.duplicate_visits_max, tracking.duplicate_window.as_secs()),
            keys,
            told,
        });
        Ok(Self {
            datacenters: networks.transpose()?.unwrap_or_default(),
            duplicates,
            clicks_per_address: PerAddress::of_clicks(&config.limits),
        })
    }

    /// Why a click that its campaign takes does not count; the first reason of [`InvalidReason`] is given. One that does
    /// count is noted: those after it are duplicates, and there may be so many of an address.
    pub fn judge(&self, evidence: Evidence<'_>) -> Option<InvalidReason> {
        if evidence.is_prefetch {
            return Some(InvalidReason::Prefetch);
        }
        if evidence.is_bot {
            return Some(InvalidReason::Bot);
        }
        if evidence.user_agent.trim().is_empty() {
            return Some(InvalidReason::NoUserAgent);
        }
        if self.datacenters.contains(evidence.ip) {
            return Some(InvalidReason::Datacenter);
        }
        if self.duplicates.as_ref().is_some_and(|duplicates| !duplicates.is_new(evidence)) {
            return Some(InvalidReason::Duplicate);
        }
        let limit = self.clicks_per_address.as_ref();
        limit.is_some_and(|limit| limit.count(evidence.ip).is_err()).then_some(InvalidReason::RateLimited)
    }

    /// What another node told: a visit that began there.
    pub fn heard(&self, (hash, at_s): NewVisit) {
        if let Some(duplicates) = &self.duplicates {
            duplicates.seen.see(hash, at_s);
        }
    }

    /// Whether visits are told apart by hashes under the keys of days.
    pub fn uses_keys(&self) -> bool {
        self.duplicates.is_some()
    }
}

impl Duplicates {
    fn is_new(&self, evidence: Evidence<'_>) -> bool {
        let Evidence { ip, user_agent, campaign_id, now_s, .. } = evidence;
        let hash = self.keys.hash_visit(ip, user_agent, campaign_id, now_s);
        match self.seen.see(hash, now_s) {
            Sight::Again => return false,
            Sight::FirstForgetting => metrics::visit_forgotten(),
            Sight::First => {}
        }
        if let Some(told) = &self.told
            && told.try_send((hash, now_s)).is_err()
        {
            metrics::visits_untold(1);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Loaded};
    use std::time::Duration;

    #[test]
    fn the_first_reason_is_given_and_only_a_click_that_counts_is_noted() {
        let mut config = Loaded::load(None, [], &Flags::default()).unwrap().config;
        (config.tracking.duplicate_window, config.limits.clicks_per_minute) = (Duration::from_mins(1), 1);
        let mut judge = Judge::open(&config, Arc::new(Keys::new([7; 16])), None).unwrap();
        judge.datacenters = Networks::parse("192.0.2.0/24").unwrap();
        let person = Evidence {
            is_prefetch: false,
            is_bot: false,
            ip: "203.0.113.7".parse().unwrap(),
            user_agent: "Mozilla/5.0",
            campaign_id: Uuid::nil(),
            now_s: 1_800_000_000,
        };
        let datacenter = Evidence { ip: "192.0.2.1".parse().unwrap(), ..person };
        let nobody = Evidence { user_agent: " ", ..datacenter };
        let bot = Evidence { is_bot: true, ..nobody };
        for (evidence, reason) in [
            (Evidence { is_prefetch: true, ..bot }, InvalidReason::Prefetch),
            (bot, InvalidReason::Bot),
            (nobody, InvalidReason::NoUserAgent),
            (datacenter, InvalidReason::Datacenter),
            (Evidence { is_prefetch: true, ..person }, InvalidReason::Prefetch),
        ] {
            assert_eq!(judge.judge(evidence), Some(reason));
        }
        assert_eq!(judge.judge(person), None, "nothing before it was noted");
        assert_eq!(judge.judge(person), Some(InvalidReason::Duplicate));
        let other_campaign = Evidence { campaign_id: Uuid::max(), ..person };
        assert_eq!(judge.judge(other_campaign), Some(InvalidReason::RateLimited));
    }
}
