//! A directory whose inhabitants end with the test: see "Nothing is left behind" in the harness's head.

use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::machine::{Claim, User};

/// A directory and its watcher. Dropping it stops every server in the directory and removes the directory.
pub(super) struct Sandbox {
    dir: PathBuf,
    alive: Option<File>,
    watcher: Child,
}

impl Sandbox {
    /// Makes a new directory in `parent`, writable by `owner` (or by the test's user), readable by all.
    pub(super) fn create(parent: &Path, owner: Option<User>, claim: Option<Claim>) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("octo-it-").permissions(Permissions::from_mode(0o755));
        let dir = builder.tempdir_in(parent).context("could not make a directory for a test")?.keep();
        let dir = dir.canonicalize()?;
        let lock = dir.join("alive.lock");
        let alive = File::create_new(&lock)?;
        alive.lock_shared()?;
        give(&dir, owner)?;
        let watcher = watch(&lock, &dir, 0, claim)?;
        Ok(Self { dir, alive: Some(alive), watcher })
    }

    /// The directory, canonical.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.alive.take());
        if let Err(error) = self.watcher.wait() {
            eprintln!("the watcher of {} was lost: {error}", self.dir.display());
        }
    }
}

/// An empty directory for a test's own files.
pub(crate) struct Scratch(Sandbox);

impl Scratch {
    /// Makes it.
    pub(crate) fn create() -> Self {
        Self(super::must(Sandbox::create(&std::env::temp_dir(), None, None)))
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        self.0.dir()
    }
}

/// Gives a directory to the user that runs the servers.
pub(super) fn give(dir: &Path, owner: Option<User>) -> Result<()> {
    let Some(user) = owner else { return Ok(()) };
    chown(dir, Some(user.uid), Some(user.gid))
        .with_context(|| format!("could not give away {}", dir.display()))
}

/// Starts the shell that ends `dir` once nobody holds `lock`, in a session of its own: neither Ctrl-C in a terminal nor
/// a test runner that kills a process group reaches it.
pub(super) fn watch(lock: &Path, dir: &Path, linger_s: u32, claim: Option<Claim>) -> Result<Child> {
    let stdin = claim.map_or_else(Stdio::null, |claim| Stdio::from(OwnedFd::from(claim.socket)));
    watcher(lock.as_os_str(), dir, linger_s)
        .stdin(stdin)
        .spawn()
        .context("could not start setsid(1), which comes with util-linux")
}

/// Ends `dir` now: what an earlier run could not clean, because its watcher was killed too.
pub(super) async fn sweep(dir: &Path) -> Result<()> {
    if fs::exists(dir)? {
        let mut command = tokio::process::Command::from(watcher("".as_ref(), dir, 0));
        command.stdin(Stdio::null()).status().await?;
    }
    Ok(())
}

fn watcher(lock: &std::ffi::OsStr, dir: &Path, linger_s: u32) -> Command {
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", include_str!("watcher.sh"), "octo-it-watcher"]);
    command.arg(lock).arg(dir).arg(linger_s.to_string());
    command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
    command
}
