//! The client of `/api/v1`.

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use super::Octo;

impl Octo {
    /// The API of this octo, with a token.
    pub(crate) fn api<'a>(&'a self, token: &'a str) -> Api<'a> {
        Api { octo: self, token }
    }

    /// Creates an active campaign with one offer, by a token of its own.
    pub(crate) async fn create_campaign(&self, key: &str, offer: &str) {
        let token = self.admin_token().await;
        self.api(&token).create(&campaign(key, offer)).await;
    }
}

/// Asks as one token. Paths begin after `/api/v1`.
#[derive(Clone, Copy)]
pub(crate) struct Api<'a> {
    octo: &'a Octo,
    token: &'a str,
}

impl Api<'_> {
    /// A request, to be completed and sent.
    pub(crate) fn request(self, method: Method, path: &str) -> RequestBuilder {
        let url = self.octo.url(&format!("/api/v1{path}"));
        self.octo.client().request(method, url).bearer_auth(self.token)
    }

    /// A `GET`, to be completed and sent.
    pub(crate) fn get(self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// A `POST`, to be completed and sent.
    pub(crate) fn post(self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// `GET`, which must succeed.
    pub(crate) async fn show(self, path: &str) -> Value {
        let (status, body) = answer(self.get(path)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// Creates a campaign, which must succeed.
    pub(crate) async fn create(self, campaign: &Value) -> Value {
        let (status, body) = answer(self.post("/campaigns").json(campaign)).await;
        assert_eq!(status, StatusCode::CREATED, "{campaign}: {body}");
        body
    }
}

/// An active campaign with one offer, as it is sent.
pub(crate) fn campaign(key: &str, offer: &str) -> Value {
    json!({ "key": key, "name": key, "offers": [{ "name": "o", "url": offer }] })
}

/// Sends a request: the status and the JSON of the answer, null where its body is empty.
pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status();
    (status, json_of(response).await)
}

/// The JSON of an answer, null where its body is empty.
pub(crate) async fn json_of(response: Response) -> Value {
    let text = response.text().await.expect("a body");
    if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") }
}
