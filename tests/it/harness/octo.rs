//! The real binary: started on a free port with a data directory of its own, asked, killed, started again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::database::Database;
use super::machine::{Signal, signal};
use super::private::wait_exit;
use super::sandbox::Sandbox;
use super::{POLL, must};

/// What precedes the address in the line that announces it, in text and in JSON logs.
const ANNOUNCEMENT: &str = "listening on http://";
/// Long, because the embedded database of a start without configuration may run `initdb` on a busy machine.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// What clients of tests say they are.
const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const COMMAND_TIMEOUT: Duration = Duration::from_mins(1);

/// How `octo` is to be started. Nothing is inherited from the developer's environment that `octo` would read.
pub(crate) struct OctoBuilder {
    env: Vec<(OsString, OsString)>,
    args: Vec<OsString>,
    wrapper: Vec<OsString>,
    data_dir: Option<PathBuf>,
    socket: Option<std::net::TcpListener>,
    sandbox: Sandbox,
}

impl OctoBuilder {
    /// Sets a variable, after everything set so far.
    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Adds a flag, such as `--log-format` and then `json`, before the subcommand.
    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Starts the server, and no other command, as the last arguments of this one, which must become `octo` and not
    /// its parent: `unshare`, `strace -D`.
    pub(crate) fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(OsString::from).collect();
        self
    }

    /// Starts the server on this socket, inherited as systemd hands it over, under this name or none.
    pub(crate) fn socket(mut self, socket: &std::net::TcpListener, name: &str) -> Self {
        self.socket = Some(socket.try_clone().expect("an open socket"));
        let script = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
        self.env("LISTEN_FDNAMES", name).through(&["sh", "-c", script, "sh"])
    }

    /// What its first start writes to standard error.
    pub(crate) fn log(&self) -> PathBuf {
        stderr_path(self.sandbox.dir(), 1)
    }

    /// Keeps the data here and not in a directory of its own; whoever made it removes it.
    pub(crate) fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Uses this database: the primary, both replicas and its Redis.
    pub(crate) fn database(self, database: &Database) -> Self {
        self.database_url(database.url())
            .env("OCTO_DATABASE__REPLICA_URLS", [database.replica_url(0), database.replica_url(1)].join(","))
            .redis_url(database.redis_url())
    }

    /// Uses this primary.
    pub(crate) fn database_url(self, url: impl Into<String>) -> Self {
        self.env("OCTO_DATABASE__URL", url.into())
    }

    /// Uses this Redis.
    pub(crate) fn redis_url(self, url: impl Into<String>) -> Self {
        self.env("OCTO_REDIS__URL", url.into())
    }

    /// Starts `octo serve` and returns when it has announced its address.
    pub(crate) async fn start(self) -> Octo {
        must(Octo::start(self).await)
    }

    /// Runs a command to its end, for what is not a server: `["config", "check"]`, or a `serve` that must fail.
    pub(crate) async fn run(&self, args: &[&str]) -> Output {
        must(self.try_run(args).await)
    }

    async fn try_run(&self, args: &[&str]) -> Result<Output> {
        let mut command = tokio::process::Command::from(self.command());
        let child =
            command.args(args).kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let output = tokio::time::timeout(COMMAND_TIMEOUT, child.wait_with_output()).await;
        Ok(output.with_context(|| format!("octo {args:?} did not end"))??)
    }

    /// Runs a command to its end with this on its standard input.
    pub(crate) async fn run_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        must(self.try_run_with_input(args, input).await)
    }

    async fn try_run_with_input(&self, args: &[&str], input: &[u8]) -> Result<Output> {
        let mut file = tempfile::tempfile()?;
        std::io::Write::write_all(&mut file, input)?;
        std::io::Seek::rewind(&mut file)?;
        let mut command = self.command();
        command.args(args).stdin(file);
        let running = tokio::process::Command::from(command).kill_on_drop(true).output();
        let output = tokio::time::timeout(COMMAND_TIMEOUT, running).await;
        Ok(output.with_context(|| format!("octo {args:?} did not end"))??)
    }

    fn command(&self) -> Command {
        self.set_up(Command::new(env!("CARGO_BIN_EXE_octo")))
    }

    fn serve_command(&self) -> Command {
        let mut words =
            self.wrapper.iter().map(OsString::as_os_str).chain([env!("CARGO_BIN_EXE_octo").as_ref()]);
        let mut command = Command::new(words.next().expect("octo at least"));
        command.args(words);
        let mut command = self.set_up(command);
        command.arg("serve");
        command
    }

    fn set_up(&self, mut command: Command) -> Command {
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_for_octo(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        // before the test's own settings: the last one wins. Few need the 22,797 rates that are built in, and many the sums of a few rows
        command.env("OCTO_SERVER__LISTEN", "127.0.0.1:0").env("OCTO_MONEY__BUILT_IN_RATES", "false");
        command.env("OCTO_REPORTS__FOLD_ROWS_MIN", "1");
        command.envs(self.env.iter().cloned());
        command.arg("--data-dir").arg(self.data()).args(&self.args);
        command.current_dir(self.sandbox.dir()).process_group(0).stdin(Stdio::null());
        command
    }

    /// Where the data of the server will be.
    pub(crate) fn data(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| self.sandbox.dir().join("data"))
    }
}

/// Variables that `octo`, or sqlx inside it, would read.
fn is_for_octo(name: &str) -> bool {
    let exact =
        ["DATABASE_URL", "REDIS_URL", "DATABASE_URL_FILE", "REDIS_URL_FILE", "PORT", "NO_COLOR", "RUST_LOG"];
    name.starts_with("OCTO_") || (name.starts_with("PG") && name != "PGBIN") || exact.contains(&name)
}

/// A running `octo`. Dropping it kills it; a failing test prints what it said.
pub(crate) struct Octo {
    builder: OctoBuilder,
    child: Child,
    address: SocketAddr,
    starts: u32,
}

impl Octo {
    /// A start with nothing configured but the listener, on a port the kernel chooses.
    pub(crate) fn builder() -> OctoBuilder {
        // the temporary directory: its path is short, and a Unix socket's path may have 100 bytes
        let sandbox = must(Sandbox::create(&std::env::temp_dir(), None, None));
        OctoBuilder {
            env: Vec::new(),
            args: Vec::new(),
            wrapper: Vec::new(),
            data_dir: None,
            socket: None,
            sandbox,
        }
    }

    async fn start(builder: OctoBuilder) -> Result<Self> {
        let mut child = spawn(&builder, 1)?;
        let address = announced(&mut child, &stderr_path(builder.sandbox.dir(), 1)).await?;
        Ok(Self { builder, child, address, starts: 1 })
    }

    /// Starts it again with the same settings and data, on a fresh port. The process before must have ended.
    pub(crate) async fn start_again(&mut self) {
        must(self.try_start_again().await);
    }

    async fn try_start_again(&mut self) -> Result<()> {
        ensure!(
            self.child.try_wait()?.is_some(),
            "octo still runs: kill9() or sigterm() and wait_exit() first"
        );
        self.starts += 1;
        self.child = spawn(&self.builder, self.starts)?;
        self.address =
            announced(&mut self.child, &stderr_path(self.builder.sandbox.dir(), self.starts)).await?;
        Ok(())
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, which begins with a slash.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// An HTTP client that follows no redirect.
    #[expect(clippy::unused_self, reason = "reads as octo.client() beside octo.get()")]
    pub(crate) fn client(&self) -> reqwest::Client {
        let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        // without one, a click is no person's
        let builder = builder.user_agent(BROWSER);
        octo::postback::client::provide_tls();
        let client = builder.tls_certs_only([]).no_proxy().timeout(Duration::from_secs(30)).build();
        client.expect("a client without certificates has nothing that can fail")
    }

    /// One GET on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        let answer = self.client().get(self.url(path)).send().await;
        must(answer.with_context(|| format!("GET {path}")))
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The directory its journal is in.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.builder.data()
    }

    /// Where its working directory, data and logs are.
    pub(crate) fn dir(&self) -> &Path {
        self.builder.sandbox.dir()
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) async fn kill9(&mut self) {
        signal(Signal::Kill, &[self.pid()]);
        self.wait_exit(Duration::from_secs(10)).await;
    }

    /// SIGTERM, and does not wait.
    pub(crate) fn sigterm(&self) {
        signal(Signal::Term, &[self.pid()]);
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Waits for its end.
    pub(crate) async fn wait_exit(&mut self, timeout: Duration) -> ExitStatus {
        must(wait_exit(&mut self.child, timeout).await)
    }

    /// Everything it has written to standard error, over all its starts.
    pub(crate) fn stderr(&self) -> String {
        let dir = self.builder.sandbox.dir();
        (1..=self.starts).map(|start| read(&stderr_path(dir, start))).collect()
    }

    /// What it has written to standard error since its last start.
    pub(crate) fn stderr_of_this_start(&self) -> String {
        read(&stderr_path(self.builder.sandbox.dir(), self.starts))
    }

    /// Runs a command with the same settings and data directory, to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Output {
        self.builder.run(args).await
    }

    /// What `octo journal inspect --json` says of the journal, also of one that only the running server sees.
    pub(crate) async fn inspect_journal(&self) -> serde_json::Value {
        must(self.try_inspect_journal().await.context("octo journal inspect"))
    }

    async fn try_inspect_journal(&self) -> Result<serde_json::Value> {
        let mut command = self.builder.command();
        command.env("OCTO_JOURNAL__DIR", self.path_as_it_sees(&self.data_dir().join("journal")));
        let output =
            tokio::process::Command::from(command).args(["journal", "inspect", "--json"]).output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// A path in the mount namespace of the running server.
    pub(crate) fn path_as_it_sees(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid()));
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// A new token for the admin API, made by the command line.
    pub(crate) async fn admin_token(&self) -> String {
        self.token("admin").await
    }

    /// A new token of the scope `admin`, `read`, `ingest` or `metrics`.
    pub(crate) async fn token(&self, scope: &str) -> String {
        let output = self.run(&["token", "create", "--scope", scope]).await;
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "octo token create: {}: {stderr}", output.status);
        assert_eq!(stdout.lines().count(), 1, "standard output is the token and nothing else: {stdout}");
        stdout.trim().to_owned()
    }
}

impl Drop for Octo {
    fn drop(&mut self) {
        // an error here means that it has ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- standard error of octo\n{}---", self.stderr());
        }
    }
}

fn spawn(builder: &OctoBuilder, start: u32) -> Result<Child> {
    let dir = builder.sandbox.dir();
    let stderr = File::create(stderr_path(dir, start))?;
    let stdout = File::create(dir.join(format!("stdout-{start}.log")))?;
    let mut command = builder.serve_command();
    if let Some(socket) = &builder.socket {
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(socket.try_clone()?)));
    }
    command.stdout(stdout).stderr(stderr).spawn().context("could not start octo")
}

fn stderr_path(dir: &Path, start: u32) -> PathBuf {
    dir.join(format!("stderr-{start}.log"))
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Waits for the announcement of the address; the error quotes what was said instead.
async fn announced(child: &mut Child, stderr: &Path) -> Result<SocketAddr> {
    let deadline = tokio::time::Instant::now() + START_TIMEOUT;
    loop {
        let ended = child.try_wait()?; // before the read, or its last words could be missed
        let said = read(stderr);
        if let Some(address) = announced_address(&said) {
            return Ok(address);
        }
        if let Some(status) = ended {
            bail!("octo ended before it listened, {status}:\n{said}");
        }
        if tokio::time::Instant::now() >= deadline {
            let _ = child.kill(); // it is about to be forgotten
            bail!("octo did not announce its address within {START_TIMEOUT:?}:\n{said}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The address in the first complete line that announces one.
pub(crate) fn announced_address(log: &str) -> Option<SocketAddr> {
    let complete = &log[..=log.rfind('\n')?];
    let (_, rest) = complete.split_once(ANNOUNCEMENT)?;
    let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)))?;
    rest[..end].trim_end_matches(['.', ':']).parse().ok()
}
