//! What stands between a browser and the sites: a proxy that knows the names of the test and nothing else, remembers
//! what was asked for, and refuses what a blocker would. So all browsers are led, watched and blocked in one way.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{self, HeaderValue, StatusCode, header};
use futures_util::stream;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::super::free_address;

/// The most that a page of a test posts, in bytes.
const BODY_LIMIT_BYTES: usize = 1 << 20;

/// A request that a page made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) url: String,
    /// What was posted.
    pub(crate) body: String,
    /// Of the answer; none before there is one, and none where the request was blocked.
    pub(crate) status: Option<u16>,
}

/// A running proxy. It ends with its test.
pub(super) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    names: HashMap<String, SocketAddr>,
    client: reqwest::Client,
    blocked: Mutex<Vec<String>>,
    added: Mutex<Vec<(&'static str, &'static str)>>,
    requests: Mutex<Vec<Request>>,
}

impl Proxy {
    /// Starts it. Each of the names leads to its address, whatever the port in a URL says.
    pub(super) async fn start(names: &[(&str, SocketAddr)]) -> Result<Self> {
        octo::postback::client::provide_tls();
        let redirect = reqwest::redirect::Policy::none();
        let client = reqwest::Client::builder().redirect(redirect).tls_certs_only([]).no_proxy().build()?;
        let state = Arc::new(State {
            names: names.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect(),
            client,
            blocked: Mutex::default(),
            added: Mutex::default(),
            requests: Mutex::default(),
        });
        let listener = TcpListener::bind(free_address()).await?;
        let address = listener.local_addr()?;
        tokio::spawn(state.clone().listen(listener));
        Ok(Self { address, state })
    }

    /// Where it listens.
    pub(super) fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Ends the connection of every request whose URL has one of these patterns (`*` stands for anything).
    pub(super) fn block(&self, patterns: &[&str]) {
        *lock(&self.state.blocked) = patterns.iter().map(|it| (*it).to_owned()).collect();
    }

    /// Adds a header to every request from now on.
    pub(super) fn add_header(&self, name: &'static str, value: &'static str) {
        lock(&self.state.added).push((name, value));
    }

    /// The requests so far whose URL has this in it, in their order.
    pub(super) fn requests(&self, part: &str) -> Vec<Request> {
        let requests = lock(&self.state.requests);
        requests.iter().filter(|request| request.url.contains(part)).cloned().collect()
    }
}

impl State {
    async fn listen(self: Arc<Self>, listener: TcpListener) {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(self.clone().serve(connection));
        }
    }

    async fn serve(self: Arc<Self>, connection: TcpStream) {
        let answer = service_fn(async |request| self.answer(request).await);
        // an error is a browser that went away, or one whose request is refused by ending the connection
        let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), answer).await;
    }

    async fn answer(&self, request: http::Request<Incoming>) -> Result<http::Response<Body>> {
        let uri = request.uri().clone();
        let Some(site) = uri.host().and_then(|name| self.names.get(name)) else {
            // a browser's own maker, too
            let mut unknown = http::Response::new(Body::empty());
            *unknown.status_mut() = StatusCode::BAD_GATEWAY;
            return Ok(unknown);
        };
        let (parts, body) = request.into_parts();
        let body = to_bytes(Body::new(body), BODY_LIMIT_BYTES).await?;
        let place = self.note(&parts, &body);
        let url = uri.to_string();
        ensure!(!lock(&self.blocked).iter().any(|pattern| is_like(&url, pattern)), "blocked");

        let path = uri.path_and_query().context("no path")?;
        let mut onward = self.client.request(parts.method, format!("http://{site}{path}"));
        let own = parts.headers.iter().filter(|(name, _)| !is_between_two(name));
        for (name, value) in own {
            onward = onward.header(name, value);
        }
        for (name, value) in &*lock(&self.added) {
            onward = onward.header(*name, HeaderValue::from_static(value));
        }
        let answer = onward.body(body).send().await?;
        lock(&self.requests)[place].status = Some(answer.status().as_u16());
        let mut response = http::Response::builder().status(answer.status());
        for (name, value) in answer.headers().iter().filter(|(name, _)| !is_between_two(name)) {
            response = response.header(name, value);
        }
        // piece by piece: a stream of events has no end
        let pieces = stream::unfold(answer, async |mut answer| {
            answer.chunk().await.transpose().map(|piece| (piece, answer))
        });
        Ok(response.body(Body::from_stream(pieces))?)
    }

    /// Remembers a request, and gives its place.
    fn note(&self, parts: &http::request::Parts, body: &Bytes) -> usize {
        let mut requests = lock(&self.requests);
        requests.push(Request {
            method: parts.method.to_string(),
            url: parts.uri.to_string(),
            body: String::from_utf8_lossy(body).into_owned(),
            status: None,
        });
        requests.len() - 1
    }
}

/// Whether a header is of one connection and not of the message.
fn is_between_two(name: &header::HeaderName) -> bool {
    let of_connection = [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH];
    of_connection.contains(name) || name.as_str().starts_with("proxy-") || name.as_str() == "keep-alive"
}

/// Whether a text is of a pattern in which `*` stands for anything.
fn is_like(text: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => text == pattern,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            text.char_indices().any(|(at, _)| is_like(&text[at..], rest)) || is_like("", rest)
        }),
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
