//! Where the cluster lives and as whom it runs: directories, locks, the postmaster's pid, the log.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};
use tracing::warn;
use uuid::Uuid;

use super::{COMMAND_LIMIT, Error, POLL, output};

/// Where data goes when the unprivileged user cannot enter the data directory.
const FALLBACK: &str = "/var/lib/octo";
/// In the data directory: where the data went. It moves with the directory, into a backup and back too.
const NOTE: &str = "postgres-place";
/// In a place that a note leads to.
const NOTED: &str = "noted";
/// With `/.s.PGSQL.5432` the socket stays under 100 bytes; the kernel takes 107, macOS 103.
const SOCKET_DIR_BYTES_MAX: usize = 85;
const TURN_LIMIT: Duration = Duration::from_mins(1);
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
const LAST_WORDS_BYTES_MAX: u64 = 16 * 1024;

/// The directories of one private PostgreSQL and the account that runs it.
#[derive(Debug)]
pub(super) struct Place {
    /// Holds the cluster, its log, its locks and downloaded binaries.
    pub(super) home: PathBuf,
    pub(super) cluster: PathBuf,
    pub(super) account: Account,
}

/// Who runs PostgreSQL: ourselves, or as root somebody else.
#[derive(Debug, Clone)]
pub(super) struct Account {
    name: String,
    uid: u32,
    gid: Option<u32>, // to change to, as root
}

impl Place {
    /// Under the data directory; as root, where the account cannot enter it, under `/var/lib/octo`, and a file in
    /// the data directory says where. An existing cluster is never left behind for an empty one.
    pub(super) async fn choose(data_dir: &Path) -> Result<Self, Error> {
        let home = make_home(data_dir)?;
        let uid = effective_uid().await.map_err(|source| super::program("id", source))?;
        let place = Self::at(home, uid)?;
        if place.version()?.is_some() {
            return if uid == 0 { place.reachable().await } else { Ok(place) };
        }
        let note = place.home.join(NOTE);
        if let Some(elsewhere) = read_note(&note)? {
            if !elsewhere.join(NOTED).exists() {
                return Err(Error::Missing { path: elsewhere, note });
            }
            return Self::at(elsewhere, uid)?.reachable().await;
        }
        if uid != 0 {
            return Ok(place);
        }
        let by_path = fallback_by_path(&place.home);
        let is_old = by_path.join("postgres/PG_VERSION").exists() && !by_path.join(NOTED).exists();
        if !is_old && place.account.reaches(&place.home).await {
            return Ok(place);
        }
        let instead =
            if is_old { by_path } else { Path::new(FALLBACK).join(Uuid::new_v4().simple().to_string()) };
        warn!(
            data_dir = %place.home.display(), instead = %instead.display(), user = place.account.name,
            "PostgreSQL does not run as root and its user cannot reach the data directory: its data goes elsewhere",
        );
        let place = Self::at(make_home(&instead)?, uid)?.reachable().await?;
        write_note(&note, &place.home).map_err(|source| place.unusable(source))?;
        Ok(place)
    }

    fn at(home: PathBuf, uid: u32) -> Result<Self, Error> {
        let cluster = home.join("postgres");
        let account = Account::for_cluster(&cluster, uid)?;
        Ok(Self { home, cluster, account })
    }

    async fn reachable(self) -> Result<Self, Error> {
        if self.account.reaches(&self.home).await {
            return Ok(self);
        }
        Err(Error::Unreachable { path: self.home, user: self.account.name })
    }

    /// The major version of the cluster; `None` where none has been made.
    pub(super) fn version(&self) -> Result<Option<String>, Error> {
        match fs::read_to_string(self.cluster.join("PG_VERSION")) {
            Ok(version) => Ok(Some(version.trim().to_owned())),
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.unusable(source)),
            Err(_) if fs::read_dir(&self.cluster).is_ok_and(|entries| entries.count() > 0) => {
                Err(Error::NotACluster { path: self.cluster.clone() })
            }
            Err(_) => Ok(None),
        }
    }

    /// The cluster itself, or a short private directory where its path is too long or too odd for a socket.
    pub(super) fn socket_dir(&self) -> Result<PathBuf, Error> {
        let path = self.cluster.as_os_str().as_bytes();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
        if path.len() <= SOCKET_DIR_BYTES_MAX && path.iter().all(plain) {
            return Ok(self.cluster.clone());
        }
        let short = Path::new("/tmp").join(format!("octo-{}", digest(&self.cluster)));
        self.private_dir(&short).map_err(|_| Error::SocketDirectory { path: short.clone() })?;
        Ok(short)
    }

    /// Anybody may have made it first in `/tmp`: then it must be ours, real and closed, or it is refused.
    fn private_dir(&self, path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => return self.account.give(path),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
        }
        let found = fs::symlink_metadata(path)?;
        let ours = found.is_dir() && found.uid() == self.account.uid && found.mode() & 0o777 == 0o700;
        if ours { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    /// Waits for its turn to start or stop the cluster; the lock ends with the file.
    pub(super) async fn turn(&self) -> Result<File, Error> {
        let file = self.open("postgres.lock")?;
        let deadline = Instant::now() + TURN_LIMIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(source)) => return Err(self.unusable(source)),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(Error::Busy { path: self.home.clone() });
                }
                Err(TryLockError::WouldBlock) => sleep(POLL).await,
            }
        }
    }

    /// A shared lock for as long as the handle lives.
    pub(super) fn mark_used(&self) -> Result<File, Error> {
        let file = self.open("postgres.users")?;
        file.lock_shared().map_err(|source| self.unusable(source))?;
        Ok(file)
    }

    /// An empty directory of the account for `initdb`.
    pub(super) fn fresh_cluster(&self) -> Result<PathBuf, Error> {
        let fresh = self.home.join("postgres.new");
        let made = remove_dir(&fresh)
            .and_then(|()| DirBuilder::new().mode(0o700).create(&fresh))
            .and_then(|()| self.account.give(&fresh));
        made.map(|()| fresh).map_err(|source| self.unusable(source))
    }

    pub(super) fn install_cluster(&self, fresh: &Path) -> Result<(), Error> {
        let installed = fs::rename(fresh, &self.cluster)
            .and_then(|()| File::open(&self.home))
            .and_then(|home| home.sync_all());
        installed.map_err(|source| self.unusable(source))
    }

    /// The living postmaster of this cluster.
    pub(super) async fn postmaster(&self) -> Option<u32> {
        let pid = self.recorded_pid()?;
        (alive(pid).await && !self.is_stranger(pid)).then_some(pid)
    }

    fn recorded_pid(&self) -> Option<u32> {
        fs::read_to_string(self.cluster.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()
    }

    /// A postmaster works in its cluster. Where `/proc` does not say, the number is believed.
    fn is_stranger(&self, pid: u32) -> bool {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd != self.cluster)
    }

    /// After a reboot the recorded pid may be somebody else's, and PostgreSQL would refuse to start for ever.
    /// The file is kept with our pid, which PostgreSQL takes for dead because it is its parent: the id of the
    /// shared memory in it still guards against backends that live on. Done as the account, whose file it is.
    pub(super) async fn disarm_recycled_pid(&self, socket_dir: &Path) {
        if !self.recorded_pid().is_some_and(|pid| self.is_stranger(pid)) {
            return;
        }
        let mut edit = self.account.command("sh");
        edit.args(["-c", "sed -i \"1s/.*/$3/\" \"$1\" && rm -f \"$2\"", "sh"]);
        edit.arg(self.cluster.join("postmaster.pid")).arg(socket_dir.join(".s.PGSQL.5432.lock"));
        edit.arg(std::process::id().to_string());
        if let Err(error) = output(&mut edit, COMMAND_LIMIT).await {
            warn!(%error, "a stale postmaster.pid could not be cleared");
        }
    }

    pub(super) fn log(&self) -> PathBuf {
        self.home.join("postgres.log")
    }

    /// For appending; a log of over 10 MiB is put aside first, one generation is kept.
    pub(super) fn open_log(&self) -> Result<File, Error> {
        if fs::metadata(self.log()).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            fs::rename(self.log(), self.home.join("postgres.log.1"))
                .map_err(|source| self.unusable(source))?;
        }
        self.open("postgres.log")
    }

    /// The last fatal line the server wrote past `offset`.
    pub(super) fn fatal_line_since(&self, offset: u64) -> String {
        let mut words = Vec::new();
        let _ = File::open(self.log()).and_then(|mut log| {
            log.seek(SeekFrom::Start(offset))?;
            log.take(LAST_WORDS_BYTES_MAX).read_to_end(&mut words)
        });
        let words = String::from_utf8_lossy(&words);
        let fatal = words.lines().rfind(|line| line.contains("FATAL") || line.contains("PANIC"));
        fatal.unwrap_or("it gave no reason").to_owned()
    }

    pub(super) fn unusable(&self, source: io::Error) -> Error {
        let path = self.home.clone();
        if is_disk_full(&source) {
            return Error::DiskFull { path, source };
        }
        Error::Directory { path, source }
    }

    pub(super) fn exited(&self, reason: impl Into<String>) -> Error {
        let source = io::Error::other(reason.into());
        if is_disk_full(&source) {
            return Error::DiskFull { path: self.cluster.clone(), source };
        }
        Error::Exited { log: self.log(), source }
    }

    /// A file beside the cluster; a new one belongs to the account, so that either of us can go on alone.
    fn open(&self, name: &str) -> Result<File, Error> {
        let path = self.home.join(name);
        let mut options = OpenOptions::new();
        options.append(true).mode(0o600);
        let opened = match options.clone().create_new(true).open(&path) {
            Ok(file) => self.account.give_file(&file).map(|()| file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(&path),
            Err(error) => Err(error),
        };
        opened.map_err(|source| Error::Directory { path, source })
    }
}

impl Account {
    /// Ourselves; as root the owner of the cluster that exists, else `postgres`, else `nobody`.
    fn for_cluster(cluster: &Path, uid: u32) -> Result<Self, Error> {
        if uid != 0 {
            return Ok(Self { name: format!("with id {uid}"), uid, gid: None });
        }
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        match fs::metadata(cluster) {
            Ok(found) if found.uid() != 0 => {
                let name = format!("with id {}", found.uid());
                Ok(Self { name, uid: found.uid(), gid: Some(found.gid()) })
            }
            _ => Self::unprivileged(&accounts).ok_or(Error::NoUser),
        }
    }

    fn unprivileged(passwd: &str) -> Option<Self> {
        ["postgres", "nobody"].iter().find_map(|name| {
            let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut ids = line.split(':').skip(2);
            let (uid, gid) = (ids.next()?.parse().ok()?, ids.next()?.parse().ok()?);
            Some(Self { name: (*name).to_owned(), uid, gid: Some(gid) })
        })
    }

    /// A command that runs as this account in a bare environment: no `PGPORT` or `PGOPTIONS` of the user's.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        command.env_clear().env("PATH", path).env("LC_ALL", "C").current_dir("/");
        if let Some(gid) = self.gid {
            command.uid(self.uid).gid(gid);
        }
        command
    }

    async fn reaches(&self, path: &Path) -> bool {
        self.gid.is_none() || output(self.command("test").arg("-x").arg(path), COMMAND_LIMIT).await.is_ok()
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        self.gid.map_or(Ok(()), |gid| chown(path, Some(self.uid), Some(gid)))
    }

    fn give_file(&self, file: &File) -> io::Result<()> {
        self.gid.map_or(Ok(()), |gid| fchown(file, Some(self.uid), Some(gid)))
    }
}

/// As the system says it, or PostgreSQL in its log.
pub(super) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || error.to_string().contains("No space left on device")
}

/// Whether nobody else holds the shared lock of [`Place::mark_used`]; gives up our own.
pub(super) fn alone(in_use: &File) -> bool {
    in_use.unlock().is_ok() && in_use.try_lock().is_ok()
}

/// A zombie does not count.
pub(super) async fn alive(pid: u32) -> bool {
    if Path::new("/proc/self/stat").exists() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        return stat
            .rsplit(") ")
            .next()
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']));
    }
    output(Command::new("sh").args(["-c", &format!("kill -0 {pid}")]), COMMAND_LIMIT).await.is_ok()
}

/// What the place was called before there were notes.
pub(super) fn fallback_by_path(data_dir: &Path) -> PathBuf {
    Path::new(FALLBACK).join(digest(data_dir))
}

/// As if it had been made before there were notes.
#[cfg(test)]
pub(super) fn forget_note(data_dir: &Path, home: &Path) {
    fs::remove_file(data_dir.join(NOTE)).expect("there is a note");
    fs::remove_file(home.join(NOTED)).expect("and it is noted");
}

/// Before there is a cluster: one that nothing leads to would be an empty database at the next start.
fn write_note(note: &Path, home: &Path) -> io::Result<()> {
    File::create(home.join(NOTED))?.sync_all()?;
    let beside = note.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(home.as_os_str().as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, note)
}

/// `None` where the data directory says nothing.
fn read_note(note: &Path) -> Result<Option<PathBuf>, Error> {
    match fs::read(note) {
        Ok(path) => Ok(Some(PathBuf::from(OsStr::from_bytes(path.trim_ascii())))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Directory { path: note.to_owned(), source }),
    }
}

pub(super) fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Directories made here can be entered by others, whatever the umask; what is private in them closes itself.
pub(super) fn make_home(path: &Path) -> Result<PathBuf, Error> {
    let missing: Vec<_> =
        path.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
    let made = fs::create_dir_all(path).and_then(|()| {
        missing.iter().try_for_each(|made| fs::set_permissions(made, Permissions::from_mode(0o755)))
    });
    made.and_then(|()| fs::canonicalize(path))
        .map_err(|source| Error::Directory { path: path.to_owned(), source })
}

async fn effective_uid() -> io::Result<u32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    if let Some(uid) = line.and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok()) {
        return Ok(uid);
    }
    let text = output(Command::new("id").arg("-u"), COMMAND_LIMIT).await?;
    text.trim().parse().map_err(io::Error::other)
}

/// FNV-1a, 64 bits: a short name for a long path, the same in every build.
fn digest(path: &Path) -> String {
    let fold = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", path.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fold))
}
