//! Whether a click counts. From memory only. Where a visit leads does not depend on it: people and bots get the same
//! destination.

pub mod again;
pub(crate) mod networks;
pub(crate) mod seen;
pub(crate) mod sharing;
pub mod uniques;

use std::net::IpAddr;

use tokio::sync::mpsc;

use crate::{
    config::Config,
    judge::{
        networks::{InvalidNetworks, Networks},
        seen::{SeenTable, Sight},
    },
    limits::PerAddress,
    metrics,
    model::click::InvalidReason,
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
    seen: SeenTable,
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
    /// Who clicks on which campaign, as [`Keys`](crate::privacy::keys::Keys) hash it.
    pub visit: u64,
    /// Seconds since 1970.
    pub now_s: u64,
}

impl Judge {
    /// Reads the operator's list. `told` takes the first clicks of visits for other nodes.
    pub fn open(config: &Config, told: Option<mpsc::Sender<NewVisit>>) -> Result<Self, InvalidNetworks> {
        let tracking = &config.tracking;
        let networks = tracking.datacenter_networks_file.as_deref().map(Networks::open);
        let duplicates = (!tracking.duplicate_window.is_zero()).then(|| Duplicates {
            seen: SeenTable::new(tracking.duplicate_visits_max, tracking.duplicate_window.as_secs()),
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

    /// The operator's list.
    pub fn datacenters(&self) -> &Networks {
        &self.datacenters
    }

    /// What another node told: a visit that began there.
    pub fn heard(&self, (hash, at_s): NewVisit) {
        if let Some(duplicates) = &self.duplicates {
            duplicates.seen.see(hash, at_s);
        }
    }
}

impl Duplicates {
    fn is_new(&self, evidence: Evidence<'_>) -> bool {
        let Evidence { visit: hash, now_s, .. } = evidence;
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
        let mut judge = Judge::open(&config, None).unwrap();
        judge.datacenters = Networks::parse("192.0.2.0/24").unwrap();
        let person = Evidence {
            is_prefetch: false,
            is_bot: false,
            ip: "203.0.113.7".parse().unwrap(),
            user_agent: "Mozilla/5.0",
            visit: 7,
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
        let other_campaign = Evidence { visit: 8, ..person };
        assert_eq!(judge.judge(other_campaign), Some(InvalidReason::RateLimited));
    }
}
