//! What octo keeps on disk is nobody else's business, whatever the umask.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;

use crate::{
    harness::{Database, Octo, eventually},
    tracker::{OFFER, SOON},
};

const OTHERS: u32 = 0o077;
/// `nobody` of Debian.
const NOBODY: u32 = 65_534;

/// A file or directory and everything below it.
fn all_below(path: &Path, found: &mut Vec<PathBuf>) {
    found.push(path.to_owned());
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        all_below(&entry.path(), found);
    }
}

/// Everything that is to be private, and of it what others have a permission on.
fn private(data: &Path) -> (Vec<PathBuf>, Vec<(PathBuf, u32)>) {
    let mut all = vec![data.join("campaigns.json")];
    all_below(&data.join("journal"), &mut all);
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let open =
        all.iter().map(|path| (path.clone(), mode(path))).filter(|(_, mode)| mode & OTHERS != 0).collect();
    (all, open)
}

/// Whether `nobody` can read a file; only root can ask.
fn can_nobody_read(path: &Path) -> bool {
    let mut cat = Command::new("cat");
    cat.arg(path)
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .output()
        .expect("cat(1), and root")
        .status
        .success()
}

#[tokio::test]
async fn other_users_cannot_read_what_octo_keeps_whatever_the_umask() {
    let database = Database::create("permissions").await;
    let builder = Octo::builder().database_url(database.url());
    let mut octo = builder.through(&["sh", "-c", "umask 000; exec \"$@\"", "sh"]).start().await;
    octo.create_campaign("demo", OFFER).await;
    let data = octo.data_dir();
    eventually(SOON, async || {
        ensure!(data.join("campaigns.json").is_file(), "not saved yet");
        Ok(())
    })
    .await;
    assert_eq!(octo.get("/click?cid=demo&sub1=secret").await.status(), 302);

    let (all, open) = private(&data);
    assert!(all.len() >= 5, "journal, lock, stream, segment, campaigns: {all:?}");
    assert!(open.is_empty(), "{open:?}");
    let mode = fs::metadata(&data).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o755, "the user of the private PostgreSQL passes through, and nobody else writes");

    // what an octo of before left open is closed
    octo.kill9().await;
    for path in &all {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let segment = all.iter().find(|path| path.extension().is_some_and(|e| e == "seg")).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        assert!(can_nobody_read(segment), "the check itself works");
    }
    octo.start_again().await;
    let (_, open) = private(&data);
    assert!(open.is_empty(), "{open:?}");
    if is_root {
        assert!(!can_nobody_read(segment), "{}", segment.display());
    }
}
