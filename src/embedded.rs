//! The private PostgreSQL of the zero-configuration start: real server binaries, one cluster under the data
//! directory, reached over a unix socket only this user can open.
//!
//! Who stops it: the server (`start`) owns the cluster, whoever launched it, so an orphan of a killed `octo`
//! is adopted; a command (`attach_or_start`) owns only a postmaster it launched itself, and leaves even that
//! one running while another handle uses it. A handle dropped without `stop` leaves PostgreSQL running, for
//! the next start to adopt. Settings are arguments, not `postgresql.conf`, so an upgrade of `octo` brings
//! its own; who wants to tune has outgrown this module and sets `DATABASE_URL`.
//!
//! The server does not call `start` itself: its [`Supervisor`] does, again and again.

mod binaries;
mod place;
mod supervisor;
#[cfg(test)]
mod tests;
mod wire;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use self::binaries::Binaries;
pub use self::binaries::Clients;
use self::place::Place;
pub use self::supervisor::{State, Supervisor};
use self::wire::Answer;

const USER: &str = "app_user";
const DATABASE: &str = "supreme_octosuccotash_db";

/// Whole start, crash recovery included.
const READY_LIMIT: Duration = Duration::from_mins(2);
/// How long the remains of a killed postmaster (backends, shared memory) may block a new one.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(15);
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(200);
const INITDB_LIMIT: Duration = Duration::from_mins(1);
/// SIGINT: disconnect everybody, checkpoint, exit. SIGQUIT: exit now, recover from the WAL at the next start.
const STOPS: [(Signal, Duration); 2] =
    [(Signal::INT, Duration::from_secs(30)), (Signal::QUIT, Duration::from_secs(5))];
const POLL: Duration = Duration::from_millis(10);
/// How often an adopted postmaster, which is nobody's child here, is looked at.
const LOOK: Duration = Duration::from_millis(250);
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// What makes the cluster private and durable, then modest figures for a small server.
const SETTINGS: [&str; 16] = [
    "listen_addresses=",
    "port=5432",
    "unix_socket_permissions=0700",
    "fsync=on",
    "full_page_writes=on",
    "logging_collector=off",
    "log_min_error_statement=panic", // statements carry addresses of visitors
    "log_checkpoints=off",
    "max_connections=60",
    "max_locks_per_transaction=512", // a dump is restored in one transaction, with the partitions of years
    "shared_buffers=128MB",
    "wal_compression=on",
    "max_wal_size=1GB",
    "checkpoint_timeout=15min",
    "jit=off",
    "timezone=UTC",
];

/// Why the private PostgreSQL could not be had; each text is one sentence with the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing runnable was found, and a download was impossible or failed (`source`).
    #[error(
        "no PostgreSQL binaries were found; install them with `apt-get install postgresql` or set DATABASE_URL"
    )]
    NoBinaries {
        /// Why they could not be downloaded, where that was tried.
        #[source]
        source: Option<io::Error>,
    },
    /// Nowhere are `pg_dump` and `psql` of this version or a newer one.
    #[error(
        "pg_dump and psql of PostgreSQL {needed} or newer were not found; install them with `apt-get install postgresql-client` or point PGBIN at them"
    )]
    NoClients {
        /// The major version of the server.
        needed: u32,
    },
    /// Another major version wrote the cluster.
    #[error(
        "the data in {} needs PostgreSQL {needed}; install that version or point PGBIN at its binaries",
        path.display()
    )]
    WrongVersion {
        /// The cluster.
        path: PathBuf,
        /// Its major version.
        needed: String,
    },
    /// PostgreSQL refuses root, and nobody else is there to run it.
    #[error(
        "PostgreSQL does not run as root and there is no user `postgres` or `nobody`; create one with `useradd --system postgres` or set DATABASE_URL"
    )]
    NoUser,
    /// The data directory cannot be made, read or written.
    #[error("the directory {} cannot be used; make it writable for this user or choose another with --data-dir", path.display())]
    Directory {
        /// The directory or the file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no room for what PostgreSQL must write.
    #[error("the disk of {} is full: free some space there, or make the file system larger", path.display())]
    DiskFull {
        /// The cluster.
        path: PathBuf,
        /// What PostgreSQL or the system said.
        source: io::Error,
    },
    /// The data directory says where its cluster is, and there is none.
    #[error(
        "the PostgreSQL of this data directory is in {}, says {}, but it is not there: bring it back, or remove that file to begin with an empty database",
        path.display(), note.display()
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// The file that says so.
        note: PathBuf,
    },
    /// The unprivileged user that runs PostgreSQL cannot enter the directory.
    #[error("the user {user} cannot reach {}; allow it with `chmod a+x` on the directories above", path.display())]
    Unreachable {
        /// The data directory.
        path: PathBuf,
        /// The user PostgreSQL would run as.
        user: String,
    },
    /// The place of the cluster holds something else.
    #[error("{} is not a PostgreSQL cluster; move it away or choose another --data-dir", path.display())]
    NotACluster {
        /// The place of the cluster.
        path: PathBuf,
    },
    /// The short directory for the socket of a long data path is not ours alone.
    #[error("the socket directory {} belongs to somebody else; remove it or choose a shorter --data-dir", path.display())]
    SocketDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Another process is starting or stopping the same cluster.
    #[error("another octo is starting or stopping PostgreSQL in {}; try again when it is done", path.display())]
    Busy {
        /// The data directory.
        path: PathBuf,
    },
    /// A program of the system or of PostgreSQL could not be run.
    #[error("the program {program} could not be run; check that it is installed and may be executed")]
    Program {
        /// Its name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("PostgreSQL could not make a cluster in {}; check free space and permissions there", path.display())]
    Initdb {
        /// The data directory.
        path: PathBuf,
        /// The last line `initdb` wrote.
        source: io::Error,
    },
    /// The server ended while it was starting.
    #[error("PostgreSQL stopped while starting; read {}", log.display())]
    Exited {
        /// The server's log.
        log: PathBuf,
        /// Its last fatal line.
        source: io::Error,
    },
    /// The server runs, but takes no connections yet; it is left to finish.
    #[error("PostgreSQL is not ready after {} s and may still be recovering; read {} and let it finish", READY_LIMIT.as_secs(), log.display())]
    NotReady {
        /// The server's log.
        log: PathBuf,
    },
    /// The server refuses our role or our database.
    #[error("PostgreSQL refuses {USER} on {DATABASE} with SQLSTATE {code}; read {}", log.display())]
    Refused {
        /// The SQLSTATE it gave.
        code: String,
        /// The server's log.
        log: PathBuf,
    },
    /// The server outlived both signals.
    #[error("PostgreSQL (process {pid}) did not stop; end it with `kill -QUIT {pid}`")]
    NotStopped {
        /// The postmaster.
        pid: u32,
    },
}

/// A handle on the private PostgreSQL, running or about to.
#[derive(Debug)]
pub struct Embedded {
    place: Place,
    socket_dir: PathBuf,
    /// The postmaster; 0 until one was seen.
    pid: u32,
    /// Kept from the moment it is launched, so that a start that is given up can still be ended.
    child: Option<Child>,
    role: Role,
    in_use: File, // shared lock: tells a command that somebody else still works here
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    Command,
}

impl Embedded {
    /// For the server: finds binaries, makes or reuses the cluster under `<data_dir>/postgres`, starts it or
    /// adopts one that is running, and returns when it accepts connections. Owns it in every case.
    pub async fn start(data_dir: &Path) -> Result<Self, Error> {
        Self::open(data_dir, Role::Server).await
    }

    /// For commands beside a server: attaches to a running cluster, else starts it; [`Self::owned`] tells which.
    pub async fn attach_or_start(data_dir: &Path) -> Result<Self, Error> {
        Self::open(data_dir, Role::Command).await
    }

    /// Whether there is a private PostgreSQL for this data directory; makes nothing but the directory itself.
    pub async fn exists(data_dir: &Path) -> Result<bool, Error> {
        Ok(Place::choose(data_dir).await?.version()?.is_some())
    }

    /// Whether [`Self::stop`] is this handle's business: always for the server, for a command only if it
    /// launched the postmaster.
    pub fn owned(&self) -> bool {
        self.role == Role::Server || self.child.is_some()
    }

    /// The directory of the unix socket, mode 0700, under 100 bytes.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// `postgres://app_user@localhost/supreme_octosuccotash_db?host=<socket directory, percent-encoded>`.
    pub fn url(&self) -> String {
        url_of(&self.socket_dir)
    }

    /// Where the data really lives: the cluster, under the data directory or under the fallback.
    pub fn data_path(&self) -> &Path {
        &self.place.cluster
    }

    /// Stops an owned PostgreSQL, also one that is still starting: fast shutdown, after 30 s an immediate one;
    /// nothing otherwise.
    pub async fn stop(mut self) -> Result<(), Error> {
        if !self.owned() {
            return Ok(());
        }
        let _turn = self.place.turn().await?;
        if self.role == Role::Command && !place::alone(&self.in_use) {
            info!("PostgreSQL stays up: another octo uses it");
            return Ok(());
        }
        let Some(pid) = self.running().await else {
            debug!(pid = self.pid, "PostgreSQL had stopped already");
            return Ok(());
        };
        self.pid = pid;
        for (signal, limit) in STOPS {
            send_signal(pid, signal);
            if timeout(limit, self.ended()).await.is_ok() {
                return Ok(());
            }
            warn!(pid, ?signal, "PostgreSQL is still running after the signal");
        }
        Err(Error::NotStopped { pid })
    }

    async fn open(data_dir: &Path, role: Role) -> Result<Self, Error> {
        let mut embedded = Self::prepare(data_dir, role).await?;
        embedded.bring_up().await?;
        Ok(embedded)
    }

    /// Finds the place, and starts nothing yet.
    async fn prepare(data_dir: &Path, role: Role) -> Result<Self, Error> {
        let place = Place::choose(data_dir).await?;
        let turn = place.turn().await?; // or the mark would wait for a command that stops its PostgreSQL
        let in_use = place.mark_used()?;
        drop(turn);
        let socket_dir = place.socket_dir()?;
        Ok(Self { place, socket_dir, pid: 0, child: None, role, in_use })
    }

    /// Attaches to the running postmaster or launches one, and waits until it takes connections. It may be given up
    /// at any point: what it has launched by then is in the handle.
    async fn bring_up(&mut self) -> Result<(), Error> {
        let _turn = self.place.turn().await?;
        let deadline = Instant::now() + READY_LIMIT;
        if !self.until_ready(deadline).await? {
            let binaries = Binaries::find(&self.place).await?;
            if self.place.version()?.is_none() {
                create_cluster(&self.place, &binaries).await?;
            }
            self.launch(&binaries, deadline).await?;
        }
        let nobody = || self.place.exited("it left no postmaster.pid");
        self.pid = self.place.postmaster().await.ok_or_else(nobody)?;
        self.child = self.child.take().filter(|child| child.id() == Some(self.pid));
        let (pid, path) = (self.pid, self.place.cluster.display());
        info!(pid, launched = self.child.is_some(), %path, "PostgreSQL is ready");
        Ok(())
    }

    /// Launches until it stays: the remains of a killed predecessor go away by themselves, within seconds.
    async fn launch(&mut self, with: &Binaries, deadline: Instant) -> Result<(), Error> {
        let give_up = Instant::now() + PREDECESSOR_LIMIT;
        loop {
            self.place.disarm_recycled_pid(&self.socket_dir).await;
            let log = self.place.open_log()?;
            let written = log.metadata().map_or(0, |log| log.len());
            let mut command = postmaster(&self.place, with, &self.socket_dir, log)?;
            self.child = Some(command.spawn().map_err(|source| program("postgres", source))?);
            if self.until_ready(deadline).await? {
                return Ok(());
            }
            self.child = None;
            let reason = self.place.fatal_line_since(written);
            if !is_of_a_predecessor(&reason) || Instant::now() >= give_up {
                return Err(self.place.exited(reason));
            }
            debug!(reason, "waiting for the processes of a killed PostgreSQL to end");
            sleep(PREDECESSOR_PAUSE).await;
        }
    }

    /// True when connections are taken; false when nobody listens, or when the child has ended.
    async fn until_ready(&mut self, deadline: Instant) -> Result<bool, Error> {
        loop {
            match wire::ask(&self.socket_dir, DATABASE, None).await {
                Answer::Done => return Ok(true),
                Answer::NoDatabase => create_database(&self.place, &self.socket_dir).await?,
                Answer::Refused(code) => return Err(Error::Refused { code, log: self.place.log() }),
                Answer::NotYet => {}
                Answer::Nobody => {
                    let Some(child) = &mut self.child else { return Ok(false) };
                    if !matches!(child.try_wait(), Ok(None)) {
                        return Ok(false);
                    }
                }
            }
            if Instant::now() >= deadline {
                return Err(Error::NotReady { log: self.place.log() });
            }
            sleep(POLL).await;
        }
    }

    /// The postmaster that is ours to stop: the one we launched, for the server whoever works in the place.
    async fn running(&mut self) -> Option<u32> {
        if let Some(child) = &mut self.child {
            if matches!(child.try_wait(), Ok(None)) {
                return child.id();
            }
            self.child = None;
            if self.role == Role::Command {
                return None;
            }
        }
        self.place.postmaster().await
    }

    /// Waits until the postmaster that was brought up is gone.
    async fn gone(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.wait().await; // an error: it is nobody's child any more
            return;
        }
        while self.place.postmaster().await == Some(self.pid) {
            sleep(LOOK).await;
        }
    }

    async fn ended(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.wait().await; // an error: it is nobody's child any more
            return;
        }
        while place::alive(self.pid).await {
            sleep(POLL).await;
        }
    }
}

/// `pg_dump` and `psql` for a server of this major version: those beside the private server, or others.
pub async fn clients(embedded: Option<&Embedded>, server_major: u32) -> Result<Clients, Error> {
    Clients::find(embedded.map(|embedded| &embedded.place), server_major).await
}

/// See [`Embedded::url`].
fn url_of(socket_dir: &Path) -> String {
    let host = percent_encode(socket_dir.as_os_str().as_encoded_bytes());
    format!("postgres://{USER}@localhost/{DATABASE}?host={host}")
}

async fn create_database(place: &Place, socket_dir: &Path) -> Result<(), Error> {
    let sql = format!("CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8'");
    match wire::ask(socket_dir, "postgres", Some(&sql)).await {
        Answer::Refused(code) => Err(Error::Refused { code, log: place.log() }),
        _ => Ok(()), // made, or the server is away for a moment: the caller asks again either way
    }
}

/// Under another name first: a half-made cluster never stands where a whole one is looked for.
async fn create_cluster(place: &Place, binaries: &Binaries) -> Result<(), Error> {
    info!(path = %place.cluster.display(), "making a PostgreSQL cluster");
    let fresh = place.fresh_cluster()?;
    let mut refused = None;
    for locale in ["C.UTF-8", "C"] {
        let mut initdb = binaries.command(place, "initdb");
        initdb.arg("-D").arg(&fresh).args(["-U", USER, "-E", "UTF8", "--data-checksums"]);
        initdb.args(["--auth-local=trust", "--auth-host=reject", "--lc-messages=C"]);
        initdb.arg(format!("--locale={locale}"));
        match output(&mut initdb, INITDB_LIMIT).await {
            Ok(_) => return place.install_cluster(&fresh),
            Err(source) => refused = Some(source),
        }
    }
    let source = refused.unwrap_or_else(|| io::ErrorKind::Other.into());
    if place::is_disk_full(&source) {
        return Err(Error::DiskFull { path: place.cluster.clone(), source });
    }
    Err(Error::Initdb { path: place.home.clone(), source })
}

/// In a process group of its own: Ctrl-C is for octo, which drains into PostgreSQL before it stops it.
fn postmaster(place: &Place, with: &Binaries, socket_dir: &Path, log: File) -> Result<Command, Error> {
    let both = log.try_clone().map_err(|source| place.unusable(source))?;
    let mut socket = OsString::from("unix_socket_directories=");
    socket.push(socket_dir);
    let mut command = with.command(place, "postgres");
    command.arg("-D").arg(&place.cluster).arg("-c").arg(socket);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command.process_group(0).stdin(Stdio::null()).stdout(both).stderr(log);
    Ok(command)
}

/// What PostgreSQL says while backends of a killed postmaster, or their shared memory, are still there.
fn is_of_a_predecessor(reason: &str) -> bool {
    reason.contains("is still in use") || reason.contains("already exists")
}

/// Whether it helped is seen by the process's end: one that is gone already is no failure.
fn send_signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Standard output of a command that succeeds within the limit; its last words on stderr otherwise.
async fn output(command: &mut Command, limit: Duration) -> io::Result<String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = timeout(limit, command.output()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if ended.status.success() {
        return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&ended.stderr);
    Err(io::Error::other(words.trim_end().lines().next_back().unwrap_or("it failed silently").to_owned()))
}

fn program(name: &str, source: io::Error) -> Error {
    Error::Program { program: name.to_owned(), source }
}

fn percent_encode(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, &byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}"); // a String takes everything
        }
        text
    })
}
