//! Several octos on one database, and what they say of themselves.

use anyhow::Context;
use reqwest::{Method, Response};
use serde_json::Value;

use super::{
    Octo, OctoBuilder,
    api::campaign,
    eventually,
    tracker::{OFFER, SOON},
    wire::Proxy,
};

/// A running octo and a token for its API.
pub(crate) struct Node {
    pub(crate) octo: Octo,
    pub(crate) token: String,
    // octo connects through it
    pub(crate) proxy: Proxy,
}

impl Node {
    /// On the database at `url`, by way of a proxy. Nobody polls within a test, unless `set` says so.
    pub(crate) async fn start(url: &str, set: impl FnOnce(OctoBuilder) -> OctoBuilder) -> Self {
        let proxy = Proxy::start(url).await;
        let builder = Octo::builder().database_url(proxy.url(url)).env("OCTO_CACHE__POLL_INTERVAL_S", "60");
        let builder = builder.env("OCTO_REDIS__KEY_PREFIX", "t:");
        let octo = set(builder).start().await;
        let token = octo.admin_token().await;
        Self { octo, token, proxy }
    }

    /// One that hears no notification of Postgres.
    pub(crate) async fn start_deaf(url: &str, set: impl FnOnce(OctoBuilder) -> OctoBuilder) -> Self {
        let node = Self::start(url, set).await;
        node.proxy.deafen();
        node
    }

    pub(crate) async fn api(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let request = self.octo.api(&self.token).request(method, path);
        let request = match &body {
            Some(body) => request.json(body),
            None => request,
        };
        request.send().await.expect("an answer")
    }

    /// `GET` of the API, which must succeed.
    pub(crate) async fn show(&self, path: &str) -> Value {
        self.octo.api(&self.token).show(path).await
    }

    /// Creates a campaign with one offer.
    pub(crate) async fn create(&self, key: &str) {
        self.octo.api(&self.token).create(&campaign(key, OFFER)).await;
    }

    /// `pause`, `resume` or another verb of a campaign, which must succeed.
    pub(crate) async fn turn(&self, key: &str, verb: &str) {
        let path = format!("/campaigns/{key}/{verb}");
        assert_eq!(self.api(Method::POST, &path, None).await.status(), 200, "{path}");
    }

    /// The status of a click.
    pub(crate) async fn click(&self, key: &str) -> u16 {
        self.octo.get(&format!("/click?cid={key}")).await.status().as_u16()
    }

    /// Waits until a click is answered like this.
    pub(crate) async fn wait_click(&self, key: &str, wanted: u16) {
        eventually(SOON, async || {
            let status = self.click(key).await;
            anyhow::ensure!(status == wanted, "{status}");
            Ok(())
        })
        .await;
    }

    /// A figure of a layer in `/system/cache`.
    pub(crate) async fn layer(&self, layer: &str, figure: &str) -> u64 {
        let report = self.show("/system/cache").await;
        let layers = report["layers"].as_array().expect("layers");
        let found = layers.iter().find(|l| l["layer"] == layer).expect("the layer");
        found[figure].as_u64().with_context(|| format!("{figure} of {found}")).unwrap()
    }
}

/// How often a campaign was looked up in Postgres.
pub(crate) const BY_KEY: &str = "octo_db_query_duration_seconds_count{query=\"campaign.by_key\"}";
