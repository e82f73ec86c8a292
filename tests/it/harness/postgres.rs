//! One PostgreSQL server: made from a cached template or as a streaming copy of another, started, watched until ready.
//!
//! What is shared, private, a primary or a replica is decided elsewhere.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::net::SocketAddrV4;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sqlx::{Connection, PgConnection};

use super::POLL;
use super::machine::{command, hash, postgres_program, run, server_user, servers_dir};
use super::sandbox::give;
use super::servers::lock_exclusive;

/// The role `octo` uses: owner of its database and nothing more, so that a statement that needs a superuser fails here.
pub(super) const APP_USER: &str = "app_user";
/// The database a cluster has from the start, empty, owned by [`APP_USER`].
pub(super) const APP_DATABASE: &str = "supreme_octosuccotash_db";

/// A password, not trust: a superuser of PostgreSQL may run programs, and others may have accounts on this machine.
const HBA: &str = "host all all 127.0.0.0/8 password\nhost replication all 127.0.0.0/8 password\n";
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// For quick tests; what all clusters have in common.
const SETTINGS: &[&str] = &[
    "unix_socket_directories=",
    "dynamic_shared_memory_type=mmap", // in the data directory, removed with it; the default outlives kill -9 in /dev/shm
    "max_connections=300",
    "max_wal_senders=10",
    "max_replication_slots=10",
    "wal_keep_size=128MB", // two base backups at once: the checkpoint of one removed a segment the other had asked for
    "max_slot_wal_keep_size=2GB",
    "shared_buffers=64MB",
    "wal_retrieve_retry_interval=50ms", // the default of 5 s is how long a promotion would sometimes take
    "wal_receiver_status_interval=1s",
    "timezone=UTC",
    "log_line_prefix=%m [%p] %q%a %d ",
];

/// A data directory, its address and its running postmaster.
pub(super) struct Cluster {
    dir: PathBuf,
    address: SocketAddrV4,
    password: String,
    settings: Vec<String>,
    postmaster: Child,
}

impl Cluster {
    /// Starts a primary in `home`, from the template in `servers_dir`.
    pub(super) async fn primary(
        home: &Path,
        name: &str,
        address: SocketAddrV4,
        more: &[&str],
    ) -> Result<Self> {
        let template = Template::cached().await?;
        let dir = home.join(name);
        let mut copy = command("cp", home)?;
        copy.arg("-R").arg(&template.dir).arg(&dir);
        run(copy).await?;
        Self::start(dir, address, template.password, settings(address, more)).await
    }

    /// Starts a streaming replica of this one, through a replication slot of its own.
    pub(super) async fn replica(
        &self,
        home: &Path,
        name: &str,
        address: SocketAddrV4,
        more: &[&str],
    ) -> Result<Self> {
        let dir = home.join(name);
        let slot = format!("it_{}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        let mut backup = command(postgres_program("pg_basebackup")?, home)?;
        backup.args(["-R", "-C", "-S", &slot, "--checkpoint=fast", "--no-sync", "-D"]).arg(&dir);
        backup.args(["-h", &self.address.ip().to_string(), "-p", &self.address.port().to_string()]);
        backup.args(["-U", "postgres"]).env("PGPASSWORD", &self.password).env("PGAPPNAME", name);
        run(backup).await?;
        Self::start(dir, address, self.password.clone(), settings(address, more)).await
    }

    /// Copies its files into `dir` while it runs.
    pub(super) async fn base_backup(&self, dir: &Path) -> Result<()> {
        let home = dir.parent().context("a directory of its own")?;
        let mut backup = command(postgres_program("pg_basebackup")?, home)?;
        backup.args(["--checkpoint=fast", "--no-sync", "-D"]).arg(dir);
        backup.args(["-h", &self.address.ip().to_string(), "-p", &self.address.port().to_string()]);
        backup.args(["-U", "postgres"]).env("PGPASSWORD", &self.password);
        run(backup).await.map(drop)
    }

    /// Starts a server on a copy of this one's files.
    pub(super) async fn restored(&self, dir: PathBuf, address: SocketAddrV4, more: &[&str]) -> Result<Self> {
        Self::start(dir, address, self.password.clone(), settings(address, more)).await
    }

    async fn start(
        dir: PathBuf,
        address: SocketAddrV4,
        password: String,
        settings: Vec<String>,
    ) -> Result<Self> {
        let postmaster = spawn(&dir, &settings)?;
        let mut cluster = Self { dir, address, password, settings, postmaster };
        cluster.wait_ready().await?;
        Ok(cluster)
    }

    /// Starts it again on the same directory and address. After a kill the last backends may still hold the shared
    /// memory for a moment, and the postmaster refuses until they are gone: so it is asked again.
    pub(super) async fn start_again(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            self.postmaster = spawn(&self.dir, &self.settings)?;
            match self.wait_ready().await {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(5 * POLL).await,
                answer => return answer,
            }
        }
    }

    /// Ready when the postmaster says so in its pid file, as pg_ctl sees it; a pid file of an earlier life does not count.
    async fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.is_ready() {
            if let Some(status) = self.postmaster.try_wait()? {
                bail!(
                    "PostgreSQL in {} ended at its start, {status}:\n{}",
                    self.dir.display(),
                    self.log_tail()
                );
            }
            ensure!(Instant::now() < deadline, "PostgreSQL is not ready in time:\n{}", self.log_tail());
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        let file = fs::read_to_string(self.dir.join("postmaster.pid")).unwrap_or_default();
        let mut lines = file.lines();
        lines.next() == Some(&self.pid().to_string())
            && lines.nth(6).is_some_and(|status| status.trim() == "ready")
    }

    /// The postmaster's process id.
    pub(super) fn pid(&self) -> u32 {
        self.postmaster.id()
    }

    /// The postmaster, to wait for or to kill.
    pub(super) fn postmaster(&mut self) -> &mut Child {
        &mut self.postmaster
    }

    /// The connection URL of `user` to `database`.
    pub(super) fn url(&self, user: &str, database: &str) -> String {
        url(self.address, &self.password, user, database)
    }

    /// The last lines of its log.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read(log_path(&self.dir)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// The connection URL of `user` to `database` at `address`.
pub(super) fn url(address: SocketAddrV4, password: &str, user: &str, database: &str) -> String {
    format!("postgres://{user}:{password}@{address}/{database}")
}

/// A connection outside any pool.
pub(super) async fn connect(url: &str) -> Result<PgConnection> {
    PgConnection::connect(url).await.with_context(|| format!("no connection to {url}"))
}

/// The password of this checkout's servers, made once.
pub(super) fn password(servers_dir: &Path) -> Result<String> {
    let path = servers_dir.join("password");
    if let Ok(password) = fs::read_to_string(&path) {
        return Ok(password);
    }
    let password = uuid::Uuid::new_v4().simple().to_string();
    let mut file = tempfile::NamedTempFile::new_in(servers_dir)?; // 0600
    file.write_all(password.as_bytes())?;
    match file.persist_noclobber(&path) {
        Err(failed) if failed.error.kind() != io::ErrorKind::AlreadyExists => Err(failed.error.into()),
        _ => Ok(fs::read_to_string(&path)?), // somebody's who asked at the same time, perhaps
    }
}

fn settings(address: SocketAddrV4, more: &[&str]) -> Vec<String> {
    let own = [format!("listen_addresses={}", address.ip()), format!("port={}", address.port())];
    SETTINGS.iter().chain(more).map(ToString::to_string).chain(own).collect()
}

fn log_path(dir: &Path) -> PathBuf {
    dir.with_extension("log")
}

fn spawn(dir: &Path, settings: &[String]) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log_path(dir))?;
    let mut postgres = command(postgres_program("postgres")?, dir)?;
    postgres.arg("-D").arg(dir).args(settings.iter().flat_map(|setting| ["-c", setting]));
    postgres.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
    postgres.spawn().context("could not start postgres")
}

/// A cluster fresh from `initdb`, with the roles and the database every test expects; copied, never started.
struct Template {
    dir: PathBuf,
    password: String,
}

impl Template {
    /// The template for the installed version, made by the first who asks.
    async fn cached() -> Result<Self> {
        let servers_dir = servers_dir()?;
        let _lock = lock_exclusive(File::create(servers_dir.join("template.lock"))?).await?;
        let password = password(servers_dir)?;
        let key = hash(&(HBA, APP_USER, APP_DATABASE, &password));
        let dir = servers_dir.join(format!("template-{}-{:08x}", version().await?, key >> 32));
        if !fs::exists(&dir)? {
            make_template(servers_dir, &dir, &password).await?;
        }
        Ok(Self { dir, password })
    }
}

/// Under a temporary name until it is whole.
async fn make_template(servers_dir: &Path, dir: &Path, password: &str) -> Result<()> {
    let unfinished = servers_dir.join("template-unfinished");
    if fs::exists(&unfinished)? {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir(&unfinished)?;
    fs::set_permissions(&unfinished, Permissions::from_mode(0o700))?;
    give(&unfinished, server_user()?)?;
    let mut initdb = command(postgres_program("initdb")?, &unfinished)?;
    initdb
        .args(["-U", "postgres", "-E", "UTF8", "--locale=C", "--auth=trust", "--no-sync", "-D"])
        .arg(&unfinished);
    run(initdb).await?;
    single_user(&unfinished, &format!("ALTER ROLE postgres PASSWORD '{password}'")).await?;
    single_user(&unfinished, &format!("CREATE ROLE {APP_USER} LOGIN PASSWORD '{password}'")).await?;
    single_user(&unfinished, &format!("CREATE DATABASE {APP_DATABASE} OWNER {APP_USER}")).await?;
    fs::write(unfinished.join("pg_hba.conf"), HBA)?;
    fs::rename(&unfinished, dir)?;
    Ok(())
}

/// Runs one statement without a server. Standard input and not an argument: others see arguments.
async fn single_user(dir: &Path, statement: &str) -> Result<()> {
    let mut input = tempfile::tempfile()?;
    input.write_all(statement.as_bytes())?;
    std::io::Seek::rewind(&mut input)?;
    let mut postgres = command(postgres_program("postgres")?, dir)?;
    postgres
        .args(["--single", "-F", "-D"])
        .arg(dir)
        .args(["-c", "exit_on_error=on", "postgres"])
        .stdin(input);
    run(postgres).await.map(drop)
}

/// The installed version, as in `15.14`.
async fn version() -> Result<String> {
    let mut postgres = command(postgres_program("postgres")?, Path::new("/"))?;
    postgres.arg("--version");
    let answer = run(postgres).await?; // postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)
    let version = answer.split_whitespace().nth(2).map(str::to_owned);
    version.with_context(|| format!("postgres --version said {answer:?}"))
}

#[test]
fn all_who_ask_for_the_password_first_get_the_same() {
    for _ in 0..50 {
        let dir = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(8);
        let ask = || {
            start.wait();
            password(dir.path()).unwrap()
        };
        let asked: Vec<_> = std::thread::scope(|scope| {
            let askers: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            askers.into_iter().map(|asker| asker.join().unwrap()).collect()
        });
        assert!(asked.iter().all(|password| *password == asked[0]), "{asked:?}");
    }
}
