//! Whether a visit is suspect, and what of its address may be kept. From memory only, and the same for everybody:
//! where a visit leads does not depend on it.

use std::net::IpAddr;

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    config::{Config, IpMode},
    facts::click::InvalidReason,
    judge::{
        duplicates::{DuplicateTable, Sight},
        networks::{self, InvalidNetworks, Networks},
    },
    metrics,
    privacy::keys::{Key, Keys},
};

/// The first click of a visit, for the other nodes: a hash under a key that only they have, and its second.
pub type NewVisit = (u64, u64);

#[derive(Debug)]
pub struct Visits {
    ip_mode: IpMode,
    datacenters: Networks,
    keys: Keys,
    duplicates: Option<Duplicates>,
}

#[derive(Debug)]
struct Duplicates {
    seen: DuplicateTable,
    /// To the other nodes; `None` where there is no way to tell them.
    told: Option<mpsc::Sender<NewVisit>>,
}

/// Who came, as far as it is looked at here.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// The visitor's whole address.
    pub ip: IpAddr,
    /// As sent; empty when there was none.
    pub user_agent: &'a str,
    /// The campaign whose link it is.
    pub campaign_id: Uuid,
    /// Seconds since 1970.
    pub now_s: u64,
}

impl Visits {
    /// Reads the operator's list. `key` is random; `told` takes the first clicks of visits for other nodes.
    pub fn open(
        config: &Config,
        key: Key,
        told: Option<mpsc::Sender<NewVisit>>,
    ) -> Result<Self, InvalidNetworks> {
        let tracking = &config.tracking;
        let networks = tracking.datacenter_networks_file.as_deref().map(Networks::open);
        let duplicates = (tracking.duplicate_window_s > 0).then(|| Duplicates {
            seen: DuplicateTable::new(tracking.duplicate_visits_max, tracking.duplicate_window_s),
            told,
        });
        Ok(Self {
            ip_mode: config.privacy.ip_mode,
            datacenters: networks.transpose()?.unwrap_or_default(),
            keys: Keys::new(key),
            duplicates,
        })
    }

    /// Why a visit that is otherwise fine does not count. A visit that does is noted: those after it are duplicates.
    pub fn suspect(&self, visit: Visit<'_>) -> Option<InvalidReason> {
        if visit.user_agent.trim().is_empty() {
            return Some(InvalidReason::NoUserAgent);
        }
        if self.datacenters.contains(visit.ip) {
            return Some(InvalidReason::Datacenter);
        }
        let duplicates = self.duplicates.as_ref()?;
        let Visit { ip, user_agent, campaign_id, now_s } = visit;
        let hash = self.keys.hash_visit(ip, user_agent, campaign_id, now_s);
        (!duplicates.is_new(hash, now_s)).then_some(InvalidReason::Duplicate)
    }

    /// What another node told: a visit that began there.
    pub fn heard(&self, (hash, at_s): NewVisit) {
        if let Some(duplicates) = &self.duplicates {
            duplicates.seen.see(hash, at_s);
        }
    }

    /// What `privacy.ip_mode` leaves of an address.
    pub fn kept_address(&self, ip: IpAddr, now_s: u64) -> Option<IpAddr> {
        match self.ip_mode {
            IpMode::Full => Some(ip),
            IpMode::Truncate => Some(networks::truncate(ip)),
            IpMode::Hash => Some(self.keys.hash_address(ip, now_s)),
            IpMode::None => None,
        }
    }

    /// The secrets of days, where anything is hashed under them.
    pub fn keys(&self) -> Option<&Keys> {
        (self.ip_mode == IpMode::Hash || self.duplicates.is_some()).then_some(&self.keys)
    }

    /// Ranges of data centres.
    pub fn datacenters(&self) -> usize {
        self.datacenters.len()
    }
}

impl Duplicates {
    fn is_new(&self, hash: u64, now_s: u64) -> bool {
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
