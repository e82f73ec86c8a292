//! A disk in memory that loses what a real one may lose.
//!
//! Everything exists twice: *live*, as the running process sees it, and *durable*, as it is after a power
//! cut. File contents become durable by a sync of the file, names (files and directories made or removed) by
//! a sync of the directory they are in; contents without a durable name are gone. What was not synced at a
//! [`SimulatedDisk::reopened`] may be there or not, down to the byte: see [`Survival`].
//!
//! A failed sync is final, as on Linux since <https://lwn.net/Articles/752063/>: what it should have made
//! durable (bytes or names) counts as clean from then on, so that a later sync which returns `Ok` does
//! nothing for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, iter, mem,
    ops::Range,
    path::{Component, Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use super::disk::{Disk, Entry, Read, UNFINISHED, Write};

/// Of one computer; clones share it.
#[derive(Clone)]
pub(super) struct SimulatedDisk(Arc<Machine>);

struct Machine {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone)]
struct State {
    /// By number; 0 is `/`.
    nodes: Vec<Node>,
    steps: u64,
    /// Steps that may have changed what is durable, or may become so.
    changes: u64,
    crash_before: Option<u64>,
    is_crashed: bool,
    failing: Failing,
    /// Bytes of live files at most.
    capacity: Option<usize>,
    gate: Gate,
}

#[derive(Clone)]
enum Node {
    Directory(Names),
    File(Content),
}

#[derive(Clone, Default)]
struct Names {
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    /// What the next sync makes durable.
    dirty: BTreeSet<String>,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    /// The next sync makes the bytes from here on durable.
    dirty_from: usize,
    /// Those before that are durable, except these, whose sync failed: they never will be.
    failed: Vec<Range<usize>>,
    /// As it was before a truncation that was not synced.
    uncut: Option<Box<Self>>,
}

#[derive(Clone, Copy, Default)]
struct Failing {
    file_syncs: usize,
    /// Bytes that a failing sync makes durable all the same.
    kept: usize,
    dir_syncs: usize,
    /// Syncs of directories that go well before those fail.
    dir_syncs_spared: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Shut,
    /// Shut, and somebody stands in front of it.
    Reached,
}

/// What is left after a power cut of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Survival {
    /// The same everywhere.
    Same {
        /// Whether unsynced new names are kept.
        created: bool,
        /// Whether unsynced removals of names are.
        removed: bool,
        /// Bytes not synced.
        dirty: Fate,
        /// Bytes whose sync failed.
        failed: Fate,
    },
    /// Chosen by this seed for each name and each file.
    Mixed(u64),
}

/// What is left of bytes of one file that are not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The first n; the file ends there if nothing durable follows.
    Torn(usize),
    /// The first n, then zeros.
    Zeros(usize),
    /// The first n, then anything.
    Garbage(usize),
    /// Zeros instead of the first n, then the rest.
    Hole(usize),
}

/// What a power cut could take now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Unsynced {
    /// Bytes not synced, of the file with most of them.
    pub(super) dirty: usize,
    /// Whether there are bytes whose sync failed.
    pub(super) failed: bool,
    /// Whether there are new names (or truncated files).
    pub(super) created: bool,
    /// Whether there are removals of names.
    pub(super) removed: bool,
}

impl Survival {
    /// Only what was synced.
    pub(super) const NOTHING: Self = Self::uniform(false, Fate::LOST);
    /// Everything, as after kill -9 of the process.
    pub(super) const EVERYTHING: Self = Self::uniform(true, Fate::KEPT);

    const fn uniform(names: bool, bytes: Fate) -> Self {
        Self::Same { created: names, removed: names, dirty: bytes, failed: bytes }
    }
}

impl Fate {
    pub(super) const LOST: Self = Self::Torn(0);
    pub(super) const KEPT: Self = Self::Torn(usize::MAX);

    fn random(random: &mut fastrand::Rng, bytes: usize) -> Self {
        let at = random.usize(..=bytes);
        match random.u8(..6) {
            0 => Self::LOST,
            1 => Self::KEPT,
            2 => Self::Torn(at),
            3 => Self::Zeros(at),
            4 => Self::Garbage(at),
            _ => Self::Hole(at),
        }
    }

    /// What becomes of the `nth` byte; `None` where the file may end.
    fn apply(self, nth: usize, byte: u8) -> Option<u8> {
        match self {
            Self::Torn(kept) => (nth < kept).then_some(byte),
            Self::Zeros(kept) => Some(if nth < kept { byte } else { 0 }),
            Self::Garbage(kept) => Some(if nth < kept { byte } else { noise(nth) }),
            Self::Hole(lost) => Some(if nth < lost { 0 } else { byte }),
        }
    }
}

fn noise(nth: usize) -> u8 {
    (nth.wrapping_mul(0x9e37_79b1) >> 13).to_le_bytes()[0]
}

impl SimulatedDisk {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self::with(State {
            nodes: vec![Node::Directory(Names::default())],
            steps: 0,
            changes: 0,
            crash_before: None,
            is_crashed: false,
            failing: Failing::default(),
            capacity: None,
            gate: Gate::Open,
        })
    }

    fn with(state: State) -> Self {
        Self(Arc::new(Machine { state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// I/O steps so far.
    pub(super) fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Of them (and power cuts), those that did not just look.
    pub(super) fn changes(&self) -> u64 {
        self.state().changes
    }

    /// The power fails before this step (counted from 0): it and all later ones fail and do nothing.
    pub(super) fn crash_before(&self, step: u64) {
        self.state().crash_before = Some(step);
    }

    /// Whether the power failed.
    pub(super) fn is_crashed(&self) -> bool {
        self.state().is_crashed
    }

    /// The next `count` syncs of files fail, each after it made up to `kept` bytes durable.
    pub(super) fn fail_syncs(&self, count: usize, kept: usize) {
        let mut state = self.state();
        state.failing = Failing { file_syncs: count, kept, ..state.failing };
    }

    /// The next `count` syncs of directories fail.
    pub(super) fn fail_dir_syncs(&self, count: usize) {
        let mut state = self.state();
        state.failing = Failing { dir_syncs: count, dir_syncs_spared: 0, ..state.failing };
    }

    /// One sync of a directory fails, after so many that do not.
    pub(super) fn fail_later_dir_sync(&self, spared: usize) {
        let mut state = self.state();
        state.failing = Failing { dir_syncs: 1, dir_syncs_spared: spared, ..state.failing };
    }

    /// After `bytes` more the disk is full; `None`: never.
    pub(super) fn set_free(&self, bytes: Option<usize>) {
        let mut state = self.state();
        state.capacity = bytes.map(|free| state.used() + free);
    }

    /// Whether some call may fail without a power cut.
    pub(super) fn is_faulty(&self) -> bool {
        let state = self.state();
        state.failing.file_syncs > 0 || state.failing.dir_syncs > 0 || state.capacity.is_some()
    }

    /// No faults any more.
    pub(super) fn heal(&self) {
        let mut state = self.state();
        state.failing = Failing::default();
        state.capacity = None;
    }

    /// Whoever uses the disk waits until [`Self::release`].
    pub(super) fn hold(&self) {
        self.state().gate = Gate::Shut;
    }

    /// Returns once somebody waits.
    pub(super) fn wait_until_held(&self) {
        let machine = &self.0;
        let (state, timeout) = machine
            .changed
            .wait_timeout_while(self.state(), Duration::from_secs(30), |s| s.gate == Gate::Shut)
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
        assert!(!timeout.timed_out(), "nobody used the disk");
    }

    /// Ends [`Self::hold`].
    pub(super) fn release(&self) {
        self.state().gate = Gate::Open;
        self.0.changed.notify_all();
    }

    /// What a power cut could take now.
    pub(super) fn unsynced(&self) -> Unsynced {
        let mut found = Unsynced::default();
        for node in &self.state().nodes {
            match node {
                Node::Directory(names) => {
                    let is_new = |(name, id): (&String, &usize)| names.durable.get(name) != Some(id);
                    found.created |= names.live.iter().any(is_new);
                    found.removed |= names.durable.keys().any(|name| !names.live.contains_key(name));
                }
                Node::File(content) => {
                    found.dirty = found.dirty.max(content.bytes.len() - content.dirty_from);
                    found.failed |= !content.failed.is_empty();
                    found.created |= content.uncut.is_some();
                }
            }
        }
        found
    }

    /// The disk after a power cut now, without faults. This one is as it was.
    pub(super) fn reopened(&self, survival: Survival) -> Self {
        let state = self.state();
        let mut chooser = Chooser::new(survival);
        let mut nodes = Vec::new();
        state.survive(0, &mut chooser, &mut nodes);
        Self::with(State {
            nodes,
            steps: state.steps,
            changes: state.changes + 1,
            crash_before: state.crash_before.filter(|_| !state.is_crashed),
            is_crashed: false,
            failing: Failing::default(),
            capacity: None,
            gate: Gate::Open,
        })
    }

    /// Another one in the same state (live and durable), without faults.
    pub(super) fn copy(&self) -> Self {
        let copy = Self::with(self.state().clone());
        copy.state().crash_before = None;
        copy.heal();
        copy
    }

    /// Every live file and directory (`None`).
    pub(super) fn image(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let state = self.state();
        let mut image = BTreeMap::new();
        state.collect(0, Path::new("/"), &mut image);
        image
    }

    fn find_file(&self, path: &Path) -> io::Result<()> {
        let state = self.step()?;
        let id = state.find(path)?;
        state.content(id).map(drop)
    }

    /// Within one directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let (parent, from) = state.parent(from)?;
        let (_, to) = state.parent(to)?;
        let names = state.names_mut(parent)?;
        let id = names.live.remove(&from).ok_or_else(missing)?;
        names.live.insert(to.clone(), id);
        names.dirty.extend([from, to]);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an I/O step, unless the power is off.
    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        while state.gate != Gate::Open {
            state.gate = Gate::Reached;
            self.0.changed.notify_all();
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_crashed |= state.crash_before == Some(state.steps);
        if state.is_crashed {
            return Err(io::Error::other("the power is off"));
        }
        state.steps += 1;
        Ok(state)
    }
}

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        names_of(path)
            .iter()
            .try_fold(0, |id, name| self.names(id)?.live.get(name).copied().ok_or_else(missing))
    }

    fn parent(&self, path: &Path) -> io::Result<(usize, String)> {
        let mut names = names_of(path);
        let name = names.pop().ok_or_else(missing)?;
        Ok((self.find(path.parent().ok_or_else(missing)?)?, name))
    }

    fn names(&self, id: usize) -> io::Result<&Names> {
        match &self.nodes[id] {
            Node::Directory(names) => Ok(names),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn names_mut(&mut self, id: usize) -> io::Result<&mut Names> {
        self.changes += 1;
        match &mut self.nodes[id] {
            Node::Directory(names) => Ok(names),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn content(&self, id: usize) -> io::Result<&Content> {
        match &self.nodes[id] {
            Node::File(content) => Ok(content),
            Node::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn content_mut(&mut self, id: usize) -> io::Result<&mut Content> {
        self.changes += 1;
        match &mut self.nodes[id] {
            Node::File(content) => Ok(content),
            Node::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn insert(&mut self, parent: usize, name: String, node: Node) -> io::Result<usize> {
        let id = self.nodes.len();
        let names = self.names_mut(parent)?;
        names.live.insert(name.clone(), id);
        names.dirty.insert(name);
        self.nodes.push(node);
        Ok(id)
    }

    fn unlink(&mut self, path: &Path, is_allowed: impl Fn(&Node) -> io::Result<()>) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let id = self.names(parent)?.live.get(&name).copied().ok_or_else(missing)?;
        is_allowed(&self.nodes[id])?;
        let names = self.names_mut(parent)?;
        names.live.remove(&name);
        names.dirty.insert(name);
        Ok(())
    }

    /// Bytes of live files.
    fn used(&self) -> usize {
        let mut image = BTreeMap::new();
        self.collect(0, Path::new("/"), &mut image);
        image.values().flatten().map(Vec::len).sum()
    }

    fn collect(&self, id: usize, path: &Path, image: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
        match &self.nodes[id] {
            Node::File(content) => drop(image.insert(path.to_owned(), Some(content.bytes.clone()))),
            Node::Directory(names) => {
                image.insert(path.to_owned(), None);
                names.live.iter().for_each(|(name, child)| self.collect(*child, &path.join(name), image));
            }
        }
    }

    fn sync(&mut self, id: usize) -> io::Result<()> {
        let kept = self.failing.kept;
        let is_failing = take_one(&mut self.failing.file_syncs);
        let content = self.content_mut(id)?;
        let dirty = mem::replace(&mut content.dirty_from, content.bytes.len())..content.bytes.len();
        if is_failing {
            content.failed.extend((kept < dirty.len()).then(|| dirty.start + kept..dirty.end));
            return Err(io::Error::from_raw_os_error(5));
        }
        content.uncut = None;
        Ok(())
    }

    /// Copies what survives of a node and below to `survivors`; returns its number there.
    fn survive(&self, id: usize, chooser: &mut Chooser, survivors: &mut Vec<Node>) -> usize {
        let new_id = survivors.len();
        match &self.nodes[id] {
            Node::File(content) => survivors.push(Node::File(content.survive(chooser))),
            Node::Directory(names) => {
                survivors.push(Node::Directory(Names::default()));
                let kept: BTreeMap<String, usize> = names
                    .survive(chooser)
                    .into_iter()
                    .map(|(name, child)| (name, self.survive(child, chooser, survivors)))
                    .collect();
                let durable = kept.clone();
                survivors[new_id] = Node::Directory(Names { live: kept, durable, dirty: BTreeSet::new() });
            }
        }
        new_id
    }
}

impl Names {
    fn sync(&mut self) {
        for name in mem::take(&mut self.dirty) {
            match self.live.get(&name) {
                Some(id) => self.durable.insert(name, *id),
                None => self.durable.remove(&name),
            };
        }
    }

    fn survive(&self, chooser: &mut Chooser) -> BTreeMap<String, usize> {
        let mut kept = self.durable.clone();
        for (name, id) in &self.live {
            if self.durable.get(name) != Some(id) && chooser.keeps_created() {
                kept.insert(name.clone(), *id);
            }
        }
        for name in self.durable.keys() {
            if !self.live.contains_key(name) && chooser.keeps_removed() {
                kept.remove(name);
            }
        }
        kept
    }
}

impl Content {
    fn truncate(&mut self, length: usize) {
        let before = self.clone();
        self.uncut.get_or_insert_with(|| Box::new(before));
        self.bytes.truncate(length);
        self.dirty_from = self.dirty_from.min(length);
        self.failed.iter_mut().for_each(|range| range.end = range.end.min(length));
        self.failed.retain(|range| !range.is_empty());
    }

    fn survive(&self, chooser: &mut Chooser) -> Self {
        let before = self.uncut.as_deref().filter(|_| !chooser.keeps_created());
        let whole = before.unwrap_or(self);
        let (mut bytes, mut length) = (whole.bytes.clone(), whole.durable_length());
        let [dirty, failed] = chooser.fates(bytes.len());
        let lost = whole.failed.iter().cloned().zip(iter::repeat(failed));
        for (range, fate) in lost.chain([(whole.dirty_from..bytes.len(), dirty)]) {
            for (nth, at) in range.enumerate() {
                let survivor = fate.apply(nth, bytes[at]);
                bytes[at] = survivor.unwrap_or(0);
                length = if survivor.is_some() { length.max(at + 1) } else { length };
            }
        }
        bytes.truncate(length);
        Self { bytes, dirty_from: length, failed: Vec::new(), uncut: None }
    }

    /// Behind the last durable byte.
    fn durable_length(&self) -> usize {
        self.failed
            .iter()
            .rev()
            .fold(self.dirty_from, |end, lost| if lost.end == end { lost.start } else { end })
    }
}

/// Decides for each name and file.
struct Chooser {
    survival: Survival,
    random: fastrand::Rng,
}

impl Chooser {
    fn new(survival: Survival) -> Self {
        let seed = if let Survival::Mixed(seed) = survival { seed } else { 0 };
        Self { survival, random: fastrand::Rng::with_seed(seed) }
    }

    fn keeps_created(&mut self) -> bool {
        match self.survival {
            Survival::Same { created, .. } => created,
            Survival::Mixed(_) => self.random.bool(),
        }
    }

    fn keeps_removed(&mut self) -> bool {
        match self.survival {
            Survival::Same { removed, .. } => removed,
            Survival::Mixed(_) => self.random.bool(),
        }
    }

    /// Of dirty bytes and of those whose sync failed.
    fn fates(&mut self, bytes: usize) -> [Fate; 2] {
        match self.survival {
            Survival::Same { dirty, failed, .. } => [dirty, failed],
            Survival::Mixed(_) => [(); 2].map(|()| Fate::random(&mut self.random, bytes)),
        }
    }
}

impl Disk for SimulatedDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let mut id = 0;
        for name in names_of(path) {
            id = match state.names(id)?.live.get(&name) {
                Some(child) => *child,
                None => state.insert(id, name, Node::Directory(Names::default()))?,
            };
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let id = state.find(path)?;
        if !take_one(&mut state.failing.dir_syncs_spared) && take_one(&mut state.failing.dir_syncs) {
            state.names_mut(id)?.dirty.clear();
            return Err(io::Error::from_raw_os_error(5));
        }
        state.names_mut(id)?.sync();
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.step()?;
        let id = match state.find(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            id => id?,
        };
        let describe = |(name, child): (&String, &usize)| {
            let (bytes, is_dir) = match &state.nodes[*child] {
                Node::Directory(_) => (0, true),
                Node::File(content) => (content.bytes.len() as u64, false),
            };
            let (name, modified) = (name.clone(), SystemTime::UNIX_EPOCH);
            Entry { name, bytes, is_dir, is_open_to_others: false, modified }
        };
        Ok(state.names(id)?.live.iter().map(describe).collect())
    }

    fn make_private(&self, _: &Path) -> io::Result<()> {
        self.step().map(drop)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Write>> {
        let mut state = self.step()?;
        let (parent, name) = state.parent(path)?;
        if state.names(parent)?.live.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.insert(parent, name, Node::File(Content::default()))?;
        Ok(Box::new(Handle { disk: self.clone(), id }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        let id = self.step()?.find(path)?;
        Ok(Box::new(Handle { disk: self.clone(), id }))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.find_file(path)?;
        let fresh = path.with_extension(UNFINISHED);
        // one that is there is emptied first
        let _ = self.remove(&fresh);
        let written = self.create(&fresh).and_then(|mut file| {
            file.append(bytes)?;
            file.sync()?;
            self.rename(&fresh, path)
        });
        if written.is_err() {
            let _ = self.remove(&fresh);
        }
        written?;
        path.parent().map_or(Ok(()), |dir| self.sync_dir(dir))
    }

    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        let mut state = self.step()?;
        let id = state.find(path)?;
        state.content_mut(id)?.truncate(usize::try_from(length).map_err(io::Error::other)?);
        drop(state);
        self.step()?.sync(id)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?.unlink(path, |node| match node {
            Node::File(_) => Ok(()),
            Node::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?.unlink(path, |node| match node {
            Node::Directory(names) if names.live.is_empty() => Ok(()),
            Node::Directory(_) => Err(io::ErrorKind::DirectoryNotEmpty.into()),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        })
    }
}

/// An open file; it stays when its name is removed.
struct Handle {
    disk: SimulatedDisk,
    id: usize,
}

impl Write for Handle {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.step()?;
        let free = state.capacity.map_or(bytes.len(), |capacity| capacity.saturating_sub(state.used()));
        let fitting = &bytes[..free.min(bytes.len())];
        state.content_mut(self.id)?.bytes.extend_from_slice(fitting);
        if fitting.len() < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.step()?.sync(self.id)
    }
}

impl Read for Handle {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.step()?;
        let bytes = &state.content(self.id)?.bytes;
        let rest = bytes.get(usize::try_from(offset).map_err(io::Error::other)?..).unwrap_or_default();
        let filled = rest.len().min(buffer.len());
        buffer[..filled].copy_from_slice(&rest[..filled]);
        Ok(filled)
    }
}

/// Counts down; `false` at 0.
fn take_one(count: &mut usize) -> bool {
    let is_left = *count > 0;
    *count = count.saturating_sub(1);
    is_left
}

fn names_of(path: &Path) -> Vec<String> {
    let normal = path.components().filter(|c| matches!(c, Component::Normal(_)));
    normal.map(|c| c.as_os_str().to_string_lossy().into_owned()).collect()
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        Path::new("/dir").join(name)
    }

    /// A disk with a durable directory `/dir`.
    fn disk() -> SimulatedDisk {
        let disk = SimulatedDisk::new();
        disk.create_dir(Path::new("/dir")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk
    }

    fn survivor(disk: &SimulatedDisk, survival: Survival, name: &str) -> Option<Vec<u8>> {
        disk.reopened(survival).image().get(&path(name)).cloned().flatten()
    }

    #[test]
    fn bytes_and_names_survive_once_each_was_synced_and_only_then() {
        let disk = disk();
        let mut file = disk.create(&path("a")).unwrap();
        file.append(b"synced").unwrap();
        file.sync().unwrap();
        assert_eq!(survivor(&disk, Survival::NOTHING, "a"), None, "the name is not durable");
        disk.sync_dir(Path::new("/dir")).unwrap();
        file.append(b"+not").unwrap();
        assert_eq!(survivor(&disk, Survival::NOTHING, "a").unwrap(), b"synced");
        assert_eq!(survivor(&disk, Survival::EVERYTHING, "a").unwrap(), b"synced+not");
        disk.remove(&path("a")).unwrap();
        assert_eq!(survivor(&disk, Survival::NOTHING, "a").unwrap(), b"synced");
        assert_eq!(survivor(&disk, Survival::EVERYTHING, "a"), None);
    }

    #[test]
    fn a_directory_that_is_not_durable_takes_synced_files_along() {
        let disk = disk();
        disk.create_dir(&path("deep")).unwrap();
        disk.create(&path("deep/a")).unwrap().sync().unwrap();
        disk.sync_dir(&path("deep")).unwrap();
        assert_eq!(survivor(&disk, Survival::NOTHING, "deep/a"), None);
        disk.sync_dir(Path::new("/dir")).unwrap();
        assert_eq!(survivor(&disk, Survival::NOTHING, "deep/a").unwrap(), b"");
    }

    #[test]
    fn what_a_failed_sync_lost_no_later_sync_brings_back() {
        let disk = disk();
        let mut file = disk.create(&path("a")).unwrap();
        disk.sync_dir(Path::new("/dir")).unwrap();
        file.append(b"lost").unwrap();
        disk.fail_syncs(1, 1);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        assert_eq!(survivor(&disk, Survival::NOTHING, "a").unwrap(), b"l");
        file.append(b"+more").unwrap();
        file.sync().unwrap();
        assert_eq!(survivor(&disk, Survival::NOTHING, "a").unwrap(), b"l\0\0\0+more");
        disk.fail_dir_syncs(1);
        disk.create(&path("b")).unwrap();
        assert!(disk.sync_dir(Path::new("/dir")).is_err());
        disk.sync_dir(Path::new("/dir")).unwrap();
        assert_eq!(survivor(&disk, Survival::NOTHING, "b"), None);
    }

    #[test]
    fn unsynced_bytes_are_torn_zeroed_garbled_or_holed_behind_the_synced_ones() {
        let disk = disk();
        let mut file = disk.create(&path("a")).unwrap();
        disk.sync_dir(Path::new("/dir")).unwrap();
        file.append(b"ok").unwrap();
        file.sync().unwrap();
        file.append(b"123").unwrap();
        let survivor = |dirty| {
            let survival = Survival::Same { created: false, removed: false, dirty, failed: Fate::LOST };
            survivor(&disk, survival, "a").unwrap()
        };
        assert_eq!(survivor(Fate::Torn(1)), b"ok1");
        assert_eq!(survivor(Fate::Zeros(2)), b"ok12\0");
        assert_eq!(survivor(Fate::Hole(2)), b"ok\0\x003");
        let garbled = survivor(Fate::Garbage(1));
        assert!(garbled.starts_with(b"ok1") && garbled.len() == 5 && garbled != b"ok123");
    }

    #[test]
    fn a_truncation_is_lost_unless_it_was_synced() {
        let disk = disk();
        let mut file = disk.create(&path("a")).unwrap();
        disk.sync_dir(Path::new("/dir")).unwrap();
        file.append(b"12345").unwrap();
        file.sync().unwrap();
        disk.crash_before(disk.steps() + 1);
        assert!(disk.truncate(&path("a"), 3).is_err());
        assert_eq!(survivor(&disk, Survival::NOTHING, "a").unwrap(), b"12345");
        assert_eq!(survivor(&disk, Survival::EVERYTHING, "a").unwrap(), b"123");
        let again = disk.reopened(Survival::NOTHING);
        again.truncate(&path("a"), 3).unwrap();
        assert_eq!(survivor(&again, Survival::NOTHING, "a").unwrap(), b"123");
    }

    #[test]
    fn a_full_disk_takes_a_part_and_goes_on_once_something_was_removed() {
        let disk = disk();
        let mut file = disk.create(&path("a")).unwrap();
        let mut other = disk.create(&path("b")).unwrap();
        disk.set_free(Some(3));
        assert_eq!(file.append(b"12345").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(survivor(&disk, Survival::EVERYTHING, "a").unwrap(), b"123");
        assert!(other.append(b"1").is_err());
        disk.remove(&path("a")).unwrap();
        other.append(b"123").unwrap();
    }

    #[test]
    fn after_the_power_failed_nothing_works_and_nothing_changes() {
        let disk = disk();
        let mut file = disk.create(&path("a")).unwrap();
        disk.crash_before(disk.steps());
        assert!(file.append(b"1").is_err() && disk.is_crashed());
        assert!(file.sync().is_err() && disk.remove(&path("a")).is_err() && disk.list(&path("")).is_err());
        assert_eq!(survivor(&disk, Survival::EVERYTHING, "a").unwrap(), b"");
    }
}
