//! Prometheus and its promtool, of the Debian package `prometheus`.

use std::fs::{self, File};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::machine::{Claim, command, private_addresses, server_user, servers_dir};
use super::sandbox::Sandbox;
use super::{eventually, must};

const REMEDY: &str = "the tests need the Debian package prometheus: run ./test, which installs it, or apt-get install prometheus";
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The files of this repository that Prometheus is given.
pub(crate) fn config_dir() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus"))
}

/// Runs promtool in `config/prometheus` to its end, with this on its standard input.
pub(crate) async fn promtool(args: &[&str], input: &str) -> Output {
    let mut promtool = tokio::process::Command::new("promtool");
    promtool.args(args).current_dir(config_dir()).kill_on_drop(true);
    promtool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = must(promtool.spawn().context(REMEDY));
    let mut stdin = child.stdin.take().expect("it is piped");
    let (written, output) =
        tokio::join!(async move { stdin.write_all(input.as_bytes()).await }, child.wait_with_output());
    // one that reads no input may be gone before it is written
    drop(written);
    must(output.context("promtool did not end"))
}

/// A Prometheus that scrapes one octo, with the configuration and the rules of this repository. Dropping it ends it.
pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddrV4,
    sandbox: Sandbox,
}

impl Prometheus {
    /// Starts it, and returns when it answers.
    pub(crate) async fn start(octo: SocketAddr) -> Self {
        must(Self::try_start(octo).await.context("could not start Prometheus"))
    }

    async fn try_start(octo: SocketAddr) -> Result<Self> {
        let (claim, address) = Claim::first(private_addresses(), 9090)?;
        let sandbox = Sandbox::create(servers_dir()?, server_user()?, Some(claim))?;
        configure(sandbox.dir(), octo, address)?;
        let log = File::create(sandbox.dir().join("prometheus.log"))?;
        let mut prometheus = command("prometheus", sandbox.dir())?;
        prometheus.args(["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"]);
        prometheus.arg(format!("--web.listen-address={address}"));
        let child = prometheus.stdout(log.try_clone()?).stderr(log).spawn().context(REMEDY)?;
        let prometheus = Self { child, address, sandbox };
        eventually(START_TIMEOUT, async || {
            let answer = prometheus.get("/-/ready").await?;
            ensure!(answer.status().is_success(), "{}: {}", answer.status(), prometheus.log());
            Ok(())
        })
        .await;
        Ok(prometheus)
    }

    async fn get(&self, path_and_query: &str) -> Result<reqwest::Response> {
        octo::postback::client::provide_tls();
        let builder = reqwest::Client::builder().tls_certs_only([]).no_proxy();
        let client = builder.timeout(Duration::from_secs(10)).build()?;
        let answer = client.get(format!("http://{}{path_and_query}", self.address)).send().await;
        answer.with_context(|| self.log())
    }

    /// The `data` of an answer of its API, `/api/v1` left out.
    pub(crate) async fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let mut answer: Value = self.get(&format!("/api/v1{path}?{query}")).await?.json().await?;
        ensure!(answer["status"] == "success", "{answer}");
        Ok(answer["data"].take())
    }

    /// The one value of an instant query.
    pub(crate) async fn value(&self, query: &str) -> Result<f64> {
        let data = self.api("/query", &[("query", query)]).await?;
        let value = data["result"][0]["value"][1].as_str().with_context(|| format!("{query}: {data}"))?;
        Ok(value.parse()?)
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.sandbox.dir().join("prometheus.log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // an error here means that it has ended already; the sandbox's watcher waits for the rest
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The repository's own files, led to this octo and asked each second.
fn configure(dir: &Path, octo: SocketAddr, own: SocketAddrV4) -> Result<()> {
    let config = fs::read_to_string(config_dir().join("prometheus.yml"))?;
    let mut changed = config.clone();
    for (old, new) in [
        ("scrape_interval: 15s", "scrape_interval: 1s"),
        ("scrape_timeout: 10s", "scrape_timeout: 1s"),
        ("evaluation_interval: 15s", "evaluation_interval: 1s"),
        ("octo:9080", &octo.to_string()),
        ("localhost:9090", &own.to_string()),
    ] {
        ensure!(changed.contains(old), "prometheus.yml has no {old}");
        changed = changed.replace(old, new);
    }
    fs::write(dir.join("prometheus.yml"), changed)?;
    fs::copy(config_dir().join("alerts.yml"), dir.join("alerts.yml"))?;
    Ok(())
}
