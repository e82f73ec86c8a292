//! Affiliate networks in memory, as the edge asks for them: whose key it is, who may send, and under which names our click
//! id comes back.
//!
//! All of them are read in one statement every `cache.poll_interval_s`, and at once where this node changed one. What was
//! read last is also in a file, so that a start with every store away knows keys, tokens and addresses.

use std::{
    collections::HashMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, Notify},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    db::{
        self, Db,
        store::affiliate_networks::{self, AffiliateNetwork},
    },
    model::{
        conversion::Refusal,
        network::PostbackRules,
        postback::{PostbackKey, PostbackToken},
    },
    private_file,
};

/// Its name in the data directory.
const NAME: &str = "networks.json";

/// Of the file: 1 is [`NetworkV1`].
const SCHEMA: u32 = 1;

/// A network as the edge needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Ours.
    pub id: i64,
    /// The key in the address of its postbacks.
    pub key: PostbackKey,
    /// What its postbacks must carry.
    pub token: Option<PostbackToken>,
    /// Where they must come from; empty: from anywhere.
    pub addresses: Vec<IpNet>,
    /// How they are read.
    pub rules: PostbackRules,
}

impl Network {
    /// Why a postback with these tokens from this address is not let in.
    pub fn refusal<'t>(&self, mut tokens: impl Iterator<Item = &'t str>, from: IpAddr) -> Option<Refusal> {
        if self.token.is_some_and(|token| !tokens.any(|given| token.is(given))) {
            return Some(Refusal::WrongToken);
        }
        let may_send = self.addresses.is_empty() || self.addresses.iter().any(|net| net.contains(&from));
        (!may_send).then_some(Refusal::WrongAddress)
    }

    fn of(network: AffiliateNetwork) -> Option<Self> {
        let rules = network.terms.rules();
        Some(Self {
            id: network.id,
            key: network.terms.postback_key?, // every stored one has a key
            token: network.terms.postback_token,
            addresses: network.terms.postback_addresses,
            rules,
        })
    }
}

/// A network in the file; fields are added with a default, never changed.
#[derive(Serialize, Deserialize)]
struct NetworkV1 {
    id: i64,
    key: PostbackKey,
    #[serde(default)]
    token_sha256: Option<[u8; 32]>,
    #[serde(default)]
    addresses: Vec<IpNet>,
    #[serde(default)]
    rules: PostbackRules,
}

impl From<&Network> for NetworkV1 {
    fn from(network: &Network) -> Self {
        let Network { id, key, token, addresses, rules } = network.clone();
        Self { id, key, token_sha256: token.map(|token| *token.hash()), addresses, rules }
    }
}

impl From<NetworkV1> for Network {
    fn from(v1: NetworkV1) -> Self {
        let NetworkV1 { id, key, token_sha256, addresses, rules } = v1;
        Self { id, key, token: token_sha256.map(PostbackToken::of_hash), addresses, rules }
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    schema: u32,
    networks: Vec<NetworkV1>,
}

/// Whose key it is.
#[derive(Debug, Clone)]
pub enum Found {
    /// This network's.
    Network(Arc<Network>),
    /// Nobody's.
    Nobody,
    /// Nobody can say: this node has never seen the networks.
    Unknown,
}

/// The networks that a node knows.
pub struct Networks {
    db: Arc<Db>,
    /// `None`: they were never read.
    by_key: ArcSwap<Option<HashMap<PostbackKey, Arc<Network>>>>,
    path: PathBuf,
    interval: Duration,
    poll_now: Notify,
    /// One reader at a time, or the older of two states might be the last.
    reading: Mutex<()>,
}

impl Networks {
    /// Those of the file, if there are any.
    pub fn new(db: Arc<Db>, config: &Config) -> Self {
        let path = config.server.data_dir.join(NAME);
        let saved = load(&path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the saved affiliate networks cannot be read; ignored");
            None
        });
        Self {
            db,
            by_key: ArcSwap::from_pointee(saved.map(by_key)),
            path,
            interval: config.cache.poll_interval,
            poll_now: Notify::new(),
            reading: Mutex::new(()),
        }
    }

    /// Whose key it is.
    pub fn find(&self, key: &str) -> Found {
        match self.by_key.load().as_ref() {
            None => Found::Unknown,
            Some(by_key) => by_key.get(key).map_or(Found::Nobody, |network| Found::Network(network.clone())),
        }
    }

    /// Looks at them again soon, because one changed.
    pub fn must_read(&self) {
        self.poll_now.notify_one();
    }

    /// Keeps them as they are in PostgreSQL, until the stop signal.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let rounds = async {
            loop {
                // a PostgreSQL that is away has its own lines in the log
                if let Err(error) = self.read().await {
                    tracing::debug!(?error, "the affiliate networks were not read; those in memory stay");
                }
                tokio::select! {
                    () = sleep(self.interval) => {}
                    () = self.poll_now.notified() => {}
                }
            }
        };
        stop.run_until_cancelled(rounds).await;
        Ok(())
    }

    /// Reads them, and saves them where something changed.
    pub async fn read(&self) -> Result<(), db::Error> {
        let _reading = self.reading.lock().await;
        let networks = affiliate_networks::all(&self.db).await?;
        let networks: Vec<Network> = networks.into_iter().filter_map(Network::of).collect();
        let saved = Saved { schema: SCHEMA, networks: networks.iter().map(NetworkV1::from).collect() };
        let fresh = Some(by_key(networks));
        if *self.by_key.load_full() == fresh {
            return Ok(());
        }
        self.by_key.store(Arc::new(fresh));
        let path = self.path.clone();
        let saving = tokio::task::spawn_blocking(move || write(&path, &saved));
        if let Ok(Err(error)) = saving.await {
            tracing::warn!(path = %self.path.display(), %error, "cannot save the affiliate networks on disk");
        }
        Ok(())
    }
}

fn by_key(networks: Vec<Network>) -> HashMap<PostbackKey, Arc<Network>> {
    networks.into_iter().map(|network| (network.key.clone(), Arc::new(network))).collect()
}

/// Keys and hashes of tokens are nobody else's business.
fn write(path: &Path, saved: &Saved) -> io::Result<()> {
    private_file::replace(path, &serde_json::to_vec(saved)?)
}

/// `None` when there is none, or one of another schema.
fn load(path: &Path) -> io::Result<Option<Vec<Network>>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    let saved: Saved = serde_json::from_slice(&bytes)?;
    Ok((saved.schema == SCHEMA).then(|| saved.networks.into_iter().map(Network::from).collect()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::model::network::{MappedStatus, StatusWord};

    fn network() -> Network {
        let word =
            StatusWord { word: "dep".into(), status: MappedStatus::Approved, goal: Some("deposit".into()) };
        Network {
            id: 7,
            key: "networkkey".parse().unwrap(),
            token: Some("s3cret-token".parse().unwrap()),
            addresses: vec!["198.51.100.0/24".parse().unwrap()],
            rules: PostbackRules { status_map: vec![word], retry_window_s: 60, ..PostbackRules::default() },
        }
    }

    #[test]
    fn who_has_neither_token_nor_address_is_not_let_in() {
        let inside: IpAddr = "198.51.100.9".parse().unwrap();
        let outside: IpAddr = "203.0.113.9".parse().unwrap();
        let network = network();
        for (tokens, from, wanted) in [
            (&["s3cret-token"][..], inside, None),
            (&["x", "s3cret-token"], inside, None),
            (&["s3cret-token"], outside, Some(Refusal::WrongAddress)),
            (&["other"], inside, Some(Refusal::WrongToken)),
            (&[], outside, Some(Refusal::WrongToken)),
        ] {
            assert_eq!(network.refusal(tokens.iter().copied(), from), wanted, "{tokens:?} {from}");
        }
        let open = Network { token: None, addresses: Vec::new(), ..network };
        assert_eq!(open.refusal(std::iter::empty(), outside), None);
    }

    #[test]
    fn what_is_saved_is_loaded_and_read_by_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        assert!(load(&path).unwrap().is_none());
        write(&path, &Saved { schema: SCHEMA, networks: vec![NetworkV1::from(&network())] }).unwrap();
        assert_eq!(load(&path).unwrap(), Some(vec![network()]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("s3cret-token"), "{text}");
        fs::write(&path, text.replace("\"schema\":1", "\"schema\":2")).unwrap();
        assert!(load(&path).unwrap().is_none(), "of a later release");
        // what this release says of a network may be missing in the file of an earlier one
        fs::write(&path, r#"{"schema":1,"networks":[{"id":7,"key":"networkkey"}]}"#).unwrap();
        assert_eq!(load(&path).unwrap().unwrap()[0].rules, PostbackRules::default());
    }
}
