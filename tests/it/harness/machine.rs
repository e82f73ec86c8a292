//! The machine the tests run on: its PostgreSQL and Redis programs, the user that runs them, directories, addresses, signals.
//!
//! Nothing here knows what a cluster or a test database is.

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process;

use super::POLL;

/// A server that does not take connections by then does not start.
const START_TIMEOUT: Duration = Duration::from_secs(15);

const REMEDY: &str = "run ./test, which installs it, or apt-get install postgresql redis-server";

/// A user and its group, by number.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A command for the machine's own programs: in `dir`, as the server user, with nothing of the developer's PostgreSQL
/// in its environment, and in a process group of its own so that a Ctrl-C is the test's alone.
pub(super) fn command(program: impl AsRef<OsStr>, dir: &Path) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir(dir).process_group(0).stdin(Stdio::null()).env("LC_ALL", "C");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
    if let Some(user) = server_user()? {
        command.uid(user.uid).gid(user.gid);
    }
    Ok(command)
}

/// Runs a command to its end and returns its standard output; the error quotes what it said.
pub(super) async fn run(command: Command) -> Result<String> {
    let shown = format!("{} in {:?}", command.get_program().display(), command.get_current_dir());
    let mut command = tokio::process::Command::from(command);
    let output = command.output().await.with_context(|| format!("could not start {shown}"))?;
    ensure!(
        output.status.success(),
        "{shown}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The user to run servers as: PostgreSQL refuses root, so root steps down to `postgres`, else `nobody`.
pub(super) fn server_user() -> Result<Option<User>> {
    if own_uid()? != 0 {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").context("no /etc/passwd")?;
    ["postgres", "nobody"].iter().find_map(|name| find_user(&passwd, name)).map(Some).context(
        "running as root, and /etc/passwd has neither a user postgres nor nobody to run PostgreSQL as",
    )
}

fn find_user(passwd: &str, name: &str) -> Option<User> {
    let mut fields =
        passwd.lines().map(|line| line.split(':')).find(|line| line.clone().next() == Some(name))?;
    Some(User { uid: fields.nth(2)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}

fn own_uid() -> Result<u32> {
    Ok(fs::metadata("/proc/self").context("the tests need Linux, with /proc")?.uid())
}

/// Where a program of PostgreSQL is: `$PGBIN`, the highest `/usr/lib/postgresql/*/bin`, `PATH`.
pub(super) fn postgres_program(name: &str) -> Result<PathBuf> {
    static BIN: OnceLock<Option<PathBuf>> = OnceLock::new();
    let bin = BIN.get_or_init(|| {
        let whole =
            |dir: &PathBuf| ["initdb", "postgres", "pg_basebackup"].iter().all(|p| dir.join(p).is_file());
        std::env::var_os("PGBIN")
            .map(PathBuf::from)
            .into_iter()
            .chain(debian_bins())
            .chain(path())
            .find(whole)
    });
    let bin = bin.as_ref().with_context(|| {
        format!("no PostgreSQL server in $PGBIN, /usr/lib/postgresql/*/bin or PATH: the tests need a real one; {REMEDY}")
    })?;
    Ok(bin.join(name))
}

/// Where `redis-server` is.
pub(super) fn redis_program() -> Result<PathBuf> {
    path()
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/bin")])
        .map(|dir| dir.join("redis-server"))
        .find(|program| program.is_file())
        .with_context(|| format!("no redis-server in PATH: the tests need a real one; {REMEDY}"))
}

/// Where a program of a server or a browser is, also out of an ordinary user's `PATH`; `./test` has the packages.
pub(super) fn server_program(name: &str) -> Result<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .into_iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|program| program.is_file())
        .with_context(|| format!("no {name}: the tests need a real one; run ./test, which installs it"))
}

/// Waits until a server takes connections at `address`; an error tells what it wrote to `log` instead.
pub(super) async fn wait_for_port(address: SocketAddrV4, child: &mut Child, log: &Path) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    let said = || fs::read_to_string(log).unwrap_or_default();
    while TcpStream::connect(address).is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("it ended at its start, {status}: {}", said());
        }
        ensure!(Instant::now() < deadline, "it is not ready in time: {}", said());
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn debian_bins() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut bins: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    bins.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    bins.into_iter().map(|(_, bin)| bin)
}

fn path() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

/// The directory all servers of this checkout and user live in: below `target/` if the server user can reach that
/// (it cannot reach a checkout below `/root`), else below the temporary directory.
pub(super) fn servers_dir() -> Result<&'static Path> {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    if let Some(dir) = DIR.get() {
        return Ok(dir);
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let uid = own_uid()?;
    let candidates = [
        target.join(format!("octo-it-{uid}")),
        std::env::temp_dir().join(format!("octo-it-{uid}-{:08x}", hash(&env!("CARGO_TARGET_TMPDIR")) >> 32)),
    ];
    let found = candidates.iter().find_map(|dir| usable(dir, uid)).with_context(|| {
        format!(
            "neither {} can be written here and reached by the user that runs PostgreSQL",
            shown(&candidates)
        )
    })?;
    Ok(DIR.get_or_init(|| found))
}

fn shown(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(" nor ")
}

fn usable(dir: &Path, uid: u32) -> Option<PathBuf> {
    fs::create_dir_all(dir).ok()?;
    let dir = dir.canonicalize().ok()?;
    let own = fs::metadata(&dir).ok()?.uid() == uid;
    let reachable = command("test", Path::new("/")).ok()?.arg("-x").arg(&dir).status().ok()?.success();
    (own && reachable && tempfile::tempfile_in(&dir).is_ok()).then_some(dir)
}

/// What the shared servers and the databases of a whole run need, generously.
const ROOM_KIB: u64 = 4 << 20;

/// A directory in memory for this checkout and user. Making some thousand files took 0.2 s there and 1-3 s on a disk
/// whose file system discards blocks.
pub(super) fn memory_dir() -> Result<PathBuf> {
    let target = hash(&env!("CARGO_TARGET_TMPDIR")) >> 32;
    Ok(PathBuf::from(format!("/dev/shm/octo-it-{}-{target:08x}", own_uid()?)))
}

/// Whether there is room in memory: a container's `/dev/shm` is often 64 MB.
pub(super) async fn has_memory() -> bool {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available =
        meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")).and_then(first_number);
    let Ok(mut df) = command("df", Path::new("/")) else { return false };
    df.args(["-k", "--output=avail", "/dev/shm"]);
    let free = run(df).await.ok().and_then(|answer| first_number(answer.lines().nth(1)?));
    available.min(free).is_some_and(|room| room >= ROOM_KIB)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// A hash that is the same in every process of one build.
pub(super) fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A claim on an address, machine-wide and for all users: as long as this socket is open somewhere, nobody else of us
/// uses the address. The watcher of a set inherits it, so the claim lives exactly as long as the set.
pub(super) struct Claim {
    pub(super) socket: TcpListener,
    pub(super) address: Ipv4Addr,
}

const CLAIM_PORT: u16 = 5499;

impl Claim {
    /// Claims `address` if it is free.
    pub(super) fn take(address: Ipv4Addr) -> Option<Self> {
        Some(Self { socket: TcpListener::bind((address, CLAIM_PORT)).ok()?, address })
    }

    /// Claims the first of `addresses` where `port` is free too, whoever may hold it.
    pub(super) fn first(
        addresses: impl Iterator<Item = Ipv4Addr>,
        port: u16,
    ) -> Result<(Self, SocketAddrV4)> {
        for address in addresses {
            if let Some(claim) = Self::take(address)
                && is_free(SocketAddrV4::new(address, port))
            {
                return Ok((claim, SocketAddrV4::new(address, port)));
            }
        }
        bail!("port {port} is taken on every loopback address that was tried")
    }
}

/// Whether a server could listen there now.
pub(super) fn is_free(address: SocketAddrV4) -> bool {
    TcpListener::bind(address).is_ok()
}

/// Addresses for private servers, in an order of this call's own.
pub(super) fn private_addresses() -> impl Iterator<Item = Ipv4Addr> {
    std::iter::repeat_with(|| Ipv4Addr::new(127, 78, fastrand::u8(..), fastrand::u8(1..255))).take(500)
}

/// The signals the tests send.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    /// SIGHUP: the terminal is gone.
    Hup,
    /// SIGTERM: `octo` drains; PostgreSQL waits for its clients.
    Term,
    /// SIGINT: PostgreSQL's fast shutdown; the first Ctrl-C for `octo`.
    Int,
    /// SIGQUIT: PostgreSQL's immediate shutdown, as a crash for its clients and its files.
    Quit,
    /// SIGKILL.
    Kill,
    /// SIGSTOP: alive for the kernel, silent for everybody else.
    Stop,
    /// SIGCONT.
    Cont,
}

/// Sends a signal. A process that is gone already is no failure, nor is one that is not ours to signal.
pub(crate) fn signal(signal: Signal, pids: &[u32]) {
    let signal = match signal {
        Signal::Hup => process::Signal::HUP,
        Signal::Term => process::Signal::TERM,
        Signal::Int => process::Signal::INT,
        Signal::Quit => process::Signal::QUIT,
        Signal::Kill => process::Signal::KILL,
        Signal::Stop => process::Signal::STOP,
        Signal::Cont => process::Signal::CONT,
    };
    for &pid in pids {
        let pid = i32::try_from(pid).ok().and_then(process::Pid::from_raw).expect("the kernel's pids fit");
        let _ = process::kill_process(pid, signal);
    }
}

/// The processes whose parent is `pid`, by a walk through /proc.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|number| parent(*number) == Some(pid)).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (name) state parent ...; only the name may hold spaces and brackets
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// An address of this machine that is not loopback, for who asks as a stranger: one that it has; else, for root, one of
/// 198.18.0.0/15 (RFC 2544: of nobody), on the loopback interface for as long as this lives.
pub(crate) struct OutsideAddress {
    ip: Ipv4Addr,
    is_ours: bool,
}

impl OutsideAddress {
    /// `None` where there is none and none can be made.
    pub(crate) fn find() -> Option<Self> {
        Self::of_the_machine().or_else(Self::make)
    }

    /// That which packets for elsewhere would have; none is sent.
    fn of_the_machine() -> Option<Self> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9)).ok()?;
        match socket.local_addr().ok()?.ip() {
            std::net::IpAddr::V4(ip) if !ip.is_loopback() => Some(Self { ip, is_ours: false }),
            _ => None,
        }
    }

    fn make() -> Option<Self> {
        let ip = Ipv4Addr::new(198, 18, fastrand::u8(..), fastrand::u8(1..255));
        change_address("add", ip).then_some(Self { ip, is_ours: true })
    }

    /// The address.
    pub(crate) fn ip(&self) -> Ipv4Addr {
        self.ip
    }
}

impl Drop for OutsideAddress {
    fn drop(&mut self) {
        if self.is_ours {
            change_address("del", self.ip);
        }
    }
}

fn change_address(verb: &str, ip: Ipv4Addr) -> bool {
    let done = Command::new("ip").args(["address", verb, &format!("{ip}/32"), "dev", "lo"]).output();
    done.is_ok_and(|output| output.status.success())
}
