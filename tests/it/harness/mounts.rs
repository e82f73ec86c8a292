//! Disks of an octo's own: a mount namespace that nobody else sees.

use std::{fs, os::unix::fs::MetadataExt, process::Command};

use super::OctoBuilder;

impl OctoBuilder {
    /// Starts the server in a mount namespace of its own, after this script, whose first argument is the directory of
    /// the journal and which must become the others.
    pub(crate) fn with_mounts(self, script: &str) -> Self {
        // root in a user namespace of one's own may mount as well, where the kernel allows that
        let is_root = fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
        let unshare = if is_root { "-m" } else { "-rm" };
        let allowed =
            Command::new("unshare").args([unshare, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
        assert!(
            allowed.as_ref().is_ok_and(|output| output.status.success()),
            "this run mounts a small disk in a mount namespace of its own; that needs unshare(1) and root, or a kernel \
             that allows it to others; and in a chroot, a root that is a mount (mount --bind DIR DIR): {allowed:?}"
        );
        let dir = self.data().join("journal");
        self.through(&["unshare", unshare, "sh", "-c", script, "sh", dir.to_str().expect("a plain path")])
    }
}
