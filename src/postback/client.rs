//! One attempt: a request to a public address, and what came back within its time.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use reqwest::{Client, header, redirect};
use tokio::time::timeout;
use url::Url;

use super::{
    guard::{Guard, NotPublic},
    message::{Message, Ready},
    schedule::Answered,
};
use crate::{config, model::postback_target::Method};

/// How much of an answer is kept, in bytes.
const ANSWER_KEPT_BYTES: usize = 1024;

/// Sends requests.
#[derive(Debug, Clone)]
pub struct Sender {
    client: Client,
    guard: Guard,
    timeout: Duration,
    answer_bytes_max: usize,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When it began, by this node's clock.
    pub at: DateTime<Utc>,
    /// How.
    pub method: Method,
    /// Where to, without what is secret in it.
    pub url: String,
    /// `None`: there was no answer.
    pub status: Option<u16>,
    /// How the answer begins.
    pub answer: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// `None`: it succeeded.
    pub error: Option<String>,
    /// What follows from it.
    pub answered: Answered,
}

/// What came back.
struct Response {
    status: u16,
    retry_after: Option<Duration>,
    location: Option<String>,
    body: String,
}

/// Lets TLS be done by ring. To be called before a client is made; another call changes nothing.
pub fn provide_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default(); // an error: there is one
}

impl Sender {
    /// A client that follows no redirect by itself, knows no proxy, and connects to where the guard lets it.
    pub fn new(config: &config::Deliveries) -> reqwest::Result<Self> {
        provide_tls();
        let guard = Guard::new(&config.allowed_networks);
        let builder = || {
            Client::builder()
                .user_agent(concat!("octo/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .no_proxy()
                .dns_resolver(guard.clone())
                .pool_max_idle_per_host(config.host_concurrency_max)
        };
        let client = builder().build().or_else(|error| {
            tracing::warn!(
                error = format!("{:#}", anyhow::Error::from(error)),
                "the certificates of this machine cannot be read: postbacks to https:// fail"
            );
            builder().tls_certs_only([]).build()
        })?;
        Ok(Self { client, guard, timeout: config.timeout, answer_bytes_max: config.answer_bytes_max })
    }

    /// Sends a message to its target.
    pub async fn send(&self, ready: &Ready, message: &Message) -> Attempt {
        let (at, start) = (Utc::now(), Instant::now());
        let response = timeout(self.timeout, self.follow(ready, message)).await;
        let response = response.unwrap_or_else(|_| Err("no answer within the time-out".to_owned()));
        let mut attempt = Attempt {
            at,
            method: message.method,
            url: message.url.shown.clone(),
            status: None,
            answer: None,
            took: start.elapsed(),
            error: None,
            answered: Answered::Failure,
        };
        match response {
            Ok(response) => attempt.note(ready, &response),
            Err(error) => attempt.error = Some(error),
        }
        attempt
    }

    /// The last answer of as many redirects as the target follows.
    async fn follow(&self, ready: &Ready, message: &Message) -> Result<Response, String> {
        let mut url = message.address().ok_or("the template makes no address")?;
        let (first_host, mut method) = (url.host_str().map(str::to_owned), message.method);
        let mut hops = ready.target.terms.follow_redirects;
        loop {
            // what is for one host is not told another
            let is_first = url.host_str() == first_host.as_deref();
            let response = self.request(message, method, &url, is_first).await?;
            let next = response.location.as_deref().and_then(|location| url.join(location).ok());
            match next.filter(|_| hops > 0 && matches!(response.status, 301 | 302 | 303 | 307 | 308)) {
                Some(next) if matches!(next.scheme(), "http" | "https") => url = next,
                _ => return Ok(response),
            }
            if !matches!(response.status, 307 | 308) {
                method = Method::Get;
            }
            hops -= 1;
        }
    }

    async fn request(
        &self,
        message: &Message,
        method: Method,
        url: &Url,
        is_first: bool,
    ) -> Result<Response, String> {
        if !self.guard.lets_url(url) {
            return Err(NotPublic.to_string());
        }
        let mut request = match method {
            Method::Get => self.client.get(url.clone()),
            Method::Post => self.client.post(url.clone()),
        };
        for (name, value) in message.headers.iter().filter(|_| is_first) {
            request = request.header(name, &value.sent);
        }
        if let (Method::Post, Some(body)) = (method, &message.body) {
            request = request.body(body.sent.clone());
        }
        let mut response = request.send().await.map_err(plain)?;
        let status = response.status().as_u16();
        let text =
            |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (location, retry_after) = (text(header::LOCATION), text(header::RETRY_AFTER));
        let mut body = Vec::new();
        while body.len() < self.answer_bytes_max {
            match response.chunk().await.map_err(plain)? {
                Some(chunk) => body.extend_from_slice(&chunk),
                None => break,
            }
        }
        body.truncate(self.answer_bytes_max);
        let body = String::from_utf8_lossy(&body).replace('\0', "\u{fffd}");
        let retry_after = retry_after.and_then(|text| read_retry_after(&text, Utc::now()));
        Ok(Response { status, retry_after, location, body })
    }
}

impl Attempt {
    fn note(&mut self, ready: &Ready, response: &Response) {
        let Response { status, retry_after, body, .. } = response;
        self.status = Some(*status);
        self.answer = Some(cut(body));
        let judged = ready.judge(*status, body);
        self.error = judged.err().map(str::to_owned);
        let is_success = self.error.is_none();
        let terms = &ready.target.terms;
        let has_status = (terms.success_status_min..=terms.success_status_max).contains(&i32::from(*status));
        self.answered = match (is_success, has_status) {
            (true, _) => Answered::Success,
            (false, true) => Answered::Failure,
            (false, false) => Answered::Status { status: *status, retry_after: *retry_after },
        };
    }
}

/// At most so many bytes, whole characters.
fn cut(body: &str) -> String {
    body[..body.floor_char_boundary(ANSWER_KEPT_BYTES)].to_owned()
}

/// The causes of an error, without the address: there are secrets in it.
fn plain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut causes: Vec<String> = Vec::new();
    let mut source: Option<&dyn std::error::Error> = Some(&error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    causes.dedup();
    causes.join(": ")
}

/// Seconds, or a time (RFC 9110 section 10.2.3).
fn read_retry_after(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = DateTime::parse_from_rfc2822(text.trim()).ok()?;
    (at.to_utc() - now).to_std().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_time() {
        let now = "2026-11-30T12:00:00Z".parse().unwrap();
        for (text, wanted) in [
            ("120", Some(120)),
            ("Mon, 30 Nov 2026 12:01:00 GMT", Some(60)),
            ("Mon, 30 Nov 2026 11:00:00 GMT", None),
            ("soon", None),
            ("-5", None),
        ] {
            assert_eq!(read_retry_after(text, now), wanted.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn an_answer_is_cut_between_characters() {
        assert_eq!(cut(&"\u{e9}".repeat(600)).len(), 1024);
        assert_eq!(cut(&format!("x{}", "\u{e9}".repeat(600))).len(), 1023);
        assert_eq!(cut("OK"), "OK");
    }
}
