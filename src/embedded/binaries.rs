//! Finds the server's programs: what the owner names, what the system has, and on Debian without them the
//! packages, unpacked beside the data; that needs no root and touches nothing else.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use tracing::{debug, info};

use super::place::{Place, make_home, remove_dir};
use super::{COMMAND_LIMIT, Error, output};

const DOWNLOAD_LIMIT: Duration = Duration::from_mins(4);
const PACKAGES_MAX: usize = 60;
/// Where versions stand side by side: the directory and what precedes the version in the name.
const VERSIONED: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/usr/local/opt", "postgresql@"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@"),
];

/// A directory with `initdb` and `postgres`.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    directory: PathBuf,
    libraries: Option<OsString>, // LD_LIBRARY_PATH of downloaded ones
}

impl Binaries {
    /// The first that runs, as the account, and fits the version of an existing cluster.
    pub(super) async fn find(place: &Place) -> Result<Self, Error> {
        let needed = place.version()?;
        let mut found_another = false;
        for candidate in installed().chain(downloaded(place)) {
            match candidate.version(place).await {
                Some(version) if needed.as_ref().is_none_or(|needed| *needed == version) => {
                    return Ok(candidate);
                }
                other => found_another |= other.is_some(),
            }
        }
        let source = match download(place, needed.as_deref()).await {
            Ok(Some(fresh)) => return Ok(fresh),
            Ok(None) => None,
            Err(source) => Some(source),
        };
        match needed {
            Some(needed) if found_another => Err(Error::WrongVersion { path: place.cluster.clone(), needed }),
            _ => Err(Error::NoBinaries { source }),
        }
    }

    /// One of the programs, as the account that runs PostgreSQL.
    pub(super) fn command(&self, place: &Place, program: &str) -> Command {
        let mut command = place.account.command(self.directory.join(program));
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// `15` of `postgres (PostgreSQL) 15.20 (Debian ..)`.
    async fn version(&self, place: &Place) -> Option<String> {
        if !self.directory.join("initdb").exists() {
            return None;
        }
        self.version_of(self.command(place, "postgres")).await
    }

    /// Of `pg_dump`, where `psql` is too.
    async fn clients_major(&self) -> Option<u32> {
        if !["pg_dump", "psql"].iter().all(|program| self.directory.join(program).is_file()) {
            return None;
        }
        self.version_of(self.own_command("pg_dump")).await?.parse().ok()
    }

    async fn version_of(&self, mut command: Command) -> Option<String> {
        let text = output(command.arg("--version"), COMMAND_LIMIT).await;
        let text =
            text.inspect_err(|error| debug!(%error, at = %self.directory.display(), "unusable PostgreSQL"));
        let number = text.ok()?.split_whitespace().nth(2)?.to_owned();
        Some(number.split(|letter: char| !letter.is_ascii_digit()).next()?.to_owned())
    }

    /// A client program: with the environment of the user who runs octo, who may have certificates there.
    fn own_command(&self, program: &str) -> Command {
        let mut command = Command::new(self.directory.join(program));
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }
}

/// `pg_dump` and `psql` of one version.
#[derive(Debug, Clone)]
pub struct Clients {
    binaries: Binaries,
    major: u32,
}

impl Clients {
    /// Those that are nearest to a server's version: `pg_dump` refuses a server newer than itself, and what a much
    /// newer one writes an old server may not read.
    pub(super) async fn find(place: Option<&Place>, server_major: u32) -> Result<Self, Error> {
        let mut nearest: Option<Self> = None;
        for binaries in installed().chain(place.into_iter().flat_map(downloaded)) {
            let Some(major) = binaries.clients_major().await else { continue };
            if major >= server_major && nearest.as_ref().is_none_or(|found| major < found.major) {
                nearest = Some(Self { binaries, major });
            }
        }
        nearest.ok_or(Error::NoClients { needed: server_major })
    }

    /// Their major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// One of the two, as the user who runs octo.
    pub fn command(&self, program: &str) -> Command {
        self.binaries.own_command(program)
    }
}

fn installed() -> impl Iterator<Item = Binaries> {
    let named = std::env::var_os("PGBIN").map(PathBuf::from);
    let versioned = VERSIONED.iter().flat_map(|(parent, prefix)| versions(Path::new(parent), prefix));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let plain = ["/opt/homebrew/bin", "/usr/local/bin"].map(PathBuf::from);
    let everywhere: Vec<_> =
        named.into_iter().chain(versioned).chain(std::env::split_paths(&path)).chain(plain).collect();
    everywhere.into_iter().map(|directory| Binaries { directory, libraries: None })
}

/// `bin` of every version under a directory, the highest first.
fn versions(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let number = |name: &OsStr| name.to_str()?.strip_prefix(prefix)?.parse::<u32>().ok();
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<_> =
        entries.filter_map(|entry| Some((number(&entry.file_name())?, entry.path().join("bin")))).collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, directory)| directory).collect()
}

fn downloaded(place: &Place) -> impl Iterator<Item = Binaries> {
    let root = place.home.join("postgres-binaries");
    let libraries =
        [root.join("usr/lib"), root.join("lib")].iter().flat_map(|lib| library_dirs(lib)).collect::<Vec<_>>();
    let libraries = std::env::join_paths(libraries).ok();
    versions(&root.join("usr/lib/postgresql"), "")
        .into_iter()
        .map(move |directory| Binaries { directory, libraries: libraries.clone() })
}

/// `x86_64-linux-gnu` and the like.
fn library_dirs(lib: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(lib).into_iter().flatten().flatten().map(|entry| entry.path());
    entries
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("-linux-")))
        .collect()
}

/// `None` where this is no Debian, or where what came does not run.
async fn download(place: &Place, needed: Option<&str>) -> io::Result<Option<Binaries>> {
    if !Path::new("/usr/bin/apt-get").exists() {
        return Ok(None);
    }
    let root = place.home.join("postgres-binaries");
    info!(path = %root.display(), "PostgreSQL is not installed: downloading the packages of this system");
    timeout(DOWNLOAD_LIMIT, fetch(&root, needed)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    for candidate in downloaded(place) {
        if let Some(version) = candidate.version(place).await
            && needed.is_none_or(|needed| needed == version)
        {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

/// The packages of the server and its clients and, wave by wave, the libraries it needs that are not installed.
async fn fetch(root: &Path, needed: Option<&str>) -> io::Result<()> {
    let fresh = root.with_extension("new");
    remove_dir(&fresh)?;
    let fresh = make_home(&fresh).map_err(io::Error::other)?;
    let apt = Apt::new(&fresh).await;
    let server = match needed {
        Some(version) => format!("postgresql-{version}"),
        None => apt.server_package().await?,
    };
    // pg_dump and psql, for `octo database`
    let clients = server.replacen("postgresql-", "postgresql-client-", 1);
    let mut wave = vec![server, clients];
    let mut seen = wave.clone();
    while !wave.is_empty() && seen.len() <= PACKAGES_MAX {
        let wanted = apt.unpack(&wave).await?;
        wave = Vec::new();
        for package in wanted {
            if !seen.contains(&package) && !is_installed(&package).await {
                seen.push(package.clone());
                wave.push(package);
            }
        }
    }
    remove_dir(&apt.scratch)?;
    remove_dir(root)?;
    fs::rename(&fresh, root)
}

struct Apt {
    root: PathBuf,
    scratch: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// With the package lists of the system, or, where an image was shipped without them, lists of our own.
    async fn new(root: &Path) -> Self {
        let apt = Self { root: root.to_owned(), scratch: root.join("apt"), options: Vec::new() };
        if apt.server_package().await.is_ok() {
            return apt;
        }
        let lists = format!("Dir::State::lists={}", apt.scratch.join("lists").display());
        let cache = format!("Dir::Cache={}", apt.scratch.join("cache").display());
        let private = ["-o", &lists, "-o", &cache, "-o", "Debug::NoLocking=1"].map(str::to_owned);
        let apt = Self { options: private.into(), ..apt };
        let made = ["lists/partial", "cache/archives/partial"]
            .iter()
            .try_for_each(|directory| fs::create_dir_all(apt.scratch.join(directory)));
        if let Err(error) = made.and(output(apt.run("apt-get").arg("update"), DOWNLOAD_LIMIT).await) {
            debug!(%error, "apt-get update"); // the next call says what is missing
        }
        apt
    }

    /// `postgresql-15`, of which `postgresql` is the name that moves with the release.
    async fn server_package(&self) -> io::Result<String> {
        let text = output(self.run("apt-cache").args(["depends", "postgresql"]), DOWNLOAD_LIMIT).await?;
        let mut depends = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: postgresql-"));
        let version =
            depends.next().ok_or_else(|| io::Error::other("the package lists do not contain postgresql"))?;
        Ok(format!("postgresql-{version}"))
    }

    /// Downloads and unpacks; returns the libraries these packages depend on.
    async fn unpack(&self, packages: &[String]) -> io::Result<Vec<String>> {
        fs::create_dir_all(&self.scratch)?;
        output(self.run("apt-get").arg("download").args(packages), DOWNLOAD_LIMIT).await?;
        let mut wanted = Vec::new();
        for entry in fs::read_dir(&self.scratch)? {
            let file = entry?.path();
            if file.extension() != Some(OsStr::new("deb")) {
                continue;
            }
            output(Command::new("dpkg").arg("-x").arg(&file).arg(&self.root), DOWNLOAD_LIMIT).await?;
            let depends =
                output(Command::new("dpkg-deb").arg("-f").arg(&file).arg("Depends"), COMMAND_LIMIT).await?;
            wanted.extend(libraries_of(&depends));
            fs::remove_file(file)?;
        }
        Ok(wanted)
    }

    fn run(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let here = if self.scratch.exists() { &self.scratch } else { &self.root };
        command.args(&self.options).env("LC_ALL", "C").current_dir(here);
        command
    }
}

/// `libxml2` of `libc6 (>= 2.36), locales | locales-all, libxml2 (>= 2.7.4)`; the 100 MB of LLVM only serve
/// the JIT, which is off, and the C library is there.
pub(super) fn libraries_of(depends: &str) -> Vec<String> {
    let first = |alternatives: &str| alternatives.split([' ', '|', ':', '(']).next().map(str::to_owned);
    let names = depends.split(',').filter_map(|alternatives| first(alternatives.trim()));
    names.filter(|name| name.starts_with("lib") && !name.starts_with("libllvm") && name != "libc6").collect()
}

async fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status}", package]);
    output(&mut query, COMMAND_LIMIT).await.is_ok_and(|status| status.starts_with("installed"))
}
