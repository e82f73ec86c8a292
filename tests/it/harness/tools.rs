//! Programs from PyPI and npm that `./test` puts into the target directory, with what they need beside them.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use tokio::process::Command;

/// A program of a tool that runs in `dir`, where it may leave what it likes; files of `dir` can be imported.
pub(crate) struct Tool {
    command: Command,
    name: &'static str,
}

impl Tool {
    /// The program that has the tool's name; no Python where it is a script of `dir` (see [`Tool::script`]).
    pub(crate) fn program(name: &'static str, dir: &Path) -> Self {
        let program = place(name).join("bin").join(name);
        let mut tool = Self::script(name, dir);
        tool.command.arg(program);
        tool
    }

    /// Python with the tool's modules, for a script that is the first argument.
    pub(crate) fn script(name: &'static str, dir: &Path) -> Self {
        let place = place(name);
        assert!(place.is_dir(), "{name} is missing: ./test installs it into {}", place.display());
        let path_of = |first: PathBuf, then: OsString| {
            let mut path = OsString::from(first);
            path.push(":");
            path.push(then);
            path
        };
        let mut command = Command::new("python3");
        command
            .current_dir(dir)
            .kill_on_drop(true)
            .env("PYTHONPATH", path_of(place.clone(), dir.into()))
            .env("PATH", path_of(place.join("bin"), std::env::var_os("PATH").unwrap_or_default()))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NO_PROXY", "*");
        Self { command, name }
    }

    /// The program of a package of npm, among those of `tests/it/dashboard/quality/package.json`.
    pub(crate) fn of_npm(name: &'static str, dir: &Path) -> Self {
        let mut command = Command::new(npm_package(".bin").join(name));
        command.current_dir(dir).kill_on_drop(true);
        Self { command, name }
    }

    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.command.arg(arg.into());
        self
    }

    pub(crate) fn args<'a>(self, args: impl IntoIterator<Item = &'a str>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end, which must be a good one; what it said.
    pub(crate) async fn run(self, limit: Duration) -> String {
        let name = self.name;
        let Output { status, stdout, stderr } = self.end(limit).await;
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{name}: {status}\n{stdout}\n{stderr}");
        stdout.into_owned()
    }

    /// Runs it to its end, whatever that is.
    pub(crate) async fn end(mut self, limit: Duration) -> Output {
        let ended = tokio::time::timeout(limit, self.command.output()).await;
        let output = ended.unwrap_or_else(|_| panic!("{} did not end within {limit:?}", self.name));
        output.unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.name))
    }
}

/// Where a package of npm is.
pub(crate) fn npm_package(name: &str) -> PathBuf {
    let place = place("pages").join("node_modules").join(name);
    assert!(place.exists(), "{name} is missing: ./test installs it into {}", place.display());
    place
}

/// Beside the programs that cargo builds.
fn place(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_octo")).ancestors().nth(2).expect("target/debug/octo");
    target.join("tools").join(name)
}
