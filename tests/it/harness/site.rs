//! A web site of somebody else: pages made up by a test, and a memory of what was asked for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{StatusCode, header},
    response::Response,
};

use super::free_address;

/// One answer of a site.
#[derive(Clone, Default)]
pub(crate) struct Answer {
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Answer {
    /// A page.
    pub(crate) fn page(html: impl Into<String>) -> Self {
        Self { headers: Vec::new(), body: html.into() }.header("content-type", "text/html; charset=utf-8")
    }

    /// With this header.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn response(&self) -> Response {
        let mut response = Response::builder();
        for (name, value) in &self.headers {
            response = response.header(*name, value);
        }
        response.body(Body::from(self.body.clone())).expect("headers of a test")
    }
}

/// A running site. It ends with its test.
pub(crate) struct Site {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Site {
    /// Serves these answers at their paths, whatever the query, and 404 elsewhere.
    pub(crate) async fn start(answers: Vec<(&'static str, Answer)>) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let router = Router::new().fallback(async move |request: Request| {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(request.uri().to_string());
            if request.uri().path() == "/favicon.ico" {
                return no_icon();
            }
            let found = answers.iter().find(|(path, _)| *path == request.uri().path());
            found.map_or_else(not_found, |(_, answer)| answer.response())
        });
        let listener = tokio::net::TcpListener::bind(free_address()).await.expect("a free address");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, asked }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The paths and queries that were asked for, in their order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A browser asks each site for one, and complains of a 404.
fn no_icon() -> Response {
    let headers = [(header::CACHE_CONTROL, "max-age=60")];
    axum::response::IntoResponse::into_response((StatusCode::NO_CONTENT, headers))
}

fn not_found() -> Response {
    axum::response::IntoResponse::into_response(StatusCode::NOT_FOUND)
}
