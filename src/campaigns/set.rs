//! The set of campaigns: by key, also in small letters, and by id. No I/O.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use uuid::Uuid;

use crate::{
    db::store::campaigns::Change,
    model::{campaign::Campaign, id::CampaignKey, source::Source},
    routing::{Routes, Targets},
};

/// Campaigns that one core reads at a time.
const PIECE: usize = 256;

/// Campaigns that are ready to route.
#[derive(Default)]
pub(super) struct Set {
    pub(super) by_key: HashMap<CampaignKey, Arc<Routes>>,
    keys: HashMap<Uuid, CampaignKey>,
    /// The keys of `by_key` under what they are in small letters.
    by_small_letters: HashMap<String, Vec<CampaignKey>>,
    sources: Sources,
}

/// Traffic sources as they were last seen: each is kept once for all its campaigns.
#[derive(Default)]
pub(super) struct Sources(HashMap<i64, Arc<Source>>);

impl Sources {
    /// The one that is kept of equal ones.
    pub(super) fn shared(&mut self, source: Arc<Source>) -> Arc<Source> {
        let known = self.0.entry(source.id).or_insert_with(|| source.clone());
        if *known != source {
            *known = source;
        }
        known.clone()
    }
}

impl Set {
    /// Puts a change in, and names the keys it is about.
    pub(super) fn apply(&mut self, change: Change, changed: &mut Vec<CampaignKey>) {
        let mut campaign = change.campaign;
        let id = campaign.id;
        let known = self.keys.get(&id).and_then(|key| self.by_key.get(key));
        // what comes late (from a replica, say) is not news; the same version of another time is: the one before was
        // lost with its server
        let is_old =
            |known: &Campaign| known.version >= campaign.version && known.updated_at >= campaign.updated_at;
        if !change.is_deleted && known.is_some_and(|known| is_old(&known.campaign)) {
            return;
        }
        changed.push(campaign.key.clone());
        if let Some(old_key) = self.keys.remove(&id) {
            // the key may be another campaign's by now
            if self.by_key.get(&old_key).is_some_and(|k| k.campaign.id == id) {
                self.remove(&old_key);
            }
            changed.push(old_key);
        }
        if !change.is_deleted {
            self.keys.insert(id, campaign.key.clone());
            campaign.source = campaign.source.map(|source| self.sources.shared(source));
            if let Some(routes) = compile(campaign) {
                self.insert(routes);
            }
        }
    }

    fn insert(&mut self, routes: Arc<Routes>) {
        let key = routes.campaign.key.clone();
        if self.by_key.insert(key.clone(), routes).is_none() {
            self.by_small_letters.entry(key.as_str().to_ascii_lowercase()).or_default().push(key);
        }
    }

    fn remove(&mut self, key: &CampaignKey) {
        self.by_key.remove(key);
        let small = key.as_str().to_ascii_lowercase();
        if let Some(keys) = self.by_small_letters.get_mut(&small) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by_small_letters.remove(&small);
            }
        }
    }

    pub(super) fn by_id(&self, id: Uuid) -> Option<&Arc<Routes>> {
        let routes = self.by_key.get(self.keys.get(&id)?)?;
        // the key may be another campaign's by now
        (routes.campaign.id == id).then_some(routes)
    }

    pub(super) fn bent(&self, key: &str) -> Option<&Arc<Routes>> {
        let bare = key.trim_matches(['.', '-', '_']);
        let in_any_case = |key: &str| match self.by_small_letters.get(&key.to_ascii_lowercase())?.as_slice() {
            [only] => self.by_key.get(only),
            _ => None,
        };
        let is_possible = (1..=CampaignKey::BYTES_MAX).contains(&bare.len());
        is_possible
            .then(|| {
                self.by_key
                    .get(key)
                    .or_else(|| self.by_key.get(bare))
                    .or_else(|| in_any_case(key))
                    .or_else(|| in_any_case(bare))
            })
            .flatten()
    }
}

/// A campaign of a set that is read as a whole: `None`, where it is broken.
pub(super) struct Compiled {
    id: Uuid,
    key: CampaignKey,
    routes: Option<Arc<Routes>>,
}

impl Compiled {
    /// Reads a campaign; those that are read with the same `targets` share what leads to the same URL.
    pub(super) fn of(campaign: Campaign, targets: &mut Targets) -> Self {
        let (id, key) = (campaign.id, campaign.key.clone());
        Self { id, key, routes: compile_with(campaign, targets) }
    }
}

/// The set that these campaigns make, and their sources.
pub(super) fn of_compiled(campaigns: Vec<Compiled>, sources: Sources) -> Set {
    let mut set = Set { sources, ..Set::default() };
    set.by_key.reserve(campaigns.len());
    set.keys.reserve(campaigns.len());
    set.by_small_letters.reserve(campaigns.len());
    for Compiled { id, key, routes } in campaigns {
        set.keys.insert(id, key);
        if let Some(routes) = routes {
            set.insert(routes);
        }
    }
    set
}

/// The set that these campaigns make, none of which is deleted. Reading their destinations takes the most of a start, so
/// that all cores do it.
pub(super) fn whole(mut campaigns: Vec<Change>) -> Set {
    let mut sources = Sources::default();
    for change in &mut campaigns {
        change.campaign.source = change.campaign.source.take().map(|source| sources.shared(source));
    }
    let mut pieces = Vec::with_capacity(campaigns.len() / PIECE + 1);
    while !campaigns.is_empty() {
        pieces.push(campaigns.split_off(campaigns.len().saturating_sub(PIECE)));
    }
    let compiled = on_all_cores(pieces, Targets::default, |targets, piece| {
        piece.into_iter().map(|change| Compiled::of(change.campaign, targets)).collect::<Vec<_>>()
    });
    of_compiled(compiled.into_iter().flatten().collect(), sources)
}

/// What `work` makes of each piece, on all cores, in any order; what `begin` makes is kept by a core from one piece to the
/// next.
pub(super) fn on_all_cores<P: Send, C, O: Send>(
    pieces: Vec<P>,
    begin: impl Fn() -> C + Sync,
    work: impl Fn(&mut C, P) -> O + Sync,
) -> Vec<O> {
    let cores = thread::available_parallelism().map_or(1, usize::from).min(pieces.len());
    let left = Mutex::new(pieces.into_iter());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        let core = || {
            let mut kept = begin();
            std::iter::from_fn(next).map(|piece| work(&mut kept, piece)).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(core)).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Vec<O>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().flat_map(join).collect()
    })
}

/// A campaign ready to route; one with a broken destination (written by hand) is left out and named.
pub(super) fn compile(campaign: Campaign) -> Option<Arc<Routes>> {
    compile_with(campaign, &mut Targets::default())
}

fn compile_with(campaign: Campaign, targets: &mut Targets) -> Option<Arc<Routes>> {
    let key = campaign.key.clone();
    match Routes::read(campaign, targets) {
        Ok(routes) => Some(Arc::new(routes)),
        Err(error) => {
            tracing::error!(campaign = %key, %error, "a destination or a criterion is not valid; the campaign is not served");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::tests::campaign;

    /// A change to the campaign of number `id`.
    fn change(id: u128, key: &str, version: i64, is_deleted: bool) -> Change {
        let (id, key) = (Uuid::from_u128(id), key.parse().unwrap());
        let campaign = Campaign { id, key, version, ..campaign(Vec::new(), Vec::new()) };
        Change { campaign, is_deleted }
    }

    #[test]
    fn campaigns_of_one_source_share_it() {
        let mut set = Set::default();
        let of = |name: &str| Some(Arc::new(Source { id: 3, name: name.to_owned(), parameters: Vec::new() }));
        for (id, name, version) in [(1, "a", 1), (2, "a", 1), (1, "b", 2)] {
            let mut change = change(id, &format!("k{id}"), version, false);
            change.campaign.source = of(name);
            set.apply(change, &mut Vec::new());
            let sources =
                set.by_key.values().filter_map(|routes| routes.campaign.source.as_ref().map(Arc::as_ptr));
            let different = sources.collect::<std::collections::HashSet<_>>().len();
            assert_eq!(different, usize::from(name == "b") + 1, "{id} {name}");
        }
        assert_eq!(set.by_key["k1"].campaign.source.as_ref().unwrap().name, "b");
    }

    #[test]
    fn keys_in_any_case_are_found_as_campaigns_come_change_and_go() {
        let mut set = Set::default();
        let found = |set: &Set, key: &str| set.bent(key).map(|routes| routes.campaign.key.to_string());
        let apply = |set: &mut Set, change| set.apply(change, &mut Vec::new());
        apply(&mut set, change(1, "Kite", 1, false));
        assert_eq!(found(&set, "KITE").as_deref(), Some("Kite"));
        apply(&mut set, change(2, "kite", 1, false));
        assert_eq!((found(&set, "KITE"), found(&set, "kite.").as_deref()), (None, Some("kite")));
        apply(&mut set, change(1, "Kite", 2, false)); // changed, not made again
        apply(&mut set, change(2, "other", 2, false)); // renamed
        assert_eq!(
            (found(&set, "KITE").as_deref(), found(&set, "-Other_").as_deref()),
            (Some("Kite"), Some("other"))
        );
        apply(&mut set, change(3, "Kite", 1, false)); // its key is another's by now
        apply(&mut set, change(1, "Kite", 3, true));
        assert_eq!(found(&set, "kitE").as_deref(), Some("Kite"));
        apply(&mut set, change(3, "Kite", 2, true));
        apply(&mut set, change(2, "other", 3, true));
        assert_eq!((found(&set, "kite"), found(&set, "OTHER")), (None, None));
        assert!(set.by_key.is_empty() && set.by_small_letters.is_empty());
        for key in ["", ".", "-._", &"k".repeat(65), &".".repeat(60_000), "a b"] {
            assert_eq!(found(&set, key), None);
        }
    }
}
